"""Deploy stacks in the lab, start their clients where users are, and check what their settings promise.

Everything goes the way a user's does: the program deploys through the AWS API, a client's machine fetches its own
bundle, and each promise is checked with packets. Nothing here knows how a component is built.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drawbridge.trial import admin, bonded, hosts, ipv6, pair, routed, segment
from drawbridge.trial.adoption import adopt
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import DEFAULT_CLIENTS, Deployment, Progress, choose_clients, deploy
from drawbridge.trial.next_steps import suggest_command
from drawbridge.trial.removal import remove_client
from lab import region as labs
from settings.model import Settings
from settings.parse import parse
from settings.stack_file import read_stack_file, stack_name


@dataclass(frozen=True, slots=True)
class Trial:
    """The checks of one feature."""

    feature: str
    applies: Callable[[Settings], bool]
    check: Callable[[Deployment, Progress], Iterable[Check]]
    own_kernels: bool = False
    """Whether the gateways need a kernel of their own: the one of this machine may lack the bonding driver."""
    max_clients: int | None = None
    """Clients that it starts, at most."""


def _start_clients(deployed: Deployment, progress: Progress) -> Iterator[Check]:
    started = {client.name for client in deployed.clients}
    for former in [name for name in deployed.record.clients if name not in started]:
        progress(f"removing client {former}")
        remove_client(deployed, former)
    failures = dict[str, str]()
    hosts.place_hosts(deployed, progress, renews=True, failures=failures)
    for name, reason in failures.items():
        yield Check(False, f"{name} starts", reason)
    progress("waiting for the gateway")
    yield routed.check_release(deployed)


def _reaches_vpc_from_segment(settings: Settings) -> bool:
    return segment.applies(settings) and settings.tunnel.vpc


#: Every trial; those that apply to a stack run in this order.
TRIALS = (
    Trial("pair of gateways", pair.applies, pair.check_pair, own_kernels=True),
    Trial("bonded hosts", bonded.applies, bonded.check_bonded_hosts, max_clients=bonded.MACHINES),
    Trial("clients", hosts.applies, _start_clients),
    Trial("administrator", hosts.applies, lambda deployed, progress: admin.check_login(deployed)),
    Trial("IPv6", ipv6.applies, lambda deployed, progress: ipv6.check_ipv6(deployed)),
    Trial("routed network", routed.applies, lambda deployed, progress: routed.check_routed(deployed)),
    Trial("segment", segment.applies, lambda deployed, progress: segment.check_segment(deployed)),
    Trial(
        "VPC from the segment",
        _reaches_vpc_from_segment,
        lambda deployed, progress: routed.check_connectivity(deployed),
    ),
)


def needs_own_kernels(settings: Settings) -> bool:
    """Return whether the gateways of a stack need kernels of their own."""
    return any(trial.own_kernels for trial in trials_of(settings))


def trials_of(settings: Settings) -> list[Trial]:
    """Return the trials that apply to a stack."""
    return [trial for trial in TRIALS if trial.applies(settings)]


@dataclass(frozen=True, slots=True)
class StackFile:
    """A stack as its file describes it."""

    path: Path
    settings: Settings
    raw: Mapping[str, Any]

    @property
    def stack(self) -> str:
        """Name of the stack."""
        return self.settings.stack


def read_stacks(paths: Sequence[Path]) -> list[StackFile]:
    """Read stack files; nothing is touched.

    Raises:
        SettingsError: one of the files is wrong.
    """
    raws = [(path, read_stack_file(path)) for path in paths]
    return [StackFile(path, parse(raw, stack=stack_name(path), endpoint=_LOOPBACK), raw) for path, raw in raws]


def deploy_and_check(
    region: labs.Region, stack: StackFile, progress: Progress, *, clients: int = DEFAULT_CLIENTS
) -> list[Check]:
    """Deploy a stack into a region, or update it, start at most so many of its clients, and return its checks.

    Raises:
        LabError: the lab failed.
        StackError: the settings, or what the program said of them.
        DeploymentError: the program failed.
    """
    trials = trials_of(stack.settings)
    limit = min([clients, *(trial.max_clients for trial in trials if trial.max_clients is not None)])
    checks = list(report_left_out(stack.settings, limit))
    for check in checks:
        progress(f"{check.promise}: {check.figure}")
    region.use_own_kernels(needs_own_kernels(stack.settings), progress)
    try:
        raw = adopt(region, stack.settings, _replace_key(stack.raw), progress)
        deployed = deploy(region, stack.stack, raw, progress, file=stack.path)
    finally:
        region.use_own_kernels(False)
    deployed = replace(deployed, client_limit=limit)
    for trial in trials:
        progress(f"checking: {trial.feature}")
        for check in trial.check(deployed, progress):
            progress(f"{'ok  ' if check.ok else 'FAIL'} {check.promise}: {check.figure}")
            checks.append(check if check.ok else replace(check, look=suggest_command(deployed, check.promise)))
    return checks


def _replace_key(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stack's settings without the operator's public key: nobody here has its private one, the lab has one."""
    gateway = {key: value for key, value in (raw.get("drawbridge:gateway") or {}).items() if key != "sshKey"}
    return {**raw, "drawbridge:gateway": gateway} if gateway else dict(raw)


def report_left_out(settings: Settings, limit: int) -> Iterator[Check]:
    """Report how many of a stack's clients get machines, where not all do, and which."""
    chosen = choose_clients(settings.clients, limit)
    if len(chosen) < len(settings.clients):
        names = ", ".join(client.name for client in chosen)
        yield Check(True, f"{len(chosen)} of {len(settings.clients)} clients started", names)


#: Any endpoint of a lab: settings are parsed before the lab has one.
_LOOPBACK = "http://127.0.0.1"
