"""Every refusal of a stack's configuration with its exact words. That AWS or OpenVPN agrees is not shown here."""

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings.model import Client, Gateway, Lifetimes, Network, Tunnel
from settings.parse import check_vpc_overlap, parse
from settings.problems import Problem, SettingsError
from settings.stack_file import read_stack_file

STACKS = sorted(Path(__file__).parents[2].glob("stacks/Pulumi.*.yaml"))


BONDED = {"device": "tap", "links": 2, "clientToClient": True}


def problems(stack: str = "dev", endpoint: str | None = None, **sections: Any) -> list[str]:
    raw = {"aws:region": "eu-west-1"} | {f"drawbridge:{k.replace('__', ':')}": v for k, v in sections.items()}
    try:
        parse(raw, stack=stack, endpoint=endpoint)
    except SettingsError as error:
        return str(error).splitlines()
    return []


def test_defaults() -> None:
    found = parse({"aws:region": "eu-west-1"}, stack="dev", endpoint=None)
    assert found.network.cidr == IPv4Network("10.1.0.0/16")
    assert (found.network.zones, found.network.vpc_id, found.network.subnet_id) == (1, None, None)
    assert (found.gateway.instance_type, found.gateway.image, found.gateway.disk_size) == ("t4g.nano", "debian-13", 8)
    assert (found.gateway.admin_from, found.gateway.allow_from) == ((), (IPv4Network("0.0.0.0/0"),))
    assert (found.tunnel.device, found.tunnel.pool, found.tunnel.port) == ("tun", IPv4Network("10.8.0.0/24"), 1194)
    assert (found.tunnel.nat, found.tunnel.client_to_client, found.tunnel.redirect) == (True, False, "none")
    assert (found.clients, found.tunnel.routes) == ((), ())
    assert found.lifetimes.model_dump() == {"ca": 3650, "server": 825, "client": 365}


def test_values_are_typed_and_json_is_read_as_pulumi_hands_it_over() -> None:
    clients = [{"name": "home", "address": "10.8.0.10", "lan": ["192.168.1.0/24"], "reachable": ["192.168.1.128/25"]}]
    plain = {"aws:region": "eu-west-1", "drawbridge:clients": clients, "drawbridge:tunnel": {"clientToClient": True}}
    as_json = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
    found = parse(as_json, stack="dev", endpoint=None)
    assert found == parse(plain, stack="dev", endpoint=None)
    (client,) = found.clients
    assert (client.address, client.lan) == (IPv4Address("10.8.0.10"), (IPv4Network("192.168.1.0/24"),))
    assert found.tunnel.client_to_client is True


def test_other_namespaces_are_left_alone() -> None:
    assert parse({"aws:region": "eu-west-1", "other:x": {"a": 1}}, stack="dev", endpoint=None)


