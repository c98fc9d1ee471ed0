"""What AWS refuses and moto takes, as boto3 meets it. The texts are AWS's; each case passes on moto alone.

Does not prove that AWS has no further rules.
"""

import base64
import functools
import json
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest

from lab.api.errors import ApiError
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from tests.support.judged import JudgedAws, judged_aws

Call = Callable[[], Any]
ARM, INTEL = "ami-0debian13arm64", "ami-0debian13amd64"
TRUST = "{}"


def refused(call: Call, code: str, text: str = "") -> None:
    """Assert that a call is refused with AWS's code and words."""
    with pytest.raises(ApiError, match=re.escape(text) if text else None) as refusal:
        call()
    assert refusal.value.code == code


# --- the models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "action", "parameters", "code", "text"),
    [
        ("iam", "create_role", {"RoleName": "r" * 65, "AssumeRolePolicyDocument": TRUST}, "ValidationError",
         "at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64"),
        ("iam", "create_user", {"UserName": "u" * 65}, "ValidationError", "length less than or equal to 64"),
        ("iam", "create_instance_profile", {"InstanceProfileName": "p" * 129}, "ValidationError", "equal to 128"),
        ("iam", "put_role_policy", {"RoleName": "r", "PolicyName": "p" * 129, "PolicyDocument": "{}"},
         "ValidationError", "at 'policyName' failed to satisfy constraint: Member must have length less than"),
        ("iam", "create_user", {"UserName": "a b"}, "ValidationError", r"regular expression pattern: [\w+=,.@-]+"),
        ("iam", "create_user", {"UserName": "ä"}, "ValidationError", "regular expression pattern"),
        ("iam", "create_user", {"UserName": "u", "Tags": [{"Key": "k", "Value": "\x01"}]}, "ValidationError",
         "at 'tags.1.member.value' failed to satisfy constraint"),
        ("iam", "create_role", {"RoleName": "r"}, "ValidationError",
         "1 validation error detected: Value null at 'assumeRolePolicyDocument' failed to satisfy constraint: "
         "Member must not be null"),
        ("iam", "create_role", {"RoleName": "r", "AssumeRolePolicyDocument": TRUST, "MaxSessionDuration": 60},
         "ValidationError", "Member must have value greater than or equal to 3600"),
        ("ssm", "delete_parameters", {"Names": [f"/n{n}" for n in range(11)]}, "ValidationException",
         "Member must have length less than or equal to 10"),
        ("ssm", "put_parameter", {"Name": "/a", "Value": "v", "Type": "Secret"}, "ValidationException",
         "Member must satisfy enum value set: [String, StringList, SecureString]"),
        ("cloudwatch", "put_metric_data", {"Namespace": ":x", "MetricData": [{"MetricName": "m"}]}, "ValidationError",
         "at 'namespace'"),
        ("route53", "create_hosted_zone", {"Name": "example.com"}, "InvalidInput", "Value null at 'callerReference'"),
        ("kms", "create_key", {"Description": "d" * 8193}, "ValidationException", "at 'description'"),
        ("sts", "assume_role", {"RoleArn": "short", "RoleSessionName": "s"}, "ValidationError",
         "2 validation errors detected: Value 'short' at 'roleArn'"),
        ("logs", "create_log_group", {"logGroupName": "a b"}, "InvalidParameterException", "at 'logGroupName'"),
        ("ec2", "create_network_interface", {}, "MissingParameter",
         "The request must contain the parameter subnetId"),
        ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16", "InstanceTenancy": "mine"}, "InvalidParameterValue",
         "Value (mine) for parameter instanceTenancy is invalid."),
    ],
)  # fmt: skip
def test_what_the_services_models_do_not_allow(
    aws: JudgedAws, service: str, action: str, parameters: dict[str, Any], code: str, text: str
) -> None:
    refused(lambda: getattr(aws.client(service), action)(**parameters), code, text)


def test_a_secret_value_is_not_in_a_refusal(aws: JudgedAws) -> None:
    with pytest.raises(ApiError) as refusal:
        aws.client("ssm").put_parameter(Name="/a", Value="hidden" * 1000, Type="SecureString")
    assert "hidden" not in str(refusal.value)


