"""Answer EC2's calls for pools of IPAM, which moto does not have: pools, their ranges, and manual allocations in them.

Everything is in the region in which it was created, and sub-pools are not there. A VPC gets no range from a pool.

Sources: Amazon EC2 API Reference, "AllocateIpamPoolCidr", "ReleaseIpamPoolAllocation", "DescribeIpamPools"; Amazon VPC
IPAM User Guide, "Allocate CIDRs".
"""

import ipaddress
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError

Network = IPv4Network | IPv6Network


@dataclass
class _Pool:
    description: dict[str, Any]
    """As DescribeIpamPools returns it."""
    cidrs: list[Network] = field(default_factory=list)
    allocations: dict[str, Network] = field(default_factory=dict)
    """Ranges by the IDs of their allocations."""
    notes: dict[str, str] = field(default_factory=dict)
    """The allocations' descriptions."""


@dataclass
class _Ipam:
    """The pools of an account and region."""

    scopes: dict[str, str] = field(default_factory=dict)
    """Type of each scope: private or public."""
    pools: dict[str, _Pool] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def find_pool(self, identity: str) -> _Pool:
        if identity not in self.pools:
            raise EC2ClientError("InvalidIpamPoolId.NotFound", f"The ipam-pool ID '{identity}' does not exist")
        return self.pools[identity]


def find_free_range(cidrs: Iterable[Network], used: Iterable[Network], length: int) -> Network | None:
    """Return the first range of a length that lies in one of `cidrs` and overlaps none of `used`, None without one.

    >>> find_free_range([IPv4Network("10.0.0.0/22")], [IPv4Network("10.0.0.128/25"), IPv4Network("10.0.2.0/24")], 24)
    IPv4Network('10.0.1.0/24')
    """
    spans = [(int(network[0]), int(network[-1])) for network in used]
    for cidr in cidrs:
        size = 1 << (cidr.max_prefixlen - length)
        first = int(cidr[0])
        while length >= cidr.prefixlen and first <= int(cidr[-1]):
            last = first + size - 1
            ends = [end for start, end in spans if start <= last and end >= first]
            if not ends:
                return type(cidr)((first, length))
            # The next boundary after what is in the way.
            first = (max(ends) // size + 1) * size
    return None


def _create_ipam(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    scopes = {kind: f"ipam-scope-{secrets.token_hex(8)}0" for kind in ("private", "public")}
    ipam.scopes.update({identity: kind for kind, identity in scopes.items()})
    return {
        "Ipam": {
            "IpamId": f"ipam-{secrets.token_hex(8)}0",
            "PrivateDefaultScopeId": scopes["private"],
            "PublicDefaultScopeId": scopes["public"],
            "State": "create-complete",
        }
    }


def _create_pool(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    scope = read("IpamScopeId")
    if scope not in ipam.scopes:
        raise EC2ClientError("InvalidIpamScopeId.NotFound", f"The ipam-scope ID '{scope}' does not exist")
    identity = f"ipam-pool-{secrets.token_hex(8)}0"
    description = {
        "IpamPoolId": identity,
        "IpamScopeType": ipam.scopes[scope],
        "Locale": read("Locale") or "None",
        "AddressFamily": read("AddressFamily"),
        "State": "create-complete",
        "Tags": [tag for entry in read("TagSpecifications", []) for tag in entry["Tags"]],
    }
    ipam.pools[identity] = _Pool(description)
    return {"IpamPool": description}


def _provision(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    cidr = ipaddress.ip_network(read("Cidr"))
    ipam.find_pool(read("IpamPoolId")).cidrs.append(cidr)
    return {"IpamPoolCidr": {"Cidr": str(cidr), "State": "provisioned"}}


def _describe_pools(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    pools = [ipam.find_pool(identity) for identity in read("IpamPoolIds", []) or ipam.pools]
    return {"IpamPools": [pool.description for pool in pools]}


def _get_cidrs(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    cidrs = ipam.find_pool(read("IpamPoolId")).cidrs
    return {"IpamPoolCidrs": [{"Cidr": str(cidr), "State": "provisioned"} for cidr in cidrs]}


def _get_allocations(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    pool = ipam.find_pool(read("IpamPoolId"))
    return {"IpamPoolAllocations": [_describe_allocation(pool, identity) for identity in pool.allocations]}


def _allocate(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    pool = ipam.find_pool(read("IpamPoolId"))
    disallowed = [ipaddress.ip_network(cidr) for cidr in read("DisallowedCidrs", [])]
    network = find_free_range(pool.cidrs, [*pool.allocations.values(), *disallowed], int(read("NetmaskLength")))
    if network is None:
        raise EC2ClientError("InvalidParameterValue", "The allocation size is too big for the pool.")
    identity = f"ipam-pool-alloc-{secrets.token_hex(16)}"
    pool.allocations[identity] = network
    pool.notes[identity] = read("Description") or ""
    return {"IpamPoolAllocation": _describe_allocation(pool, identity)}


def _release(ipam: _Ipam, read: Callable[..., Any]) -> dict[str, Any]:
    pool, identity = ipam.find_pool(read("IpamPoolId")), read("IpamPoolAllocationId")
    if str(pool.allocations.get(identity)) != read("Cidr"):
        raise EC2ClientError(
            "InvalidIpamPoolAllocationId.NotFound", f"The ipam-pool-allocation ID '{identity}' does not exist"
        )
    del pool.allocations[identity]
    return {"Success": True}


def _describe_allocation(pool: _Pool, identity: str) -> dict[str, Any]:
    return {
        "IpamPoolAllocationId": identity,
        "Cidr": str(pool.allocations[identity]),
        "Description": pool.notes[identity],
        "ResourceType": "custom",
    }


def _answer(action: Callable[[_Ipam, Callable[..., Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    """Return an action as a method of moto's response."""

    def respond(self: Any) -> Any:
        ipam = vars(self.ec2_backend).setdefault("ipam", _Ipam())
        with ipam.lock:
            return ActionResult(action(ipam, self._get_param))

    return respond


#: Methods of moto's responses by their names.
METHODS: dict[str, Callable[[Any], Any]] = {
    "allocate_ipam_pool_cidr": _answer(_allocate),
    "create_ipam": _answer(_create_ipam),
    "create_ipam_pool": _answer(_create_pool),
    "describe_ipam_pools": _answer(_describe_pools),
    "get_ipam_pool_allocations": _answer(_get_allocations),
    "get_ipam_pool_cidrs": _answer(_get_cidrs),
    "provision_ipam_pool_cidr": _answer(_provision),
    "release_ipam_pool_allocation": _answer(_release),
}
