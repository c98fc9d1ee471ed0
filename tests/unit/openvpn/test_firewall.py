"""The firewall's text through nft, and its rules with packets in network namespaces, where a veth pair is the tunnel.

Does not prove: OpenVPN's part (a real tunnel, each client held to its own address).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from components.network import EPHEMERAL
from openvpn import sysctl
from openvpn.firewall import COUNTERS, FLOWS_ALL, FLOWS_EACH, TABLE, render_nftables, translated_ports
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from tests.support.network_namespace import NetworkNamespace, network_namespace

VPC = (IPv4Network("10.1.0.0/16"),)
WORLD = (IPv4Network("0.0.0.0/0"),)
ADMIN = (IPv4Network("10.1.0.99/32"),)
HOME = TunnelClient(
    name="home",
    address=IPv4Address("10.8.0.10"),
    lan=(IPv4Network("192.168.1.0/24"),),
    reachable=(IPv4Network("192.168.1.128/25"),),
)
TUNNEL = Tunnel(pool=IPv4Network("10.8.0.0/24"), routes=VPC, clients=(HOME, TunnelClient(name="alice")))

# GATEWAY's own; what is in the VPC, with METADATA at EC2's address; and below, what is at the tunnel's far end.
GATEWAY, HOST, OPERATOR, METADATA, INTERNET = "10.1.0.5", "10.1.0.20", "10.1.0.99", "169.254.169.254", "203.0.113.9"
CLIENT, REACHABLE, UNREACHABLE, NOBODY = "10.8.0.10", "192.168.1.200", "192.168.1.5", "10.66.0.1"

PROBE = """
import socket, sys
kind, source, address, port = sys.argv[1:]
with socket.socket(socket.AF_INET, {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[kind]) as probe:
    probe.settimeout(0.5)
    probe.bind((source, 0))
    try:
        probe.connect((address, int(port)))
        probe.send(b"?")
        probe.recv(1)
        print("answered")
    except ConnectionRefusedError:
        print("passed")
    except TimeoutError:
        print("dropped")
"""

LISTENER = """
import socket, sys
with socket.create_server((sys.argv[1], 5000)) as server:
    server.settimeout(10)
    print("ready", flush=True)
    connection, (peer, _) = server.accept()
    with connection:
        print(peer, connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
        connection.recv(1)
        connection.send(b"!")
"""

#: Shows the source port of the first datagram.
DATAGRAM = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 5001))
server.settimeout(10)
print("ready", flush=True)
print(server.recvfrom(1)[1][1], flush=True)
"""

#: Sends one datagram from a given port.
SEND = """
import socket, sys
source, port, address = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((source, int(port)))
    sender.sendto(b"?", (address, 5001))
"""

#: Sends one datagram from a given port, and shows whether the error of a closed port comes back.
REFUSED = """
import socket, sys
source, port, address = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.settimeout(2)
    sender.bind((source, int(port)))
    sender.connect((address, 5001))
    sender.send(b"?")
    try:
        sender.recv(1)
    except ConnectionRefusedError:
        print("refused")
    except TimeoutError:
        print("no error")
"""

#: Sends datagrams, each from a port of its own, that begin with the same byte.
DATAGRAMS = """
import socket, sys
source, address, port, first, count = sys.argv[1:]
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(int(count))]  # all open: a port for each
for sender in senders:
    sender.bind((source, 0))
    sender.sendto(bytes([int(first, 16)]) + b"?" * 20, (address, int(port)))
"""

#: Opens TCP connections at once and ends; shows how many were accepted within a second.
CONNECTIONS = """
import selectors, socket, sys, time
source, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
waiting, opened = selectors.DefaultSelector(), 0
for _ in range(count):
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind((source, 0))
    connection.connect_ex((address, 5002))
    waiting.register(connection, selectors.EVENT_WRITE)
end = time.monotonic() + 1
while waiting.get_map() and (left := end - time.monotonic()) > 0:
    for key, _ in waiting.select(left):
        opened += not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        waiting.unregister(key.fileobj)
print(opened)
"""
#: Accepts TCP connections, by the kernel alone.
ACCEPTER = """
import socket, sys
with socket.create_server((sys.argv[1], 5002), backlog=1000):
    print("ready", flush=True)
    sys.stdin.read()
"""
#: Keeps the far end from telling that its connections have ended.
HOLD_BACK = (
    "table ip attack { chain output { type filter hook output priority 0; tcp flags & (fin | rst) != 0 drop; }; }"
)

#: First byte of a first packet and of data (openvpn-wire-protocol, "Message types").
RESET, DATA = "50", "48"


def _missing() -> str | None:
    absent = [
        tool for tool in ("nft", "ip", "nsenter", "ping", "setpriv", "unshare", "sysctl") if not shutil.which(tool)
    ]
    if absent:
        return f"needs {', '.join(absent)} on PATH"
    return None if os.geteuid() == 0 else "needs root for network namespaces"


pytestmark = [pytest.mark.allow_subprocess, pytest.mark.skipif(_missing() is not None, reason=str(_missing()))]


def render(tunnel: Tunnel = TUNNEL, admin: tuple[IPv4Network, ...] = ADMIN) -> str:
    return render_nftables(tunnel, admin_from=admin, allow_from=WORLD, vpc=VPC)


def run(*argv: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=check, capture_output=True, input=text, text=True, timeout=20)


@dataclass
class Network:
    """Far end of the tunnel - gateway - VPC, a namespace each."""

    far: NetworkNamespace
    gateway: NetworkNamespace
    vpc: NetworkNamespace
    directory: Path

    def load(self, text: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.at(self.gateway, "nft", "-f", "-", check=check, text=text)

    def at(
        self, namespace: NetworkNamespace, *argv: str, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run(*namespace.enter(*argv), check=check, text=text)

    def ping(self, namespace: NetworkNamespace, source: str, address: str) -> bool:
        return self.at(namespace, "ping", "-c1", "-W0.5", "-I", source, address, check=False).returncode == 0

    def probe(self, namespace: NetworkNamespace, kind: str, source: str, address: str, port: int) -> str:
        return self.at(namespace, sys.executable, "-c", PROBE, kind, source, address, str(port)).stdout.strip()

    def meet(self, source: str, address: str, *, at: NetworkNamespace | None = None) -> tuple[str, int]:
        """The peer's address and the size of segments to it, as seen at `address` in the VPC, or at the far end.

        The other one of the two connects from `source`.
        """
        listener_at, prober = (self.far, self.vpc) if at is self.far else (self.vpc, self.far)
        argv = listener_at.enter(sys.executable, "-c", LISTENER, address)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout
            assert listener.stdout.readline() == "ready\n"
            assert self.probe(prober, "tcp", source, address, 5000) == "answered"
            peer, segment = listener.stdout.readline().split()
        return peer, int(segment)

    def source_port(self, port: int) -> int:
        """The port that a host sees when the far end sends it a datagram from `port`."""
        argv = self.vpc.enter(sys.executable, "-c", DATAGRAM, HOST)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            self.at(self.far, sys.executable, "-c", SEND, CLIENT, str(port), HOST)
            return int(server.stdout.readline())

    def send(self, namespace: NetworkNamespace, source: str, address: str, port: int, first: str, count: int) -> None:
        argv = (sys.executable, "-c", DATAGRAMS, source, address, str(port), first, str(count))
        self.at(namespace, *argv)

    def connect(self, source: str, count: int) -> int:
        """Open TCP connections from the far end to a host, and return how many are accepted."""
        argv = (sys.executable, "-c", CONNECTIONS, source, HOST, str(count))
        return int(self.at(self.far, *argv).stdout)

    def tracked(self) -> int:
        """Connections in the gateway's table."""
        return int(self.at(self.gateway, "cat", "/proc/sys/net/netfilter/nf_conntrack_count").stdout)

    def counted(self, name: str) -> int:
        shown = self.at(self.gateway, "nft", "-j", "list", "counter", *TABLE.split(), name).stdout
        return int(json.loads(shown)["nftables"][-1]["counter"]["packets"])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with ExitStack() as undo:
        far, gateway, vpc = namespaces = [undo.enter_context(network_namespace()) for _ in range(3)]
        network = Network(far, gateway, vpc, tmp_path_factory.mktemp("nft"))
        settings = network.directory / "sysctl.conf"
        settings.write_text(sysctl.render_sysctl(TUNNEL))
        for namespace in namespaces:
            # The kernel's own IPv6 chatter would be counted.
            network.at(
                namespace, "sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"
            )
        # Before the interfaces, as at boot.
        network.at(gateway, "sysctl", "-q", "-p", str(settings))
        for device, other in (("tun0", far), ("ens5", vpc)):
            ends = ("netns", f"{gateway.holder}", "type", "veth", "peer", "name", "up0", "netns", f"{other.holder}")
            run("ip", "link", "add", device, *ends)
        addresses = {
            (gateway, "tun0"): ["10.8.0.1/24"],
            (gateway, "ens5"): [f"{GATEWAY}/24"],
            (far, "up0"): [f"{CLIENT}/24", *(f"{a}/32" for a in (REACHABLE, UNREACHABLE, NOBODY))],
            (vpc, "up0"): [f"{HOST}/24", f"{OPERATOR}/24", f"{METADATA}/32", f"{INTERNET}/32"],
        }
        for (namespace, device), prefixes in addresses.items():
            for address in prefixes:
                network.at(namespace, "ip", "address", "add", address, "dev", device)
            network.at(namespace, "ip", "link", "set", device, "up")
        network.at(far, "ip", "route", "add", "default", "via", "10.8.0.1")
        network.at(vpc, "ip", "route", "add", "default", "via", GATEWAY)
        for lan in ("192.168.1.0/24", f"{NOBODY}/32"):
            network.at(gateway, "ip", "route", "add", lan, "via", CLIENT)
        for address in (METADATA, INTERNET):
            network.at(gateway, "ip", "route", "add", address, "dev", "ens5")
        yield network


VARIANTS = [
    replace(TUNNEL, nat=nat, client_to_client=meet, redirect=redirect, clients=clients)
    for nat, meet, redirect in product((False, True), repeat=3)
    for clients in ((), TUNNEL.clients)
]


@pytest.mark.parametrize("tunnel", VARIANTS, ids=str)
@pytest.mark.parametrize("admin", [(), ADMIN, (*WORLD, *ADMIN)], ids=["no admin", "one", "overlapping"])
def test_nft_takes_it(tunnel: Tunnel, admin: tuple[IPv4Network, ...]) -> None:
    done = run("unshare", "-n", "nft", "-c", "-f", "-", check=False, text=render(tunnel, admin))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_load_leaves_other_tables_alone_and_ours_once(network: Network) -> None:
    network.load("table ip other { chain theirs { ip daddr 192.0.2.1 drop; }; }\n")
    try:
        network.load(render())
        first = network.at(network.gateway, "nft", "list", "ruleset").stdout
        network.load(render())
        assert network.at(network.gateway, "nft", "list", "ruleset").stdout == first
        assert "192.0.2.1" in first
    finally:
        network.load("delete table ip other\n")


def test_broken_text_changes_nothing(network: Network) -> None:
    network.load(render())
    before = network.at(network.gateway, "nft", "list", "ruleset").stdout
    broken = render(replace(TUNNEL, listener=Listener("udp", (1195,)))).replace("masquerade", "masquerode")
    assert network.load(broken, check=False).returncode != 0
    assert network.at(network.gateway, "nft", "list", "ruleset").stdout == before


@pytest.mark.parametrize("source", [CLIENT, UNREACHABLE])
def test_translation_shows_the_gateway_and_without_it_the_client(network: Network, source: str) -> None:
    network.load(render())
    assert network.meet(source, HOST)[0] == GATEWAY
    network.load(render(replace(TUNNEL, nat=False)))
    assert network.meet(source, HOST)[0] == source


@pytest.mark.attack("1.14")
def test_translated_packets_leave_from_ports_to_which_the_network_acl_lets_replies(network: Network) -> None:
    """ntpd sends from port 123, IKE from 500; the public subnet's ACL lets replies in to 1024 and above."""
    network.load(render(replace(TUNNEL, redirect=True)))
    low, high = EPHEMERAL
    assert low <= network.source_port(123) <= high
    assert low <= network.source_port(500) <= high
    assert network.source_port(40123) == 40123
    # Replies to the tunnel's own port are OpenVPN's, and not translated back.
    assert network.source_port(1194) != 1194
    network.load(render(replace(TUNNEL, nat=False)))
    assert network.source_port(123) == 123


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_segments_to_clients_fit_the_device_and_those_from_clients_the_smallest_path(
    network: Network, protocol: Literal["udp", "tcp"]
) -> None:
    network.load(render(replace(TUNNEL, listener=Listener(protocol, (1194,)))))
    # What the socket reports is less the 12 bytes of the time stamp option, which are inside the segment.
    assert network.meet(CLIENT, HOST)[1] == TUNNEL.mtu - (20 + 20) - 12
    path = {"udp": TUNNEL.path_mtu - (20 + 8 + 24), "tcp": TUNNEL.mtu}[protocol]
    assert network.meet(HOST, REACHABLE, at=network.far)[1] == path - (20 + 20) - 12
    network.load(f"delete table {TABLE}\n")
    assert network.meet(CLIENT, HOST)[1] == network.meet(HOST, REACHABLE, at=network.far)[1] == 1500 - (20 + 20) - 12


@pytest.mark.parametrize("port", [1194, 40123], ids=["the tunnel's", "another"])
def test_errors_about_what_the_gateway_sends_arrive_though_the_tunnel_is_not_tracked(
    network: Network, port: int
) -> None:
    """A path that takes smaller packets is such an error."""
    network.load(render())
    assert network.at(network.gateway, sys.executable, "-c", REFUSED, GATEWAY, str(port), HOST).stdout == "refused\n"


def test_clients_never_reach_the_metadata(network: Network) -> None:
    network.load(render(replace(TUNNEL, redirect=True)))
    assert network.ping(network.far, CLIENT, INTERNET)
    assert not network.ping(network.far, CLIENT, METADATA)
    assert network.counted("metadata") == 1
    assert network.ping(network.gateway, GATEWAY, METADATA)
    network.load(f"delete table {TABLE}\n")
    assert network.ping(network.far, CLIENT, METADATA)


@pytest.mark.parametrize("address", [HOST, GATEWAY])
def test_sources_that_are_nobody_s_are_dropped(network: Network, address: str) -> None:
    network.load(render())
    assert not network.ping(network.far, NOBODY, address)
    assert network.counted("spoofed") == 1
    home = replace(HOME, lan=(*HOME.lan, IPv4Network(f"{NOBODY}/32")))
    network.load(render(replace(TUNNEL, clients=(home,))))
    assert network.ping(network.far, NOBODY, address)


def test_clients_reach_only_what_is_routed(network: Network) -> None:
    network.load(render())
    assert network.ping(network.far, CLIENT, HOST)
    assert not network.ping(network.far, CLIENT, INTERNET)
    network.load(render(replace(TUNNEL, routes=(IPv4Network(f"{INTERNET}/32"),))))
    assert network.ping(network.far, CLIENT, INTERNET)


@pytest.mark.attack("1.10")
def test_clients_ask_the_vpc_s_resolver_only_if_it_is_pushed(network: Network) -> None:
    resolver = "10.1.0.2"
    network.at(network.vpc, "ip", "address", "add", f"{resolver}/32", "dev", "up0")
    try:
        network.load(render())
        assert not network.ping(network.far, CLIENT, resolver)
        assert network.ping(network.far, CLIENT, HOST)
        network.load(render(replace(TUNNEL, domain="test", resolver=IPv4Address(resolver))))
        assert network.ping(network.far, CLIENT, resolver)
    finally:
        network.at(network.vpc, "ip", "address", "del", f"{resolver}/32", "dev", "up0")


def test_vpc_opens_connections_only_to_what_is_reachable(network: Network) -> None:
    network.load(render(replace(TUNNEL, nat=False)))
    assert network.ping(network.vpc, HOST, REACHABLE)
    assert not network.ping(network.vpc, HOST, UNREACHABLE)
    assert not network.ping(network.vpc, HOST, CLIENT)
    assert not network.ping(network.vpc, INTERNET, REACHABLE)
    assert network.counted("refused_forward") == 3
    assert network.ping(network.far, UNREACHABLE, HOST)


@pytest.mark.parametrize(("meet", "refused"), [(False, 1), (True, 0)])
def test_clients_meet_only_if_they_may(network: Network, meet: bool, refused: int) -> None:
    network.load(render(replace(TUNNEL, client_to_client=meet)))
    network.at(network.far, "ip", "route", "replace", "10.8.0.20", "via", "10.8.0.1")
    network.ping(network.far, CLIENT, "10.8.0.20")
    assert network.counted("refused_forward") == refused


@pytest.mark.parametrize(
    ("end", "kind", "source", "port", "expected"),
    [
        ("vpc", "udp", HOST, 1194, "passed"),
        ("vpc", "udp", HOST, 1195, "dropped"),
        ("vpc", "tcp", OPERATOR, 22, "passed"),
        ("vpc", "tcp", HOST, 22, "dropped"),
        ("vpc", "tcp", OPERATOR, 80, "dropped"),
        ("vpc", "tcp", OPERATOR, 1194, "dropped"),
        ("vpc", "udp", HOST, 53, "dropped"),
        ("far", "udp", CLIENT, 1194, "dropped"),
        ("far", "tcp", CLIENT, 22, "dropped"),
    ],
)
def test_input(network: Network, end: str, kind: str, source: str, port: int, expected: str) -> None:
    network.load(render())
    assert network.probe(getattr(network, end), kind, source, GATEWAY, port) == expected
    assert (network.counted("refused_input") > 0) == (expected == "dropped")


def test_gateway_answers_pings_and_reaches_out(network: Network) -> None:
    network.load(render())
    assert network.ping(network.vpc, HOST, GATEWAY)
    assert network.ping(network.far, CLIENT, GATEWAY)
    assert network.ping(network.far, CLIENT, "10.8.0.1")
    assert network.probe(network.gateway, "tcp", GATEWAY, HOST, 443) == "passed"


def test_a_source_opens_sessions_at_its_rate(network: Network) -> None:
    network.load(render(replace(TUNNEL, clients_per_address=3)))
    network.send(network.vpc, OPERATOR, GATEWAY, 1194, RESET, 100)
    # Two packets open a session. The bucket fills up again meanwhile, by one packet in 10 s.
    assert 80 < network.counted("sessions") <= 94
    # The control: another source in the same minute, and data of the same one.
    before = network.counted("sessions")
    network.send(network.vpc, HOST, GATEWAY, 1194, RESET, 6)
    network.send(network.vpc, OPERATOR, GATEWAY, 1194, DATA, 100)
    assert network.counted("sessions") == before
    # What the gateway forwards to that port of a host is nobody's session.
    network.send(network.far, CLIENT, HOST, 1194, RESET, 100)
    assert network.counted("sessions") == before


def test_over_tcp_a_source_connects_at_its_rate(network: Network) -> None:
    network.load(render(replace(TUNNEL, listener=Listener("tcp", (443,)), clients_per_address=3)))
    tries = [network.probe(network.vpc, "tcp", OPERATOR, GATEWAY, 443) for _ in range(5)]
    assert tries == ["passed"] * 3 + ["dropped"] * 2
    assert network.probe(network.vpc, "tcp", HOST, GATEWAY, 443) == "passed"


@pytest.mark.fault("3.7")
@pytest.mark.parametrize(("protocol", "port"), [("udp", 1194), ("tcp", 443)])
def test_the_tunnel_and_ssh_are_not_in_the_connection_table(
    network: Network, protocol: Literal["udp", "tcp"], port: int
) -> None:
    """A full table drops every packet that would begin a flow."""
    network.load(render(replace(TUNNEL, listener=Listener(protocol, (port,)))))
    before = network.tracked()
    assert network.probe(network.vpc, protocol, HOST, GATEWAY, port) == "passed"
    network.send(network.vpc, HOST, GATEWAY, port, RESET, 3 if protocol == "udp" else 0)
    assert network.probe(network.vpc, "tcp", OPERATOR, GATEWAY, 22) == "passed"
    assert network.tracked() <= before
    # The control: what is forwarded is in the table.
    network.send(network.far, CLIENT, HOST, 1194, DATA, 3)
    assert network.tracked() >= before + 3


@pytest.mark.fault("3.7")
@pytest.mark.attack("1.11")
def test_no_source_fills_the_connection_table(network: Network) -> None:
    few = render().replace(f"count over {FLOWS_EACH}", "count over 40")
    few = few.replace(f"count over {FLOWS_ALL}", "count over 100")
    assert few.count("count over 40") == 2 and few.count("count over 100") == 1
    network.load(few)
    network.send(network.far, CLIENT, HOST, 5001, DATA, 90)
    assert network.counted("flows") == 50
    # Others pass, up to what is kept for the gateway's own connections, which pass always.
    network.send(network.far, REACHABLE, HOST, 5001, DATA, 40)
    assert network.counted("flows") == 50
    network.send(network.far, UNREACHABLE, HOST, 5001, DATA, 40)
    assert network.counted("flows") == 70
    assert not network.ping(network.far, "192.168.1.5", GATEWAY)
    assert network.probe(network.gateway, "tcp", GATEWAY, HOST, 443) == "passed"
    assert network.ping(network.gateway, GATEWAY, HOST)
    assert network.probe(network.vpc, "udp", HOST, GATEWAY, 1194) == "passed"


@pytest.mark.attack("1.12")
def test_no_source_fills_the_connection_table_with_connections_that_never_end(network: Network) -> None:
    network.load(render().replace(f"count over {FLOWS_EACH}", "count over 40"))
    network.at(network.far, "nft", "-f", "-", text=HOLD_BACK)
    argv = network.vpc.enter(sys.executable, "-c", ACCEPTER, HOST)
    try:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as accepter:
            assert accepter.stdout
            assert accepter.stdout.readline() == "ready\n"
            assert network.connect(CLIENT, 60) == 40
            # The program has ended. To the gateway its connections live, so that it gets no others.
            assert network.connect(CLIENT, 5) == 0
            # The control: another source in the same minute, and the same one without the limit.
            assert network.connect(REACHABLE, 5) == 5
            network.load(render())
            assert network.connect(CLIENT, 60) == 60
            accepter.communicate("")
    finally:
        network.at(network.far, "nft", "delete", "table", "ip", "attack")


@pytest.mark.attack("7.2")
def test_only_root_reaches_the_metadata(network: Network) -> None:
    network.load(render())
    assert network.ping(network.gateway, GATEWAY, METADATA)
    assert network.counted("metadata") == 0
    for user in ("65534", "990"):
        as_user = ("setpriv", f"--reuid={user}", "--clear-groups", sys.executable, "-c", PROBE)
        network.at(network.gateway, *as_user, "tcp", GATEWAY, METADATA, "80")
    assert network.counted("metadata") == 2
    network.at(network.gateway, sys.executable, "-c", PROBE, "tcp", GATEWAY, METADATA, "80")
    assert network.counted("metadata") == 2


@pytest.mark.parametrize(
    ("ports", "translated"),
    [
        ((1194,), (1195, 65535)),
        ((443,), (1024, 65535)),
        ((1194, 1195), (1196, 65535)),
        ((50000,), (1024, 49999)),
        ((1024,), (1025, 65535)),
        ((65535,), (1024, 65534)),
    ],
)
def test_clients_packets_do_not_leave_from_the_tunnels_ports(
    ports: tuple[int, ...], translated: tuple[int, int]
) -> None:
    assert translated_ports(Listener("udp", ports)) == translated


def test_every_counter_is_there(network: Network) -> None:
    network.load(render())
    assert {name: network.counted(name) for name in COUNTERS} == dict.fromkeys(COUNTERS, 0)


SYSTEMD_SYSCTL = Path("/usr/lib/systemd/systemd-sysctl")

#: What the package linux-sysctl-defaults, which AWS's image has, sets for every interface: the loose mode.
DEFAULTS = "net.ipv4.conf.*.rp_filter = 2\n"


@pytest.mark.skipif(not SYSTEMD_SYSCTL.exists(), reason="needs systemd-sysctl")
def test_the_reverse_path_filter_is_strict_on_the_image_of_aws(tmp_path: Path) -> None:
    """The kernel takes the larger one of `all` and an interface's own value, and the loose mode's is the larger one."""
    (tmp_path / "50-default.conf").write_text(DEFAULTS)
    (tmp_path / "90-drawbridge.conf").write_text(sysctl.render_sysctl(TUNNEL))
    files = " ".join(str(tmp_path / name) for name in ("50-default.conf", "90-drawbridge.conf"))
    interface, key = "ip link add tun0 type veth peer name far", "net.ipv4.conf.tun0.rp_filter"
    script = f"{interface} && {SYSTEMD_SYSCTL} {files} && sysctl -n {key}"
    assert run("unshare", "-n", "sh", "-c", script).stdout == "1\n"


#: Answers datagrams to some ports with the number of the port that they have come to.
ANSWER = """
import select, socket, sys
servers = []
for port in sys.argv[2:]:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((sys.argv[1], int(port)))
    servers.append(server)
print("ready", flush=True)
while True:
    for server in select.select(servers, [], [])[0]:
        _, peer = server.recvfrom(100)
        server.sendto(str(server.getsockname()[1]).encode(), peer)
"""

#: Asks a port from an address; shows which port the answer comes from, and the answer.
ASK = """
import socket, sys
source, address, port = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
    asker.settimeout(1)
    asker.bind((source, 0))
    asker.sendto(b"?", (address, int(port)))
    try:
        answer, peer = asker.recvfrom(100)
        print(peer[1], answer.decode())
    except TimeoutError:
        print("no answer")
"""


def test_the_filter_hands_each_address_to_one_of_the_processes_that_share_a_port(network: Network) -> None:
    tunnel = replace(TUNNEL, listener=Listener(sharing=3))
    ports = [str(port) for port in tunnel.listener.process_ports]

    def ask(source: str, port: str) -> str:
        return network.at(network.vpc, sys.executable, "-c", ASK, source, GATEWAY, port).stdout.strip()

    network.load(render(tunnel))
    before = network.tracked()
    argv = network.gateway.enter(sys.executable, "-c", ANSWER, GATEWAY, *ports)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as answerer:
        try:
            assert answerer.stdout and answerer.stdout.readline() == "ready\n"
            chosen = {source: ask(source, ports[0]) for source in (HOST, OPERATOR, INTERNET)}
            assert {*chosen.values()} <= {f"{ports[0]} {port}" for port in ports} and len({*chosen.values()}) > 1
            # From another port, and after the filter was loaded anew, it is the same one.
            network.load(render(tunnel))
            assert {source: ask(source, ports[0]) for source in chosen} == chosen
            assert [ask(INTERNET, port) for port in ports[1:]] == ["no answer"] * 2, "only the filter leads there"
            assert network.tracked() <= before
        finally:
            answerer.kill()
