"""Ten megabytes pass each way through a real tunnel whose path takes smaller packets than either end's line.

Two routers stand between client and server, with a narrow line between them; in one half of the cases neither of them
tells a sender that its packet is too big (RFC 2923). Does not prove that a router of a real provider fragments.
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from drawbridge.doctor.path_checks import find_first_broken, judge_path
from openvpn import lan_bridge
from openvpn.addressing import gateway_mac
from openvpn.bond import create_segment_bond, render_files
from openvpn.bundle import render_bundle
from openvpn.firewall import render_nftables
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from openvpn.topology import BRIDGE, BondedSegment, BridgedSegment, Segment
from pki import tls_crypt
from tests.support import gateway, pair, waiting
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.unit.drawbridge.test_path_checks import WHOLE
from tests.unit.openvpn.test_real_openvpn import (
    SERVER_NAME,
    TUNNEL,
    UP,
    Process,
    Site,
    add_tunnel_device,
    open_site,
    pytestmark,
    run,
)
from userdata.cloud_config import FILES

__all__ = ["pytestmark"]

WORLD = (IPv4Network("0.0.0.0/0"),)
SIZE = 10_000_000

#: Sends or takes bytes over one connection; the end that connects says which end sends.
TRANSFER = """
import socket, sys
way, size, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def take(connection):
    total = 0
    while data := connection.recv(1 << 16):
        total += len(data)
    return total
if way == "listen":
    with socket.create_server(("10.1.0.20", 5001)) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if connection.recv(1) == b"s":
                    connection.sendall(bytes(size))
                else:
                    connection.sendall(b"%d" % take(connection))
else:
    with socket.create_connection(("10.1.0.20", 5001), timeout=patience) as connection:
        if way == "segment":
            connection.sendall(b"t")
            print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(20)
        elif way == "download":
            connection.send(b"s")
            print(take(connection))
        else:
            connection.sendall(b"t" + bytes(size))
            connection.shutdown(socket.SHUT_WR)
            print(connection.recv(20).decode())
"""


#: Runs the gateway's script as on the gateway, but more often, on the files of the server's directory.
MEASURE = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("path_mtu", sys.argv[1])
script = importlib.util.module_from_spec(spec)
sys.modules["path_mtu"] = script
spec.loader.exec_module(script)
script.SETTINGS = pathlib.Path(sys.argv[2])
script.RUNTIME = script.CURRENT = script.SETTINGS.parent
script.TICK, script.INTERVAL, script.WRITE_INTERVAL, script.RETRIES, script.PATIENCE = 0.2, 0.5, 0.5, (), 0.5
script.main()
"""


#: Measures as the doctor does on the client: the size of its segments, and whether the tunnel's packets with them pass.
EXAMINE = """
import ipaddress, json, sys
from drawbridge.doctor.machine_reader import measure_path, read_segment_size
from openvpn.model import packet_size
segment_size = read_segment_size(ipaddress.ip_address("10.1.0.20"), 5001)
sizes = measure_path(ipaddress.ip_address("192.0.2.1"), (1280, packet_size(segment_size)))
print(json.dumps([segment_size, sizes]))
"""