KEY = "give the one line of a public key, such as the content of ~/.ssh/id_ed25519.pub"
NAME = "use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first"
D = "drawbridge:"


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"tunel": {}}, "tunel: {} has an unknown key; did you mean tunnel?"),
        ({"zzz": 1}, "zzz: 1 has an unknown key; known are clients, gateway, lifetimes, network, pair, tunnel"),
        ({"network": {"cdir": 1}}, "network.cdir: 1 has an unknown key; did you mean cidr?"),
        ({"gateway": {"admin_from": []}}, "gateway.admin_from: [] has an unknown key; did you mean adminFrom?"),
        ({"lifetimes": "long"}, "lifetimes: long is no mapping; write {key: value, …}"),
        ({"clients": "alice"}, "clients: alice is no list; write one entry for each client: - {name: alice}"),
        ({"clients": ["alice"]}, "clients[0]: alice is no mapping; write {key: value, …}"),
        ({"clients": [{}]}, f"clients[0].name: (missing) cannot be used; {NAME}"),
        ({"clients": [{"name": "Alice"}]}, f"clients[0].name: Alice cannot be used; {NAME}"),
        ({"clients": [{"name": "../x"}]}, f"clients[0].name: ../x cannot be used; {NAME}"),
        ({"clients": [{"name": "x" * 64}]}, f"clients[0].name: {'x' * 64} cannot be used; {NAME}"),
        ({"network": {"cidr": "10.1.2.3/16"}}, "network.cidr: 10.1.2.3/16 has host bits set; write 10.1.0.0/16"),
        ({"network": {"cidr": "ten"}}, "network.cidr: ten is no IPv4 range; write one like 10.1.0.0/16"),
        ({"network": {"cidr": "10.1.0.0/8"}}, "network.cidr: 10.1.0.0/8 has host bits set; write 10.0.0.0/8"),
        (
            {"network": {"cidr": "10.1.0.0/24"}},
            "network.cidr: 10.1.0.0/24 is no size for the VPC; write a range from /16 to /23",
        ),
        (
            {"network": {"cidr": "10.1.0.0/22", "zones": 3}},
            "network.cidr: 10.1.0.0/22 is no size for the VPC; write a range from /16 to /21",
        ),
        (
            {"network": {"cidr": "10.1.0.0/16", "zones": 2, "privatePrefix": 17}},
            "network.privatePrefix: 17 leaves no room for 2 private subnets in drawbridge:network.cidr 10.1.0.0/16; "
            "write 18 or more",
        ),
        (
            {"network": {"cidr": "10.1.0.0/22", "privatePrefix": 23}},
            "network.privatePrefix: 23 leaves no room for 1 private subnets in drawbridge:network.cidr 10.1.0.0/22; "
            "write 24",
        ),
        ({"network": {"privatePrefix": 16}}, "network.privatePrefix: 16 cannot be used; write 17 or more"),
        ({"network": {"privatePrefix": 25}}, "network.privatePrefix: 25 cannot be used; write 24 or less"),
        (
            {"network": {"vpcId": "vpc-1", "subnetId": "subnet-1", "privatePrefix": 20}},
            "network.privatePrefix: 20 is for a new VPC; leave it out, or leave vpcId and subnetId out",
        ),
        ({"network": {"zones": 0}}, "network.zones: 0 cannot be used; write 1 or more"),
        ({"network": {"zones": 4}}, "network.zones: 4 cannot be used; write 3 or less"),
        ({"network": {"zones": "two"}}, "network.zones: two cannot be used; write a whole number"),
        (
            {"network": {"vpcId": "vpc-1"}},
            "network.subnetId: (missing) is needed for an existing VPC; "
            "write the id of a public subnet of that VPC (subnet-…)",
        ),
        (
            {"network": {"vpcId": "vpc-1", "subnetId": "subnet-1", "cidr": "10.1.0.0/16"}},
            "network.cidr: 10.1.0.0/16 is for a new VPC; leave it out, or leave vpcId and subnetId out",
        ),
        (
            {"network": {"vpcId": "x", "subnetId": "subnet-1"}},
            "network.vpcId: x cannot be used; write the id of an existing VPC (vpc-…)",
        ),
        (
            {"network": {"routeTableIds": ["rtb-1"]}},
            "network.routeTableIds: rtb-1 is for an existing VPC; leave it out, or give vpcId and subnetId",
        ),
        (
            {"network": {"vpcId": "vpc-1", "subnetId": "subnet-1"}, "tunnel": {"nat": False}},
            "network.routeTableIds: (missing) is needed where the existing VPC opens connections to clients; "
            "name the route tables that shall lead to them",
        ),
        (
            {"gateway": {"instanceType": "big"}},
            "gateway.instanceType: big cannot be used; write an EC2 instance type, such as t4g.nano",
        ),
        (
            {"gateway": {"image": "debian-9"}},
            "gateway.image: debian-9 cannot be used; write debian-13 or the id of an AMI",
        ),
        ({"gateway": {"diskSize": 7}}, "gateway.diskSize: 7 cannot be used; write 8 or more"),
        (
            {"gateway": {"allowFrom": []}, "clients": [{"name": "a", "at": "203.0.113.7"}, {"name": "b"}]},
            "gateway.allowFrom: [] lets nobody reach the tunnel from anywhere: b; "
            "name ranges, or give each client `at`, its public address",
        ),
        (
            {"clients": [{"name": "a", "at": "203.0.113.7"}, {"name": "b", "at": "203.0.113.7"}]},
            "clients[1].at: 203.0.113.7 is also clients[0]'s; give it to one: they come from there together",
        ),
        (
            {"clients": [{"name": "a" * 32, "lan": ["192.168.1.0/24"]}]},
            f"clients[0].name: {'a' * 32} is too long for the IAM user of a site; use at most 31 characters",
        ),
        ({"gateway": {"sshKey": "hello"}}, f"gateway.sshKey: hello cannot be used; {KEY}"),
        (
            {"gateway": {"sshKey": "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n"}},
            f"gateway.sshKey: (a private key) cannot be used; {KEY}",
        ),
        (
            {"gateway": {"adminFrom": ["0.0.0.0/0"]}},
            "gateway.adminFrom: 0.0.0.0/0 opens SSH to the world; "
            "name your own addresses, or say it twice with adminFromAnywhere: true",
        ),
        (
            {"gateway": {"adminFrom": ["0.0.0.0/1", "128.0.0.0/1"]}},
            "gateway.adminFrom: 0.0.0.0/1, 128.0.0.0/1 opens SSH to the world; "
            "name your own addresses, or say it twice with adminFromAnywhere: true",
        ),
        ({"gateway": {"adminFrom": ["0.0.0.0/0"], "adminFromAnywhere": True}}, None),
        ({"tunnel": {"device": "tab"}}, "tunnel.device: tab cannot be used; write tun or tap"),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "system": "phone"}]},
            "clients[0].system: phone cannot join a segment: no phone has TAP devices; "
            "write device: tun, or leave the client out",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "system": "windows"}]},
            "clients[0].mac: (missing) is needed on Windows, where no bundle can set it; "
            "write what `getmac /v` shows of the TAP adapter",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "mac": "03:00:5e:00:53:01"}]},
            "clients[0].mac: 03:00:5e:00:53:01 cannot be used; write a unicast address like 02:00:5e:00:53:01",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": n, "mac": "02-00-5E-00-53-01"} for n in "ab"]},
            "clients[1].mac: 02:00:5e:00:53:01 is also clients[0]'s; give each its own",
        ),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "lan": ["192.168.7.0/24"]}]},
            "clients[0].lan: 192.168.7.0/24 cannot be routed to on a segment; "
            "write bridge: {} beside it, device: tun, or leave it out",
        ),
        (
            {"tunnel": {"device": "tap", "pool": "192.168.0.0/16"}},
            "tunnel.pool: 192.168.0.0/16 is too wide for one segment, which all broadcasts cross; "
            "write a range from /20 to /29",
        ),
        (
            {"tunnel": {"device": "tap", "redirect": "all"}},
            "tunnel.redirect: all needs a tunnel that routes; write none, or device: tun",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "10.0.0.0/8"}]}},
            "tunnel.multicast[0].group: 10.0.0.0/8 is no multicast; write a part of 224.0.0.0/4 or ff00::/8",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "239.0.0.0/8", "ports": [9, 8]}]}},
            "tunnel.multicast[0].ports: [9, 8] is no range; write [first, last]",
        ),
        (
            {"tunnel": {"multicast": [{"group": "239.0.0.0/8"}]}},
            "tunnel.multicast: 239.0.0.0/8 crosses no tunnel that routes; "
            "leave it out, or write drawbridge:tunnel.device: tap",
        ),
        (
            {"tunnel": {"ipv6": "yes"}},
            "tunnel.ipv6: yes cannot be used; write none, delegated, advertised, or a range like 2001:db8:1:2:3::/80",
        ),
        (
            {"tunnel": {"ipv6": "2001:db8:0:0:9::/80"}, "gateway": {"ipv6Prefix": "2001:db8:0:0:1::/80"}},
            "tunnel.ipv6: 2001:db8:0:0:9::/80 is outside the delegated drawbridge:gateway.ipv6Prefix "
            "2001:db8:0:0:1::/80; write a part of that, or delegated for all of it",
        ),
        (
            {"tunnel": {"ipv6": "2001:db8:0:0:9::/80"}},
            "gateway.ipv6Prefix: (missing) is what 2001:db8:0:0:9::/80 must be a part of; "
            "name it, or write delegated for all of the one that AWS chooses",
        ),
        (
            {"tunnel": {"ipv6": "2001:db8:0:0:1::/112"}, "gateway": {"ipv6Prefix": "2001:db8:0:0:1::/80"}},
            "tunnel.ipv6: 2001:db8:0:0:1::/112 is too small; write a range from /80 to /108",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "gateway": {"ipv6Prefix": "2001:db8::/64"}},
            "gateway.ipv6Prefix: 2001:db8::/64 cannot be delegated; write a /80, the only size there is",
        ),
        (
            {"tunnel": {"openTo": ["::/0"]}},
            "tunnel.openTo: ::/0 needs IPv6; write drawbridge:tunnel.ipv6: delegated, or leave it out",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "clients": [{"name": "a", "address6": "2001:db8::10"}]},
            "clients[0].address6: 2001:db8::10 is more than the end of an address, and no prefix is named; "
            "write its end alone, such as ::10",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "clients": [{"name": "a", "address6": "::1"}]},
            "clients[0].address6: ::1 is the gateway's own, or no address; write ::2 or above",
        ),
        (
            {"tunnel": {"ipv6": "delegated"}, "clients": [{"name": n, "address6": "::10"} for n in "ab"]},
            "clients[1].address6: ::10 is also clients[0]'s; give each its own",
        ),
        (
            {"clients": [{"name": "a", "mac": "02:00:5e:00:53:01"}]},
            "clients[0].mac: 02:00:5e:00:53:01 is for a segment; leave it out",
        ),
        (
            {"tunnel": {"ipv6": "advertised"}},
            "tunnel.ipv6: advertised needs a segment: no advertisement crosses a tun device; "
            "write device: tap, or ipv6: delegated",
        ),
        (
            {"tunnel": {"device": "tap", "ipv6": "advertised"}, "network": {"vpcId": "vpc-1", "subnetId": "subnet-1"}},
            "tunnel.ipv6: advertised needs a subnet and a route table of its own, which an existing VPC does not get; "
            "write delegated, or leave vpcId and subnetId out",
        ),
        (
            {"tunnel": {"device": "tap", "ipv6": "advertised"}, "gateway": {"ipv6Prefix": "2001:db8:1:2:3::/80"}},
            "gateway.ipv6Prefix: 2001:db8:1:2:3::/80 is not delegated where a whole subnet is the segment's; "
            "leave it out, or write ipv6: delegated",
        ),
        (
            {"clients": [{"name": "a", "system": "windows", "lan": ["192.168.1.0/24"]}]},
            "clients[0].system: windows has no kit to route for its LAN with; write linux, or leave lan out",
        ),
        ({"tunnel": {"port": 0}}, "tunnel.port: 0 cannot be used; write 1 or more"),
        ({"tunnel": {"protocol": "sctp"}}, "tunnel.protocol: sctp cannot be used; write udp or tcp"),
        (
            {"tunnel": {"protocol": "tcp", "port": 22}},
            "tunnel.port: 22 is SSH's on the gateway; write 443, or another one",
        ),
        (
            {"tunnel": {"port": 53}},
            "tunnel.port: 53 is the resolver's on the gateway; write 1194, or another one",
        ),
        (
            {"tunnel": {**BONDED, "port": 67}},
            "tunnel.port: 68 is DHCP's on the gateway; write 1194, or another one",
        ),
        (
            {"tunnel": {**BONDED, "protocol": "tcp"}},
            "tunnel.protocol: tcp would hold a link's packets back behind each one that is lost; "
            "write udp, or links: 1",
        ),
        ({"tunnel": {"port": 65536}}, "tunnel.port: 65536 cannot be used; write 65535 or less"),
        ({"tunnel": {"nat": "maybe"}}, "tunnel.nat: maybe cannot be used; write true or false"),
        ({"tunnel": {"redirect": "some"}}, "tunnel.redirect: some cannot be used; write none, ipv6 or all"),
        (
            {"tunnel": {"pool": "10.8.0.0/30"}},
            "tunnel.pool: 10.8.0.0/30 is no size for a pool; write a range from /16 to /29",
        ),
        (
            {"tunnel": {"pool": "10.1.9.0/24"}},
            "tunnel.pool: 10.1.9.0/24 overlaps drawbridge:network.cidr 10.1.0.0/16; choose a range clear of it",
        ),
        (
            {"tunnel": {"routes": ["10.8.0.0/16"]}},
            "tunnel.routes[0]: 10.8.0.0/16 overlaps drawbridge:tunnel.pool 10.8.0.0/24; choose a range clear of it",
        ),
        (
            {"tunnel": {"pool": "169.254.8.0/24"}},
            "tunnel.pool: 169.254.8.0/24 holds link-local addresses, AWS's metadata too; choose another range",
        ),
        (
            {"tunnel": {"pool": "10.8.0.0/29"}, "clients": [{"name": f"c{i}"} for i in range(6)]},
            "tunnel.pool: 10.8.0.0/29 has room for 5 clients, not 6; widen it",
        ),
        (
            {"clients": [{"name": "a", "address": "x"}]},
            "clients[0].address: x is no IPv4 address; write one like 10.8.0.10",
        ),
        *(
            (
                {"clients": [{"name": "a", "address": address}]},
                f"clients[0].address: {address} is no client's address in drawbridge:tunnel.pool 10.8.0.0/24; "
                "choose one from 10.8.0.2 to 10.8.0.254",
            )
            for address in ("10.8.0.0", "10.8.0.1", "10.8.0.255", "10.9.0.5")
        ),
        ({"clients": [{"name": "a"}, {"name": "a"}]}, "clients[1].name: a is also clients[0]'s; give each its own"),
        (
            {"clients": [{"name": "a", "address": "10.8.0.5"}, {"name": "b", "address": "10.8.0.5"}]},
            "clients[1].address: 10.8.0.5 is also clients[0]'s; give each its own",
        ),
        (
            {"clients": [{"name": "a", "lan": ["10.1.3.0/24"]}]},
            "clients[0].lan[0]: 10.1.3.0/24 overlaps drawbridge:network.cidr 10.1.0.0/16; choose a range clear of it",
        ),
        (
            {"clients": [{"name": "a", "lan": ["192.168.1.0/24"]}, {"name": "b", "lan": ["192.168.0.0/16"]}]},
            "clients[1].lan[0]: 192.168.0.0/16 overlaps drawbridge:clients[0].lan[0] 192.168.1.0/24; "
            "choose a range clear of it",
        ),
        (
            {"clients": [{"name": "a", "lan": ["192.168.1.0/24"], "reachable": ["192.168.2.0/25"]}]},
            "clients[0].reachable[0]: 192.168.2.0/25 is outside drawbridge:clients[0].lan 192.168.1.0/24; "
            "choose a part of lan, or add it there",
        ),
        (
            {"clients": [{"name": "a", "reachable": ["192.168.2.0/25"]}]},
            "clients[0].reachable[0]: 192.168.2.0/25 is outside drawbridge:clients[0].lan (empty); "
            "choose a part of lan, or add it there",
        ),
        (
            {"tunnel": {**BONDED, "bond": "balance-xor"}},
            "tunnel.bond: balance-xor sends from one hardware address over both links, which the gateway's bridge "
            "knows on one at a time; write balance-alb or active-backup",
        ),
        ({"tunnel": {**BONDED, "bond": "active-backup"}}, None),
        (
            {"tunnel": {"bond": "balance-alb"}},
            "tunnel.bond: balance-alb is for several links; write links: 2, or leave it out",
        ),
        ({"tunnel": {"links": 2}}, "tunnel.links: 2 can be bonded on a segment only; write device: tap"),
        ({"tunnel": {**BONDED, "links": 3}}, "tunnel.links: 3 cannot be used; write 1 or 2"),
        (
            {"tunnel": {**BONDED, "clientToClient": False}},
            "tunnel.clientToClient: false lets no bonded host meet another: they do so on the gateway's bridge; "
            "write true",
        ),
        (
            {"tunnel": {**BONDED, "port": 65535}},
            "tunnel.port: 65535 leaves no port for the second link; write 65534 or less",
        ),
        (
            {"tunnel": {**BONDED, "ipv6": "delegated"}},
            "tunnel.ipv6: delegated is given to no bonded host by its kit; leave it out, or links: 1",
        ),
        (
            {"tunnel": BONDED, "clients": [{"name": "a", "at": "203.0.113.9"}]},
            "clients[0].at: 203.0.113.9 is one address, and a bonded host has one for each line; "
            "leave it out, and name all of them in drawbridge:gateway.allowFrom",
        ),
        (
            {"tunnel": BONDED, "clients": [{"name": "a", "lines": ["eth0"]}]},
            "clients[0].lines: eth0 is not one interface a link; name two, or none",
        ),
        (
            {"clients": [{"name": "a", "lines": ["eth0", "eth1"]}]},
            "clients[0].lines: eth0, eth1 is for several links; leave it out, or write drawbridge:tunnel.links: 2",
        ),
        (
            {"tunnel": BONDED, "clients": [{"name": "a", "address": "192.168.255.254"}]},
            "clients[0].address: 192.168.255.254 is no client's address in drawbridge:tunnel.pool 192.168.255.0/24; "
            "choose one from 192.168.255.1 to 192.168.255.253",
        ),
        ({"pair": {}}, None),
        ({"pair": {}, "tunnel": {"bond": "balance-rr", "pool": "10.0.0.0/30", "device": "tap", "links": 2}}, None),
        (
            {"pair": {"cidr": "10.1.128.0/17"}},
            "pair.cidr: 10.1.128.0/17 overlaps drawbridge:network.cidr 10.1.0.0/16; choose a range clear of it",
        ),
        (
            {"pair": {}, "tunnel": {"pool": "10.2.9.0/24"}},
            "tunnel.pool: 10.2.9.0/24 overlaps drawbridge:pair.cidr 10.2.0.0/16; choose a range clear of it",
        ),
        (
            {"pair": {"cidr": "10.2.0.0/25"}},
            "pair.cidr: 10.2.0.0/25 is no size for the VPC; write a range from /16 to /23",
        ),
        (
            {"pair": {}, "tunnel": {"port": 443}},
            "tunnel.port: 443 needs a right that no link of a pair has; write 1024 or more",
        ),
        (
            {"pair": {}, "tunnel": {"bond": "balance-alb"}},
            "tunnel.bond: balance-alb loses frames between two hosts: it tells each peer the address of one link, and "
            "what comes over the other is taken by nobody; write balance-xor, active-backup or balance-rr",
        ),
        (
            {"pair": {}, "tunnel": {"pool": "10.0.0.0/31"}},
            "tunnel.pool: 10.0.0.0/31 is no size for a pair; write a range from /16 to /30",
        ),
        (
            {"pair": {}, "tunnel": {"port": 65535}},
            "tunnel.port: 65535 leaves no port for the second link; write 65534 or less",
        ),
        (
            {"pair": {}, "tunnel": {"links": 1}},
            "tunnel.links: 1 cannot be a pair's, which is two Ethernet links; write 2, or leave it out",
        ),
        (
            {"pair": {}, "tunnel": {"clientToClient": True}},
            "tunnel.clientToClient: True is for clients: the gateways of a pair serve each other and nobody else; "
            "leave it out",
        ),
        (
            {"pair": {}, "clients": [{"name": "alice"}]},
            "clients: a list with entries has no place: the gateways of a pair serve each other and nobody else; "
            "leave it out",
        ),
        (
            {"pair": {}, "gateway": {"allowFrom": ["203.0.113.0/24"]}},
            "gateway.allowFrom: 203.0.113.0/24 has no place: each gateway's link is open to the other's address alone; "
            "leave it out",
        ),
        (
            {"pair": {}, "gateway": {"adminAt": "203.0.113.9"}},
            "gateway.adminAt: 203.0.113.9 opens one gateway, and a pair has two; name a range in adminFrom",
        ),
        (
            {"pair": {}, "network": {"domain": "x.internal"}},
            "network.domain: x.internal is for a gateway with clients; leave it out",
        ),
        (
            {"pair": {"vpcId": "vpc-1", "subnetId": "subnet-1"}},
            "pair.routeTableIds: (missing) is needed where the existing VPC is to reach the other one; "
            "name the route tables that shall lead there, or write drawbridge:tunnel.vpc: false",
        ),
        ({"pair": {"vpcId": "vpc-1", "subnetId": "subnet-1"}, "tunnel": {"vpc": False}}, None),
        ({"lifetimes": {"client": 0}}, "lifetimes.client: 0 cannot be used; write 1 or more"),
        (
            {"lifetimes": {"ca": 10, "server": 5, "client": 11}},
            "lifetimes.client: 11 outlives drawbridge:lifetimes.ca 10; write 10 or less",
        ),
    ],
)
def test_refusals(sections: dict[str, Any], expected: str | None) -> None:
    assert problems(**sections) == ([D + expected] if expected else [])


