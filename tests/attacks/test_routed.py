"""Attacks by a client of a routed tunnel, by a stranger, by a host in the VPC and by a gateway that was taken over.

Does not prove what AWS itself refuses beyond its documents, nor what importers of bundles do that leave `pull-filter`
out.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from drawbridge.operate.gateway_status import PRINT_CONNECTIONS, find_displaced
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import fetch_bundle, public_address, run_checked
from drawbridge.trial.measure import ECHO_PORT, ping, start_echo
from lab.region import Host, disposable_region
from openvpn.bundle import certificate_of, tls_crypt_of
from openvpn.handshake import Handshake
from pki.authority import Certificate
from pki.tls_crypt import ClientKey
from tests.support import promises, stacks, waiting
from tests.support.attempts import Attempt, count_arrivals, scan, token

ALICE, BOB = "10.8.0.10", "10.8.0.11"
GATEWAY = "10.8.0.1"
VICTIM = IPv4Address("203.0.113.250")
STRANGER = IPv4Address("198.18.0.9")
ADMINISTRATOR = "203.0.113.77"


def routed_config() -> dict[str, Any]:
    raw = stacks.world_config("lab")
    raw["drawbridge:clients"] = [{"name": "alice", "address": ALICE}, {"name": "bob", "address": BOB}]
    return raw


@pytest.fixture(scope="module")
def routed() -> Iterator[Deployment]:
    """Stack `lab` with a second client."""
    with disposable_region() as region:
        deployed = stacks.deploy_world(region, "lab", routed_config())
        for name in ("alice", "bob"):
            assert ping(region.host(name), GATEWAY, promises.TUNNEL) is not None
        yield deployed


@pytest.fixture(scope="module")
def alice(routed: Deployment) -> Host:
    return routed.region.host("alice")


@pytest.fixture(scope="module")
def bob(routed: Deployment) -> Host:
    return routed.region.host("bob")


@pytest.fixture(scope="module")
def private(routed: Deployment) -> Host:
    return routed.region.host("private-host")


@pytest.fixture(scope="module")
def victim(routed: Deployment) -> Host:
    host = routed.region.add_internet_host("victim", address=VICTIM)
    host.wait_booted()
    return host


@pytest.fixture(scope="module")
def stranger(routed: Deployment) -> Host:
    host = routed.region.add_internet_host("stranger", address=STRANGER)
    host.wait_booted()
    return host


def default_device(host: Host) -> str:
    device: str = json.loads(run_checked(host, "ip", "-json", "route", "show", "default"))[0]["dev"]
    return device


def craft(name: str, *headers: Packet) -> Attempt:
    """Return an attempt: these headers, and a payload that tells it from others."""
    packet = headers[0]
    for header in headers[1:]:
        packet = packet / header
    return Attempt.of(name, bytes(packet / Raw(token(name))))


def from_alice(target: str, **fields: int) -> Packet:
    packet = IP(src=ALICE, dst=target)
    for field, value in fields.items():
        packet.setfieldval(field, value)
    return packet


# Another client

TO_BOB = {
    "ping": ("1.5", craft("ping", from_alice(BOB), ICMP())),
    "SYN": ("1.5", craft("SYN", from_alice(BOB), TCP(sport=40000, dport=22))),
    "datagram": ("1.5", craft("datagram", from_alice(BOB), UDP(sport=40000, dport=9))),
    "GRE": ("1.5", craft("GRE", from_alice(BOB), GRE(), IP(src=ALICE, dst=BOB), UDP(dport=9))),
    "later fragment": ("1.5", craft("later fragment", from_alice(BOB, frag=100, proto=17))),
    "IP in IP": ("1.5", craft("IP in IP", from_alice(GATEWAY, proto=4), IP(src=ALICE, dst=BOB), UDP(dport=9))),
    "pool's broadcast": ("1.6", craft("pool's broadcast", from_alice("10.8.0.255"), UDP(dport=9))),
    "broadcast": ("1.6", craft("broadcast", from_alice("255.255.255.255"), UDP(dport=9))),
    "all hosts": ("1.6", craft("all hosts", from_alice("224.0.0.1"), UDP(dport=9))),
    "from the gateway": ("1.7", craft("from the gateway", IP(src=GATEWAY, dst=BOB), UDP(dport=9))),
    "from a VPC host": ("1.7", craft("from a VPC host", IP(src="10.1.1.10", dst=BOB), UDP(dport=9))),
    "from its own name": ("1.7", craft("from its own name", IP(src=BOB, dst=BOB), UDP(dport=9))),
}


@pytest.fixture(scope="module")
def at_bob(routed: Deployment, alice: Host, bob: Host) -> Mapping[str, int]:
    attempts = [attempt for _, attempt in TO_BOB.values()]
    return count_arrivals(attempts, sender=alice, device="tun0", listener=bob, listener_device="tun0")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.attack(number)) for name, (number, _) in TO_BOB.items()]
)
def test_a_client_reaches_no_other_client(at_bob: Mapping[str, int], name: str) -> None:
    assert at_bob[name] == 0


@pytest.mark.attack("1.5", "1.6", "1.7")
def test_control_the_gateway_reaches_the_same_listener(routed: Deployment, bob: Host) -> None:
    control = craft("control", IP(src=GATEWAY, dst=BOB), UDP(sport=9, dport=9))
    arrived = count_arrivals([control], sender=routed.gateway, device="tun0", listener=bob, listener_device="tun0")
    # A tun device takes what is sent on it as if it came from the kernel: it goes out to the client.
    assert arrived["control"] > 0


# A VPC host

FORGED = {
    "another client": BOB,
    "the gateway": GATEWAY,
    "a free address of the pool": "10.8.0.99",
    "a VPC host": "10.1.1.77",
    "an administrator": ADMINISTRATOR,
    "the Internet": "198.51.100.99",
    "loopback": "127.0.0.1",
    "this network": "0.0.0.0",
    "multicast": "224.0.0.9",
}


@pytest.fixture(scope="module")
def at_private(alice: Host, private: Host) -> Mapping[str, int]:
    target = private.address
    attempts = [craft(name, IP(src=source, dst=target), ICMP()) for name, source in FORGED.items()]
    attempts.append(craft("its own", IP(src=ALICE, dst=target), ICMP()))
    device = default_device(private)
    return count_arrivals(attempts, sender=alice, device="tun0", listener=private, listener_device=device)


@pytest.mark.attack("1.8")
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_source_reaches_no_vpc_host(at_private: Mapping[str, int], name: str) -> None:
    assert at_private[name] == 0
    assert at_private["its own"] > 0, "control"


# The gateway itself


@pytest.mark.attack("1.4")
def test_ssh_from_a_forged_administrator_does_not_enter_the_tunnel(routed: Deployment, alice: Host) -> None:
    attempts = [
        craft("forged", IP(src=ADMINISTRATOR, dst=GATEWAY), TCP(sport=40002, dport=22)),
        craft("control", IP(src=ALICE, dst=GATEWAY), TCP(sport=40002, dport=22)),
    ]
    arrived = count_arrivals(attempts, sender=alice, device="tun0", listener=routed.gateway, listener_device="tun0")
    assert arrived["forged"] == 0
    assert arrived["control"] > 0


@pytest.mark.attack("1.2")
def test_the_metadata_service_is_not_asked_by_ipv6(routed: Deployment, alice: Host) -> None:
    attempts = [
        craft("IPv6", IPv6(src="fe80::1", dst="fd00:ec2::254"), UDP(sport=40003, dport=80)),
        craft("control", IP(src=ALICE, dst=GATEWAY), UDP(sport=40003, dport=80)),
    ]
    arrived = count_arrivals(attempts, sender=alice, device="tun0", listener=routed.gateway, listener_device="tun0")
    assert arrived["IPv6"] == 0
    assert arrived["control"] > 0


LINK_LOCAL_SERVICES = {
    "metadata": "169.254.169.254",
    "resolver": "169.254.169.253",
    "time": "169.254.169.123",
    "containers' credentials": "169.254.170.2",
}


@pytest.mark.attack("1.1")
def test_no_link_local_service_is_asked(routed: Deployment, alice: Host, private: Host) -> None:
    transports = {"ping": ICMP(), "datagram": UDP(sport=40006, dport=53), "SYN": TCP(sport=40006, dport=80)}
    attempts = [
        craft(f"{service} {transport}", IP(src=ALICE, dst=address), header)
        for service, address in LINK_LOCAL_SERVICES.items()
        for transport, header in transports.items()
    ]
    control = craft("VPC host", IP(src=ALICE, dst=private.address), UDP(sport=40006, dport=53))
    gateway = routed.gateway
    at_tunnel = count_arrivals(attempts, sender=alice, device="tun0", listener=gateway, listener_device="tun0")
    assert all(at_tunnel.values()), "control: OpenVPN passes them to the packet filter"
    uplink = default_device(gateway)
    left = count_arrivals(
        [*attempts, control], sender=alice, device="tun0", listener=gateway, listener_device=uplink, forwarded=True
    )
    assert {name for name, frames in left.items() if frames} == {"VPC host"}


#: Opens TCP connections and ends; shows how many were accepted within some seconds.
CONNECT = """
import selectors, socket, sys, time
address, port, count, seconds = sys.argv[1], *map(int, sys.argv[2:])
waiting, opened = selectors.DefaultSelector(), 0
for _ in range(count):
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex((address, port))
    waiting.register(connection, selectors.EVENT_WRITE)
