"""The known instance types are those of the EC2 API, as the AWS SDK describes it."""

import botocore.session
from botocore.model import StringShape

from settings.instance_types import SIZES


def test_the_types_are_those_of_the_sdk() -> None:
    """Fails after an update of the SDK that brings new types: add them."""
    model = botocore.session.get_session().get_service_model("ec2")
    types = model.shape_for("InstanceType")
    assert isinstance(types, StringShape)
    assert {f"{family}.{size}" for family, sizes in SIZES.items() for size in sizes} == {*types.enum}
