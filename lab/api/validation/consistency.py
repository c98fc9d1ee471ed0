"""Hide what other services do not see yet: IAM is eventually consistent.

Source: AWS IAM User Guide, "Troubleshoot IAM: Changes that I make are not always immediately visible".
"""

from lab.api.errors import ApiError
from lab.api.moto_inventory import Inventory
from lab.api.request import ApiRequest


def check_profile_visible(request: ApiRequest, inventory: Inventory, delay: float) -> ApiError | None:
    """Refuse an instance profile that does not exist, or that is younger than `delay` seconds."""
    if request.service != "ec2" or request.action not in ("RunInstances", "AssociateIamInstanceProfile"):
        return None
    profile = request.parameters.get("IamInstanceProfile", {})
    name, kind = (profile["Name"], "name") if profile.get("Name") else (profile.get("Arn", ""), "ARN")
    if not name:
        return None
    age = inventory.find_profile_age(name.rpartition("/")[2])
    if age is None or age < delay:
        text = f"Value ({name}) for parameter iamInstanceProfile.{kind.lower()} is invalid. "
        return ApiError("InvalidParameterValue", f"{text}Invalid IAM Instance Profile {kind}")
    return None