def test_a_name_ends_where_its_line_does() -> None:
    assert problems(clients=[{"name": "a\n"}])


def test_all_problems_at_once() -> None:
    found = problems(
        stack="Lab!",
        network={"cidr": "10.1.0.0/24"},
        gateway={"diskSize": 1, "image": "x"},
        tunnel={"pool": "10.1.0.0/24"},
        clients=[{"name": "A"}, {"name": "b", "lan": ["10.1.0.0/25"]}, {"name": "b"}],
        lifetimes={"ca": 0},
        typo=1,
    )
    assert [line.partition(": ")[0] for line in found] == [
        "stack",
        "drawbridge:typo",
        "drawbridge:gateway.image",
        "drawbridge:gateway.diskSize",
        "drawbridge:lifetimes.ca",
        "drawbridge:clients[0].name",
        "drawbridge:network.cidr",
        "drawbridge:clients[2].name",
        "drawbridge:tunnel.pool",
        "drawbridge:clients[1].lan[0]",
        "drawbridge:clients[1].lan[0]",
    ]


@pytest.mark.parametrize("region", [None, "", "mars", "eu-west", 5])
def test_region(region: object) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse({"aws:region": region} if region is not None else {}, stack="dev", endpoint=None)
    shown = "(missing)" if region is None else region
    assert str(refusal.value) == f"aws:region: {shown} is no AWS region; run `pulumi config set aws:region eu-west-1`"


