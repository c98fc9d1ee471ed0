"""What a routed (tun) stack promises, as checks."""

import json
import time
from typing import Any

from drawbridge.checks import Check
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import MACHINES
from drawbridge.trial.probes import figure, ping

_READY_SECONDS = 120
_TUNNEL_SECONDS = 60


def ready(deployed: Deployment) -> Check:
    """The gateway reports that it runs the release the stack asks for."""
    start = time.monotonic()
    what = "gateway runs the stack's release"
    said = wait_report(deployed, deployed.outputs["release"])
    if said.get("state") == "ready" and said.get("release") == deployed.outputs["release"]:
        return Check(True, what, f"ready {time.monotonic() - start:.0f} s after the deployment")
    return Check(False, what, f"{said.get('state', 'no report')}: {said.get('reason', '')}")


def wait_report(deployed: Deployment, release: str, timeout: float = _READY_SECONDS) -> dict[str, Any]:
    """The gateway's report about a release, waited for; the last other one (or nothing) after `timeout` seconds."""
    ssm, said = deployed.client("ssm"), dict[str, Any]()
    deadline = time.monotonic() + timeout
    instance = deployed.outputs["gatewayInstanceId"]
    while time.monotonic() < deadline:
        try:
            said = json.loads(ssm.get_parameter(Name=deployed.names.report)["Parameter"]["Value"])
        except (ssm.exceptions.ParameterNotFound, json.JSONDecodeError):
            said = {}
        if said.get("release") == release and said.get("instance") == instance:
            return said
        time.sleep(0.3)
    return said


def connectivity(deployed: Deployment) -> list[Check]:
    """Each started client reaches the gateway's address and the private host through its tunnel."""
    private = deployed.region.host("private-host")
    targets = {"gateway": deployed.outputs["privateIp"], "private host": private.address}
    checks = []
    for client in deployed.settings.clients[:MACHINES]:
        host = deployed.region.host(client.name)
        for label, address in targets.items():
            found = ping(host, address, _TUNNEL_SECONDS)
            checks.append(Check(found is not None, f"{client.name} -> {label} {address}", figure(found)))
    return checks
