"""Name the resources that a call of EC2 touches, and the tags it creates them with, as policies see them.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon EC2".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Names of parameters by the type of the resource whose ID they have. "N" stands for a number.
_PARAMETERS = {
    "vpc": ("VpcId",),
    "subnet": ("SubnetId", "SubnetId.N", "NetworkInterface.N.SubnetId"),
    "security-group": (
        "GroupId",
        "GroupId.N",
        "SecurityGroupId.N",
        "NetworkInterface.N.SecurityGroupId.N",
    ),
    "security-group-rule": ("SecurityGroupRuleId.N", "SecurityGroupRule.N.SecurityGroupRuleId"),
    "instance": ("InstanceId", "InstanceId.N"),
    "network-interface": ("NetworkInterfaceId", "NetworkInterface.N.NetworkInterfaceId"),
    "route-table": ("RouteTableId", "RouteTableId.N", "AddRouteTableId.N", "RemoveRouteTableId.N"),
    "elastic-ip": ("AllocationId",),
    "internet-gateway": ("InternetGatewayId", "GatewayId"),
    "egress-only-internet-gateway": ("EgressOnlyInternetGatewayId",),
    "network-acl": ("NetworkAclId",),
    "vpc-endpoint": ("VpcEndpointId", "VpcEndpointId.N"),
    "volume": ("VolumeId",),
    "image": ("ImageId",),
    "snapshot": ("SnapshotId",),
    "ipam-pool": ("IpamPoolId",),
}

#: Types of the resources that an action creates.
_CREATED = {
    "AllocateAddress": ("elastic-ip",),
    "AuthorizeSecurityGroupEgress": ("security-group-rule",),
    "AuthorizeSecurityGroupIngress": ("security-group-rule",),
    "CreateImage": ("image", "snapshot"),
    "CreateEgressOnlyInternetGateway": ("egress-only-internet-gateway",),
    "CreateInternetGateway": ("internet-gateway",),
    "CreateNetworkAcl": ("network-acl",),
    "CreateNetworkInterface": ("network-interface",),
    "CreateRouteTable": ("route-table",),
    "CreateSecurityGroup": ("security-group",),
    "CreateSubnet": ("subnet",),
    "CreateVpc": ("vpc",),
    "CreateVpcEndpoint": ("vpc-endpoint",),
    "RunInstances": ("instance", "volume"),
}

#: Types of the existing resources that an action is judged on, if they are fewer than its parameters name.
_JUDGED = {
    "CreateNetworkAclEntry": ("network-acl",),
    "CreateRoute": ("route-table",),
    "DeleteNetworkAclEntry": ("network-acl",),
    "DeleteRoute": ("route-table",),
    "ReplaceNetworkAclEntry": ("network-acl",),
    "ReplaceRoute": ("route-table",),
}

#: Types by the prefix of an ID, for actions that take any resource.
_PREFIXES = {
    "vpc": "vpc",
    "subnet": "subnet",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "i": "instance",
    "eni": "network-interface",
    "rtb": "route-table",
    "eipalloc": "elastic-ip",
    "igw": "internet-gateway",
    "eigw": "egress-only-internet-gateway",
    "acl": "network-acl",
    "vpce": "vpc-endpoint",
    "vol": "volume",
    "ami": "image",
    "snap": "snapshot",
}


def list_arns(action: str, parameters: Mapping[str, Any], prefix: str) -> list[str]:
    """Return the ARNs that a call is judged on; `prefix` is the ARNs' part before the resource's type.

    A resource that the call creates has no ID yet: its ARN ends in ``*``.
    """
    if action.startswith("Describe"):
        return ["*"]
    arns = [_build_arn(prefix, kind, "*") for kind in _CREATED.get(action, ())]
    for name, value in parameters.items():
        kind = _find_kind(name, str(value))
        if kind and kind in _JUDGED.get(action, (kind,)):
            arns.append(_build_arn(prefix, kind, str(value)))
    return list(dict.fromkeys(arns)) or ["*"]


def arn_of(identity: str, prefix: str) -> str:
    """Return the ARN of the resource with an ID; a type that this module does not know is part of it as it is."""
    kind = identity.rpartition("-")[0]
    return _build_arn(prefix, _PREFIXES.get(kind, kind), identity)


def _build_arn(prefix: str, kind: str, identity: str) -> str:
    if kind in ("image", "snapshot"):  # belong to no account
        prefix = prefix.removesuffix(":").rpartition(":")[0] + "::"
    if kind == "ipam-pool":  # belongs to no region
        partition, _, account = prefix.removesuffix(":").rpartition(":")
        prefix = f"{partition.rpartition(':')[0]}::{account}:"
    return f"{prefix}{kind}/{identity}"


def _find_kind(name: str, value: str) -> str | None:
    """Return the type of the resource that a parameter names, or None."""
    pattern = re.sub(r"\.\d+(?=\.|$)", ".N", name)
    if pattern == "ResourceId.N":
        return _PREFIXES.get(value.rpartition("-")[0])
    return next((kind for kind, names in _PARAMETERS.items() if pattern in names), None)


def list_new_tags(parameters: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the type and the tags of each kind of resource that a call creates with tags."""
    specified: dict[str, dict[str, str]] = {}
    for name, kind in parameters.items():
        if match := re.fullmatch(r"TagSpecification\.(\d+)\.ResourceType", name):
            specified[str(kind)] = _read_tags(parameters, f"TagSpecification.{match[1]}.Tag")
    yield from specified.items()


def _read_tags(parameters: Mapping[str, Any], prefix: str) -> dict[str, str]:
    keys = {
        match[1]: str(value)
        for name, value in parameters.items()
        if (match := re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.Key", name))
    }
    return {key: str(parameters.get(f"{prefix}.{number}.Value", "")) for number, key in keys.items()}


def list_requested_tags(action: str, parameters: Mapping[str, Any], prefix: str) -> dict[str, dict[str, str]]:
    """Return the tags that a call asks for, by the ARN of the resource that gets them."""
    if action in ("CreateTags", "DeleteTags"):
        tags = _read_tags(parameters, "Tag")
        return dict.fromkeys(list_arns(action, parameters, prefix), tags)
    return {_build_arn(prefix, kind, "*"): tags for kind, tags in list_new_tags(parameters)}
