"""Each breakage of the path from a client to a host is found by its own name, and none in a path that is whole.

Does not prove that AWS drops what is called broken, nor that it reports it so: see tests/program/test_doctor.py.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from drawbridge.doctor.client_machine import ClientDevice, ClientMachine, ClientRoute
from drawbridge.doctor.path_checks import CHECKS, HopResult, find_first_broken, judge_path
from drawbridge.doctor.path_hops import PathHop
from drawbridge.doctor.path_snapshot import (
    ClientRecord,
    ElasticIp,
    Ipv6Host,
    Ipv6Path,
    PathSnapshot,
    Unread,
    VpcInterface,
    require,
)
from drawbridge.doctor.vpc_rules import (
    EVERYWHERE,
    IngressEgressRule,
    IpNetwork,
    NetworkAclEntry,
    SubnetAcl,
    VpcRoute,
    VpcRouteTable,
)
from drawbridge.operate.bundle_probe import Verdict
from drawbridge.operate.client_states import SessionState
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.deployed_release import DeployedRelease
from drawbridge.operate.gateway_status import AgentReport, GatewayInstance
from openvpn.bundle import Remote

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ELASTIC_IP = IPv4Address("203.0.113.20")
CLIENT_ADDRESS = IPv4Address("192.0.2.7")
HOST_ADDRESS = IPv4Address("10.1.1.9")
POOL = IPv4Network("10.8.0.0/24")
VPC = IPv4Network("10.1.0.0/16")
RELEASE = "a" * 64

REMOTE = Remote(str(ELASTIC_IP), 1194, "udp", "team.drawbridge")
CLIENT = ClientRecord(
    name="alice",
    state="enrolled",
    serial=11,
    not_after=NOW + timedelta(days=90),
    remote=REMOTE,
    address=IPv4Address("10.8.0.10"),
    tunnel_gateway=IPv4Address("10.8.0.1"),
    routes=(VPC,),
    resolver=IPv4Address("10.1.0.2"),
)
GATEWAY = VpcInterface(
    id="eni-gateway",
    vpc="vpc-1",
    subnet="subnet-public",
    address=IPv4Address("10.1.0.4"),
    groups=("sg-gateway",),
    source_dest_check=False,
    instance="i-gateway",
    attachment="attached",
)
HOST = VpcInterface(
    id="eni-host",
    vpc="vpc-1",
    subnet="subnet-private",
    address=HOST_ADDRESS,
    groups=("sg-host",),
    source_dest_check=True,
    instance="i-host",
    attachment="attached",
)


def entry(number: int, cidr: IpNetwork, *, outbound: bool, allows: bool = True, **part: Any) -> NetworkAclEntry:
    values = {"protocol": "-1", "ports": None, **part}
    return NetworkAclEntry(number=number, is_outbound=outbound, allows=allows, cidr=cidr, **values)


def acl(id: str, subnet: str, *entries: NetworkAclEntry) -> SubnetAcl:
    return SubnetAcl(id=id, subnets=(subnet,), entries=entries)


PUBLIC_ACL = acl(
    "acl-public",
    "subnet-public",
    entry(100, VPC, outbound=False),
    entry(110, EVERYWHERE, outbound=False, protocol="17", ports=(1194, 1194)),
    entry(100, EVERYWHERE, outbound=True),
)
PRIVATE_ACL = acl(
    "acl-private",
    "subnet-private",
    *(entry(number, cidr, outbound=out) for out in (False, True) for number, cidr in ((100, VPC), (101, POOL))),
)


def ingress(cidr: IpNetwork | None, protocol: str = "-1", port: int | None = None, **part: str) -> IngressEgressRule:
    ports = None if port is None else (port, port)
    return IngressEgressRule(id="sgr-1", is_egress=False, protocol=protocol, ports=ports, cidr=cidr, **part)


EGRESS = IngressEgressRule(id="sgr-2", is_egress=True, protocol="-1", ports=None, cidr=EVERYWHERE)
PUBLIC_TABLE = VpcRouteTable(
    id="rtb-public",
    is_main=True,
    subnets=("subnet-public",),
    routes=(VpcRoute(VPC, "local"), VpcRoute(EVERYWHERE, "igw-1"), VpcRoute(POOL, GATEWAY.id)),
)
PRIVATE_TABLE = VpcRouteTable(
    id="rtb-private",
    is_main=False,
    subnets=("subnet-private",),
    routes=(VpcRoute(VPC, "local"), VpcRoute(POOL, GATEWAY.id)),
)

RULES = (ingress(EVERYWHERE, "udp", 1194), ingress(VPC), EGRESS)
REPORT = AgentReport(state="ready", release=RELEASE, reason="", time=NOW.isoformat())
VERDICT = Verdict(state="fine", remote="", finding="", remedy="", seconds=1.0)
ROUTED = DeployedRelease(
    sha256=RELEASE,
    protocol="udp",
    ports=(1194,),
    clients=frozenset({"alice"}),
    revoked=frozenset({7}),
    routes=(VPC,),
    destinations=(VPC,),
    sources=(POOL,),
    path_mtu=1400,
    translates=False,
)


def device(name: str, *addresses: str, mtu: int = 1500, is_tunnel: bool = False, is_up: bool = True) -> ClientDevice:
    return ClientDevice(
        name=name, mtu=mtu, is_tunnel=is_tunnel, addresses=tuple(map(IPv4Interface, addresses)), is_up=is_up
    )


def machine(*changed: ClientDevice, routes: dict[str, str] | None = None, resolver: str = "10.1.0.2") -> ClientMachine:
    """Return alice's machine on its Wi-Fi, with a tunnel that is up."""
    devices = (device("wlan0", "192.168.1.20/24"), device("tun0", "10.8.0.10/24", mtu=1420, is_tunnel=True), *changed)
    leading = {"0.0.0.0/0": "wlan0", "192.168.1.0/24": "wlan0", "10.8.0.0/24": "tun0", "10.1.0.0/16": "tun0"}
    return ClientMachine(
        devices={device.name: device for device in devices},
        routes=tuple(
            ClientRoute(destination=IPv4Network(destination), device=name)
            for destination, name in (leading | (routes or {})).items()
            if name
        ),
        resolvers=frozenset({IPv4Address(resolver)}),
    )


