"""Real OpenVPN processes accept and refuse what `pki` makes, on the texts of `openvpn`, in two network namespaces.

Does not prove: the systemd unit, the agent or the firewall; both ends run as root, on files in a temporary directory.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import contract
from components.authority_provider import Keys, Order, converge
from components.register import ParameterStore
from components.schedule import Schedule
from drawbridge.operate.gateway_status import DisplacedClient, find_displaced
from openvpn import peer, windows
from openvpn.bundle import ca_of, key_of, render_bundle, render_key_file
from openvpn.model import GLOBAL6, Tunnel, TunnelClient, TunnelIPv6
from openvpn.paths import Paths
from openvpn.profile import render_profile
from openvpn.server import redirect_options, render_ccd, render_server, resolver_options
from pki import tls_crypt
from pki.authority import Certificate, CertificateAuthority, Leaf, self_signed
from tests.support.debian_packages import unpack
from tests.support.network_namespace import NetworkNamespace, network_namespace, receive_buffers_allowed
from tests.support.requests import create_request
from tests.support.waiting import Lateness, until
from tests.unit.openvpn.test_importers import CASES, TUNNELS
from tests.unit.openvpn.test_importers import render as render_kind
from userdata.cloud_config import FILES
from userdata.files import agent


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    absent = [tool for tool in ("openvpn", "ip", "ping", "nsenter", "setpriv", "unshare") if not shutil.which(tool)]
    return f"needs {', '.join(absent)} on PATH" if absent else None


pytestmark = [pytest.mark.allow_subprocess, pytest.mark.skipif(_missing() is not None, reason=str(_missing()))]

UP = "Initialization Sequence Completed"
SERVER_NAME = "gateway.test"
ROOT = Path(__file__).parents[3]
TUNNEL = Tunnel(
    pool=IPv4Network("10.8.0.0/24"),
    routes=(IPv4Network("10.1.0.0/16"),),
    client_to_client=True,
    clients=(
        TunnelClient(name="alice", address=IPv4Address("10.8.0.10"), lan=(IPv4Network("192.168.1.0/24"),)),
        TunnelClient(name="bob"),
    ),
)


#: Opens sessions with a bundle, each from a port of its own, and shows how many were answered. `forged`: sends what a
#: forged source can send, first packets without support of cookies; `reset`: asks for the answer to the first packet;
#: `open`: answers it in turn, with the first message of TLS.
OPENER = """
import socket, sys, time
from openvpn.bundle import tls_crypt_of
from openvpn.control_channel import ControlChannel
from openvpn.handshake import Handshake
from pki.tls_crypt import ClientKey

class Wire:
    retransmit_after = 60.0
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("192.0.2.1", 1194))
    def send(self, packet):
        self.socket.send(packet)
    def receive(self, seconds):
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(2000)
        except TimeoutError:
            return None

bundle, sessions, how = open(sys.argv[1]).read(), int(sys.argv[2]), sys.argv[3]
key, answered, wires = ClientKey.read(tls_crypt_of(bundle)), 0, []
for _ in range(sessions):
    wires.append(wire := Wire())
    handshake = Handshake(wire, key)
    if how == "forged":
        handshake.channel = ControlChannel(key, wire.send, early_negotiation=False)
        handshake.channel.reset()
    elif handshake.reset(time.monotonic() + 20):
        answered += 1
        if how == "open":
            handshake.secure(bundle, time.monotonic())
print(answered)
"""


#: Sends packets as large as those that open a session.
SENDER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(int(sys.argv[1])):
        sender.sendto(bytes(1200), ("192.0.2.1", 1194))
"""


