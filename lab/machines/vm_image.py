"""Build what a virtual machine of the lab boots: Debian 13 with its cloud kernel and its list of packages for EC2.

The tree is built once into the user's cache, like `lab.machines.image`, and each machine gets a disk made from it.

Sources: debian-cloud-images, config_space/13 (files of class EC2); mmdebstrap(1); systemd.link(5).
"""

import hashlib
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.errors import ImageError
from lab.linux import run
from lab.machines.image import (
    IN_OWN_PID_NAMESPACE,
    MIRROR_NAME,
    NETPLAN,
    SOURCES,
    SUITE,
    build_once,
    find_debian_mirror,
    strip_identity,
    use_networkd,
)
from lab.machines.uml import CONTROL
from lab.machines.uml_agent import MAC
from lab.paths import PATHS

#: Debian's list for EC2 has neither kernel nor boot loader; a virtual machine of the lab gets its kernel from outside.
_KERNEL = ("linux-image-cloud-amd64", "initramfs-tools")
_PACKAGES = Path(__file__).with_name("packages.toml")
#: Names the link for commands in the initial RAM disk already. A name that begins with `en` would match netplan's file,
#: and the boot would wait two minutes for a link that its agent has taken away.
_LINK_FILE = "/etc/systemd/network/10-lab.link"
_LINK = f"[Match]\nMACAddress={MAC}\n\n[Link]\nName={CONTROL}\n"
_FILES = {
    "/etc/fstab": "/dev/vda / ext4 rw,discard,errors=remount-ro 0 1\n",
    **NETPLAN,
    "/etc/cloud/cloud.cfg.d/90_ec2.cfg": "system_info: {default_user: {name: admin}}\n",
    "/etc/apt/sources.list": SOURCES.format(name=MIRROR_NAME),
    "/etc/machine-id": "",
}


@dataclass(frozen=True, slots=True)
class VmImage:
    """A built image."""

    root: Path
    """The tree that disks are made from."""

    @property
    def kernel(self) -> Path:
        """The newest kernel in the tree."""
        return max(self.root.glob("boot/vmlinuz-*"))

    @property
    def initrd(self) -> Path:
        """The initial RAM disk of `kernel`."""
        return self.root / "boot" / self.kernel.name.replace("vmlinuz", "initrd.img")


def find() -> VmImage:
    """Return the image; raise `ImageError` where the cache has none."""
    image = VmImage(PATHS.cache / f"vm-{recipe_digest()}" / "root")
    if not image.root.is_dir():
        raise ImageError("the virtual machines' image is not built")
    return image


def recipe_digest() -> str:
    """Twelve hex digits that change whenever the image would."""
    return hashlib.sha256(json.dumps([2, SUITE, _list_packages(), _FILES, _LINK]).encode()).hexdigest()[:12]


def ensure(progress: Callable[[str], None]) -> VmImage:
    """Return the image; build it first where the cache has none (two minutes, 200 MB of downloads).

    Args:
        progress: called with a short text before the build.

    Raises:
        ImageError: the build failed; the text ends with what the failing tool printed.
    """
    build_once(f"vm-{recipe_digest()}", "the virtual machines' image", _build, progress)
    return find()


def _list_packages() -> list[str]:
    tables: dict[str, list[str]] = tomllib.loads(_PACKAGES.read_text())["ec2"]
    return sorted({*_KERNEL, *(package for table in tables.values() for package in table)})


def _build(target: Path, progress: Callable[[str], None]) -> None:
    progress("building the virtual machines' image (Debian 13 for EC2, once; about two minutes)")
    root = target / "root"
    link = target / "link"
    link.write_text(_LINK)
    run(
        *IN_OWN_PID_NAMESPACE,
        "env",
        f"TMPDIR={target}",
        "nice",
        "mmdebstrap",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(_list_packages())}",
        # Before the packages, one of which makes the initial RAM disk.
        f'--setup-hook=install -D -m 0644 "{link}" "$1{_LINK_FILE}"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        SUITE,
        str(root),
        *find_debian_mirror(),
        timeout=1800,
    )
    link.unlink()
    strip_identity(root)
    for path, text in _FILES.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    use_networkd(root)
