"""Describe what is wrong with a configuration: key, value, reason and remedy."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import get_args

from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from images import IMAGE_NAMES
from settings.model import Section

NAMESPACE = "drawbridge"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in the configuration: the key, its value, why the value is refused, and what to write instead."""

    key: str
    value: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value} {self.reason}; {self.remedy}"


class SettingsError(ValueError):
    """A configuration that cannot be deployed; `problems` holds every error in it, and str() has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Format:
    """A format that values of a key must have, and how to write one."""

    noun: str
    remedy: str


#: The formats that users would not guess from pydantic's errors, by key, which has its section where others use it too;
#: or by section, if all of its values have one format.
FORMATS = {
    "address": Format("IPv4 address", "use one such as 10.8.0.10"),
    "adminAt": Format("IPv4 address", "use one such as 203.0.113.7"),
    "at": Format("IPv4 address", "use one such as 203.0.113.7"),
    "address6": Format("IPv6 address", "use one such as ::10"),
    "gateway6": Format("IPv6 address", "use one such as fe80::254%br0 or 2001:db8::1"),
    "ipv6Prefix": Format("IPv6 range", "use one such as 2001:db8:1:2:3::/80"),
    "openTo": Format("IPv6 range", "use one such as 2001:db8::/32"),
    "name": Format("client name", "use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"),
    "csr": Format("file name", "use one such as requests/alice.csr"),
    "sshKey": Format(
        "public key",
        "use the one line of a public key of type ed25519, ecdsa or rsa, such as the content of ~/.ssh/id_ed25519.pub",
    ),
    "ipv6": Format("IPv6 setting", "use none, delegated, advertised, or a range such as 2001:db8:1:2:3::/80"),
    "system": Format(
        "system", "use linux (for routers see docs/systems/routers.md), networkmanager, windows, macos, android or ios"
    ),
    "mac": Format("unicast hardware address", "use one such as 02:00:5e:00:53:01"),
    "instanceType": Format("EC2 instance type", "use one such as t4g.nano"),
    "processes": Format("number of processes", "use auto, or 1 to 16"),
    "image": Format("image", f"use {', '.join(IMAGE_NAMES)} or the ID of an AMI (ami-…)"),
    "maintenanceWindow": Format(
        "maintenance window", "use one such as sun:03:00-sun:04:00, or 03:00-04:00 for every day, in UTC"
    ),
    "hostname": Format("public DNS name", "use one in lower case, such as vpn.example.com"),
    "hostedZoneId": Format("hosted zone ID", "use the one that `aws route53 list-hosted-zones` shows (Z…)"),
    "vpcId": Format("VPC ID", "use the ID of an existing VPC (vpc-…)"),
    "subnetId": Format("subnet ID", "use the ID of a public subnet of that VPC (subnet-…)"),
    "routeTableIds": Format("route table ID", "use the IDs of that VPC's route tables (rtb-…)"),
    "domain": Format("domain", "use one such as tenant.internal or *.ci.example.com"),
    "permissionsBoundary": Format(
        "ARN of a managed policy", "use one such as arn:aws:iam::123456789012:policy/drawbridge-boundary"
    ),
    "interface": Format("interface name", "use one such as eth0"),
    "lines": Format("interface name", "use one such as eth0"),
    "Secrets.key": Format("key", "use stack, aws/ssm, or the ARN of a KMS key (arn:aws:kms:…:key/…)"),
    "Secrets.users": Format("IAM user or role", "use its ARN, such as arn:aws:iam::123456789012:role/operator"),
    "email": Format("e-mail address", "use one such as operator@example.com"),
    "group": Format("multicast range", "use a part of 224.0.0.0/4 or ff00::/8"),
    "ports": Format("port range", "use the first and the last port, such as [7400, 7500]"),
    "keepalive": Format("pair of seconds", "use the interval of pings and a time of silence, such as [10, 120]"),
    "Rotations": Format("moment", "use one such as 2026-11-28T08:10:00Z"),
}

#: All other ranges.
RANGE = Format("IPv4 range", "use one such as 10.1.0.0/16")

#: An example of each list, by key.
LIST_EXAMPLES = {
    "adminFrom": "[203.0.113.7/32]",
    "allowFrom": "[203.0.113.7/32]",
    "lan": "[192.168.1.0/24]",
    "reachable": "[192.168.1.0/24]",
    "routes": "[192.168.1.0/24]",
    "openTo": '["2001:db8::/32"]',
    "lines": "[eth0, eth1]",
    "routeTableIds": "[rtb-0123456789abcdef0]",
    "users": "[arn:aws:iam::123456789012:role/operator]",
    "multicast": "[{group: 239.255.0.0/16}]",
    "ports": "[7400, 7500]",
    "keepalive": "[10, 120]",
    "clients": "[{name: alice}]",
}

#: An example of each section, by its class.
SECTION_EXAMPLES = {
    "Network": "{cidr: 10.1.0.0/16}",
    "Pair": "{cidr: 10.2.0.0/16}",
    "Gateway": "{instanceType: t4g.nano}",
    "Tunnel": "{port: 1194}",
    "Multicast": "{group: 239.255.0.0/16}",
    "Client": "{name: alice}",
    "Bridge": "{tap: persistent}",
    "Lifetimes": "{client: 365}",
    "Iam": "{users: none}",
    "Rotations": "{gateway: 2026-11-28T08:10:00Z}",
    "Secrets": "{key: stack}",
    "Alerts": "{email: operator@example.com}",
    "Log": "{retention: 90}",
}

#: An example of each key that has keys of its own.
MAPPING_EXAMPLES = dict.fromkeys(("clients", "renewals"), "{alice: 2026-11-28T08:10:00Z}")


def problem_at(key: str, value: object, reason: str, remedy: str) -> Problem:
    """Return a problem with a key of Drawbridge's."""
    return Problem(f"{NAMESPACE}:{key}", show(value), reason, remedy)


