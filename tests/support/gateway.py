"""What the tests of this package share: a stand-in for a gateway's services, and releases to try on it."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
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


def build_release(
    tunnel: Tunnel = TUNNEL, revoked: dict[int, str] | Sequence[int] = (), not_after: str = ""
) -> release.Release:
    """A release as the program builds it; `revoked` are serials, or maps them to clients' names."""
    everywhere = (IPv4Network("0.0.0.0/0"),)
    names = revoked if isinstance(revoked, dict) else dict.fromkeys(revoked, "")
    revocations = {str(serial): release.Revocation(name, not_after) for serial, name in names.items()}
    return release.build(tunnel, admin_from=(), allow_from=everywhere, vpc=tunnel.routes, revoked=revocations)


def build_linked_release(extra: str = "", mode: BondMode = "balance-xor") -> release.Release:
    """A release of a pair's first gateway, as the program builds it; `extra` is a line of the link that it serves."""
    servers = ("duo.drawbridge", "b.duo.drawbridge")
    pool, remote = IPv4Network("10.0.0.0/24"), "203.0.113.9"
    made = pair.create_bond(0, pool=pool, port=1194, mode=mode, servers=servers, remote=remote)
    files = {**pair.render_gateway_files(made), "etc/drawbridge/make-bond": "#!/bin/sh\n"}
    files["etc/drawbridge/links/ovn0.conf"] += extra
    links = release.PairLinks(taps=("ovn0", "ovn1"), files=files, bundles={"ovn1.ovpn": BUNDLE})
    tunnel, allowed = pair.create_tunnel(0, made, ()), (IPv4Network(remote),)
    return release.build(tunnel, admin_from=(), allow_from=allowed, vpc=(), revoked={}, links=links)


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


