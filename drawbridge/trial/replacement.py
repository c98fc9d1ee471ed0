"""Replace the instance of a stack's gateway, as other user data would, and measure how long a client has no answer."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import contract
from drawbridge.trial import routed
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Progress, load_deployment, redeploy
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import ping
from drawbridge.trial.run import needs_own_kernels
from lab.region import Host, Region

_UNIT = "drawbridge-pings"
_FILE = "/run/drawbridge-pings"
_INTERVAL = 0.2
_CONNECTED_SECONDS = 5
_BACK_SECONDS = 180


def replace_gateway(region: Region, stack: str, progress: Progress) -> Iterator[Check]:
    """Replace the instance of a stack's gateway (of a pair, gateway a), and yield a check of each thing to be the same.

    The gap is measured by the first started client that reaches the gateway, with pings to its address in the tunnel.

    Raises:
        StackError: the region has no such stack.
        DeploymentError: the engine failed.
    """
    deployed = load_deployment(region, stack)
    former, public = (deployed.outputs[key] for key in (contract.StackOutput.GATEWAY_INSTANCE_ID, "publicIp"))
    address = str(deployed.settings.tunnel.pool.network_address + 1)
    progress("looking for a client that reaches the gateway")
    client = next(
        (name for name in deployed.record.clients if ping(deployed.host(name), address, _CONNECTED_SECONDS)), None
    )
    pattern = f"**aws:ec2/instance:Instance::{deployed.names.resource('gateway-instance')}"
    region.use_own_kernels(needs_own_kernels(deployed.settings), progress)
    try:
        with _timed_pings(deployed.host(client) if client else None, address) as read_times:
            progress("replacing the gateway's instance")
            deployed = redeploy(region, stack, progress, replacing=pattern)
            current = deployed.outputs[contract.StackOutput.GATEWAY_INSTANCE_ID]
            yield Check(current != former, f"{former} is replaced", current)
            same = deployed.outputs[contract.StackOutput.PUBLIC_IP] == public
            yield Check(same, f"the gateway keeps its address {public}", deployed.outputs["publicIp"])
            progress("waiting for the new gateway")
            yield routed.check_release(deployed)
            if client:
                rtt = ping(deployed.host(client), address, _BACK_SECONDS)
                time.sleep(2 * _INTERVAL)
                yield Check(rtt is not None, f"{client} -> gateway {address} again", describe_gap(read_times()))
    finally:
        region.use_own_kernels(False)


def describe_gap(times: list[float]) -> str:
    """Return the longest time between two answers, given when each came in seconds, as text."""
    gap = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    return f"no answer for {gap:.1f} s" if len(times) > 1 else "no answer"


@contextmanager
def _timed_pings(host: Host | None, address: str) -> Iterator[Callable[[], list[float]]]:
    """Have a machine send pings during the block, whose value returns the times of the answers so far, in seconds."""
    if host is None:
        yield list
        return
    command = f"exec ping -n -D -i {_INTERVAL} {address} >{_FILE} 2>&1"
    run_checked(host, "systemd-run", "--quiet", "--collect", f"--unit={_UNIT}", "sh", "-c", command)
    try:
        yield lambda: parse_times(host.run(["cat", _FILE]).stdout)
    finally:
        host.run(["systemctl", "stop", _UNIT])


def parse_times(output: str) -> list[float]:
    r"""Return when each answer came by the output of `ping -D` (ping(8)), in seconds.

    >>> parse_times("PING …\n[1700000000.25] 64 bytes from 10.8.0.1: icmp_seq=1 ttl=64 time=0.5 ms\n")
    [1700000000.25]
    """
    return [float(time_text) for time_text in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes from", output, re.MULTILINE)]
