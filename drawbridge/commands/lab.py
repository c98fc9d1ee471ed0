"""drawbridge lab …"""

import sys

import click

from drawbridge.commands import options, output
from drawbridge.commands.lazy import LazyCommand, LazyGroup
from lab import region as labs
from lab.errors import NotUp
from lab.linux import require_privileges

#: Their modules load Pulumi's SDK and the engine.
DEPLOYING = {
    "try": LazyCommand(
        "drawbridge.commands.lab_trial", "try_", "Deploy STACK into a region of its own, check it, take it down."
    ),
    "up": LazyCommand("drawbridge.commands.lab_trial", "up", "Start the region with stack lab, and leave it running."),
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
def exec_(host: str, command: tuple[str, ...], timeout: float) -> None:
    """Run a command in a machine of the lab: drawbridge lab exec HOST -- CMD.

    Standard input goes to the command; its output and exit code come back.
    """
    require_privileges()
    region = labs.connect()
    if region is None:
        raise NotUp("no lab runs on this machine")
    stdin = None if sys.stdin.isatty() else sys.stdin.read()
    done = region.host(host).run(command, timeout=timeout, stdin=stdin)
    # Another program gets every byte; a terminal is not obeyed by a machine that somebody else may have taken over.
    for text, stream in ((done.stdout, sys.stdout), (done.stderr, sys.stderr)):
        show = output.print_line if stream.isatty() else click.echo
        show(text, nl=False, err=stream is sys.stderr)
    raise SystemExit(done.returncode)


@lab.command()
@options.json
def status(wants_json: bool) -> None:
    """Show the region that runs on this machine, and its machines."""
    region = labs.connect()
    state = region.status() if region else {}
    if wants_json:
        output.print_line(output.as_json(state))
    elif region is None:
        output.print_line("no lab runs on this machine; start one: make lab")
    else:
        output.print_line(f"AWS API: {region.endpoint}\n")
        sites = {site["name"]: site for site in state["sites"]}
        output.table(
            ("machine", "is", "address", "public"),
            [
                (i["name"], f"{i['type']}, {i['state']}", i["address"] or "", i["public"] or "")
                for i in state["instances"]
            ]
            + [
                (h["name"], f"host at {h['site']}", h["address"] or "", sites[h["site"]]["public"])
                if h["site"]
                else (h["name"], "host on the Internet", h["address"], h["address"])
                for h in state["hosts"]
            ],
        )


@lab.command()
def down() -> None:
    """Remove every namespace, mount, process and file of the lab, also after a crash. The image stays in its cache."""
    require_privileges()
    with output.progress() as progress:
        progress("taking the lab down")
        removed = labs.down()
    output.print_line("the lab is removed" if removed else "there was no lab to remove")
