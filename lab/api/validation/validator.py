"""Judge a call by everything AWS refuses and moto takes, before moto sees it."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from lab.api.errors import ApiError
from lab.api.iam import Call, SignedRequest
from lab.api.moto_inventory import Inventory
from lab.api.request import ApiRequest
from lab.api.rules import Rules
from lab.api.validation.consistency import check_profile_visible
from lab.api.validation.ec2 import check_ec2
from lab.api.validation.quotas import check_quotas
from lab.api.validation.services import check_bucket_name, check_object_tags, check_services
from lab.api.validation.shapes import check_shapes
from lab.api.validation.throttling import Throttle, is_read


class Validator:
    """The rules of all regions, with the state that throttling keeps.

    Args:
        rules: may be replaced at any time.
        clock: of throttling; returns the time in seconds.
    """

    def __init__(self, rules: Rules | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rules = rules or Rules()
        self._throttles: defaultdict[str, Throttle] = defaultdict(lambda: Throttle(clock=clock))

    def check(self, request: ApiRequest) -> None:
        """Raise `ApiError` for a call that AWS refuses."""
        for refusal in self._list_refusals(request, Inventory(request.region)):
            if refusal is not None:
                raise refusal

    def _list_refusals(self, request: ApiRequest, inventory: Inventory) -> Iterator[ApiError | None]:
        if self.rules.throttle_reads if is_read(request) else self.rules.throttle_writes:
            yield self._throttles[request.region].check(request)
        # EC2's own words come before the model's: an unknown instance type has a text of its own.
        yield check_ec2(request, inventory)
        yield check_shapes(request)
        yield check_services(request, inventory)
        yield check_profile_visible(request, inventory, self.rules.profile_delay)
        if self.rules.quotas:
            yield check_quotas(request, inventory)


def check_s3(call: Call, request: SignedRequest) -> None:
    """Raise `ApiError` for a bucket that S3 does not create, and for an object with too many tags."""
    refusal = check_object_tags(call.action, request.headers, request.body)
    if call.action == "s3:CreateBucket":
        refusal = check_bucket_name(call.resources[0].rpartition(":")[2])
    if refusal:
        raise refusal