MACHINE = machine()

#: A routed path: hosts see the clients' own addresses.
WHOLE = PathSnapshot(
    stack="team",
    now=NOW,
    client=CLIENT,
    source=CLIENT_ADDRESS,
    target=HOST_ADDRESS,
    target_protocol="tcp",
    target_port=443,
    resolved=(ELASTIC_IP,),
    elastic_ip=ElasticIp(address=ELASTIC_IP, interface=GATEWAY.id),
    interface=GATEWAY,
    instances=(GatewayInstance("i-gateway", "running"),),
    internet_gateways=("igw-1",),
    vpc_ranges=(VPC,),
    subnets={"subnet-public": IPv4Network("10.1.0.0/24"), "subnet-private": IPv4Network("10.1.1.0/24")},
    route_tables=(PUBLIC_TABLE, PRIVATE_TABLE),
    acls=(PUBLIC_ACL, PRIVATE_ACL),
    rules=RULES,
    host=HOST,
    host_state="running",
    host_rules=(ingress(POOL, "tcp", 443), EGRESS),
    machine=MACHINE,
    release=ROUTED,
    report=REPORT,
    verdict=VERDICT,
)
#: The same with translation: hosts see the gateway's own address.
TRANSLATED = replace(
    WHOLE,
    interface=replace(GATEWAY, source_dest_check=True),
    release=replace(ROUTED, translates=True),
    route_tables=tuple(replace(table, routes=table.routes[:-1]) for table in (PUBLIC_TABLE, PRIVATE_TABLE)),
    host_rules=(ingress(None, "tcp", 443, group="sg-gateway"), EGRESS),
)

