"""Bundles in the programs that import them: NetworkManager's own importer, and the options that others refuse.

Does not prove that those programs connect, nor that anything runs on Windows. OpenVPN itself reads the bundles in
test_real_openvpn.py. Sources of the options: OpenVPN 3's `client/cliopt.hpp` (aa57ac46), Tunnelblick's `defines.h`
(9e5afa8d), OpenVPN's `options.c` and `lladdr.c` (3de92608).
"""

import json
import shlex
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path, PureWindowsPath
from typing import get_args

import pytest

from kits import windows as windows_kit
from openvpn.bundle import ca_of, certificate_of, key_of, render_bundle, system_of, tls_crypt_of
from openvpn.listener import Listener
from openvpn.model import System, Tunnel, TunnelClient, TunnelIPv6
from openvpn.profile import render_profile
from openvpn.topology import BondedSegment, BridgedSegment, Routed, Segment
from openvpn.windows import CONFIG_DIRECTORY
from pki import tls_crypt
from pki.authority import CertificateAuthority
from settings.parse import parse
from settings.problems import SettingsError
from tests.support import nm_import
from tests.support.debian_packages import unpack

ROUTED = Tunnel(
    pool=IPv4Network("10.8.0.0/24"),
    routes=(IPv4Network("10.1.0.0/16"),),
    clients=(TunnelClient(name="alice", address=IPv4Address("10.8.0.10")), TunnelClient(name="home")),
)
LAN = IPv4Network("192.168.1.0/24")
#: Each kind of tunnel.
TUNNELS = {
    "routed": ROUTED,
    "tcp": replace(ROUTED, listener=Listener("tcp", (443,))),
    "redirected": replace(ROUTED, redirect=True, domain="vpc.example.com", resolver=IPv4Address("10.1.0.2")),
    "ipv6": replace(ROUTED, ipv6=TunnelIPv6(pool=IPv6Network("2001:db8::/80"), routes=(IPv6Network("2001:db8::/56"),))),
    "segment": replace(ROUTED, topology=Segment()),
    "bridged": replace(ROUTED, topology=BridgedSegment("home", LAN), pool=IPv4Network("192.168.1.192/26"), clients=(
        TunnelClient(name="alice"), TunnelClient(name="home", lan=(LAN,)))),
    "bonded": replace(ROUTED, topology=BondedSegment(), listener=Listener("udp", (1194, 1195))),
}  # fmt: skip
ROUTED_TUNNELS = tuple(kind for kind, tunnel in TUNNELS.items() if isinstance(tunnel.topology, Routed))

#: Programs, with the systems whose bundles they import, and the kinds of tunnel whose bundles each test imports.
CASES: dict[str, tuple[tuple[System, ...], tuple[str, ...]]] = {
    "OpenVPN 2.6": (("linux",), tuple(TUNNELS)),
    "OpenVPN 2.7": (("linux",), tuple(TUNNELS)),
    "NetworkManager": (("networkmanager",), tuple(TUNNELS)),
    "OpenVPN 3 (OpenVPN Connect)": (("android", "ios"), ROUTED_TUNNELS),
    "Tunnelblick": (("macos",), ROUTED_TUNNELS),
    "OpenVPN for Windows": (("windows",), (*ROUTED_TUNNELS, "segment", "bridged")),
}
PAGE = Path(__file__).parents[3] / "docs" / "clients.md"

#: Options that OpenVPN 3 reads, or leaves out with a note in its log. It refuses a profile with any other.
OPENVPN_3 = {
    "auth-nocache", "client", "dev", "proto", "pull-filter", "remote", "remote-cert-tls", "server-poll-timeout",
    "tls-version-min", "tun-mtu", "verify-x509-name",
    "auth-retry", "connect-retry", "explicit-exit-notify", "nobind", "persist-tun", "resolv-retry", "verb",
}  # fmt: skip
#: Options that Tunnelblick keeps for itself, refuses as made for Windows, or asks an administrator's password for.
TUNNELBLICK_REFUSES = {
    "log", "log-append", "syslog", "config",
    "allow-nonadmin", "cryptoapicert", "dhcp-release", "dhcp-renew", "pause-exit", "register-dns", "service",
    "show-adapters", "show-net", "show-net-up", "show-valid-subnets", "tap-sleep", "win-sys", "windows-driver",
    "auth-user-pass-verify", "client-connect", "client-crresponse", "client-disconnect", "dns-script", "down",
    "ipchange", "iproute", "learn-address", "plugin", "route-pre-down", "route-up", "tls-verify", "up",
}  # fmt: skip
#: Options that OpenVPN for Windows is built without, or takes and cannot obey.
WINDOWS_REFUSES = {
    "bind-dev", "chroot", "daemon", "group", "iproute", "lladdr", "mark", "mlock", "nice", "passtos", "port-share",
    "setcon", "user",
}  # fmt: skip
#: Characters that OpenVPN reads of a line outside of an inline file.
OPTION_LINE_SIZE = 256


