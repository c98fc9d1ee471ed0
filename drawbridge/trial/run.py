"""Stacks in the lab: deploy one, start its clients where users are, check what its settings promise.

Everything goes the way a user's does: the program deploys through the AWS API, a client's machine fetches its own
bundle, and what is checked is checked with packets. Nothing here knows how a component is made.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial import bonded, ipv6, pair, routed, segment
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Progress, deploy
from drawbridge.trial.hosts import place_hosts
from lab import region as labs
from settings.parse import parse
from settings.stack_file import read_stack_file, stack_name


def deploy_and_check(stack: str, progress: Progress) -> list[Check]:
    """Bring the lab and a stack up, or up to date, and leave them running; who reaches whom.

    Raises:
        SettingsError: the stack file; nothing was touched.
        LabError: the lab; EngineError: the deployment.
    """
    raw = read_stack_file(find_stack_file(stack))
    parse(raw, stack=stack, endpoint="http://127.0.0.1")
    running = labs.connect() or labs.start(progress=progress)
    return _deploy_and_check(running, stack, raw, progress)


def try_stack(path: Path, progress: Progress) -> list[Check]:
    """Deploy a stack file into a region of its own, check what its settings promise, take everything down.

    Raises:
        As `up`. Nothing is left behind in any case.
    """
    stack = stack_name(path)
    raw = read_stack_file(path)
    parse(raw, stack=stack, endpoint="http://127.0.0.1")
    with disposable_region(progress) as running:
        return _deploy_and_check(running, stack, raw, progress)


@contextmanager
def disposable_region(progress: Progress = lambda _: None) -> Iterator[labs.Region]:
    """A region under a name of its own that is gone when the block ends, however it ends."""
    name = f"try{secrets.token_hex(3)}"
    try:
        yield labs.start(name, progress, disposable=True)
    finally:
        progress("taking the region down")
        labs.down(name)


def _deploy_and_check(running: labs.Region, stack: str, raw: Mapping[str, Any], progress: Progress) -> list[Check]:
    # A pair's gateways need a bonding driver, which the kernel of this machine may lack.
    running.use_own_kernels("drawbridge:pair" in raw)
    deployed = deploy(running, stack, raw, progress)
    running.use_own_kernels(False)
    if deployed.settings.pair:
        return pair.check_pair(deployed, progress)
    if deployed.settings.tunnel.links > 1:
        return bonded.check_bonded_hosts(deployed, progress)
    place_hosts(deployed, progress)
    progress("waiting for the gateway")
    checks = [routed.check_release(deployed)]
    progress("checking")
    tunnel = deployed.settings.tunnel
    checks += ipv6.check_ipv6(deployed) if tunnel.has_ipv6 else []
    if tunnel.device == "tun":
        return [*checks, *routed.check_routed(deployed)]
    return [*checks, *segment.check_segment(deployed), *(routed.check_connectivity(deployed) if tunnel.vpc else [])]
