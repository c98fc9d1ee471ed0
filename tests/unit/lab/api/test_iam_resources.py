"""The judge: what a call touches, the tags that it asks for, and permissions boundaries.

Does not prove that AWS judges so; the modules name the pages that they go by.
"""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.api.ec2_resources import list_arns, list_requested_tags
from lab.api.s3_actions import parse_s3
from lab.api.validation.validator import Validator
from tests.support.judged import JudgedAws, judged_aws

PREFIX = "arn:aws:ec2:eu-west-1:123456789012:"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


@pytest.mark.parametrize(
    ("action", "parameters", "expected"),
    [
        ("DescribeVpcs", {"VpcId.1": "vpc-1"}, ["*"]),
        ("CreateVpc", {"CidrBlock": "10.0.0.0/16"}, ["vpc/*"]),
        ("CreateSubnet", {"VpcId": "vpc-1"}, ["subnet/*", "vpc/vpc-1"]),
        ("DeleteVpcEndpoints", {"VpcEndpointId.1": "vpce-1"}, ["vpc-endpoint/vpce-1"]),
        # A route's target is not judged.
        ("CreateRoute", {"RouteTableId": "rtb-1", "GatewayId": "igw-1"}, ["route-table/rtb-1"]),
        (
            "ModifySecurityGroupRules",
            {"GroupId": "sg-1", "SecurityGroupRule.1.SecurityGroupRuleId": "sgr-1"},
            ["security-group/sg-1", "security-group-rule/sgr-1"],
        ),
        ("CreateTags", {"ResourceId.1": "eipalloc-1", "Tag.1.Key": "a"}, ["elastic-ip/eipalloc-1"]),
    ],
)
def test_a_call_of_ec2_touches_what_it_names_and_creates(
    action: str, parameters: dict[str, Any], expected: list[str]
) -> None:
    assert [arn.removeprefix(PREFIX) for arn in list_arns(action, parameters, PREFIX)] == expected


def test_a_launch_touches_its_image_interface_and_volume() -> None:
    parameters = {"ImageId": "ami-1", "NetworkInterface.1.NetworkInterfaceId": "eni-1"}
    assert list_arns("RunInstances", parameters, PREFIX) == [
        f"{PREFIX}instance/*",
        f"{PREFIX}volume/*",
        "arn:aws:ec2:eu-west-1::image/ami-1",
        f"{PREFIX}network-interface/eni-1",
    ]


def test_an_image_and_its_snapshot_belong_to_no_account() -> None:
    tags = {"TagSpecification.1.ResourceType": "image", "TagSpecification.1.Tag.1.Key": "Project"}
    parameters = {"InstanceId": "i-1", **tags}
    image = "arn:aws:ec2:eu-west-1::image/*"
    assert list_arns("CreateImage", parameters, PREFIX) == [
        image,
        "arn:aws:ec2:eu-west-1::snapshot/*",
        f"{PREFIX}instance/i-1",
    ]
    assert list_requested_tags("CreateImage", parameters, PREFIX) == {image: {"Project": ""}}
    assert list_arns("DeleteSnapshot", {"SnapshotId": "snap-1"}, PREFIX) == ["arn:aws:ec2:eu-west-1::snapshot/snap-1"]


