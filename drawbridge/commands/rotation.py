"""Carry out and print a rotation, for each `drawbridge … rotate`, or a renewal."""

from collections.abc import Callable
from datetime import datetime

from drawbridge.commands import output
from drawbridge.operate.renewals import KEY, Renewal
from drawbridge.operate.rotations import SECTION, Rotation, deploy_command
from drawbridge.operate.stack_file_lock import lock_stack_file
from drawbridge.operate.stack_files import find_stack_file


def order(plan: Callable[[], Rotation], stack: str, *, preview: bool) -> None:
    """Write a rotation into the stack file unless this is a preview, and print the steps that follow.

    `plan` reads the file, which no other command changes meanwhile.
    """
    with lock_stack_file(find_stack_file(stack)):
        rotation = plan()
        if not preview:
            rotation.write()
    verb = "would get" if preview else "has"
    output.print_line(f"{rotation.stack_file} {verb} {SECTION}, {', '.join(rotation.keys)}: {rotation.moment}")
    output.print_line("nothing changes before the next deployment; the steps, in this order:")
    for number, step in enumerate(rotation.steps, 1):
        output.print_line(f"{number}. {step}")
    last = len(rotation.steps) + 1
    if rotation.clients:
        output.print_line(f"{last}. these clients do not connect again before they have their new bundles:")
        kits = {client.name for client in rotation.kits}
        deliveries = [
            (client.name, _describe_delivery(client.name, stack, has_kit=client.name in kits))
            for client in rotation.clients
        ]
        output.table(("client", "how it gets the new bundle"), deliveries)
        last += 1
    output.print_line(f"{last}. drawbridge gateway status --stack {stack}: who is connected again")


def order_renewal(
    plan: Callable[[], Renewal | None], stack: str, now: datetime, *, preview: bool, nothing: str
) -> None:
    """Write a renewal into the stack file unless this is a preview, and print the steps that follow.

    `plan` reads the file, which no other command changes meanwhile. `nothing` is printed if there is nothing to renew.
    """
    with lock_stack_file(find_stack_file(stack)):
        renewal = plan()
        if renewal and not preview:
            renewal.write()
    if renewal is None:
        output.print_line(nothing)
        return
    verb = "would get" if preview else "has"
    moment = renewal.moments[renewal.clients[0].name]
    count = f"{len(renewal.clients)} client" + ("s" if len(renewal.clients) > 1 else "")
    output.print_line(f"{renewal.stack_file} {verb} {SECTION}, {KEY}, for {count}: {moment}")
    output.print_line("nothing changes before the next deployment; the steps, in this order:")
    output.print_line(f"1. {deploy_command(stack)}: no session ends, and no certificate is revoked")
    output.print_line("2. each client needs its new bundle before its former certificate ends:")
    rows = [
        (
            client.name,
            f"{client.not_after:%Y-%m-%d}" + (" (ended)" if client.not_after <= now else ""),
            _describe_delivery(client.name, stack, has_kit=client.name in renewal.kits),
        )
        for client in renewal.clients
    ]
    output.table(("client", "former one ends", "how it gets the new bundle"), rows)


def _describe_delivery(client: str, stack: str, *, has_kit: bool) -> str:
    if has_kit:
        return f"run on {client} what this prints: drawbridge client kit {client} --stack {stack}"
    return f"drawbridge client fetch {client} --force --stack {stack}, and bring the file to {client}"
