"""Keep the machine of each EC2 instance in the state that the API says."""

import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from os import SEEK_END

from lab.errors import LabError
from lab.machines.container import LabMachine
from lab.machines.factory import Kernel, MachineFactory
from lab.network.fabric import Fabric, interfaces_of
from lab.network.state import Instance, State

LOG = logging.getLogger("lab")
_WORKERS = 8
#: What happened to an instance: (AWS region, instance id).
InstanceEvent = Callable[[str, str], None]


@dataclass
class _Record:
    """One instance that has been on. The lock is held while its power changes."""

    region: str
    kernel: Kernel
    lock: threading.Lock = field(default_factory=threading.Lock)
    machine: LabMachine | None = None


class Instances:
    """The machines of a lab's EC2 instances.

    Args:
        factory: creates the machines.
        fabric: has the instances' namespaces.
        boots: whether machines boot; where not, an instance is its network namespace alone.
        memory: MiB of an instance type, None for an unknown one.
        powered_off: called when the system of an instance has shut down.
        root_replaced: called when an instance boots from its new root volume.
        image_saved: called with an AWS region, an image and whether it has its instance's disk.
    """

    def __init__(
        self,
        factory: MachineFactory,
        fabric: Fabric,
        *,
        boots: bool,
        memory: Callable[[str], int | None],
        powered_off: InstanceEvent,
        root_replaced: InstanceEvent,
        image_saved: Callable[[str, str, bool], None],
    ) -> None:
        self.kernel = Kernel.SHARED
        """Kernel of the instances launched from now on."""
        self._factory = factory
        self._fabric = fabric
        self._boots = boots
        self._memory = memory
        self._powered_off = powered_off
        self._root_replaced = root_replaced
        self._image_saved = image_saved
        self._records: dict[str, _Record] = {}
        self._states: dict[str, State] = {}
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="machines")
        self._closing = False

    def reconcile(self, region: str, state: State) -> None:
        """Bring the machines of an AWS region to the state that the API says, in the background."""
        self._states[region] = state
        for instance in state.instances.values():
            if instance.on and instance.id not in self._records:
                self._records[instance.id] = _Record(region, self.kernel)
        for name in [name for name, record in self._records.items() if record.region == region]:
            self._workers.submit(self._reconcile_instance, name)

    def machine(self, instance: str) -> LabMachine | None:
        """Return an instance's machine, or None where it has none."""
        record = self._records.get(instance)
        return record.machine if record else None

    def is_running(self, instance: str) -> bool:
        """Return whether an instance's machine is on."""
        machine = self.machine(instance)
        return machine is not None and machine.running

    def read_console(self, instance: str, size: int) -> bytes:
        """Return the last `size` bytes that an instance's machine has written to its console."""
        machine = self.machine(instance)
        if machine is None or not machine.console.exists():
            return b""
        with machine.console.open("rb") as log:
            log.seek(max(log.seek(0, SEEK_END) - size, 0))
            return log.read()

    def reboot(self, instance: str) -> None:
        """Ask the system of an instance that is on to reboot."""
        if machine := self.machine(instance):
            machine.reboot()

    def recover(self, instance: str) -> None:
        """Boot an instance that is on once more, as on another host: its disk stays, and nothing shuts down before."""
        self._workers.submit(self._recover, instance)

    def replace_root(self, region: str, instance: str) -> None:
        """Boot an instance from a root volume as it was at launch, in the background."""
        self._workers.submit(self._replace_root, region, instance)

    def save_image(self, region: str, instance: str, image: str) -> None:
        """Keep what an instance has written to its disk as an image, in the background."""
        self._workers.submit(self._save_image, region, instance, image)

    def close(self) -> None:
        """Stop every machine and remove what it wrote."""
        self._closing = True
        self._workers.shutdown(wait=True, cancel_futures=True)
        machines = [record.machine for record in self._records.values() if record.machine]
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(LabMachine.remove, machines))

    def _reconcile_instance(self, name: str) -> None:
        """Bring one machine to the state that the API says. Idempotent."""
        record = self._records.get(name)
        if record is None:
            return
        try:
            with record.lock:
                if self._closing:
                    return
                instance = self._states[record.region].instances.get(name)
                if instance is None or not (instance.on or instance.state == "stopped"):
                    self._remove(name, record)
                elif instance.goes_down:
                    if record.machine:
                        record.machine.stop()
                    self._powered_off(record.region, name)
                elif instance.boots and self._boots and not self.is_running(name):
                    self._power_on(record, instance)
        except Exception:
            LOG.error("cannot bring %s to its state: %s", name, traceback.format_exc())

    def _remove(self, name: str, record: _Record) -> None:
        if record.machine:
            record.machine.remove()
        self._fabric.close_machine(name)
        self._records.pop(name, None)

    def _recover(self, name: str) -> None:
        record = self._records.get(name)
        if record is not None:
            with record.lock:
                if record.machine:
                    record.machine.stop(orderly=False)
                    self._power_on(record, self._states[record.region].instances[name])

    def _replace_root(self, region: str, name: str) -> None:
        record = self._records.get(name)
        if record is not None:
            with record.lock:
                if record.machine:
                    record.machine.stop(orderly=False)
                    record.machine.reset_disk()
                    self._power_on(record, self._states[region].instances[name])
        self._root_replaced(region, name)

    def _save_image(self, region: str, instance: str, image: str) -> None:
        record = self._records.get(instance)
        try:
            if record is None:
                raise LabError(f"{instance} has no disk")
            with record.lock:
                self._factory.save_image(image, record.machine)
        except (LabError, OSError):
            LOG.error("cannot save %s as %s: %s", instance, image, traceback.format_exc())
            self._image_saved(region, image, False)
        else:
            self._image_saved(region, image, True)

    def _power_on(self, record: _Record, instance: Instance) -> None:
        state = self._states[record.region]
        interfaces = list(interfaces_of(state, instance.id))
        if not interfaces:
            return
        namespace = self._fabric.open_machine(instance.id)
        if record.machine is None:
            record.machine = self._factory.create_instance(instance.id, namespace, record.kernel, image=instance.image)
        record.machine.memory = self._memory(instance.type)
        first_range = next(c for c in state.vpcs[interfaces[0].vpc].cidrs if isinstance(c, IPv4Network))
        record.machine.prepare(self._factory.shared_files(record.machine, resolver=str(first_range[2])))
        record.machine.start(lambda: self._went_down(record, instance.id))

    def _went_down(self, record: _Record, instance: str) -> None:
        """Report a machine that powered itself off."""
        if not self._closing:
            self._powered_off(record.region, instance)
