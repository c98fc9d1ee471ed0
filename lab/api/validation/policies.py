"""Refuse policies that are larger than AWS takes, which moto stores.

Sources: AWS Identity and Access Management User Guide, "IAM and AWS STS quotas" (white space does not count); AWS KMS
API Reference, "PutKeyPolicy".
"""

import re
from collections.abc import Callable

from lab.api.errors import ApiError
from lab.api.moto_inventory import Inventory
from lab.api.request import ApiRequest

#: Characters of all inline policies together, by what they belong to.
INLINE_LIMITS = {"User": 2_048, "Role": 10_240, "Group": 5_120}
MANAGED_LIMIT = 6_144
TRUST_LIMIT = 2_048
#: Bytes.
KEY_LIMIT = 32_768


def inline_check(owner: str) -> Callable[[ApiRequest, Inventory], ApiError | None]:
    """Return the check of PutUserPolicy, PutRolePolicy or PutGroupPolicy; `owner` is what the policy belongs to."""
    limit = INLINE_LIMITS[owner]

    def check(request: ApiRequest, inventory: Inventory) -> ApiError | None:
        name = str(request.parameters[f"{owner}Name"])
        policies = {
            **inventory.find_inline_policies(owner, name),
            str(request.parameters["PolicyName"]): str(request.parameters["PolicyDocument"]),
        }
        if sum(map(_count_characters, policies.values())) <= limit:
            return None
        return ApiError("LimitExceeded", f"Maximum policy size of {limit} bytes exceeded for {owner.lower()} {name}")

    return check


def check_managed_policy(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a managed policy, or a version of one, that is too large."""
    if _count_characters(str(request.parameters["PolicyDocument"])) <= MANAGED_LIMIT:
        return None
    return ApiError("LimitExceeded", f"Cannot exceed quota for PolicySize: {MANAGED_LIMIT}")


def check_trust_policy(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a role's trust policy that is too large."""
    key = "AssumeRolePolicyDocument" if request.action == "CreateRole" else "PolicyDocument"
    if _count_characters(str(request.parameters[key])) <= TRUST_LIMIT:
        return None
    return ApiError("LimitExceeded", f"Cannot exceed quota for ACLSizePerRole: {TRUST_LIMIT}")


def check_key_policy(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse the policy of a KMS key that is too large."""
    if len(str(request.parameters.get("Policy") or "").encode()) <= KEY_LIMIT:
        return None
    return ApiError("LimitExceededException", f"The key policy exceeds the maximum size of {KEY_LIMIT} bytes")


def _count_characters(policy: str) -> int:
    return len(re.sub(r"\s", "", policy))
