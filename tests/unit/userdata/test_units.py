"""The units, judged by this machine's systemd. Does not prove that Debian 13's starts them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kits import kit
from userdata.cloud_config import FILES
from userdata.files import agent

UNITS = "etc/systemd/system"
STOCK = Path("/usr/lib/systemd/system/openvpn-server@.service")

pytestmark = pytest.mark.allow_subprocess


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with our units over the system's."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    if not STOCK.exists():
        pytest.skip("no openvpn on this machine, so not the unit that ours changes")
    root = tmp_path_factory.mktemp("root")
    for tree in ("root", "routed"):
        shutil.copytree(FILES / tree, root, dirs_exist_ok=True)
    shutil.copytree(STOCK.parent, root / "usr/lib/systemd/system", symlinks=True)
    for program in ("bin/sh", "usr/bin/python3", "usr/bin/cp", "usr/sbin/nft", "usr/sbin/openvpn"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).touch(mode=0o755)
    return root


def analyze(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = ["systemd-analyze", f"--root={root}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("unit", "most"),
    [
        ("openvpn-server@server.service", 25),
        ("drawbridge-nftables.service", 25),
        ("drawbridge-agent.service", 35),
        ("drawbridge-patches.service", 30),
        ("drawbridge-connections.service", 35),
        ("drawbridge-path-mtu.service", 30),
    ],
)
def test_exposure(root: Path, unit: str, most: int) -> None:
    """Tenths of systemd's exposure level."""
    for threshold, status in ((most, 0), (1, 1)):
        result = analyze(root, "security", "--offline=yes", "--no-pager", f"--threshold={threshold}", unit)
        assert result.returncode == status, result.stdout + result.stderr


@pytest.mark.parametrize(
    "unit",
    [
        "openvpn-server@server.service",
        "drawbridge-nftables.service",
        "drawbridge-agent.service",
        "drawbridge-agent.timer",
        "drawbridge-patches.service",
        "drawbridge-patches.timer",
        "drawbridge-connections.service",
        "drawbridge-path-mtu.service",
    ],
)
def test_no_complaint(root: Path, unit: str) -> None:
    result = analyze(root, "verify", "--man=no", "--recursive-errors=no", unit)
    ours = [line for line in result.stderr.splitlines() if "drawbridge" in line or "openvpn" in line]
    assert ours == []


def test_a_complaint_is_seen(root: Path) -> None:
    """Control: an unknown setting shows."""
    (root / UNITS / "drawbridge-wrong.service").write_text("[Service]\nExecStart=/usr/bin/cp\nProtectSytem=yes\n")
    assert (
        "ProtectSytem"
        in analyze(root, "verify", "--man=no", "--recursive-errors=no", "drawbridge-wrong.service").stderr
    )


@pytest.mark.parametrize(("entries", "expected"), [(3700, 65536), (262144, 262144)])
def test_the_connection_table_is_raised_and_never_lowered(tmp_path: Path, entries: int, expected: int) -> None:
    maximum, timeout = tmp_path / "nf_conntrack_max", tmp_path / "nf_conntrack_tcp_timeout_established"
    maximum.write_text(f"{entries}\n")
    timeout.write_text("432000\n")
    script = FILES / "root/etc/drawbridge/size-conntrack"
    subprocess.run(["/bin/sh", script, tmp_path], check=True, timeout=10)
    assert (int(maximum.read_text()), int(timeout.read_text())) == (expected, 7440)


def test_the_filter_s_unit_gives_the_connection_table_room_at_boot_and_after_each_release(root: Path) -> None:
    """Its keys exist only after the filter has loaded the module."""
    lines = (root / UNITS / "drawbridge-nftables.service").read_text().splitlines()
    script = "/bin/sh /etc/drawbridge/size-conntrack"
    for setting, more in (("ExecStart", "ExecStartPost"), ("ExecReload", "ExecReload")):
        load = lines.index(f"{setting}=/usr/sbin/nft -f /etc/drawbridge/nftables.conf")
        assert lines.index(f"{more}=-+{script}") > load


@pytest.mark.parametrize(
    ("file", "seconds"),
    [
        # Its libraries take a second or two to load on a processor that is not throttled.
        ("drawbridge-metrics.service", 200),
        # Else systemd ends a slow start before the agent can call it slow, and the agent refuses the release for good.
        ("openvpn-server@.service.d/drawbridge.conf", agent.COMMAND_TIMEOUT + 1),
    ],
)
def test_a_unit_has_time_on_an_instance_without_cpu_credits(file: str, seconds: float) -> None:
    """Such an instance takes 20 times as long."""
    lines = (FILES / "root" / UNITS / file).read_text().splitlines()
    (timeout,) = (line.partition("=")[2] for line in lines if line.startswith("TimeoutStartSec="))
    assert float(timeout) >= seconds


def test_a_link_has_time_to_stop_on_a_busy_machine() -> None:
    """Else systemd kills OpenVPN before it has said goodbye, and calls the link failed."""
    lines = (kit.FILES / "links" / UNITS / "drawbridge-link@.service").read_text().splitlines()
    (timeout,) = (line.partition("=")[2] for line in lines if line.startswith("TimeoutStopSec="))
    assert float(timeout) >= 20