def test_letters_of_all_languages_are_letters(aws: JudgedAws) -> None:
    aws.client("iam").create_user(UserName="u", Tags=[{"Key": "größe", "Value": "大 1"}])


# --- EC2 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def subnet(aws: JudgedAws) -> str:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    return str(
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-west-1a")["Subnet"]["SubnetId"]
    )


def launch(ec2: Any, subnet: str, **changes: Any) -> str:
    parameters = {"ImageId": ARM, "InstanceType": "t4g.nano", "MinCount": 1, "MaxCount": 1, "SubnetId": subnet}
    answer = ec2.run_instances(**{k: v for k, v in {**parameters, **changes}.items() if v is not None})
    return str(answer["Instances"][0]["InstanceId"])


@pytest.mark.parametrize(
    "sources",
    [
        {"Ipv6AddressCount": 1, "Ipv6PrefixCount": 1},
        {"Ipv6AddressCount": 1, "Ipv6Prefixes": [{"Ipv6Prefix": "2001:db8::/80"}]},
        {"Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}], "Ipv6AddressCount": 1},
    ],
)
def test_an_interface_has_one_source_of_ipv6(aws: JudgedAws, subnet: str, sources: dict[str, Any]) -> None:
    ec2, text = aws.client("ec2"), "You can specify one and only one of ipv6Address or ipv6AddressCount"
    refused(lambda: ec2.create_network_interface(SubnetId=subnet, **sources), "InvalidParameterCombination", text)
    interface = {"DeviceIndex": 0, "SubnetId": subnet, **sources}
    refused(
        lambda: launch(ec2, subnet, SubnetId=None, NetworkInterfaces=[interface]), "InvalidParameterCombination", text
    )


def test_an_interface_is_attached_once(aws: JudgedAws, subnet: str) -> None:
    ec2 = aws.client("ec2")
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    brought = {"SubnetId": None, "NetworkInterfaces": [{"DeviceIndex": 0, "NetworkInterfaceId": interface}]}
    first = launch(ec2, subnet, **brought)
    refused(
        lambda: launch(ec2, subnet, **brought), "InvalidNetworkInterface.InUse", f"Interface: [{interface}] in use."
    )
    refused(
        lambda: ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=first, DeviceIndex=1),
        "InvalidNetworkInterface.InUse",
    )
    refused(
        lambda: ec2.delete_network_interface(NetworkInterfaceId=interface),
        "InvalidParameterValue",
        f"Network interface '{interface}' is currently in use.",
    )
    unused = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    ec2.delete_network_interface(NetworkInterfaceId=unused)


def test_a_subnet_with_an_interface_stays(aws: JudgedAws, subnet: str) -> None:
    ec2, text = aws.client("ec2"), f"The subnet '{subnet}' has dependencies and cannot be deleted."
    unused = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    refused(lambda: ec2.delete_subnet(SubnetId=subnet), "DependencyViolation", text)
    ec2.delete_network_interface(NetworkInterfaceId=unused)
    instance = launch(ec2, subnet)
    refused(lambda: ec2.delete_subnet(SubnetId=subnet), "DependencyViolation", text)
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.delete_subnet(SubnetId=subnet)


def test_a_security_group_in_use_stays(aws: JudgedAws, subnet: str) -> None:
    ec2 = aws.client("ec2")
    vpc = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    group, other = (
        ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"] for name in ("used", "other")
    )
    delete, text = functools.partial(ec2.delete_security_group, GroupId=group), f"resource {group} has a dependent"
    interface = ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]["NetworkInterfaceId"]
    refused(delete, "DependencyViolation", text)
    ec2.delete_network_interface(NetworkInterfaceId=interface)
    rule: dict[str, Any] = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    for user in (other, group):
        ec2.authorize_security_group_ingress(GroupId=user, IpPermissions=[rule])
    refused(delete, "DependencyViolation", text)
    ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=[rule])
    delete()  # that it names itself does not count


def _attach_gateway(ec2: Any, vpc: str) -> Call:
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    return partial(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)


