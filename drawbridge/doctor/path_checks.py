"""Judge each hop of the path from a client to a host in the VPC, and name what breaks it.

A breakage is a row of `CHECKS`: its name, its hop, the explanation code of AWS's VPC Reachability Analyzer, a function
that finds it in a snapshot, and the remedy. Hops are judged in the order of `PathHop`, so the first broken one is where
a client's packets end. The rows are in a file for each room of the path: the client, the VPC and the gateway.

Source for the codes: Amazon VPC Reachability Analyzer User Guide, "Explanation codes".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from drawbridge.doctor.client_path_checks import CLIENT_CHECKS
from drawbridge.doctor.gateway_path_checks import GATEWAY_CHECKS
from drawbridge.doctor.ipv6_path_checks import IPV6_CHECKS
from drawbridge.doctor.path_hops import PathCheck, PathHop
from drawbridge.doctor.path_snapshot import (
    ClientRecord,
    ElasticIp,
    PathSnapshot,
    Unread,
    UnreadError,
    VpcInterface,
    client_of,
    interface_of,
    leaves_vpc,
    require,
)
from drawbridge.doctor.vpc_path_checks import VPC_CHECKS

#: Every breakage, in the order of the hops.
CHECKS: tuple[PathCheck, ...] = tuple(
    check
    for hop in PathHop
    for check in (*CLIENT_CHECKS, *VPC_CHECKS, *GATEWAY_CHECKS, *IPV6_CHECKS)
    if check.hop == hop
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HopResult:
    """The judgement on one hop."""

    hop: PathHop
    state: Literal["ok", "broken", "unknown", "skipped"]
    """`unknown`: something that it depends on could not be read; `skipped`: the path does not have this hop."""
    breakage: str = ""
    """Name of the row of `CHECKS` that found it."""
    code: str = ""
    finding: str = ""
    """What is broken, or why the hop could not be judged or is skipped."""
    remedy: str = ""
    permission: str = ""
    """The permission without which the hop could not be judged."""


def judge_path(snapshot: PathSnapshot) -> tuple[HopResult, ...]:
    """Return the judgement on every hop, in their order."""
    return tuple(_judge_hop(snapshot, hop) for hop in PathHop)


def find_first_broken(results: Iterable[HopResult]) -> HopResult | None:
    """Return the first hop that is broken; None if none is."""
    return next((result for result in results if result.state == "broken"), None)


def _judge_hop(snapshot: PathSnapshot, hop: PathHop) -> HopResult:
    unread: Unread | None = None
    try:
        if reason := _find_skip_reason(snapshot, hop):
            return HopResult(hop=hop, state="skipped", finding=reason)
    except UnreadError as error:
        unread = error.unread
    for check in CHECKS:
        if check.hop != hop:
            continue
        try:
            finding = check.find(snapshot)
        except UnreadError as error:
            unread = unread or error.unread
            continue
        if finding:
            return HopResult(
                hop=hop,
                state="broken",
                breakage=check.name,
                code=check.code,
                finding=finding,
                remedy=check.remedy.format_map(_remedy_values(snapshot)),
            )
    if unread:
        return HopResult(hop=hop, state="unknown", finding=unread.reason, permission=unread.permission)
    return HopResult(hop=hop, state="ok")


def _remedy_values(snapshot: PathSnapshot) -> dict[str, str]:
    client, elastic_ip, interface = snapshot.client, snapshot.elastic_ip, snapshot.interface
    address = elastic_ip.address if isinstance(elastic_ip, ElasticIp) else "its Elastic IP"
    return {
        "stack": snapshot.stack,
        "client": client.name if isinstance(client, ClientRecord) else "NAME",
        "address": str(address),
        "interface": interface.id if isinstance(interface, VpcInterface) else "the gateway's interface",
    }


def _find_skip_reason(path: PathSnapshot, hop: PathHop) -> str:
    """Return why the path does not have a hop; empty if it has it. Raises `UnreadError`."""
    match hop:
        case PathHop.MACHINE | PathHop.RESOLVER if path.machine is None:
            return "not read: --here, or --machine FILE"
        case PathHop.MACHINE | PathHop.RESOLVER if client_of(path).remote is None:
            return "the client has no bundle"
        case PathHop.RESOLVER if client_of(path).resolver is None:
            return "the stack gives clients no name server"
        case PathHop.NAME if path.client is None:
            return "no client is named"
        case PathHop.NAME if client_of(path).remote is None:
            return "the client has no bundle"
        case PathHop.TLS if path.verdict is None:
            return "no bundle is probed"
        case PathHop.CLIENT | PathHop.ADDRESS if path.client is None:
            return "no client is named"
        case PathHop.ROUTE if path.target is None and path.machine is None:
            return "no host is named: --to ADDRESS"
        case PathHop.IPV6_ADDRESS if path.target6 is None and require(path.release).clients6 is None:
            return "the tunnel has no IPv6"
        case PathHop.IPV6_ROUTE | PathHop.IPV6_RULES if require(path.release).clients6 is None:
            return "the tunnel has no IPv6"
        case PathHop.HOST_RULES | PathHop.HOST if path.target6 is not None:
            return "the host is named by its IPv6 address"
        case PathHop.HOST_RULES | PathHop.HOST if path.target is None:
            return "no host is named: --to ADDRESS"
        case PathHop.HOST_RULES | PathHop.HOST if leaves_vpc(path):
            return f"{path.target} is outside the VPC"
        case PathHop.FORWARDING | PathHop.VPC_ROUTE if _is_separate_pair(path):
            return "the pair does not route between its VPCs"
        case PathHop.VPC_ROUTE if require(path.release).translates:
            return f"hosts see {interface_of(path).address}, the gateway's own address"
        case PathHop.TRANSLATION if not require(path.release).translates:
            return "hosts see the clients' own addresses"
    return ""


def _is_separate_pair(path: PathSnapshot) -> bool:
    """Return whether the gateways of a pair reach each other, and no hosts of their VPCs do."""
    release = require(path.release)
    return release.is_pair and len(release.sources) == 1
