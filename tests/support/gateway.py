"""What the tests of this package share: a stand-in for a gateway's services, and releases to try on it."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path

from openvpn import pair
from openvpn.model import Tunnel, TunnelClient
from openvpn.topology import BondMode
from pki.authority import CertificateAuthority
from pki.ssh import host_key
from userdata import release
from userdata.files import agent

#: Parameter with the bundle that the other gateway of a pair has issued.
BUNDLE = "/drawbridge/dev/b/clients/a/bundle"
USER = pwd.getpwuid(os.getuid()).pw_name
TUNNEL = Tunnel(
    pool=IPv4Network("10.8.0.0/24"),
    routes=(IPv4Network("10.1.0.0/16"),),
    clients=(TunnelClient(name="alice"), TunnelClient(name="bob")),
)


def build_release(tunnel: Tunnel = TUNNEL, revoked: dict[int, str] | Sequence[int] = ()) -> release.Release:
    """A release as the program builds it."""
    everywhere = (IPv4Network("0.0.0.0/0"),)
    return release.build(tunnel, admin_from=(), allow_from=everywhere, vpc=tunnel.routes, revoked=revoked)


def build_linked_release(extra: str = "", mode: BondMode = "balance-xor") -> release.Release:
    """A release of a pair's first gateway, as the program builds it; `extra` is a line of the link that it serves."""
    servers = ("duo.drawbridge", "b.duo.drawbridge")
    pool, remote = IPv4Network("10.0.0.0/24"), "203.0.113.9"
    made = pair.create_bond(0, pool=pool, port=1194, mode=mode, servers=servers, remote=remote)
    files = {**pair.render_gateway_files(made), "etc/drawbridge/make-bond": "#!/bin/sh\n"}
    files["etc/drawbridge/links/ovn0.conf"] += extra
    links = release.PairLinks(taps=("ovn0", "ovn1"), files=files, bundles={"ovn1.ovpn": BUNDLE})
    tunnel, allowed = pair.create_tunnel(0, made, ()), (IPv4Network(remote),)
    return release.build(tunnel, admin_from=(), allow_from=allowed, vpc=(), revoked=(), links=links)


def tunnel_without(names: tuple[str, ...], tunnel: Tunnel = TUNNEL) -> Tunnel:
    """The same tunnel without some of its clients."""
    return Tunnel(
        pool=tunnel.pool, routes=tunnel.routes, clients=tuple(c for c in tunnel.clients if c.name not in names)
    )


def pack_release(contents: dict[str, bytes]) -> release.Release:
    """A release of any content, its digest right."""
    packed = release.pack(contents, directories=("ccd", "revoked"))
    return release.Release(archive=packed, sha256=sha256(packed).hexdigest())


def release_contents(built: release.Release) -> dict[str, bytes]:
    """A release's files, to be changed and packed again."""
    return {str(path): content for path, content in agent.read_archive(built.archive) if content is not None}


@cache
def gateway_secrets() -> dict[str, str]:
    """A gateway's secrets, real ones."""
    now = datetime.now(UTC)
    authority = CertificateAuthority.create("test", timedelta(days=2), now)
    server = authority.issue_server("server", timedelta(days=1), now)
    return {
        "ca.crt": authority.certificate,
        "server.crt": server.certificate,
        "server.key": server.key,
        "tls-crypt-v2.key": "not looked into",
        "ssh_host_ed25519_key": host_key().private,
    }


#: Where the configurations of each kind of process are.
CONFIGS = {"openvpn-server": "etc/openvpn/server", "drawbridge-link": "etc/drawbridge/links"}


@dataclass
class ServicesStub:
    """Stand-in for the programs a gateway's agent starts: it notes the commands and keeps track of units like systemd.

    It proves which commands are run and what follows from their results, not that the programs take them.
    """

    root: Path
    commands: list[str] = field(default_factory=list)
    active: set[str] = field(default_factory=set)
    fails: dict[str, str] = field(default_factory=dict)
    """Beginning of a command -> what it says as it fails."""
    refuses: str = ""
    """OpenVPN ends at once if its configuration holds this text."""
    hangs: str = ""
    """Beginning of a command that does not end in time."""
    starts: int = 0

    def __call__(self, argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        command = " ".join(argv)
        self.commands.append(command)
        if self.hangs and command.startswith(self.hangs):
            raise agent.FailedError(f"{argv[0]} did not end within 60 s")
        for beginning, said in self.fails.items():
            if command.startswith(beginning):
                return subprocess.CompletedProcess(argv, 1, "", said)
        out, status = "", 0
        if argv[:2] == ["systemctl", "show"]:
            blocks = [f"Id={u}\nActiveState={self._state(u)}\nSubState=running\n" for u in argv[3:]]
            out = "\n".join(blocks)
        elif argv[0] == "systemctl" and argv[1] in {"start", "restart", "reload-or-restart"}:
            status = self._start(argv[2], again=argv[1] == "restart")
        elif argv[0] == "ssh-keygen":
            out = "ssh-ed25519 AAAA\n"
        elif argv[0] == "journalctl":
            out = "the last words\n"
        return subprocess.CompletedProcess(argv, status, out, "")

    def reboot(self) -> None:
        """All that is enabled starts again, with what is linked now."""
        for unit in list(self.active):
            self._start(unit, again=True)

    def _state(self, unit: str) -> str:
        return "active" if unit in self.active else "failed"

    def _start(self, unit: str, *, again: bool) -> int:
        if unit in self.active and not again:
            return 0
        self.active.discard(unit)
        template, _, instance = unit.removesuffix(".service").partition("@")
        if template in CONFIGS:
            self.starts += 1
            current = self.root / "opt/drawbridge/current"
            if self.refuses and self.refuses in (current / f"root/{CONFIGS[template]}/{instance}.conf").read_text():
                return 1
            directory = self.root / f"run/openvpn-{instance}"
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            (directory / "release").symlink_to(current.readlink())
            (directory / "secrets").symlink_to((self.root / "etc/openvpn/server/secrets").readlink())
            (directory / "status").write_text("END\n")
        self.active.add(unit)
        return 0


def check_once(condition: object, seconds: float) -> bool:
    """In place of the agent's `wait`: these services are up at once or never."""
    assert callable(condition)
    return bool(condition())


def make_stale(path: Path) -> None:
    """Make a file look as if it had been written ten minutes ago."""
    then = time.time() - 600
    os.utime(path, (then, then))
