"""drawbridge client …"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from drawbridge.commands import options, output, rotation
from drawbridge.operate import bundles, connection_log, rotations
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.lab_account import connect
from openvpn import windows
from openvpn.model import System

#: How a bundle is imported, by what its client runs.
_IMPORT: dict[System, str] = {
    "linux": "sudo openvpn --config {file}",
    "networkmanager": (
        "nmcli connection import type openvpn file {file}\n"
        "NetworkManager accepts every route that the gateway sends; it leaves out the bundle's list"
    ),
    "windows": rf"into {windows.CONFIG_DIRECTORY} on {{client}}, then restart OpenVPNService there",
    "macos": "on {client}, open it with Tunnelblick",
    "android": "on {client}, open it with OpenVPN for Android or OpenVPN Connect",
    "ios": "on {client}, open it with OpenVPN Connect",
}


@click.group()
def client() -> None:
    """Clients of a stack, and their bundles.

    Clients are added and removed in the stack file (drawbridge:clients), and the next `pulumi up` issues or revokes.
    """


@client.command("list")
@options.of_account
@options.json
def list_(stack: str, region: str | None, wants_json: bool) -> None:
    """List the clients that may connect; of a pair, those of both gateways."""
    clients = bundles.list_clients(connect(stack, region=region))
    if wants_json:
        output.print_line(output.as_json(clients))
        return
    now = datetime.now(UTC)
    output.table(
        ("client", "gateway", "certificate until", "days left", "serial", "SHA-256 fingerprint"),
        [
            (
                client.name,
                client.gateway,
                f"{client.not_after:%Y-%m-%d}",
                str(client.days_left(now)),
                str(client.serial),
                client.fingerprint[:16] + "…",
            )
            for client in clients
        ],
    )


@client.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write (NAME.ovpn).",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@options.of_account
def fetch(name: str, target: Path | None, force: bool, stack: str, region: str | None) -> None:
    """Fetch a client's bundle into a file that only you can read."""
    target = target or Path(f"{name}.ovpn")
    saved = bundles.save_bundle(connect(stack, region=region), name, target, replace=force)
    step = _IMPORT[saved.system].format(file=target, client=name)
    output.print_line(f"{', '.join(map(str, saved.files))}: {step}")


@client.command()
@click.argument("name")
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 720), help="How long the link works.")
@options.of_account
def kit(name: str, minutes: int, stack: str, region: str | None) -> None:
    """Print the one command that sets up a client's own Debian host.

    The link in it leads to the kit, which holds no secret; the host's own AWS credentials get it its bundle.
    """
    output.print_line(bundles.kit_command(connect(stack, region=region), name, seconds=60 * minutes))


@client.command()
@click.argument("name")
@click.option("--since", default="7d", show_default=True, callback=options.period, help="How far back: 30m, 12h, 7d.")
@options.of_account
@options.json
def history(name: str, since: timedelta, stack: str, region: str | None, wants_json: bool) -> None:
    """Show when a client connected, from where, how long and how many bytes; and when it was refused, and why.

    Times are UTC. The gateway sends an event within a minute or two.
    """
    events = connection_log.read_history(connect(stack, region=region), name, since)
    if wants_json:
        output.print_line(output.as_json(events))
    elif not events:
        output.print_line(f"{name} has not connected within this time")
    else:
        output.table(
            ("time (UTC)", "from", "event", "lasted", "in", "out"),
            [
                (
                    f"{event.time:%Y-%m-%d %H:%M}",
                    f"{event.address}:{event.port}",
                    _describe_event(event),
                    "" if event.seconds is None else output.show_duration(event.seconds),
                    "" if event.received is None else output.show_bytes(event.received),
                    "" if event.sent is None else output.show_bytes(event.sent),
                )
                for event in events
            ],
        )


def _describe_event(event: ConnectionEvent) -> str:
    """Return what happened in a few words."""
    if event.event == "displaced":
        return f"displaced by {event.by_address}:{event.by_port}"
    times = f" {event.count} times" if event.count and event.count > 1 else ""
    return f"{event.event}{times}{f': {event.reason}' if event.reason else ''}"


@client.command()
@click.argument("name")
@options.stack
@options.preview
def rotate(name: str, stack: str, preview: bool) -> None:
    """Have the next `pulumi up` replace a client's key and certificate, and print the steps.

    The former certificate is revoked; no other client notices. Run it when a bundle was lost or stolen.
    """
    rotation.order(rotations.plan_client_rotation(stack, name, datetime.now(UTC)), stack, preview=preview)
