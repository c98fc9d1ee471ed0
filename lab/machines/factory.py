"""Create the machines of one lab, with what all of them share."""

from dataclasses import dataclass
from pathlib import Path

from lab.machines.container import LabMachine
from lab.machines.image import Image
from lab.machines.uml import UmlMachine


@dataclass(frozen=True, slots=True)
class MachineFactory:
    """Creates machines of one lab below its directory."""

    lab: str
    """Name of the lab: the prefix of its machines' names."""
    directory: Path
    image: Image
    certificate: str
    """Of the authority that signs the lab's AWS endpoints (PEM); every machine trusts it."""

    def create_instance(self, instance: str, namespace: str, *, own_kernel: bool) -> LabMachine:
        """Return the machine of an EC2 instance, not prepared yet."""
        return _class_of(own_kernel)(
            name=f"{self.lab}-{instance[-12:]}",
            directory=self.directory / "machines" / instance,
            namespace=namespace,
            layers=self.image.instance_layers,
        )

    def create_host(self, host: str, namespace: str, *, own_kernel: bool) -> LabMachine:
        """Return the machine of a host outside of AWS, not prepared yet."""
        return _class_of(own_kernel)(
            name=f"{self.lab}-{host}",
            directory=self.directory / "hosts" / host,
            namespace=namespace,
            layers=self.image.host_layers,
        )

    def shared_files(self, machine: LabMachine, resolver: str) -> dict[str, str]:
        """Return the files that every machine of the lab gets: its resolver, and the lab's authority."""
        bundle = machine.layers[-1] / "etc/ssl/certs/ca-certificates.crt"
        return {
            "/etc/resolv.conf": f"nameserver {resolver}\n",
            "/usr/local/share/ca-certificates/lab.crt": self.certificate,
            "/etc/ssl/certs/ca-certificates.crt": bundle.read_text() + self.certificate,
        }


def _class_of(own_kernel: bool) -> type[LabMachine]:
    return UmlMachine if own_kernel else LabMachine