def _make_group(ec2: Any, vpc: str) -> Call:
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    return partial(ec2.delete_security_group, GroupId=group)


def _make_acl(ec2: Any, vpc: str) -> Call:
    acl = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]
    return partial(ec2.delete_network_acl, NetworkAclId=acl)


@pytest.mark.parametrize("add", [_attach_gateway, _make_group, _make_acl])
def test_a_vpc_that_is_not_empty_stays(aws: JudgedAws, add: Callable[[Any, str], Call]) -> None:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    remove = add(ec2, vpc)
    text = f"The vpc '{vpc}' has dependencies and cannot be deleted."
    refused(lambda: ec2.delete_vpc(VpcId=vpc), "DependencyViolation", text)
    remove()
    ec2.delete_vpc(VpcId=vpc)


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"InstanceType": "t9z.nano"}, "InvalidParameterValue", "Invalid value 't9z.nano' for InstanceType."),
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound", "The image id '[ami-0123456789abcdef0]'"),
        ({"ImageId": INTEL}, "InvalidParameterValue", "does not match the architecture 'x86_64' of the specified AMI"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}]}, "InvalidBlockDeviceMapping",
         "Volume of size 4GB is smaller than snapshot, expect size >= 8GB"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue", "User data is limited to 16384 bytes"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue", "Invalid IAM Instance Profile name"),
    ],
)  # fmt: skip
def test_a_launch_that_ec2_refuses(aws: JudgedAws, subnet: str, changes: dict[str, Any], code: str, text: str) -> None:
    refused(lambda: launch(aws.client("ec2"), subnet, **changes), code, text)


def test_a_launch_at_every_limit_is_taken(aws: JudgedAws, subnet: str) -> None:
    volume = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}]
    assert launch(aws.client("ec2"), subnet, UserData="x" * 16384, BlockDeviceMappings=volume)


def test_an_instance_keeps_its_images_architecture(aws: JudgedAws, subnet: str) -> None:
    ec2 = aws.client("ec2")
    instance = launch(ec2, subnet)
    ec2.stop_instances(InstanceIds=[instance])
    ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t4g.small"})
    refused(
        lambda: ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t3.nano"}),
        "InvalidParameterValue",
        "does not match the architecture 'arm64'",
    )
    long = base64.b64encode(b"x" * 16385)
    refused(
        lambda: ec2.modify_instance_attribute(InstanceId=instance, UserData={"Value": long}), "InvalidParameterValue"
    )


def test_a_type_is_not_offered_in_every_zone() -> None:
    with judged_aws(Validator(), "us-east-1") as aws:
        ec2 = aws.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="us-east-1e")
        refused(
            lambda: launch(ec2, subnet["Subnet"]["SubnetId"]),
            "Unsupported",
            "(t4g.nano) is not supported in your requested Availability Zone (us-east-1e)",
        )


@pytest.mark.parametrize(
    ("name", "description"), [("grüße", "d"), ("n", "it's"), ("n" * 256, "d"), ("n", "a\nb"), ("sg-1", "d")]
)
def test_group_texts_have_a_character_set(aws: JudgedAws, name: str, description: str) -> None:
    refused(
        lambda: aws.client("ec2").create_security_group(GroupName=name, Description=description),
        "InvalidParameterValue",
    )


def test_rule_descriptions_have_one_too(aws: JudgedAws) -> None:
    ec2 = aws.client("ec2")
    group = ec2.create_security_group(GroupName="n", Description="d")["GroupId"]

    def authorize(text: str) -> None:
        permission = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1}
        ranges = [{"CidrIp": "10.0.0.0/8", "Description": text}]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**permission, "IpRanges": ranges}])

    authorize("tunnel/alice (udp)")
    refused(lambda: authorize("alice's"), "InvalidParameterValue", "Invalid rule description")


