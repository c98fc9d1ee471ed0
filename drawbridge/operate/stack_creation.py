"""Create a stack file from another one, with ranges that no other stack of the account and region has.

The space is 10.0.0.0/8. Each of its numbers from `FIRST_NUMBER` on stands for a VPC's range in the lower half and a
tunnel's range in the upper half, and a stack claims one number for each of its VPCs. If the account has an IPAM pool
for it, VPCs get allocations of the pool, and the stack claims one number, for its tunnel.
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import yaml

import contract
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.address_pools import allocate_range
from drawbridge.operate.claims import (
    MOMENT,
    Claim,
    claim_allocation,
    claim_subject,
    list_claims,
    parse_moment,
    release_claims,
    stack_subject,
)
from drawbridge.operate.rotations import read_settings
from drawbridge.operate.stack_edits import Value, set_value
from drawbridge.operate.stack_files import LAB, list_stacks, new_stack_file
from endpoint import decode
from settings.checks.overlaps import list_ranges
from settings.default_tags import KEY as DEFAULT_TAGS
from settings.model import SAFE_STACK, Settings
from settings.parse import parse
from settings.problems import NAMESPACE, SettingsError
from settings.stack_file import qualify, read_stack_file
from settings.stack_yaml import load_yaml

#: Numbers that stacks get. Lower ones have the ranges that world files and AWS's examples begin with.
FIRST_NUMBER, LAST_NUMBER = 16, 127

#: Length of the prefix of a number's ranges.
_PREFIX = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class StackRequest:
    """Values of a new stack; None leaves a value as the source has it."""

    name: str
    source: Path
    """The stack file to start from."""
    owner: str
    end: datetime | None
    """When the stack may be destroyed; None if it stays."""
    region: str | None
    ssh_key: str | None
    """The operator's public key; empty for none."""
    admin_from: tuple[str, ...] | None
    """Ranges that may use SSH."""
    pool: str | None = None
    """ID of the IPAM pool from which VPCs get their ranges; None for 10.0.0.0/8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStack:
    """A stack file that was created."""

    path: Path
    settings: Settings
    claims: tuple[Claim, ...]


def vpc_range(number: int) -> IPv4Network:
    """Return the range of VPCs of a number.

    >>> vpc_range(16), tunnel_range(16)
    (IPv4Network('10.16.0.0/16'), IPv4Network('10.144.0.0/16'))
    """
    return IPv4Network(f"10.{number}.0.0/{_PREFIX}")


def tunnel_range(number: int) -> IPv4Network:
    """Return the range of tunnels of a number."""
    return IPv4Network(f"10.{number + 128}.0.0/{_PREFIX}")


def find_owner(account: Account) -> str:
    """Return the name of who calls AWS: a user's, or a role's with its session's. Raises `AwsError`."""
    with translate_aws_errors(account.stack):
        arn = str(account.client("sts").get_caller_identity()["Arn"])
    # Tags take no comma, which names of users and roles may have.
    return arn.rpartition(":")[2].partition("/")[2].replace(",", "-") or "root"


def create_stack(account: Account, request: StackRequest) -> NewStack:
    """Create a stack's file, and claim its name and its ranges in the account and region.

    If it fails, nothing of it stays.

    Raises:
        StackError: the name or the source cannot be used, the file exists, or everything is claimed.
        AwsError: AWS refused a call.
    """
    path = new_stack_file(request.name)
    check_name(request.name, path)
    settings = read_source(request.source, request.name)
    now = datetime.now(UTC)
    occupied = [*_list_aws_ranges(account), *_list_file_ranges(request.name), *_list_foreign_ranges(settings)]
    claims: list[Claim] = []
    try:
        claims.append(_claim_name(account, request, now))
        lengths = [vpc.cidr.prefixlen for vpc in settings.vpcs if not vpc.vpc_id]
        networks: list[IPv4Network] = []
        if request.pool:
            for length in lengths:
                claim, network = _claim_allocation(account, request, request.pool, length, occupied, now)
                claims.append(claim)
                networks.append(network)
        numbers = _claim_numbers(account, request, occupied, now, 1 if request.pool else len(lengths) or 1)
        claims += numbers.values()
        text = _render(request, settings, networks or [vpc_range(number) for number in numbers], next(iter(numbers)))
        parsed = _parse(text, request)
        _write_new_file(path, text)
    except BaseException:
        with contextlib.suppress(errors.AwsError):
            release_claims(account, claims)
        raise
    return NewStack(path=path, settings=parsed, claims=tuple(claims))


