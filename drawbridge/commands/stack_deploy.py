"""drawbridge stack up and destroy."""

from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.operate import claims, leftovers, pulumi_cli
from drawbridge.operate.lab_account import connect
from drawbridge.operate.stack_files import find_stack_file
from settings.stack_file import stack_name


@click.command()
@click.argument("stack_file", metavar="STACK", callback=options.stack_path)
def up(stack_file: Path) -> None:
    """Deploy STACK with Pulumi's CLI, without questions.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a path. A stack that is past its end is refused.
    """
    stack = stack_name(stack_file)
    pulumi_cli.deploy_stack(stack, stack_file, output.print_line)
    output.print_line(f"\nwait until it is ready: drawbridge gateway status --stack {stack} --wait 10m --no-login")


@click.command()
@click.argument("name")
@options.region
def destroy(name: str, region: str | None) -> None:
    """Destroy stack NAME with Pulumi's CLI, without questions, and release its name and ranges.

    The stack file stays. Exit 1 if anything is left in the account, and print it.
    """
    account, path = connect(name, region=region), find_stack_file(name)
    is_known = pulumi_cli.destroy_stack(name, path if path.is_file() else None, output.print_line)
    resources = leftovers.find_leftovers(account)
    if not resources:
        claims.release_claims(account, [claim for claim in claims.list_claims(account) if claim.stack == name])
        output.print_line(f"nothing of stack {name} is in the account")
        return
    if not is_known:
        raise errors.PulumiError(
            f"Pulumi's backend has no stack {name}, but the account has {len(resources)} resources of it",
            f"log in to the backend that it was deployed with; if its state is lost and its end past, run: "
            f"drawbridge stack reap {name}",
        )
    output.table(("left", "name"), [(resource.kind, resource.name) for resource in resources])
    raise SystemExit(1)
