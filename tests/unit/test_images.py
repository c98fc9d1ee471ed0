"""The table of machine images. Does not prove that AWS has them."""

import doctest
import re

import pytest

import images
from images import DEFAULT_IMAGE, IMAGE_PATTERN, IMAGES


def test_examples() -> None:
    assert doctest.testmod(images).failed == 0


def test_every_image_may_be_named_in_a_stack_file() -> None:
    assert DEFAULT_IMAGE in IMAGES
    assert all(re.search(IMAGE_PATTERN, name) for name in (*IMAGES, "ours", "ami-0123abcd"))


@pytest.mark.parametrize("name", ["debian-9", "xdebian-13", "debian-13x", "ami-", "ami-xyz", ""])
def test_anything_else_is_refused(name: str) -> None:
    assert not re.search(IMAGE_PATTERN, name)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_an_image_has_a_parameter_for_each_architecture(image: images.MachineImage) -> None:
    assert set(image.parameters) == {"arm64", "amd64"}
    assert all(parameter.startswith("/aws/service/") for parameter in image.parameters.values())
