"""Measure how long a gateway's machine takes from its first start until its release runs, by its image.

One of Debian's image installs its packages first; a prepared image has them. Both are machines of the lab, where the
part before systemd takes no time.
"""

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

from drawbridge.operate import image_build
from drawbridge.trial.deployment import Deployment, deploy
from images import DEFAULT_IMAGE, PREPARED, find_architecture
from lab.region import disposable_region
from tests.support import waiting
from tests.support.stacks import deploy_world, wait_current, world_config

TIMES = 5
#: Seconds that a boot may take.
TIMEOUT = 300.0


def measure_boots(times: int = TIMES) -> Iterator[str]:
    """Yield a line for each image."""
    with disposable_region() as region:
        raw = world_config("lab")
        deployed = deploy_world(region, "lab", raw)
        for image in (DEFAULT_IMAGE, PREPARED):
            if image == PREPARED:
                deployed = deploy_prepared(deployed, raw)
            seconds = [measure_boot(deployed) for _ in range(times)]
            yield (
                f"{statistics.median(seconds):8.1f} s  start to ready, image {image}, median of {times} "
                f"({min(seconds):.1f} to {max(seconds):.1f} s; load of the machine {os.getloadavg()[0]:.0f})"
            )


def deploy_prepared(deployed: Deployment, raw: dict[str, Any]) -> Deployment:
    """Build an image for a stack's gateway, and have the gateway boot from it."""
    image_build.build_image(
        deployed.account, find_architecture(deployed.settings.gateway.instance_type), lambda _: None
    )
    prepared = {**raw, "drawbridge:gateway": {**raw["drawbridge:gateway"], "image": PREPARED}}
    return wait_current(deploy(deployed.region, deployed.settings.stack, prepared, lambda _: None))


def measure_boot(deployed: Deployment) -> float:
    """Boot the gateway from its disk as it was at launch; return the seconds from its start until its release runs."""
    leader = deployed.gateway.leader
    deployed.client("ec2").create_replace_root_volume_task(InstanceId=deployed.outputs["gatewayInstanceId"])
    waiting.until(lambda: deployed.gateway.leader != leader, TIMEOUT)
    start, gateway = time.monotonic(), deployed.gateway
    look = ["grep", "--quiet", '"state": "ready"', "/run/drawbridge/report.json"]
    waiting.until(lambda: gateway.run(look).returncode == 0, TIMEOUT)
    return time.monotonic() - start