def render(tunnel: Tunnel, system: System = "linux") -> str:
    """Return alice's bundle."""
    alice, *others = tunnel.clients
    profile = render_profile(
        replace(tunnel, clients=(replace(alice, system=system), *others)), "192.0.2.1", "gateway.test", "alice"
    )
    now = datetime.now(UTC)
    authority = CertificateAuthority.create("Test CA", timedelta(days=2), now)
    leaf = authority.issue_client("alice", timedelta(days=1), now)
    wrapped = tls_crypt.client_key(tls_crypt.server_key(), b"")
    return render_bundle(profile, authority.certificate, leaf.certificate, leaf.key, wrapped)


def options(bundle: str) -> set[str]:
    """Return the names of a profile's options."""
    lines = bundle.partition("<ca>")[0].splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NetworkManager's plugin for OpenVPN, of this Debian. The package itself would bring its daemon."""
    bindings = subprocess.run(["/usr/bin/python3", "-c", "import gi; gi.require_version('NM', '1.0')"], check=False)
    if bindings.returncode:
        pytest.skip("the bindings of libnm are not installed (Debian's gir1.2-nm-1.0 and python3-gi)")
    root = unpack(tmp_path_factory.mktemp("networkmanager"), "network-manager-openvpn")
    return next(root.glob("usr/lib/*/NetworkManager/libnm-vpn-plugin-openvpn.so"))