BOND = IPv4Network("10.0.0.0/24")
LINKS = tuple(device(name, is_tunnel=True) for name in ("ovn0", "ovn1"))
BONDED_MACHINE = ClientMachine(
    devices={each.name: each for each in (device("eth0", "192.168.1.20/24"), device("bond0", "10.0.0.1/24"), *LINKS)},
    routes=tuple(
        ClientRoute(destination=IPv4Network(destination), device=name)
        for destination, name in (("0.0.0.0/0", "eth0"), ("10.0.0.0/24", "bond0"), ("10.1.0.0/16", "bond0"))
    ),
    resolvers=frozenset(),
)
#: A host whose two tunnels are links of a bond: its bundle names no address, and its kit has the routes.
BONDED = replace(
    WHOLE,
    client=replace(CLIENT, address=None, tunnel_gateway=None, routes=(), resolver=None),
    release=replace(ROUTED, ports=(1194, 1195), links=("ovn0", "ovn1"), routes=(), sources=(BOND,), translates=True),
    rules=(*(ingress(EVERYWHERE, "udp", port) for port in (1194, 1195)), ingress(VPC), EGRESS),
    acls=(
        replace(
            PUBLIC_ACL,
            entries=(*PUBLIC_ACL.entries, entry(111, EVERYWHERE, outbound=False, protocol="17", ports=(1195, 1195))),
        ),
        PRIVATE_ACL,
    ),
    host_rules=(ingress(None, "tcp", 443, group="sg-gateway"), EGRESS),
    machine=BONDED_MACHINE,
)
PEER_VPC = IPv4Network("10.2.0.0/16")
#: A gateway of a pair, whose client is the other one: hosts of both VPCs see each other's own addresses.
PAIRED = replace(
    WHOLE,
    client=replace(CLIENT, name="b", address=None, tunnel_gateway=None, routes=(), resolver=None),
    release=replace(ROUTED, clients=None, links=("ovn0",), routes=(), sources=(BOND, PEER_VPC)),
    rules=(ingress(IPv4Network("192.0.2.7/32"), "udp", 1194), ingress(VPC), EGRESS),
    route_tables=tuple(
        replace(table, routes=(*table.routes[:-1], VpcRoute(PEER_VPC, GATEWAY.id)))
        for table in (PUBLIC_TABLE, PRIVATE_TABLE)
    ),
    acls=(
        PUBLIC_ACL,
        acl(
            "acl-private",
            "subnet-private",
            *(entry(100, cidr, outbound=out) for out in (False, True) for cidr in (VPC, PEER_VPC)),
        ),
    ),
    host_rules=(ingress(PEER_VPC, "tcp", 443), EGRESS),
    machine=None,
)

IPV6_HOPS = (PathHop.IPV6_ADDRESS, PathHop.IPV6_ROUTE, PathHop.IPV6_RULES)
VPC6 = IPv6Network("2001:db8:1::/56")
CLIENTS6 = IPv6Network("2001:db8:1:0:5::/80")
EVERYWHERE6 = IPv6Network("::/0")
HOST6 = IPv6Address("2001:db8:1:1::9")
RULES6 = (ingress(VPC6), replace(EGRESS, cidr=EVERYWHERE6))
SIX = Ipv6Path(
    vpc_ranges=(VPC6,),
    subnets={"subnet-public": IPv6Network("2001:db8:1::/64"), "subnet-private": IPv6Network("2001:db8:1:1::/64")},
    prefixes=(CLIENTS6,),
    route_tables=(
        VpcRouteTable(
            id="rtb-public",
            is_main=True,
            subnets=("subnet-public",),
            routes=(VpcRoute(VPC6, "local"), VpcRoute(EVERYWHERE6, "igw-1")),
        ),
    ),
    acls=tuple(
        acl(id, subnet, *(entry(100, VPC6, outbound=out) for out in (False, True)))
        for id, subnet in (("acl-public", "subnet-public"), ("acl-private", "subnet-private"))
    ),
    rules=RULES6,
    host=Ipv6Host("subnet-private", ("sg-host",), (ingress(CLIENTS6, "tcp", 443), *RULES6[1:])),
)
#: A path whose tunnel has IPv6, to a host that is named by its IPv6 address.
IPV6 = replace(
    WHOLE,
    release=replace(ROUTED, clients6=CLIENTS6, destinations6=(IPv6Network("2000::/3"),)),
    target=None,
    target6=HOST6,
    host=None,
    host_state="",
    host_rules=(),
    ipv6=SIX,
)


def with_client(**part: Any) -> Callable[[PathSnapshot], PathSnapshot]:
    return lambda s: replace(s, client=replace(CLIENT, **part))


def with_release(**part: Any) -> Callable[[PathSnapshot], PathSnapshot]:
    return lambda s: replace(s, release=replace(ROUTED, **part))


def with_report(**part: Any) -> Callable[[PathSnapshot], PathSnapshot]:
    return lambda s: replace(s, report=replace(REPORT, **part))


def with_part(**part: Any) -> Callable[[PathSnapshot], PathSnapshot]:
    return lambda s: replace(s, **part)


def with_routes(table: VpcRouteTable, *routes: VpcRoute) -> Callable[[PathSnapshot], PathSnapshot]:
    """Return what replaces a table's routes but the local one."""
    changed = replace(table, routes=(table.routes[0], *routes))
    return lambda s: replace(
        s, route_tables=tuple({**{t.id: t for t in (PUBLIC_TABLE, PRIVATE_TABLE)}, table.id: changed}.values())
    )


def with_verdict(state: Any, finding: str, cause: Any = "") -> Callable[[PathSnapshot], PathSnapshot]:
    return lambda s: replace(s, verdict=replace(VERDICT, state=state, finding=finding, cause=cause))


