"""Machine images that gateways run on, by the names that stack files use."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Architectures, as Debian names them.
Architecture = Literal["arm64", "amd64"]

#: Architectures as EC2 names them.
EC2_ARCHITECTURES: Mapping[Architecture, str] = {"arm64": "arm64", "amd64": "x86_64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineImage:
    """An operating system that AWS has an image of for each architecture."""

    parameters: Mapping[Architecture, str]
    """Public SSM parameter with the ID of the newest image, by architecture."""
    login_user: str
    """User that the image gives the operator's SSH key to."""
    packages: tuple[str, ...]
    """Packages that a gateway needs; user data installs those that the image lacks."""


#: Source: Debian wiki, "Cloud/AmazonEC2Image".
IMAGES: Mapping[str, MachineImage] = {
    "debian-13": MachineImage(
        parameters={
            "arm64": "/aws/service/debian/release/13/latest/arm64",
            "amd64": "/aws/service/debian/release/13/latest/amd64",
        },
        login_user="admin",
        packages=("openvpn", "nftables", "python3-boto3", "ca-certificates"),
    )
}

DEFAULT_IMAGE = "debian-13"

#: Names of the newest image that `drawbridge image build` has made in the account, of the default image's system; the
#: second one has OpenVPN and the kernel from Debian's backports.
PREPARED, PREPARED_BACKPORTS = "ours", "ours-backports"

#: What is in a prepared image, by its name: the value of the tag that it is found by.
PREPARED_SYSTEMS: Mapping[str, str] = {PREPARED: DEFAULT_IMAGE, PREPARED_BACKPORTS: f"{DEFAULT_IMAGE}-backports"}

#: Suite of Debian 13's backports.
BACKPORTS = "trixie-backports"

#: Names that a stack file may give an image.
IMAGE_NAMES = (*IMAGES, *PREPARED_SYSTEMS)

#: Regular expression of what a stack file may name: an image, a prepared one, or the ID of an AMI.
IMAGE_PATTERN = rf"^({'|'.join(IMAGE_NAMES)}|ami-([0-9a-f]{{8}}|[0-9a-f]{{17}}))$"


def find_image(name: str) -> MachineImage:
    """Return the image of a name; a prepared one, or an AMI's ID, must be one of the default image's system.

    >>> find_image("ami-0123").login_user
    'admin'
    """
    return IMAGES.get(name, IMAGES[DEFAULT_IMAGE])


def list_packages(name: str, architecture: Architecture) -> tuple[str, ...]:
    """Return what apt-get installs into a prepared image.

    A package with a suite comes from that suite, and so do its dependencies if they must (apt-get(8), "install").

    >>> list_packages("ours-backports", "arm64")[0]
    'openvpn/trixie-backports'
    """
    packages = IMAGES[DEFAULT_IMAGE].packages
    if name != PREPARED_BACKPORTS:
        return packages
    newer = ("openvpn", f"linux-image-cloud-{architecture}")
    return (*(f"{package}/{BACKPORTS}" for package in newer), *(entry for entry in packages if entry not in newer))


def find_architecture(instance_type: str) -> Architecture:
    """Return the architecture of an instance type's processor, as Debian names it.

    Graviton families have a `g` after their generation, x86 families have none (Amazon EC2 Instance Types, "Naming
    conventions"); `a1` is older than that.

    >>> find_architecture("t4g.nano"), find_architecture("c7gn.medium"), find_architecture("g4dn.xlarge")
    ('arm64', 'arm64', 'amd64')
    """
    family = instance_type.partition(".")[0]
    return "arm64" if re.fullmatch(r"a1|[a-z]+\d+g[a-z]*", family) else "amd64"
