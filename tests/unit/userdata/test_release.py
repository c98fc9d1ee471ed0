"""A release's bytes. Does not prove that a gateway runs on it."""

import io
import json
import subprocess
import sys
import tarfile
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import GATEWAY_SECRETS
from openvpn.model import Tunnel
from openvpn.server import render_server
from tests.support import gateway
from userdata import release
from userdata.cloud_config import FILES
from userdata.files import agent


def test_everything_in_it() -> None:
    assert sorted(gateway.release_contents(gateway.build_release(revoked={5: "carol", 10**30: ""}))) == [
        "agent.py",
        "ccd/alice",
        "ccd/bob",
        "connection-log",
        "connections.py",
        "maintenance-window",
        "manifest.json",
        "metrics-level",
        "metrics.py",
        "patches.py",
        "path-mtu.json",
        "path_mtu.py",
        f"revoked/{10**30}",
        "revoked/5",
        "root/etc/apt/apt.conf.d/91drawbridge",
        "root/etc/drawbridge/nftables.conf",
        "root/etc/drawbridge/size-conntrack",
        "root/etc/drawbridge/verify-key",
        "root/etc/openvpn/server/server.conf",
        "root/etc/sysctl.d/90-drawbridge.conf",
        "root/etc/systemd/network/10-drawbridge-tun0.netdev",
        "root/etc/systemd/network/10-drawbridge-tun0.network",
        "root/etc/systemd/resolved.conf.d/drawbridge.conf",
        "root/etc/systemd/system/drawbridge-agent.service",
        "root/etc/systemd/system/drawbridge-agent.service.d/path-mtu.conf",
        "root/etc/systemd/system/drawbridge-agent.timer",
        "root/etc/systemd/system/drawbridge-connections.service",
        "root/etc/systemd/system/drawbridge-metrics.service",
        "root/etc/systemd/system/drawbridge-metrics.timer",
        "root/etc/systemd/system/drawbridge-metrics.timer.d/interval.conf",
        "root/etc/systemd/system/drawbridge-nftables.service",
        "root/etc/systemd/system/drawbridge-patches.service",
        "root/etc/systemd/system/drawbridge-patches.timer",
        "root/etc/systemd/system/drawbridge-path-mtu.service",
        "root/etc/systemd/system/openvpn-server@.service.d/drawbridge.conf",
        "root/etc/systemd/system/openvpn-server@.service.d/routed.conf",
        "root/etc/sysusers.d/drawbridge.conf",
        "root/etc/tmpfiles.d/openvpn.conf",
    ]


def test_what_is_in_the_files() -> None:
    files = gateway.release_contents(gateway.build_release(revoked={5: "carol", 6: ""}))
    assert files["root/etc/openvpn/server/server.conf"].decode() == render_server(gateway.TUNNEL)
    assert (files["revoked/5"], files["revoked/6"]) == (b"carol\n\n", b"")
    files = gateway.release_contents(gateway.build_release(revoked={5: "carol", 6: ""}, not_after="2027-01-01"))
    assert (files["revoked/5"], files["revoked/6"]) == (b"carol\n2027-01-01\n", b"\n2027-01-01\n")
    assert files["agent.py"] == (FILES / "agent.py").read_bytes()
    manifest = agent.read_manifest(files["manifest.json"].decode())
    beside = ("drawbridge-patches.timer",)
    assert manifest == agent.Manifest(
        instances=("server",), secrets=GATEWAY_SECRETS, beside=beside, check=agent.CHECKED
    )
    assert json.loads(files["manifest.json"])["format"] == agent.FORMAT


def test_the_agent_takes_it_without_any_client() -> None:
    release = gateway.build_release(Tunnel(pool=IPv4Network("10.8.0.0/24")))
    contents = {str(path): content for path, content in agent.read_archive(release.archive)}
    assert (contents["ccd"], contents["revoked"]) == (None, None), "OpenVPN does not start without the directories"


def test_it_is_known_by_its_digest() -> None:
    release = gateway.build_release()
    assert release.sha256 == sha256(release.archive).hexdigest()
    assert repr(release) == f"Release(sha256='{release.sha256}')"


def test_nothing_of_time_and_place_is_in_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(gateway.build_release().archive)) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert {oct(m.mode) for m in members} == {"0o644", "0o755"}
    assert gateway.build_release().archive[4:8] == bytes(4), "gzip's own time"


@given(st.dictionaries(st.integers(1, 2**160), st.sampled_from(["", "alice"]), max_size=5), st.randoms())
def test_same_values_same_bytes(revoked: dict[int, str], random: object) -> None:
    shuffled = list(revoked.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert gateway.build_release(revoked=revoked) == gateway.build_release(revoked=dict(shuffled))
    if not any(revoked.values()):
        assert gateway.build_release(revoked=list(revoked)) == gateway.build_release(revoked=revoked)
    assert (gateway.build_release(revoked=revoked) == gateway.build_release()) is not bool(revoked)


#: Imports the program's wiring on a system without the modules that only Unix has.
IMPORT_PROGRAM = """
import sys
sys.modules.update(fcntl=None, pwd=None, grp=None, termios=None, resource=None)
import program.single, program.pair
"""


@pytest.mark.allow_subprocess
def test_the_program_runs_where_python_has_no_modules_of_unix() -> None:
    """`pulumi up` on Windows."""
    root = Path(__file__).parents[3]
    argv = [sys.executable, "-c", IMPORT_PROGRAM]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_takes_the_format_that_a_release_has() -> None:
    assert release.FORMAT == agent.FORMAT


def test_the_agent_takes_as_much_as_a_release_may_have() -> None:
    limits = (agent.MAX_FILES, agent.MAX_UNPACKED, agent.MAX_ARCHIVE)
    assert limits == (release.MAX_FILES, release.MAX_UNPACKED, release.MAX_ARCHIVE)


def test_what_the_agent_would_refuse_is_not_built() -> None:
    with pytest.raises(ValueError, match=r"^the release of 2 clients and 20000 revoked certificates has 200\d\d files"):
        gateway.build_release(revoked=list(range(20_000)))