def run_importer(plugin: Path, bundle: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Import a bundle; the importer writes its keys into the directory."""
    file = directory / "alice.ovpn"
    file.write_text(bundle)
    command = ["/usr/bin/python3", str(nm_import.__file__), str(plugin), str(file)]
    return subprocess.run(command, env={"HOME": str(directory)}, capture_output=True, text=True, check=False)


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("kind", CASES["NetworkManager"][1])
def test_networkmanager_imports_every_bundle(kind: str, plugin: Path, tmp_path: Path) -> None:
    bundle = render(TUNNELS[kind], "networkmanager")
    done = run_importer(plugin, bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout)
    tunnel = TUNNELS[kind]
    assert imported["remote"] == f"192.0.2.1:{tunnel.listener.ports[0]}"
    assert imported.get("proto-tcp") == ("yes" if tunnel.listener.protocol == "tcp" else None)
    assert imported["dev"] == tunnel.layout.device
    assert imported["verify-x509-name"] == "name:gateway.test"
    assert imported["remote-cert-tls"] == "server"
    parts = {"ca": ca_of, "cert": certificate_of, "key": key_of, "tls-crypt-v2": tls_crypt_of}
    for option, part in parts.items():
        assert Path(imported[option]).read_text().strip() == part(bundle).strip()


@pytest.mark.allow_subprocess
def test_networkmanager_imports_the_gateways_name_and_its_address(plugin: Path, tmp_path: Path) -> None:
    address = "remote 192.0.2.1 1194\n"
    bundle = render(ROUTED, "networkmanager").replace(address, f"remote vpn.example.com 1194\n{address}")
    done = run_importer(plugin, bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["remote"] == "vpn.example.com:1194, 192.0.2.1:1194"


@pytest.mark.allow_subprocess
def test_networkmanager_refuses_what_its_parser_does_not_know(plugin: Path, tmp_path: Path) -> None:
    """The control: the importer reads the options."""
    done = run_importer(plugin, render(ROUTED).replace("verb 3\n", "verb 3\nmssfix 1400 mtu\n"), tmp_path)
    assert done.returncode == 1 and "mssfix" in done.stderr


@pytest.mark.parametrize("system", CASES["OpenVPN 3 (OpenVPN Connect)"][0])
@pytest.mark.parametrize("kind", CASES["OpenVPN 3 (OpenVPN Connect)"][1])
def test_openvpn_3_knows_every_option_of_a_bundle_for_phones(kind: str, system: System) -> None:
    assert options(render(TUNNELS[kind], system)) <= OPENVPN_3


@pytest.mark.parametrize("kind", CASES["Tunnelblick"][1])
def test_tunnelblick_installs_a_bundle_without_a_question(kind: str) -> None:
    bundle = render(TUNNELS[kind], "macos")
    assert not options(bundle) & TUNNELBLICK_REFUSES
    # It takes neither a continued line nor a byte that is not printable.
    assert all(line.isprintable() and not line.endswith("\\") for line in bundle.splitlines())


@pytest.mark.parametrize("kind", CASES["OpenVPN for Windows"][1])
def test_openvpn_for_windows_can_obey_every_option(kind: str) -> None:
    """Its service starts each profile of a directory; the scripts are where the profile looks for them."""
    tunnel = TUNNELS[kind]
    alice, *others = tunnel.clients
    mac = None if isinstance(tunnel.topology, Routed) else "00:ff:5e:00:53:01"
    files = windows_kit.files(render(replace(tunnel, clients=(replace(alice, mac=mac), *others)), "windows"), "alice")
    bundle = files["alice.ovpn"].replace("\r\n", "\n")
    assert not options(bundle) & WINDOWS_REFUSES
    lines = bundle.partition("<ca>")[0].splitlines()
    assert max(map(len, lines)) < OPTION_LINE_SIZE
    # OpenVPN reads an option's value, and then the value as a command.
    commands = [shlex.split(line) for line in lines if line.startswith(("up ", "down ", "route-up "))]
    scripts = [PureWindowsPath(shlex.split(command)[0]) for _, command in commands]
    assert [option for option, _ in commands] == ["up", "down"]
    assert all(f"{script.parent}" == CONFIG_DIRECTORY and script.name in files for script in scripts)


def test_openvpn_for_windows_sets_no_hardware_address() -> None:
    """The control: why a client on a segment needs `mac`."""
    assert options(render(TUNNELS["segment"], "windows")) & WINDOWS_REFUSES == {"lladdr"}


def test_a_bundle_for_windows_is_the_control() -> None:
    """It names scripts, which neither OpenVPN 3 nor Tunnelblick installs as they are."""
    names = options(render(ROUTED, "windows"))
    assert names & TUNNELBLICK_REFUSES and not names <= OPENVPN_3


@pytest.mark.parametrize("system", ["linux", "networkmanager", "windows", "macos", "android", "ios"])
def test_a_bundle_says_what_its_client_runs(system: System) -> None:
    assert system_of(render(ROUTED, system)) == system_of(render(ROUTED, system).replace("\n", "\r\n")) == system


#: A stack file's section for each kind of tunnel that is a segment.
SEGMENTS: dict[str, dict[str, object]] = {
    "segment": {"drawbridge:tunnel": {"device": "tap"}},
    "bridged": {"drawbridge:tunnel": {"device": "tap"}},
    "bonded": {"drawbridge:tunnel": {"device": "tap", "links": 2}},
}


def is_refused(kind: str, system: System) -> bool:
    """Return whether a stack's settings refuse a client's system on a kind of tunnel."""
    raw = {"aws:region": "eu-west-1", "drawbridge:clients": [{"name": "alice", "system": system}]}
    try:
        parse({**raw, **SEGMENTS.get(kind, {})}, stack="team", endpoint="http://127.0.0.1")
    except SettingsError as error:
        return any(problem.key.endswith("clients[0].system") for problem in error.problems)
    return False


def render_table() -> str:
    """Return the table of programs and kinds of tunnel, as the page has it."""
    lines = [f"| program | `system` | {' | '.join(TUNNELS)} |", "| --- " * (2 + len(TUNNELS)) + "|"]
    for program, (systems, kinds) in CASES.items():
        cells = []
        for kind in TUNNELS:
            refused = {is_refused(kind, system) for system in systems}
            cells.append("refused" if refused == {True} else "imported" if kind in kinds else "no")
        lines.append(f"| {program} | {', '.join(f'`{system}`' for system in systems)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_page_has_the_table_of_these_tests() -> None:
    table = render_table()
    assert table in PAGE.read_text(), f"docs/clients.md must have this table:\n{table}"


def test_every_bundle_that_a_stack_issues_is_imported_by_its_program() -> None:
    """No cell is `no`, and every system has a program."""
    assert "| no |" not in render_table()
    assert {system for systems, _ in CASES.values() for system in systems} == {*get_args(System)}
