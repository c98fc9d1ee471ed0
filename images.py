"""Machine images that gateways run on, by the names that stack files use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: Architectures, as Debian names them.
Architecture = Literal["arm64", "amd64"]


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

#: Regular expression of what a stack file may name: an image, or the ID of an AMI.
IMAGE_PATTERN = rf"^({'|'.join(IMAGES)}|ami-[0-9a-f]+)$"


def find_image(name: str) -> MachineImage:
    """Return the image of a name; an AMI that is named by its ID must be one of the default image's system.

    >>> find_image("ami-0123").login_user
    'admin'
    """
    return IMAGES.get(name, IMAGES[DEFAULT_IMAGE])
