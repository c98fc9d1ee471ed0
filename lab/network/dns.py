"""The lab's resolver: the names its Internet knows, on UDP, for VPCs (base + 2, 169.254.169.253) and homes alike.

A VPC's resolver answers for its private hosted zones too, and nobody but the VPC.

Sources: RFC 1035; RFC 4592 for wildcards; Amazon VPC User Guide, "DNS attributes for your VPC"; Amazon Route 53
Developer Guide, "Considerations when working with a private hosted zone".
"""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

from lab.machines.image import MIRROR_NAME
from lab.network.fabric import API, MIRROR, S3

#: How many names one answer may lead through.
CHAIN = 8


@dataclass(frozen=True, slots=True)
class Records:
    """Records of a zone for one name and type."""

    ttl: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrivateZone:
    """A private hosted zone. Names are in lower case, without a last dot."""

    name: str
    records: Mapping[tuple[str, str], Records]
    """By name and type."""

    def holds(self, name: str) -> bool:
        """Return whether a name belongs to this zone."""
        return name == self.name or name.endswith(f".{self.name}")

    def owner(self, name: str) -> str | None:
        """Return the name whose records answer for a name: itself or a wildcard above it; None where neither exists."""
        names = {record_name for record_name, _ in self.records}

        def exists(candidate: str) -> bool:
            return candidate in names or any(record_name.endswith(f".{candidate}") for record_name in names)

        if exists(name):
            return name
        above = name
        while above != self.name:
            above = above.partition(".")[2]
            if exists(above):  # the closest name there is, and no other, may have the wildcard
                return f"*.{above}" if f"*.{above}" in names else None
        return None


#: Returns the zones as they are now.
Zones = Callable[[], Sequence[PrivateZone]]
#: Returns whether a client's address is answered.
Welcome = Callable[[str], bool]


def lookup(name: str) -> str | None:
    """Return the address of a name of the lab's Internet (any case, no trailing dot), or None."""
    name = name.lower().rstrip(".")
    if name == MIRROR_NAME:
        return MIRROR
    if re.fullmatch(r"(.+\.)?s3[.-]([a-z0-9-]+\.)?amazonaws\.com", name):
        return S3
    if name.endswith(".amazonaws.com"):
        return API
    return None


def answer(question: bytes, zones: Sequence[PrivateZone] = ()) -> bytes | None:
    """Return the wire-format answer to a wire-format question; None where it cannot be parsed."""
    try:
        query = dns.message.from_wire(question)
        reply = dns.message.make_response(query, recursion_available=True)
    except dns.exception.DNSException:
        return None
    if not query.question:
        return None
    question_section = query.question[0]
    kind, name = (
        dns.rdatatype.to_text(question_section.rdtype),
        question_section.name.to_text(omit_final_dot=True).lower(),
    )
    try:
        for _ in range(CHAIN):
            exists, sets = _resolve_name(name, kind, zones)
            reply.answer += sets
            if not exists:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            if not sets or kind == "CNAME" or sets[0].rdtype != dns.rdatatype.CNAME:
                break
            name = sets[0][0].to_text().rstrip(".").lower()
    except dns.exception.DNSException:  # the API takes any text as a record
        reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def _resolve_name(name: str, kind: str, zones: Sequence[PrivateZone]) -> tuple[bool, list[dns.rrset.RRset]]:
    """Return whether a name exists, and its records of a kind or its CNAME."""
    zone = max((zone for zone in zones if zone.holds(name)), key=lambda zone: len(zone.name), default=None)
    if zone is None:
        address = lookup(name)
        records = [dns.rrset.from_text(f"{name}.", 60, "IN", "A", address)] if address and kind == "A" else []
        return address is not None, records
    # The most specific zone has the last word: a name that it lacks is asked nowhere else.
    owner = zone.owner(name)
    for record_type in (kind, "CNAME"):
        if owner and (zone_records := zone.records.get((owner, record_type))):
            # Names in values are whole ones, with or without a last dot.
            values = [
                dns.rdata.from_text("IN", record_type, value, origin=dns.name.root, relativize=False)
                for value in zone_records.values
            ]
            return True, [dns.rrset.from_rdata_list(dns.name.from_text(name), zone_records.ttl, values)]
    return owner is not None, []


def _list_no_zones() -> Sequence[PrivateZone]:
    return ()


def serve_names(
    bound: socket.socket, zones: Zones = _list_no_zones, welcome: Welcome = lambda _: True
) -> threading.Thread:
    """Answer on a bound UDP socket in a thread of its own until the socket is closed."""

    def loop() -> None:
        with contextlib.suppress(OSError):  # the socket was closed: the end
            while True:
                question, peer = bound.recvfrom(4096)
                if peer is None:  # the socket was shut down
                    return
                if welcome(peer[0]) and (reply := answer(question, zones())) is not None:
                    with contextlib.suppress(OSError):  # who asked may be gone
                        bound.sendto(reply, peer)

    thread = threading.Thread(target=loop, daemon=True, name="dns")
    thread.start()
    return thread