end = time.monotonic() + seconds
while waiting.get_map() and (left := end - time.monotonic()) > 0:
    for key, _ in waiting.select(left):
        opened += not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        waiting.unregister(key.fileobj)
print(opened)
"""

#: Keeps a machine from telling that a connection of its own has ended.
HOLD_BACK = (
    "table ip attack { chain output { type filter hook output priority 0; tcp flags & (fin | rst) != 0 drop; }; }"
)


@contextmanager
def never_ending_connections(host: Host) -> Iterator[None]:
    """Have a machine's connections end for itself alone while the block runs."""
    run_checked(host, "nft", "-f", "-", stdin=HOLD_BACK)
    try:
        yield
    finally:
        run_checked(host, "nft", "delete", "table", "ip", "attack")


@pytest.mark.attack("1.13")
def test_flows_of_a_client_that_is_gone_are_kept_for_hours(routed: Deployment, alice: Host, private: Host) -> None:
    gateway = routed.gateway
    start_echo(private)

    def lives() -> list[int]:
        """Seconds for which the gateway keeps the connections of a program that has ended."""
        assert run_checked(alice, "python3", "-", private.address, str(ECHO_PORT), "3", "2", stdin=CONNECT) == "3\n"
        table = run_checked(gateway, "cat", "/proc/net/nf_conntrack")
        return [int(life) for life in re.findall(rf"tcp +6 (\d+) ESTABLISHED src={ALICE} .*dport={ECHO_PORT}", table)]

    with never_ending_connections(alice):
        mine = lives()
        assert len(mine) == 3 and max(mine) <= 7440
        with stacks.without_agent(gateway):
            run_checked(gateway, "sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_timeout_established=432000")
            try:
                assert max(lives()) > 400_000, "control: the kernel's default"
            finally:
                run_checked(gateway, "systemctl", "reload", "drawbridge-nftables")
    assert run_checked(gateway, "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_timeout_established") == "7440\n"