@dataclass(frozen=True)
class Path:
    """Client, two routers, server and a host behind it."""

    site: Site
    routers: tuple[NetworkNamespace, NetworkNamespace]
    host: NetworkNamespace
    lan_host: NetworkNamespace | None = None
    """A host of the LAN that the client bridges; it transfers in the client's place."""

    def narrow(self, mtu: int, *, told: bool) -> None:
        """Have the line between the routers take packets of so many bytes; `told`: they say so to senders."""
        for router in self.routers:
            run(*router.enter("ip", "link", "set", "line", "mtu", str(mtu)))
            rule = f"icmp type destination-unreachable {'accept' if told else 'drop'}"
            chain = f"chain output {{ type filter hook output priority 0; {rule}; }};"
            run(*router.enter("nft", f"table ip errors; delete table ip errors; table ip errors {{ {chain} }};"))
        for end in self.site.namespaces:
            run(*end.enter("ip", "route", "flush", "cache"))

    def transfer(self, way: str, patience: float = 60) -> str:
        """Return how many bytes have arrived, or the error: `download` to the client, `upload` from it.

        It gives up after `patience` seconds without a byte.
        """
        program = (sys.executable, "-I", "-c", TRANSFER, way, str(SIZE), str(patience))
        sender = self.lan_host or self.site.namespaces[1]
        done = subprocess.run(sender.enter(*program), capture_output=True, text=True, timeout=150, check=False)
        return (done.stdout + done.stderr).splitlines()[-1]

    def diagnose(self) -> str:
        """Return what the doctor on the client calls broken; empty if nothing is."""
        _, client = self.site.namespaces
        done = subprocess.run(
            client.enter(sys.executable, "-c", EXAMINE), stdout=subprocess.PIPE, timeout=150, check=True
        )
        segment_size, sizes = json.loads(done.stdout)
        seen = {int(size): passes for size, passes in sizes.items()}
        broken = find_first_broken(judge_path(replace(WHOLE, segment_size=segment_size, path_sizes=seen)))
        return broken.breakage if broken else ""

    def start_measuring(self) -> Process:
        """Start the script that measures clients' paths."""
        server, _ = self.site.namespaces
        settings = gateway.release_contents(gateway.build_release())["path-mtu.json"].decode()
        (self.site.directory / "openvpn-server").symlink_to(self.site.directory)
        program = (sys.executable, "-I", "-c", MEASURE, str(FILES / "path_mtu.py"))
        return self.site.start_in(server, *program, self.site.write("path-mtu.json", settings))

    def wait_for(self, chain: str, segment_size: str) -> None:
        """Wait until the firewall has the path of the client and its network, and the client's segments fit it."""
        expected = {("10.8.0.10", chain), ("192.168.1.0/24", chain)}
        waiting.until(lambda: self.measured() == expected and self.transfer("segment") == segment_size, 90)

    def measured(self) -> set[tuple[str, str]]:
        """Return the chain that the server's firewall has for each client's address and network."""
        server, _ = self.site.namespaces
        listing = run(*server.enter("nft", "list", "map", "inet", "drawbridge", "client_paths"))
        return set(re.findall(r"([0-9./]+) timeout \S+ expires \S+ : goto (\w+)", listing))


def assert_passes_everywhere(path: Path) -> None:
    """Have each line narrow the path in turn; all bytes must arrive, both ways."""
    for told in (True, False):
        for mtu in (1500, 1400, 1312, 1280):
            path.narrow(mtu, told=told)
            for way in ("download", "upload"):
                assert path.transfer(way) == str(SIZE), (mtu, told, way)


def join(name: str, one: NetworkNamespace, address: str, far_name: str, other: NetworkNamespace, far: str) -> None:
    """Join two namespaces by a wire with an address at each end."""
    ends = ("netns", f"{one.holder}", "type", "veth", "peer", "name", far_name, "netns", f"{other.holder}")
    run("ip", "link", "add", name, *ends)
    for namespace, device, own in ((one, name, address), (other, far_name, far)):
        run(*namespace.enter("ip", "address", "add", own, "dev", device))
        run(*namespace.enter("ip", "link", "set", device, "up"))


