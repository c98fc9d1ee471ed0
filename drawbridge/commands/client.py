"""drawbridge client …"""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import client_tables, options, output, rotation
from drawbridge.commands.qr_code import draw_qr_code
from drawbridge.operate import bundle_links, bundles, client_states, connection_log, gateway_status, renewals, rotations
from drawbridge.operate.account import Account
from drawbridge.operate.lab_account import connect
from drawbridge.operate.revoked_certificates import RevokedCertificate, list_revoked
from drawbridge.operate.ssh_login import SshTarget
from openvpn import windows
from openvpn.bundle import has_key_file
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


#: The file name that stands for standard output.
_STANDARD_OUTPUT = Path("-")


def _lifetime(ctx: click.Context, parameter: click.Parameter, value: str) -> timedelta:
    """Return a link's lifetime, which S3 limits."""
    lifetime = options.period(ctx, parameter, value)
    if lifetime > bundle_links.MAX_LIFETIME:
        raise click.BadParameter(
            f"{value} is too long; S3 takes at most {bundle_links.MAX_LIFETIME.days}d", ctx, parameter
        )
    return lifetime


@click.group()
def client() -> None:
    """Clients of a stack, and their bundles.

    Clients are added and removed in the stack file (drawbridge:clients), and the next `pulumi up` issues or revokes.
    """


@client.command("list")
@click.option("--revoked", is_flag=True, help="Also those whose certificates are revoked and have not ended.")
@click.option(
    "--since", default="7d", show_default=True, callback=options.period, help="How far back the connection log is read."
)
@click.option(
    "--expires-in",
    "within",
    callback=options.optional_period,
    help="Only clients whose certificates end within this time: 12h, 30d, 8w.",
)
@click.option("--no-login", is_flag=True, help="Do not log in to the gateway: sessions are from the connection log.")
@options.login
@options.of_account
@options.json
def list_(
    stack: str,
    region: str | None,
    user: str,
    identity: Path | None,
    revoked: bool,
    within: timedelta | None,
    since: timedelta,
    no_login: bool,
    wants_json: bool,
) -> None:
    """List the clients that may connect, who is connected, and from where; of a pair, those of both gateways.

    Sessions are the gateway's own, over SSH. Where it cannot be asked, they are from the connection log.
    """
    account, now = connect(stack, region=region), datetime.now(UTC)
    clients = client_states.list_client_states(
        account, _read_sources(account, since, None if no_login else user, identity)
    )
    if within is not None:
        clients = renewals.select_ending(clients, within, now)
    certificates = list_revoked(account) if revoked else []
    if wants_json:
        output.print_line(output.as_json([*clients, *certificates]))
    elif within is not None and not clients and not certificates:
        output.print_line("no client's certificate ends within this time")
    else:
        client_tables.print_clients(clients, certificates, now)


@client.command()
@click.argument("name")
@click.option(
    "--since", default="7d", show_default=True, callback=options.period, help="How far back the connection log is read."
)
@click.option("--no-login", is_flag=True, help="Do not log in to the gateway: the session is from the connection log.")
@options.login
@options.of_account
@options.json
def show(
    name: str,
    stack: str,
    region: str | None,
    user: str,
    identity: Path | None,
    since: timedelta,
    no_login: bool,
    wants_json: bool,
) -> None:
    """Show everything about a client: its certificate, address, session, last events, bundle, and how to import it."""
    account = connect(stack, region=region)
    enrolled = bundles.read_client(account, name)
    sources = _read_sources(account, since, None if no_login else user, identity, name)
    (state,) = client_states.describe_clients(account, [enrolled], sources)
    details = client_tables.ClientDetails(
        client=state,
        has_kit=bundles.has_kit(account, name),
        import_step=_IMPORT[state.system].format(file=f"{name}.ovpn", client=name),
        revoked=_list_former(account, name),
        events=[event for event in sources.events or () if event.client == name][-client_tables.LAST_EVENTS :],
    )
    if wants_json:
        output.print_line(output.as_json(details))
    else:
        client_tables.print_details(details, datetime.now(UTC))


def _read_sources(
    account: Account, since: timedelta, user: str | None, identity: Path | None, name: str | None = None
) -> client_states.SessionSources:
    """Return what is known of sessions, and print why something is not; without a user, nobody logs in."""

    def find_target() -> SshTarget:
        return gateway_status.ssh_target(account, user=user or "", identity=identity)

    sources = client_states.read_sources(account, since, find_target if user else None, name)
    for note in sources.notes:
        output.print_line(f"note: {note}", err=True)
    return sources