def with_ipv6(**part: Any) -> Callable[[PathSnapshot], PathSnapshot]:
    return lambda _: replace(IPV6, ipv6=replace(SIX, **part))


def with_host6(*rules: IngressEgressRule) -> Callable[[PathSnapshot], PathSnapshot]:
    return with_ipv6(host=Ipv6Host("subnet-private", ("sg-host",), rules))


def with_routes6(*routes: VpcRoute) -> Callable[[PathSnapshot], PathSnapshot]:
    return with_ipv6(route_tables=(replace(SIX.route_tables[0], routes=(SIX.route_tables[0].routes[0], *routes)),))


def with_devices(*changed: ClientDevice) -> Callable[[PathSnapshot], PathSnapshot]:
    devices = {**BONDED_MACHINE.devices, **{each.name: each for each in changed}}
    return lambda s: replace(s, machine=replace(BONDED_MACHINE, devices=devices))


NAMED = Remote("vpn.example.com", 1194, "udp", "team.drawbridge")
REFUSAL = ConnectionEvent(
    event="refused",
    time=NOW - timedelta(minutes=5),
    gateway="team",
    process="server",
    client="alice",
    address="192.0.2.7",
    port=40001,
    reason="max-clients",
)

#: What breaks a path, by the breakage's name, with a part of what is said of it.
BREAKAGES: dict[str, tuple[Callable[[PathSnapshot], PathSnapshot], str]] = {
    "remote-without-route": (with_part(machine=machine(routes={"0.0.0.0/0": ""})), "203.0.113.20"),
    "remote-through-tunnel": (with_part(machine=machine(routes={"203.0.113.0/24": "tun0"})), "tun0"),
    "path-black-hole": (with_part(path_sizes={1280: True, 1400: False}), "packets of 1400 bytes are lost"),
    "name-not-found": (lambda s: with_client(remote=NAMED)(replace(s, resolved=())), "vpn.example.com"),
    "name-elsewhere": (
        lambda s: with_client(remote=NAMED)(replace(s, resolved=(IPv4Address("203.0.113.99"),))),
        "vpn.example.com is 203.0.113.99",
    ),
    "remote-elsewhere": (
        lambda s: with_client(remote=replace(REMOTE, host="203.0.113.99"))(
            replace(s, resolved=(IPv4Address("203.0.113.99"),))
        ),
        "203.0.113.99",
    ),
    "listener-elsewhere": (with_client(remote=replace(REMOTE, port=443)), "udp 443"),
    "elastic-ip-missing": (with_part(elastic_ip=None), "no Elastic IP"),
    "elastic-ip-elsewhere": (with_part(elastic_ip=ElasticIp(address=ELASTIC_IP, interface="")), "203.0.113.20"),
    "interface-missing": (with_part(interface=None), "no network interface"),
    "instance-missing": (with_part(instances=()), "no instance"),
    "instance-stopped": (with_part(instances=(GatewayInstance("i-gateway", "stopped"),)), "i-gateway is stopped"),
    "interface-detached": (with_part(interface=replace(GATEWAY, instance="", attachment="")), "eni-gateway"),
    "instance-impaired": (with_part(impaired={"system": "impaired"}), "system"),
    "internet-gateway-missing": (with_part(internet_gateways=()), "vpc-1"),
    "default-route-missing": (with_routes(PUBLIC_TABLE, VpcRoute(POOL, GATEWAY.id)), "rtb-public"),
    "default-route-dead": (
        with_routes(PUBLIC_TABLE, VpcRoute(EVERYWHERE, "igw-1", is_active=False), VpcRoute(POOL, GATEWAY.id)),
        "is gone",
    ),
    "default-route-elsewhere": (
        with_routes(PUBLIC_TABLE, *PUBLIC_TABLE.routes[1:], VpcRoute(IPv4Network("192.0.2.0/24"), "pcx-1")),
        "pcx-1",
    ),
    "acl-inbound": (
        with_part(
            acls=(
                replace(PUBLIC_ACL, entries=(entry(90, EVERYWHERE, outbound=False, allows=False), *PUBLIC_ACL.entries)),
                PRIVATE_ACL,
            )
        ),
        "udp port 1194 from 192.0.2.7: rule 90",
    ),
    "acl-outbound": (
        with_part(
            acls=(
                replace(
                    PUBLIC_ACL,
                    entries=(
                        *PUBLIC_ACL.entries[:-1],
                        entry(100, EVERYWHERE, outbound=True, protocol="17", ports=(32768, 60999)),
                        entry(110, VPC, outbound=True),
                    ),
                ),
                PRIVATE_ACL,
            )
        ),
        "udp port 1024 to 192.0.2.7",
    ),
    "group-empty": (with_part(rules=(EGRESS,)), "sg-gateway"),
    "group-port-closed": (
        with_part(rules=(ingress(EVERYWHERE, "udp", 1195), ingress(VPC), EGRESS)),
        "udp 1194 open to nobody",
    ),
    "group-source-refused": (
        with_part(rules=(ingress(IPv4Network("203.0.113.7/32"), "udp", 1194), EGRESS)),
        "203.0.113.7/32 alone, the client comes from 192.0.2.7",
    ),
    "report-missing": (with_report(state="pending", release="", time=""), "pending"),
    "report-stale": (with_report(state="stale", reason="the last report is of 2026"), "2026"),
    "gateway-failed": (with_report(state="failed", reason="no space"), "no space"),
    "release-not-in-force": (with_report(release="b" * 64), "bbbbbbbbbbbb"),
    "listener-closed": (with_verdict("nothing", "nothing listens"), "nothing listens"),
    "server-certificate-ended": (
        with_verdict("configuration", "the gateway's certificate has ended", "server-certificate-ended"),
        "the gateway's certificate has ended",
    ),
    "clock-behind": (with_verdict("configuration", "is not valid yet", "clock-behind"), "is not valid yet"),
    "handshake-refused": (with_verdict("configuration", "another authority"), "another authority"),
    "client-pending": (with_part(client=ClientRecord(name="alice", state="pending"), verdict=None), "alice"),
    "client-revoked": (
        with_part(client=ClientRecord(name="alice", state="revoked", revoked=NOW), verdict=None),
        "2026-03-01 12:00",
    ),
    "bundle-outdated": (with_client(is_current=False), "alice"),
    "certificate-revoked": (with_client(serial=7), "serial 7"),
    "certificate-ended": (with_client(not_after=NOW), "2026-03-01"),
    "client-not-in-release": (with_release(clients=frozenset({"bob"})), "alice"),
    "tunnel-down": (with_part(machine=machine(device("tun0", "10.99.0.1/24"))), "10.8.0.1"),
    "link-down": (
        lambda _: with_devices(device("ovn1", is_tunnel=True, is_up=False))(BONDED),
        "of the machine's bond, link ovn1 is down",
    ),
    "tunnel-twice": (
        with_part(machine=machine(device("tun1", "10.8.0.130/24", is_tunnel=True))),
        "tun0 and tun1 are tunnels",
    ),
    "connection-refused": (with_part(refusal=REFUSAL), "max-clients"),
    "bundle-used-twice": (
        with_part(session=SessionState(alternates=("192.0.2.7", "198.51.100.9"))),
        "192.0.2.7 and 198.51.100.9",
    ),
    "address-outside-pool": (with_client(address=IPv4Address("10.9.0.10")), "10.9.0.10"),
    "route-not-pushed": (with_release(routes=()), "10.1.1.9"),
    "network-is-local": (with_part(machine=machine(routes={"10.1.1.0/24": "wlan0"})), "10.1.1.0/24 is behind wlan0"),
    "tunnel-route-missing": (with_part(machine=machine(routes={"10.1.0.0/16": ""})), "sends it to wlan0"),
    "resolver-elsewhere": (with_part(machine=machine(resolver="192.168.1.1")), "asks 192.168.1.1, not the VPC's"),
    "forwarding-refused": (with_release(destinations=(IPv4Network("10.1.0.0/24"),)), "10.1.1.9"),
    "range-not-forwarded": (
        with_part(target=None, vpc_ranges=(VPC, IPv4Network("10.2.0.0/16")), host=None),
        "10.2.0.0/16",
    ),
    "group-outbound": (with_part(rules=RULES[:-1]), "10.1.1.9"),
    "source-dest-check": (with_part(interface=replace(GATEWAY, source_dest_check=True)), "eni-gateway"),
    "pool-in-vpc": (with_part(vpc_ranges=(VPC, POOL)), "10.8.0.0/24"),
    "return-route-missing": (with_routes(PRIVATE_TABLE), "rtb-private"),
    "return-route-dead": (with_routes(PRIVATE_TABLE, VpcRoute(POOL, "eni-gone", is_active=False)), "eni-gone"),
    "return-route-elsewhere": (with_routes(PRIVATE_TABLE, VpcRoute(POOL, "eni-other")), "eni-other"),
    "gateway-acl-to-host": (
        with_part(
            acls=(
                replace(
                    PUBLIC_ACL,
                    entries=(entry(90, VPC, outbound=True, allows=False, protocol="6"), *PUBLIC_ACL.entries),
                ),
                PRIVATE_ACL,
            )
        ),
        "acl-public refuses tcp port 443 to 10.1.1.9: rule 90",
    ),
    "host-acl-inbound": (
        with_part(acls=(PUBLIC_ACL, replace(PRIVATE_ACL, entries=PRIVATE_ACL.entries[2:]))),
        "acl-private refuses tcp port 443 from 10.8.0.10",
    ),
    "host-acl-outbound": (
        with_part(acls=(PUBLIC_ACL, replace(PRIVATE_ACL, entries=PRIVATE_ACL.entries[:2]))),
        "acl-private refuses tcp port 1024 to 10.8.0.10",
    ),
    "host-group-empty": (with_part(host_rules=(EGRESS,)), "sg-host"),
    "host-group-closed": (with_part(host_rules=(ingress(POOL, "tcp", 22), EGRESS)), "tcp 443 in from 10.8.0.10"),
    "host-missing": (with_part(host=None), "10.1.1.9"),
    "host-stopped": (with_part(host_state="stopped"), "i-host is stopped"),
    "ipv6-not-in-tunnel": (lambda _: replace(IPV6, release=ROUTED, ipv6=None), "and 2001:db8:1:1::9 is one"),
    "ipv6-range-missing": (with_ipv6(subnets={}), "subnet-public has no IPv6 range"),
    "ipv6-prefix-elsewhere": (
        with_ipv6(prefixes=(IPv6Network("2001:db8:1:0:6::/80"),)),
        "clients are in 2001:db8:1:0:5::/80, and AWS leads 2001:db8:1:0:6::/80 to eni-gateway",
    ),
    "ipv6-route-missing": (with_routes6(), "rtb-public has no route to ::/0"),
    "ipv6-route-dead": (with_routes6(VpcRoute(EVERYWHERE6, "igw-gone", is_active=False)), "igw-gone that is gone"),
    "ipv6-route-elsewhere": (with_routes6(VpcRoute(EVERYWHERE6, "nat-1")), "leads to nat-1"),
    "ipv6-not-forwarded": (
        lambda _: replace(IPV6, release=replace(ROUTED, clients6=CLIENTS6)),
        "the gateway forwards to nothing, not to 2001:db8:1:1::9",
    ),
    "ipv6-group-outbound": (with_ipv6(rules=RULES6[:1]), "sg-gateway lets nothing out to 2001:db8:1:1::9"),
    "ipv6-gateway-acl": (
        with_ipv6(acls=(replace(SIX.acls[0], entries=SIX.acls[0].entries[1:]), SIX.acls[1])),
        "acl-public refuses tcp port 1024 from 2001:db8:1:1::9",
    ),
    "ipv6-host-missing": (with_ipv6(host=None), "no network interface of vpc-1 has 2001:db8:1:1::9"),
    "ipv6-host-acl": (
        with_ipv6(acls=(SIX.acls[0], replace(SIX.acls[1], entries=()))),
        "acl-private refuses tcp port 443 from 2001:db8:1:0:5::2",
    ),
    "ipv6-host-group-closed": (
        with_host6(ingress(POOL, "tcp", 443)),
        "sg-host of 2001:db8:1:1::9 does not let tcp 443 in from 2001:db8:1:0:5::/80",
    ),
}


