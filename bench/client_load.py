"""Connect many clients to a gateway at once, from one process: python -m bench.client_load ORDER.json.

ORDER has the gateway's `address` and `port`, seconds to `wait`, and the `clients`, each with a `bundle` and the
`source` address that it sends from. It prints `ready`, waits for a line, connects, and prints the outcome as JSON.
Until its input ends it keeps the sessions alive, as clients' pings would.

Each client repeats as OpenVPN does: after 2 seconds, then after twice as long each time. Like our profiles it gives an
attempt up that has no answer for 10 seconds (`server-poll-timeout`), or is not complete after 60 (`hand-window`), and
starts anew 2 seconds later (`connect-retry`).
"""

import contextlib
import heapq
import itertools
import json
import os
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openvpn.client_session import ClientSession, ProtocolError
from openvpn.handshake import ServerCertificateError, client_key_of, tls_context

#: Seconds of OpenVPN's `tls-timeout` and `hand-window`, and of `server-poll-timeout` and `connect-retry` in profiles.
REPEAT_AFTER, HAND_WINDOW, POLL_TIMEOUT, RETRY_AFTER = 2.0, 60.0, 10.0, 2.0
#: Seconds after which a client asks for PUSH_REPLY, and again.
PUSH_AFTER = 5.0
#: Seconds between the pings of `tunnel.keepalive`.
KEEPALIVE = 1.0


class Client:
    """A client and its current session."""

    def __init__(self, bundle: str, source: str, remote: tuple[str, int]) -> None:
        self.bundle, self.key = bundle, client_key_of(bundle)
        self.context = tls_context(bundle, ssl.TLSVersion.TLSv1_3)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((source, 0))
        self.socket.connect(remote)
        self.session = self._open()
        self.attempts = self.repeats = 0
        self.begin = self.repeat_after = 0.0
        """When the attempt began, and seconds until messages are repeated."""
        self.paused = False
        """Whether an attempt was given up, and the next one has not begun."""
        self.done: float | None = None
        """When PUSH_REPLY came."""
        self.error = ""

    def _open(self) -> ClientSession:
        return ClientSession(self.bundle, self.key, self.context, self._send)

    def _send(self, packet: bytes) -> None:
        # A full queue is a packet lost; an ICMP error of an earlier packet, too.
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self.socket.send(packet)

    def start(self, now: float) -> None:
        """Begin an attempt."""
        self.session, self.begin, self.repeat_after = self._open(), now, REPEAT_AFTER
        self.attempts, self.paused = self.attempts + 1, False
        self.session.channel.reset()

    def read(self, now: float) -> None:
        """Read the packets that have come."""
        try:
            while True:
                self.session.receive(self.socket.recv(1 << 16))
        except (BlockingIOError, ConnectionRefusedError):
            pass
        except (ssl.SSLError, ProtocolError, ServerCertificateError) as error:
            self.error = str(error)
        if self.session.pushed and self.done is None:
            self.done = now
        self.error = self.error or self.session.refusal

    def wake(self, now: float) -> float:
        """Do what the time asks for; return when to be woken again."""
        if self.done is not None:
            self.session.channel.keep_alive()
            return now + KEEPALIVE
        age = now - self.begin
        if self.paused:
            self.start(now)
            return now + REPEAT_AFTER
        if age >= HAND_WINDOW or (age >= POLL_TIMEOUT and not self.session.channel.answered):
            self.session, self.paused = self._open(), True
            return now + RETRY_AFTER
        channel = self.session.channel
        if channel.confirmed:
            if age >= PUSH_AFTER:
                self.session.request_push()
            return now + PUSH_AFTER
        channel.repeat()
        self.repeats += 1
        self.repeat_after *= 2
        return min(now + self.repeat_after, self.begin + (HAND_WINDOW if channel.answered else POLL_TIMEOUT))


class Load:
    """All clients, and one loop that serves them."""

    def __init__(self, order: dict[str, Any]) -> None:
        remote = (order["address"], order["port"])
        self.clients = [Client(each["bundle"], each["source"], remote) for each in order["clients"]]
        self._poll = select.epoll()
        self._by_descriptor = {client.socket.fileno(): client for client in self.clients}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)
        self._number = itertools.count()
        self._due: list[tuple[float, int, Client]] = []

    def connect(self, seconds: float) -> float:
        """Have all clients begin at once, and serve them until each has an outcome; return when they began."""
        begin = time.monotonic()
        for client in self.clients:
            client.start(time.monotonic())
            self._wake_at(client, client.begin + REPEAT_AFTER)
            self._serve(0)  # Answers come while others begin.
        self.serve(lambda: time.monotonic() > begin + seconds or all(c.done or c.error for c in self.clients))
        return begin

    def serve(self, ended: Callable[[], bool]) -> None:
        """Serve all clients until `ended`, which is asked ten times a second."""
        while not ended():
            until = time.monotonic() + 0.1
            while (now := time.monotonic()) < until:
                wait = min(self._due[0][0], until) - now if self._due else until - now
                self._serve(max(wait, 0.0))

    def _serve(self, seconds: float) -> None:
        for descriptor, _ in self._poll.poll(seconds):
            self._by_descriptor[descriptor].read(time.monotonic())
        while self._due and self._due[0][0] <= (now := time.monotonic()):
            _, _, client = heapq.heappop(self._due)
            if not client.error:
                self._wake_at(client, client.wake(now))

    def _wake_at(self, client: Client, when: float) -> None:
        heapq.heappush(self._due, (when, next(self._number), client))


def main() -> None:
    """Read the order, connect, print the outcome, and keep the sessions until the input ends."""
    order = json.loads(Path(sys.argv[1]).read_text())
    files = len(order["clients"]) + 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    load = Load(order)
    print("ready", flush=True)
    sys.stdin.readline()
    before = time.process_time()
    begin = load.connect(order["wait"])
    outcome = {
        "times": [client.done - begin for client in load.clients if client.done is not None],
        "errors": sorted({client.error for client in load.clients if client.error}),
        "attempts": sum(client.attempts for client in load.clients),
        "repeats": sum(client.repeats for client in load.clients),
        "cpu": time.process_time() - before,
    }
    print(json.dumps(outcome), flush=True)
    os.set_blocking(0, False)
    load.serve(_input_ended)


def _input_ended() -> bool:
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    main()
