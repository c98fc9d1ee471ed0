"""drawbridge lab …"""

import shlex
import sys
from collections.abc import Iterator
from typing import Any

import click

import contract
from contract import GATEWAYS
from drawbridge.commands import options, output
from drawbridge.commands.lazy import LazyCommand, LazyGroup
from drawbridge.operate.stack_files import LAB, configured_region
from drawbridge.operate.stack_records import StackRecord, list_records
from lab import region as labs
from lab.errors import NotUp
from lab.linux import require_privileges
from lab.paths import DEFAULT_LAB

#: Their modules load Pulumi's SDK and the engine.
DEPLOYING = {
    "try": LazyCommand(
        "drawbridge.commands.lab_trial", "try_", "Deploy STACK into a region of its own, check it, take it down."
    ),
    "up": LazyCommand(
        "drawbridge.commands.lab_trial", "up", "Deploy stacks into the region on this machine, and leave them running."
    ),
    "replace": LazyCommand(
        "drawbridge.commands.lab_trial",
        "replace",
        "Replace the instance of a stack's gateway, and show how long a client had no answer.",
    ),
    "destroy": LazyCommand(
        "drawbridge.commands.lab_trial",
        "destroy",
        "Destroy a stack of the region on this machine, and list what is left of it.",
    ),
}


@click.group(cls=LazyGroup, lazy=DEPLOYING)
def lab() -> None:
    """An AWS region on this machine, with real packets.

    It serves the AWS API, boots real machines, and forwards their packets by AWS's rules.
    """


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds the command may take.")
@options.lab
def exec_(host: str, command: tuple[str, ...], timeout: float, lab: str) -> None:
    """Run a command in a machine of the lab: drawbridge lab exec HOST -- CMD.

    Standard input goes to the command; its output and exit code come back.
    """
    require_privileges()
    region = _connect(lab)
    stdin = None if sys.stdin.isatty() else sys.stdin.read()
    done = region.host(host).run(command, timeout=timeout, stdin=stdin)
    # Another program gets every byte; a terminal is not obeyed by a machine that somebody else may have taken over.
    for text, stream in ((done.stdout, sys.stdout), (done.stderr, sys.stderr)):
        show = output.print_line if stream.isatty() else click.echo
        show(text, nl=False, err=stream is sys.stderr)
    raise SystemExit(done.returncode)


@lab.command()
@options.lab
@options.json
def status(lab: str, wants_json: bool) -> None:
    """Show the region that runs on this machine, its stacks and its machines; exit 1 if none runs."""
    region = _connect(lab)
    state = region.status()
    records = list_records(region)
    if wants_json:
        stacks = [
            {"name": r.stack, "file": r.file, "region": r.aws_region, "clients": list(r.clients)} for r in records
        ]
        output.print_line(output.as_json({**state, "stacks": stacks}))
    else:
        output.print_line(f"AWS API: {region.endpoint}\n")
        if records:
            output.table(
                ("stack", "AWS region", "clients", "file"),
                [(r.stack, r.aws_region, ", ".join(r.clients), r.file) for r in records],
            )
            output.print_line()
        output.table(("machine", "stack", "is", "address", "public"), _list_machines(state, records))


def _list_machines(state: dict[str, Any], records: list[StackRecord]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each machine: name, stack, what it is, address, public address."""
    owners = {machine: record.stack for record in records for machine in record.machines.values()}
    gateways = [(record.stack, contract.Names(record.stack, letter)) for record in records for letter in GATEWAYS]
    owners |= {names.display_name("gateway"): stack for stack, names in gateways}
    sites = {site["name"]: site for site in state["sites"]}
    for i in state["instances"]:
        kind = f"{i['type']}, {i['state']}"
        yield i["name"], owners.get(i["name"], ""), kind, i["address"] or "", i["public"] or ""
    for h in state["hosts"]:
        kind, public = (
            (f"host at {h['site']}", sites[h["site"]]["public"])
            if h["site"]
            else ("host on the Internet", h["address"])
        )
        yield h["name"], owners.get(h["name"], ""), kind, h["address"] or "", public


@lab.command()
@options.lab
def env(lab: str) -> None:
    """Print the variables that point a shell at the region: eval "$(drawbridge lab env)".

    In that shell the AWS CLI and this command reach the region's stacks, each by its own name: drawbridge client list
    --stack NAME. The AWS region is that of its stacks, the first one's by name; without any, that of stack lab's file.
    """
    require_privileges()
    region = _connect(lab)
    aws_region = next((record.aws_region for record in list_records(region)), None) or configured_region(LAB)
    # The AWS CLI's first version and boto3 read the latter variable alone.
    regions = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), aws_region) if aws_region else {}
    for name, value in {**region.environment, **regions, "DRAWBRIDGE_LAB": lab}.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@lab.command()
@options.lab
def down(lab: str) -> None:
    """Remove every namespace, mount, process and file of the lab, also after a crash. The image stays in its cache."""
    require_privileges()
    with output.progress() as progress:
        progress("taking the lab down")
        removed = labs.down(lab)
    output.print_line("the lab is removed" if removed else "there was no lab to remove")


def _connect(lab: str) -> labs.Region:
    """Return a running lab; raises `NotUp` if there is none of that name."""
    region = labs.connect(lab)
    if region is None:
        named = "" if lab == DEFAULT_LAB else f" named {lab}"
        others = [name for name in labs.running() if name != lab]
        running = f"; others run: {', '.join(others)}; name one with --lab" if others else ""
        raise NotUp(f"no lab{named} runs on this machine{running}")
    return region
