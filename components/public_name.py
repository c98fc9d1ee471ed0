"""The gateway's public DNS name, in a hosted zone of the account."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pulumi
import pulumi_aws as aws
from pulumi_aws.route53.outputs import GetRecordsResourceRecordSetResult

import contract

#: Seconds for which resolvers keep the address: clients find a stack that has moved after that.
TTL = 60

_NAME_ZONE = "name the public hosted zone of the name's domain: aws route53 list-hosted-zones"

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicNameArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    hostname: str
    """For example `vpn.example.com`."""
    zone_id: str
    """ID of the public hosted zone that gets the record."""
    public_ip: pulumi.Input[str]
    """The gateway's public address."""


class PublicName(pulumi.ComponentResource):
    """A record with the gateway's public address.

    A record of that name that exists is not replaced: it may be that of a stack that still serves clients.
    """

    def __init__(self, name: str, args: PublicNameArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:PublicName", name, {}, opts)
        aws.route53.Record(
            f"{name}-record",
            zone_id=args.zone_id,
            name=args.hostname,
            type="A",
            ttl=TTL,
            records=[args.public_ip],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


def check_public_name(names: contract.Names, zone_id: str, hostname: str) -> None:
    """Raise `pulumi.RunError` unless a hosted zone may get the record of a gateway's public name.

    The zone must be public, of the account, and for a domain that the name is in, and it must not have a record of the
    name that leads elsewhere than to the gateway.
    """
    zone = _look_up(zone_id, lambda: aws.route53.get_zone(zone_id=zone_id))
    domain = zone.name.rstrip(".")
    if zone.private_zone:
        raise pulumi.RunError(
            f"drawbridge:gateway.hostedZoneId: {zone_id} is a private zone, which clients do not see; {_NAME_ZONE}"
        )
    if hostname != domain and not hostname.endswith(f".{domain}"):
        raise pulumi.RunError(
            f"drawbridge:gateway.hostedZoneId: {zone_id} is the zone of {domain}, which drawbridge:gateway.hostname "
            f"{hostname} is not in; {_NAME_ZONE}, or use a name such as vpn.{domain}"
        )
    pattern = f"^{re.escape(hostname)}[.]$"
    records = _look_up(zone_id, lambda: aws.route53.get_records(zone_id=zone_id, name_regex=pattern))
    _check_records(names, zone_id, hostname, records.resource_record_sets)


def _look_up(zone_id: str, call: Callable[[], Answer]) -> Answer:
    """Return the answer of a look-up in a hosted zone; raises `pulumi.RunError`."""
    try:
        return call()
    # The SDK raises every error of a look-up as a plain Exception.
    except Exception as error:
        denied = "AccessDenied" in str(error)
        remedy = "ask for the permissions of docs/policies/deployer.json, statement Zones" if denied else _NAME_ZONE
        raise pulumi.RunError(
            f"drawbridge:gateway.hostedZoneId: {zone_id} cannot be looked up ({error}); {remedy}"
        ) from error


def _check_records(
    names: contract.Names, zone_id: str, hostname: str, records: Sequence[GetRecordsResourceRecordSetResult]
) -> None:
    """Raise `pulumi.RunError` for a record that AWS would refuse the gateway's beside, unless it is the gateway's."""
    conflicting = [record for record in records if record.type in ("A", "CNAME")]
    if not conflicting:
        return
    addresses = aws.ec2.get_eips(tags=names.tags("gateway")).public_ips
    for record in conflicting:
        values = [value.value for value in record.resource_records]
        if record.type == "A" and values and set(values) <= set(addresses):
            continue
        raise pulumi.RunError(
            f"drawbridge:gateway.hostname: {hostname} already has a record in {zone_id}: {record.type} "
            f"{', '.join(values) or 'alias'}, which does not lead to this stack's gateway; delete it, after removing "
            "hostedZoneId from the stack that it belongs to, if any, or choose another name"
        )