def first_broken(snapshot: PathSnapshot) -> HopResult:
    result = find_first_broken(judge_path(snapshot))
    assert result is not None
    return result


@pytest.mark.parametrize(
    "snapshot",
    [
        WHOLE,
        TRANSLATED,
        replace(WHOLE, target=None),
        replace(WHOLE, machine=None),
        replace(WHOLE, client=None, target=None, verdict=None, machine=None),
        BONDED,
        replace(BONDED, target=None),
        PAIRED,
        replace(PAIRED, target=None),
        replace(PAIRED, target=None, client=None),
        IPV6,
        replace(IPV6, target6=None, ipv6=replace(SIX, host=None)),
        replace(IPV6, target6=None, release=replace(ROUTED, clients6=CLIENTS6, destinations6=(VPC6,))),
        replace(IPV6, target6=None, release=replace(ROUTED, clients6=CLIENTS6)),
        replace(
            IPV6,
            ipv6=replace(
                SIX,
                prefixes=(),
                route_tables=(
                    replace(
                        SIX.route_tables[0],
                        routes=(*SIX.route_tables[0].routes, VpcRoute(IPv6Network("2001:db8:1:0::/64"), GATEWAY.id)),
                    ),
                ),
            ),
        ),
        with_release(clients=None, links=("ovn0",), routes=(), destinations=(), sources=(BOND,))(
            replace(PAIRED, target=None)
        ),
    ],
)
def test_nothing_is_broken_in_a_whole_path(snapshot: PathSnapshot) -> None:
    results = judge_path(snapshot)
    assert [result.hop for result in results] == list(PathHop)
    assert {result.state for result in results} <= {"ok", "skipped"}, results


