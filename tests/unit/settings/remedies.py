"""List remedies of the settings' errors: a wrong stack file, what the error says to write, and the file with that.

An error whose remedy names several ways has a row for each. `test_remedies.py` fails on an error without a row.
"""

from typing import Any

from tests.support.refusals import BONDED

BRIDGE: dict[str, Any] = {"name": "home", "lan": ["192.168.1.0/24"], "bridge": {}}
SEGMENT: dict[str, Any] = {"device": "tap"}
USER = "arn:aws:iam::123456789012:role/operator"
EXISTING = {"vpcId": "vpc-1", "subnetId": "subnet-1"}
TABLE = "rtb-0123456789abcdef0"
ROUTED_VPC = {**EXISTING, "routeTableIds": [TABLE]}
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl operator"
KEY = "arn:aws:kms:{}:123456789012:key/1"
MOMENT = "2026-11-28T08:10:00Z"
#: Ranges of which no two make a larger one.
SEPARATE = [f"198.18.{number}.0/24" for number in range(0, 100, 2)]
#: A domain that has no room for `gateway.dev.`, by three characters.
LONG_DOMAIN = ".".join(["d" * 63] * 4)[-(253 - len("gateway.dev.") + 3) :]
#: A prefix, and a tunnel with all of it.
PREFIXED = {"gateway": {"ipv6Prefix": "2001:db8:0:0:9::/80"}, "tunnel": {"ipv6": "2001:db8:0:0:9::/80"}}
#: A bridge on a segment.
BRIDGED: dict[str, Any] = {"tunnel": {**SEGMENT, "pool": "192.168.1.192/26"}, "clients": [BRIDGE]}


def client(**keys: Any) -> dict[str, Any]:
    return {"clients": [{"name": "a", **keys}]}