def test_tags_are_asked_for_by_type() -> None:
    parameters = {
        "TagSpecification.1.ResourceType": "instance",
        "TagSpecification.1.Tag.1.Key": "Project",
        "TagSpecification.1.Tag.1.Value": "p",
        "TagSpecification.2.ResourceType": "volume",
        "TagSpecification.2.Tag.1.Key": "Stack",
        "TagSpecification.2.Tag.1.Value": "s",
    }
    assert list_requested_tags("RunInstances", parameters, PREFIX) == {
        f"{PREFIX}instance/*": {"Project": "p"},
        f"{PREFIX}volume/*": {"Stack": "s"},
    }


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/", "", "ListAllMyBuckets"),
        ("HEAD", "/b", "", "ListBucket"),
        ("GET", "/b", "list-type=2", "ListBucket"),
        ("GET", "/b", "versions", "ListBucketVersions"),
        ("PUT", "/b", "", "CreateBucket"),
        ("DELETE", "/b", "", "DeleteBucket"),
        ("GET", "/b", "cors", "GetBucketCORS"),
        ("PUT", "/b", "encryption", "PutEncryptionConfiguration"),
        ("DELETE", "/b", "encryption", "PutEncryptionConfiguration"),
        ("DELETE", "/b", "publicAccessBlock", "PutBucketPublicAccessBlock"),
        ("DELETE", "/b", "policy", "DeleteBucketPolicy"),
        ("HEAD", "/b/k", "", "GetObject"),
        ("GET", "/b/k", "tagging", "GetObjectTagging"),
        ("DELETE", "/b/k", "versionId=1", "DeleteObjectVersion"),
        ("POST", "/b", "delete", "DeleteObject"),
    ],
)
def test_an_s3_request_is_an_action(method: str, path: str, query: str, expected: str) -> None:
    assert parse_s3(method, "127.0.0.1", path, query, b"")[0] == expected


def document(*actions: str, condition: dict[str, Any] | None = None) -> str:
    statement = {"Effect": "Allow", "Action": [*actions], "Resource": "*"}
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [statement | ({"Condition": condition} if condition else {})]}
    )


def become(aws: JudgedAws, policy: str, boundary: str | None = None) -> dict[str, str]:
    """Return the keys of a new user with a policy and a boundary."""
    iam = aws.client("iam")
    arguments = {}
    if boundary:
        arguments["PermissionsBoundary"] = iam.create_policy(PolicyName="b", PolicyDocument=boundary)["Policy"]["Arn"]
    iam.create_user(UserName="u", **arguments)
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=policy)
    key = iam.create_access_key(UserName="u")["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def refusal(call: Any, **parameters: Any) -> str | None:
    """Return the action that a call is refused for, or None."""
    try:
        call(**parameters)
    except Exception as error:
        return str(error).partition("perform: ")[2].partition(" ")[0]
    return None


def test_a_boundary_allows_nothing_by_itself_and_bounds_what_is_allowed() -> None:
    with judged_aws(Validator()) as aws:
        keys = become(aws, document("ec2:DescribeVpcs", "ec2:CreateVpc"), document("ec2:DescribeVpcs", "iam:*"))
        ec2, iam = aws.client("ec2", **keys), aws.client("iam", **keys)
        assert refusal(ec2.describe_vpcs) is None
        assert refusal(ec2.create_vpc, CidrBlock="10.0.0.0/16") == "ec2:CreateVpc"
        assert refusal(iam.list_users) == "iam:ListUsers"
        aws.client("iam").delete_user_permissions_boundary(UserName="u")
        assert refusal(ec2.create_vpc, CidrBlock="10.0.0.0/16") is None


def test_a_boundary_that_does_not_exist_is_refused() -> None:
    with judged_aws() as aws:
        iam = aws.client("iam")
        boundary = {"PermissionsBoundary": "arn:aws:iam::123456789012:policy/none"}
        with pytest.raises(ClientError, match="does not exist"):
            iam.create_user(UserName="u", **boundary)
        with pytest.raises(ClientError, match="does not exist"):
            iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST, **boundary)


def test_a_policy_can_demand_a_boundary() -> None:
    with judged_aws() as aws:
        boundary = aws.client("iam").create_policy(PolicyName="x", PolicyDocument=document("*"))["Policy"]["Arn"]
        condition = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
        keys = become(aws, document("iam:CreateRole", "iam:PutRolePolicy", condition=condition))
        iam = aws.client("iam", **keys)
        role = {"AssumeRolePolicyDocument": TRUST, "Path": "/"}
        inline = {"PolicyName": "p", "PolicyDocument": document("s3:*")}
        assert refusal(iam.create_role, RoleName="free", **role) == "iam:CreateRole"
        assert refusal(iam.create_role, RoleName="bound", **role, PermissionsBoundary=boundary) is None
        assert refusal(iam.put_role_policy, RoleName="bound", **inline) is None
        aws.client("iam").create_role(RoleName="free", **role)
        assert refusal(iam.put_role_policy, RoleName="free", **inline) == "iam:PutRolePolicy"


