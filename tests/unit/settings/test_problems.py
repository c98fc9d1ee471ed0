"""Refusals of values that are wrong by themselves, in their exact words; and how values are shown.

Does not prove that AWS takes the values that are not refused.
"""

import datetime
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from settings.model import Alerts, Client, Gateway, Lifetimes, Log, Network, Pair, Rotations, Secrets, Section, Tunnel
from settings.problems import Problem, SettingsError, show
from tests.support.refusals import BONDED, find_problems

KEY = "use the one line of a public key of type ed25519, ecdsa or rsa, such as the content of ~/.ssh/id_ed25519.pub"
NAME = "use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"network": {"cdir": 1}}, "network: cdir is not a known key; did you mean cidr?"),
        ({"gateway": {"admin_from": []}}, "gateway: admin_from is not a known key; did you mean adminFrom?"),
        ({"lifetimes": "long"}, "lifetimes: long must be keys with values; write them like {client: 365}"),
        ({"clients": ["alice"]}, "clients[0]: alice must be keys with values; write them like {name: alice}"),
        ({"clients": [{}]}, f"clients[0].name: (missing) is required; {NAME}"),
        ({"clients": [{"name": "Alice"}]}, f"clients[0].name: Alice is not a valid client name; {NAME}"),
        ({"clients": [{"name": "../x"}]}, f"clients[0].name: ../x is not a valid client name; {NAME}"),
        ({"clients": [{"name": "x" * 64}]}, f"clients[0].name: {'x' * 64} is not a valid client name; {NAME}"),
        (
            {"network": {"cidr": "10.1.2.3/16"}},
            "network.cidr: 10.1.2.3/16 has bits set after its /16 prefix; use 10.1.0.0/16",
        ),
        ({"network": {"cidr": "ten"}}, "network.cidr: ten is not a valid IPv4 range; use one such as 10.1.0.0/16"),
        (
            {"network": {"cidr": "10.1.0.0/8"}},
            "network.cidr: 10.1.0.0/8 has bits set after its /8 prefix; use 10.0.0.0/8",
        ),
        (
            {"network": {"cidr": "10.1.0.0"}},
            "network.cidr: 10.1.0.0 has no prefix length; add one, such as 10.1.0.0/16",
        ),
        (
            {"network": {"cidr": "10.0.0.0"}},
            "network.cidr: 10.0.0.0 has no prefix length; add one, such as 10.0.0.0/16",
        ),
        (
            {"network": {"cidr": "10.1.0.7"}},
            "network.cidr: 10.1.0.7 has no prefix length; add one, such as 10.1.0.0/16",
        ),
        (
            {"pair": {"cidr": "10.2.0.0"}},
            "pair.cidr: 10.2.0.0 has no prefix length; add one, such as 10.2.0.0/16",
        ),
        (
            {"tunnel": {"pool": "10.9.0.0"}},
            "tunnel.pool: 10.9.0.0 has no prefix length; add one, such as 10.9.0.0/24",
        ),
        (
            {"clients": [{"name": "a", "lan": ["192.168.178.0"]}]},
            "clients[0].lan[0]: 192.168.178.0 has no prefix length; add one, such as 192.168.178.0/24",
        ),
        (
            {"tunnel": {"routes": ["172.20.0.0"]}},
            "tunnel.routes[0]: 172.20.0.0 has no prefix length; add one, such as 172.20.0.0/16",
        ),
        (
            {"gateway": {"allowFrom": ["0.0.0.0"]}},
            "gateway.allowFrom[0]: 0.0.0.0 has no prefix length; add one, such as 0.0.0.0/0",
        ),
        ({"network": {"privatePrefix": 16}}, "network.privatePrefix: 16 is too small; use 17 or more"),
        ({"network": {"privatePrefix": 25}}, "network.privatePrefix: 25 is too large; use 24 or less"),
        ({"network": {"zones": 0}}, "network.zones: 0 is too small; use 1 or more"),
        ({"network": {"zones": 4}}, "network.zones: 4 is too large; use 3 or less"),
        ({"network": {"zones": "two"}}, "network.zones: two is not a whole number; use digits only"),
        (
            {"network": {"vpcId": "x", "subnetId": "subnet-1"}},
            "network.vpcId: x is not a valid VPC ID; use the ID of an existing VPC (vpc-…)",
        ),
        (
            {"gateway": {"instanceType": "big"}},
            "gateway.instanceType: big is not a valid EC2 instance type; use one such as t4g.nano",
        ),
        (
            {"gateway": {"image": "debian-9"}},
            "gateway.image: debian-9 is not a valid image; "
            "use debian-13, ours, ours-backports or the ID of an AMI (ami-…)",
        ),
        ({"gateway": {"diskSize": 7}}, "gateway.diskSize: 7 is too small; use 8 or more"),
        ({"gateway": {"sshKey": "hello"}}, f"gateway.sshKey: hello is not a valid public key; {KEY}"),
        (
            {"gateway": {"sshKey": "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n"}},
            f"gateway.sshKey: (a private key) is not a valid public key; {KEY}",
        ),
        ({"tunnel": {"device": "tab"}}, "tunnel.device: tab is not a valid value; use tun or tap"),
        (
            {"tunnel": {"device": "tap"}, "clients": [{"name": "a", "mac": "03:00:5e:00:53:01"}]},
            "clients[0].mac: 03:00:5e:00:53:01 is not a valid unicast hardware address; use one such as "
            "02:00:5e:00:53:01",
        ),
        (
            {"tunnel": {"ipv6": "yes"}},
            "tunnel.ipv6: yes is not a valid IPv6 setting; use none, delegated, advertised, or a range such as "
            "2001:db8:1:2:3::/80",
        ),
        ({"tunnel": {"port": 0}}, "tunnel.port: 0 is too small; use 1 or more"),
        ({"tunnel": {"protocol": "sctp"}}, "tunnel.protocol: sctp is not a valid value; use udp or tcp"),
        ({"tunnel": {"port": 65536}}, "tunnel.port: 65536 is too large; use 65535 or less"),
        ({"tunnel": {"nat": "maybe"}}, "tunnel.nat: maybe is not a valid value; use true or false"),
        ({"tunnel": {"redirect": "some"}}, "tunnel.redirect: some is not a valid value; use none, ipv6 or all"),
        (
            {"clients": [{"name": "a", "address": "x"}]},
            "clients[0].address: x is not a valid IPv4 address; use one such as 10.8.0.10",
        ),
        ({"tunnel": {**BONDED, "links": 3}}, "tunnel.links: 3 is not a valid value; use 1 or 2"),
        ({"lifetimes": {"client": 0}}, "lifetimes.client: 0 is too small; use 1 or more"),
    ],
)
def test_refused_values(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"gateway": {"adminFrom": "203.0.113.7/32"}},
            "gateway.adminFrom: 203.0.113.7/32 must be a list; write it in brackets, such as [203.0.113.7/32]",
        ),
        (
            {"gateway": {"adminFrom": "203.0.113.7/32,198.51.100.0/24"}},
            "gateway.adminFrom: 203.0.113.7/32,198.51.100.0/24 must be a list; "
            "write it in brackets, such as [203.0.113.7/32]",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": {"group": "239.0.0.0/8"}}},
            "tunnel.multicast: {group: 239.0.0.0/8} must be a list; "
            "write it in brackets, such as [{group: 239.255.0.0/16}]",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "ten"}]}},
            "tunnel.multicast[0].group: ten is not a valid multicast range; use a part of 224.0.0.0/4 or ff00::/8",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "239.0.0.0/8", "ports": [7400]}]}},
            "tunnel.multicast[0].ports[1]: (missing) is required; "
            "use the first and the last port, such as [7400, 7500]",
        ),
        (
            {"tunnel": {"openTo": ["2001:db8::1/64"]}},
            "tunnel.openTo[0]: 2001:db8::1/64 has bits set after its /64 prefix; use 2001:db8::/64",
        ),
        (
            {"tunnel": {"openTo": ["192.168.1.1/24"]}},
            "tunnel.openTo[0]: 192.168.1.1/24 is not a valid IPv6 range; use one such as 2001:db8::/32",
        ),
        (
            {"gateway": {"allowFrom": ["::/0"]}},
            "gateway.allowFrom[0]: ::/0 is not a valid IPv4 range; use one such as 10.1.0.0/16",
        ),
        (
            {"tunnel": {"ipv6": "192.168.1.1/24"}},
            "tunnel.ipv6: 192.168.1.1/24 is not a valid IPv6 setting; "
            "use none, delegated, advertised, or a range such as 2001:db8:1:2:3::/80",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "239.1.2.3/16"}]}},
            "tunnel.multicast[0].group: 239.1.2.3/16 has bits set after its /16 prefix; use 239.1.0.0/16",
        ),
        (
            {"tunnel": {"device": "tap", "multicast": [{"group": "10.1.2.3/8"}]}},
            "tunnel.multicast[0].group: 10.1.2.3/8 is not a valid multicast range; "
            "use a part of 224.0.0.0/4 or ff00::/8",
        ),
        ({"network": {"zones": None}}, "network.zones: (missing) is required; write a value, or leave zones out"),
        ({"network": {"zones": 1.5}}, "network.zones: 1.5 is not a whole number; use digits only"),
        (
            {"clients": [{"name": "a", "bridge": True}]},
            "clients[0].bridge: true must be keys with values; write them like {tap: persistent}",
        ),
        (
            {"clients": [{"name": "a", 1: 2}]},
            "clients[0]: 1 is not a known key; known keys are address, address6, at, bridge, csr, days, lan, lines, "
            "mac, name, reachable, system",
        ),
    ],
)
def test_values_of_the_wrong_kind(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]


