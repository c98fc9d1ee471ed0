"""The user data, as text and by cloud-init's own schema. Does not prove that a machine boots from it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract import Names
from userdata import cloud_config
from userdata.files import agent

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAITEST operator"


def render(ssh_key: str | None = KEY) -> str:
    return cloud_config.render(names=Names("lab"), region="eu-west-1", ssh_key=ssh_key)


def parsed(ssh_key: str | None = KEY) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(render(ssh_key))
    return config


def written() -> dict[str, str]:
    return {file["path"]: file["content"] for file in parsed()["write_files"]}


def test_first_line_is_what_cloud_init_looks_for() -> None:
    assert render().startswith("#cloud-config\n")


def test_size_leaves_room_below_the_limit() -> None:
    assert len(render().encode()) < cloud_config.LIMIT * 9 // 10


def test_what_is_too_large_is_an_error() -> None:
    with pytest.raises(cloud_config.UserDataError, match="16384"):
        render("ssh-rsa " + "A" * 16_384)


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("ssh_key", [KEY, None])
def test_schema(tmp_path: Path, ssh_key: str | None) -> None:
    """cloud-init's own validator takes it, and a typo it does not."""
    if not (cloud_init := shutil.which("cloud-init")):
        pytest.skip("no cloud-init on this machine (apt-get install --no-install-recommends cloud-init)")
    file = tmp_path / "user-data"
    for text, good in ((render(ssh_key), True), (render(ssh_key).replace("permissions:", "permission:"), False)):
        file.write_text(text)
        argv = [cloud_init, "schema", "--config-file", str(file)]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        output = result.stdout + result.stderr
        assert (result.returncode == 0 and "Valid" in output) is good, output


def test_everything_it_sets() -> None:
    """All keys: a new one is a decision (a slower boot, a door)."""
    config = parsed()
    assert {key: value for key, value in config.items() if key != "write_files"} == {
        "packages": ["openvpn", "nftables", "python3-boto3", "ca-certificates"],
        "ssh_genkeytypes": ["ed25519"],
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "ssh_authorized_keys": [KEY],
        "runcmd": [
            ["systemctl", "daemon-reload"],
            ["systemctl", "start", "drawbridge-agent.timer"],
            ["sh", "-c", "systemctl start drawbridge-agent.service || true"],
        ],
    }
    assert "ssh_authorized_keys" not in parsed(None)


def test_a_prepared_image_gets_no_packages_from_cloud_init() -> None:
    """The bootstrap installs what such an image lacks after all."""
    prepared = yaml.safe_load(cloud_config.render(names=Names("lab"), region="eu-west-1", ssh_key=KEY, image="ours"))
    assert {**prepared, "packages": parsed()["packages"]} == parsed()
    files = {file["path"]: file["content"] for file in prepared["write_files"]}
    assert "PACKAGES=openvpn nftables python3-boto3 ca-certificates\n" in files["/etc/drawbridge/env"]


def test_files_and_their_modes() -> None:
    assert {file["path"]: file["permissions"] for file in parsed()["write_files"]} == dict.fromkeys(
        (
            "/etc/drawbridge/env",
            "/usr/local/lib/drawbridge/bootstrap.py",
            "/etc/systemd/system/drawbridge-agent.service",
            "/etc/systemd/system/drawbridge-agent.timer",
            "/etc/systemd/system/timers.target.d/drawbridge.conf",
            "/etc/ssh/sshd_config.d/10-drawbridge.conf",
            "/etc/apt/apt.conf.d/90drawbridge",
        ),
        "0644",
    )


def test_files_arrive_as_they_are() -> None:
    files = written()
    assert files["/usr/local/lib/drawbridge/bootstrap.py"] == (cloud_config.FILES / "bootstrap.py").read_text()
    assert "/usr/local/lib/drawbridge/bootstrap.py" in files["/etc/systemd/system/drawbridge-agent.service"]
    assert "PasswordAuthentication no\n" in files["/etc/ssh/sshd_config.d/10-drawbridge.conf"]
    assert "HostKey /etc/ssh/ssh_host_ed25519_key\n" in files["/etc/ssh/sshd_config.d/10-drawbridge.conf"]
    assert 'APT::Install-Recommends "false";\n' in files["/etc/apt/apt.conf.d/90drawbridge"]


def test_names_are_all_that_differs_between_stacks() -> None:
    assert agent.read_env(written()["/etc/drawbridge/env"]) == {
        "REGION": "eu-west-1",
        "STACK": "lab",
        "RELEASE": "/drawbridge/lab/release",
        "SECRETS": "/drawbridge/lab/gateway",
        "REPORT": "/drawbridge/lab/report",
        "PACKAGES": "openvpn nftables python3-boto3 ca-certificates",
    }
    production = cloud_config.render(names=Names("prod"), region="us-east-1", ssh_key=KEY)
    assert production.replace("us-east-1", "eu-west-1").replace("/prod/", "/lab/").replace("=prod", "=lab") == render()


def test_scripts_are_readable_on_the_machine() -> None:
    assert "  content: |\n    REGION=eu-west-1\n" in render()
