"""drawbridge access …"""

from ipaddress import IPv4Address, IPv4Network

import click

from drawbridge.commands import options, output
from drawbridge.operate import ingress_rules
from drawbridge.operate.lab_account import connect
from settings.checks.public import find_unroutable


@click.group()
def access() -> None:
    """Let in an address that changes."""


def _public_address(ctx: click.Context, parameter: click.Parameter, address: IPv4Address | None) -> IPv4Address | None:
    """Return the address; raises `click.BadParameter` for one that the Internet does not route."""
    if address and (reserved := find_unroutable(IPv4Network(address))):
        raise click.BadParameter(f"{address} is not a public address: it is one of the {reserved}", ctx, parameter)
    return address


@access.command("allow-me")
@click.option("--client", help="Open the tunnel to this client; without it, SSH to the admin.")
@click.option(
    "--address",
    type=options.Address(),
    callback=_public_address,
    help="The address to let in; by default this machine's public one.",
)
@options.of_account
@options.json
def allow_me(client: str | None, address: IPv4Address | None, stack: str, region: str | None, wants_json: bool) -> None:
    """Let in your public address, and remove the one you had before."""
    change = ingress_rules.allow_me(connect(stack, region=region), client, address)
    if wants_json:
        output.print_line(output.as_json(change))
    elif change.duplicate:
        output.print_line(f"{change.follows}: another rule lets this address in already; {change.before} stays let in")
    elif change.before == change.after:
        output.print_line(f"{change.follows}: {change.after} was already let in")
    else:
        output.print_line(f"{change.follows}: {change.after} is let in, {change.before} no longer")
