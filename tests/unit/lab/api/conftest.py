"""An AWS in this process that refuses what the lab refuses."""

from collections.abc import Iterator

import pytest

from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from tests.support.judged import JudgedAws, judged_aws


@pytest.fixture
def aws() -> Iterator[JudgedAws]:
    """AWS with every rule but throttling, so that no test depends on its speed."""
    with judged_aws(Validator(Rules(throttle_writes=False))) as aws:
        yield aws
