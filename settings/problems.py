"""What is wrong with a configuration: key, value, reason and remedy."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import get_args

from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from settings.model import Section

NAMESPACE = "drawbridge"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the key, the value it has, why that cannot be, and what to do."""

    key: str
    value: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value} {self.reason}; {self.remedy}"


class SettingsError(ValueError):
    """A configuration that cannot be deployed; `problems` has all that is wrong with it, and str() is one line each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def problem_at(key: str, value: object, reason: str, remedy: str) -> Problem:
    return Problem(f"{NAMESPACE}:{key}", str(value), reason, remedy)


REMEDIES = {
    "name": "use 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
    "sshKey": "give the one line of a public key, such as the content of ~/.ssh/id_ed25519.pub",
    "ipv6": "write none, delegated, advertised, or a range like 2001:db8:1:2:3::/80",
    "mac": "write a unicast address like 02:00:5e:00:53:01",
    "instanceType": "write an EC2 instance type, such as t4g.nano",
    "image": "write debian-13 or the id of an AMI",
    "vpcId": "write the id of an existing VPC (vpc-…)",
    "domain": "write one such as tenant.internal or *.ci.example.com",
    "subnetId": "write the id of a public subnet of that VPC (subnet-…)",
    "routeTableIds": "write ids of that VPC's route tables (rtb-…)",
}


def explain(model: type[Section], key: str, value: object, details: ErrorDetails) -> Problem:
    """A finding of pydantic's in the words of a stack file."""
    path = f"{NAMESPACE}:{key}"
    for part in details["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        value = _child(value, part)
    shown = "(a private key)" if "PRIVATE KEY" in str(value) else show(value)
    field = str(details["loc"][0]) if details["loc"] else ""
    match details["type"]:
        case "extra_forbidden":
            known = _inside(model, details["loc"]).model_fields
            return Problem(path, shown, "has an unknown key", suggest(str(details["loc"][-1]), map(to_camel, known)))
        case "model_type":
            return Problem(path, shown, "is no mapping", "write {key: value, …}")
        case "ip_v4_network" if network := _widened(value):
            return Problem(path, shown, "has host bits set", f"write {network}")
        case "ip_v4_network":
            return Problem(path, shown, "is no IPv4 range", "write one like 10.1.0.0/16")
        case "ip_v4_address":
            return Problem(path, shown, "is no IPv4 address", "write one like 10.8.0.10")
        case "ip_v6_network":
            return Problem(path, shown, "is no IPv6 range", "write one like 2001:db8:1:2::/64, no host bits set")
        case "ip_v6_address":
            example = "fe80::254%br0, or 2001:db8::1" if "gateway6" in details["loc"] else "::10"
            return Problem(path, shown, "is no IPv6 address", f"write one like {example}")
    return Problem(path, shown, "cannot be used", REMEDIES.get(field) or _bound(details))


def _inside(model: type[Section], location: tuple[str | int, ...]) -> type[Section]:
    """The section that a finding's place is in: the model itself, or one that a key of it holds, or a list of them."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part)) or next(
            (one for name, one in model.model_fields.items() if to_camel(name) == part), None
        )
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((one for one in kinds if isinstance(one, type) and issubclass(one, Section)), model)
    return model


def _bound(details: ErrorDetails) -> str:
    """What a value may be, as a remedy."""
    context = details.get("ctx", {})
    match details["type"]:
        case "greater_than_equal":
            return f"write {context['ge']} or more"
        case "less_than_equal":
            return f"write {context['le']} or less"
        case "literal_error":
            return f"write {context['expected']}".replace("'", "")
        case "too_short":
            return "give at least one"
        case kind if kind.startswith("bool"):
            return "write true or false"
        case kind if kind.startswith("int"):
            return "write a whole number"
    return details["msg"].replace("Input should be", "write")


def _widened(value: object) -> IPv4Network | None:
    """The network that an address with a prefix length lies in."""
    try:
        return IPv4Network(str(value), strict=False) if "/" in str(value) else None
    except ValueError:
        return None


def _child(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return value


def show(value: object) -> str:
    return "(missing)" if value is None else str(value)


def suggest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
