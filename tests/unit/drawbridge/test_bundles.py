"""The clients' verbs against AWS's API in this process. Does not prove that a bundle connects: tests/lab does."""

import json
import os
import re
import shutil
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from click.testing import CliRunner

from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import bundles
from drawbridge.operate.account import Account
from openvpn.bundle import render_key_file
from openvpn.model import Tunnel, TunnelClient
from openvpn.profile import render_profile
from pki.authority import CertificateAuthority
from userdata.release import pack

from .conftest import REGION, STACK, Enrol


def test_lists_what_each_client_really_holds(account: Account, enrol: Enrol) -> None:
    bob, alice = enrol("bob", days=30), enrol("alice")
    found = bundles.list_clients(account)
    assert [(c.name, c.serial, c.fingerprint, c.not_after) for c in found] == [
        ("alice", alice.leaf.serial, alice.leaf.fingerprint, alice.leaf.not_after),
        ("bob", bob.leaf.serial, bob.leaf.fingerprint, bob.leaf.not_after),
    ]
    assert found[1].days_left(bob.leaf.not_after - timedelta(days=3, hours=1)) == 3
    assert found[1].days_left(bob.leaf.not_after + timedelta(hours=1)) == -1


def test_lists_more_clients_than_one_page_of_ssm_holds(account: Account, enrol: Enrol) -> None:
    names = [f"c{number:02}" for number in range(12)]
    for name in names:
        enrol(name)
    assert [c.name for c in bundles.list_clients(account)] == names


def test_another_stacks_clients_are_not_listed(account: Account, enrol: Enrol) -> None:
    Enrol(Account(stack=f"{STACK}2", session=account.session), enrol.authority)("mallory")
    enrol("alice")
    assert [c.name for c in bundles.list_clients(account)] == ["alice"]


def test_a_damaged_bundle_is_named_and_not_shown(account: Account) -> None:
    account.client("ssm").put_parameter(Name=account.names.bundle("eve"), Value="SECRET", Type="SecureString")
    with pytest.raises(errors.BundleFileError, match="bundle of eve") as caught:
        bundles.list_clients(account)
    assert "SECRET" not in str(caught.value) + caught.value.remedy
    assert caught.value.__suppress_context__


@pytest.mark.seed("2.15")
def test_fetch_for_windows_writes_the_scripts_beside_it(account: Account, enrol: Enrol, tmp_path: Path) -> None:
    bundle = enrol("office").bundle
    tunnel = Tunnel(pool=IPv4Network("10.8.0.0/24"), clients=(TunnelClient(name="office", system="windows"),))
    profile = render_profile(tunnel, "203.0.113.7", "gateway.lab", "office")
    whole = profile + bundle[bundle.index("<ca>") :]
    account.client("ssm").put_parameter(Name=account.names.bundle("office"), Value=whole, Overwrite=True)
    target = tmp_path / "mine.ovpn"
    saved = bundles.save_bundle(account, "office", target)
    assert saved.system == "windows"
    written = saved.files
    assert [path.name for path in written] == ["mine.ovpn", "office-up.cmd", "office-down.cmd"]
    assert target.read_bytes() == whole.replace("\n", "\r\n").encode()
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    # None of the three is written over unasked, and then none is written at all.
    target.unlink()
    with pytest.raises(errors.BundleFileError, match=r"office-up\.cmd already exists"):
        bundles.save_bundle(account, "office", target)
    assert not target.exists()
    assert bundles.save_bundle(account, "office", target, replace=True) == saved


