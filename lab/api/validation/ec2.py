"""Refuse EC2 calls that moto takes and EC2 does not: one row of `RULES` a rule.

Sources: Amazon EC2 API Reference, the actions named in each row and "Error codes for the Amazon EC2 API"; Amazon EC2
User Guide, "Instance user data" and "Tag your Amazon EC2 resources".
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from lab.api.errors import ApiError
from lab.api.moto_inventory import Inventory
from lab.api.request import ApiRequest

#: Bytes of user data before it is encoded in base64.
_USER_DATA_LIMIT = 16384
#: An image's name (Amazon EC2 API Reference, CreateImage).
_IMAGE_NAME = re.compile(r"[A-Za-z0-9 ()\[\]./\-'@_]{3,128}")
#: Characters of a security group's name and description, and of a rule's description.
_GROUP_TEXT = re.compile(r"[A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{0,255}")


@dataclass(frozen=True, slots=True)
class Ec2Rule:
    """A check that runs on some actions."""

    actions: tuple[str, ...]
    check: Callable[[ApiRequest, Inventory], ApiError | None]


def check_ec2(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Return the first refusal of a call, or None."""
    if request.service != "ec2":
        return None
    rules = (rule for rule in RULES if request.action in rule.actions)
    return next((refusal for rule in rules if (refusal := rule.check(request, inventory))), None)


# --- VPCs -------------------------------------------------------------------------------------------------------------

#: Ranges that no VPC may have a part of (Amazon VPC User Guide, "VPC CIDR blocks").
_RESTRICTED = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4")))


