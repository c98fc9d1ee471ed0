"""Virtual machines: Debian's own cloud kernel and its list of packages for EC2, on emulated hardware (qemu).

Such a machine boots as an instance does: it knows EC2 by its DMI table, has its addresses by DHCP and router
advertisements, the memory of a nano, and a disk of its own. Nothing of it is accelerated: a boot takes minutes.
Commands reach it through `lab.machines.uml_agent`.

Sources: qemu-system-x86_64(1), mke2fs(8); cloud-init's "How to identify the datasource" for the DMI table.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, NotInstalled
from lab.linux import NETNS, run
from lab.machines import vm_image
from lab.machines.container import unmount_below
from lab.machines.uml import CONTROL, OwnKernelMachine, name_tap
from lab.machines.uml_agent import MAC
from lab.rooted_files import write_file

QEMU = "qemu-system-x86_64"
#: MiB of a t4g.nano or t3.nano.
MEMORY = 512
_AGENT = "/usr/local/lib/lab/agent.py"
_DISK_SIZE = "8G"
#: Place on the PCI bus of the first interface, whose name it makes: ens5, as on EC2; and of the link for commands.
_FIRST_SLOT, _CONTROL_SLOT = 5, 30
#: A boot that takes minutes must not meet limits that are made for seconds, and is not to be made longer: by guards
#: against what a processor gives away, and by writing to an emulated line.
_KERNEL_OPTIONS = (
    "root=/dev/vda ro console=ttyS0,115200 quiet mitigations=off systemd.show_status=no "
    "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
)
_FILES = {
    _AGENT: Path(__file__).with_name("uml_agent.py").read_text(),
    "/etc/systemd/system/lab-agent.service": (
        "[Unit]\nDescription=The lab's way in\nDefaultDependencies=no\n"
        "After=local-fs.target systemd-udev-trigger.service\n"
        "Before=cloud-init-local.service systemd-networkd.service\n\n"
        f"[Service]\nExecStart=/usr/bin/python3 -I {_AGENT}\n"
        # Who looks for the machine's interfaces afterwards does not find this link.
        f"ExecStartPost=/bin/sh -c 'while grep -qsx {MAC} /sys/class/net/*/address; do sleep 0.2; done'\n"
        "Restart=always\nRestartSec=1\n"
    ),
    "/etc/systemd/system/sysinit.target.d/lab.conf": "[Unit]\nWants=lab-agent.service\n",
}


def require_qemu() -> None:
    """Raise `NotInstalled` where there is no qemu."""
    if shutil.which(QEMU) is None:
        raise NotInstalled("Debian's package qemu-system-x86 is not installed")


@dataclass
class VirtualMachine(OwnKernelMachine):
    """A machine like any other, on emulated hardware."""

    uses_dhcp = True

    @property
    def disk(self) -> Path:
        """Image of the machine's disk; what the machine writes stays in it over stop and start."""
        return self.directory / "disk.ext4"

    def prepare(self, files: Mapping[str, str] | None = None, hostname: str | None = None) -> None:
        """Make the disk, unless there is one, with files in it (path on the machine -> text; mode 0644)."""
        if not self.disk.exists():
            self._make_disk(dict(files or {}) | _FILES | ({"/etc/hostname": f"{hostname}\n"} if hostname else {}))
        self._take_links()

    def reset_disk(self) -> None:
        """Remove the disk: the next boot is the machine's first."""
        self.disk.unlink(missing_ok=True)
        super().reset_disk()

    def _asks_to_boot_again(self, code: int) -> bool:
        return False  # a reboot ends neither the process nor this

    def _make_disk(self, files: Mapping[str, str]) -> None:
        self._mount_root()
        try:
            for path, text in files.items():
                write_file(self.root, path, text)
            new = self.disk.with_suffix(".new")
            run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(self.root), str(new), _DISK_SIZE, timeout=300)
            new.rename(self.disk)
        finally:
            unmount_below(self.directory)

    def _command(self) -> list[str]:
        image = vm_image.find()
        if len(self.links) > _CONTROL_SLOT - _FIRST_SLOT:
            raise LabError(f"{self.name} has more interfaces than a virtual machine has room for")
        interfaces = [(CONTROL, MAC, _CONTROL_SLOT, 1500)] + [
            (name_tap(link.name), link.mac, _FIRST_SLOT + number, link.mtu) for number, link in enumerate(self.links)
        ]
        # EC2's begin with ec2; a machine's identity comes of it, so no two have the same.
        digest = hashlib.sha256(self.name.encode()).hexdigest()
        uuid = f"ec2{digest[:5]}-{digest[5:9]}-4{digest[9:12]}-8{digest[12:15]}-{digest[15:27]}"
        devices: list[str] = []
        for tap, mac, slot, mtu in interfaces:
            devices += ["-netdev", f"tap,id={tap},ifname={tap},script=no,downscript=no"]
            card = f"virtio-net-pci,netdev={tap},mac={mac},addr={slot:#x},host_mtu={mtu},romfile="
            devices += ["-device", card]
        return [
            "setpriv", "--pdeathsig=KILL",
            "nsenter", f"--net={NETNS / self.namespace}",
            "unshare", "--pid", "--fork", "--kill-child=KILL",
            "nice", "-n", "10",
            QEMU, "-machine", "pc,accel=tcg", "-cpu", "max,la57=off", "-smp", "1", "-m", str(MEMORY),
            "-nodefaults", "-no-user-config", "-display", "none",
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            "-smbios", f"type=1,manufacturer=Amazon EC2,product=t3.nano,uuid={uuid},serial={uuid}",
            "-kernel", str(image.kernel), "-initrd", str(image.initrd),
            "-append", _KERNEL_OPTIONS,
            "-drive", f"file={self.disk},if=none,id=root,format=raw,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci",
            *devices,
        ]  # fmt: skip
