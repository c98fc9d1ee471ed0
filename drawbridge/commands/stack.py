"""drawbridge stack audit, cost and rotate."""

from datetime import UTC, datetime
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output, rotation
from drawbridge.operate import leftovers, monthly_cost, rotations
from drawbridge.operate.lab_account import connect
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
@options.of_account
@options.json
def audit(stack: str, region: str | None, wants_json: bool) -> None:
    """List all resources of a stack in the account; exit 1 if there are any, as none may be after `pulumi destroy`."""
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


@click.command()
@options.stack
@options.preview
def rotate(stack: str, preview: bool) -> None:
    """Have the next `pulumi up` replace all of a stack's keys and certificates, and print the steps.

    New are the authority, what `drawbridge gateway rotate` replaces, and every client's key. All former certificates
    are revoked. It is for a theft: any `pulumi up` renews what ends soon, the authority among it, and cuts nobody.
    """
    rotation.order(rotations.plan_stack_rotation(stack, datetime.now(UTC)), stack, preview=preview)