def check_name(name: str, path: Path) -> None:
    """Raise `StackError` for a name that a new stack cannot have."""
    if not SAFE_STACK.fullmatch(name):
        remedy = "use 1 to 20 of a-z, 0-9 and '-', starting with a letter and not ending in '-'"
        raise errors.StackError(f"{name} is not a valid stack name", remedy)
    if name == LAB:
        raise errors.StackError(f"stack {LAB} is that of the region on this machine", "use another name")
    if path.exists():
        raise errors.StackError(f"{path} already exists", "use another name, or deploy it: drawbridge stack up")


def read_source(source: Path, name: str) -> Settings:
    """Return the settings in the file that a stack starts from; raises `StackError`."""
    try:
        return parse(read_stack_file(source), stack=name, endpoint=None)
    except OSError as error:
        raise errors.StackError(f"{source} cannot be read: {error.strerror}", "use another --from") from error
    except SettingsError as error:
        raise errors.StackError(str(error), f"correct {source}") from error


def _list_aws_ranges(account: Account) -> Iterator[IPv4Network]:
    """Yield the ranges of the region's VPCs, and those that their routes lead to."""
    ec2 = account.client("ec2")
    with translate_aws_errors(account.stack):
        for page in ec2.get_paginator("describe_vpcs").paginate():
            for vpc in page["Vpcs"]:
                ranges = [entry["CidrBlock"] for entry in vpc.get("CidrBlockAssociationSet", ())]
                yield from map(IPv4Network, {vpc["CidrBlock"], *ranges})
        for page in ec2.get_paginator("describe_route_tables").paginate():
            routes = (route for table in page["RouteTables"] for route in table["Routes"])
            destinations = {route.get("DestinationCidrBlock", "0.0.0.0/0") for route in routes}
            yield from (IPv4Network(destination) for destination in destinations if destination != "0.0.0.0/0")


def _list_file_ranges(new: str) -> Iterator[IPv4Network]:
    """Yield the ranges in the other stack files; a file that is wrong has none."""
    for stack in list_stacks():
        with contextlib.suppress(errors.StackError):
            settings = read_settings(stack)
            ranges = list_ranges(settings.network, settings.pair, settings.tunnel, {})
            yield from (network for _, network in ranges)


def _list_foreign_ranges(settings: Settings) -> Iterator[IPv4Network]:
    """Yield the networks behind clients, and those that routes lead to, which the new stack keeps."""
    yield from (network for client in settings.clients for network in client.lan)
    yield from settings.tunnel.routes


def _claim_name(account: Account, request: StackRequest, now: datetime) -> Claim:
    subject = stack_subject(request.name)
    claim = claim_subject(account, subject, request.name, request.owner, request.end, _abandonment(account, now))
    if claim is None:
        former = [claim for claim in list_claims(account) if claim.subject == subject]
        owner = f" by {former[-1].owner}" if former else ""
        end = f" until {former[-1].end.strftime(MOMENT)}" if former and former[-1].end else ""
        raise errors.StackError(
            f"the name {request.name} is already claimed{owner}{end}",
            f"use another name, or have it destroyed: drawbridge stack destroy {request.name}",
        )
    # The former stack of this name is gone, and nobody else claims its allocations anew.
    is_abandoned = _abandonment(account, now)
    abandoned = [entry for entry in list_claims(account) if entry.stack == request.name and entry.allocation]
    try:
        release_claims(account, filter(is_abandoned, abandoned))
    except BaseException:
        with contextlib.suppress(errors.AwsError):
            release_claims(account, [claim])
        raise
    return claim