# A process on the gateway

#: Shows which of some files and sockets a process may read.
READ = """
import socket, sys
for path in sys.argv[1:]:
    try:
        if path.endswith(".sock"):
            with socket.socket(socket.AF_UNIX) as management:
                management.settimeout(5)
                management.connect(path)
                management.recv(1)
        else:
            open(path, "rb").read(1)
        print(path)
    except PermissionError:
        pass
"""
MANAGEMENT, HOST_KEY = "/run/openvpn-server/mgmt.sock", "/etc/ssh/ssh_host_ed25519_key"
SECRETS = ["/etc/openvpn/server/secrets/server.key", "/etc/openvpn/server/secrets/tls-crypt-v2.key"]


def as_user(user: str, group: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups"]


def as_openvpn(gateway: Host) -> list[str]:
    """Return the command that enters OpenVPN's namespaces with its user and all capabilities that it has."""
    unit = "openvpn-server@server"
    pid = run_checked(gateway, "systemctl", "show", "-P", "MainPID", unit).strip()
    capabilities = run_checked(gateway, "systemctl", "show", "-P", "AmbientCapabilities", unit).split()
    names = "".join(f",+{name.removeprefix('cap_')}" for name in capabilities)
    sets = [f"--{kind}=-all{names}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return ["nsenter", f"--target={pid}", "--mount", "--net", "--pid", *as_user("openvpn", "openvpn"), *sets]


@pytest.mark.attack("7.1")
@pytest.mark.parametrize(
    ("user", "group", "readable"),
    [
        ("nobody", "nogroup", []),
        ("admin", "admin", []),
        # OpenVPN's own process has all that it needs, and no more.
        ("openvpn", "openvpn", [MANAGEMENT, *SECRETS]),
    ],
)
def test_a_process_reads_no_secret_on_disk(routed: Deployment, user: str, group: str, readable: list[str]) -> None:
    paths = [MANAGEMENT, *SECRETS, HOST_KEY]
    assert run_checked(routed.gateway, "python3", "-", *paths, stdin=READ).split() == paths, "control: root"
    read = run_checked(routed.gateway, *as_user(user, group), "python3", "-", *paths, stdin=READ)
    assert read.split() == readable


@pytest.mark.parametrize(
    ("user", "group", "sandbox"),
    [
        pytest.param("nobody", "nogroup", False, marks=pytest.mark.attack("7.2")),
        pytest.param("openvpn", "openvpn", False, marks=pytest.mark.attack("7.2")),
        pytest.param("openvpn", "openvpn", True, marks=pytest.mark.attack("7.3")),
    ],
)
def test_a_process_gets_no_credentials_of_the_role(routed: Deployment, user: str, group: str, sandbox: bool) -> None:
    """In the sandbox: in OpenVPN's namespaces, with all capabilities that OpenVPN has."""
    gateway = routed.gateway
    ask = ["curl", "-s", "-m", "3", "-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60"]
    ask.append("http://169.254.169.254/latest/api/token")
    enter = as_openvpn(gateway) if sandbox else as_user(user, group)
    refused = gateway.run([*enter, *ask])
    assert (refused.returncode, refused.stdout) == (7, "")  # curl's 7: refused
    assert run_checked(gateway, *ask), "control: root"


#: Changes of a machine's network, each with the command that takes it back.
CHANGES = {
    "nft add table inet attack": "nft delete table inet attack",
    "ip route add 198.51.100.0/24 dev tun0": "ip route delete 198.51.100.0/24 dev tun0",
    "ip address add 198.51.100.1/32 dev tun0": "ip address delete 198.51.100.1/32 dev tun0",
    "ip link set tun0 mtu 1400": "ip link set tun0 mtu 1440",
    "ip link add attack0 type veth peer name attack1": "ip link delete attack0",
    "ip tuntap add dev attack0 mode tun": "ip tuntap delete dev attack0 mode tun",
}


@pytest.mark.attack("7.5")
def test_openvpn_changes_neither_filter_nor_routes_nor_devices(routed: Deployment) -> None:
    enter = as_openvpn(routed.gateway)
    for change, undo in CHANGES.items():
        refused = routed.gateway.run([*enter, *change.split()])
        assert refused.returncode and "Operation not permitted" in refused.stderr, f"{change}: {refused}"
        for control in (change, undo):
            run_checked(routed.gateway, *control.split())


@pytest.mark.attack("1.3")
def test_a_client_opens_no_port_of_the_gateway(routed: Deployment, alice: Host) -> None:
    assert scan(alice, GATEWAY) == []
    assert scan(alice, routed.outputs["privateIp"]) == []
    assert scan(alice, routed.outputs["publicIp"]) == [22], "control: alice's home may use SSH from outside"


@pytest.mark.attack("6.1")
def test_a_vpc_host_opens_no_port_of_the_gateway(routed: Deployment, private: Host, alice: Host) -> None:
    assert scan(private, routed.outputs["privateIp"]) == []
    assert scan(alice, routed.outputs["publicIp"]) == [22], "control"


@pytest.mark.attack("6.2")
def test_a_vpc_host_reaches_no_client(routed: Deployment, alice: Host, private: Host) -> None:
    # As if its route table had a route to the pool.
    gateway = routed.outputs["privateIp"]
    route = json.loads(run_checked(private, "ip", "-json", "route", "get", gateway))[0]
    mac = _hardware_address(routed)
    packet = craft("VPC host", IP(src=private.address, dst=ALICE), UDP(sport=40004, dport=9))
    frame = mac + bytes(6) + b"\x08\x00" + packet.frames[0]
    attempts = [Attempt.of(packet.name, frame)]
    arrived = count_arrivals(attempts, sender=private, device=route["dev"], listener=alice, listener_device="tun0")
    assert arrived["VPC host"] == 0
    assert ping(alice, private.address, 5) is not None, "control: the same way, opened by the client"


def _hardware_address(routed: Deployment) -> bytes:
    interfaces = routed.client("ec2").describe_network_interfaces(
        Filters=[{"Name": "private-ip-address", "Values": [routed.outputs["privateIp"]]}]
    )["NetworkInterfaces"]
    return bytes.fromhex(interfaces[0]["MacAddress"].replace(":", ""))


# The Internet


@pytest.mark.attack("1.9")
def test_a_client_does_not_reach_the_internet_through_the_gateway(alice: Host, victim: Host) -> None:
    attempts = [
        craft("datagram out", IP(src=ALICE, dst=str(VICTIM)), UDP(sport=40005, dport=9)),
        craft("SYN out", IP(src=ALICE, dst=str(VICTIM)), TCP(sport=40005, dport=443)),
        craft("ping out", IP(src=ALICE, dst=str(VICTIM)), ICMP()),
    ]
    device = default_device(victim)
    arrived = count_arrivals(attempts, sender=alice, device="tun0", listener=victim, listener_device=device)
    assert dict(arrived) == {"datagram out": 0, "SYN out": 0, "ping out": 0}
    assert ping(alice, VICTIM, 5) is not None, "control: it is there, and alice's own line leads to it"


@pytest.mark.attack("4.1", "4.2")
def test_a_stranger_gets_no_answer(routed: Deployment, alice: Host, stranger: Host) -> None:
    public = routed.outputs["publicIp"]
    assert scan(stranger, public) == []
    answers = run_checked(stranger, "python3", "-", public, stdin=GARBAGE).split()
    assert answers == ["0", "of", "150"]
    assert ping(stranger, public, 5) is not None, "control: the gateway is there"
    assert scan(alice, public) == [22], "control: an administrator's address opens SSH"


#: Resets without a key (P_CONTROL_HARD_RESET_CLIENT_V2 and V3, opcodes 7 and 10) and noise of several sizes.
GARBAGE = """
import os, socket, sys
answers = 0
for number in range(150):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.settimeout(0.01)
        head = [b"\\x38", b"\\x50", b""][number % 3]
        out.sendto(head + os.urandom([20, 54, 300, 1200][number % 4]), (sys.argv[1], 1194))
        try:
            out.recv(2048)
            answers += 1
        except TimeoutError:
            pass
print(answers, "of", 150)
"""


#: Sends IPv4 packets as they are.
SEND_PACKETS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as out:
    for packet in sys.argv[2:]:
        out.sendto(bytes.fromhex(packet), (sys.argv[1], 0))
"""
COUNT_ANSWERS = "table ip attack { chain input { type filter hook input priority 0; udp sport 1194 counter; }; }"


class Recorder:
    """A transport that keeps what is sent and receives nothing."""

    retransmit_after = 60.0

    def __init__(self) -> None:
        self.packets: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.packets.append(packet)

    def receive(self, seconds: float) -> bytes | None:
        return None


def first_packets(bundle: str, count: int) -> list[bytes]:
    """Return a bundle's first packets of as many sessions."""
    recorder, key = Recorder(), ClientKey.read(tls_crypt_of(bundle))
    for _ in range(count):
        Handshake(recorder, key).reset(time.monotonic())
    return recorder.packets


@pytest.mark.attack("4.4")
def test_answers_to_a_forged_source_are_smaller_than_what_asked_for_them(
    routed: Deployment, alice: Host, stranger: Host, victim: Host
) -> None:
    public = routed.outputs["publicIp"]

    def answered(datagrams: list[bytes]) -> tuple[int, int, int]:
        """Return packets and bytes that the victim gets for datagrams in its name, and the bytes of these."""
        header = IP(src=str(VICTIM), dst=public) / UDP(sport=40007, dport=1194)
        packets = [bytes(header / Raw(datagram)) for datagram in datagrams]
        run_checked(victim, "nft", "-f", "-", stdin=COUNT_ANSWERS)
        try:
            run_checked(stranger, "python3", "-", public, *(packet.hex() for packet in packets), stdin=SEND_PACKETS)
            time.sleep(2)
            table = run_checked(victim, "nft", "list", "table", "ip", "attack")
        finally:
            run_checked(victim, "nft", "delete", "table", "ip", "attack")
        counted = re.search(r"counter packets (\d+) bytes (\d+)", table)
        assert counted
        return int(counted[1]), int(counted[2]), sum(map(len, packets))

    assert answered([head + os.urandom(200) for head in (b"\x38", b"\x50", b"") for _ in range(10)])[:2] == (0, 0)
    # A client's key gets answers: this is the control, and the attack of somebody who has one.
    packets, size, sent = answered(first_packets(run_checked(alice, "cat", promises.bundle_path("alice")), 100))
    assert 0 < packets <= 100 and size < sent / 2


# A gateway that was taken over

CONFIG = "/etc/openvpn/server/server.conf"
ALICE_UNIT = "openvpn-client@alice"

#: By the row of the attack, what the gateway pushes once its root has changed the server's configuration. The last
#: option of each row is spelled so that its name alone would not find it.
PUSHED = {
    "9.1": ("redirect-gateway def1", "route 0.0.0.0 128.0.0.0", r"\"route\" 128.0.0.0 128.0.0.0"),
    "9.2": ("dhcp-option DNS 198.51.100.53", "dns server 1 address 198.51.100.53", "'dhcp-option' DNS 198.51.100.54"),
    "9.3": (
        "route 198.51.100.0 255.255.255.0",
        "route 10.1.2.0 255.255.255.0",
        r"\"route\" 203.0.113.64 255.255.255.192",
    ),
}

#: OpenVPN gives the resolvers that were pushed to this script, as `update-resolv-conf` and its like take them.
UP_SCRIPT = "env > /run/openvpn-environment"


@pytest.fixture(scope="module")
def scripted_alice(alice: Host) -> Host:
    """Alice, who now applies resolvers by a script."""
    bundle = promises.bundle_path("alice")
    run_checked(alice, "sh", "-c", f"echo '{UP_SCRIPT}' > /etc/openvpn/up.sh")
    run_checked(alice, "sh", "-c", f"printf 'script-security 2\\nup \"/bin/sh /etc/openvpn/up.sh\"\\n' >> {bundle}")
    return alice


def reconnect(client: Host, deployed: Deployment) -> None:
    """Connect the client anew, and wait until the stack's own route leads to the private host."""
    run_checked(client, "rm", "-f", "/run/openvpn-environment")
    unit = f"openvpn-client@{client.name}"
    run_checked(client, "systemctl", "reset-failed", unit)  # systemd refuses the sixth start within 10 s
    run_checked(client, "systemctl", "restart", unit)
    private = deployed.region.host("private-host").address
    waiting.until(lambda: ping(client, private, 1) is not None, promises.TUNNEL)


def read_tables(client: Host) -> list[str]:
    """Return the client's routes of both families, and the resolvers that it was given."""
    script = "ip -4 route; ip -6 route; grep -E '^(foreign_option|dns)_' /run/openvpn-environment || true"
    return run_checked(client, "sh", "-c", script).splitlines()


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.attack(row)) for row in PUSHED])
def test_clients_ignore_what_their_stack_does_not_have(routed: Deployment, scripted_alice: Host, row: str) -> None:
    gateway = routed.gateway
    reconnect(scripted_alice, routed)
    before = read_tables(scripted_alice)
    assert any(str(routed.settings.network.cidr) in line for line in before)
    run_checked(gateway, "mv", CONFIG, f"{CONFIG}.own")
    lines = "".join(f'push "{option}"\n' for option in PUSHED[row])
    try:
        run_checked(gateway, "sh", "-c", f"cat {CONFIG}.own - > {CONFIG}", stdin=lines)
        run_checked(gateway, "systemctl", "restart", "openvpn-server@server")
        reconnect(scripted_alice, routed)
        log = run_checked(scripted_alice, "journalctl", "--no-pager", "--unit", ALICE_UNIT)
        reply = log.rpartition("PUSH: Received control message")[2].partition("\n")[0]
        # It has arrived, and what the stack has as well.
        assert [option for option in PUSHED[row] if option.replace("\\", "") not in reply] == []
        assert read_tables(scripted_alice) == before
    finally:
        run_checked(gateway, "mv", f"{CONFIG}.own", CONFIG)
        run_checked(gateway, "systemctl", "restart", "openvpn-server@server")