def test_every_breakage_has_a_case() -> None:
    assert list(BREAKAGES) == [check.name for check in CHECKS]
    assert len(CHECKS) >= 20


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_breakage_is_found_first_and_by_its_name(name: str) -> None:
    breakage, part = BREAKAGES[name]
    result = first_broken(breakage(WHOLE))
    assert (result.breakage, result.state) == (name, "broken")
    assert part in result.finding
    assert result.remedy
    assert "{" not in result.remedy


@pytest.mark.parametrize(
    ("change", "name", "finding"),
    [
        (
            with_part(rules=(ingress(EVERYWHERE, "udp", 1194), ingress(VPC), EGRESS)),
            "group-port-closed",
            "sg-gateway has udp 1195 of link ovn1 open to nobody",
        ),
        (with_part(acls=(PUBLIC_ACL, PRIVATE_ACL)), "acl-inbound", "udp port 1195 from 192.0.2.7"),
        (
            lambda s: replace(s, machine=replace(BONDED_MACHINE, devices={"eth0": BONDED_MACHINE.devices["eth0"]})),
            "tunnel-down",
            "no device of the machine is in 10.0.0.0/24, the bond's network",
        ),
        (
            lambda s: replace(
                s, machine=replace(BONDED_MACHINE, devices=dict(list(BONDED_MACHINE.devices.items())[:-1]))
            ),
            "link-down",
            "link ovn1 is missing",
        ),
        (
            lambda s: replace(s, client=replace(s.client, remote=replace(REMOTE, port=443))),
            "listener-elsewhere",
            "the gateway listens on udp 1194 of link ovn0 or udp 1195 of link ovn1",
        ),
    ],
)
def test_of_two_links_the_broken_one_is_named(change: Callable[[Any], PathSnapshot], name: str, finding: str) -> None:
    result = first_broken(change(BONDED))
    assert (result.breakage, finding in result.finding) == (name, True), result


