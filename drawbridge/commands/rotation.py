"""Carry out and print a rotation, for each `drawbridge … rotate`."""

from drawbridge.commands import output
from drawbridge.operate.rotations import SECTION, Rotation


def order(rotation: Rotation, stack: str, *, preview: bool) -> None:
    """Write a rotation into the stack file unless this is a preview, and print the steps that follow."""
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


def _describe_delivery(client: str, stack: str, *, has_kit: bool) -> str:
    if has_kit:
        return f"run on {client} what this prints: drawbridge client kit {client} --stack {stack}"
    return f"drawbridge client fetch {client} --force --stack {stack}, and bring the file to {client}"