@pytest.mark.parametrize("tag", [("aws:x", "v"), ("k" * 129, "v"), ("k", "v" * 257), ("", "v")])
@pytest.mark.parametrize("service", ["ec2", "iam", "ssm"])
def test_tags_have_limits(aws: JudgedAws, service: str, tag: tuple[str, str]) -> None:
    tags = [{"Key": tag[0], "Value": tag[1]}]
    calls: dict[str, Call] = {
        "ec2": lambda: aws.client("ec2").create_tags(Resources=["vpc-1"], Tags=tags),
        "iam": lambda: aws.client("iam").create_user(UserName="u", Tags=tags),
        "ssm": lambda: aws.client("ssm").put_parameter(Name="/a", Value="v", Type="String", Tags=tags),
    }
    with pytest.raises(ApiError):
        calls[service]()


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cidr", ["10.0.0.0/15", "10.0.0.0/29", "0.1.0.0/16", "127.0.0.0/16", "169.254.0.0/24", "224.0.0.0/16"]
)
def test_ranges_that_no_vpc_has(aws: JudgedAws, cidr: str) -> None:
    ec2 = aws.client("ec2")
    refused(lambda: ec2.create_vpc(CidrBlock=cidr), "InvalidVpc.Range", cidr)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    refused(lambda: ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock=cidr), "InvalidVpc.Range", cidr)


def test_ranges_at_the_limits_are_taken(aws: JudgedAws) -> None:
    ec2 = aws.client("ec2")
    ec2.create_vpc(CidrBlock="172.17.0.0/28")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    refused(lambda: ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/29"), "InvalidSubnet.Range", "10.0.0.0/29")
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/28")


# --- quotas -----------------------------------------------------------------------------------------------------------


def test_five_vpcs_the_default_one_among_them(aws: JudgedAws) -> None:
    ec2 = aws.client("ec2")
    for _ in range(4):
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
    refused(lambda: ec2.create_vpc(CidrBlock="10.0.0.0/16"), "VpcLimitExceeded")


def test_five_elastic_addresses(aws: JudgedAws) -> None:
    ec2 = aws.client("ec2")
    for _ in range(5):
        ec2.allocate_address(Domain="vpc")
    refused(lambda: ec2.allocate_address(Domain="vpc"), "AddressLimitExceeded")


def test_twenty_acl_entries_a_direction_and_fifty_routes(aws: JudgedAws, subnet: str) -> None:
    ec2 = aws.client("ec2")
    vpc = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    acl = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]

    def add_entry(number: int, *, egress: bool = False) -> None:
        ec2.create_network_acl_entry(
            NetworkAclId=acl, RuleNumber=number, Protocol="-1", RuleAction="allow", Egress=egress,
            CidrBlock="10.0.0.0/8",
        )  # fmt: skip

    for number in range(1, 21):
        add_entry(number)
    refused(lambda: add_entry(21), "NetworkAclEntryLimitExceeded")
    add_entry(21, egress=True)

    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]

    def add_route(number: int) -> None:
        ec2.create_route(
            RouteTableId=table, DestinationCidrBlock=f"192.168.{number}.0/24", NetworkInterfaceId=interface
        )

    for number in range(50):
        add_route(number)
    refused(lambda: add_route(50), "RouteLimitExceeded")


# --- other services ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"Value": "v" * 4097}, "ValidationException", "maximum parameter value of 4096 characters"),
        ({"Value": "v" * 8193, "Tier": "Advanced"}, "ValidationException", "8192"),
        ({"Name": "/a b"}, "ValidationException", "letters, numbers and the following 3 symbols .-_"),
        ({"Name": "/a*"}, "ValidationException", ""),
        ({"Name": "a/b"}, "ValidationException", "fully qualified name"),
        ({"Name": "/a" * 16}, "HierarchyLevelLimitExceededException", "15"),
        ({"Name": "/" + "a" * 1011}, "ValidationException", "1011"),
        ({"Value": "{{ssm:other}}"}, "ValidationException", "can't nest another parameter"),
        ({"Name": "/held", "Type": "SecureString", "Overwrite": True}, "HierarchyTypeMismatchException", ""),
        ({"Type": "SecureString", "KeyId": "alias/nobody"}, "InvalidKeyId", "alias/nobody"),
    ],
)
def test_parameters_that_ssm_refuses(aws: JudgedAws, changes: dict[str, Any], code: str, text: str) -> None:
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/held", Value="v", Type="String")
    parameters = {"Name": "/a", "Value": "v", "Type": "String", **changes}
    refused(lambda: ssm.put_parameter(**parameters), code, text)


