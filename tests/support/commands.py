"""Commands on the lab's machines."""

from lab.region import Host


def read(host: Host, *argv: str, stdin: str | None = None) -> str:
    """What a command prints that has to succeed."""
    done = host.run(argv, stdin=stdin)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout
