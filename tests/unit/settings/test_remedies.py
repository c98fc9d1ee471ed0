"""Apply remedies that say what to write: the settings accept it. Does not cover remedies that leave a choice."""

from typing import Any

import pytest

from tests.support.refusals import BONDED, find_problems

BRIDGE: dict[str, Any] = {"name": "home", "lan": ["192.168.1.0/24"], "bridge": {}}
SEGMENT: dict[str, Any] = {"device": "tap"}
USER = "arn:aws:iam::123456789012:role/operator"
EXISTING = {"vpcId": "vpc-1", "subnetId": "subnet-1"}


def client(**keys: Any) -> dict[str, Any]:
    return {"clients": [{"name": "a", **keys}]}


def tunnel(*bases: dict[str, Any], **keys: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for base in bases:
        merged |= base
    return {"tunnel": {**merged, **keys}}


@pytest.mark.parametrize(
    ("wrong", "remedy", "right"),
    [
        # The network
        ({"network": {"cidr": "10.1.2.3/16"}}, "use 10.1.0.0/16", {"network": {"cidr": "10.1.0.0/16"}}),
        ({"network": {"cidr": "ten"}}, "use one such as 10.1.0.0/16", {"network": {"cidr": "10.1.0.0/16"}}),
        ({"network": {"cidr": "10.1.0.0/24"}}, "between /16 and /23", {"network": {"cidr": "10.1.0.0/23"}}),
        ({"network": {"cidr": "10.0.0.0/8"}}, "between /16 and /23", {"network": {"cidr": "10.0.0.0/16"}}),
        (
            {"network": {"cidr": "10.1.0.0/24", "zones": 3}},
            "between /16 and /21",
            {"network": {"cidr": "10.1.0.0/21", "zones": 3}},
        ),
        (
            {"network": {"zones": 2, "privatePrefix": 17}},
            "use 18 to 24",
            {"network": {"zones": 2, "privatePrefix": 18}},
        ),
        (
            {"network": {"cidr": "10.1.0.0/22", "privatePrefix": 23}},
            "use 24",
            {"network": {"cidr": "10.1.0.0/22", "privatePrefix": 24}},
        ),
        ({"network": {"zones": 0}}, "use 1 or more", {"network": {"zones": 1}}),
        ({"network": {"zones": 4}}, "use 3 or less", {"network": {"zones": 3}}),
        ({"network": {"zones": None}}, "leave zones out", {"network": {}}),
        ({"network": {**EXISTING, "zones": 2}}, "leave it out", {"network": EXISTING}),
        ({"network": {**EXISTING, "zones": 2}}, "leave vpcId and subnetId out", {"network": {"zones": 2}}),
        ({"network": {"domain": "x"}}, "tenant.internal", {"network": {"domain": "tenant.internal"}}),
        ({"network": {"domain": "x"}}, "*.ci.example.com", {"network": {"domain": "*.ci.example.com"}}),
        ({"network": "x"}, "{cidr: 10.1.0.0/16}", {"network": {"cidr": "10.1.0.0/16"}}),
        ({"pair": "x"}, "{cidr: 10.2.0.0/16}", {"pair": {"cidr": "10.2.0.0/16"}}),
        # The gateway
        ({"gateway": {"adminFrom": "x"}}, "[203.0.113.7/32]", {"gateway": {"adminFrom": ["203.0.113.7/32"]}}),
        ({"gateway": {"allowFrom": "x"}}, "[203.0.113.7/32]", {"gateway": {"allowFrom": ["203.0.113.7/32"]}}),
        (
            {"gateway": {"adminFrom": ["0.0.0.0/0"]}},
            "adminFromAnywhere: true",
            {"gateway": {"adminFrom": ["0.0.0.0/0"], "adminFromAnywhere": True}},
        ),
        ({"gateway": {"instanceType": "x"}}, "t4g.nano", {"gateway": {"instanceType": "t4g.nano"}}),
        ({"gateway": {"image": "x"}}, "debian-13", {"gateway": {"image": "debian-13"}}),
        ({"gateway": {"adminAt": 5}}, "203.0.113.7", {"gateway": {"adminAt": "203.0.113.7"}}),
        (
            {"gateway": {"ipv6Prefix": "x"}, **tunnel(ipv6="delegated")},
            "2001:db8:1:2:3::/80",
            {"gateway": {"ipv6Prefix": "2001:db8:1:2:3::/80"}, **tunnel(ipv6="delegated")},
        ),
        # The tunnel
        (tunnel(device="tab"), "use tun or tap", tunnel(device="tap")),
        (tunnel(nat="maybe"), "use true or false", tunnel(nat=False)),
        (tunnel(pool="10.8.0.0/30"), "between /16 and /29", tunnel(pool="10.8.0.0/29")),
        (tunnel(SEGMENT, pool="192.168.0.0/16"), "between /20 and /29", tunnel(SEGMENT, pool="192.168.0.0/20")),
        (tunnel(SEGMENT, pool="10.0.0.0/8"), "between /20 and /29", tunnel(SEGMENT, pool="10.0.0.0/20")),
        (
            {**tunnel(pool="10.8.0.0/29"), "clients": [{"name": f"c{i}"} for i in range(14)]},
            "between /16 and /27",
            {**tunnel(pool="10.8.0.0/27"), "clients": [{"name": f"c{i}"} for i in range(14)]},
        ),
        ({**tunnel(), **client(address="10.9.0.1")}, "from 10.8.0.2 to 10.8.0.254", client(address="10.8.0.254")),
        (tunnel(protocol="tcp", port=22), "use 443", tunnel(protocol="tcp", port=443)),
        (tunnel(port=53), "use 1194", tunnel(port=1194)),
        (tunnel(BONDED, port=67), "use 1194", tunnel(BONDED, port=1194)),
        (tunnel(BONDED, port=65535), "use 65534", tunnel(BONDED, port=65534)),
        (tunnel(routes="x"), "[192.168.1.0/24]", tunnel(routes=["192.168.1.0/24"])),
        # A segment
        (tunnel(broadcasts=9), "leave it out", tunnel()),
        (tunnel(multicasts=9), "leave it out", tunnel()),
        (tunnel(broadcasts=9), "tunnel.device: tap", tunnel(SEGMENT, broadcasts=9)),
        (tunnel(SEGMENT, redirect="all"), "use none", tunnel(SEGMENT, redirect="none")),
        (tunnel(SEGMENT, redirect="all"), "device: tun", tunnel(redirect="all")),
        (tunnel(BONDED, redirect="all"), "use none", tunnel(BONDED, redirect="none")),
        (
            tunnel(SEGMENT, multicast=[{"group": "239.0.0.0/8", "ports": [9, 8]}]),
            "use [8, 9]",
            tunnel(SEGMENT, multicast=[{"group": "239.0.0.0/8", "ports": [8, 9]}]),
        ),
        (
            tunnel(SEGMENT, multicast="x"),
            "[{group: 239.255.0.0/16}]",
            tunnel(SEGMENT, multicast=[{"group": "239.255.0.0/16"}]),
        ),
        (
            tunnel(SEGMENT, multicast=[{"group": "10.0.0.0/8"}]),
            "use a part of 224.0.0.0/4 or ff00::/8",
            tunnel(SEGMENT, multicast=[{"group": "224.0.0.0/4"}, {"group": "ff00::/8"}]),
        ),
        ({**tunnel(SEGMENT), **client(system="phone")}, "device: tun", client(system="phone")),
        ({**tunnel(SEGMENT), **client(lan=["192.168.7.0/24"])}, "leave it out", {**tunnel(SEGMENT), **client()}),
        ({**tunnel(SEGMENT), **client(lan=["192.168.7.0/24"])}, "device: tun", client(lan=["192.168.7.0/24"])),
        ({**tunnel(BONDED), **client(lan=["192.168.7.0/24"])}, "leave it out", {**tunnel(BONDED), **client()}),
        (
            {**tunnel(SEGMENT), **client(mac="x")},
            "02:00:5e:00:53:01",
            {**tunnel(SEGMENT), **client(mac="02:00:5e:00:53:01")},
        ),
        # A bridge
        *(
            (
                {**tunnel(SEGMENT), "clients": [{**BRIDGE, "lan": [lan]}]},
                f"such as {pool}",
                {**tunnel(SEGMENT, pool=pool), "clients": [{**BRIDGE, "lan": [lan]}]},
            )
            for lan, pool in (
                ("172.16.0.0/12", "172.31.240.0/20"),
                ("172.16.0.0/16", "172.16.240.0/20"),
                ("192.168.1.0/24", "192.168.1.192/26"),
                ("192.168.1.0/28", "192.168.1.8/29"),
            )
        ),
        (
            {**tunnel(SEGMENT, pool="192.168.1.0/26"), "clients": [BRIDGE]},
            "such as 192.168.1.192/26",
            {**tunnel(SEGMENT, pool="192.168.1.192/26"), "clients": [BRIDGE]},
        ),
        (
            {**tunnel(SEGMENT, pool="192.168.1.192/26"), "clients": [{**BRIDGE, "bridge": {"gateway6": "fe80::1"}}]},
            "use fe80::1%br0",
            {
                **tunnel(SEGMENT, pool="192.168.1.192/26"),
                "clients": [{**BRIDGE, "bridge": {"gateway6": "fe80::1%br0"}}],
            },
        ),
        # Two links
        (tunnel(bond="balance-alb"), "leave it out", tunnel()),
        (tunnel(links=2), "device: tap and clientToClient: true", tunnel(BONDED)),
        (tunnel(links=2), "links: 1", tunnel(links=1)),
        (tunnel(BONDED, clientToClient=False), "use true", tunnel(BONDED)),
        (tunnel(BONDED, protocol="tcp"), "use udp", tunnel(BONDED, protocol="udp")),
        (tunnel(BONDED, protocol="tcp"), "links: 1", tunnel(BONDED, protocol="tcp", links=1)),
        (tunnel(BONDED, bond="balance-rr"), "balance-alb", tunnel(BONDED, bond="balance-alb")),
        (tunnel(BONDED, bond="balance-rr"), "active-backup", tunnel(BONDED, bond="active-backup")),
        (tunnel(BONDED, ipv6="delegated"), "leave it out", tunnel(BONDED)),
        (tunnel(BONDED, ipv6="delegated"), "links: 1", tunnel(BONDED, ipv6="delegated", links=1)),
        ({**tunnel(BONDED), **client(lines="x")}, "[eth0, eth1]", {**tunnel(BONDED), **client(lines=["eth0", "eth1"])}),
        # IPv6
        (tunnel(redirect="ipv6"), "tunnel.ipv6: delegated", tunnel(redirect="ipv6", ipv6="delegated")),
        (tunnel(BONDED, redirect="ipv6"), "leave it out", tunnel(BONDED)),
        (tunnel(openTo="x"), '["2001:db8::/32"]', tunnel(openTo=["2001:db8::/32"], ipv6="delegated")),
        (tunnel(ipv6="x"), "none, delegated, advertised", tunnel(ipv6="delegated")),
        (tunnel(ipv6="advertised"), "use delegated", tunnel(ipv6="delegated")),
        (tunnel(ipv6="advertised"), "device: tap", tunnel(SEGMENT, ipv6="advertised")),
        (tunnel(ipv6="2001:db8:0:0:9::/80"), "tunnel.ipv6: delegated", tunnel(ipv6="delegated")),
        (
            {**tunnel(ipv6="2001:db8:0:0:1::/112"), "gateway": {"ipv6Prefix": "2001:db8:0:0:1::/80"}},
            "between /80 and /108",
            {**tunnel(ipv6="2001:db8:0:0:1::/108"), "gateway": {"ipv6Prefix": "2001:db8:0:0:1::/80"}},
        ),
        (
            {**tunnel(ipv6="delegated"), **client(address6="2001:db8::10")},
            "such as ::10",
            {**tunnel(ipv6="delegated"), **client(address6="::10")},
        ),
        (
            {**tunnel(ipv6="delegated"), **client(address6="::1")},
            "use ::2",
            {**tunnel(ipv6="delegated"), **client(address6="::2")},
        ),
        # A pair
        ({"pair": {}, **tunnel(links=1)}, "use 2", {"pair": {}, **tunnel(links=2)}),
        ({"pair": {}, **tunnel(device="tun")}, "use tap", {"pair": {}, **tunnel(device="tap")}),
        ({"pair": {}, **tunnel(pool="10.0.0.0/31")}, "between /16 and /30", {"pair": {}, **tunnel(pool="10.0.0.0/30")}),
        ({"pair": {}, **tunnel(port=443)}, "use 1024", {"pair": {}, **tunnel(port=1024)}),
        *(
            ({"pair": {}, **tunnel(bond="balance-alb")}, bond, {"pair": {}, **tunnel(bond=bond)})
            for bond in ("balance-xor", "active-backup", "balance-rr")
        ),
        (
            {"pair": {}, "gateway": {"adminAt": "203.0.113.9"}},
            "use adminFrom: [203.0.113.9/32]",
            {"pair": {}, "gateway": {"adminFrom": ["203.0.113.9/32"]}},
        ),
        ({"pair": EXISTING}, "tunnel.vpc: false", {"pair": EXISTING, **tunnel(vpc=False)}),
        # IAM
        ({"iam": {"users": "x"}}, "use kits or none", {"iam": {"users": "none"}}),
        ({"iam": "x"}, "{users: none}", {"iam": {"users": "none"}}),
        (
            {"iam": {"permissionsBoundary": "x"}},
            "arn:aws:iam::123456789012:policy/drawbridge-boundary",
            {"iam": {"permissionsBoundary": "arn:aws:iam::123456789012:policy/drawbridge-boundary"}},
        ),
        (
            {"iam": {"users": "none"}, "gateway": {"allowFrom": []}, **client(at="203.0.113.7")},
            "let 203.0.113.7/32 in",
            {"iam": {"users": "none"}, "gateway": {"allowFrom": ["203.0.113.7/32"]}, **client()},
        ),
        (
            {"iam": {"users": "none"}, **client(at="203.0.113.7")},
            "iam.users: kits",
            {"iam": {"users": "kits"}, **client(at="203.0.113.7")},
        ),
        # Clients and lifetimes
        ({"clients": "x"}, "[{name: alice}]", {"clients": [{"name": "alice"}]}),
        (client(name="x" * 60, lan=["192.168.1.0/24"]), "at most 49", client(name="x" * 49, lan=["192.168.1.0/24"])),
        (client(reachable=["192.168.1.0/24"]), "leave it out", client()),
        (
            client(reachable=["192.168.1.0/24"]),
            "add it to lan",
            client(reachable=["192.168.1.0/24"], lan=["192.168.1.0/24"]),
        ),
        (client(system="windows", lan=["192.168.1.0/24"]), "use linux", client(system="linux", lan=["192.168.1.0/24"])),
        (client(system="windows", lan=["192.168.1.0/24"]), "leave lan out", client(system="windows")),
        (
            {"lifetimes": {"ca": 10, "server": 5, "client": 11}},
            "10 or less",
            {"lifetimes": {"ca": 10, "server": 5, "client": 10}},
        ),
        ({"lifetimes": "x"}, "{client: 365}", {"lifetimes": {"client": 365}}),
        # Secrets
        ({"secrets": {"key": "x"}}, "use stack", {"secrets": {"key": "stack"}}),
        ({"secrets": {"key": "x"}}, "aws/ssm", {"secrets": {"key": "aws/ssm"}}),
        ({"secrets": "x"}, "{key: stack}", {"secrets": {"key": "stack"}}),
        ({"secrets": {"users": ["x"]}}, USER, {"secrets": {"users": [USER]}}),
        ({"secrets": {"users": USER}}, f"[{USER}]", {"secrets": {"users": [USER]}}),
        ({"secrets": {"key": "aws/ssm", "users": [USER]}}, "leave users out", {"secrets": {"key": "aws/ssm"}}),
        (
            {"secrets": {"key": "aws/ssm", "users": [USER]}},
            "key: stack",
            {"secrets": {"key": "stack", "users": [USER]}},
        ),
    ],
)
def test_a_remedy_is_accepted(wrong: dict[str, Any], remedy: str, right: dict[str, Any]) -> None:
    lines = find_problems(**wrong)
    assert any(remedy in line.rpartition("; ")[2] for line in lines), lines
    assert find_problems(**right) == []