@pytest.mark.parametrize("stack", ["Dev", "9lives", "a_b", "-x", "x-", "x" * 21, ""])
def test_stack_names_that_no_bucket_can_have(stack: str) -> None:
    assert problems(stack=stack) == [
        f"stack: {stack} cannot be part of a bucket's name; "
        "use 1 to 20 of a-z, 0-9 and '-', a letter first and no '-' last"
    ]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:5000", "http://[::1]:5000", "https://localhost:1"])
def test_the_lab_stack_goes_to_loopback(endpoint: str) -> None:
    assert problems(stack="lab", endpoint=endpoint) == []


@pytest.mark.parametrize(
    "endpoint",
    [
        None,
        "",
        "https://ec2.amazonaws.com",
        "http://10.0.0.1:5000",
        "http://127.0.0.1.example.com",
        "http://localhost@evil.com",
    ],
)
def test_the_lab_stack_goes_nowhere_else(endpoint: str | None) -> None:
    assert problems(stack="lab", endpoint=endpoint) == [
        f"stack: lab would be deployed to {endpoint or 'AWS itself'}; "
        "deploy it with `drawbridge lab up`, or choose another stack for AWS"
    ]
    assert problems(stack="dev", endpoint=endpoint) == []


LOOP = "http://127.0.0.1:5000"


