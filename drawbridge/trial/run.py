"""Deploy a stack in the lab, start its clients where users are, and check what its settings promise.

Everything goes the way a user's does: the program deploys through the AWS API, a client's machine fetches its own
bundle, and each promise is checked with packets. Nothing here knows how a component is built.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawbridge.operate.stack_files import find_stack_file
from drawbridge.trial import bonded, hosts, ipv6, pair, routed, segment
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, Progress, deploy
from lab import region as labs
from settings.model import Settings
from settings.parse import parse
from settings.stack_file import read_stack_file, stack_name


@dataclass(frozen=True, slots=True)
class Trial:
    """The checks of one feature."""

    feature: str
    applies: Callable[[Settings], bool]
    check: Callable[[Deployment, Progress], list[Check]]
    own_kernels: bool = False
    """Whether the gateways need a kernel of their own: the one of this machine may lack the bonding driver."""


def _start_clients(deployed: Deployment, progress: Progress) -> list[Check]:
    hosts.place_hosts(deployed, progress)
    progress("waiting for the gateway")
    return [routed.check_release(deployed)]


def _reaches_vpc_from_segment(settings: Settings) -> bool:
    return segment.applies(settings) and settings.tunnel.vpc


#: Every trial; those that apply to a stack run in this order.
TRIALS = (
    Trial("pair of gateways", pair.applies, pair.check_pair, own_kernels=True),
    Trial("bonded hosts", bonded.applies, bonded.check_bonded_hosts),
    Trial("clients", hosts.applies, _start_clients),
    Trial("IPv6", ipv6.applies, lambda deployed, progress: ipv6.check_ipv6(deployed)),
    Trial("routed network", routed.applies, lambda deployed, progress: routed.check_routed(deployed)),
    Trial("segment", segment.applies, lambda deployed, progress: segment.check_segment(deployed)),
    Trial(
        "VPC from the segment",
        _reaches_vpc_from_segment,
        lambda deployed, progress: routed.check_connectivity(deployed),
    ),
)


def trials_of(settings: Settings) -> list[Trial]:
    """Return the trials that apply to a stack."""
    return [trial for trial in TRIALS if trial.applies(settings)]


def deploy_and_check(stack: str, progress: Progress) -> list[Check]:
    """Start the lab and a stack in it, or update both, leave them running, and return the stack's checks.

    Raises:
        SettingsError: the stack file is wrong; nothing was touched.
        LabError: the lab failed.
        DeploymentError: the program failed.
    """
    raw = read_stack_file(find_stack_file(stack))
    settings = parse(raw, stack=stack, endpoint=_LOOPBACK)
    region = labs.connect() or labs.start(progress=progress)
    return _deploy_and_check(region, settings, raw, progress)


def try_stack(path: Path, progress: Progress) -> list[Check]:
    """Deploy a stack file into a region of its own, return the stack's checks, and take everything down.

    Raises:
        As `deploy_and_check`. Nothing is left behind in any case.
    """
    raw = read_stack_file(path)
    settings = parse(raw, stack=stack_name(path), endpoint=_LOOPBACK)
    with disposable_region(progress) as region:
        return _deploy_and_check(region, settings, raw, progress)


#: Any endpoint of a lab: settings are parsed before the lab has one.
_LOOPBACK = "http://127.0.0.1"


@contextmanager
def disposable_region(progress: Progress = lambda _: None) -> Iterator[labs.Region]:
    """Start a region under a name of its own that is removed when the block ends, however it ends."""
    name = f"try{secrets.token_hex(3)}"
    try:
        yield labs.start(name, progress, disposable=True)
    finally:
        progress("taking the region down")
        labs.down(name)


def _deploy_and_check(
    region: labs.Region, settings: Settings, raw: Mapping[str, Any], progress: Progress
) -> list[Check]:
    trials = trials_of(settings)
    region.use_own_kernels(any(trial.own_kernels for trial in trials))
    deployed = deploy(region, settings.stack, raw, progress)
    region.use_own_kernels(False)
    checks: list[Check] = []
    for trial in trials:
        progress(f"checking: {trial.feature}")
        checks += trial.check(deployed, progress)
    return checks