def test_parameters_at_the_limits_are_taken(aws: JudgedAws) -> None:
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/a" * 15, Value="v" * 4096, Type="SecureString")
    ssm.put_parameter(Name="/b", Value="v" * 8192, Type="String", Tier="Advanced")
    ssm.put_parameter(Name="/b", Value="w", Type="String", Overwrite=True)


def test_metrics_are_named_and_there(aws: JudgedAws) -> None:
    put = aws.client("cloudwatch").put_metric_data
    refused(lambda: put(Namespace="N", MetricData=[]), "MissingParameter", "The parameter MetricData is required.")
    refused(lambda: put(Namespace="AWS/EC2", MetricData=[{"MetricName": "m", "Value": 1}]), "InvalidParameterValue")
    put(Namespace="N", MetricData=[{"MetricName": "m", "Value": 1}])


def log_batch(*messages: tuple[float, str]) -> dict[str, Any]:
    """Return the arguments of PutLogEvents, with each message some seconds after an hour ago."""
    start = int(time.time()) - 3600
    events = [{"timestamp": int(1000 * (start + after)), "message": text} for after, text in messages]
    return {"logGroupName": "/a/log", "logStreamName": "s", "logEvents": events}


@pytest.fixture
def put_events(aws: JudgedAws) -> Call:
    """PutLogEvents into a stream that exists."""
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="/a/log")
    logs.create_log_stream(logGroupName="/a/log", logStreamName="s")
    return lambda *messages: logs.put_log_events(**log_batch(*messages))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([(1, "later"), (0, "earlier")], "must be in chronological order"),
        ([(-24 * 3600 - 1, "a"), (0, "b")], "cannot span more than 24 hours"),
        ([(0, "m" * (1_048_576 - 25))], "Upload too large"),
        ([(0, "m")] * 10_001, "length less than or equal to 10000"),
        ([(0, "")], "length greater than or equal to 1"),
    ],
)
def test_log_events_that_logs_refuses(
    put_events: Callable[..., Any], messages: list[tuple[float, str]], text: str
) -> None:
    refused(lambda: put_events(*messages), "InvalidParameterException", text)


def test_log_events_at_the_limits_are_taken(put_events: Callable[..., Any]) -> None:
    put_events((-24 * 3600, "a"), (0, "m" * (1_048_576 - 26 - 27)))


def test_log_events_that_are_too_old_or_too_new_are_left_out(aws: JudgedAws, put_events: Callable[..., Any]) -> None:
    assert put_events((-15 * 24 * 3600, "old"))["rejectedLogEventsInfo"]
    assert put_events((0, "a"), (4 * 3600, "new"))["rejectedLogEventsInfo"]
    events = aws.client("logs").filter_log_events(logGroupName="/a/log")["events"]
    assert [event["message"] for event in events] == ["a"]


@pytest.mark.parametrize(("days", "taken"), [(30, True), (3653, True), (31, False), (10, False)])
def test_a_retention_is_one_of_aws_s(aws: JudgedAws, put_events: Callable[..., Any], days: int, taken: bool) -> None:
    put = aws.client("logs").put_retention_policy
    if taken:
        put(logGroupName="/a/log", retentionInDays=days)
    else:
        refused(lambda: put(logGroupName="/a/log", retentionInDays=days), "InvalidParameterException", f"{days}")


def test_a_vpc_has_one_private_zone_of_a_name(aws: JudgedAws, subnet: str) -> None:
    vpc = aws.client("ec2").describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    where = {"VPC": {"VPCRegion": aws.region, "VPCId": vpc}}
    create = aws.client("route53").create_hosted_zone
    create(Name="vpn.internal", CallerReference="1", **where)
    refused(lambda: create(Name="VPN.internal.", CallerReference="2", **where), "ConflictingDomainExists")
    create(Name="other.internal", CallerReference="3", **where)


