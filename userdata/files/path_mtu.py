#!/usr/bin/env python3
"""Measures the path of each client of a routed tunnel, and has the packet filter size the client's TCP segments for it.

Every system but the gateway's forbids routers to fragment its packets, and many networks drop both a packet that is too
big and the error about it. So the filter keeps clients' TCP segments small, and this script lets them be as large as
each path takes. It reads the sessions in OpenVPN's status files, as the connection log does, and asks each client for
echoes whose answers make OpenVPN's packets as large as one path after the other takes. A path takes a size if the
answer comes, and came in one piece: the filter notes the addresses of packets that came in fragments.

The result is an element of the filter's maps, which leads a client's addresses and networks to the chain of its path. A
path is measured when the session begins or its address changes, and every two minutes. Elements expire, and a client
that has not answered has none: then the filter's rule for unknown paths holds. Only Python's standard library.
"""

import contextlib
import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path

#: JSON with the tunnel's device; the bytes of the largest packet in the tunnel by the chain of each path, in falling
#: order; and those on paths that are not known.
SETTINGS = Path(__file__).with_name("path-mtu.json")
#: Leads to the release that runs now.
CURRENT = Path("/opt/drawbridge/current")
RUNTIME = Path("/run")
TABLE = "inet drawbridge"

#: Seconds between two looks at the status files, which OpenVPN writes every ten.
TICK = 2.0
#: Seconds after which a path is measured again, and after which a client that did not answer is asked again.
INTERVAL, RETRIES = 120.0, (5.0, 20.0)
#: Seconds that an element of the filter's maps lasts, and after which all are written again, also after a new filter.
ELEMENT_LIFE, WRITE_INTERVAL = 300, 60.0
#: Clients that are measured together, and seconds between two packets to them: at most 6 Mbit/s.
BATCH, PACE = 256, 0.002
#: Seconds for an answer, and how often the question is sent.
PATIENCE, ATTEMPTS = 1.0, 3
#: Seconds for a run of nft.
NFT_TIMEOUT = 60

#: Bytes of an echo that every path takes, and of the headers of IPv4 and ICMP.
SMALL, ECHO_HEADERS = 84, 28
#: Linux's numbers, which Python's `socket` has no names for (linux/socket.h, linux/icmp.h, linux/in.h).
SOL_RAW, ICMP_FILTER, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 255, 1, 10, 3
ECHO_REQUEST, ECHO_REPLY = 8, 0

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Session:
    """A client's session; with another address of its own, or another start, it is another session."""

    address: IPv4Address
    """In the tunnel."""
    peer: str
    """Address, and port, that its packets come from."""
    since: str
    networks: tuple[Network, ...] = field(default=(), compare=False)
    """Everything in the status file that OpenVPN routes to it: its tunnel addresses and the networks behind it."""

    @property
    def outer_address(self) -> str:
        """The IPv4 address that its packets come from."""
        match = re.search(r"([0-9.]+):\d+$", self.peer)
        return match[1] if match else ""


def read_sessions(text: str) -> list[Session]:
    """Read the sessions of a status file of version 3. Source: openvpn(8), `--status-version`."""
    columns: dict[str, list[str]] = {}
    rows: dict[str, list[dict[str, str]]] = {"CLIENT_LIST": [], "ROUTING_TABLE": []}
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        if kind == "HEADER" and fields:
            columns[fields[0]] = fields[1:]
        elif kind in rows:
            rows[kind].append(dict(zip(columns.get(kind, ()), fields, strict=False)))
    networks: dict[str, list[Network]] = {}
    for row in rows["ROUTING_TABLE"]:
        # An address with a C is one that OpenVPN has learned in a client's network.
        with contextlib.suppress(KeyError, ValueError):
            networks.setdefault(row["Real Address"], []).append(ip_network(row["Virtual Address"]))
    sessions = []
    for row in rows["CLIENT_LIST"]:
        # A client that is not connected yet has no address.
        with contextlib.suppress(KeyError, ValueError):
            address, peer = IPv4Address(row["Virtual Address"]), row["Real Address"]
            sessions.append(Session(address, peer, row["Connected Since (time_t)"], tuple(networks.get(peer, ()))))
    return sessions


