"""The known families of instance types are those of the EC2 API, as the AWS SDK describes it."""

import botocore.session
from botocore.model import StringShape

from settings.instance_families import FAMILIES


def test_the_families_are_those_of_the_sdk() -> None:
    """Fails after an update of the SDK that brings new families: add them."""
    model = botocore.session.get_session().get_service_model("ec2")
    types = model.shape_for("InstanceType")
    assert isinstance(types, StringShape)
    assert {name.partition(".")[0] for name in types.enum} == FAMILIES
