"""Stacks as tests of worlds have them: deployed, their hosts in place, their gateway running what was asked."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import place_hosts, run_checked
from drawbridge.trial.routed import wait_report
from lab.errors import LabError
from lab.region import Host, Region, disposable_region
from settings.stack_file import read_stack_file


def world_config(world: str) -> dict[str, Any]:
    """A world's configuration, as its stack file has it."""
    return read_stack_file(find_stack_file(world))


def deploy_world(region: Region, stack: str, raw: Mapping[str, Any]) -> Deployment:
    """Deploy a stack, or what it is now, and wait until its gateway runs that; hosts that lack are placed."""
    made = deploy(region, stack, raw, lambda _: None)
    place_hosts(made, lambda _: None)
    return wait_current(made)


def wait_current(made: Deployment) -> Deployment:
    """Wait until a stack's gateway runs what was deployed: it is told to look now, as its timer does every 30 s."""
    if made.gateway.leader:
        with contextlib.suppress(LabError):  # it may be on its way up or down: then it looks by itself
            run_agent(made.gateway)
    said = wait_report(made, made.outputs["release"])
    assert said.get("state") == "ready", f"{said}\n{made.gateway.run(['journalctl', '--no-pager', '-n', '60']).stdout}"
    return made


def run_agent(gateway: Host) -> None:
    """Have the agent look at what is there now, whether it succeeds or not, and wait until it has.

    Its timer may have started a run before, which has read what was there then. Starting a unit that is starting only
    waits for that run.
    """
    active = ["systemctl", "show", "--property=ActiveState", "--value", "drawbridge-agent.service"]
    if gateway.run(active).stdout.strip() == "activating":
        gateway.run(["systemctl", "start", "drawbridge-agent.service"])
    gateway.run(["systemctl", "start", "drawbridge-agent.service"])


@contextmanager
def disposable_world(world: str) -> Iterator[Deployment]:
    """A world's own stack file, deployed into a region that is gone when the block ends."""
    with disposable_region() as region:
        yield deploy_world(region, world, world_config(world))


@contextmanager
def without_agent(gateway: Host) -> Iterator[None]:
    """Have a gateway's agent put nothing back while a test changes what it watches."""
    run_checked(gateway, "systemctl", "stop", "drawbridge-agent.timer", "drawbridge-agent.service")
    try:
        yield
    finally:
        run_checked(gateway, "systemctl", "start", "drawbridge-agent.timer")


def configuration_digests(host: Host) -> str:
    """All that configures a gateway, by the digest of each file."""
    script = (
        "find -L /etc/openvpn /etc/drawbridge /etc/sysctl.d /opt/drawbridge/current -type f | sort | xargs sha256sum"
    )
    return run_checked(host, "sh", "-c", script)