def test_what_is_created_with_tags_needs_create_tags_and_its_tags_decide() -> None:
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": "Project", "Value": "p"}]}]
    tagged = {"StringEquals": {"aws:RequestTag/Project": "p"}}
    with judged_aws() as aws:
        ec2 = aws.client("ec2", **become(aws, document("ec2:CreateVpc", condition=tagged)))
        assert refusal(ec2.create_vpc, CidrBlock="10.0.0.0/16") == "ec2:CreateVpc"
        assert refusal(ec2.create_vpc, CidrBlock="10.0.0.0/16", TagSpecifications=tags) == "ec2:CreateTags"
        creating = document("ec2:CreateTags", condition={"StringEquals": {"ec2:CreateAction": "CreateVpc"}})
        aws.client("iam").put_user_policy(UserName="u", PolicyName="t", PolicyDocument=creating)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tags)["Vpc"]["VpcId"]
        assert refusal(ec2.create_tags, Resources=[vpc], Tags=tags[0]["Tags"]) == "ec2:CreateTags"


def test_the_tags_of_a_resource_decide_even_behind_an_association() -> None:
    with judged_aws() as aws:
        admin = aws.client("ec2")
        vpc = admin.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        table = admin.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        subnet = admin.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        association = admin.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
        condition = {"StringEquals": {"aws:ResourceTag/Project": "p"}}
        ec2 = aws.client("ec2", **become(aws, document("ec2:DisassociateRouteTable", condition=condition)))
        admin.create_tags(Resources=[table], Tags=[{"Key": "Project", "Value": "p"}])
        assert refusal(ec2.disassociate_route_table, AssociationId=association) == "ec2:DisassociateRouteTable"
        admin.create_tags(Resources=[subnet], Tags=[{"Key": "Project", "Value": "p"}])
        assert refusal(ec2.disassociate_route_table, AssociationId=association) is None


def test_a_writer_of_a_log_group_writes_to_no_other() -> None:
    """The ARN with `:*` stands for a group's streams; without, it allows no call on them."""
    group = "arn:aws:logs:eu-west-1:123456789012:log-group:/drawbridge/a/connections"
    actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
    with judged_aws() as aws:
        logs, iam = aws.client("logs"), aws.client("iam")
        for stack in ("a", "b"):
            logs.create_log_group(logGroupName=f"/drawbridge/{stack}/connections")
        writer = aws.client("logs", **become(aws, document("ec2:DescribeVpcs")))
        events = [{"timestamp": int(time.time() * 1000), "message": "m"}]

        def refusals(stack: str) -> list[str | None]:
            stream = {"logGroupName": f"/drawbridge/{stack}/connections", "logStreamName": "s"}
            return [
                refusal(writer.create_log_stream, **stream),
                refusal(writer.put_log_events, **stream, logEvents=events),
            ]

        for resource, expected in ((group, actions), (f"{group}:*", [None, None])):
            statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
            text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=text)
            assert refusals("a") == expected
        assert refusals("b") == actions


def test_a_role_goes_into_a_profile_only_if_it_may_be_passed() -> None:
    with judged_aws() as aws:
        iam = aws.client("iam")
        iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)
        iam.create_instance_profile(InstanceProfileName="p")
        user = aws.client("iam", **become(aws, document("iam:AddRoleToInstanceProfile")))
        pair = {"InstanceProfileName": "p", "RoleName": "r"}
        assert refusal(user.add_role_to_instance_profile, **pair) == "iam:PassRole"