def test_a_vpc_found_out_later_is_held_against_the_rest() -> None:
    network = {"vpcId": "vpc-1", "subnetId": "subnet-1"}
    found = parse({"aws:region": "eu-west-1", "drawbridge:network": network}, stack="dev", endpoint=None)
    check_vpc_overlap(found, IPv4Network("172.31.0.0/16"))
    with pytest.raises(
        SettingsError, match=r"^drawbridge:tunnel\.pool: 10\.8\.0\.0/24 overlaps drawbridge:network\.vpcId "
    ):
        check_vpc_overlap(found, IPv4Network("10.8.0.0/16"))


def test_problems_are_values() -> None:
    error = SettingsError([Problem("a:b", "1", "is odd", "write 2")])
    assert error.problems == (Problem("a:b", "1", "is odd", "write 2"),)
    assert str(error) == "a:b: 1 is odd; write 2"


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_stack_files_are_right(path: Path) -> None:
    stack = path.name.split(".")[1]
    assert parse(read_stack_file(path), stack=stack, endpoint=LOOP)


def test_the_lab_stack_file_names_every_key() -> None:
    (path,) = (path for path in STACKS if path.name == "Pulumi.lab.yaml")
    text = path.read_text()
    for model in (Network, Gateway, Tunnel, Client, Lifetimes):
        for field in model.model_fields.values():
            assert f"{field.alias}:" in text or f"{field.alias} " in text, f"{model.__name__}.{field.alias}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("config: {a: [", "Pulumi.x.yaml: line 1 is no YAML; mend the syntax there"),
        ("a: 1", "Pulumi.x.yaml: it has no mapping `config`; start from stacks/Pulumi.lab.yaml"),
        ("", "Pulumi.x.yaml: it has no mapping `config`; start from stacks/Pulumi.lab.yaml"),
        ("config: [1]", "Pulumi.x.yaml: it has no mapping `config`; start from stacks/Pulumi.lab.yaml"),
    ],
)
def test_files_that_are_no_stack_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError) as refusal:
        read_stack_file(path)
    assert str(refusal.value) == message