@contextmanager
def open_line(directory: pathlib.Path) -> Iterator[tuple[Site, tuple[NetworkNamespace, NetworkNamespace]]]:
    """Yield a server and a client, which reach each other over a line between two routers, and these."""
    with ExitStack() as undo:
        client, first, second, server = (undo.enter_context(network_namespace()) for _ in range(4))
        join("up0", client, "192.168.0.2/24", "lan", first, "192.168.0.1/24")
        join("line", first, "198.51.100.1/30", "line", second, "198.51.100.2/30")
        join("wan", second, "192.0.2.2/30", "up0", server, "192.0.2.1/30")
        routes = ((client, "192.168.0.1"), (first, "198.51.100.2"), (second, "198.51.100.1"), (server, "192.0.2.2"))
        for namespace, gateway in routes:
            run(*namespace.enter("ip", "route", "add", "default", "via", gateway))
        for router in (first, second):
            run(*router.enter("sysctl", "-q", "-w", "net.ipv4.ip_forward=1"))
        yield open_site(directory, (server, client), undo.enter_context(ExitStack())), (first, second)


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tunnel of the kind that the test names, its server's firewall in force; a host behind it serves transfers."""
    tunnel = request.param
    with open_line(tmp_path_factory.mktemp("p")) as (site, routers), network_namespace() as host:
        server, _ = site.namespaces
        join("vpc", server, "10.1.0.5/16", "eth0", host, "10.1.0.20/16")
        run(*server.enter("sysctl", "-q", "-w", "net.ipv4.ip_forward=1"))
        add_tunnel_device(server, tunnel.mtu)
        rules = render_nftables(tunnel, admin_from=(), allow_from=WORLD, vpc=(IPv4Network("10.1.0.0/16"),))
        run(*server.enter("nft", "-f", site.write("rules", rules)))
        listener = site.start_in(host, sys.executable, "-I", "-c", TRANSFER, "listen", str(SIZE), "0")
        listener.wait_for("ready")
        site.server(tunnel=tunnel)
        site.client(site.leaf(), tunnel=tunnel).wait_for(UP)
        yield Path(site, routers, host)


def add_tap(namespace: NetworkNamespace, device: str, address: str) -> None:
    """Add a tap with an address."""
    for command in (
        f"tuntap add dev {device} mode tap",
        f"address add {address} dev {device}",
        f"link set {device} up",
    ):
        run(*namespace.enter("ip", *command.split()))


@pytest.fixture
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of the links that two hosts bond, as their kits have it; the bond itself sends each packet over one link."""
    with open_line(tmp_path_factory.mktemp("l")) as (site, routers):
        bonds, keys = pair.pair_bonds(pair.NAMES, "balance-xor"), pair.issue_bundles(pair.NAMES)
        ends = zip(site.namespaces, bonds, keys, ("10.1.0.20/24", "10.1.0.10/24"), strict=True)
        for namespace, bond, bundle, address in ends:
            called = replace(bond.links[0], remote=bond.links[0].remote and "192.0.2.1", uplink=None)
            profile = render_files(replace(bond, links=(called,)))["etc/drawbridge/links/ovn0.conf"]
            add_tap(namespace, "ovn0", address)
            config = site.write(f"{bond.host}.conf", profile + bundle["ovn0"])
            process = site.start_in(namespace, "openvpn", "--suppress-timestamps", "--config", config)
        process.wait_for(UP)
        host = site.namespaces[0]
        site.start_in(host, sys.executable, "-I", "-c", TRANSFER, "listen", str(SIZE), "0").wait_for("ready")
        yield Path(site, routers, host)


UDP, TCP = TUNNEL, replace(TUNNEL, listener=Listener("tcp", (443,)))


@pytest.mark.seed("9.5")
@pytest.mark.parametrize("path", [replace(UDP, path_mtu=1280), TCP], indirect=True, ids=["udp", "tcp"])
def test_ten_megabytes_pass_every_path(path: Path) -> None:
    assert_passes_everywhere(path)


@pytest.fixture
def gateway_link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of the links that a host bonds to a gateway, whose tap stands for its bridge."""
    tunnel = replace(TUNNEL, topology=BondedSegment(), listener=Listener("udp", (1194, 1195)))
    with open_line(tmp_path_factory.mktemp("b")) as (site, routers):
        bond = create_segment_bond(tunnel, "alice", remote="192.0.2.1", server_name=SERVER_NAME)
        ends = zip(site.namespaces, (tunnel.adapters[0], "ovn0"), ("10.1.0.20/24", "10.1.0.10/24"), strict=True)
        for namespace, device, address in ends:
            add_tap(namespace, device, address)
        # There is no filter here that the scripts could tell of members.
        site.server(None, "--tls-verify", "/bin/true", "--learn-address", "/bin/true", tunnel=tunnel)
        leaf = site.leaf()
        keys = (site.authority.certificate, leaf.certificate, leaf.key, tls_crypt.client_key(site.tls_crypt_key))
        profile = render_bundle(render_files(bond)["etc/drawbridge/links/ovn0.conf"], *keys)
        site.start_client(profile).wait_for(UP)
        host = site.namespaces[0]
        site.start_in(host, sys.executable, "-I", "-c", TRANSFER, "listen", str(SIZE), "0").wait_for("ready")
        yield Path(site, routers, host)


