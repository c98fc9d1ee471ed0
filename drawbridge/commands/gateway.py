"""drawbridge gateway …"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from contract import GATEWAYS
from drawbridge.commands import options, output
from drawbridge.operate import bundle_probe, gateway_status
from drawbridge.operate.account import Account
from drawbridge.operate.lab_account import connect
from drawbridge.operate.ssh_login import SshTarget

F = TypeVar("F", bound=Callable[..., Any])


def _login(command: F) -> F:
    """Options of every command that logs in to the gateway."""
    for option in (
        click.option(
            "-i",
            "--identity",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Private SSH key; otherwise the lab's own, the SSH agent's or the usual files.",
        ),
        click.option("--user", default="admin", show_default=True, help="User to log in as."),
        click.option("--second", is_flag=True, help="The second gateway of a pair."),
    ):
        command = option(command)
    return options.of_account(command)


def _target(
    stack: str, region: str | None, user: str, identity: Path | None, second: bool
) -> tuple[Account, SshTarget]:
    where = replace(connect(stack, region=region), gateway=GATEWAYS[1 if second else 0])
    return where, gateway_status.ssh_target(where, user=user, identity=identity)


@click.group()
def gateway() -> None:
    """Look at a gateway: status, logs, reachability."""


@gateway.command()
@_login
@options.json
def status(stack: str, region: str | None, user: str, identity: Path | None, second: bool, wants_json: bool) -> None:
    """Show what the gateway runs and who is connected; exit 1 if it is not as it should be."""
    found = gateway_status.read_status(*_target(stack, region, user, identity, second))
    if wants_json:
        click.echo(output.as_json(found))
    else:
        output.table(
            ("", found.address),
            [
                ("state", " ".join(filter(None, (found.report.state, found.report.reason)))),
                ("release", f"{found.report.release[:12]} (wanted: {found.wanted[:12]})"),
                ("OpenVPN", " ".join(found.service.get(p, "?") for p in ("ActiveState", "SubState"))),
                ("since", found.service.get("ActiveEnterTimestamp", "?")),
                ("reported", found.report.time),
                *((f"link {tap}", state) for tap, state in sorted(found.links.items())),
            ],
        )
    if not wants_json and not found.links:
        click.echo()
        output.table(
            ("client", "address", "from", "since", "received", "sent"),
            [
                (s.client, s.address, s.real, f"{s.since:%Y-%m-%d %H:%M:%S}Z", str(s.received), str(s.sent))
                for s in found.sessions
            ],
        )
    if not found.healthy:
        raise SystemExit(1)


@gateway.command()
@_login
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(min=0), help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as new ones come, until Ctrl-C.")
def logs(
    stack: str, region: str | None, user: str, identity: Path | None, second: bool, lines: int, follow: bool
) -> None:
    """Show the journal of OpenVPN and of the gateway's agent."""
    _, where = _target(stack, region, user, identity, second)
    # Ctrl-C is how following ends, and no failure.
    with suppress(KeyboardInterrupt) if follow else nullcontext():
        for line in gateway_status.read_logs(where, lines=lines, follow=follow):
            click.echo(line, nl=False)


@gateway.command()
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--stack", envvar="DRAWBRIDGE_STACK", help="Its stack; AWS is then asked about what cannot be seen.")
@options.region
@options.json
def probe(bundle: Path, stack: str | None, region: str | None, wants_json: bool) -> None:
    """Tell within five seconds whether a client's BUNDLE gets through to its gateway, or why not.

    It makes no tunnel, needs no root, and ends no session. Exit 1 if the bundle does not get through.
    """
    where = connect(stack, region=region) if stack else None
    found = bundle_probe.probe_from_account(bundle_probe.read_bundle(bundle), where)
    if wants_json:
        click.echo(output.as_json(found))
    else:
        click.echo(f"{found.state}: {found.known} ({found.remote}, {found.seconds:.1f} s)")
        if not found.fine:
            click.echo(f"  -> {found.remedy}")
    if not found.fine:
        raise SystemExit(1)