def _claim_allocation(
    account: Account, request: StackRequest, pool: str, length: int, occupied: Iterable[IPv4Network], now: datetime
) -> tuple[Claim, IPv4Network]:
    """Return the claim on a new allocation of a pool, and its range; raises `StackError` if the pool has none."""
    is_abandoned = _abandonment(account, now)
    used = [network for network in occupied if network.prefixlen > 1]
    used += _list_claimed_ranges(list_claims(account), is_abandoned)
    while True:
        allocation = allocate_range(account, pool, request.name, length, used)
        claim = claim_allocation(account, allocation, request.name, request.owner, request.end)
        try:
            # Meanwhile somebody may have claimed a number whose ranges the allocation overlaps.
            others = [entry for entry in list_claims(account) if entry.subject != claim.subject]
            claimed = list(_list_claimed_ranges(others, is_abandoned))
        except BaseException:
            with contextlib.suppress(errors.AwsError):
                release_claims(account, [claim])
            raise
        if not any(allocation.cidr.overlaps(network) for network in claimed):
            return claim, allocation.cidr
        release_claims(account, [claim])
        used += claimed


def _list_claimed_ranges(claims: Iterable[Claim], is_abandoned: Callable[[Claim], bool]) -> Iterator[IPv4Network]:
    """Yield the ranges of allocations, and of numbers whose claims are not abandoned."""
    claims = list(claims)
    pooled = {claim.stack for claim in claims if claim.allocation}
    for claim in claims:
        kind, _, number = claim.subject.partition("/")
        if claim.allocation:
            yield claim.allocation.cidr
        elif kind == "range" and number.isdecimal() and not is_abandoned(claim):
            yield tunnel_range(int(number))
            if claim.stack not in pooled:
                yield vpc_range(int(number))


def _claim_numbers(
    account: Account, request: StackRequest, occupied: Iterable[IPv4Network], now: datetime, count: int
) -> dict[int, Claim]:
    """Return new claims on so many numbers, by the number; raises `StackError` if there are not enough."""
    used = [network for network in occupied if network.prefixlen > 1]
    is_abandoned = _abandonment(account, now)
    former = list_claims(account)
    live = {claim.subject for claim in former if not is_abandoned(claim)}
    used += [claim.allocation.cidr for claim in former if claim.allocation]

    def list_number_ranges(number: int) -> tuple[IPv4Network, ...]:
        return (tunnel_range(number),) if request.pool else (vpc_range(number), tunnel_range(number))

    free = [
        number
        for number in range(FIRST_NUMBER, LAST_NUMBER + 1)
        if _subject(number) not in live
        and not any(network.overlaps(range_) for network in used for range_ in list_number_ranges(number))
    ]
    # In another order for each, so that those who start at once rarely want the same.
    random.shuffle(free)
    claims: dict[int, Claim] = {}
    try:
        for number in free:
            if len(claims) == count:
                break
            claim = claim_subject(account, _subject(number), request.name, request.owner, request.end, is_abandoned)
            if claim is None:
                continue
            claims[number] = claim
            # Meanwhile somebody may have been allocated a range that the number's ranges overlap.
            allocated = [entry.allocation.cidr for entry in list_claims(account) if entry.allocation]
            if any(network.overlaps(range_) for network in allocated for range_ in list_number_ranges(number)):
                release_claims(account, [claims.pop(number)])
        if len(claims) < count:
            raise errors.StackError(
                f"no range of 10.0.0.0/8 is free for stack {request.name}",
                "see who has them: drawbridge stack list; destroy what is past its end: drawbridge stack reap",
            )
    except BaseException:
        with contextlib.suppress(errors.AwsError):
            release_claims(account, claims.values())
        raise
    return claims


def _subject(number: int) -> str:
    return f"range/{number}"