def keys_of(model: type[Section]) -> Iterator[tuple[str, type[Section] | None]]:
    """Yield the keys of a section, each with the section that it holds, if it holds one."""
    for name, field in model.model_fields.items():
        kinds = [kind for kind in get_args(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        yield field.alias or name, kinds[0] if kinds else None


ODD_VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    10**9,
    1.5,
    float("inf"),
    "?!",
    "a,b",
    [],
    ["?!"],
    [None],
    {},
    {"a": 1},
    datetime.date.min,
)

#: Words of Python, pydantic and PyYAML that mean nothing to somebody who writes a stack file.
FOREIGN = re.compile(
    r"\b(tuple|dict\w*|str|string|boolean|bool|int|integer|None|True|False|[Ii]nput|lax|parse|"
    r"parts|octets|validator|datetime|inf|nan)\b|lambda|[A-Z]\w+Error|__|[<>]"
)


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("network", Network),
        ("gateway", Gateway),
        ("pair", Pair),
        ("tunnel", Tunnel),
        ("lifetimes", Lifetimes),
        ("rotations", Rotations),
        ("secrets", Secrets),
        ("alerts", Alerts),
        ("log", Log),
        ("clients", Client),
    ],
)
def test_no_word_of_the_libraries_reaches_a_user(section: str, model: type[Section], value: object) -> None:
    for key, nested in keys_of(model):
        values = [value, *([{inner: value} for inner, _ in keys_of(nested)] if nested else [])]
        for entry in [*values, *([value] for value in values)]:
            content = {key: entry}
            sections: dict[str, Any] = {section: [{"name": "a"} | content] if section == "clients" else content}
            for line in find_problems(**sections):
                assert line.isprintable()
                assert not FOREIGN.search(line.replace(show(entry), "").replace(show(value), "")), line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "(missing)"),
        (True, "true"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mhömé", "\\x1b[31mhömé"),
        ({"a": [1, False]}, "{a: [1, false]}"),
        ({"a": ["-----BEGIN PRIVATE KEY-----"]}, "{a: [(a private key)]}"),
    ],
)
def test_values_are_shown_as_a_stack_file_spells_them(value: object, shown: str) -> None:
    assert show(value) == shown