def test_a_stack_file_is_read_as_it_is(tmp_path: Path) -> None:
    config = {"aws:region": "eu-west-1", "drawbridge:tunnel": {"port": 1195}}
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(yaml.safe_dump({"config": config}))
    assert read_stack_file(path) == config


@pytest.mark.seed("4.4")
@pytest.mark.parametrize(
    "name", ["Home", "DEFAULT", "home lan", "../home", "a/b", ".home", "-home", "", "h" * 64, "hömé"]
)
def test_a_ccd_name_that_is_no_common_name_is_refused(name: str) -> None:
    """The file and the certificate both have the entry's name, so one that cannot be both is none."""
    (told,) = problems(clients=[{"name": name}])
    assert told.startswith("drawbridge:clients[0].name: ")


SITES = [{"name": "a", "lan": ["192.168.1.0/24"], "reachable": ["192.168.1.128/25"]}]


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"clients": [*SITES, {"name": "b", "lan": ["192.168.1.0/24"]}]}, ["clients[1].lan[0]"]),
        ({"clients": [*SITES, {"name": "b", "lan": ["192.168.0.0/16"]}]}, ["clients[1].lan[0]"]),
        ({"clients": SITES, "network": {"cidr": "192.168.0.0/16"}}, ["clients[0].lan[0]"]),
        ({"clients": SITES, "tunnel": {"pool": "192.168.1.0/24"}}, ["clients[0].lan[0]"]),
        ({"network": {"cidr": "10.1.0.0/16"}, "tunnel": {"pool": "10.1.2.0/24"}}, ["tunnel.pool"]),
        ({"clients": [{**SITES[0], "reachable": ["192.168.2.0/25"]}]}, ["clients[0].reachable[0]"]),
        ({"clients": [{**SITES[0], "reachable": ["192.168.0.0/16"]}]}, ["clients[0].reachable[0]"]),
        ({"clients": [{**SITES[0], "address": "10.9.0.1"}]}, ["clients[0].address"]),
        ({"clients": [{**SITES[0], "address": "10.8.0.1"}]}, ["clients[0].address"]),
        ({"clients": [{**SITES[0], "address": "10.8.0.255"}]}, ["clients[0].address"]),
    ],
)
def test_a_site_that_cannot_be_routed_is_refused(sections: dict[str, Any], keys: list[str]) -> None:
    assert [told.split(": ")[0] for told in problems(**sections)] == [f"drawbridge:{key}" for key in keys]
    # The control: the site itself is fine.
    assert problems(clients=SITES) == []


