"""Runs inside a machine with a kernel of its own: commands come in over a link that the machine itself never sees.

The link is moved into a network namespace that only this process lives in, so no firewall, route or address of the
machine can touch it. One connection is one command: a line of JSON in, a line of JSON back. Python's own library only.

Sources: network_namespaces(7), nsenter(1).
"""

import contextlib
import json
import os
import socket
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import Any

#: Hardware address of the link, by which the machine knows it.
MAC = "06:00:00:00:00:01"
ADDRESS, PORT = "169.254.77.2", 7
#: The lab's end of the link, where it checks rulesets that this machine's kernel cannot.
#: The socket takes such checks from this machine's nft.
CHECKER, CHECK_SOCKET = ("169.254.77.1", 8), "/run/lab-nft.sock"
_HOME = "/proc/1/ns/net"


class CommandHandler(socketserver.StreamRequestHandler):
    """Runs the command of one request, in the machine's own network namespace."""

    def handle(self) -> None:
        """Answer one request: its exit code and output, or that it took too long."""
        request = json.loads(self.rfile.readline())
        argv = ["nsenter", f"--net={_HOME}", "--", *request["argv"]]
        answer: dict[str, Any]
        try:
            done = subprocess.run(
                argv,
                input=request["stdin"],
                env=request["environment"],
                timeout=request["timeout"],
                cwd="/root",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            answer = {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        except subprocess.TimeoutExpired:
            answer = {"late": True}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class CheckHandler(socketserver.StreamRequestHandler):
    """Hands a question about a ruleset out to the lab."""

    def handle(self) -> None:
        """Pass one line to the lab and its answer back."""
        with socket.create_connection(CHECKER, timeout=60) as checker, checker.makefile("rb") as answers:
            checker.sendall(self.rfile.readline())
            self.wfile.write(answers.readline())


class CheckServer(socketserver.ThreadingUnixStreamServer):
    """A thread a question."""

    daemon_threads = True


class CommandServer(socketserver.ThreadingTCPServer):
    """A thread a command."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Take the link away from the machine and serve on it."""
    addresses = Path("/sys/class/net").glob("*/address")
    link = next((path.parent.name for path in addresses if path.read_text().strip() == MAC), "lab0")
    os.unshare(os.CLONE_NEWNET)  # type: ignore[attr-defined]  # from Python 3.12 on, which the machine has
    subprocess.run(["nsenter", f"--net={_HOME}", "ip", "link", "set", link, "netns", str(os.getpid())], check=True)
    for command in (f"address add {ADDRESS}/30 dev {link}", "link set lo up", f"link set {link} up"):
        subprocess.run(["ip", *command.split()], check=True)
    with contextlib.suppress(FileNotFoundError):
        Path(CHECK_SOCKET).unlink()
    threading.Thread(target=CheckServer(CHECK_SOCKET, CheckHandler).serve_forever, daemon=True).start()
    CommandServer((ADDRESS, PORT), CommandHandler).serve_forever()


if __name__ == "__main__":
    main()
