"""drawbridge stack …: the group, whose commands are imported when they run."""

import click

from drawbridge.commands.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "audit": LazyCommand(
        "drawbridge.commands.stack",
        "audit",
        "List all resources of a stack in the account; exit 1 if there are any, as none may be after `pulumi destroy`.",
    ),
    "backup": LazyCommand(
        "drawbridge.commands.backup",
        "backup",
        "Save a stack's authority and bundles into FILE, encrypted with a passphrase.",
    ),
    "check": LazyCommand("drawbridge.commands.stack_check", "check", "Check the stack file of STACK, without AWS."),
    "cost": LazyCommand(
        "drawbridge.commands.stack",
        "cost",
        "Show what STACK costs in a month, beside AWS Site-to-Site VPN and Client VPN for the same inputs.",
    ),
    "destroy": LazyCommand(
        "drawbridge.commands.stack_deploy",
        "destroy",
        "Destroy stack NAME with Pulumi's CLI, without questions, and release its name and ranges.",
    ),
    "list": LazyCommand(
        "drawbridge.commands.stack",
        "list_stacks",
        "List all stacks of the account and region: owner, end, state, and cost a month without traffic.",
    ),
    "new": LazyCommand(
        "drawbridge.commands.stack_new",
        "new",
        "Write the stack file of NAME, with ranges that no other stack of the account and region has.",
    ),
    "reap": LazyCommand(
        "drawbridge.commands.stack_reap",
        "reap",
        "Destroy all stacks of the account and region that are past their end, or only NAME.",
    ),
    "restore": LazyCommand(
        "drawbridge.commands.backup",
        "restore",
        "Restore the authority and bundles in FILE, which `stack backup` wrote, in another region or account.",
    ),
    "rotate": LazyCommand(
        "drawbridge.commands.stack",
        "rotate",
        "Have the next `pulumi up` replace all of a stack's keys and certificates, and print the steps.",
    ),
    "up": LazyCommand("drawbridge.commands.stack_deploy", "up", "Deploy STACK with Pulumi's CLI, without questions."),
}


@click.group("stack", cls=LazyGroup, lazy=COMMANDS)
def stacks() -> None:
    """A stack as a whole: its cost, backup and leftovers."""