BRIDGED = {"device": "tap", "pool": "192.168.1.192/26", "clientToClient": True}
HOME: dict[str, Any] = {"name": "home", "lan": ["192.168.1.0/24"], "bridge": {}}


def home(**changed: Any) -> list[dict[str, Any]]:
    return [{**HOME, **changed}]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"clients": home(), "tunnel": {"pool": "10.8.0.0/24"}},
            "clients[0].bridge: home joins no LAN to a tunnel that routes; "
            "write drawbridge:tunnel.device: tap, or leave it out: `lan` alone is routed",
        ),
        (
            {"clients": home(system="windows")},
            "clients[0].system: windows cannot be a bridge: its kit is for Debian; write linux, or leave bridge out",
        ),
        (
            {"clients": home(address="192.168.1.200")},
            "clients[0].address: 192.168.1.200 is nobody's: a bridge's host has its LAN's address, "
            "and each host of the LAN its own; leave it out",
        ),
        (
            {"clients": home(mac="02:00:00:00:00:01")},
            "clients[0].mac: 02:00:00:00:00:01 is nobody's: a bridge's host has its LAN's address, "
            "and each host of the LAN its own; leave it out",
        ),
        (
            {"clients": home(lan=[])},
            "clients[0].lan: (missing) is not one range: that of the LAN which is bridged; write one, as "
            "[192.168.1.0/24]",
        ),
        (
            {"clients": home(lan=["192.168.1.0/24", "192.168.2.0/24"])},
            "clients[0].lan: 192.168.1.0/24, 192.168.2.0/24 is not one range: that of the LAN which is bridged; "
            "write one, as [192.168.1.0/24]",
        ),
        (
            {"clients": home(lan=["192.168.7.0/24"])},
            "tunnel.pool: 192.168.1.192/26 is no part of the LAN 192.168.7.0/24, which a bridge makes one network with "
            "the segment; write one whose addresses that LAN's router hands out to nobody, such as 192.168.7.192/26",
        ),
        (
            {"clients": home(), "tunnel": {**BRIDGED, "pool": "192.168.1.0/24"}},
            "tunnel.pool: 192.168.1.0/24 is no part of the LAN 192.168.1.0/24, which a bridge makes one network with "
            "the segment; write one whose addresses that LAN's router hands out to nobody, such as 192.168.1.192/26",
        ),
        (
            {"clients": home(), "tunnel": {**BRIDGED, "pool": "192.168.1.0/26"}},
            "tunnel.pool: 192.168.1.0/26 holds 192.168.1.1, the first address of the LAN 192.168.1.0/24, "
            "which is as a rule its router's; choose another part of it",
        ),
        (
            {"clients": [*home(), {**HOME, "name": "lab", "lan": ["192.168.1.0/25"]}]},
            "clients[1].bridge: lab is a second bridge beside clients[0]: in one LAN they make a loop, in two they mix "
            "them; keep one of them",
        ),
        (
            {"clients": home(), "network": {"cidr": "192.168.0.0/16"}},
            "clients[0].lan[0]: 192.168.1.0/24 overlaps drawbridge:network.cidr 192.168.0.0/16; "
            "choose a range clear of it",
        ),
        (
            {"clients": home(), "tunnel": {**BRIDGED, "redirect": "all"}},
            "tunnel.redirect: all needs a tunnel that routes; write none, or device: tun",
        ),
        (
            {"clients": home(bridge={"timeout": 5})},
            "clients[0].bridge.timeout: 5 cannot be used; write 10 or more",
        ),
        (
            {"clients": home(bridge={"nic": "eth0"})},
            "clients[0].bridge.nic: eth0 has an unknown key; known are gateway6, interface, tap, timeout",
        ),
        (
            {"clients": [{"name": "home", "lan": ["192.168.9.0/24"]}]},
            "clients[0].lan: 192.168.9.0/24 cannot be routed to on a segment; "
            "write bridge: {} beside it, device: tun, or leave it out",
        ),
    ],
)
def test_a_bridge_that_cannot_be_one_is_refused(sections: dict[str, Any], expected: str) -> None:
    assert D + expected in problems(**{"tunnel": BRIDGED, **sections})
    # The control: the bridge itself is fine, and so is its reachable part.
    assert problems(tunnel=BRIDGED, clients=home(reachable=["192.168.1.128/27"])) == []


