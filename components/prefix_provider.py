"""The dynamic provider behind `DelegatedPrefix`: assigns an IPv6 prefix to an interface that exists.

EC2 refuses CreateNetworkInterface with both an IPv6 address and a prefix ("You can't specify a count of IPv6 addresses
if you've specified a count of IPv6 prefixes", EC2 API Reference), and the AWS provider sends both in that one call. So
the interface is created with its address, and this resource adds the prefix. EC2 has no tags for prefixes:
AssignIpv6Addresses takes none, and a prefix has no ARN. The interface has the stack's tags.
"""

import time
from typing import Any

import boto3
import pulumi
from botocore.exceptions import BotoCoreError, ClientError
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider

INPUTS = ("region", "interfaceId", "named")
ATTEMPTS = 30
"""Seconds until an assigned prefix must be on the interface."""


class PrefixError(Exception):
    """The prefix could not be assigned or removed; the message names the interface and AWS's reason."""


class PrefixDelegation(ResourceProvider):
    """Assigns a prefix, the named one or one that AWS chooses, and removes it again."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        interface, named = props["interfaceId"], props.get("named")
        ec2 = _client(props)
        # A run that was interrupted may have assigned it.
        if not _prefixes(ec2, interface):
            arguments = {"Ipv6Prefixes": [named]} if named else {"Ipv6PrefixCount": 1}
            _call(interface, ec2.assign_ipv6_addresses, NetworkInterfaceId=interface, **arguments)
        for _ in range(ATTEMPTS):
            prefixes = _prefixes(ec2, interface)
            if named in prefixes or (prefixes and not named):
                return CreateResult(f"{interface}_prefix", {**_inputs(props), "prefix": named or prefixes[0]})
            time.sleep(1)
        raise PrefixError(
            f"{interface}: EC2 accepted the request for an IPv6 prefix, but assigned {prefixes or 'none'}"
        )

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = [key for key in INPUTS if olds.get(key) != news.get(key)]
        return DiffResult(changes=bool(changed), replaces=changed, delete_before_replace=True)

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        exists = props["prefix"] in _prefixes(_client(props), props["interfaceId"])
        return ReadResult(id_ if exists else "", props)

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        ec2, interface = _client(props), props["interfaceId"]
        if props["prefix"] in _prefixes(ec2, interface):
            _call(interface, ec2.unassign_ipv6_addresses, NetworkInterfaceId=interface, Ipv6Prefixes=[props["prefix"]])


class DelegatedPrefix(Resource, name="DelegatedPrefix"):
    """An IPv6 prefix, a /80, that the VPC delivers to a network interface."""

    prefix: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        region: str,
        interface_id: pulumi.Input[str],
        named: str | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        inputs = {"region": region, "interfaceId": interface_id, **({"named": named} if named else {})}
        super().__init__(PrefixDelegation(), name, {**inputs, "prefix": None}, opts)


def _inputs(props: dict[str, Any]) -> dict[str, Any]:
    return {key: props[key] for key in INPUTS if key in props}


def _client(props: dict[str, Any]) -> Any:
    return boto3.Session(region_name=props["region"]).client("ec2")


def _prefixes(ec2: Any, interface: str) -> list[str]:
    """Return the prefixes of an interface; none if the interface does not exist."""
    try:
        rows = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "InvalidNetworkInterfaceID.NotFound":
            return []
        raise PrefixError(f"{interface}: {error}") from error
    except BotoCoreError as error:
        raise PrefixError(f"{interface}: {error}") from error
    return [str(row["Ipv6Prefix"]) for item in rows for row in item.get("Ipv6Prefixes") or ()]


def _call(interface: str, function: Any, **arguments: Any) -> None:
    try:
        function(**arguments)
    except (ClientError, BotoCoreError) as error:
        raise PrefixError(f"{interface}: {error}") from error
