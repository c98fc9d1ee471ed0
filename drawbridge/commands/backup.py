"""drawbridge stack backup, drawbridge stack restore."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.operate import stack_backup
from drawbridge.operate.lab_account import connect
from drawbridge.operate.stack_files import LAB

#: A passphrase is all that protects the file, and whoever has the file can guess as often as they like.
SHORTEST_PASSPHRASE = 12

_passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="File whose first line is the passphrase, - for standard input; otherwise you are asked.",
)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@_passphrase_file
@options.of_account
def backup(file: Path, force: bool, passphrase_file: Path | None, stack: str, region: str | None) -> None:
    """Save a stack's authority and bundles into FILE, encrypted with a passphrase.

    The file is in the format of age: `age --decrypt FILE` opens it as well.
    """
    # Before secrets are read and the operator thinks of a passphrase.
    stack_backup.check_target(file, replace=force)
    account = connect(stack, region=region, policy="deployer")
    passphrase = _read_passphrase(passphrase_file, confirm=True)
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise errors.BackupError(
            f"the passphrase has {len(passphrase)} characters, and nothing else protects the file",
            f"use {SHORTEST_PASSPHRASE} or more, such as six random words",
        )
    saved = stack_backup.take_backup(account, datetime.now(UTC))
    stack_backup.write_backup(saved, file, passphrase, replace=force)
    output.print_line(f"{file}: the authority of stack {stack} in {saved.region} and {_count(saved.clients)}")
    output.print_line("keep the passphrase elsewhere: who has both can be the gateway and every client")


@click.command()
@click.argument("file", type=options.InputFile())
@_passphrase_file
@options.of_account
def restore(file: Path, passphrase_file: Path | None, stack: str, region: str | None) -> None:
    """Restore the authority and bundles in FILE, which `stack backup` wrote, in another region or account.

    Nothing that exists there is overwritten. If it is interrupted, run it again. The next `pulumi up` then takes the
    authority over.
    """
    account = connect(stack, region=region, policy="deployer")
    saved = stack_backup.read_backup(file, _read_passphrase(passphrase_file, confirm=False))
    with output.progress() as progress:
        written = stack_backup.restore_backup(account, saved, progress)
    target = account.session.region_name
    output.print_line(
        f"stack {stack} in {target} has the authority of {saved.created} and {_count(saved.clients)}; "
        f"{len(written)} parameters were missing"
    )
    command = "drawbridge lab up" if stack == LAB else f"pulumi up --stack {stack}"
    output.print_line(f"1. {command}, with aws:region: {target} in the stack file")
    output.print_line(
        "2. certificates and keys of clients stay valid, but `remote` in bundles is the former address: fetch "
        "them again, or change it"
    )


def _count(clients: list[str]) -> str:
    return f"{len(clients)} bundle{'' if len(clients) == 1 else 's'}"


def _read_passphrase(file: Path | None, *, confirm: bool) -> str:
    if file is None:
        return str(click.prompt("passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BackupError(f"{file} cannot be read: {error}", "name a file with the passphrase") from error
    return text.rstrip("\r\n")
