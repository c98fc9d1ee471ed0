"""Make Linux match what the EC2 API says, each time somebody asks for it."""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from lab.errors import LabError
from lab.instances import Instances
from lab.network.fabric import Fabric
from lab.network.plan import plan_vpc
from lab.network.state import State, read_state
from lab.services import Services

LOG = logging.getLogger("lab")
#: Seconds of rest after a reconcile while nobody waits for the next: a deployment makes a hundred calls one after
#: another, and reading the API costs more than to answer such a call.
_REST = 0.25


class Reconciler:
    """Reads the state of each AWS region in use and hands it to the network, the services and the instances.

    Args:
        ec2_client: a boto3 EC2 client for an AWS region.
    """

    def __init__(
        self, ec2_client: Callable[[str], Any], fabric: Fabric, services: Services, instances: Instances
    ) -> None:
        self.states: dict[str, State] = {}
        """Each AWS region as it was read last."""
        self._ec2_client = ec2_client
        self._fabric = fabric
        self._services = services
        self._instances = instances
        self._clients: dict[str, Any] = {}
        self._condition = threading.Condition()
        self._regions: list[str] = []
        self._requested = 0  # reconciles requested so far
        self._reconciled = 0  # the last request that Linux follows
        self._waiting = 0  # callers of `wait`
        self._stopped = False

    def request(self, region: str) -> None:
        """Request a reconcile: something may have changed in an AWS region. Returns at once."""
        with self._condition:
            if region not in self._regions:
                self._regions.append(region)
            self._requested += 1
            self._condition.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until Linux follows all that was requested so far; return whether it did within `timeout` seconds."""
        with self._condition:
            requested = self._requested
            self._waiting += 1
            self._condition.notify_all()
            try:
                return self._condition.wait_for(lambda: self._reconciled >= requested, timeout)
            finally:
                self._waiting -= 1

    def start(self) -> None:
        """Reconcile in a thread of its own until `stop`."""
        threading.Thread(target=self._run, daemon=True, name="reconcile").start()

    def stop(self) -> None:
        """Start no further reconcile; one that runs goes on to its end."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _run(self) -> None:
        rested_at = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._requested > self._reconciled or self._stopped)
                self._condition.wait_for(lambda: self._waiting or self._stopped, rested_at - time.monotonic())
                if self._stopped:
                    return
                requested, regions = self._requested, list(self._regions)
            for region in regions:
                self._reconcile_region(region)
            with self._condition:
                self._reconciled = requested
                self._condition.notify_all()
            rested_at = time.monotonic() + _REST

    def _reconcile_region(self, region: str) -> None:
        """Read one AWS region and make Linux match; once more if a call changed things while they were read."""
        for attempts_left in (1, 0):
            try:
                if region not in self._clients:
                    self._clients[region] = self._ec2_client(region)
                self.states[region] = read_state(self._clients[region])
                self._apply(region, self.states[region])
                return
            except Exception:
                # One wrong thing in the account must not stop the others' packets; the log has it.
                if not attempts_left:
                    LOG.error("cannot follow %s: %s", region, traceback.format_exc())

    def _apply(self, region: str, state: State) -> None:
        in_use = {i.vpc for i in state.interfaces.values() if i.instance and state.instances[i.instance].on}
        for vpc in [vpc for vpc in self._fabric.routers() if vpc in state.vpcs and vpc not in in_use]:
            self._services.close(vpc)
            self._fabric.close(vpc)
        failures: list[str] = []
        for vpc in sorted(in_use):
            try:
                self._fabric.apply(state, plan_vpc(state, vpc, self._fabric.applied(vpc)))
                self._services.open(region, state.vpcs[vpc])
            except Exception:
                failures.append(traceback.format_exc())
        self._services.update(region, state)
        self._instances.reconcile(region, state)
        if failures:
            raise LabError("; ".join(failures))
