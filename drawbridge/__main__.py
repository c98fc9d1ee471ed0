"""Entry of `drawbridge` and of `python -m drawbridge`."""

import logging

import click

from drawbridge.commands.access import access
from drawbridge.commands.client import client
from drawbridge.commands.gateway import gateway
from drawbridge.commands.lab import lab
from drawbridge.commands.options import Group
from drawbridge.commands.peer import peer
from drawbridge.commands.stack import stacks


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries do, to standard error.")
def cli(verbose: bool) -> None:
    """An OpenVPN gateway for AWS, and an AWS region on this machine to prove it in."""
    # Without a handler of its own paramiko logs its tracebacks to standard error, beside our one sentence.
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)


for noun in (lab, client, gateway, access, peer, stacks):
    cli.add_command(noun)


def main() -> None:
    """Runs the command and exits."""
    cli(prog_name="drawbridge")


if __name__ == "__main__":
    main()