def test_fetch_says_what_the_owner_of_a_key_adds(
    account: Account, enrol: Enrol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, _, parts = enrol("alice").bundle.partition("<ca>")
    without_key = f"{profile}{render_key_file('alice')}<ca>" + re.sub(r"<key>.*</key>\n", "", parts, flags=re.DOTALL)
    account.client("ssm").put_parameter(Name=account.names.bundle("alice"), Value=without_key, Overwrite=True)
    monkeypatch.setattr("drawbridge.commands.client.connect", lambda *_, **__: account)
    monkeypatch.chdir(tmp_path)
    fetch = ["client", "fetch", "alice", "--stack", STACK]
    for arguments in ([], ["-o", "-"]):
        result = CliRunner().invoke(cli, [*fetch, *arguments])
        assert result.exit_code == 0, result.output
        assert (
            "put the key beside it as alice.key and start OpenVPN in that directory, or replace the line"
            in result.stderr
        )
    assert result.stdout == without_key == (tmp_path / "alice.ovpn").read_text()


@pytest.mark.seed("0.15")
def test_fetch_writes_the_whole_bundle_for_its_owner_alone(account: Account, enrol: Enrol, tmp_path: Path) -> None:
    alice = enrol("alice")
    target = tmp_path / "alice.ovpn"
    before = os.umask(0)
    try:
        bundles.save_bundle(account, "alice", target)
    finally:
        os.umask(before)
    assert target.read_text() == alice.bundle
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_fetch_replaces_a_file_only_when_told(account: Account, enrol: Enrol, tmp_path: Path) -> None:
    alice = enrol("alice")
    target = tmp_path / "alice.ovpn"
    target.write_text("mine")
    target.chmod(0o644)
    with pytest.raises(errors.BundleFileError, match="already exists"):
        bundles.save_bundle(account, "alice", target)
    assert target.read_text() == "mine"
    bundles.save_bundle(account, "alice", target, replace=True)
    assert target.read_text() == alice.bundle
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_fetch_does_not_follow_a_dangling_link(account: Account, enrol: Enrol, tmp_path: Path) -> None:
    enrol("alice")
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "alice.ovpn"
    target.symlink_to(elsewhere)
    with pytest.raises(errors.BundleFileError, match="already exists"):
        bundles.save_bundle(account, "alice", target)
    assert not elsewhere.exists()
    assert list(tmp_path.iterdir()) == [target]


def test_fetch_where_nothing_can_be_written(account: Account, enrol: Enrol, tmp_path: Path) -> None:
    enrol("alice")
    with pytest.raises(errors.BundleFileError, match="No such file or directory"):
        bundles.save_bundle(account, "alice", tmp_path / "nowhere" / "alice.ovpn")


@pytest.mark.usefixtures("account")
def test_fetch_of_an_unknown_client_says_how_to_see_who_there_is(tmp_path: Path) -> None:
    target = tmp_path / "x.ovpn"
    result = CliRunner().invoke(cli, ["client", "fetch", "nobody", "--stack", STACK, "--output", str(target)])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: stack {STACK} has no client nobody\n  -> list its clients: drawbridge client list --stack {STACK}\n"
    )
    assert not target.exists()


def test_the_command_prints_no_secret(enrol: Enrol, tmp_path: Path) -> None:
    alice = enrol("alice")
    runner = CliRunner()
    listed = runner.invoke(cli, ["client", "list", "--stack", STACK])
    as_json = runner.invoke(cli, ["client", "list", "--stack", STACK, "--json"])
    fetched = runner.invoke(cli, ["client", "fetch", "alice", "--stack", STACK, "-o", str(tmp_path / "a.ovpn")])
    assert [listed.exit_code, as_json.exit_code, fetched.exit_code] == [0, 0, 0]
    said = listed.output + as_json.output + fetched.output
    assert "PRIVATE KEY" not in said
    assert alice.leaf.key.splitlines()[1] not in said
    assert "alice" in listed.stdout
    days = (alice.leaf.not_after - datetime.now(UTC)).days
    assert str(days) in listed.stdout.split()
    assert json.loads(as_json.stdout) == [
        {
            "name": "alice",
            "gateway": "a",
            "serial": alice.leaf.serial,
            "fingerprint": alice.leaf.fingerprint,
            "not_after": alice.leaf.not_after.isoformat(),
            "parameter": f"/drawbridge/{STACK}/clients/alice/bundle",
            "system": "linux",
            "address": "",
            "session": {
                "state": "unknown",
                "connected_since": None,
                "last_seen": None,
                "origins": [],
                "received": None,
                "sent": None,
                "alternates": [],
            },
            "kind": "linux",
        }
    ]


def test_the_clients_of_both_gateways_of_a_pair_are_listed_and_fetched(
    account: Account, authority: CertificateAuthority, tmp_path: Path
) -> None:
    for gateway, name in (("a", "b"), ("b", "a")):
        Enrol(replace(account, gateway=gateway), authority)(name)
    listed = bundles.list_clients(account)
    assert [(client.name, client.gateway) for client in listed] == [("a", "b"), ("b", "a")]
    assert [client.parameter for client in listed] == [
        f"/drawbridge/{STACK}/b/clients/a/bundle",
        f"/drawbridge/{STACK}/clients/b/bundle",
    ]
    rows = CliRunner().invoke(cli, ["client", "list", "--stack", STACK]).stdout.splitlines()
    assert [row.split()[:2] for row in rows] == [["client", "gateway"], ["a", "b"], ["b", "a"]]
    assert bundles.save_bundle(account, "a", tmp_path / "a.ovpn").files == (tmp_path / "a.ovpn",)


@pytest.fixture
def kits(account: Account) -> str:
    """The stack's bucket with the kit of a bonded client."""
    s3, bucket = account.client("s3"), "kits-of-the-stack"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=bucket, Key=account.names.kit_key("left"), Body=b"kit")
    release = json.dumps({"bucket": bucket, "key": "k", "sha256": "ab" * 32})
    ssm = account.client("ssm")
    ssm.put_parameter(Name=account.names.release, Value=release, Type="String")
    ssm.put_parameter(Name=account.names.kit_digest("left"), Value=sha256(b"kit").hexdigest(), Type="String")
    return bucket