def test_changes_of_records_fit_those_of_the_zone(aws: JudgedAws) -> None:
    route53 = aws.client("route53")
    zone = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]

    def change(*changes: tuple[str, str, str, str]) -> None:
        batch = [
            {
                "Action": action,
                "ResourceRecordSet": {"Name": name, "Type": type, "TTL": 60, "ResourceRecords": [{"Value": value}]},
            }
            for action, name, type, value in changes
        ]
        route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": batch})

    change(("CREATE", "vpn.example.com", "A", "192.0.2.1"), ("CREATE", "www.example.com", "CNAME", "example.net"))
    code = "InvalidChangeBatch"
    for refusal, *changes in (
        ("it already exists", ("CREATE", "VPN.example.com.", "A", "192.0.2.2")),
        ("it was not found", ("DELETE", "no.example.com", "A", "192.0.2.1")),
        ("the values provided do not match", ("DELETE", "vpn.example.com", "A", "192.0.2.2")),
        ("conflicting RRSet of type CNAME", ("UPSERT", "www.example.com", "A", "192.0.2.2")),
        ("conflicts with other records", ("CREATE", "vpn.example.com", "CNAME", "example.net")),
        ("it already exists", ("UPSERT", "vpn.example.com", "A", "192.0.2.9"), ("CREATE", "vpn.example.com", "A", "x")),
    ):
        refused(partial(change, *changes), code, refusal)
    change(("UPSERT", "vpn.example.com", "A", "192.0.2.2"))
    # A batch is read in its order.
    change(("DELETE", "vpn.example.com", "A", "192.0.2.2"), ("CREATE", "vpn.example.com", "CNAME", "example.net"))
    records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert [(r["Name"], r["Type"]) for r in records if r["Type"] in ("A", "CNAME")] == [
        ("vpn.example.com.", "CNAME"),
        ("www.example.com.", "CNAME"),
    ]


@pytest.mark.parametrize("name", [f"{'a' * 64}.internal", ".".join(["a" * 63] * 4), "a..internal"])
def test_zone_names_that_are_too_long(aws: JudgedAws, name: str) -> None:
    create = aws.client("route53").create_hosted_zone
    refused(lambda: create(Name=name, CallerReference="1"), "InvalidDomainName", name)


def test_a_zone_name_at_the_limits_is_taken(aws: JudgedAws) -> None:
    name = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(name) == 253
    aws.client("route53").create_hosted_zone(Name=f"{name}.", CallerReference="1")


@pytest.mark.parametrize(
    "name", ["Draw_bridge", "ab", "a" * 64, "10.0.0.1", "a..b", "-ab", "xn--abc", "abc-s3alias", "Abc"]
)
def test_bucket_names_that_s3_refuses(aws: JudgedAws, name: str) -> None:
    create = aws.client("s3").create_bucket
    # boto3 itself refuses some.
    with pytest.raises(Exception, match=r"not valid|Invalid bucket name"):
        create(Bucket=name, CreateBucketConfiguration={"LocationConstraint": aws.region})


def test_a_bucket_name_that_s3_takes(aws: JudgedAws) -> None:
    aws.client("s3").create_bucket(
        Bucket="drawbridge-1.x", CreateBucketConfiguration={"LocationConstraint": aws.region}
    )


@pytest.mark.parametrize("count", [10, 11])
def test_an_object_of_s3_has_at_most_ten_tags(aws: JudgedAws, count: int) -> None:
    s3, tags = aws.client("s3"), {f"k{n}": "" for n in range(count)}
    s3.create_bucket(Bucket="drawbridge-1", CreateBucketConfiguration={"LocationConstraint": aws.region})
    s3.put_object(Bucket="drawbridge-1", Key="k", Body=b"")
    tag_set = {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}
    calls: tuple[Call, ...] = (
        lambda: s3.put_object(Bucket="drawbridge-1", Key="k", Body=b"", Tagging=urlencode(tags)),
        lambda: s3.put_object_tagging(Bucket="drawbridge-1", Key="k", Tagging=tag_set),
    )
    for call in calls:
        if count > 10:
            refused(call, "BadRequest", "Object tags cannot be greater than 10")
        else:
            call()


