"""Refuse EC2 parameters that cannot become a packet rule: ranges, addresses, ports, protocols, references.

moto stores most of what it gets. A wrong range or a port of 70000 would be noticed only when the rules are made of it,
and one such rule would hold up all others; so each call is checked before moto sees it.

Sources: Amazon EC2 API Reference, "IpPermission", "CreateNetworkAclEntry", "CreateRoute", "Error codes for the Amazon
EC2 API".
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping

from lab.api.errors import ApiError

_RANGES = {
    "CidrIp": 4,
    "CidrIpv4": 4,
    "CidrBlock": 4,
    "DestinationCidrBlock": 4,
    "CidrIpv6": 6,
    "Ipv6CidrBlock": 6,
    "DestinationIpv6CidrBlock": 6,
    "Ipv4Prefix": 4,
    "Ipv6Prefix": 6,
    "Cidr": 0,
}
_ADDRESSES = {"PrivateIpAddress": 4, "Ipv6Address": 6}
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "-1": -1, "all": -1}
#: References whose target moto does not look up: the id's prefix, and the error where the target does not exist.
_REFERENCES = {
    "sg-": "InvalidGroup.NotFound",
    "pl-": "InvalidPrefixListID.NotFound",
}


def check_packet_parameters(action: str, parameters: Mapping[str, object], exists: Callable[[str], bool]) -> None:
    """Check the parameters of an EC2 call, under the query protocol's names.

    Args:
        action: without its service: ``CreateRoute``.
        exists: returns whether there is a security group or prefix list of an id.

    Raises:
        ApiError: EC2 refuses the parameter.
    """
    if action.startswith("Describe"):
        return
    for name, value in parameters.items():
        key = re.sub(r"\.\d+$", "", name).rsplit(".", 1)[-1]
        if not name.startswith("Filter"):
            _check_value(name, key, str(value), exists)
    for prefix, rule in _parse_rules(action, parameters):
        _check_rule(prefix, rule)


def _check_value(name: str, key: str, value: str, exists: Callable[[str], bool]) -> None:
    if key in _RANGES:
        family = _RANGES[key] or (6 if ":" in value else 4)
        if not _is_range_or_address(value, family, network=True):
            raise _refuse_value(value, name, "CIDR block")
    elif key in _ADDRESSES and not _is_range_or_address(value, _ADDRESSES[key], network=False):
        raise _refuse_value(value, name, "address")
    elif key in ("GroupId", "SecurityGroupId", "PrefixListId", "DestinationPrefixListId", "ReferencedGroupId"):
        for start, code in _REFERENCES.items():
            if value.startswith(start) and not exists(value):
                raise ApiError(code, f"The ID '{value}' does not exist")


def _is_range_or_address(text: str, family: int, *, network: bool) -> bool:
    try:
        parsed = ipaddress.ip_network(text, strict=False) if network else ipaddress.ip_address(text)
    except ValueError:
        return False
    return parsed.version == family and (not network or "/" in text)


def _parse_rules(action: str, parameters: Mapping[str, object]) -> Iterable[tuple[str, dict[str, str]]]:
    """Yield each protocol of a call with its ports: the parameters that share its prefix."""
    if "SecurityGroup" not in action and "NetworkAcl" not in action:
        return
    protocols = {name: str(value) for name, value in parameters.items() if re.search(r"(^|\.)(Ip)?Protocol$", name)}
    for name, protocol in protocols.items():
        prefix = re.sub(r"(Ip)?Protocol$", "", name)
        ports = {
            key: str(value)
            for key in ("FromPort", "ToPort", "PortRange.From", "PortRange.To", "Icmp.Type", "Icmp.Code")
            if (value := parameters.get(f"{prefix}{key}")) is not None
        }
        yield prefix, {"protocol": protocol, **ports}
    if "RuleNumber" in parameters:
        yield "", {"protocol": "-1", "RuleNumber": str(parameters["RuleNumber"])}


def _check_rule(prefix: str, rule: Mapping[str, str]) -> None:
    protocol = rule["protocol"].lower()
    if protocol not in _PROTOCOLS and not (protocol.isdecimal() and int(protocol) <= 255):
        raise _refuse_value(rule["protocol"], f"{prefix}IpProtocol", "protocol")
    number = _PROTOCOLS.get(protocol, -1 if not protocol.isdecimal() else int(protocol))
    numbers = {key: _parse_number(prefix + key, value) for key, value in rule.items() if key != "protocol"}
    if "RuleNumber" in numbers and not 1 <= numbers["RuleNumber"] <= 32766:
        raise _refuse_value(rule["RuleNumber"], "RuleNumber", "rule number")
    low = numbers.get("FromPort", numbers.get("PortRange.From"))
    high = numbers.get("ToPort", numbers.get("PortRange.To"))
    if number in (6, 17):
        if low is None or high is None:
            raise ApiError("InvalidParameterValue", "Must specify both from and to ports with TCP/UDP.")
        if not 0 <= low <= high <= 65535:
            raise _refuse_value(f"{low}-{high}", f"{prefix}FromPort", "port range")
    elif number in (1, 58):
        for value in (low, high, numbers.get("Icmp.Type"), numbers.get("Icmp.Code")):
            if value is not None and not -1 <= value <= 255:
                raise _refuse_value(str(value), f"{prefix}FromPort", "ICMP type or code")


def _parse_number(name: str, value: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", value):
        raise _refuse_value(value, name, "number")
    return int(value)


def _refuse_value(value: str, name: str, kind: str) -> ApiError:
    return ApiError("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid: not a valid {kind}.")