@pytest.mark.seed("2.7")
@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ("fe80::254", "is link-local, of no interface; write fe80::254%br0"),
        ("fe80::254%eth0", "is on an interface that is a port of the bridge; write fe80::254%br0"),
        ("2001:db8::1%br0", "has an interface, and needs none; write 2001:db8::1"),
        ("ff02::2", "is no router's address; write one like fe80::254%br0, or leave it out"),
        ("::", "is no router's address; write one like fe80::254%br0, or leave it out"),
        ("192.168.1.1", "is no IPv6 address; write one like fe80::254%br0, or 2001:db8::1"),
        ("fe80::254%br0", None),
        ("2001:db8::1", None),
    ],
)
def test_a_router_that_says_not_where_it_is_is_refused(router: str, expected: str | None) -> None:
    wanted = [f"{D}clients[0].bridge.gateway6: {router} {expected}"] if expected else []
    assert problems(tunnel=BRIDGED, clients=home(bridge={"gateway6": router})) == wanted


@pytest.mark.parametrize("domain", ["internal", "a..b", "-a.b", "*.*", "a b.c", "A.b", "x.*"])
def test_a_domain_that_is_none_is_refused(domain: str) -> None:
    (told,) = problems(network={"domain": domain})
    assert told.startswith(f"drawbridge:network.domain: {domain} cannot be used; write one such as tenant.internal")
    assert problems(network={"domain": "*.ci.example.com"}) == []