# --- sizes of policies ------------------------------------------------------------------------------------------------


def policy(size: int) -> str:
    """Return a policy with so many characters; white space, which is not among them, makes it longer."""
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    missing = size - len(re.sub(r"\s", "", text))
    return text.replace("s3:::", "s3:::" + "a" * missing)


@pytest.mark.parametrize(("owner", "limit"), [("user", 2_048), ("role", 10_240), ("group", 5_120)])
def test_inline_policies_have_a_size_together(aws: JudgedAws, owner: str, limit: int) -> None:
    iam, name = aws.client("iam"), f"{owner.title()}Name"
    trust = {"AssumeRolePolicyDocument": TRUST} if owner == "role" else {}
    getattr(iam, f"create_{owner}")(**{name: "x"}, **trust)
    put = functools.partial(getattr(iam, f"put_{owner}_policy"), **{name: "x"})
    put(PolicyName="first", PolicyDocument=policy(limit))
    put(PolicyName="first", PolicyDocument=policy(limit - 500))
    put(PolicyName="second", PolicyDocument=policy(500))
    refused(
        lambda: put(PolicyName="second", PolicyDocument=policy(501)),
        "LimitExceeded",
        f"Maximum policy size of {limit} bytes exceeded for {owner} x",
    )


def test_a_managed_policy_and_a_trust_policy_have_a_size(aws: JudgedAws) -> None:
    iam = aws.client("iam")
    iam.create_policy(PolicyName="fits", PolicyDocument=policy(6_144))
    refused(
        lambda: iam.create_policy(PolicyName="large", PolicyDocument=policy(6_145)),
        "LimitExceeded",
        "Cannot exceed quota for PolicySize: 6144",
    )
    refused(
        lambda: iam.create_role(RoleName="large", AssumeRolePolicyDocument=policy(2_049)),
        "LimitExceeded",
        "Cannot exceed quota for ACLSizePerRole: 2048",
    )


def test_a_key_policy_has_a_size(aws: JudgedAws) -> None:
    kms, space = aws.client("kms"), " " * (32_768 - len(policy(1_000)))
    kms.create_key(Policy=policy(1_000) + space)
    refused(lambda: kms.create_key(Policy=policy(1_000) + space + " "), "LimitExceededException", "32768 bytes")


# --- eventual consistency ---------------------------------------------------------------------------------------------


def test_a_new_profile_is_not_there_at_once() -> None:
    with judged_aws(Validator(Rules(profile_delay=60))) as aws:
        profile = aws.client("iam").create_instance_profile(InstanceProfileName="p")["InstanceProfile"]
        ec2 = aws.client("ec2")
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        for reference, text in (({"Name": "p"}, "name"), ({"Arn": profile["Arn"]}, "ARN")):
            refused(
                lambda reference=reference: launch(ec2, subnet, IamInstanceProfile=reference),  # type: ignore[misc]
                "InvalidParameterValue",
                f"Invalid IAM Instance Profile {text}",
            )
        aws.validator.rules = Rules()
        assert launch(ec2, subnet, IamInstanceProfile={"Name": "p"})


def test_a_quota_is_raised_by_a_request(aws: JudgedAws) -> None:
    quotas, ec2 = aws.client("service-quotas"), aws.client("ec2")
    vpcs = {"ServiceCode": "vpc", "QuotaCode": "L-F678F1CE"}
    assert quotas.get_service_quota(**vpcs)["Quota"]["Value"] == 5
    answer = quotas.request_service_quota_increase(**vpcs, DesiredValue=6)
    assert answer["RequestedQuota"]["Status"] == "APPROVED"
    assert quotas.get_service_quota(**vpcs)["Quota"]["Value"] == 6
    for _ in range(5):
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
    refused(lambda: ec2.create_vpc(CidrBlock="10.0.0.0/16"), "VpcLimitExceeded")
    for _ in range(5):  # as many internet gateways as VPCs, that of the default VPC among them
        ec2.create_internet_gateway()
    refused(ec2.create_internet_gateway, "InternetGatewayLimitExceeded")
