"""drawbridge access …"""

from ipaddress import IPv4Address

import click

from drawbridge.commands import options, output
from drawbridge.operate import ingress_rules
from drawbridge.operate.lab_account import connect


@click.group()
def access() -> None:
    """Let in an address that changes."""


class _Address(click.ParamType[IPv4Address]):
    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> IPv4Address:
        try:
            return IPv4Address(str(value))
        except ValueError:
            self.fail(f"{value} is no IPv4 address", param, ctx)


@access.command("allow-me")
@click.option("--client", help="Let this client come to the tunnel from here; without it, the admin to SSH.")
@click.option("--address", type=_Address(), help="The address to let in; this machine's own if not given.")
@options.of_account
@options.json
def allow_me(client: str | None, address: IPv4Address | None, stack: str, region: str | None, wants_json: bool) -> None:
    """Let your public address in, and no longer the one you had before."""
    moved = ingress_rules.allow_me(connect(stack, region=region), client, address)
    if wants_json:
        click.echo(output.as_json(moved))
    elif moved.before == moved.after:
        click.echo(f"{moved.follows}: {moved.after} is let in already")
    else:
        click.echo(f"{moved.follows}: {moved.after} is let in, {moved.before} no longer")