@pytest.mark.parametrize("kind", ["link", "gateway_link"])
def test_ten_megabytes_pass_a_bonds_link_over_every_path(kind: str, request: pytest.FixtureRequest) -> None:
    """With the default of `pathMtu`: both ends of a link have routers fragment what is too big."""
    link = request.getfixturevalue(kind)
    assert_passes_everywhere(link)


SEGMENT = Tunnel(
    topology=Segment(),
    pool=IPv4Network("10.1.0.0/24"),
    client_to_client=True,
    clients=(TunnelClient(name="alice"), TunnelClient(name="bob", address=IPv4Address("10.1.0.20"))),
)
BRIDGED = replace(
    SEGMENT,
    topology=BridgedSegment("alice", IPv4Network("10.1.0.0/24")),
    pool=IPv4Network("10.1.0.16/28"),
    fixed_mtu=lan_bridge.MTU,
)


def add_bridge(namespace: NetworkNamespace, mtu: int, *options: str) -> None:
    """Add a bridge and a tap that is its port, as systemd-networkd does."""
    for command in (
        f"link add {BRIDGE} mtu {mtu} {' '.join(options)} type bridge forward_delay 0 mcast_snooping 0",
        "tuntap add dev tap0 mode tap",
        f"link set tap0 mtu {mtu} master {BRIDGE} up",
        f"link set {BRIDGE} up",
    ):
        run(*namespace.enter("ip", *command.split()))


def add_lan(client: NetworkNamespace, lan_host: NetworkNamespace, site: Site, tunnel: Tunnel) -> tuple[str, ...]:
    """Make the client a bridge to a LAN with one host; return what its unit starts OpenVPN with beside a bundle."""
    add_bridge(client, lan_bridge.MTU)
    join("lan0", client, "192.168.7.1/24", "eth0", lan_host, "10.1.0.100/24")
    run(*client.enter("ip", "link", "set", "lan0", "master", BRIDGE))
    files = lan_bridge.render_files(tunnel.clients_by_name["alice"], tunnel, lan_bridge.BridgeHost())
    run(*client.enter("nft", "-f", site.write("site.nft", files["etc/drawbridge/site.nft"])))
    unit = files["etc/systemd/system/openvpn-client@alice.service.d/drawbridge.conf"].replace("\\\n", "")
    (command,) = re.findall(r"^ExecStart=(/.*)$", unit, re.MULTILINE)
    _, _, options = command.partition("--config %i.conf")
    return (*shlex.split(options), "--up", "/bin/true")


