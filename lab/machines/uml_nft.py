#!/usr/bin/env python3
"""Stands in for `nft` on a machine whose own kernel lacks some of its families; runs inside of it.

What that kernel takes is loaded there by the real program and is in force. What it does not know, such as family inet,
is handed out to the lab, whose real nft judges it and keeps it in a network namespace where no packet passes: a ruleset
that is wrong fails as it would anywhere, and one that is right IS NOT IN FORCE, which is said each time. Python's own
library only.

Source: nft(8).
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Where the package's own program is: dpkg diverts it there.
REAL = "/usr/sbin/nft.distrib"
#: `lab.machines.uml_agent` listens here, once it is up.
SOCKET = "/run/lab-nft.sock"
PATIENCE = 30.0
#: What the kernel answers for a family that it does not have.
UNKNOWN = "Operation not supported"
FILE = ("-f", "--file")


def with_input(argv: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments with a file's content as their input instead, and None where there is no file.

    >>> with_input(["list", "ruleset"])
    (['list', 'ruleset'], None)
    """
    for place, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        joined = argument.startswith("-") and not argument.startswith("--") and argument.endswith("f")
        if name not in FILE and not joined:
            continue
        rest = place + (1 if equals else 2)
        path = value if equals else "".join(argv[place + 1 : place + 2])
        text = sys.stdin.read() if path in ("-", "/dev/stdin") else Path(path).read_text()
        option = name if equals else argument
        return [*argv[:place], option, "-", *argv[rest:]], text
    return argv, None


def ask(argv: list[str], text: str | None) -> dict[str, Any]:
    """Return the answer of the lab's own nft; raise OSError where the lab does not answer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(SOCKET)
                connection.sendall(json.dumps({"argv": argv, "stdin": text}).encode() + b"\n")
                with connection.makefile(encoding="utf-8") as answers:
                    answer: dict[str, Any] = json.loads(answers.readline())
                    return answer
        except (OSError, ValueError):
            # At boot a filter is loaded as early as the lab's way out of the machine comes up.
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def main() -> int:
    """Return the exit status."""
    if not Path(REAL).exists():
        print("nft: the package nftables is not installed", file=sys.stderr)
        return 127
    try:
        argv, text = with_input(sys.argv[1:])
    except OSError as error:
        print(f"nft: {error}", file=sys.stderr)
        return 1
    done = subprocess.run([REAL, *argv], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        try:
            answer = ask(argv, text)
        except (OSError, ValueError) as error:
            print(f"{done.stderr}nft: the lab does not answer: {error}", file=sys.stderr)
            return 1
        # An error is shown in the words of this machine's own kernel, if it knows the family.
        if answer["returncode"] == 0 or UNKNOWN in done.stderr:
            notice = (
                f"nft: NOT IN FORCE: the kernel {os.uname().release} of this machine of the lab knows no such family; "
                "the lab has checked it, and no packet meets it"
            )
            print(answer["stderr"] + notice, file=sys.stderr)
            sys.stdout.write(answer["stdout"])
            return int(answer["returncode"])
    sys.stderr.write(done.stderr)
    sys.stdout.write(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
