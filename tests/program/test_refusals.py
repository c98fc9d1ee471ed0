"""Every stack file's program, on an AWS that refuses what AWS refuses. Does not prove what AWS itself does."""

from pathlib import Path

import pytest

from lab.api.errors import ApiError
from lab.api.moto_patches import patched
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT, deploy_into_moto, empty_aws
from tests.support.judged import every_call_judged, judged_aws

STACKS = sorted(ROOT.glob("stacks/Pulumi.*.yaml"))


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.suffixes[0].removeprefix("."))
def test_no_call_of_a_stack_is_refused(path: Path) -> None:
    # Calls come as fast as this process can; an account sees them at the network's pace.
    validator = Validator(Rules(throttle_writes=False))
    with empty_aws(), patched(), every_call_judged(validator):
        assert deploy_into_moto(read_stack_file(path), "dev").outputs


def test_a_refused_call_does_not_pass() -> None:
    """The control of the test above."""
    with judged_aws() as aws, every_call_judged(Validator()), pytest.raises(ApiError, match="VPCs"):
        for number in range(6):
            aws.client("ec2").create_vpc(CidrBlock=f"10.{number}.0.0/16")
    assert aws.region == REGION
