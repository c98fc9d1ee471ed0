"""Create the machines of one lab, with what all of them share."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lab.linux import run
from lab.machines import vm_image
from lab.machines.container import InstanceContainer, LabMachine
from lab.machines.image import Image
from lab.machines.uml import UmlMachine
from lab.machines.vm import VirtualMachine


class Kernel(StrEnum):
    """Kernel that a machine runs on."""

    SHARED = "shared"
    """This machine's: a container."""
    USER_MODE = "user-mode"
    """One of its own: `lab.machines.uml`."""
    CLOUD = "cloud"
    """Debian's for EC2: `lab.machines.vm`."""


_CLASSES: dict[Kernel, type[LabMachine]] = {
    Kernel.SHARED: InstanceContainer,
    Kernel.USER_MODE: UmlMachine,
    Kernel.CLOUD: VirtualMachine,
}


@dataclass(frozen=True, slots=True)
class MachineFactory:
    """Creates machines of one lab below its directory."""

    lab: str
    """Name of the lab: the prefix of its machines' names."""
    directory: Path
    image: Image
    certificate: str
    """Of the authority that signs the lab's AWS endpoints (PEM); every machine trusts it."""
    saved_images: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Layers of each image that was created from an instance, topmost first."""

    def create_instance(self, instance: str, namespace: str, kernel: Kernel, *, image: str) -> LabMachine:
        """Return the machine of an EC2 instance, not prepared yet; `image` is the AMI that it is launched from."""
        match kernel:
            case Kernel.SHARED:
                layers = self.image.instance_layers
            case Kernel.USER_MODE:
                layers = self.image.ready_layers
            case Kernel.CLOUD:
                layers = (vm_image.find().root,)
        layers = self.saved_images.get(image, layers)
        return _CLASSES[kernel](
            lab=self.lab,
            name=f"{self.lab}-{instance[-12:]}",
            directory=self.directory / "machines" / instance,
            namespace=namespace,
            layers=layers,
        )

    def save_image(self, image: str, machine: LabMachine | None) -> None:
        """Keep what a machine has written as a layer of an image; a machine that has not booted has written nothing.

        The image stays as long as the lab: instances boot from it after it was deregistered, too.
        """
        layer = self.directory / "images" / image
        layer.parent.mkdir(exist_ok=True)
        if machine is None:
            layer.mkdir()
            self.saved_images[image] = (layer, *self.image.instance_layers)
            return
        run("cp", "--archive", "--reflink=auto", str(machine.directory / "upper"), str(layer), timeout=600)
        self.saved_images[image] = (layer, *machine.layers)

    def create_host(self, host: str, namespace: str, *, own_kernel: bool) -> LabMachine:
        """Return the machine of a host outside of AWS, not prepared yet."""
        return (UmlMachine if own_kernel else LabMachine)(
            lab=self.lab,
            name=f"{self.lab}-{host}",
            directory=self.directory / "hosts" / host,
            namespace=namespace,
            layers=self.image.host_layers,
        )

    def shared_files(self, machine: LabMachine, resolver: str) -> dict[str, str]:
        """Return the files that every machine of the lab gets: the lab's authority, and a resolver unless it asks."""
        bundle = machine.layers[-1] / "etc/ssl/certs/ca-certificates.crt"
        return {
            **({} if machine.uses_dhcp else {"/etc/resolv.conf": f"nameserver {resolver}\n"}),
            "/usr/local/share/ca-certificates/lab.crt": self.certificate,
            "/etc/ssl/certs/ca-certificates.crt": bundle.read_text() + self.certificate,
        }