# A stolen bundle

MOMENT = "2026-01-01T00:00:00Z"


def read_bundle(deployed: Deployment, name: str) -> str:
    return deployed.account.parameter(deployed.names.bundle(name), secret=True)


def read_connections(gateway: Host) -> str:
    """Return what the operator's command reads of the gateway's journal."""
    return run_checked(gateway, "sh", "-c", PRINT_CONNECTIONS, "sh", "--unit=openvpn-server@server.service")


def fetch_and_reconnect(world: promises.World, name: str) -> None:
    """Have a client fetch its bundle again and connect."""
    host = world.deployed.region.host(name)
    fetch_bundle(world.deployed, host, name)
    run_checked(host, "systemctl", "restart", f"openvpn-client@{name}")
    assert ping(host, world.private.address, promises.TUNNEL) is not None


@pytest.mark.attack("5.7")
def test_a_bundle_that_a_thief_uses_beside_its_owner_is_noticed(routed: Deployment, alice: Host, bob: Host) -> None:
    reconnect(alice, routed)
    run_checked(bob, "sh", "-c", "cat > /etc/openvpn/stolen.ovpn", stdin=read_bundle(routed, "alice"))
    stolen = ("openvpn", "--config", "/etc/openvpn/stolen.ovpn", "--dev", "tun9", "--route-nopull")
    run_checked(bob, "systemd-run", "--quiet", "--unit=thief", *stolen)
    addresses = {str(public_address(routed.settings, number)) for number in range(2)}
    try:
        waiting.until(
            lambda: any(
                client.name == "alice" and {*client.addresses} == addresses
                for client in find_displaced(read_connections(routed.gateway))
            ),
            30,
        )
        cloudwatch, namespace = routed.client("cloudwatch"), routed.names.metrics
        run_checked(routed.gateway, "systemctl", "start", "drawbridge-metrics")
        waiting.until(
            lambda: cloudwatch.list_metrics(Namespace=namespace, MetricName="DisplacedSessions")["Metrics"], 60
        )
    finally:
        run_checked(bob, "systemctl", "stop", "thief")
        # By herself alice would wait until the gateway has been silent for long enough. If bob connected while the
        # thief's device was there, his routes have gone with it.
        for client in (alice, bob):
            reconnect(client, routed)