def _list_former(account: Account, name: str) -> list[RevokedCertificate]:
    """Return a client's revoked certificates; none if the operator may not read the register."""
    try:
        return [entry for entry in list_revoked(account) if entry.name == name]
    except errors.CredentialsError:
        raise
    except errors.AwsError as error:
        output.print_line(f"note: revoked certificates are not read: {error}; {error.remedy}", err=True)
        return []


@client.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="File to write (NAME.ovpn); - prints the bundle, and nothing else, to standard output.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@options.of_account
def fetch(name: str, target: Path | None, force: bool, stack: str, region: str | None) -> None:
    """Fetch a client's bundle into a file that only you can read."""
    account = connect(stack, region=region)
    if target == _STANDARD_OUTPUT:
        _, bundle = bundles.read_single_file(account, name)
        if has_key_file(bundle):
            _print_missing_key(name)
        # Unchanged: what reads it is a program.
        click.echo(bundle, nl=False)
        return
    target = target or Path(f"{name}.ovpn")
    saved = bundles.save_bundle(account, name, target, replace=force)
    step = _IMPORT[saved.system].format(file=target, client=name)
    output.print_line(f"{', '.join(map(str, saved.files))}: {step}")
    if saved.lacks_key:
        _print_missing_key(name)


def _print_missing_key(name: str) -> None:
    """Say what the owner of a key adds to the bundle."""
    output.print_line(
        f"note: the bundle has no key, because {name} sent a signing request: put the key beside it as {name}.key and "
        f"start OpenVPN in that directory, or replace the line `key {name}.key` by <key>, the key and </key>, which "
        "apps on phones need",
        err=True,
    )


@client.command()
@click.argument("name")
@click.option("--expires", default="1h", show_default=True, callback=_lifetime, help="How long it works: 30m, 12h, 7d.")
@click.option(
    "--qr/--no-qr", "wants_qr", default=None, help="Draw the second form as a QR code; by default on a terminal."
)
@options.of_account
def link(name: str, expires: timedelta, wants_qr: bool | None, stack: str, region: str | None) -> None:
    """Print a link to a client's bundle in S3, and the form of it that OpenVPN's apps import, also as a QR code.

    Whoever has the link has the bundle: send it as you would a password.
    """
    bundle_link = bundle_links.link_to_bundle(connect(stack, region=region), name, expires)
    output.print_line(bundle_link.url)
    output.print_line(bundle_link.import_url)
    is_terminal = _is_terminal()
    if is_terminal if wants_qr is None else wants_qr:
        _print_qr_code(bundle_link.import_url, shutil.get_terminal_size().columns if is_terminal else None)
    end = f"it works until {bundle_link.expires:%Y-%m-%d %H:%M} UTC, as often as somebody opens it"
    if bundle_link.is_temporary:
        end += "; your AWS credentials are temporary, and it ends with them"
    output.print_line(f"note: {end}", err=True)
    if bundle_link.lacks_key:
        _print_missing_key(name)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _print_qr_code(text: str, columns: int | None) -> None:
    """Print a QR code, or why there is none."""
    try:
        output.print_line(draw_qr_code(text, columns), nl=False)
    except errors.QrCodeError as error:
        output.print_line(f"note: {error}; {error.remedy}", err=True)


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
        client_tables.print_events(events)
        client_tables.warn_of_alternation(events)


@client.command()
@click.argument("name")
@options.stack
@options.preview
def rotate(name: str, stack: str, preview: bool) -> None:
    """Have the next `pulumi up` replace a client's key and certificate, and print the steps.

    The former certificate is revoked; no other client notices. Run it when a bundle was lost or stolen.
    """
    rotation.order(lambda: rotations.plan_client_rotation(stack, name, datetime.now(UTC)), stack, preview=preview)


@client.command()
@click.argument("names", nargs=-1, metavar="NAME…")
@click.option("--all", "wants_all", is_flag=True, help="All clients of the stack.")
@click.option(
    "--within",
    callback=options.optional_period,
    help="Only those whose certificates end within this time: 12h, 30d, 8w.",
)
@options.of_account
@options.preview
def renew(
    names: tuple[str, ...],
    wants_all: bool,
    within: timedelta | None,
    stack: str,
    region: str | None,
    preview: bool,
) -> None:
    """Have the next `pulumi up` issue new certificates, and print the steps.

    The former certificates stay valid until they end, so no client is cut. Each `pulumi up` renews by itself what ends
    within `lifetimes.renewal`; run this to renew earlier.
    """
    if bool(names) == wants_all:
        raise click.UsageError("name the clients, or use --all")
    now = datetime.now(UTC)
    account = connect(stack, region=region)
    rotation.order_renewal(
        lambda: renewals.plan_renewal(account, names, within, now),
        stack,
        now,
        preview=preview,
        nothing="no client's certificate ends within this time" if within else f"{stack} has no clients",
    )