def not_a_list(key: str, value: object) -> Problem:
    """Return the problem with a value that must be a list."""
    field = key.rpartition(".")[2]
    return problem_at(key, value, "must be a list", f"write it in brackets, such as {LIST_EXAMPLES[field]}")


def explain(model: type[Section], key: str, value: object, details: ErrorDetails) -> Problem:
    """Return one of pydantic's errors in the words of a stack file.

    `value` is what the stack file has at `key`, and `model` the section that it should be.
    """
    path = key
    for part in details["loc"]:
        path += f"[{part}]" if isinstance(part, int) and not isinstance(value, Mapping) else f".{part}"
        value = _child(value, part)
    field = next((part for part in reversed(details["loc"]) if isinstance(part, str)), "")
    section = _section_at(model, details["loc"])
    by_key = FORMATS.get(f"{section.__name__}.{field}") or FORMATS.get(section.__name__) or FORMATS.get(field)
    expected = by_key or (RANGE if details["type"].startswith("ip_") else None)
    invalid = f"is not a valid {expected.noun if expected else 'value'}"
    match details["type"]:
        case "extra_forbidden" | "invalid_key":
            unknown = str(details["loc"][-1])
            remedy = suggest(unknown, map(to_camel, section.model_fields))
            return problem_at(path.removesuffix(f".{unknown}"), unknown, "is not a known key", remedy)
        case "no_prefix":
            remedy = f"add one, such as {_suggest_range(str(value), field)}"
            return problem_at(path, value, "has no prefix length", remedy)
        case "model_type":
            remedy = f"write them like {SECTION_EXAMPLES[section.__name__]}"
            return problem_at(path, value, "must be keys with values", remedy)
        case "dict_type":
            return problem_at(path, value, "must be keys with values", f"write them like {MAPPING_EXAMPLES[field]}")
        case _ if value is None:
            remedy = expected.remedy if expected else f"write a value, or leave {field} out"
            return problem_at(path, value, "is required", remedy)
        case "tuple_type":
            return not_a_list(path, value)
        case "ip_v4_network" | "ip_v6_network" | "value_error" as kind if network := _clear_host_bits(
            value, kind, field
        ):
            return problem_at(path, value, f"has bits set after its /{network.prefixlen} prefix", f"use {network}")
        case "greater_than_equal":
            return problem_at(path, value, "is too small", f"use {details['ctx']['ge']} or more")
        case "less_than_equal":
            return problem_at(path, value, "is too large", f"use {details['ctx']['le']} or less")
        case "literal_error":
            remedy = expected.remedy if expected else f"use {details['ctx']['expected']}".replace("'", "")
            return problem_at(path, value, invalid, remedy)
        case kind if kind.startswith("bool"):
            return problem_at(path, value, invalid, "use true or false")
        case kind if kind.startswith(("int", "finite")):
            return problem_at(path, value, "is not a whole number", "use digits only")
    return problem_at(path, value, invalid, expected.remedy if expected else "see docs/settings.md")