def _abandonment(account: Account, now: datetime) -> Callable[[Claim], bool]:
    """Return the function that tells whether a claim is past its end, and its stack is not deployed."""

    def is_abandoned(claim: Claim) -> bool:
        return claim.is_past(now) and not account.has_parameters(contract.Names(claim.stack).root)

    return is_abandoned


def _render(request: StackRequest, settings: Settings, networks: list[IPv4Network], number: int) -> str:
    """Return the text of the new file; raises `StackError` for a layout that is not understood.

    `networks` are those of which the VPCs have the first part, and `number` is that of the tunnel's range.
    """
    try:
        text = request.source.read_bytes().decode("utf-8-sig")
        for path, value in _list_values(request, settings, networks, number):
            text = set_value(text, ("config", *_spell(text, path)), value)
    except (ValueError, yaml.YAMLError) as error:
        raise errors.StackError(
            f"{request.source} cannot be copied: {error}", "start from a world: --from tenant"
        ) from error
    return text


def _list_values(
    request: StackRequest, settings: Settings, networks: list[IPv4Network], number: int
) -> Iterator[tuple[tuple[str | int, ...], Value]]:
    """Yield the values in which the new file differs from its source, with their paths."""
    if request.region:
        yield ("aws:region",), request.region
    left = list(networks)
    for key, vpc in zip(("network", "pair"), settings.vpcs, strict=False):
        if not vpc.vpc_id:
            yield (f"{NAMESPACE}:{key}", "cidr"), f"{left.pop(0).network_address}/{vpc.cidr.prefixlen}"
    # A client that bridges its LAN has the range of its LAN in the tunnel.
    if not any(client.bridge for client in settings.clients):
        former = settings.tunnel.pool
        pool = IPv4Network((tunnel_range(number).network_address, former.prefixlen))
        yield (f"{NAMESPACE}:tunnel", "pool"), str(pool)
        for i, client in enumerate(settings.clients):
            if client.address and client.address in former:
                address = pool[int(client.address) - int(former.network_address)]
                yield (f"{NAMESPACE}:clients", i, "address"), str(address)
    if request.ssh_key:
        yield (f"{NAMESPACE}:gateway", "sshKey"), request.ssh_key
    if request.admin_from is not None:
        yield (f"{NAMESPACE}:gateway", "adminFrom"), list(request.admin_from)
    yield (DEFAULT_TAGS, "tags", contract.OWNER_TAG), request.owner
    if request.end:
        yield (DEFAULT_TAGS, "tags", contract.END_TAG), request.end.strftime(MOMENT)


def _spell(text: str, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return a path below `config` with its first key as the document spells it, which may be without its namespace."""
    document: Any = load_yaml(text)
    spelled = (key for key in document["config"] if qualify(str(key)) == path[0])
    return next(spelled, path[0]), *path[1:]


def _parse(text: str, request: StackRequest) -> Settings:
    """Return the settings of a file's text; raises `StackError`."""
    document: Any = load_yaml(text)
    config = {qualify(str(key)): value for key, value in document["config"].items()}
    try:
        return parse(config, stack=request.name, endpoint=None)
    except SettingsError as error:
        raise errors.StackError(str(error), "give other values, or another --from") from error


def _write_new_file(path: Path, text: str) -> None:
    """Write a file that does not exist yet; raises `StackError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(text.encode())
    except OSError as error:
        raise errors.StackError(f"{path} cannot be written: {error.strerror}", "use another directory: -C") from error


def read_end(config: dict[str, Any]) -> datetime | None:
    """Return the end in a stack's configuration, None if it has none; raises `StackError`."""
    section = decode(config.get(DEFAULT_TAGS))
    tags = section.get("tags") if isinstance(section, dict) else None
    value = tags.get(contract.END_TAG) if isinstance(tags, dict) else None
    if value is None:
        return None
    try:
        return parse_moment(value)
    except ValueError:
        remedy = "use one such as 2026-12-31T18:00:00Z"
        raise errors.StackError(f"{DEFAULT_TAGS}.{contract.END_TAG}: {value} is not a valid time", remedy) from None
