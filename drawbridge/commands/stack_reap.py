"""drawbridge stack reap."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.commands.stack import show_end
from drawbridge.operate import reaper
from drawbridge.operate.lab_account import connect_region
from drawbridge.operate.leftovers import find_leftovers
from drawbridge.operate.stack_inventory import StackSummary, list_summaries

#: Time for which a list of the stacks says what may be destroyed.
MAX_AGE = timedelta(minutes=1)


@click.command()
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@options.region
def reap(name: str | None, dry_run: bool, region: str | None) -> None:
    """Destroy all stacks of the account and region that are past their end, or only NAME.

    It goes by the tags and names of resources, so it needs neither stack files nor Pulumi's state, and cleans up after
    jobs that died. What has no end, and what is not the stack's, is never touched. Exit 1 if something could not be
    deleted.
    """
    account, now = connect_region(region), datetime.now(UTC)
    summaries = list_summaries(account)
    if name:
        summaries = [_find_past(name, summaries, now)]
    past = [summary for summary in summaries if summary.is_past(now)]
    if not past:
        output.print_line("no stack is past its end")
    is_left = False
    for summary in past:
        if datetime.now(UTC) - now > MAX_AGE:
            # Somebody may have given a later stack more time meanwhile.
            now = datetime.now(UTC)
            summaries = list_summaries(account)
        if not any(current.name == summary.name and current.is_past(now) for current in summaries):
            continue
        stack_account = replace(account, stack=summary.name)
        if dry_run:
            resources = find_leftovers(stack_account)
            output.print_line(f"stack {summary.name} of {summary.owner or 'nobody'}, end {show_end(summary)}:")
            rows = [(resource.kind, resource.name) for resource in resources]
            output.table(("would be deleted", ""), rows or [("claims", "its name and ranges")])
            continue
        output.print_line(f"destroying stack {summary.name} of {summary.owner or 'nobody'}, end {show_end(summary)}")
        with output.progress() as progress:
            remainders = reaper.reap_stack(stack_account, progress, poll=reaper.POLL, timeout=reaper.TIMEOUT)
        if remainders:
            is_left = True
            output.table(
                ("not deleted", "", "because"),
                [(entry.resource.kind, entry.resource.name, entry.reason) for entry in remainders],
            )
        else:
            output.print_line(f"nothing of stack {summary.name} is left")
    if is_left:
        raise SystemExit(1)


def _find_past(name: str, summaries: list[StackSummary], now: datetime) -> StackSummary:
    """Return the stack of that name; raises `StackError` if it must not be destroyed."""
    summary = next((summary for summary in summaries if summary.name == name), None)
    if summary is None:
        raise errors.StackError(
            f"there is no stack {name} in the account and region", "see what there is: drawbridge stack list"
        )
    if not summary.is_past(now):
        reason = "has no end" if summary.end is None else f"ends on {summary.end:%Y-%m-%d %H:%MZ}"
        raise errors.StackError(
            f"stack {name} {reason}", f"destroy it by its stack file and state: drawbridge stack destroy {name}"
        )
    return summary
