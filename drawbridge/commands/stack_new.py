"""drawbridge stack new."""

import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import click

from drawbridge import errors
from drawbridge.commands import options, output
from drawbridge.operate import address_pools, stack_creation
from drawbridge.operate.account import Account
from drawbridge.operate.claims import MOMENT
from drawbridge.operate.lab_account import connect
from drawbridge.operate.stack_files import new_stack_file
from drawbridge.printable import escape_controls
from settings.notices import find_notices
from settings.ssh_key import is_complete


@click.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    metavar="STACK",
    default="tenant",
    show_default=True,
    callback=options.stack_path,
    help="Stack file to start from, by its stack's name or by path.",
)
@click.option("--ttl", callback=options.optional_period, help="Time after which it may be destroyed, such as 4h or 7d.")
@click.option("--owner", help="Who it belongs to; otherwise the caller of AWS.")
@click.option("--ssh-key", metavar="KEY", help="Public key for SSH to the gateway: the key itself or its file.")
@click.option(
    "--admin-from", metavar="RANGE", multiple=True, help="Range that may use SSH, such as 203.0.113.7/32; repeatable."
)
@click.option("--no-ssh", is_flag=True, help="Let nobody in over SSH, as for a CI job.")
@click.option(
    "--ipam-pool",
    metavar="ID",
    help="IPAM pool that gives the VPC its range; otherwise the region's one with the tag "
    f"{address_pools.TAG_KEY}: {address_pools.TAG_VALUE}.",
)
@options.region
def new(
    name: str,
    source: Path,
    ttl: timedelta | None,
    owner: str | None,
    ssh_key: str | None,
    admin_from: tuple[str, ...],
    no_ssh: bool,
    ipam_pool: str | None,
    region: str | None,
) -> None:
    """Write the stack file of NAME, with ranges that no other stack of the account and region has.

    VPC and tunnel get ranges of 10.0.0.0/8 that are claimed in the account, so that any number of people and jobs can
    run it at once. If the account has an IPAM pool for it, the VPC gets a range of the pool. On a terminal, it asks for
    the SSH key and for the addresses that may use it.
    """
    path = new_stack_file(name)
    stack_creation.check_name(name, path)
    settings = stack_creation.read_source(source, name)
    if no_ssh and (ssh_key or admin_from):
        raise click.UsageError("--no-ssh cannot be combined with --ssh-key or --admin-from")
    key, ranges = (None, ()) if no_ssh else _ask_for_access(ssh_key, admin_from)
    account = connect(name, region=region or settings.region)
    pool = _find_pool(account, ipam_pool)
    created = stack_creation.create_stack(
        account,
        stack_creation.StackRequest(
            name=name,
            source=source,
            owner=owner or stack_creation.find_owner(account),
            end=datetime.now(UTC).replace(microsecond=0) + ttl if ttl else None,
            region=region,
            ssh_key=key,
            admin_from=ranges,
            pool=pool,
        ),
    )
    for notice in find_notices(created.settings):
        click.echo(escape_controls(f"warning: {notice}"), err=True)
    ranges_of = [("VPC", str(vpc.cidr)) for vpc in created.settings.vpcs if not vpc.vpc_id]
    output.table(
        ("file", str(created.path)),
        [
            *ranges_of,
            *([("IPAM pool", pool)] if pool and ranges_of else []),
            ("tunnel", str(created.settings.tunnel.pool)),
            ("owner", created.claims[0].owner),
            ("end", created.claims[0].end.strftime(MOMENT) if created.claims[0].end else "none"),
        ],
    )
    output.print_line(f"\ndeploy it: drawbridge stack up {name}")


def _find_pool(account: Account, named: str | None) -> str | None:
    """Return the IPAM pool to use, if any; whoever names none needs no permission to look for one."""
    try:
        return address_pools.find_pool(account, named)
    except errors.AccessDeniedError as error:
        if named:
            raise
        click.echo(
            escape_controls(f"warning: AWS denies {error.permission}, so the VPC gets a range without an IPAM pool"),
            err=True,
        )
        return None


def _ask_for_access(ssh_key: str | None, admin_from: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the public key and the ranges for SSH, asked for on a terminal if they are not given."""
    if not (ssh_key and admin_from) and not _is_terminal():
        missing = [name for name, value in (("--ssh-key", ssh_key), ("--admin-from", admin_from)) if not value]
        raise errors.StackError(
            f"who may log in to the gateway is not known: {' and '.join(missing)} must be given",
            "give them, or --no-ssh for a gateway without SSH; on a terminal you are asked",
        )
    if not ssh_key:
        files = [path for path in sorted(Path.home().glob(".ssh/id_*.pub")) if path.is_file()]
        ssh_key = click.prompt("Public SSH key, or its file", default=str(files[0]) if files else None)
    key = _read_key(str(ssh_key))
    if not admin_from:
        answer = str(click.prompt("Ranges that may use SSH, such as 203.0.113.7/32"))
        admin_from = tuple(answer.replace(",", " ").split())
    return key, tuple(map(_parse_range, admin_from))


def _read_key(value: str) -> str:
    """Return the public key that a text is, or that the file of that name holds."""
    text = value
    if not value.startswith(("ssh-", "ecdsa-")):
        try:
            text = Path(value).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(
                f"{value} is neither a public key nor a file that can be read", param_hint="--ssh-key"
            ) from error
    text = text.strip()
    if "\n" in text or not is_complete(text):
        raise click.BadParameter(
            "not the one line of a public key of OpenSSH, such as ~/.ssh/id_ed25519.pub has", param_hint="--ssh-key"
        )
    return text


def _parse_range(value: str) -> str:
    """Return a range with its prefix length."""
    try:
        return str(IPv4Network(value))
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a valid IPv4 range: {error}", param_hint="--admin-from") from error


def _is_terminal() -> bool:
    return sys.stdin.isatty()