class StatusFiles:
    """Reads the sessions of all OpenVPN processes."""

    def __init__(self) -> None:
        self._written: list[tuple[Path, int]] = []
        self._sessions: list[Session] = []

    def sessions(self) -> list[Session]:
        """Return the sessions; of a process whose status file cannot be read, none."""
        written = []
        for path in sorted(RUNTIME.glob("openvpn-*/status")):
            with contextlib.suppress(OSError):
                written.append((path, path.stat().st_mtime_ns))
        if written != self._written:
            self._written, self._sessions = written, []
            for path, _ in written:
                with contextlib.suppress(OSError, ValueError):
                    self._sessions += read_sessions(path.read_text())
        return self._sessions


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes.

    >>> hex(checksum(bytes.fromhex("0001f203f4f5f6f7")))
    '0x220d'
    """
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def render_echo(identifier: int, sequence: int, token: bytes, size: int) -> bytes:
    """Return an ICMP echo request (RFC 792) that with IPv4's header has an even number `size` of bytes."""
    payload = token.ljust(size - ECHO_HEADERS, b"\0")
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence)
    return head[:2] + struct.pack("!H", checksum(head + payload)) + head[4:] + payload


def read_echo(packet: bytes, identifier: int, token: bytes) -> tuple[int, int] | None:
    """Return sequence number and size of the answer to an echo with this token, or None for any other packet."""
    start = (packet[0] & 0x0F) * 4 if packet else 0
    if len(packet) < start + 8 + len(token):
        return None
    kind, code, _, answered, sequence = struct.unpack_from("!BBHHH", packet, start)
    is_ours = (kind, code, answered) == (ECHO_REPLY, 0, identifier) and packet[start + 8 :].startswith(token)
    return (sequence, len(packet)) if is_ours else None


class Echoes:
    """Asks clients for echoes, through the tunnel's device only, if it has one. Needs CAP_NET_RAW."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        try:
            # An empty name binds it to none.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            self._socket.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
            # No packet leaves in fragments, and none is kept because of a path that the kernel remembers.
            self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        # A client cannot answer what it was not asked.
        self._token, self._identifier, self._sequence = os.urandom(16), os.getpid() & 0xFFFF, 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, addresses: Collection[IPv4Address], size: int) -> set[IPv4Address]:
        """Return which addresses answer an echo of `size` bytes; each gets a few attempts."""
        answered: set[IPv4Address] = set()
        self._sequence = first = (self._sequence + 1) & 0xFFFF
        packet = render_echo(self._identifier, first, self._token, size)
        for _ in range(ATTEMPTS):
            waiting = [address for address in addresses if address not in answered]
            if not waiting:
                break
            for address in waiting:
                # The device may be gone, or its queue full.
                with contextlib.suppress(OSError):
                    self._socket.sendto(packet, (str(address), 0))
                answered |= self._receive(first, size, PACE)
            end = time.monotonic() + PATIENCE
            while not answered.issuperset(waiting) and (rest := end - time.monotonic()) > 0:
                answered |= self._receive(first, size, rest)
        return answered.intersection(addresses)

    def _receive(self, sequence: int, size: int, seconds: float) -> set[IPv4Address]:
        """Wait at most `seconds` for an answer, and return the addresses of all that have come."""
        answered = set()
        select.select([self._socket], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, (address, _) = self._socket.recvfrom(65535)
                if read_echo(packet, self._identifier, self._token) == (sequence, size):
                    answered.add(IPv4Address(address))
        return answered


def run_nft(*arguments: str, commands: Iterable[str] = ()) -> str:
    """Run nft, with commands on its standard input, and return its output; raise OSError with its error."""
    try:
        result = subprocess.run(
            ["nft", *arguments],
            input="".join(f"{command}\n" for command in commands),
            capture_output=True,
            text=True,
            timeout=NFT_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(str(error)) from error
    if result.returncode:
        raise OSError(result.stderr.strip() or f"nft ended with exit status {result.returncode}")
    return result.stdout


def read_fragmented(listing: str) -> set[str]:
    """Read the addresses of packets that came in fragments from nft's listing of the set, in JSON.

    >>> read_fragmented('{"nftables": [{"set": {"elem": [{"elem": {"val": "192.0.2.1", "expires": 5}}]}}]}')
    {'192.0.2.1'}
    """
    sets = (row["set"] for row in json.loads(listing)["nftables"] if "set" in row)
    elements = [element for row in sets for element in row.get("elem", ())]
    return {element["elem"]["val"] for element in elements}


def take_size(echoes: Echoes, sessions: Sequence[Session], size: int) -> list[Session]:
    """Return the sessions whose path takes answers of `size` bytes in one piece."""
    if not sessions:
        return []
    run_nft("flush", "set", *TABLE.split(), "fragmented")
    answered = echoes.ask({session.address for session in sessions}, size)
    fragmented = read_fragmented(run_nft("--json", "list", "set", *TABLE.split(), "fragmented"))
    return [session for session in sessions if session.address in answered and session.outer_address not in fragmented]


def measure(echoes: Echoes, sessions: Sequence[Session], sizes: Mapping[str, int]) -> dict[Session, str]:
    """Return the chain of each session's path; none for a session that does not answer.

    `sizes` has the bytes of a chain's largest packet in the tunnel, in falling order. Most paths take the largest one;
    on the others each size that does not pass costs seconds, so they grow until then.
    """
    answering = echoes.ask({session.address for session in sessions}, SMALL)
    rest = [session for session in sessions if session.address in answering]
    largest, *smaller = sizes
    paths = dict.fromkeys(take_size(echoes, rest, sizes[largest]), largest)
    rest = [session for session in rest if session not in paths]
    for chain in reversed(smaller):
        rest = take_size(echoes, rest, sizes[chain])
        paths.update(dict.fromkeys(rest, chain))
    return paths


def render_elements(paths: Mapping[Network, str]) -> list[str]:
    """Return nft's commands that replace the elements of both maps; the elements of such a map do not overlap."""
    commands = []
    for name, version in (("client_paths", 4), ("client_paths6", 6)):
        commands.append(f"flush map {TABLE} {name}")
        elements: list[str] = []
        end = -1
        for network in sorted((network for network in paths if network.version == version), key=_position):
            if int(network.network_address) > end:
                elements.append(f"{network} timeout {ELEMENT_LIFE}s : goto {paths[network]}")
                end = int(network.broadcast_address)
        if elements:
            commands.append(f"add element {TABLE} {name} {{ {', '.join(elements)} }}")
    return commands


