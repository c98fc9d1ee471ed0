"""drawbridge stack audit, cost, list and rotate."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output, rotation
from drawbridge.operate import leftovers, monthly_cost, rotations, stack_inventory
from drawbridge.operate.account import Account
from drawbridge.operate.lab_account import connect, connect_region
from drawbridge.printable import escape_controls
from settings.notices import find_notices
from settings.parse import parse
from settings.problems import SettingsError
from settings.stack_file import read_stack_file, stack_name


@click.command()
@click.argument("stack_file", metavar="STACK", callback=options.stack_path)
@click.option("--connected", default=160.0, show_default=True, help="Hours a month that each client is connected.")
@click.option("--out", default=10.0, show_default=True, help="Gigabytes a month from AWS to clients and sites.")
@click.option(
    "--load", default=100.0, show_default=True, help="Average CPU load in percent, which `credits: unlimited` bills."
)
@options.json
def cost(stack_file: Path, connected: float, out: float, load: float, wants_json: bool) -> None:
    """Show what STACK costs in a month, beside AWS Site-to-Site VPN and Client VPN for the same inputs.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a path.
    """
    try:
        raw = read_stack_file(stack_file)
        name = stack_name(stack_file)
        parsed = parse(raw, stack=name, endpoint="http://127.0.0.1")
    except SettingsError as error:
        raise errors.StackError(str(error)) from error
    for notice in find_notices(parsed):
        click.echo(escape_controls(f"warning: {notice}"), err=True)
    bills = monthly_cost.compare_costs(parsed, monthly_cost.Usage(connected=connected, out=out, load=load))
    day, region = monthly_cost.price_date()
    if wants_json:
        shown = [{"name": bill.name, "dollars": round(bill.dollars, 2), "items": bill.items} for bill in bills]
        output.print_line(output.as_json({"date": str(day), "region": region, "bills": shown}))
        return
    rows = [
        (bill.name, f"{bill.dollars:8.2f}", ", ".join(f"{item.name} {item.dollars:.2f}" for item in bill.items))
        for bill in bills
    ]
    output.table(("", "US$ a month", "of which"), rows)
    output.print_line(f"\nlist prices of {region}, {day}: {monthly_cost.PRICES.name}")


@click.command()
@click.argument("name", required=False)
@click.option("--all", "wants_all", is_flag=True, help="All stacks of the region, each with what it has left.")
@options.of_account
@options.json
def audit(name: str | None, wants_all: bool, stack: str, region: str | None, wants_json: bool) -> None:
    """List all resources of a stack in the account; exit 1 if there are any, as none may be after `pulumi destroy`.

    It needs no stack file if the region is given. With --all, it exits 1 if a stack is past its end, or is deployed in
    part, without a gateway.
    """
    if wants_all:
        if name:
            raise click.UsageError("--all cannot be combined with NAME")
        _audit_all(connect_region(region), wants_json=wants_json)
        return
    stack = name or stack
    account = connect(stack, region=region)
    resources = leftovers.find_leftovers(account)
    for key in leftovers.find_pending_keys(account):
        # Beside the list: with --json the output is that alone.
        click.echo(
            f"key {key.id} is not counted: AWS deletes it on {key.deletion:%Y-%m-%d} and charges nothing", err=True
        )
    if wants_json:
        output.print_line(output.as_json(resources))
    elif resources:
        output.table(("resource", "name"), [(resource.kind, resource.name) for resource in resources])
    else:
        output.print_line(f"nothing of stack {stack} is in the account")
    if resources:
        raise SystemExit(1)


def _audit_all(account: Account, *, wants_json: bool) -> None:
    now = datetime.now(UTC)
    rows = []
    for summary in stack_inventory.list_summaries(account):
        resources = leftovers.find_leftovers(replace(account, stack=summary.name))
        if resources:
            rows.append((summary, summary.describe_orphan(now), resources))
    if wants_json:
        audits = [
            {"stack": summary.name, "orphan": orphan, "resources": resources} for summary, orphan, resources in rows
        ]
        output.print_line(output.as_json(audits))
    elif rows:
        output.table(
            ("stack", "resources", "state", "end", ""),
            [
                (summary.name, str(len(resources)), summary.state, show_end(summary), orphan)
                for summary, orphan, resources in rows
            ],
        )
    else:
        output.print_line("no stack is deployed in the region")
    if any(orphan for _, orphan, _ in rows):
        raise SystemExit(1)


@click.command("list")
@options.region
@options.json
def list_stacks(region: str | None, wants_json: bool) -> None:
    """List all stacks of the account and region: owner, end, state, and cost a month without traffic.

    It needs no stack file. A stack whose resources have no end, or not all of them, stays.
    """
    summaries = stack_inventory.list_summaries(connect_region(region))
    if wants_json:
        output.print_line(output.as_json(summaries))
        return
    output.table(
        ("stack", "owner", "end", "state", "US$ a month"),
        [
            (
                summary.name,
                summary.owner,
                show_end(summary),
                summary.state,
                "?" if summary.dollars is None else f"{summary.dollars:.2f}",
            )
            for summary in summaries
        ],
    )


def show_end(summary: stack_inventory.StackSummary) -> str:
    """Return a stack's end for people."""
    if summary.end is None:
        return "none"
    return f"{summary.end:%Y-%m-%d %H:%MZ}" + (" (past)" if summary.is_past(datetime.now(UTC)) else "")


@click.command()
@options.stack
@options.preview
def rotate(stack: str, preview: bool) -> None:
    """Have the next `pulumi up` replace all of a stack's keys and certificates, and print the steps.

    New are the authority, what `drawbridge gateway rotate` replaces, and every client's key. All former certificates
    are revoked. It is for a theft: any `pulumi up` renews what ends soon, the authority among it, and cuts nobody.
    """
    rotation.order(lambda: rotations.plan_stack_rotation(stack, datetime.now(UTC)), stack, preview=preview)