def test_a_pair_s_other_gateway_is_the_only_client() -> None:
    stranger = first_broken(replace(PAIRED, source=IPv4Address("198.51.100.9")))
    assert stranger.finding == (
        "sg-gateway has udp 1194 of link ovn0 open to 192.0.2.7/32 alone, the client comes from 198.51.100.9"
    )
    tables = tuple(replace(table, routes=table.routes[:-1]) for table in require(PAIRED.route_tables))
    assert first_broken(replace(PAIRED, route_tables=tables)).breakage == "return-route-missing"


@pytest.mark.parametrize("name", ["group-source-refused", "report-stale", "host-group-closed"])
def test_the_first_of_two_broken_hops_is_named(name: str) -> None:
    stopped = replace(BREAKAGES[name][0](WHOLE), host_state="stopped")
    assert first_broken(stopped).breakage == name
    assert [result.breakage for result in judge_path(stopped) if result.breakage] == [name, "host-stopped"]


@pytest.mark.parametrize(
    ("part", "hops"),
    [
        ("acls", [PathHop.NETWORK_ACL, PathHop.HOST_RULES]),
        ("rules", [PathHop.SECURITY_GROUP, PathHop.FORWARDING]),
        ("report", [PathHop.LISTENER]),
        ("host_rules", [PathHop.HOST_RULES]),
    ],
)
def test_what_cannot_be_read_is_not_judged_and_the_rest_is(part: str, hops: list[PathHop]) -> None:
    refused = with_part(**{part: Unread("AWS refused", "ec2:DescribeThis")})(WHOLE)
    results = judge_path(refused)
    assert [result.hop for result in results if result.state == "unknown"] == hops
    assert {result.permission for result in results if result.state == "unknown"} == {"ec2:DescribeThis"}
    assert find_first_broken(results) is None


def test_ranges_that_let_some_in_are_not_judged_without_the_client_s_address() -> None:
    somebody = IPv4Network("203.0.113.7/32")
    narrow = replace(WHOLE, source=None, rules=(ingress(somebody, "udp", 1194), EGRESS))
    (unknown,) = [result for result in judge_path(narrow) if result.state == "unknown"]
    assert unknown.hop == PathHop.SECURITY_GROUP
    assert "203.0.113.7/32 alone; give the client's public address: --from" in unknown.finding