def _position(network: Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


class PathMap:
    """Knows the path of each session, and has the filter's maps say the same."""

    def __init__(self, sizes: Mapping[str, int], unknown: int) -> None:
        self._sizes, self._unknown = sizes, unknown
        self._paths: dict[Session, str] = {}
        self._due: dict[Session, float] = {}
        """When a session is measured next, by a clock that never jumps."""
        self._unanswered: dict[Session, int] = {}
        """How often a session has not answered since it did last."""
        self._written: list[str] = []
        self._write_at = 0.0

    def update(self, sessions: Sequence[Session], echoes: Echoes) -> None:
        """Forget sessions that have ended, measure those that are due, and write what has changed.

        Raises OSError if the filter cannot be read or written, for the next call to try again.
        """
        for memory in (self._paths, self._due, self._unanswered):
            for session in memory.keys() - set(sessions):
                del memory[session]
        self._write(sessions)
        due = [session for session in sessions if self._due.get(session, 0.0) <= time.monotonic()][:BATCH]
        if due:
            self._note(due, measure(echoes, due, self._sizes))
            self._write(sessions)

    def _note(self, measured: Sequence[Session], paths: Mapping[Session, str]) -> None:
        for session in measured:
            failures = 0 if session in paths else self._unanswered.get(session, 0) + 1
            pause = RETRIES[failures - 1] if 0 < failures <= len(RETRIES) else INTERVAL
            self._unanswered[session], self._due[session] = failures, time.monotonic() + pause
            if session in paths:
                self._paths[session] = paths[session]
            elif self._sizes.get(self._paths.get(session, ""), 0) > self._unknown:
                # It may have got narrower. One that was narrower than unknown ones stays so.
                del self._paths[session]

    def _write(self, sessions: Sequence[Session]) -> None:
        paths = {
            network: self._paths[session]
            for session in sessions
            if session in self._paths
            for network in session.networks
        }
        commands, now = render_elements(paths), time.monotonic()
        if commands != self._written or now >= self._write_at:
            self._written = []
            # One transaction.
            run_nft("--file", "-", commands=commands)
            self._written, self._write_at = commands, now + WRITE_INTERVAL


def follow(device: str, path_map: PathMap) -> None:
    """Measure paths until the gateway runs another release."""
    release, status_files, last_error = CURRENT.resolve(), StatusFiles(), ""
    while CURRENT.resolve() == release:
        try:
            # A device that was made anew has another number, which a socket does not follow.
            with contextlib.closing(Echoes(device)) as echoes:
                path_map.update(status_files.sessions(), echoes)
            last_error = ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            # The agent may be loading the filter.
            if str(error) != last_error:
                print(f"paths could not be measured: {error}", file=sys.stderr, flush=True)
            last_error = str(error)
        time.sleep(TICK)


def main() -> int:
    """Measure paths, and return the exit status once the gateway runs another release: the agent starts that one's."""
    settings = json.loads(SETTINGS.read_text())
    follow(settings["device"], PathMap(settings["paths"], settings["unknown"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
