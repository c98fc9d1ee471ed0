"""The plan of a VPC as a pure function. Does not prove what Linux does with it: tests/lab sends the packets."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.network.plan import Plan, endpoint_address, link_name, plan_vpc
from lab.network.state import (
    AclEntry,
    GroupRule,
    Instance,
    Interface,
    Route,
    RouteTable,
    SecurityGroup,
    State,
    Subnet,
    Vpc,
)

VPC, SUBNET, GROUP = "vpc-0123456789abcdef0", "subnet-0123456789abcdef0", "sg-0123456789abcdef0"
CIDR, CIDR6 = IPv4Network("10.1.0.0/16"), IPv6Network("2001:db8:1::/56")
OPEN = tuple(AclEntry(100, egress, True, "-1", IPv4Network("0.0.0.0/0")) for egress in (True, False))


def interface(number: int, **changes: object) -> Interface:
    made = Interface(
        id=f"eni-{number:017x}",
        vpc=VPC,
        subnet=SUBNET,
        mac=f"02:00:00:00:00:{number:02x}",
        primary=IPv4Address("10.1.0.0") + number,
        addresses=(IPv4Address("10.1.0.0") + number,),
        addresses6=(IPv6Address("2001:db8:1::") + number,),
        prefixes=(),
        source_dest_check=True,
        groups=(GROUP,),
        public=(),
        instance=f"i-{number:017x}",
        index=0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields' names and types are the tests' own


def instance(number: int, state: str = "running") -> Instance:
    return Instance(f"i-{number:017x}", state, "t3.nano", "ami", "eu-west-1a", None, None, True, 1, True)


def state(*interfaces: Interface, states: tuple[str, ...] = (), **changes: object) -> State:
    table = RouteTable("rtb-1", VPC, True, (SUBNET,), False, (Route(CIDR, "local"), Route(CIDR6, "local")))
    made = State(
        vpcs={VPC: Vpc(VPC, (CIDR, CIDR6), "igw-1")},
        subnets={SUBNET: Subnet(SUBNET, VPC, IPv4Network("10.1.0.0/24"), (), OPEN)},
        interfaces={i.id: i for i in interfaces},
        instances={i.instance: instance(n, *states[n - 1 : n]) for n, i in enumerate(interfaces, 1) if i.instance},
        tables=(table,),
        groups={GROUP: SecurityGroup(GROUP, (), (GroupRule("-1", -1, -1, (IPv4Network("0.0.0.0/0"),)),))},
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # as above


def test_only_instances_that_are_on_are_linked() -> None:
    found = plan_vpc(state(interface(1), interface(2), interface(3), states=("running", "stopped", "stopping")), VPC)
    assert found.links == (interface(1).id, interface(3).id)


def test_equal_states_have_equal_plans() -> None:
    assert plan_vpc(state(interface(1), interface(2)), VPC) == plan_vpc(state(interface(2), interface(1)), VPC)


def test_local_is_a_throw_and_what_nobody_has_a_blackhole() -> None:
    routes = plan_vpc(state(interface(1)), VPC).routes
    assert "throw 10.1.0.0/16 table 1" in routes
    assert "blackhole 0.0.0.0/0 table 1" in routes
    assert "blackhole 10.1.0.0/16 table 1000" in routes
    assert f"10.1.0.1/32 dev {link_name(interface(1).id)} table 1000" in routes


def test_a_default_route_of_the_tables_own_is_no_blackhole() -> None:
    everything = IPv4Network("0.0.0.0/0")
    table = RouteTable("rtb-1", VPC, True, (SUBNET,), False, (Route(everything, "internet-gateway", "igw-1"),))
    routes = plan_vpc(state(interface(1), tables=(table,)), VPC).routes
    assert "0.0.0.0/0 via 192.0.2.1 dev igw0 onlink table 1" in routes
    assert "blackhole 0.0.0.0/0 table 1" not in routes


def test_prefixes_are_own_and_routed() -> None:
    prefix = IPv6Network("2001:db8:1:0:5::/80")
    found = plan_vpc(state(interface(1, prefixes=(prefix,))), VPC)
    assert f'"{link_name(interface(1).id)}" . {prefix}' in found.ruleset
    assert any(route.startswith(f"{prefix} via fe80::") for route in found.routes)


def test_public_addresses_are_published_where_there_is_a_gateway() -> None:
    pair = (IPv4Address("10.1.0.1"), IPv4Address("198.18.0.1"))
    online = state(interface(1, public=(pair,)))
    offline = replace(online, vpcs={VPC: Vpc(VPC, (CIDR, CIDR6), None)})
    assert (plan_vpc(online, VPC).public, plan_vpc(online, VPC).networks6) == ((pair[1],), (CIDR6,))
    assert (plan_vpc(offline, VPC).public, plan_vpc(offline, VPC).networks6) == ((), ())
    assert "dnat" not in plan_vpc(offline, VPC).ruleset


def test_an_egress_only_gateway_publishes_ipv6_alone() -> None:
    out = RouteTable("rtb-1", VPC, True, (SUBNET,), False, (Route(IPv6Network("::/0"), "egress-only", "eigw-1"),))
    found = plan_vpc(state(interface(1), tables=(out,), vpcs={VPC: Vpc(VPC, (CIDR, CIDR6), None)}), VPC)
    assert found.networks6 == (CIDR6,)
    assert 'iifname "igw0" ct state new counter drop' in found.ruleset


def test_a_plan_that_failed_half_way_is_done_whole() -> None:
    before, after = plan_vpc(state(interface(1)), VPC), plan_vpc(state(interface(1), interface(2)), VPC)
    mixed = before.mixed_with(after)
    assert mixed.ruleset == ""
    assert not set(mixed.routes) & set(after.routes)
    assert not set(mixed.rules) & set(after.rules)
    assert {text.strip() for text in mixed.rules} == {*before.rules, *after.rules}


def test_interfaces_keep_the_mark_bits_that_say_what_they_track() -> None:
    first = plan_vpc(state(interface(2), interface(3)), VPC)
    assert dict(first.mark_bits) == {interface(2).id: 0, interface(3).id: 1}
    second = plan_vpc(state(interface(1), interface(3)), VPC, first)
    assert dict(second.mark_bits) == {interface(1).id: 0, interface(3).id: 1}
    assert len(dict(plan_vpc(state(*(interface(n) for n in range(1, 40))), VPC, second).mark_bits)) == 39


def test_endpoints_have_an_address_a_vpc() -> None:
    assert endpoint_address(VPC) in IPv4Network("100.64.0.0/10")
    assert endpoint_address(VPC) == endpoint_address(VPC) != endpoint_address("vpc-2")


networks = st.builds(
    lambda address, length: ip_network((address, length), strict=False), st.ip_addresses(v=4), st.integers(0, 32)
)
rules = st.builds(
    lambda protocol, ports, peers: GroupRule(protocol, min(ports), max(ports), peers=tuple(peers)),
    st.sampled_from(["tcp", "udp", "-1", "47"]),
    st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    st.lists(networks, min_size=1, max_size=4),
)


@pytest.fixture(scope="module")
def accepts() -> Callable[[Plan], str]:
    """What nft(8) says against a plan's ruleset; nothing where it takes it."""

    def check(text: str) -> str:
        return subprocess.run(["nft", "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False).stderr

    if shutil.which("nft") is None:
        pytest.skip("nft(8) is not installed")
    if "not permitted" in check("table inet empty\n"):
        pytest.skip("nft(8) checks rules for root alone")

    def ask(found: Plan) -> str:
        return check(found.ruleset)

    return ask


@pytest.mark.allow_subprocess  # nft is who must understand it
@given(ingress=st.lists(rules, max_size=4), egress=st.lists(rules, max_size=4))
def test_whatever_the_rules_nft_understands_them(
    accepts: Callable[[Plan], str], ingress: list[GroupRule], egress: list[GroupRule]
) -> None:
    groups = {GROUP: SecurityGroup(GROUP, tuple(ingress), tuple(egress))}
    assert accepts(plan_vpc(state(interface(1), interface(2), groups=groups), VPC)) == ""