def test_a_private_key_is_not_shown_whatever_its_key() -> None:
    (line,) = find_problems(sshKey="-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n")
    assert "c2VjcmV0" not in line


def test_a_name_ends_where_its_line_does() -> None:
    assert find_problems(clients=[{"name": "a\n"}])


@pytest.mark.seed("4.4")
@pytest.mark.parametrize(
    "name", ["Home", "DEFAULT", "home lan", "../home", "a/b", ".home", "-home", "", "h" * 64, "hömé"]
)
def test_a_ccd_name_that_is_no_common_name_is_refused(name: str) -> None:
    """The file and the certificate have the same name, so a name must be valid for both."""
    (line,) = find_problems(clients=[{"name": name}])
    assert line.startswith("drawbridge:clients[0].name: ")


@pytest.mark.parametrize("domain", ["internal", "a..b", "-a.b", "*.*", "a b.c", "A.b", "x.*"])
def test_refused_domains(domain: str) -> None:
    (line,) = find_problems(network={"domain": domain})
    assert line.startswith(
        f"drawbridge:network.domain: {domain} is not a valid domain; use one such as tenant.internal"
    )
    assert find_problems(network={"domain": "*.ci.example.com"}) == []


def test_problems_are_values() -> None:
    error = SettingsError([Problem("a:b", "1", "is odd", "write 2")])
    assert error.problems == (Problem("a:b", "1", "is odd", "write 2"),)
    assert str(error) == "a:b: 1 is odd; write 2"


@pytest.mark.parametrize("value", ["x" * 100_000, ["x" * 1_000] * 100, {"a": ["x"] * 100_000}])
def test_a_long_value_is_cut(value: object) -> None:
    assert len(show(value)) < 450
    assert show(value).endswith((" characters)", "…]", "…}"))
    assert show("x" * 400) == "x" * 400


def test_a_value_that_shares_its_parts_is_not_spelled_whole() -> None:
    value: list[object] = ["x"]
    for _ in range(30):
        value = [value] * 10
    assert len(show(value)) < 450
