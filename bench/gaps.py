"""Measure how long a client has no answer while its gateway's OpenVPN is killed or restarted, or its machine replaced.

A machine is replaced by one of Debian's image, which installs its packages, and by one of a prepared image.

The stacks are shipped ones, one routed and one a segment; each client runs the bundle that it fetched.
"""

import itertools
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.page import render_goal
from drawbridge.operate import image_build
from drawbridge.trial.bond_measure import measure_loss
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import fetch_bundle, run_checked
from drawbridge.trial.measure import ping
from images import DEFAULT_IMAGE, PREPARED, find_architecture
from lab.region import disposable_region
from tests.support.stacks import deploy_world, wait_current, world_config

TIMES = 5
#: What the tunnel is, the stack, and the client that measures.
STACKS = (("routed", "lab", "alice"), ("segment", "ros2", "ros_desktop"))

PROTOCOLS = ("udp", "tcp")

#: Seconds that may pass until a client has an answer again, by fault.
GOALS = {"killed": 10, "restarted": 3, "replaced": 15, "replaced, prepared image": 15}

_UNIT = "openvpn-server@server"
_KILL = f"kill -KILL $(systemctl show --property MainPID --value {_UNIT})"
#: Another key of the operator's is other user data, and that means another machine.
_KEYS = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAsoKYf52T/qqPs9K3EdwgDlmzBpDw3vEccNBsatj8W3",
)


def measure_gaps(times: int = TIMES) -> Iterator[str]:
    """Yield a line for each fault of each stack over each protocol."""
    for topology, stack, client in STACKS:
        with disposable_region() as region:
            for protocol in PROTOCOLS:
                raw = world_config(stack)
                raw["drawbridge:tunnel"] = {**raw["drawbridge:tunnel"], "protocol": protocol}
                deployed = deploy_world(region, stack, raw)
                host = region.host(client)
                fetch_bundle(deployed, host, client)
                run_checked(host, "systemctl", "restart", f"openvpn-client@{client}")
                for fault, seconds, cause in _faults(deployed, raw):
                    gaps = [_measure_gap(deployed, client, seconds, cause) for _ in range(times)]
                    middle = statistics.median(gaps)
                    yield (
                        f"{middle:8.1f} s  {topology}, {protocol}: {fault}, median of {times} "
                        f"({min(gaps):.1f} to {max(gaps):.1f} s; {render_goal(middle, GOALS[fault])}; load of "
                        f"the machine {os.getloadavg()[0]:.0f})"
                    )


def _faults(deployed: Deployment, raw: Mapping[str, Any]) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """Yield each fault: its name, the seconds to watch, and how to cause it."""
    gateway = deployed.gateway
    yield "killed", 25, lambda: run_checked(gateway, "sh", "-c", _KILL)
    yield "restarted", 15, lambda: run_checked(gateway, "systemctl", "restart", _UNIT)
    keys = itertools.cycle(_KEYS)

    def replace(image: str) -> None:
        section = {**raw["drawbridge:gateway"], "sshKey": next(keys), "image": image}
        wait_current(
            deploy(deployed.region, deployed.settings.stack, {**raw, "drawbridge:gateway": section}, lambda _: None)
        )

    yield "replaced", 120, lambda: replace(DEFAULT_IMAGE)
    image_build.build_image(
        deployed.account, find_architecture(deployed.settings.gateway.instance_type), lambda _: None
    )
    yield "replaced, prepared image", 120, lambda: replace(PREPARED)


def _measure_gap(deployed: Deployment, client: str, seconds: float, cause: Callable[[], object]) -> float:
    """Return the longest time without an answer from the gateway's tunnel address, seconds."""
    host, address = deployed.region.host(client), str(deployed.settings.tunnel.pool.network_address + 1)
    assert ping(host, address, 60) is not None
    return measure_loss(host, address, seconds, meanwhile=cause).gap
