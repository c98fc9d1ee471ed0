"""drawbridge image …"""

from datetime import UTC, datetime
from typing import get_args

import click

from drawbridge.commands import options, output
from drawbridge.operate import image_build, prepared_images
from drawbridge.operate.lab_account import connect
from drawbridge.operate.stack_files import configured_architecture
from images import Architecture


@click.group()
def image() -> None:
    """Prepared images: Debian with a gateway's packages.

    A gateway whose stack file says `gateway.image: ours` boots from the newest one, and installs nothing.
    """


@image.command()
@click.option(
    "--architecture",
    type=click.Choice(get_args(Architecture)),
    help="Processor architecture; otherwise that of the stack file's gateway.instanceType.",
)
@click.option("--subnet", metavar="ID", help="Subnet for the machine that is built on; otherwise a VPC of its own.")
@click.option(
    "--backports",
    is_flag=True,
    help="OpenVPN and the kernel of Debian's backports, for tunnel.dataChannelOffload: gateway.image ours-backports.",
)
@options.of_account
@options.json
def build(
    architecture: Architecture | None,
    subnet: str | None,
    backports: bool,
    stack: str,
    region: str | None,
    wants_json: bool,
) -> None:
    """Build an image of the newest Debian with a gateway's packages.

    Everything else that it creates is removed at its end, also if it fails or is interrupted.
    """
    account = connect(stack, region=region, policy="image-builder")
    with output.progress(quiet=wants_json) as progress:
        built = image_build.build_image(
            account, architecture or configured_architecture(stack), progress, subnet=subnet, backports=backports
        )
    output.print_line(output.as_json(built) if wants_json else built.id)


@image.command("list")
@options.of_account
@options.json
def list_(stack: str, region: str | None, wants_json: bool) -> None:
    """List the prepared images of the account and region, newest first."""
    entries = prepared_images.list_images(connect(stack, region=region, policy="image-builder"))
    if wants_json:
        output.print_line(output.as_json(entries))
        return
    now = datetime.now(UTC)
    output.table(
        ("image", "state", "architecture", "days old", "Debian", "OpenVPN", "US$ a month", "stacks"),
        [
            (
                *(entry.id, entry.state, entry.architecture, str(entry.days_old(now)), entry.debian, entry.openvpn),
                *(f"{entry.dollars:.2f}", ", ".join(entry.stacks)),
            )
            for entry in entries
        ],
    )


@image.command()
@click.argument("name", metavar="IMAGE")
@options.of_account
def remove(name: str, stack: str, region: str | None) -> None:
    """Deregister a prepared image, by its ID, and delete its snapshot. One that an instance runs on is refused."""
    prepared_images.remove_image(connect(stack, region=region, policy="image-builder"), name)
    output.print_line(f"{name} and its snapshot are removed")
