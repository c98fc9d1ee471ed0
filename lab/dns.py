"""The lab's resolver: the names its Internet knows, on UDP, for VPCs (base + 2, 169.254.169.253) and homes alike.

Source: RFC 1035; Amazon VPC User Guide, "DNS attributes for your VPC".
"""

import contextlib
import re
import socket
import threading
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from lab.fabric import API, MIRROR, S3
from lab.image import MIRROR_NAME

#: Answers a name with its IPv4 address, or None for a name it does not know.
Lookup = Callable[[str], str | None]


def lookup(name: str) -> str | None:
    """Address of a name of the lab's Internet (any case, no trailing dot)."""
    name = name.lower().rstrip(".")
    if name == MIRROR_NAME:
        return MIRROR
    if re.fullmatch(r"(.+\.)?s3[.-]([a-z0-9-]+\.)?amazonaws\.com", name):
        return S3
    if name.endswith(".amazonaws.com"):
        return API
    return None


def answer(question: bytes, find: Lookup = lookup) -> bytes | None:
    """Wire-format answer to a wire-format question; None where it is no question."""
    try:
        query = dns.message.from_wire(question)
        reply = dns.message.make_response(query, recursion_available=True)
    except dns.exception.DNSException:
        return None
    if not query.question:
        return None
    asked = query.question[0]
    found = find(asked.name.to_text(omit_final_dot=True))
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif asked.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", found))
    return reply.to_wire()


def serve(bound: socket.socket, find: Lookup = lookup) -> threading.Thread:
    """Answer on a bound UDP socket in a thread of its own until the socket is closed."""

    def loop() -> None:
        with contextlib.suppress(OSError):  # the socket was closed: the end
            while True:
                question, peer = bound.recvfrom(4096)
                if (reply := answer(question, find)) is not None:
                    bound.sendto(reply, peer)

    thread = threading.Thread(target=loop, daemon=True, name="dns")
    thread.start()
    return thread