class Process:
    """A process and what it has said so far; what it says can be waited for."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._said = Condition()
        self._ended = False
        self.log = ""
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._said:
                self.log += line
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()

    def wait_for(self, pattern: str, timeout: float = 20) -> None:
        """Return once the log matches; fail with the log when the process ends or `timeout` seconds pass without it."""
        with self._said:
            self._said.wait_for(lambda: self._ended or re.search(pattern, self.log), timeout)
            assert re.search(pattern, self.log), f"no {pattern!r} in:\n{self.log}"

    def wait_for_lines(self, text: str, count: int, timeout: float = 20) -> None:
        """Return once a text is in the log `count` times."""
        with self._said:
            self._said.wait_for(lambda: self._ended or self.log.count(text) >= count, timeout)
            assert self.log.count(text) >= count, f"not {count} times {text!r} in:\n{self.log}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, *signals: int) -> None:
        """Send signals, and wait for the process to end."""
        for number in signals:
            self._process.send_signal(number)
        self._process.wait()

    def stop(self) -> None:
        # Without a farewell, which takes OpenVPN seconds; its namespace takes the device along.
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


@dataclass
class Site:
    """A server and clients that reach it, in namespaces of their own, and the authority both trust."""

    directory: Path
    namespaces: tuple[NetworkNamespace, NetworkNamespace]
    authority: CertificateAuthority
    tls_crypt_key: str = field(repr=False)
    processes: ExitStack

    def _start(self, namespace: NetworkNamespace, *argv: str, program: tuple[str, ...] = ("openvpn",)) -> Process:
        return self.start_in(namespace, *program, "--suppress-timestamps", *argv)

    def start_in(self, namespace: NetworkNamespace, *argv: str) -> Process:
        """Start a program in a namespace; it ends with the test."""
        process = Process(namespace.enter(*argv))
        self.processes.callback(process.stop)
        return process

    def server(self, identity: Leaf | None = None, *options: str, tunnel: Tunnel = TUNNEL) -> Process:
        """Start the server on what the gateway would have, and return it once it is up."""
        identity = identity or self.authority.issue_server(SERVER_NAME, timedelta(days=1), datetime.now(UTC))
        paths = Paths(tunnel.processes[0].instance)
        text = render_server(tunnel)
        for place in (paths.root, paths.runtime, str(Path(paths.addresses).parent)):
            text = text.replace(place, str(self.directory))
        verify = (FILES / "root" / Paths.verify_key.lstrip("/")).read_text().replace(paths.root, str(self.directory))
        text = text.replace(Paths.verify_key, self.write("verify-key", verify))
        for name in ("secrets", "revoked", "ccd"):
            (self.directory / name).mkdir()
        for client in tunnel.clients:
            self.write(f"ccd/{client.name}", render_ccd(client, tunnel))
        self.write("secrets/ca.crt", self.authority.certificate)
        self.write("secrets/server.crt", identity.certificate)
        self.write("secrets/server.key", identity.key)
        self.write("secrets/tls-crypt-v2.key", self.tls_crypt_key)
        self.write("server.conf", text)
        return self.restart_server(*options)

    def restart_server(self, *options: str) -> Process:
        """Start the server on the files that it had before."""
        process = self._start(self.namespaces[0], "--config", str(self.directory / "server.conf"), *options)
        process.wait_for(UP)
        return process

    def peer(self, end: peer.PeerHost, other: peer.PeerHost, remote: str | None) -> Process:
        """Start one of two that know each other by fingerprint alone, where a server is or where clients are."""
        config = self.write(f"{end.name}.conf", peer.render_peer(end, other, port=1194, remote=remote))
        return self._start(self.namespaces[1 if remote else 0], "--config", config)

    def client(
        self,
        leaf: Leaf,
        *,
        wrapped_for: str | None = None,
        metadata: bytes = b"",
        expects: str = SERVER_NAME,
        client: str = "",
        options: tuple[str, ...] = (),
        program: tuple[str, ...] = ("openvpn",),
        tunnel: Tunnel = TUNNEL,
    ) -> Process:
        """Start a client on a bundle made for `leaf`; `client` is its name in the tunnel."""
        profile = render_profile(tunnel, "192.0.2.1", expects, client)
        wrapped = tls_crypt.client_key(wrapped_for or self.tls_crypt_key, metadata)
        bundle = render_bundle(profile, self.authority.certificate, leaf.certificate, leaf.key, wrapped)
        config = self.write(f"{leaf.serial}.ovpn", bundle)
        return self._start(self.namespaces[1], "--config", config, *options, program=program)

    def bundle(self, leaf: Leaf, metadata: bytes = b"") -> str:
        """Write a bundle for `leaf` and return its path."""
        wrapped = tls_crypt.client_key(self.tls_crypt_key, metadata)
        profile = render_profile(TUNNEL, "192.0.2.1", SERVER_NAME)
        text = render_bundle(profile, self.authority.certificate, leaf.certificate, leaf.key, wrapped)
        return self.write(f"{leaf.serial}-{len(metadata)}.ovpn", text)

    def open_sessions(self, bundle: str, count: int, how: str = "open") -> int:
        """Open sessions and leave them; return how many the server has answered."""
        argv = (sys.executable, "-c", OPENER, bundle, str(count), how)
        return int(self.on_client("env", f"PYTHONPATH={ROOT}", *argv))

    def count_sessions(self) -> int:
        """Return the server's sessions, half-open ones among them."""
        answer = agent.send_management_commands(self.directory / "mgmt.sock", ["status 3"])
        return sum(line.startswith("CLIENT_LIST") for line in answer)

    def leaf(self, name: str = "alice") -> Leaf:
        return self.authority.issue_client(name, timedelta(days=1), datetime.now(UTC))

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def start_client(self, bundle: str, *options: str) -> Process:
        """Start a client on the text of a bundle."""
        config = self.write(f"{len(list(self.directory.iterdir()))}.ovpn", bundle)
        return self._start(self.namespaces[1], "--config", config, *options)

    def on_client(self, *argv: str) -> str:
        return run(*self.namespaces[1].enter(*argv))


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as undo:
        server, client = namespaces = undo.enter_context(network_namespace()), undo.enter_context(network_namespace())
        ends = ("netns", f"{server.holder}", "type", "veth", "peer", "name", "up0", "netns", f"{client.holder}")
        run("ip", "link", "add", "up0", *ends)
        for namespace, address in ((server, "192.0.2.1/30"), (client, "192.0.2.2/30")):
            run(*namespace.enter("ip", "address", "add", address, "dev", "up0"))
            run(*namespace.enter("ip", "link", "set", "up0", "up"))
        add_tunnel_device(server)
        yield open_site(tmp_path_factory.mktemp("s"), namespaces, undo.enter_context(ExitStack()))


def add_tunnel_device(server: NetworkNamespace, mtu: int = TUNNEL.mtu) -> None:
    """Add the server's device, as systemd-networkd does on a gateway (openvpn.tun_device)."""
    for command in (
        "tuntap add dev tun0 mode tun",
        "address add 10.8.0.1/24 dev tun0",
        f"link set tun0 mtu {mtu}",
        "link set tun0 up",
    ):
        run(*server.enter("ip", *command.split()))


def open_site(directory: Path, namespaces: tuple[NetworkNamespace, NetworkNamespace], processes: ExitStack) -> Site:
    """Return a site with a new authority in the namespaces of a server and of clients, which reach 192.0.2.1."""
    return Site(
        directory=directory,
        namespaces=namespaces,
        authority=CertificateAuthority.create("Test CA", timedelta(days=2), datetime.now(UTC)),
        tls_crypt_key=tls_crypt.server_key(),
        processes=processes,
    )