@pytest.fixture
def segment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A segment of the kind that the test names, and another client of it, whose line is wide, as the host."""
    tunnel = request.param
    with open_line(tmp_path_factory.mktemp("t")) as (site, routers), network_namespace() as host, ExitStack() as undo:
        server, client = site.namespaces
        join("bob", server, "192.0.2.5/30", "up0", host, "192.0.2.6/30")
        run(*server.enter("ip", "route", "replace", "192.0.2.4/30", "dev", "bob", "src", "192.0.2.1"))
        run(*host.enter("ip", "route", "add", "default", "via", "192.0.2.5"))
        add_bridge(server, tunnel.mtu, "address", gateway_mac(tunnel))
        # Frames between clients come back out of the port that they came in by, as on a gateway.
        run(*server.enter("ip", "link", "set", "tap0", "type", "bridge_slave", "hairpin", "on"))
        # There is no filter here that the scripts could tell of members.
        site.server(None, "--tls-verify", "/bin/true", "--learn-address", "/bin/true", tunnel=tunnel)
        lan_host = undo.enter_context(network_namespace()) if tunnel.bridge else None
        options = add_lan(client, lan_host, site, tunnel) if lan_host else ()
        site.client(site.leaf("alice"), tunnel=tunnel, client="alice", options=options).wait_for(UP)
        far = replace(site, namespaces=(server, host))
        far.client(site.leaf("bob"), tunnel=tunnel, client="bob").wait_for(UP)
        site.start_in(host, sys.executable, "-I", "-c", TRANSFER, "listen", str(SIZE), "0").wait_for("ready")
        yield Path(site, routers, host, lan_host)


@pytest.mark.seed("9.5")
@pytest.mark.parametrize(
    "segment", [replace(SEGMENT, path_mtu=1280), BRIDGED], indirect=True, ids=["segment", "bridged"]
)
def test_ten_megabytes_pass_between_clients_of_a_segment_over_every_path(segment: Path) -> None:
    """A client that bridges its LAN needs no smaller `pathMtu`: it has routers fragment what is too big."""
    assert_passes_everywhere(segment)


@pytest.mark.parametrize("segment", [SEGMENT], indirect=True, ids=["segment"])
def test_by_default_only_what_a_segments_client_sends_over_less_than_1400_bytes_sticks(segment: Path) -> None:
    for mtu, told in ((1400, False), (1312, True)):
        segment.narrow(mtu, told=told)
        assert segment.transfer("download") == segment.transfer("upload") == str(SIZE)
    segment.narrow(1312, told=False)
    assert segment.transfer("download") == str(SIZE)
    assert "timed out" in segment.transfer("upload", patience=5)


@pytest.mark.parametrize("path", [UDP], indirect=True, ids=["udp"])
def test_by_default_only_what_a_client_sends_over_less_than_1400_bytes_sticks(path: Path) -> None:
    """It sticks where no router says why; `pathMtu` is the key for that."""
    _, client = path.site.namespaces
    for mtu, told in ((1400, False), (1312, True)):
        path.narrow(mtu, told=told)
        assert path.transfer("download") == path.transfer("upload") == str(SIZE)
    assert not path.diagnose()
    path.narrow(1312, told=False)
    assert path.transfer("download") == str(SIZE)
    assert "timed out" in path.transfer("upload", patience=10)
    assert path.diagnose() == "path-black-hole"
    # A system that looks for such paths itself, by losses (RFC 4821).
    run(*client.enter("sysctl", "-q", "-w", "net.ipv4.tcp_mtu_probing=1"))
    assert path.transfer("upload") == str(SIZE)


@pytest.mark.parametrize("path", [UDP], indirect=True, ids=["udp"])
def test_a_client_sends_segments_as_large_as_its_path_takes(path: Path) -> None:
    """Also over a line that got narrower since, and whether or not its routers say so."""
    server, client = path.site.namespaces
    default = path.transfer("segment")
    script = path.start_measuring()
    for mtu, told, chain in (
        (1500, True, "path_1492"),
        (1472, True, "path_1472"),
        (1400, True, "path_1400"),
        (1400, False, "path_1400"),
        (1312, False, "path_1312"),
        (1280, False, "path_1280"),
    ):
        path.narrow(mtu, told=told)
        path.wait_for(chain, str(UDP.segment_size_over(mtu) - 12))
        for way in ("download", "upload"):
            assert path.transfer(way) == str(SIZE), (mtu, told, way)
        assert not path.diagnose(), mtu
    # The agent loads the filter anew, and the client's path is wide again.
    path.narrow(1500, told=False)
    run(*server.enter("nft", "-f", str(path.site.directory / "rules")))
    path.wait_for("path_1492", str(UDP.segment_size - 12))
    # Its firewall does not let it answer any more.
    run(
        *client.enter(
            "nft", "table ip silent { chain input { type filter hook input priority 0; iifname tun0 drop; }; };"
        )
    )
    waiting.until(lambda: not path.measured(), 60)
    run(*client.enter("nft", "delete table ip silent"))
    script.stop()
    run(*server.enter("nft", "flush", "map", "inet", "drawbridge", "client_paths"))
    assert path.transfer("segment") == default
