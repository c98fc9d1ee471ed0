"""Measure how long a gateway's machine takes from its first start until its release runs, by its image.

One of Debian's image installs its packages first; a prepared image has them. Both are machines of the lab, where the
part before systemd takes no time. The stages are those of cloud-init's units.
"""

import os
import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

from bench.page import render_goal
from drawbridge.operate import image_build
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import run_checked
from images import DEFAULT_IMAGE, PREPARED, find_architecture
from lab.region import disposable_region
from tests.support import waiting
from tests.support.stacks import deploy_world, wait_current, world_config

TIMES = 5
#: What has been done by the time that a unit of systemd is up; it has been started by then.
STAGES = {
    "the machine has its user data": "cloud-init-local.service",
    "its network is up": "cloud-init-network.service",
    "its files are written": "cloud-config.service",
    "its packages are there and OpenVPN runs": "openvpn-server@server.service",
}
READY = "its release runs"
#: Seconds until then that a boot should take, and may take.
GOAL = 60.0
TIMEOUT = 300.0
_BEGIN = "--property=UserspaceTimestampMonotonic"


def measure_boots(times: int = TIMES) -> Iterator[str]:
    """Yield a line for each image."""
    with disposable_region() as region:
        raw = world_config("lab")
        deployed = deploy_world(region, "lab", raw)
        for image in (DEFAULT_IMAGE, PREPARED):
            if image == PREPARED:
                deployed = deploy_prepared(deployed, raw)
            boots = [measure_boot(deployed) for _ in range(times)]
            for stage in (*STAGES, READY):
                seconds = [boot[stage] for boot in boots]
                middle = statistics.median(seconds)
                goal = f"; {render_goal(middle, GOAL)}" if stage == READY else ""
                yield (
                    f"{middle:8.1f} s  from start until {stage}, image {image}, median of {times} "
                    f"({min(seconds):.1f} to {max(seconds):.1f} s{goal}; "
                    f"load of the machine {os.getloadavg()[0]:.0f})"
                )


def deploy_prepared(deployed: Deployment, raw: dict[str, Any]) -> Deployment:
    """Build an image for a stack's gateway, and have the gateway boot from it."""
    image_build.build_image(
        deployed.account, find_architecture(deployed.settings.gateway.instance_type), lambda _: None
    )
    prepared = {**raw, "drawbridge:gateway": {**raw["drawbridge:gateway"], "image": PREPARED}}
    return wait_current(deploy(deployed.region, deployed.settings.stack, prepared, lambda _: None))


def measure_boot(deployed: Deployment) -> dict[str, float]:
    """Boot the gateway from its disk as it was at launch; return the seconds from its start until each stage."""
    leader = deployed.gateway.leader
    deployed.client("ec2").create_replace_root_volume_task(InstanceId=deployed.outputs["gatewayInstanceId"])
    waiting.until(lambda: deployed.gateway.leader != leader, TIMEOUT)
    start, gateway = time.monotonic(), deployed.gateway
    look = ["grep", "--quiet", '"state": "ready"', "/run/drawbridge/report.json"]
    waiting.until(lambda: gateway.run(look).returncode == 0, TIMEOUT)
    ready = time.monotonic() - start
    units = run_checked(gateway, "systemctl", "show", "--property=ActiveEnterTimestampMonotonic", *STAGES.values())
    return {**read_stages(run_checked(gateway, "systemctl", "show", _BEGIN), units), READY: ready}


def read_stages(begin: str, units: str) -> dict[str, float]:
    """Return the seconds from systemd's start until each stage, by what `systemctl show` prints of it and its units."""
    start, *ends = (int(value) for value in re.findall(r"=(\d+)$", f"{begin}\n{units}", re.MULTILINE))
    return {stage: (end - start) / 1e6 for stage, end in zip(STAGES, ends, strict=True)}