#: A client's line in the answer to `status 3`.
SESSION = "CLIENT_LIST\t{name}\t1.2.3.4:5\t10.8.0.2\t\t1\t2\tnow\t0\tUNDEF\t{cid}\t0\tAES-256-GCM"
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
    rejects: str = ""
    """Name of a file that systemd-networkd does not take."""
    hangs: str = ""
    """Beginning of a command that does not end in time."""
    checks: str | None = None
    """What a new agent's dry run prints; None for what one prints that gets to its end."""
    silent: bool = False
    """OpenVPN does not answer at its management socket."""
    releases_socket: bool = False
    """OpenVPN answers again once it was restarted: whoever held the socket does not come back."""
    sessions: dict[int, str] = field(default_factory=dict)
    """Connected clients' names by the ids that OpenVPN gives them; OpenVPN's end ends them."""
    asked: list[str] = field(default_factory=list)
    """Commands that OpenVPN has answered at its management socket."""
    starts: int = 0

    def __call__(self, argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        argv, command = list(argv), " ".join(argv)
        self.commands.append(command)
        if self.hangs and command.startswith(self.hangs):
            raise agent.FailedError(f"{argv[0]} did not end within 60 s")
        for beginning, said in self.fails.items():
            if command.startswith(beginning):
                return subprocess.CompletedProcess(argv, 1, "", said)
        if self.rejects and command == "networkctl reload" and (self._networkd / self.rejects).exists():
            return subprocess.CompletedProcess(argv, 1, "", f"{self.rejects}:3: no such kind")
        out, status = "", 0
        if argv[:2] == ["systemctl", "show"]:
            blocks = [f"Id={u}\nActiveState={self._state(u)}\nSubState=running\n" for u in argv[3:]]
            out = "\n".join(blocks)
        elif argv[0] == "systemctl" and argv[1] in {"start", "restart", "reload-or-restart"}:
            status = self._start(argv[2], again=argv[1] == "restart")
        elif argv[:3] == ["nft", "--stateless", "list"]:
            table = self.root / "kernel" / "-".join(argv[4:])
            out, status = (table.read_text(), 0) if table.exists() else ("", 1)
        elif argv[0].endswith("systemd-sysctl"):
            self._apply_settings(self._in_use(agent.SYSCTL))
        elif argv[:2] in (["networkctl", "reload"], ["networkctl", "reconfigure"]) or argv[0] == "sh":
            self._create_devices()
        elif argv[:3] == ["ip", "route", "replace"]:
            self.add_route(argv[-1], IPv4Network(argv[3]))
        elif argv[-1] == "check":
            out = f"{agent.CHECKED} {Path(argv[-2]).parent.name}\n" if self.checks is None else self.checks
        elif argv[0] == "ssh-keygen":
            out = "ssh-ed25519 AAAA\n"
        elif argv[0] == "journalctl":
            out = "the last words\n"
        return subprocess.CompletedProcess(argv, status, out, "")

    def reboot(self) -> None:
        """All that is enabled starts again, with what is linked now."""
        for unit in list(self.active):
            self._start(unit, again=True)

    def answer(self, path: Path, commands: Iterable[str]) -> list[str]:
        """In place of the agent's `send_management_commands`; raises OSError while `silent`."""
        assert str(path).startswith(str(self.root))
        if self.silent:
            raise TimeoutError("timed out")
        answer = []
        for command in commands:
            self.asked.append(command)
            if command == "status 3":
                answer += [SESSION.format(name=name, cid=cid) for cid, name in self.sessions.items()]
            answer.append(f"SUCCESS: {command}")
        return answer

    def set_device(self, name: str, *, up: bool = True) -> None:
        """Create a network device, or change it."""
        flags = self.root / f"sys/class/net/{name}/flags"
        flags.parent.mkdir(parents=True, exist_ok=True)
        flags.write_text(f"0x{0x1002 + up:x}\n")

    def remove_device(self, name: str) -> None:
        """Remove a network device and its routes."""
        shutil.rmtree(self.root / f"sys/class/net/{name}")
        self.remove_routes(name)

    def add_route(self, device: str, network: IPv4Network) -> None:
        """Add a route as /proc/net/route lists it."""
        address, mask = (value.packed[::-1].hex().upper() for value in (network.network_address, network.netmask))
        with self.routes.open("a") as table:
            table.write(f"{device}\t{address}\t0200080A\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n")

    def remove_routes(self, device: str) -> None:
        """Remove all routes of a device."""
        lines = self.routes.read_text().splitlines(keepends=True)
        self.routes.write_text("".join(line for line in lines if not line.startswith(f"{device}\t")))

    @property
    def routes(self) -> Path:
        """The kernel's table of routes."""
        path = self.root / "proc/net/route"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    @property
    def tables(self) -> Path:
        """Directory of nft's tables."""
        return self.root / "kernel"

    @property
    def _networkd(self) -> Path:
        """Directory of the devices of the release in use."""
        return self.root / "opt/drawbridge/current/root/etc/systemd/network"

    def _in_use(self, path: str) -> str:
        """Return a file of the release in use; its place is a link to a path of the machine, not of `root`."""
        return (self.root / "opt/drawbridge/current/root" / path).read_text()

    def _load_filter(self) -> None:
        rules = self._in_use("etc/drawbridge/nftables.conf")
        shutil.rmtree(self.tables, ignore_errors=True)
        self.tables.mkdir()
        for line in rules.splitlines():
            if line.startswith("table ") and not line.endswith("{"):
                self.tables.joinpath("-".join(line.split()[1:])).write_text(rules)

    def _apply_settings(self, text: str) -> None:
        for key, _, value in (line.partition(" = ") for line in text.splitlines()[1:]):
            if not key.startswith("-") and "*" not in key:
                path = self.root / "proc/sys" / key.replace(".", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{value}\n")

    def _create_devices(self) -> None:
        for path in self._networkd.glob("*.netdev"):
            device = agent.read_env(path.read_text())["Name"]
            self.set_device(device)
            self.remove_routes(device)
            for network in agent.read_destinations(path.with_suffix(".network").read_text()):
                self.add_route(device, network)

    def _state(self, unit: str) -> str:
        return "active" if unit in self.active else "failed"

    def _start(self, unit: str, *, again: bool) -> int:
        if unit == agent.FIREWALL:
            self._load_filter()
        if unit in self.active and not again:
            return 0
        self.active.discard(unit)
        template, _, instance = unit.removesuffix(".service").partition("@")
        if template in CONFIGS:
            self.starts += 1
            self.sessions.clear()
            self.silent = self.silent and not self.releases_socket
            current = self.root / "opt/drawbridge/current"
            config = (current / f"root/{CONFIGS[template]}/{instance}.conf").read_text()
            if self.refuses and self.refuses in config:
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
    os.utime(path, (then, then), follow_symlinks=False)
