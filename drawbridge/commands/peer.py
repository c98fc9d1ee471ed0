"""drawbridge peer …"""

from pathlib import Path

import click

from drawbridge.commands import output
from drawbridge.operate import peer_files


@click.group()
def peer() -> None:
    """Two hosts with a tunnel between them, without AWS."""


@peer.command()
@click.argument("listens")
@click.argument("calls")
@click.option("--remote", required=True, help="Address or name of the host that listens.")
@click.option("--port", type=click.IntRange(1, 65535), default=1194, show_default=True, help="Its UDP port.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Directory for the files (this one).",
)
def new(listens: str, calls: str, remote: str, port: int, directory: Path) -> None:
    """Write a file for each of two hosts, by their names; each knows the other by its key's fingerprint."""
    for path in peer_files.write_peer_files(directory, (listens, calls), remote, port):
        output.print_line(f"{path}: sudo openvpn --config {path}")