def check_vpc_range(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a VPC's range that is larger than /16, smaller than /28, or of restricted addresses."""
    text = request.parameters.get("CidrBlock")
    if not text:
        return None
    # That it is a range has been checked with all packet parameters.
    network = IPv4Network(text, strict=False)
    if 16 <= network.prefixlen <= 28 and not any(network.overlaps(restricted) for restricted in _RESTRICTED):
        return None
    return ApiError("InvalidVpc.Range", f"The CIDR '{text}' is invalid.")


def check_subnet_range(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a subnet's range that is larger than /16 or smaller than /28."""
    text = request.parameters.get("CidrBlock")
    if not text or 16 <= IPv4Network(text, strict=False).prefixlen <= 28:
        return None
    return ApiError("InvalidSubnet.Range", f"The CIDR '{text}' is invalid.")


def check_vpc_empty(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to delete a VPC with an internet gateway, or a security group or network ACL beside its default ones.

    moto refuses one that has subnets or route tables.
    """
    identity = request.parameters.get("VpcId", "")
    if not inventory.list_vpc_dependents(identity):
        return None
    return ApiError("DependencyViolation", f"The vpc '{identity}' has dependencies and cannot be deleted.")


def check_subnet_empty(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to delete a subnet that has network interfaces."""
    identity = request.parameters.get("SubnetId", "")
    if not inventory.list_subnet_interfaces(identity):
        return None
    return ApiError("DependencyViolation", f"The subnet '{identity}' has dependencies and cannot be deleted.")


def check_group_unused(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to delete a security group that an interface has, or that a rule of another group names."""
    identity = request.parameters.get("GroupId", "")
    if not inventory.list_group_users(identity):
        return None
    return ApiError("DependencyViolation", f"resource {identity} has a dependent object")


# --- network interfaces -----------------------------------------------------------------------------------------------

_IPV6_SOURCES = ("Ipv6Addresses", "Ipv6AddressCount", "Ipv6Prefixes", "Ipv6PrefixCount")


def check_single_ipv6_source(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse an interface that is created with more than one kind of IPv6 addresses and prefixes."""
    for interface in (request.parameters, *request.parameters.get("NetworkInterfaces", ())):
        if len([name for name in _IPV6_SOURCES if interface.get(name)]) > 1:
            return ApiError(
                "InvalidParameterCombination",
                "You can specify one and only one of ipv6Address or ipv6AddressCount or ipv6Prefix or ipv6PrefixCount "
                "in interfaces to create",
            )
    return None


def check_interface_unused(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to attach or delete an interface that is attached to an instance."""
    entries = (request.parameters, *request.parameters.get("NetworkInterfaces", ()))
    for identity in [entry["NetworkInterfaceId"] for entry in entries if entry.get("NetworkInterfaceId")]:
        interface = inventory.find_interface(identity)
        if interface is None or interface.instance is None:
            continue
        if request.action == "DeleteNetworkInterface":
            return ApiError("InvalidParameterValue", f"Network interface '{identity}' is currently in use.")
        return ApiError(
            "InvalidNetworkInterface.InUse",
            f"Interface: [{identity}] in use." if request.action == "RunInstances" else f"{identity} is in use.",
        )
    return None


# --- instances --------------------------------------------------------------------------------------------------------


def check_instance_type(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse an instance type that is unknown, has another architecture than the image, or is not in the zone."""
    name = _read_instance_type(request)
    if name is None:
        return None
    architectures = inventory.list_architectures(name)
    if not architectures:
        return ApiError("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    instance = inventory.find_instance(request.parameters.get("InstanceId", ""))
    image = inventory.find_image(instance.image if instance else request.parameters.get("ImageId", ""))
    if image and image.architecture not in architectures:
        return ApiError(
            "InvalidParameterValue",
            f"The architecture '{','.join(architectures)}' of the specified instance type does not match the "
            f"architecture '{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have "
            "matching architectures, and try again.",
        )
    zone = instance.zone if instance else _find_zone(request, inventory)
    offered = inventory.list_zones(name)
    if zone and zone not in offered:
        return ApiError(
            "Unsupported",
            f"Your requested instance type ({name}) is not supported in your requested Availability Zone ({zone}). "
            f"Please retry your request by not specifying an Availability Zone or choosing {', '.join(offered)}.",
        )
    return None


def _read_instance_type(request: ApiRequest) -> str | None:
    value = request.parameters.get("InstanceType")
    return value.get("Value") if isinstance(value, Mapping) else value


def _find_zone(request: ApiRequest, inventory: Inventory) -> str | None:
    """Return the zone that a launch names, by its interface, its subnet or itself."""
    for entry in (*request.parameters.get("NetworkInterfaces", ()), request.parameters):
        if interface := inventory.find_interface(entry.get("NetworkInterfaceId", "")):
            return interface.zone
        if zone := inventory.find_subnet_zone(entry.get("SubnetId", "")):
            return zone
    zone = request.parameters.get("Placement", {}).get("AvailabilityZone")
    return str(zone) if zone else None


def check_image(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse an image that does not exist, or no longer."""
    identity = request.parameters.get("ImageId")
    if identity is None or inventory.find_image(identity):
        return None
    return ApiError("InvalidAMIID.NotFound", f"The image id '[{identity}]' does not exist")


def check_image_name(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse the name of another image of the account, and one with other characters than AWS takes."""
    name = request.parameters.get("Name", "")
    if not _IMAGE_NAME.fullmatch(name):
        return ApiError(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', "
            "'-', '/' and '_'",
        )
    if identity := inventory.find_own_image(name):
        return ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {identity}")
    return None


def check_image_ready(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to launch from an image that is not available yet."""
    identity = request.parameters.get("ImageId", "")
    image = inventory.find_image(identity)
    if image is None or image.state == "available":
        return None
    return ApiError("InvalidAMIID.Unavailable", f"The image ID '{identity}' is not available")


def check_root_volume(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse a root volume that is smaller than the image's snapshot."""
    image = inventory.find_image(request.parameters.get("ImageId", ""))
    for mapping in request.parameters.get("BlockDeviceMappings", ()) if image else ():
        size = mapping.get("Ebs", {}).get("VolumeSize")
        if image and size and mapping.get("DeviceName") == image.root_device and int(size) < image.snapshot_size:
            return ApiError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot, expect size >= {image.snapshot_size}GB",
            )
    return None


def check_user_data(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse user data that is not base64, or over 16 KB before it was encoded."""
    value = request.parameters.get("UserData")
    encoded = value.get("Value") if isinstance(value, Mapping) else value
    try:
        # A blob of ModifyInstanceAttribute has been decoded by the parser.
        size = len(encoded) if isinstance(encoded, bytes) else len(base64.b64decode(encoded or "", validate=True))
    except binascii.Error:
        return ApiError("InvalidParameterValue", "Invalid BASE64 encoding of user data")
    if size > _USER_DATA_LIMIT:
        return ApiError("InvalidParameterValue", "User data is limited to 16384 bytes")
    return None


# --- texts ------------------------------------------------------------------------------------------------------------


def check_group_texts(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse names and descriptions with characters that security groups do not take."""
    parameters = request.parameters
    for name in ("GroupName", "Description", "GroupDescription"):
        if not _GROUP_TEXT.fullmatch(parameters.get(name) or ""):
            return ApiError(
                "InvalidParameterValue",
                f"Value ({parameters[name]}) for parameter {'GroupName' if name == 'GroupName' else 'GroupDescription'}"
                " is invalid. Character sets beyond ASCII are not supported.",
            )
    if str(parameters.get("GroupName", "")).startswith("sg-"):
        return ApiError("InvalidParameterValue", "Invalid value for parameter GroupName: it may not start with sg-")
    for text in _list_rule_descriptions(parameters):
        if not _GROUP_TEXT.fullmatch(text):
            return ApiError(
                "InvalidParameterValue",
                f"Invalid rule description. Valid descriptions are strings less than 256 characters from the "
                f"following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{{}}!$* ({text})",
            )
    return None


def _list_rule_descriptions(parameters: Mapping[str, Any]) -> Iterator[str]:
    for permission in parameters.get("IpPermissions", ()):
        for kind in ("IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs"):
            yield from (entry["Description"] for entry in permission.get(kind, ()) if entry.get("Description"))
    for update in parameters.get("SecurityGroupRules", ()):
        if text := update.get("SecurityGroupRule", {}).get("Description"):
            yield text


_RULE_ACTIONS = (
    "AuthorizeSecurityGroupIngress",
    "AuthorizeSecurityGroupEgress",
    "ModifySecurityGroupRules",
    "UpdateSecurityGroupRuleDescriptionsIngress",
    "UpdateSecurityGroupRuleDescriptionsEgress",
)

#: Add a rule of EC2's here: the actions it is for, and its check.
RULES = (
    Ec2Rule(("CreateVpc", "AssociateVpcCidrBlock"), check_vpc_range),
    Ec2Rule(("CreateSubnet",), check_subnet_range),
    Ec2Rule(("DeleteVpc",), check_vpc_empty),
    Ec2Rule(("DeleteSubnet",), check_subnet_empty),
    Ec2Rule(("DeleteSecurityGroup",), check_group_unused),
    Ec2Rule(("RunInstances", "CreateNetworkInterface"), check_single_ipv6_source),
    Ec2Rule(("RunInstances", "DeleteNetworkInterface", "AttachNetworkInterface"), check_interface_unused),
    Ec2Rule(("RunInstances", "ModifyInstanceAttribute"), check_instance_type),
    Ec2Rule(("RunInstances",), check_image),
    Ec2Rule(("RunInstances",), check_image_ready),
    Ec2Rule(("CreateImage",), check_image_name),
    Ec2Rule(("RunInstances",), check_root_volume),
    Ec2Rule(("RunInstances", "ModifyInstanceAttribute"), check_user_data),
    Ec2Rule(("CreateSecurityGroup", *_RULE_ACTIONS), check_group_texts),
)