def tunnel(*bases: dict[str, Any], **keys: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for base in bases:
        merged |= base
    return {"tunnel": {**merged, **keys}}


def bonded_client(**keys: Any) -> dict[str, Any]:
    return {**tunnel(BONDED), **client(**keys)}


def bridge(**keys: Any) -> dict[str, Any]:
    return {**BRIDGED, "clients": [{**BRIDGE, "bridge": keys}]}


#: (sections of a stack file, a part of the remedy, the sections with that remedy applied)
REMEDIES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    # Signing requests
    (client(csr=""), "use one such as requests/alice.csr", client(csr="requests/alice.csr")),
    (client(csr="a.csr", lan=["192.168.50.0/24"]), "leave it out", client(lan=["192.168.50.0/24"])),
    # The stack, its region and its keys
    ({"stack": "Dev"}, "use 1 to 20 of a-z, 0-9 and '-', starting with a letter", {"stack": "d" * 20}),
    ({"stack": "lab"}, "choose another stack for AWS", {"stack": "dev"}),
    ({"stack": "lab"}, "`drawbridge lab up`", {"stack": "lab", "endpoint": "http://127.0.0.1:5000"}),
    ({"region": "ireland"}, "aws:region eu-west-1", {"region": "eu-west-1"}),
    ({"region": "frankfurt"}, "aws:region eu-central-1", {"region": "eu-central-1"}),
    ({"netwrok": {}}, "did you mean network?", {"network": {}}),
    ({"x": {}}, "known keys are alerts, clients, gateway,", {"iam": {}}),
    ({"Drawbridge:tunnel": {}}, "did you mean drawbridge:tunnel?", {"tunnel": {}}),
    ({"other:x": {}}, "known ones are aws, drawbridge, pulumi", {"pulumi:x": {}}),
    ({"network": {"cdir": "10.1.0.0/16"}}, "did you mean cidr?", {"network": {"cidr": "10.1.0.0/16"}}),
    ({"drawbridge": {"tunnel": {}}}, "such as `drawbridge:tunnel: {…}`", {"tunnel": {}}),
    ({"network": {"cidr": "10.1.0.0"}}, "add one, such as 10.1.0.0/16", {"network": {"cidr": "10.1.0.0/16"}}),
    ({"lifetimes": {"x": 1}}, "known keys are ca, client, renewal, server", {"lifetimes": {"ca": 3650}}),
    # The gateway's name
    (
        {"gateway": {"hostname": "VPN.example.com"}},
        "use one in lower case, such as vpn.example.com",
        {"gateway": {"hostname": "vpn.example.com"}},
    ),
    (
        {"gateway": {"hostname": "vpn.example.com", "hostedZoneId": "example.com"}},
        "use the one that `aws route53 list-hosted-zones` shows (Z…)",
        {"gateway": {"hostname": "vpn.example.com", "hostedZoneId": "Z0123456789ABCDEFGHIJ"}},
    ),
    (
        {"gateway": {"hostedZoneId": "Z0123456789ABCDEFGHIJ"}},
        "add hostname, the name of the record",
        {"gateway": {"hostname": "vpn.example.com", "hostedZoneId": "Z0123456789ABCDEFGHIJ"}},
    ),
    ({"gateway": {"hostedZoneId": "Z0123456789ABCDEFGHIJ"}}, "or leave hostedZoneId out", {"gateway": {}}),
    (
        {"gateway": {"hostname": "vpn.example.com"}, "pair": {}},
        "leave it out, and hostedZoneId too",
        {"gateway": {}, "pair": {}},
    ),
    # The gateway's maintenance window
    (
        {"gateway": {"maintenanceWindow": "sunday 3"}},
        "use one such as sun:03:00-sun:04:00",
        {"gateway": {"maintenanceWindow": "sun:03:00-sun:04:00"}},
    ),
    (
        {"gateway": {"maintenanceWindow": "sunday 3"}},
        "03:00-04:00 for every day",
        {"gateway": {"maintenanceWindow": "03:00-04:00"}},
    ),
    (
        {"gateway": {"maintenanceWindow": "03:00-03:10"}},
        "use 30 minutes or more",
        {"gateway": {"maintenanceWindow": "03:00-03:30"}},
    ),
    (
        {"gateway": {"maintenanceWindow": "03:00-03:30"}, "pair": {}},
        "use 60 minutes or more",
        {"gateway": {"maintenanceWindow": "03:00-04:00"}, "pair": {}},
    ),
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
    ({"network": {"zones": None}}, "write a value", {"network": {"zones": 1}}),
    ({"network": {"zones": "two"}}, "use digits only", {"network": {"zones": 2}}),
    ({"network": {**EXISTING, "vpcId": "x"}}, "the ID of an existing VPC (vpc-…)", {"network": EXISTING}),
    ({"network": {**EXISTING, "vpcId": None}}, "the ID of an existing VPC (vpc-…)", {"network": EXISTING}),
    ({"network": {"vpcId": "vpc-1"}}, "the ID of a public subnet of that VPC (subnet-…)", {"network": EXISTING}),
    ({"network": {"routeTableIds": [TABLE]}}, "leave it out", {"network": {}}),
    ({"network": {"routeTableIds": [TABLE]}}, "add vpcId and subnetId", {"network": ROUTED_VPC}),
    ({"network": {**EXISTING, "routeTableIds": TABLE}}, f"[{TABLE}]", {"network": ROUTED_VPC}),
    (
        {"network": {**EXISTING, "routeTableIds": ["x"]}},
        "the IDs of that VPC's route tables (rtb-…)",
        {"network": ROUTED_VPC},
    ),
    (
        {"network": EXISTING, **tunnel(nat=False)},
        "the IDs of the route tables that need routes to the clients (rtb-…)",
        {"network": ROUTED_VPC, **tunnel(nat=False)},
    ),
    ({"network": {"cidr": "10.8.0.0/16"}}, "a range that does not overlap it", {"network": {"cidr": "10.9.0.0/16"}}),
    *(
        ({"network": {"cidr": cidr}}, "use another range", {"network": {"cidr": "10.1.0.0/16"}})
        for cidr in ("169.254.0.0/16", "127.0.0.0/16", "0.0.0.0/16", "224.0.0.0/16", "240.0.0.0/16")
    ),
    (tunnel(pool="127.8.0.0/24"), "use another range", tunnel(pool="10.8.0.0/24")),
    (client(lan=["239.1.0.0/24"]), "use another range", client(lan=["192.168.1.0/24"])),
    (
        {"network": {"domain": f"*.{LONG_DOMAIN}"}},
        "use a domain that is 3 characters shorter",
        {"network": {"domain": f"*.{LONG_DOMAIN[3:]}"}},
    ),
    # Default tags
    (
        {"default_tags": "Team"},
        "write them like {tags: {Team: network}}",
        {"default_tags": {"tags": {"Team": "network"}}},
    ),
    (
        {"default_tags": {"tags": {"aws:Team": "a"}}},
        "does not start with aws:",
        {"default_tags": {"tags": {"Team": "a"}}},
    ),
    ({"default_tags": {"tags": {"k" * 129: "a"}}}, "a key of 1 to 128", {"default_tags": {"tags": {"k" * 128: "a"}}}),
    ({"default_tags": {"tags": {"": "a"}}}, "a key of 1 to 128", {"default_tags": {"tags": {"k": "a"}}}),
    ({"default_tags": {"tags": {"k": "v" * 257}}}, "a value of 0 to 256", {"default_tags": {"tags": {"k": "v" * 256}}}),
    (
        {"default_tags": '{"tags": {"k": "a&b"}}'},
        "use letters, digits, spaces and _ . : / = + - @",
        {"default_tags": '{"tags": {"k": "_ .:/=+-@1\u00e4"}}'},
    ),
    (
        {"default_tags": {"tags": {f"k{number}": "v" for number in range(9)}}},
        "use at most 8",
        {"default_tags": {"tags": {f"k{number}": "v" for number in range(8)} | {"Stack": "other"}}},
    ),
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
    ({"gateway": {"adminFrom": ["0.0.0.0/0"]}}, "your own addresses", {"gateway": {"adminFrom": ["203.0.113.7/32"]}}),
    ({"gateway": {"allowFrom": []}}, "add a range", {"gateway": {"allowFrom": ["203.0.113.0/24"]}}),
    ({"gateway": {"allowFrom": []}}, "clients with `at`", {"gateway": {"allowFrom": []}, **client(at="203.0.113.7")}),
    (
        {"gateway": {"allowFrom": []}, **client()},
        "add a range",
        {"gateway": {"allowFrom": ["203.0.113.0/24"]}, **client()},
    ),
    (
        {"gateway": {"allowFrom": []}, **client()},
        "give each client `at`",
        {"gateway": {"allowFrom": []}, **client(at="203.0.113.7")},
    ),
    # A bonded host has several addresses, and without IAM users nobody updates a client's.
    *(
        ({"gateway": {"allowFrom": []}, **sections}, way, {"gateway": {"allowFrom": ["203.0.113.0/24"]}, **sections})
        for sections in (
            tunnel(BONDED),
            {**tunnel(BONDED), **client()},
            {"iam": {"users": "none"}},
            {"iam": {"users": "none"}, **client()},
        )
        for way in ("add a range",)
    ),
    ({"gateway": {"sshKey": "x"}}, "the one line of a public key", {"gateway": {"sshKey": PUBLIC_KEY}}),
    (
        {"gateway": {"sshKey": "ssh-ed25519 AAAAC3Nz"}},
        "the one line of a public key",
        {"gateway": {"sshKey": PUBLIC_KEY}},
    ),
    (
        {"gateway": {"instanceType": "mac1.metal"}},
        "use a type such as t4g.nano",
        {"gateway": {"instanceType": "t4g.nano"}},
    ),
    *(
        (
            {"gateway": {"instanceType": "t2.nano"}, "tunnel": {"ipv6": "delegated"}},
            "use a type such as t4g.nano or t3.nano",
            {"gateway": {"instanceType": instance_type}, "tunnel": {"ipv6": "delegated"}},
        )
        for instance_type in ("t4g.nano", "t3.nano")
    ),
    ({"gateway": {"adminAt": "10.0.0.1"}}, "use the public one", {"gateway": {"adminAt": "203.0.113.7"}}),
    (client(at="10.0.0.1"), "use the public one", client(at="203.0.113.7")),
    *(
        ({"gateway": {key: ["192.168.0.0/24"]}}, "use public addresses", {"gateway": {key: ["203.0.113.0/24"]}})
        for key in ("adminFrom", "allowFrom")
    ),
    (
        {"network": {"domain": "tenant.local"}},
        "use one such as tenant.internal",
        {"network": {"domain": "tenant.internal"}},
    ),
    ({"gateway": "x"}, "{instanceType: t4g.nano}", {"gateway": {"instanceType": "t4g.nano"}}),
    (
        {"gateway": {"instanceType": "c7g.large", "credits": "standard"}},
        "remove the key",
        {"gateway": {"instanceType": "c7g.large"}},
    ),
    (
        {"gateway": {"instanceType": "c7g.large", "credits": "standard"}},
        "use a type such as t4g.nano",
        {"gateway": {"instanceType": "t4g.nano", "credits": "standard"}},
    ),
    (
        {"gateway": {"allowFrom": SEPARATE}},
        "use at most 29, such as larger ones",
        {"gateway": {"allowFrom": SEPARATE[:29]}},
    ),
    ({"gateway": {"allowFrom": SEPARATE}}, "larger ones", {"gateway": {"allowFrom": ["198.18.0.0/15"]}}),
    ({"gateway": {"processes": 4}, **tunnel(port=65535)}, "65532", {"gateway": {"processes": 4}, **tunnel(port=65532)}),
    ({"gateway": {"processes": 2}, **tunnel(BONDED)}, "leave it out", tunnel(BONDED)),
    ({"gateway": {"processes": 2}, "pair": {}}, "leave it out", {"pair": {}}),
    ({"gateway": {"processes": 99}}, "use auto", {"gateway": {"processes": "auto"}}),
    ({"gateway": {"processes": 99}}, "1 to 16", {"gateway": {"processes": 16}}),
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
    (client(address="x"), "use one such as 10.8.0.10", client(address="10.8.0.10")),
    (
        {**tunnel(SEGMENT, pool="192.168.0.0/20"), "clients": [{"name": f"c{i}"} for i in range(4094)]},
        "use fewer clients",
        {**tunnel(SEGMENT, pool="192.168.0.0/20"), "clients": [{"name": f"c{i}"} for i in range(4093)]},
    ),
    ({"tunnel": "x"}, "{port: 1194}", tunnel(port=1194)),
    (tunnel(protocol="tcp", port=22), "use 443", tunnel(protocol="tcp", port=443)),
    (tunnel(port=53), "use 1194", tunnel(port=1194)),
    (tunnel(BONDED, port=67), "use 1194", tunnel(BONDED, port=1194)),
    (tunnel(BONDED, port=65535), "use 65534", tunnel(BONDED, port=65534)),
    (tunnel(routes="x"), "[192.168.1.0/24]", tunnel(routes=["192.168.1.0/24"])),
    # A segment
    (tunnel(broadcasts=9), "leave it out", tunnel()),
    (tunnel(multicasts=9), "tunnel.device: tap", tunnel(SEGMENT, multicasts=9)),
    (client(mac="02:00:5e:00:53:01"), "leave it out", client()),
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
    (client(system="router"), "use linux (for routers see docs/systems/routers.md)", client(system="linux")),
    ({**tunnel(SEGMENT), **client(system="android")}, "device: tun", client(system="android")),
    ({**tunnel(SEGMENT), **client(lan=["192.168.1.0/24"])}, "leave it out", {**tunnel(SEGMENT), **client()}),
    ({**tunnel(SEGMENT), **client(lan=["192.168.1.0/24"])}, "device: tun", client(lan=["192.168.1.0/24"])),
    ({**tunnel(BONDED), **client(lan=["192.168.1.0/24"])}, "leave it out", {**tunnel(BONDED), **client()}),
    (
        {**tunnel(SEGMENT), **client(mac="x")},
        "02:00:5e:00:53:01",
        {**tunnel(SEGMENT), **client(mac="02:00:5e:00:53:01")},
    ),
    (
        tunnel(SEGMENT, multicast=["x"]),
        "{group: 239.255.0.0/16}",
        tunnel(SEGMENT, multicast=[{"group": "239.255.0.0/16"}]),
    ),
    (
        tunnel(SEGMENT, multicast=[{"group": "239.0.0.0/8", "ports": 7400}]),
        "[7400, 7500]",
        tunnel(SEGMENT, multicast=[{"group": "239.0.0.0/8", "ports": [7400, 7500]}]),
    ),
    (
        tunnel(SEGMENT, multicast=[{"group": "239.0.0.0/8", "ports": [7400]}]),
        "the first and the last port, such as [7400, 7500]",
        tunnel(SEGMENT, multicast=[{"group": "239.0.0.0/8", "ports": [7400, 7500]}]),
    ),
    # Data channel offload
    (
        {**tunnel(dataChannelOffload=True), "gateway": {"image": "ours"}},
        "set drawbridge:gateway.image: ours-backports",
        {**tunnel(dataChannelOffload=True), "gateway": {"image": "ours-backports"}},
    ),
    (tunnel(SEGMENT, dataChannelOffload=True), "leave it out", tunnel(SEGMENT)),
    (
        {**tunnel(SEGMENT, dataChannelOffload=True), "gateway": {"image": "ours-backports"}},
        "use device: tun",
        {**tunnel(dataChannelOffload=True), "gateway": {"image": "ours-backports"}},
    ),
    ({"pair": {}, **tunnel(dataChannelOffload=True)}, "leave it out", {"pair": {}}),
    (
        {**tunnel(dataChannelOffload=True), "gateway": {"image": "ours-backports", "processes": 2}},
        "leave it out",
        {**tunnel(dataChannelOffload=True), "gateway": {"image": "ours-backports"}},
    ),
    # Pings
    (tunnel(keepalive=10), "[10, 120]", tunnel(keepalive=[10, 120])),
    (tunnel(keepalive=[10]), "the interval of pings and a time of silence", tunnel(keepalive=[10, 120])),
    (tunnel(keepalive=[10, 15]), "use [10, 20] or more", tunnel(keepalive=[10, 20])),
    (tunnel(BONDED, keepalive=[1, 5]), "leave it out", tunnel(BONDED)),
    (tunnel(BONDED, keepalive=[1, 5]), "use links: 1", tunnel(SEGMENT, keepalive=[1, 5])),
    ({**tunnel(SEGMENT), **client(system="android")}, "leave the client out", tunnel(SEGMENT)),
    ({**tunnel(BONDED), **client(system="android")}, "leave the client out", tunnel(BONDED)),
    (bonded_client(system="android"), "use linux", bonded_client(system="linux")),
    ({**tunnel(SEGMENT), **client(lan=["192.168.1.0/24"])}, "make the client a bridge", BRIDGED),
    (
        {**tunnel(SEGMENT), **client(system="windows")},
        "use the TAP adapter's address",
        {**tunnel(SEGMENT), **client(system="windows", mac="02-00-5E-00-53-01")},
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
    ({"clients": [BRIDGE]}, "tunnel.device: tap", BRIDGED),
    ({"clients": [BRIDGE]}, "leave it out to route to `lan`", client(lan=["192.168.1.0/24"])),
    (
        {**BRIDGED, "clients": [BRIDGE, {**BRIDGE, "name": "b", "lan": ["192.168.2.0/24"]}]},
        "keep one of them",
        BRIDGED,
    ),
    ({**tunnel(BONDED), "clients": [BRIDGE]}, "use links: 1", BRIDGED),
    ({**tunnel(BONDED), "clients": [BRIDGE]}, "leave it and lan out", {**tunnel(BONDED), **client()}),
    ({**BRIDGED, "clients": [{**BRIDGE, "system": "android"}]}, "use linux", BRIDGED),
    ({**BRIDGED, "clients": [{**BRIDGE, "system": "windows"}]}, "use linux", BRIDGED),
    (
        {**BRIDGED, "clients": [{**BRIDGE, "system": "windows"}]},
        "leave bridge and lan out",
        {**BRIDGED, **client(system="windows", mac="02:00:5e:00:53:01")},
    ),
    ({**BRIDGED, "clients": [{**BRIDGE, "mac": "02:00:5e:00:53:01"}]}, "leave it out", BRIDGED),
    ({**BRIDGED, "clients": [{"name": "home", "bridge": {}}]}, "use one, such as [192.168.1.0/24]", BRIDGED),
    ({**BRIDGED, "clients": [{**BRIDGE, "bridge": "x"}]}, "{tap: persistent}", bridge(tap="persistent")),
    (bridge(interface="x" * 16), "use one such as eth0", bridge(interface="eth0")),
    (bridge(gateway6="x"), "fe80::254%br0", bridge(gateway6="fe80::254%br0")),
    (bridge(gateway6="x"), "2001:db8::1", bridge(gateway6="2001:db8::1")),
    (bridge(gateway6="2001:db8::1%br0"), "use 2001:db8::1", bridge(gateway6="2001:db8::1")),
    (bridge(gateway6="::1"), "use one such as fe80::254%br0", bridge(gateway6="fe80::254%br0")),
    (bridge(gateway6="::1"), "leave it out", BRIDGED),
    (
        {**tunnel(SEGMENT, pool="192.168.1.0/29"), "clients": [{**BRIDGE, "lan": ["192.168.1.0/29"]}]},
        "use a prefix up to /28",
        {**tunnel(SEGMENT, pool="192.168.1.8/29"), "clients": [{**BRIDGE, "lan": ["192.168.1.0/28"]}]},
    ),
    # Two links
    (tunnel(bond="balance-alb"), "leave it out", tunnel()),
    (tunnel(bond="balance-alb"), "links: 2", tunnel(BONDED, bond="balance-alb")),
    (client(lines=["eth0", "eth1"]), "leave it out", client()),
    (client(lines=["eth0", "eth1"]), "tunnel.links: 2", {**tunnel(BONDED), **client(lines=["eth0", "eth1"])}),
    (bonded_client(lines=["eth0", "e" * 16]), "use one such as eth0", bonded_client(lines=["eth1", "eth0"])),
    (bonded_client(lines=["eth0"]), "use two", bonded_client(lines=["eth0", "eth1"])),
    (bonded_client(lines=["eth0"]), "leave it out", bonded_client()),
    (bonded_client(system="windows"), "use linux", bonded_client(system="linux")),
    (bonded_client(system="windows"), "leave the client out", tunnel(BONDED)),
    (bonded_client(mac="02:00:5e:00:53:01"), "leave it out", bonded_client()),
    (
        bonded_client(at="203.0.113.7"),
        "leave it out, and add all of them to drawbridge:gateway.allowFrom",
        {**bonded_client(), "gateway": {"allowFrom": ["203.0.113.7/32", "203.0.113.9/32"]}},
    ),
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
    (
        tunnel(ipv6="x"),
        "a range such as 2001:db8:1:2:3::/80",
        {"gateway": {"ipv6Prefix": "2001:db8:1:2:3::/80"}, **tunnel(ipv6="2001:db8:1:2:3::/80")},
    ),
    (tunnel(openTo=["x"]), "use one such as 2001:db8::/32", tunnel(openTo=["2001:db8::/32"], ipv6="delegated")),
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
    (tunnel(redirect="ipv6"), "leave it out", tunnel()),
    (client(address6="x"), "use one such as ::10", {**tunnel(ipv6="delegated"), **client(address6="::10")}),
    (
        {**tunnel(ipv6="delegated"), "clients": [{"name": name, "address6": "::10"} for name in "ab"]},
        "IPv6 addresses must be unique",
        {**tunnel(ipv6="delegated"), "clients": [{"name": name, "address6": f"::{name}"} for name in "ab"]},
    ),
    (
        {**tunnel(ipv6="delegated"), "gateway": {"ipv6Prefix": "2001:db8:0:0:9::/96"}},
        "use a /80",
        {**tunnel(ipv6="delegated"), "gateway": {"ipv6Prefix": "2001:db8:0:0:9::/80"}},
    ),
    (tunnel(ipv6="2001:db8:0:0:9::/80"), "add it", PREFIXED),
    ({**PREFIXED, **tunnel(ipv6="2001:db8:0:0:8::/80")}, "use a part of it", PREFIXED),
    ({**PREFIXED, **tunnel(ipv6="2001:db8:0:0:8::/80")}, "delegated", {**PREFIXED, **tunnel(ipv6="delegated")}),
    (
        {"network": EXISTING, **tunnel(SEGMENT, ipv6="advertised")},
        "use delegated",
        {"network": EXISTING, **tunnel(SEGMENT, ipv6="delegated")},
    ),
    (
        {"network": EXISTING, **tunnel(SEGMENT, ipv6="advertised")},
        "leave vpcId and subnetId out",
        tunnel(SEGMENT, ipv6="advertised"),
    ),
    ({**PREFIXED, **tunnel(SEGMENT, ipv6="advertised")}, "leave it out", tunnel(SEGMENT, ipv6="advertised")),
    (
        {**PREFIXED, **tunnel(SEGMENT, ipv6="advertised")},
        "ipv6: delegated",
        {**PREFIXED, **tunnel(SEGMENT, ipv6="delegated")},
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
    ({"pair": {}, **tunnel(links=1)}, "leave it out", {"pair": {}}),
    ({"pair": {}, **tunnel(device="tun")}, "leave it out", {"pair": {}}),
    ({"pair": {}, **client()}, "leave it out", {"pair": {}}),
    ({"pair": {}, "network": {"domain": "tenant.internal"}}, "leave it out", {"pair": {}}),
    ({"pair": {}, "gateway": {"allowFrom": ["203.0.113.7/32"]}}, "leave it out", {"pair": {}}),
    ({"pair": {}, "gateway": {"ipv6Prefix": "2001:db8:0:0:9::/80"}}, "leave it out", {"pair": {}}),
    ({"pair": {}, **tunnel(nat=True)}, "leave it out", {"pair": {}}),
    ({"pair": {}, **tunnel(port=65535)}, "use 65534", {"pair": {}, **tunnel(port=65534)}),
    ({"pair": EXISTING}, "the IDs of the route tables", {"pair": ROUTED_VPC}),
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
    ({"clients": ["x"]}, "{name: alice}", {"clients": [{"name": "alice"}]}),
    (client(name="-"), "use 1 to 63 of a-z, 0-9,", client(name="x" * 63)),
    (client(lan="x"), "[192.168.1.0/24]", client(lan=["192.168.1.0/24"])),
    *(
        (
            {"clients": [{"name": "a", **keys}, {"name": "b", **keys}]},
            way,
            {"clients": [{"name": "a", **keys}, {"name": "b"}]},
        )
        for keys, way in (
            ({"address": "10.8.0.9"}, "addresses must be unique"),
            ({"at": "203.0.113.7"}, "leave it out here"),
        )
    ),
    ({"clients": [{"name": "a"}, {"name": "a"}]}, "names must be unique", {"clients": [{"name": "a"}, {"name": "b"}]}),
    (
        {"gateway": {"allowFrom": []}, "clients": [{"name": name, "at": "203.0.113.7"} for name in "ab"]},
        "leave it out here, and add 203.0.113.7/32 to drawbridge:gateway.allowFrom",
        {
            "gateway": {"allowFrom": ["203.0.113.7/32"]},
            "clients": [{"name": "a", "at": "203.0.113.7"}, {"name": "b"}],
        },
    ),
    (client(at="x"), "use one such as 203.0.113.7", client(at="203.0.113.7")),
    (
        client(reachable=["192.168.1.0/24"], lan=["192.168.2.0/24"]),
        "use a part of lan",
        client(reachable=["192.168.2.128/25"], lan=["192.168.2.0/24"]),
    ),
    (
        client(reachable=["192.168.1.0/24"], lan=["192.168.2.0/24"]),
        "add it to lan",
        client(reachable=["192.168.1.0/24"], lan=["192.168.2.0/24", "192.168.1.0/24"]),
    ),
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
    (
        {"lifetimes": {"ca": 10, "server": 5, "client": 5}, **client(days=11)},
        "10 or less",
        {"lifetimes": {"ca": 10, "server": 5, "client": 5}, **client(days=10)},
    ),
    (client(days=0), "use 1 or more", client(days=1)),
    (client(days="x"), "use digits only", client(days=7)),
    ({"lifetimes": {"renewal": 0}}, "use 1 or more", {"lifetimes": {"renewal": 1}}),
    ({"lifetimes": "x"}, "{client: 365}", {"lifetimes": {"client": 365}}),
    # Rotations
    ({"rotations": "x"}, "{gateway: 2026-11-28T08:10:00Z}", {"rotations": {"gateway": MOMENT}}),
    ({"rotations": {"gateway": "x"}}, "use one such as 2026-11-28T08:10:00Z", {"rotations": {"gateway": MOMENT}}),
    (
        {"rotations": {"clients": "x"}, **client(name="alice")},
        "{alice: 2026-11-28T08:10:00Z}",
        {"rotations": {"clients": {"alice": MOMENT}}, **client(name="alice")},
    ),
    (
        {"rotations": {"clients": {"b": MOMENT}}, **client()},
        "use a name of drawbridge:clients",
        {"rotations": {"clients": {"a": MOMENT}}, **client()},
    ),
    ({"rotations": {"clients": {"b": MOMENT}}, **client()}, "leave it out", client()),
    (
        {"rotations": {"renewals": {"b": MOMENT}}, **client()},
        "use a name of drawbridge:clients",
        {"rotations": {"renewals": {"a": MOMENT}}, **client()},
    ),
    ({"rotations": {"renewals": {"b": MOMENT}}, **client()}, "leave it out", client()),
    # Secrets
    ({"secrets": {"key": "x"}}, "use stack", {"secrets": {"key": "stack"}}),
    ({"secrets": {"key": "x"}}, "aws/ssm", {"secrets": {"key": "aws/ssm"}}),
    (
        {"secrets": {"key": "x"}},
        "the ARN of a KMS key (arn:aws:kms:…:key/…)",
        {"secrets": {"key": KEY.format("eu-west-1")}},
    ),
    (
        {"secrets": {"key": KEY.format("us-east-1")}},
        "use a key in eu-west-1",
        {"secrets": {"key": KEY.format("eu-west-1")}},
    ),
    ({"secrets": {"key": KEY.format("us-east-1")}}, "key: stack", {"secrets": {"key": "stack"}}),
    ({"secrets": "x"}, "{key: stack}", {"secrets": {"key": "stack"}}),
    ({"alerts": {"email": "operator"}}, "operator@example.com", {"alerts": {"email": "operator@example.com"}}),
    ({"alerts": "x"}, "{email: operator@example.com}", {"alerts": {"email": "operator@example.com"}}),
    (
        {"gateway": {"metrics": "off"}, "alerts": {"email": "operator@example.com"}},
        "use basic",
        {"gateway": {"metrics": "basic"}, "alerts": {"email": "operator@example.com"}},
    ),
    (
        {"gateway": {"metrics": "off"}, "alerts": {"email": "operator@example.com"}},
        "or full",
        {"gateway": {"metrics": "full"}, "alerts": {"email": "operator@example.com"}},
    ),
    (
        {"gateway": {"metrics": "off"}, "alerts": {"email": "operator@example.com"}},
        "remove drawbridge:alerts",
        {"gateway": {"metrics": "off"}},
    ),
    ({"secrets": {"users": ["x"]}}, USER, {"secrets": {"users": [USER]}}),
    ({"secrets": {"users": USER}}, f"[{USER}]", {"secrets": {"users": [USER]}}),
    ({"secrets": {"key": "aws/ssm", "users": [USER]}}, "leave users out", {"secrets": {"key": "aws/ssm"}}),
    ({"secrets": {"users": [USER] * 700}}, "name a role that these users may assume", {"secrets": {"users": [USER]}}),
    (
        {"secrets": {"users": [USER] * 700}},
        "set secrets.key to a key whose policy you write",
        {"secrets": {"key": KEY.format("eu-west-1")}},
    ),
    (
        {"secrets": {"key": "aws/ssm", "users": [USER]}},
        "key: stack",
        {"secrets": {"key": "stack", "users": [USER]}},
    ),
    *(
        ({"secrets": {"key": "aws/ssm", "bundles": "s3"}}, remedy, {"secrets": secrets})
        for remedy, secrets in (
            ("use key: stack", {"bundles": "s3"}),
            ("bundles: ssm", {"key": "aws/ssm", "bundles": "ssm"}),
        )
    ),
    ({"secrets": {"bundles": "s3"}, "pair": {}}, "use bundles: ssm", {"secrets": {"bundles": "ssm"}, "pair": {}}),
    ({"secrets": {"bundles": "x"}}, "ssm or s3", {"secrets": {"bundles": "s3"}}),
    # Log
    ({"log": {"retention": 31}}, "use none, 1, 3, 5, 7, 14, 30, 60, 90", {"log": {"retention": 30}}),
    ({"log": {"retention": "x"}}, "use none", {"log": {"retention": "none"}}),
    ({"log": "x"}, "{retention: 90}", {"log": {"retention": 90}}),
]