def test_an_acl_that_denies_some_does_not_deny_a_client_whose_address_is_unknown() -> None:
    denied = entry(90, IPv4Network("198.51.100.0/24"), outbound=False, allows=False)
    narrow = replace(WHOLE, acls=(replace(PUBLIC_ACL, entries=(denied, *PUBLIC_ACL.entries)), PRIVATE_ACL))
    assert find_first_broken(judge_path(replace(narrow, source=None))) is None
    assert first_broken(replace(narrow, source=IPv4Address("198.51.100.9"))).breakage == "acl-inbound"


@pytest.mark.parametrize("sizes", [{}, {1280: False, 1400: False}, {1280: True, 1400: True}, {1280: True}])
def test_a_path_is_narrow_only_if_small_packets_pass(sizes: dict[int, bool]) -> None:
    assert find_first_broken(judge_path(replace(WHOLE, path_sizes=sizes))) is None


def test_what_the_client_sends_decides_whether_the_path_is_too_narrow() -> None:
    """The gateway has it send segments that fit the path that it has measured, 1,312 bytes here."""
    sizes = {1280: True, 1312: True}
    assert find_first_broken(judge_path(replace(WHOLE, path_sizes=sizes, segment_size=1312 - 92))) is None
    broken = first_broken(replace(WHOLE, path_sizes={1280: True, 1400: False}, segment_size=1400 - 92))
    assert (broken.breakage, broken.finding.partition(" are")[0]) == ("path-black-hole", "packets of 1400 bytes")


def test_without_a_connection_a_gateway_that_measures_may_know_the_path() -> None:
    narrow = with_release(measures_paths=True)(replace(WHOLE, path_sizes={1280: True, 1400: False}))
    (unknown,) = [result for result in judge_path(narrow) if result.state == "unknown"]
    assert unknown.hop == PathHop.MACHINE
    assert "packets of 1400 bytes are lost" in unknown.finding and "--to, --port" in unknown.finding
    assert find_first_broken(judge_path(narrow)) is None
    assert first_broken(replace(narrow, segment_size=1400 - 92)).breakage == "path-black-hole"


def test_a_name_that_is_not_found_does_not_matter_to_a_bundle_with_the_address() -> None:
    nowhere = replace(WHOLE, resolved=(), client=replace(CLIENT, remote=NAMED, fallbacks=(str(ELASTIC_IP),)))
    assert find_first_broken(judge_path(nowhere)) is None


def test_a_refusal_of_long_ago_is_not_the_reason() -> None:
    old = replace(WHOLE, refusal=replace(REFUSAL, time=NOW - timedelta(days=2)))
    assert find_first_broken(judge_path(old)) is None


def test_a_probe_without_an_answer_does_not_blame_the_bundle() -> None:
    (unknown,) = [
        result for result in judge_path(with_verdict("unanswered", "silent")(WHOLE)) if result.state == "unknown"
    ]
    assert (unknown.hop, unknown.finding) == (PathHop.TLS, "no TLS from here: silent")


def test_a_host_in_a_prefix_list_is_not_judged() -> None:
    listed = replace(WHOLE, host_rules=(ingress(None, prefix_list="pl-1"), EGRESS))
    (unknown,) = [result for result in judge_path(listed) if result.state == "unknown"]
    assert unknown.finding == "whether 10.8.0.10 is in pl-1 is not read"


def test_a_host_outside_the_vpc_has_no_rules_to_judge() -> None:
    outside = with_release(routes=(VPC, IPv4Network("10.50.0.0/16")), destinations=(EVERYWHERE,))(
        replace(WHOLE, target=IPv4Address("10.50.0.1"), host=None, machine=machine(routes={"10.50.0.0/16": "tun0"}))
    )
    results = judge_path(outside)
    assert find_first_broken(results) is None
    assert [result.hop for result in results if result.state == "skipped"] == [
        PathHop.TRANSLATION,
        PathHop.HOST_RULES,
        PathHop.HOST,
        *IPV6_HOPS,
    ]


def test_the_page_lists_every_breakage_with_its_hop_and_code() -> None:
    rows = re.findall(r"^\| ([^|]*)\| `([a-z0-9-]+)` \| ([A-Z_0-9]*) ?\|", PAGE.read_text(), re.MULTILINE)
    hop, listed = "", []
    for cell, name, code in rows:
        hop = cell.strip() or hop
        listed.append((hop, name, code))
    assert listed == [(check.hop, check.name, check.code) for check in CHECKS]
