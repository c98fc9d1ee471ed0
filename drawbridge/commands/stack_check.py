"""drawbridge stack check."""

from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options
from drawbridge.printable import escape_controls
from settings.notices import find_notices
from settings.parse import parse
from settings.problems import SettingsError
from settings.stack_file import read_stack_file, stack_name


@click.command()
@click.argument("stack_file", metavar="STACK", callback=options.stack_path)
def check(stack_file: Path) -> None:
    """Check the stack file of STACK, without AWS.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a path. Errors end it with exit code 1; warnings are of what can be
    deployed and probably is a mistake. It needs no root, no credentials and no network: what the account and the region
    have, `pulumi preview` checks.
    """
    try:
        settings = parse(read_stack_file(stack_file), stack=stack_name(stack_file), endpoint="http://127.0.0.1")
    except SettingsError as error:
        raise errors.StackError(str(error)) from error
    for notice in find_notices(settings):
        click.echo(escape_controls(f"warning: {notice}"), err=True)
    click.echo(f"{stack_file}: valid")
