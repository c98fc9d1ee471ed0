"""Runs on a machine of the lab, by itself: answers who it was asked by, and asks.

    probe.py serve PORT                           until it is stopped
    probe.py ask ADDRESS PORT SECONDS SEND TAKE  a connection: JSON {"source", "seconds", "received"} or exit status 1

The asker sends one line `SEND TAKE`, then SEND bytes; the server answers with a line that holds the asker's address as
it sees it, then TAKE bytes. Only Python's own library.
"""

import json
import socket
import socketserver
import sys
import time

CHUNK = bytes(65536)


class EchoHandler(socketserver.StreamRequestHandler):
    """One connection."""

    timeout = 60

    def handle(self) -> None:
        take, send = map(int, self.rfile.readline().split())
        while take > 0 and (got := self.rfile.read(min(take, len(CHUNK)))):
            take -= len(got)
        self.wfile.write(f"{self.client_address[0]}\n".encode())
        while send > 0:
            self.wfile.write(CHUNK[:send])
            send -= len(CHUNK)


class EchoServer(socketserver.ThreadingTCPServer):
    """On every address of the machine."""

    allow_reuse_address = True
    daemon_threads = True


def serve(port: int) -> None:
    """Answer for ever."""
    with EchoServer(("", port), EchoHandler) as server:
        server.serve_forever()


def ask(address: str, port: int, seconds: float, send: int, take: int) -> dict[str, object]:
    """Return what one connection came to; raises OSError where there is none, or it stands still for `seconds`."""
    start = time.monotonic()
    with socket.create_connection((address, port), timeout=seconds) as connection:
        connection.sendall(f"{send} {take}\n".encode())
        while send > 0:
            connection.sendall(CHUNK[:send])
            send -= len(CHUNK)
        with connection.makefile("rb") as answer:
            source = answer.readline().decode().strip()
            received = 0
            while got := answer.read(len(CHUNK)):
                received += len(got)
    return {"source": source, "seconds": time.monotonic() - start, "received": received}


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    if arguments[0] == "serve":
        serve(int(arguments[1]))
    address, port, seconds, send, take = arguments[1:]
    try:
        print(json.dumps(ask(address, int(port), float(seconds), int(send), int(take))))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