@pytest.fixture(scope="module")
def openvpn_2_7(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command that runs OpenVPN 2.7, of the Debian release after this one, on libraries of its own."""
    libraries = "libc6 libcap-ng0 liblz4-1 liblzo2-2 libnl-3-200 libnl-genl-3-200 libpkcs11-helper1t64 libssl3t64"
    packages = ("openvpn", *libraries.split(), "libsystemd0", "libzstd1", "zlib1g")
    root = unpack(tmp_path_factory.mktemp("forky"), *packages, suite="forky")
    (directory,) = root.glob("usr/lib/*-linux-gnu")
    (loader,) = directory.glob("ld-linux-*")
    return (str(loader), "--library-path", str(directory), str(root / "usr/sbin/openvpn"))


@pytest.mark.parametrize("version", ["2.6", "2.7"])
def test_bundle_gets_in_without_one_warning(site: Site, version: str, request: pytest.FixtureRequest) -> None:
    server = site.server()
    program = request.getfixturevalue("openvpn_2_7") if version == "2.7" else ("openvpn",)
    client = site.client(site.leaf(), program=program)
    client.wait_for(UP)
    assert f"OpenVPN {version}." in client.log
    server.wait_for(r"SENT CONTROL \[alice\]")

    assert re.search(r"Control Channel: TLSv1\.3, .*256 bits? E(C|CDSA)", client.log), client.log
    assert "AES-256-GCM" in client.log
    assert "10.8.0.10/24" in site.on_client("ip", "-4", "address", "show", "dev", "tun0")
    assert f"mtu {TUNNEL.mtu}" in site.on_client("ip", "link", "show", "dev", "tun0")
    assert "10.1.0.0/16 via 10.8.0.1" in site.on_client("ip", "route")
    # Her own network, which others have a route to, is not pushed to alice.
    assert "192.168.1.0/24" not in site.on_client("ip", "route")
    site.on_client("ping", "-c", "1", "-W", "5", "10.8.0.1")
    for log in (server.log, client.log):
        assert not re.findall("(?i).*(?:warning|deprecated).*", log)


def test_a_busy_server_keeps_what_every_client_of_its_pool_sends_at_once(site: Site) -> None:
    tunnel = replace(TUNNEL, pool=IPv4Network("10.8.0.0/22"))
    assert tunnel.receive_buffer
    with receive_buffers_allowed(tunnel.receive_buffer):
        server = site.server(tunnel=tunnel)
    os.kill(server.pid, signal.SIGSTOP)
    site.on_client("ping", "-c", "1", "-W", "5", "192.0.2.1")

    def count_lost(sent: int) -> int:
        site.on_client(sys.executable, "-c", SENDER, f"{sent}")
        names, values = re.findall(
            r"^Udp: (.*)$", run(*site.namespaces[0].enter("cat", "/proc/net/snmp")), re.MULTILINE
        )
        return int(dict(zip(names.split(), values.split(), strict=True))["RcvbufErrors"])

    assert count_lost(1021) == 0
    assert count_lost(5000) > 0, "the control: there is an end"


@pytest.mark.parametrize("version", ["2.6", "2.7"])
def test_openvpn_knows_every_option_of_a_bundle(version: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    program = request.getfixturevalue("openvpn_2_7") if version == "2.7" else ("openvpn",)
    file = tmp_path / "alice.ovpn"
    for kind in CASES[f"OpenVPN {version}"][1]:
        bundle = render_kind(TUNNELS[kind])
        file.write_text(bundle)
        # An option that does not exist ends the program, once it has read the bundle.
        command = [*program, "--config", str(file), "--end-of-options"]
        read = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        assert "[CMD-LINE]:1: end-of-options" in read and version in read, (kind, read)
        assert not re.findall("(?i).*(?:warning|deprecated).*", read)
    file.write_text(bundle.replace("verb 3\n", "verb 3\nblock-outside-dns-anew\n"))
    refused = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "block-outside-dns-anew" in refused, "the control: the bundle is read"


@pytest.mark.parametrize(
    ("server_mtu", "bundle_mtu", "pulls", "device_mtu"),
    [(1440, 1420, True, 1440), (1440, 1420, False, 1420), (1420, 1440, True, 1420)],
    ids=["a former bundle", "a former bundle of a client that is pushed no size", "a former gateway"],
)
def test_packets_of_either_size_pass_where_gateway_and_bundle_differ(
    site: Site, server_mtu: int, bundle_mtu: int, pulls: bool, device_mtu: int
) -> None:
    site.server().stop()
    config = site.directory / "server.conf"
    config.write_text(config.read_text().replace(f"tun-mtu {TUNNEL.mtu}\n", f"tun-mtu {server_mtu}\n"))
    server, _ = site.namespaces
    run(*server.enter("ip", "link", "set", "tun0", "mtu", f"{server_mtu}"))
    site.restart_server()
    leaf = site.leaf()
    bundle = Path(site.bundle(leaf)).read_text().replace(f"tun-mtu {TUNNEL.mtu}\n", f"tun-mtu {bundle_mtu}\n")
    if not pulls:
        bundle = bundle.replace('pull-filter accept "tun-mtu "', 'pull-filter ignore "tun-mtu "')
    site.start_client(bundle).wait_for(UP)
    assert f"mtu {device_mtu} " in site.on_client("ip", "link", "show", "dev", "tun0")
    for size in (1420, 1440):
        for namespace, address in ((server, "10.8.0.10"), (site.namespaces[1], "10.8.0.1")):
            run(*namespace.enter("ping", "-n", "-c", "1", "-W", "5", "-M", "dont", "-s", f"{size - 28}", address))


def test_a_client_that_cannot_look_up_the_name_gets_in_by_the_address(site: Site) -> None:
    server, leaf = site.server(), site.leaf()
    # The namespace reaches no name server, as a client whose name server is behind the tunnel reaches none.
    profile = render_profile(TUNNEL, "vpn.example.com", SERVER_NAME, "alice", fallback="192.0.2.1")
    keys = (site.authority.certificate, leaf.certificate, leaf.key, tls_crypt.client_key(site.tls_crypt_key))
    client = site.start_client(render_bundle(profile, *keys))
    client.wait_for(UP, timeout=60)
    assert "Cannot resolve host address: vpn.example.com" in client.log
    server.end(signal.SIGTERM)
    site.restart_server()
    client.wait_for_lines(UP, 2, timeout=60)


def test_a_client_gets_in_with_its_own_key_beside_a_bundle_without_one(site: Site) -> None:
    site.server()
    request, key = create_request("alice", ec.generate_private_key(ec.SECP384R1()))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    certificate = site.authority.sign_request(request, "alice", timedelta(days=1), datetime.now(UTC))
    profile = render_profile(TUNNEL, "192.0.2.1", SERVER_NAME, "alice") + render_key_file("alice")
    wrapped = tls_crypt.client_key(site.tls_crypt_key)
    bundle = render_bundle(profile, site.authority.certificate, certificate.certificate, None, wrapped)
    site.write("alice.key", pem)
    site.start_client(bundle, "--cd", str(site.directory)).wait_for(UP)
    # As for an app on a phone, with the key in it.
    whole = bundle.replace("key alice.key\n", f"<key>\n{pem}</key>\n")
    assert key_of(whole) == pem
    site.start_client(whole).wait_for(UP)


def test_address_is_clear_of_fixed_ones_and_networks_of_others_are_routed(site: Site) -> None:
    site.server()
    site.client(site.leaf("bob")).wait_for(UP)
    assert "10.8.0.128/24" in site.on_client("ip", "-4", "address", "show", "dev", "tun0")
    assert "192.168.1.0/24 via 10.8.0.1" in site.on_client("ip", "route")


@pytest.mark.fault("6.5")
def test_a_hundred_clients_that_connect_at_once_all_get_in(site: Site) -> None:
    site.server()
    names = {f"client{number}" for number in range(100)}
    clients = []
    for name in names:
        site.write(f"ccd/{name}", "")
        # They are all on one machine, which would send to the first one what is for any of them.
        clients.append(site.client(site.leaf(name), options=("--ifconfig-noexec", "--route-noexec")))

    def all_are_in() -> bool:
        answer = agent.send_management_commands(site.directory / "mgmt.sock", ["status 3"])
        rows = [line.split("\t") for line in answer if line.startswith("CLIENT_LIST")]
        # The fourth column is a client's address in the tunnel, which it gets last.
        addresses = {row[1]: row[3] for row in rows if row[3]}
        return addresses.keys() == names and len(set(addresses.values())) == len(names)

    until(all_are_in, 120)
    for client in clients:
        client.wait_for(UP)


UNIT = FILES / "root/etc/systemd/system/openvpn-server@.service.d/drawbridge.conf"


def read_unit(key: str) -> str:
    """Return a value of the unit that the gateway runs the server with."""
    (value,) = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{key}=")]
    return value


@pytest.mark.fault("1.1")
def test_a_client_is_back_within_ten_seconds_of_a_kill(site: Site) -> None:
    server, client = site.server(), site.client(site.leaf())
    client.wait_for(UP)
    start = time.monotonic()
    with Lateness() as late:
        server.end(signal.SIGKILL)
        time.sleep(float(read_unit("RestartSec")))
        site.restart_server()
        client.wait_for_lines(UP, 2)
        seconds = time.monotonic() - start
    assert seconds < 10 + late.seconds, client.log


@pytest.mark.fault("1.3")
def test_a_client_is_back_within_three_seconds_of_a_restart(site: Site) -> None:
    server, client = site.server(), site.client(site.leaf())
    client.wait_for(UP)
    start = time.monotonic()
    with Lateness() as late:
        command = read_unit("ExecStop").removeprefix("-")
        run("env", f"MAINPID={server.pid}", *shlex.split(command))
        server.end(signal.SIGTERM)  # systemd's, for what is left
        site.restart_server()
        client.wait_for_lines(UP, 2)
        seconds = time.monotonic() - start
    assert "Connection reset command was pushed by server" in client.log
    assert seconds < 3 + late.seconds, client.log


AHEAD, BEHIND = timedelta(days=-10), timedelta(days=1.5)


@pytest.mark.parametrize(
    ("difference", "complaint"),
    [
        pytest.param(AHEAD, "certificate has expired", marks=pytest.mark.fault("5.1")),
        pytest.param(BEHIND, "certificate is not yet valid", marks=pytest.mark.fault("5.2")),
    ],
)
def test_a_gateway_with_a_wrong_clock_says_so_and_goes_on(site: Site, difference: timedelta, complaint: str) -> None:
    """Its clock is right here; the client's certificate is from another time, which is the same to it."""
    server = site.server()
    from_another_time = datetime.now(UTC) + difference
    client = site.client(site.authority.issue_client("alice", timedelta(hours=4), from_another_time))
    server.wait_for(f"VERIFY ERROR: depth=0, error={complaint}: CN=alice")
    assert UP not in client.log
    client.stop()
    site.client(site.leaf()).wait_for(UP)


@pytest.mark.parametrize(
    ("difference", "complaint"),
    [
        pytest.param(AHEAD, "certificate has expired", marks=pytest.mark.fault("5.3")),
        pytest.param(BEHIND, "certificate is not yet valid", marks=pytest.mark.fault("5.4")),
    ],
)
def test_a_client_with_a_wrong_clock_says_so_and_tries_again(site: Site, difference: timedelta, complaint: str) -> None:
    from_another_time = datetime.now(UTC) + difference
    site.server(site.authority.issue_server(SERVER_NAME, timedelta(hours=4), from_another_time))
    client = site.client(site.leaf())
    client.wait_for_lines(f"VERIFY ERROR: depth=0, error={complaint}: CN={SERVER_NAME}", 2)
    assert UP not in client.log


def test_revoked_serial_is_refused_until_it_is_not(site: Site) -> None:
    server = site.server()
    leaf = site.leaf()
    revoked = Path(site.write(f"revoked/{leaf.serial}", ""))

    client = site.client(leaf)
    server.wait_for(f"VERIFY CRL: depth=0, CN=alice, serial={leaf.serial} is revoked")
    assert UP not in client.log
    client.stop()

    revoked.unlink()
    site.client(leaf).wait_for(UP)


def test_client_without_a_file_is_refused(site: Site) -> None:
    server = site.server()
    site.client(site.leaf("mallory")).wait_for("AUTH_FAILED")
    server.wait_for(r"\[mallory\]")


def test_server_certificate_is_no_client(site: Site) -> None:
    server = site.server()
    client = site.client(site.authority.issue_server("alice", timedelta(days=1), datetime.now(UTC)))
    server.wait_for("unsuitable certificate purpose: CN=alice")
    assert UP not in client.log


def test_client_certificate_is_no_server(site: Site) -> None:
    site.server(site.leaf(SERVER_NAME))
    client = site.client(site.leaf())
    client.wait_for("unsuitable certificate purpose: CN=gateway.test")
    assert UP not in client.log


def test_another_server_of_the_same_authority_is_refused(site: Site) -> None:
    site.server()
    client = site.client(site.leaf(), expects="other.test")
    client.wait_for(r"VERIFY X509NAME ERROR")
    assert UP not in client.log


def test_stranger_s_tls_crypt_key_gets_no_answer(site: Site) -> None:
    server = site.server()
    client = site.client(site.leaf(), wrapped_for=tls_crypt.server_key())
    server.wait_for("can not extract tls-crypt-v2 client key")
    assert "Initial packet from" not in client.log


#: A host on the Internet, and the router of the client's own network.
OUTSIDE6, ROUTER6 = "2001:db8:99::1", "2001:db8:f::1"
PING_OUTSIDE = ("ping", "-n", "-c", "2", "-W", "5", OUTSIDE6)


def add_ipv6(site: Site) -> None:
    """Give the client's own network IPv6."""
    server, client = site.namespaces
    run(*server.enter("ip", "address", "add", f"{ROUTER6}/64", "dev", "up0", "nodad"))
    run(*server.enter("ip", "address", "add", f"{OUTSIDE6}/128", "dev", "lo", "nodad"))
    run(*client.enter("ip", "address", "add", "2001:db8:f::2/64", "dev", "up0", "nodad"))
    run(*client.enter("ip", "route", "add", "default", "via", ROUTER6))
    site.on_client(*PING_OUTSIDE)  # the control


def test_a_redirected_client_sends_ipv6_through_a_tunnel_that_has_it(site: Site) -> None:
    pool = IPv6Network("2001:db8:8::/80")
    tunnel = replace(TUNNEL, redirect=True, ipv6=TunnelIPv6(pool=pool, routes=(GLOBAL6,)))
    server, _ = site.namespaces
    add_ipv6(site)
    run(*server.enter("ip", "route", "add", f"{pool}", "dev", "tun0"))
    site.server(tunnel=tunnel)
    site.client(site.leaf(), client="alice", tunnel=tunnel).wait_for(UP)
    for address in ("198.51.100.1", OUTSIDE6):
        assert "dev tun0" in site.on_client("ip", "route", "get", address)
    # There is no other way any more.
    run(*server.enter("ip", "address", "delete", f"{ROUTER6}/64", "dev", "up0"))
    site.on_client(*PING_OUTSIDE)


def test_a_redirected_client_sends_no_ipv6_past_a_tunnel_that_has_none(site: Site) -> None:
    tunnel = replace(TUNNEL, redirect=True)
    _, client = site.namespaces
    add_ipv6(site)

    pushed = [argument for option in redirect_options(tunnel) for argument in ("--push", option)]
    site.server(None, *pushed)
    leaf = site.leaf()
    keys = (site.authority.certificate, leaf.certificate, leaf.key, tls_crypt.client_key(site.tls_crypt_key))
    profile = render_profile(tunnel, "192.0.2.1", SERVER_NAME, "alice")
    site.start_client(render_bundle(profile, *keys)).wait_for(UP)

    assert "dev tun0" in site.on_client("ip", "route", "get", "198.51.100.1")
    assert "dev tun0" in site.on_client("ip", "route", "get", OUTSIDE6)

    def answer() -> str:
        done = subprocess.run(client.enter(*PING_OUTSIDE), capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode, done.stdout
        return done.stdout

    # An error at once, so that a program with an IPv4 address as well does not wait for a timeout.
    until(lambda: "Destination unreachable" in answer(), 30)
    # Its own network is still reached directly.
    site.on_client("ping", "-n", "-c", "1", "-W", "5", ROUTER6)


#: Answers look-ups at several addresses that there is no such name, and says which address was asked.
RESOLVERS = """
import select, socket, sys
sockets = {}
for address in sys.argv[1:]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((address, 53))
    sockets[listener] = address
print("ready", flush=True)
while True:
    for listener in select.select([*sockets], [], [])[0]:
        query, peer = listener.recvfrom(2000)
        print("asked:", sockets[listener], flush=True)
        listener.sendto(query[:2] + bytes([0x81, 0x83]) + query[4:], peer)
"""
OWN_RESOLVER, VPC_RESOLVER = "192.0.2.1", "10.1.0.2"


@pytest.mark.parametrize(("version", "asked"), [("2.6", {OWN_RESOLVER}), ("2.7", {VPC_RESOLVER})])
def test_whom_a_redirected_client_with_a_resolver_of_its_own_asks(
    site: Site, version: str, asked: set[str], request: pytest.FixtureRequest
) -> None:
    """OpenVPN 2.7's own script, as Debian has it, puts the pushed resolver first; 2.6 alone leaves all as it is."""
    tunnel = replace(TUNNEL, redirect=True, resolver=IPv4Address(VPC_RESOLVER))
    server, client = site.namespaces
    run(*server.enter("ip", "address", "add", f"{VPC_RESOLVER}/32", "dev", "lo"))
    resolvers = site.start_in(server, sys.executable, "-I", "-c", RESOLVERS, OWN_RESOLVER, VPC_RESOLVER)
    resolvers.wait_for("ready")
    pushed = [
        argument for option in (*redirect_options(tunnel), *resolver_options(tunnel)) for argument in ("--push", option)
    ]
    site.server(None, *pushed)
    etc, program, mounts = site.directory / "etc", ("openvpn",), "mount --bind $0 /etc"
    etc.mkdir()
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", etc)
    (etc / "nsswitch.conf").write_text("hosts: dns\n")
    (etc / "resolv.conf").write_text(f"nameserver {OWN_RESOLVER}\noptions timeout:1\n")
    if version == "2.7":
        program = request.getfixturevalue("openvpn_2_7")
        mounts += f" && mount --bind {Path(program[-1]).parents[1]}/libexec /usr/libexec"
    leaf = site.leaf()
    keys = (site.authority.certificate, leaf.certificate, leaf.key, tls_crypt.client_key(site.tls_crypt_key))
    profile = site.write("own.ovpn", render_bundle(render_profile(tunnel, "192.0.2.1", SERVER_NAME, "alice"), *keys))
    script = f'{mounts} && exec "$@"'
    process = site.start_in(
        client,
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        str(etc),
        *program,
        "--suppress-timestamps",
        "--config",
        profile,
    )
    process.wait_for(UP)
    look_up = ("nsenter", "-t", str(process.pid), "--mount", "--net", "getent", "ahostsv4", "name.test")
    subprocess.run(look_up, capture_output=True, timeout=60, check=False)
    resolvers.wait_for("asked")
    assert set(re.findall("asked: (.*)", resolvers.log)) == asked, process.log


#: What a server that was taken over pushes; the server itself passes quotes and blanks on as they are.
TAKEN_OVER = {
    "a default route": ("9.1", "redirect-gateway def1"),
    "a default route in halves": ("9.1", "route 0.0.0.0 128.0.0.0"),
    "a default route in quotes": ("9.1", r"\"route\" 128.0.0.0 128.0.0.0"),
    "a default route after blanks": ("9.1", "  route 0.0.0.0 128.0.0.0"),
    "an address in half of the Internet": ("9.1", "ifconfig 10.8.0.10 128.0.0.0"),
    "a resolver": ("9.2", "dhcp-option DNS 198.51.100.53"),
    "a resolver in quotes": ("9.2", "'dhcp-option' DNS 198.51.100.53"),
    "a resolver as 2.7 has it": ("9.2", "dns server 1 address 198.51.100.53"),
    "a part of the VPC": ("9.3", "route 10.1.2.0 255.255.255.0"),
    "a foreign network": ("9.3", "route 198.51.100.0 255.255.255.0"),
    "half of the client's own network": ("9.3", "route 192.168.1.0 255.255.255.128"),
    "a foreign network by IPv6": ("9.3", "route-ipv6 2001:db8:9::/48"),
}


@pytest.mark.parametrize(
    "pushed",
    [pytest.param(option, id=name, marks=pytest.mark.attack(row)) for name, (row, option) in TAKEN_OVER.items()],
)
def test_a_client_ignores_what_its_stack_does_not_have(site: Site, pushed: str) -> None:
    site.server(None, "--config", site.write("taken-over.conf", f'push "{pushed}"\n'))
    script = site.write("up.sh", f"env > {site.directory}/environment\n")
    up = ("--script-security", "2", "--up", f"/bin/sh {script}")
    client = site.client(site.leaf(), client="alice", options=up)
    client.wait_for(UP)
    (reply,) = re.findall(r"PUSH: Received control message: '(.*)'", client.log)
    assert pushed.replace("\\", "").strip() in reply
    assert "Pushed option removed by filter" in client.log
    # Through these variables OpenVPN gives a host's scripts a resolver.
    assert not re.findall("^(?:foreign_option|dns)_.*", (site.directory / "environment").read_text(), re.MULTILINE)
    # The control: what the stack has arrives.
    assert site.on_client("ip", "route").splitlines() == [
        "10.1.0.0/16 via 10.8.0.1 dev tun0 ",
        "10.8.0.0/24 dev tun0 proto kernel scope link src 10.8.0.10 ",
        "192.0.2.0/30 dev up0 proto kernel scope link src 192.0.2.2 ",
    ]
    site.on_client("ping", "-c", "1", "-W", "5", "10.8.0.1")


@pytest.mark.seed("2.15")
def test_a_profile_for_windows_finds_its_scripts_and_tells_them_all(site: Site) -> None:
    """Their paths are read as on Windows; here they are names of files, in which a backslash is a letter."""
    site.server(None, "--push", "dhcp-option DNS 10.1.0.2", "--push", "dhcp-option DOMAIN vpc.test")
    named = replace(TUNNEL, domain="vpc.test", resolver=IPv4Address("10.1.0.2"))
    tunnel = replace(named, clients=(TunnelClient(name="alice", system="windows"), *TUNNEL.clients[1:]))
    leaf = site.leaf()
    profile = render_profile(tunnel, "192.0.2.1", SERVER_NAME, "alice")
    keys = (site.authority.certificate, leaf.certificate, leaf.key, tls_crypt.client_key(site.tls_crypt_key))
    bundle = site.write("alice.ovpn", render_bundle(profile, *keys).replace("\n", "\r\n"))
    start = ("--cd", str(site.directory), "--config", bundle)

    refused = site._start(site.namespaces[1], *start)
    refused.wait_for(r"up script fails with 'C:\\Program Files\\OpenVPN\\config-auto\\alice-up.cmd': No such file")
    for name in windows.script_names("alice"):
        site.write(rf"{windows.CONFIG_DIRECTORY}\{name}", '#!/bin/sh\nenv > "$script_type"\n')
        (site.directory / rf"{windows.CONFIG_DIRECTORY}\{name}").chmod(0o700)
    site._start(site.namespaces[1], *start).wait_for(UP)
    told = dict(line.split("=", 1) for line in (site.directory / "up").read_text().splitlines())
    expected = {
        "ifconfig_local": "10.8.0.10",
        "ifconfig_netmask": "255.255.255.0",
        "route_network_1": "10.1.0.0",
        "route_netmask_1": "255.255.0.0",
        "route_gateway_1": "10.8.0.1",
        "route_vpn_gateway": "10.8.0.1",
        "foreign_option_1": "dhcp-option DNS 10.1.0.2",
        "trusted_ip": "192.0.2.1",
        "dev": "tun0",
    }
    assert {key: told.get(key) for key in expected} == expected
    # It is theirs to do.
    assert "10.8.0.10" not in site.on_client("ip", "-4", "address", "show", "dev", "tun0")


def end(name: str, address: str) -> peer.PeerHost:
    leaf = self_signed(name, timedelta(days=1), datetime.now(UTC))
    keys = {"certificate": leaf.certificate, "key": leaf.key, "fingerprint": leaf.fingerprint}
    return peer.PeerHost(name=name, address=IPv4Address(address), **keys)


@pytest.mark.seed("2.11")
def test_peers_know_each_other_by_fingerprint_alone(site: Site) -> None:
    one, two = end("one", "10.9.0.1"), end("two", "10.9.0.2")
    listening = site.peer(one, two, None)
    calling = site.peer(two, one, "192.0.2.1")
    calling.wait_for(UP)
    listening.wait_for(UP)
    site.on_client("ping", "-c", "1", "-W", "5", "10.9.0.1")
    for log in (listening.log, calling.log):
        assert not re.findall("(?i).*(?:warning|deprecat).*", log)


@pytest.mark.seed("2.11")
def test_a_peer_with_another_key_carries_nothing(site: Site) -> None:
    one, two, stranger = end("one", "10.9.0.1"), end("two", "10.9.0.2"), end("two", "10.9.0.2")
    listening = site.peer(one, two, None)
    calling = site.peer(stranger, one, "192.0.2.1")
    listening.wait_for("(?i)fingerprint.*(not|mismatch|fail)|VERIFY ERROR")
    assert UP not in calling.log


def without_key(bundle: str) -> str:
    """Return the bundle of a client whose OpenVPN does not know tls-crypt-v2."""
    return re.sub("<tls-crypt-v2>.*</tls-crypt-v2>\n", "", bundle, flags=re.DOTALL)


def test_a_client_without_a_key_gets_no_answer(site: Site) -> None:
    server = site.server()
    client = site.start_client(without_key(Path(site.bundle(site.leaf())).read_text()))
    server.wait_for_lines("could not determine wrapping", 2)
    assert "Initial packet from" not in client.log
    assert site.count_sessions() == 0


def test_a_revoked_client_with_a_key_of_a_group_gets_as_far_as_its_certificate(site: Site) -> None:
    """Decision 20: so the gateway has no such key, although OpenVPN serves it beside those of clients."""
    key, leaf = site.write("group.key", run("openvpn", "--genkey", "secret", "/dev/stdout")), site.leaf()
    server = site.server(None, "--tls-auth", key)
    (site.directory / "revoked" / str(leaf.serial)).touch()
    named = Path(site.bundle(leaf, str(leaf.serial).encode())).read_text()
    client = site.start_client(named)
    server.wait_for_lines("TLS CRYPT V2 VERIFY SCRIPT ERROR", 2)
    assert site.count_sessions() == 0 and "VERIFY CRL" not in server.log
    client.stop()
    client = site.start_client(without_key(named), "--tls-auth", key)
    server.wait_for(f"VERIFY CRL: depth=0, CN=alice, serial={leaf.serial} is revoked")
    assert UP not in client.log


@pytest.mark.parametrize("metadata", [b"", b"alice", bytes(tls_crypt.METADATA_LIMIT)], ids=["none", "some", "most"])
def test_server_reads_the_metadata(site: Site, metadata: bytes) -> None:
    script = Path(site.write("verify", f'#!/bin/sh\nset -eu\ncp "$metadata_file" {site.directory}/metadata\n'))
    script.chmod(0o700)
    site.server(None, "--script-security", "2", "--tls-crypt-v2-verify", str(script))
    site.client(site.leaf(), metadata=metadata).wait_for(UP)
    assert (site.directory / "metadata").read_bytes() == metadata


@pytest.mark.attack("5.2")
def test_a_revoked_key_opens_no_session(site: Site) -> None:
    server = site.server()
    revoked = site.leaf("alice")
    (site.directory / "revoked" / str(revoked.serial)).touch()
    assert site.open_sessions(site.bundle(revoked, str(revoked.serial).encode()), 20) == 20
    server.wait_for_lines("TLS CRYPT V2 VERIFY SCRIPT ERROR", 20)
    assert site.count_sessions() == 0
    # The control: a key that was issued before keys named their certificate's serial, and one that is not revoked.
    assert site.open_sessions(site.bundle(revoked), 2) == 2
    good = site.leaf("bob")
    assert site.open_sessions(site.bundle(good, str(good.serial).encode()), 3) == 3
    server.wait_for_lines("TLS CRYPT V2 VERIFY SCRIPT OK", 5)
    assert site.count_sessions() == 5


@pytest.mark.attack("5.3")
def test_a_forged_source_occupies_no_session(site: Site) -> None:
    """A first packet can have any source; a client that does not announce cookies is forgotten at once."""
    server = site.server()
    bundle = site.bundle(site.leaf())
    site.open_sessions(bundle, 20, "forged")
    server.wait_for_lines("using tls-crypt-v2 key", 20)
    assert site.count_sessions() == 0
    assert site.open_sessions(bundle, 1) == 1
    server.wait_for("VERIFY SCRIPT OK")
    assert site.count_sessions() == 1


def test_first_packets_do_not_use_up_the_answers(site: Site) -> None:
    """By default OpenVPN answers no more than 100 of them in 10 s."""
    site.server()
    assert site.open_sessions(site.bundle(site.leaf()), 110, "reset") == 110


# After a theft

NAMES = contract.Names("dev")
ROTATIONS: dict[str, dict[str, Any]] = {
    "client": {"client_rotations": {"alice": "2020-01-01T00:00:00Z"}},
    "gateway": {"gateway_rotation": "2020-01-01T00:00:00Z"},
    "stack": {"stack_rotation": "2020-01-01T00:00:00Z"},
}


class MemoryStore(ParameterStore):
    """A gateway's parameters, in memory."""

    def __init__(self) -> None:
        self.values = {}

    def has(self, name: str, value: str, *, secret: bool) -> bool:
        return self.values.get(name) == value

    def put(self, name: str, value: str, *, secret: bool) -> None:
        self.values[name] = value

    def delete(self, names: Iterable[str]) -> None:
        for name in list(names):
            del self.values[name]


@dataclass(frozen=True)
class Issued:
    """What an authority has issued: the gateway's keys, alice's bundle, and the serials that are revoked."""

    keys: Keys
    bundle: str
    revoked: Iterable[str]

    def serve(self, site: Site) -> Process:
        """Start a server that has these keys, and return it once it is up."""
        site.authority, site.tls_crypt_key = self.keys.ca, self.keys.tls_crypt
        server = site.server(Leaf(**asdict(Certificate.read(self.keys.server_certificate)), key=self.keys.server_key))
        for serial in self.revoked:
            site.write(f"revoked/{serial}", "")
        return server


def rotate(rotation: str) -> tuple[Issued, Issued]:
    """Return what an authority has issued before a rotation and after it."""
    day, store, issued = timedelta(days=1), MemoryStore(), []
    for rotations in ({}, ROTATIONS[rotation]):
        order = Order(
            names=NAMES,
            region="eu-west-1",
            account="123456789012",
            server_name=SERVER_NAME,
            profiles={"alice": render_profile(TUNNEL, "192.0.2.1", SERVER_NAME, "alice")},
            schedule=Schedule(ca=100 * day, server=100 * day, client=day),
            **rotations,
        )
        outputs = converge(store, order, datetime.now(UTC))
        keys = Keys.load(store.values[NAMES.keys])
        issued.append(Issued(keys, store.values[NAMES.bundle("alice")], outputs["revoked"]))
    return issued[0], issued[1]


@pytest.mark.attack("5.5")
@pytest.mark.parametrize(
    ("rotation", "refusal"),
    [
        ("client", "TLS CRYPT V2 VERIFY SCRIPT ERROR"),
        ("gateway", "can not extract tls-crypt-v2 client key"),
        ("stack", "can not extract tls-crypt-v2 client key"),
    ],
)
def test_after_a_rotation_a_stolen_bundle_is_refused(site: Site, rotation: str, refusal: str) -> None:
    before, after = rotate(rotation)
    server = after.serve(site)
    thief = site.start_client(before.bundle)
    server.wait_for_lines(refusal, 2)
    assert UP not in thief.log
    # The control: the new bundle connects, while the thief goes on.
    site.start_client(after.bundle).wait_for(UP)
    assert UP not in thief.log


@pytest.mark.attack("5.6")
@pytest.mark.parametrize("rotation", ["gateway", "stack"])
def test_after_a_rotation_a_server_with_stolen_keys_is_not_the_gateway(site: Site, rotation: str) -> None:
    before, after = rotate(rotation)
    thief = before.serve(site)
    client = site.start_client(after.bundle)
    thief.wait_for_lines("can not extract tls-crypt-v2 client key", 2)
    assert UP not in client.log and "Initial packet from" not in client.log
    # The control: a client that has not fetched its bundle again takes the thief for the gateway.
    site.start_client(before.bundle).wait_for(UP)
    assert "Initial packet from" not in client.log


def test_after_a_rotation_of_the_stack_a_thief_with_the_new_tls_crypt_key_is_refused_as_well(site: Site) -> None:
    before, after = rotate("stack")
    replace(before, keys=replace(before.keys, tls_crypt=after.keys.tls_crypt)).serve(site)
    client = site.start_client(after.bundle)
    client.wait_for("VERIFY ERROR")
    assert UP not in client.log


# While the authority is renewed


@dataclass(frozen=True)
class Renewal:
    """Keys of a gateway before and after its authority was renewed; alice's bundle is from before, bob's from after."""

    former: Keys
    keys: Keys
    alice: str
    bob: str


@pytest.fixture(scope="module")
def renewal() -> Renewal:
    day, store, now = timedelta(days=1), MemoryStore(), datetime.now(UTC)

    def deploy(when: datetime, *clients: str) -> Keys:
        profiles = {client: render_profile(TUNNEL, "192.0.2.1", SERVER_NAME, client) for client in clients}
        order = Order(
            names=NAMES,
            region="eu-west-1",
            account="123456789012",
            server_name=SERVER_NAME,
            profiles=profiles,
            # The authority is renewed 40 days before its end, and then the server, which its end had cut short.
            schedule=Schedule(ca=300 * day, server=400 * day, client=30 * day, renewal=10 * day),
        )
        converge(store, order, when)
        return Keys.load(store.values[NAMES.keys])

    deploy(now - 261 * day)
    former = deploy(now - 5 * day, "alice")
    return Renewal(
        former, deploy(now, "alice", "bob"), store.values[NAMES.bundle("alice")], store.values[NAMES.bundle("bob")]
    )


def test_a_renewal_of_the_authority_cuts_no_client(site: Site, renewal: Renewal) -> None:
    """A client with a bundle from before it and one from after it connect to a gateway from before it and after it."""
    former, keys = renewal.former, renewal.keys
    assert (ca_of(renewal.alice), ca_of(renewal.bob)) == (former.ca.certificate, keys.ca.certificate)
    assert former.ca.certificate != keys.ca.certificate and former.server_certificate != keys.server_certificate
    site.authority, site.tls_crypt_key = former.ca, former.tls_crypt
    server = site.server(Leaf(**asdict(Certificate.read(former.server_certificate)), key=former.server_key))
    alice = site.start_client(renewal.alice)
    bob = site.start_client(renewal.bob, "--dev", "tun9", "--ifconfig-noexec", "--route-noexec")
    for client in (alice, bob):
        client.wait_for(UP)
    # As the agent does with new secrets: OpenVPN restarts, and its clients come back by themselves.
    for name, text in keys.for_gateway().items():
        site.write(f"secrets/{name}", text)
    server.end(signal.SIGTERM)
    server = site.restart_server()
    for client in (alice, bob):
        client.wait_for_lines(UP, 2, timeout=60)
        assert "VERIFY ERROR" not in client.log
    assert "VERIFY ERROR" not in server.log


def test_a_client_refuses_the_gateway_once_the_authority_in_its_bundle_has_ended(site: Site) -> None:
    """So a client's certificate must not end after the authority's in its bundle."""
    now, days = datetime.now(UTC), timedelta(days=10)
    former = CertificateAuthority.create("Test CA", days, now - days - timedelta(hours=1))
    site.authority = former.renew(days, now)
    site.server()
    bundle = Path(site.bundle(site.leaf())).read_text()
    client = site.start_client(bundle.replace(site.authority.certificate.strip(), former.certificate.strip()))
    client.wait_for("VERIFY ERROR: depth=1, error=certificate has expired: CN=Test CA")
    assert UP not in client.log
    client.stop()
    site.start_client(bundle).wait_for(UP)


@pytest.mark.attack("5.7")
def test_a_bundle_that_is_used_twice_is_noticed(site: Site) -> None:
    server = site.server()
    leaf = site.leaf()
    site.client(leaf).wait_for(UP)
    assert find_displaced(server.log) == ()
    site.client(leaf, options=("--dev", "tun9")).wait_for(UP)
    # The client is ready before the server's log has been read.
    until(lambda: find_displaced(server.log) == (DisplacedClient("alice", 1, ("192.0.2.2",)),), 20)
