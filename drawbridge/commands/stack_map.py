"""drawbridge map."""

from pathlib import Path
from typing import TextIO

import click

from drawbridge import errors
from drawbridge.commands import options
from drawbridge.operate.stack_map import render_map
from settings.parse import parse
from settings.problems import SettingsError
from settings.stack_file import read_stack_file, stack_name


@click.command("map")
@click.argument("stack_file", metavar="STACK", callback=options.stack_path)
@click.option(
    "-o",
    "--output",
    type=click.File("w", encoding="utf-8", lazy=True),
    default="-",
    metavar="FILE",
    help="File to write the drawing to, such as prod.svg; otherwise standard output.",
)
def map_stack(stack_file: Path, output: TextIO) -> None:
    """Draw STACK as SVG: networks, addresses, and who reaches whom.

    STACK is a name (stacks/Pulumi.NAME.yaml) or a path. The drawing is made from the file alone, without AWS: what AWS
    chooses, such as the Elastic IP, has a name and no value.
    """
    try:
        settings = parse(read_stack_file(stack_file), stack=stack_name(stack_file), endpoint="http://127.0.0.1")
    except SettingsError as error:
        raise errors.StackError(str(error)) from error
    output.write(render_map(settings))