def test_a_renewal_leaves_a_client_s_session_and_both_of_its_bundles_connect(
    routed: Deployment, alice: Host, bob: Host
) -> None:
    world = promises.World(routed, routed_config())
    reconnect(alice, routed)
    former, log = read_bundle(routed, "alice"), read_connections(routed.gateway)
    world.deploy(rotations={"renewals": {"alice": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}})
    renewed = read_bundle(routed, "alice")
    assert Certificate.read(certificate_of(renewed)).issued > Certificate.read(certificate_of(former)).issued
    stacks.run_agent(routed.gateway)
    for client in (alice, bob):
        assert ping(client, world.private.address, 5) is not None
    for session in ("[alice] Peer Connection Initiated", "[bob] Peer Connection Initiated"):
        assert read_connections(routed.gateway).count(session) == log.count(session)
    # She may go on with what she has, and fetches the new bundle whenever she likes.
    reconnect(alice, routed)
    fetch_and_reconnect(world, "alice")
    assert run_checked(alice, "cat", promises.bundle_path("alice")).strip() == renewed.strip()


@pytest.mark.attack("5.5")
def test_after_a_client_s_rotation_its_stolen_bundle_is_refused(routed: Deployment, alice: Host, bob: Host) -> None:
    world = promises.World(routed, routed_config())
    old = "/etc/openvpn/stolen.ovpn"
    run_checked(alice, "sh", "-c", f"cat > {old}", stdin=read_bundle(routed, "alice"))
    for client in (alice, bob):
        assert ping(client, world.private.address, promises.TUNNEL) is not None
    sessions = read_connections(routed.gateway).count("[bob] Peer Connection Initiated")
    world.deploy_and_wait(rotations={"clients": {"alice": MOMENT}})
    waiting.until(lambda: ping(alice, world.private.address, 1) is None, 60)
    promises.check_refused(world, alice, old)
    fetch_and_reconnect(world, "alice")
    promises.check_refused(world, alice, old)
    # The control: nobody else has noticed, and another deployment changes nothing.
    assert ping(bob, world.private.address, 5) is not None
    assert read_connections(routed.gateway).count("[bob] Peer Connection Initiated") == sessions
    again = world.deploy(rotations={"clients": {"alice": MOMENT}})
    assert {verb for verb, count in again.changes.items() if count} == {"same"}


def test_after_the_gateway_s_rotation_clients_connect_with_their_new_bundles_alone(
    routed: Deployment, alice: Host, bob: Host
) -> None:
    world = promises.World(routed, routed_config())
    pin = routed.account.parameter(routed.names.ssh_host_key)
    world.deploy_and_wait(rotations={"clients": {"alice": MOMENT}, "gateway": MOMENT})
    waiting.until(lambda: not any(ping(client, world.private.address, 1) for client in (alice, bob)), 60)
    for name in ("alice", "bob"):
        fetch_and_reconnect(world, name)
    # The operator's command expects the host key that sshd now has.
    host_key = run_checked(routed.gateway, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()
    assert host_key[:2] == routed.account.parameter(routed.names.ssh_host_key).split()[:2] != pin.split()[:2]
