"""Name the hops of a path from a client to a host, and describe how one breaks."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from drawbridge.doctor.path_snapshot import PathSnapshot


class PathHop(StrEnum):
    """The hops between a client and a host, in the order in which a packet passes them."""

    MACHINE = "client's machine"
    NAME = "name"
    ELASTIC_IP = "Elastic IP"
    INSTANCE = "instance"
    INTERNET = "route to the Internet"
    NETWORK_ACL = "network ACL"
    SECURITY_GROUP = "security group"
    LISTENER = "OpenVPN"
    TLS = "TLS"
    CLIENT = "client"
    ADDRESS = "address"
    ROUTE = "client's route"
    RESOLVER = "client's resolver"
    FORWARDING = "forwarding"
    TRANSLATION = "translation"
    VPC_ROUTE = "VPC's route back"
    HOST_RULES = "host's rules"
    HOST = "host"
    IPV6_ADDRESS = "IPv6 addresses"
    IPV6_ROUTE = "IPv6 routes"
    IPV6_RULES = "IPv6 rules"


@dataclass(frozen=True, slots=True)
class PathCheck:
    """One way in which a hop breaks."""

    name: str
    hop: PathHop
    code: str
    """The Reachability Analyzer's explanation code; empty where it has none."""
    find: Callable[[PathSnapshot], str | None]
    """Returns what is broken, with its value, or None; raises `UnreadError`."""
    remedy: str
    """What to do; the names in braces are those of `_remedy_values`."""


#: Remedies that several checks share; the names in braces are those of `PathCheck.remedy`.
RESTORE = "pulumi up --refresh --stack {stack} restores it"
RESTORE_OR_ADD = f"{RESTORE}; in a VPC that is not the stack's own, "
FETCH = "drawbridge client fetch {client} --stack {stack} --force, and import it"
LOGS = "drawbridge gateway logs --stack {stack}"