@pytest.mark.usefixtures("kits")
def test_a_bonded_client_gets_the_command_that_installs_its_kit() -> None:
    result = CliRunner().invoke(cli, ["client", "kit", "left", "--stack", STACK])
    assert result.exit_code == 0, result.output
    assert "/kits/left.tar.gz?" in result.stdout and result.stdout.endswith("install)\n")


@pytest.mark.usefixtures("kits")
def test_a_client_without_a_kit_is_shown_who_has_one(enrol: Enrol) -> None:
    enrol("phone")
    result = CliRunner().invoke(cli, ["client", "kit", "phone", "--stack", STACK])
    assert result.exit_code == 1
    assert "`lan`, `at` or `bridge`" in result.stderr and "`tunnel.links` is 2" in result.stderr
    assert f"drawbridge client fetch phone --stack {STACK}" in result.stderr


@pytest.mark.usefixtures("kits")
def test_a_kit_of_a_stack_that_has_no_digest_yet_is_not_offered(account: Account) -> None:
    account.client("ssm").delete_parameter(Name=account.names.kit_digest("left"))
    result = CliRunner().invoke(cli, ["client", "kit", "left", "--stack", STACK])
    assert result.exit_code == 1
    assert f"pulumi up --stack {STACK}" in result.stderr and "curl" not in result.output


class KitHost:
    """A directory that stands for a client's machine: its /opt, and an Internet that serves one file."""

    def __init__(self, directory: Path) -> None:
        self.opt, self._programs, self._served = directory / "opt", directory / "bin", directory / "served"
        self.temporary = directory / "tmp"
        for path in (self.opt, self._programs, self.temporary):
            path.mkdir()
        self._write_program("sudo", 'exec "$@"')
        self._write_program("curl", f'while [ "$1" != -o ]; do shift; done; cp {self._served} "$2"')

    def interrupt_downloads(self) -> None:
        """Have the terminal interrupt the shell whenever it downloads."""
        self._write_program("curl", "kill -INT $PPID; sleep 0.1; exit 130")

    def _write_program(self, name: str, text: str) -> None:
        program = self._programs / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    def run(self, command: str, served: bytes, shell: str = "sh") -> subprocess.CompletedProcess[str]:
        """Run a kit's command while the Internet serves these bytes."""
        self._served.write_bytes(served)
        script = command.replace("/opt", str(self.opt))
        environment = {"PATH": f"{self._programs}:{os.environ['PATH']}", "TMPDIR": str(self.temporary)}
        return subprocess.run([shell, "-c", script], env=environment, capture_output=True, text=True, timeout=20)

    @property
    def files(self) -> set[str]:
        """The files of the kit that is unpacked."""
        kit = self.opt / "drawbridge-kit"
        return {str(path.relative_to(kit)) for path in kit.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path) -> KitHost:
    return KitHost(tmp_path)


def offer(account: Account, kit: bytes) -> str:
    """Store the digest of a kit, as the stack does, and return the kit's command."""
    account.client("ssm").put_parameter(
        Name=account.names.kit_digest("left"), Value=sha256(kit).hexdigest(), Overwrite=True
    )
    return bundles.kit_command(account, "left")


INSTALL = {"install": b"echo installed"}


@pytest.mark.attack("9.6")
@pytest.mark.allow_subprocess
@pytest.mark.usefixtures("kits")
def test_another_kit_than_the_commands_is_neither_run_nor_unpacked(account: Account, host: KitHost) -> None:
    kit = pack(INSTALL)
    command = offer(account, kit)
    for served in (pack({"install": b"echo taken over"}), kit[:-1], b""):
        refused = host.run(command, served)
        assert (refused.returncode, refused.stdout.splitlines()[1:], host.files) == (1, [], set())
        assert list(host.temporary.iterdir()) == []
    installed = host.run(command, kit)
    assert (installed.returncode, installed.stdout) == (0, "installed\n")
    assert list(host.temporary.iterdir()) == []
    # A kit that is already installed stays when another is served in its place.
    assert host.run(command, b"").returncode == 1
    assert host.files == {"install"}


@pytest.mark.allow_subprocess
@pytest.mark.usefixtures("kits")
def test_nothing_of_a_former_kit_stays(account: Account, host: KitHost) -> None:
    former, kit = pack({**INSTALL, "hook": b"echo stale", "root/etc/old": b"old"}), pack(INSTALL)
    assert host.run(offer(account, former), former).returncode == 0
    assert host.files == {"install", "hook", "root/etc/old"}
    assert host.run(offer(account, kit), kit).returncode == 0
    assert host.files == {"install"}


@pytest.mark.allow_subprocess
@pytest.mark.usefixtures("kits")
@pytest.mark.parametrize("shell", [name for name in ("dash", "bash", "zsh") if shutil.which(name)])
def test_an_interrupted_download_of_a_kit_leaves_no_file(account: Account, host: KitHost, shell: str) -> None:
    host.interrupt_downloads()
    assert host.run(offer(account, pack(INSTALL)), b"", shell=shell).returncode != 0
    assert list(host.temporary.iterdir()) == []