def _section_at(model: type[Section], location: tuple[str | int, ...]) -> type[Section]:
    """Return the innermost section on the way to an error's location."""
    for part in location:
        field = next((field for name, field in model.model_fields.items() if part in (name, to_camel(name))), None)
        kinds = get_args(field.annotation) if field else ()
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), model)
    return model


def _clear_host_bits(value: object, kind: str, field: str) -> IPv4Network | IPv6Network | None:
    """Return the range that an address with a prefix length lies in; None if that range is not valid here either."""
    try:
        network = ip_network(str(value), strict=False)
    except ValueError:
        return None
    match kind:
        case "ip_v4_network":
            valid = network.version == 4
        case "ip_v6_network":
            valid = network.version == 6
        case _:
            valid = network.is_multicast if field == "group" else network.version == 6
    return network if valid else None


def _suggest_range(address: str, field: str) -> str:
    """Return the range that an address without a prefix length was probably meant for.

    >>> _suggest_range("10.0.0.0", "cidr"), _suggest_range("10.9.0.0", "pool"), _suggest_range("10.9.0.0", "routes")
    ('10.0.0.0/16', '10.9.0.0/24', '10.9.0.0/16')
    """
    zeros = 0
    for byte in reversed(address.split(".")):
        if byte != "0":
            break
        zeros += 8
    length = {"cidr": 16, "pool": 24}.get(field, 32 - zeros)
    return str(ip_network(f"{address}/{length}", strict=False))


def _child(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list | tuple) and isinstance(part, int):
        return value[part] if part < len(value) else None
    return value


#: Characters of a value that a message shows at most: a text pasted by mistake must not hide what is wrong.
_SHOWN = 400


def show(value: object) -> str:
    """Return a value on one line as a stack file spells it, cut if it is long, but never a private key."""
    text = _spell(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _spell(value: object) -> str:
    match value:
        case None:
            return "(missing)"
        case bool():
            return "true" if value else "false"
        case Section():
            return _spell(value.model_dump(by_alias=True, exclude_unset=True))
        case Mapping():
            return "{" + _join(f"{_spell(key)}: {_spell(entry)}" for key, entry in value.items()) + "}"
        case list() | tuple():
            return "[" + _join(map(_spell, value)) + "]"
    if "PRIVATE KEY" in str(value):
        return "(a private key)"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value))


def _join(parts: Iterable[str]) -> str:
    """Return the first parts of a list; the rest is not read, since references can make it huge."""
    text = ""
    for part in parts:
        text += f", {part}" if text else part
        if len(text) > _SHOWN - 3:
            return f"{text[: _SHOWN - 3]}…"
    return text


def suggest(word: str, keys: Iterable[str]) -> str:
    """Return a remedy for an unknown key: the known key that is most like it, or all of them."""
    names = sorted(keys)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known keys are {', '.join(names)}"
