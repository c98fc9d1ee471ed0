"""The provider on in-process moto: each type created, read, changed and deleted, and what it refuses.

Does not prove that AWS accepts the calls, nor what moto does not model (IPv6 prefixes, stopped machines' real state).
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from engine.provider import compute
from engine.provider.catalog import Diff, Provider
from engine.provider.resource_type import RESOURCE_TYPES, Aws, ProviderError
from engine.provider.values import UNKNOWN, Props, secret
from lab.api import moto_patches

REGION = "eu-west-1"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}},
        ],
    }
)
READS = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "*"}]}
)
AMI = "ami-12c6146b"

#: name -> (type, inputs). A value "=name" is the id of another, "=name.key" one of its outputs.
WORLD: dict[str, tuple[str, Props]] = {
    "vpc": ("ec2/vpc:Vpc", {"cidrBlock": "10.1.0.0/16", "enableDnsHostnames": True, "tags": {"Name": "v"}}),
    "subnet": ("ec2/subnet:Subnet", {"vpcId": "=vpc", "cidrBlock": "10.1.0.0/24", "mapPublicIpOnLaunch": True}),
    "second": ("ec2/subnet:Subnet", {"vpcId": "=vpc", "cidrBlock": "10.1.1.0/24", "tags": {"Name": "s"}}),
    "internet": ("ec2/internetGateway:InternetGateway", {"vpcId": "=vpc"}),
    "egress6": ("ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway", {"vpcId": "=vpc"}),
    "table": ("ec2/routeTable:RouteTable", {"vpcId": "=vpc", "tags": {"Name": "t"}}),
    "member": ("ec2/routeTableAssociation:RouteTableAssociation", {"subnetId": "=subnet", "routeTableId": "=table"}),
    "main": ("ec2/mainRouteTableAssociation:MainRouteTableAssociation", {"vpcId": "=vpc", "routeTableId": "=table"}),
    "default": (
        "ec2/route:Route",
        {"routeTableId": "=table", "destinationCidrBlock": "0.0.0.0/0", "gatewayId": "=internet"},
    ),
    "group": ("ec2/securityGroup:SecurityGroup", {"vpcId": "=vpc", "tags": {"Name": "g"}}),
    "inline": (
        "ec2/securityGroup:SecurityGroup",
        {
            "vpcId": "=vpc",
            "ingress": [{"protocol": "tcp", "fromPort": 22, "toPort": 22, "cidrBlocks": ["10.0.0.0/8"], "self": True}],
            "egress": [{"protocol": "-1", "fromPort": 0, "toPort": 0, "cidrBlocks": ["0.0.0.0/0"]}],
        },
    ),
    "udp": (
        "vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        {"securityGroupId": "=group", "ipProtocol": "udp", "fromPort": 1194, "toPort": 1194, "cidrIpv4": "0.0.0.0/0"},
    ),
    "out": (
        "vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        {"securityGroupId": "=group", "ipProtocol": "-1", "cidrIpv4": "0.0.0.0/0"},
    ),
    "acl": (
        "ec2/networkAcl:NetworkAcl",
        {
            "vpcId": "=vpc",
            "subnetIds": ["=second"],
            "ingress": [
                {
                    "ruleNo": 90,
                    "protocol": "tcp",
                    "action": "deny",
                    "cidrBlock": "10.9.0.0/16",
                    "fromPort": 1,
                    "toPort": 9,
                }
            ],
        },
    ),
    "entry": (
        "ec2/networkAclRule:NetworkAclRule",
        {
            "networkAclId": "=acl",
            "ruleNumber": 100,
            "protocol": "icmp",
            "ruleAction": "allow",
            "cidrBlock": "0.0.0.0/0",
            "icmpType": 8,
            "icmpCode": -1,
        },
    ),
    "under": ("ec2/networkAclAssociation:NetworkAclAssociation", {"networkAclId": "=acl", "subnetId": "=subnet"}),
    "endpoint": ("ec2/vpcEndpoint:VpcEndpoint", {"vpcId": "=vpc", "serviceName": f"com.amazonaws.{REGION}.s3"}),
    "reach": (
        "ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation",
        {"vpcEndpointId": "=endpoint", "routeTableId": "=table"},
    ),
    "card": (
        "ec2/networkInterface:NetworkInterface",
        {"subnetId": "=subnet", "securityGroups": ["=group"], "sourceDestCheck": False, "privateIps": ["10.1.0.10"]},
    ),
    "address": ("ec2/eip:Eip", {"networkInterface": "=card", "tags": {"Name": "e"}}),
    "spare": ("ec2/eip:Eip", {"domain": "vpc"}),
    "bare": ("ec2/networkInterface:NetworkInterface", {"subnetId": "=second"}),
    "bound": ("ec2/eipAssociation:EipAssociation", {"allocationId": "=spare", "networkInterfaceId": "=bare"}),
    "key": (
        "ec2/keyPair:KeyPair",
        {"publicKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"},
    ),
    "role": ("iam/role:Role", {"assumeRolePolicy": TRUST, "tags": {"a": "b"}}),
    "own": ("iam/rolePolicy:RolePolicy", {"role": "=role", "policy": READS}),
    "policy": ("iam/policy:Policy", {"policy": READS}),
    "attached": ("iam/rolePolicyAttachment:RolePolicyAttachment", {"role": "=role", "policyArn": "=policy.arn"}),
    "profile": ("iam/instanceProfile:InstanceProfile", {"role": "=role"}),
    "user": ("iam/user:User", {"forceDestroy": True}),
    "allowed": ("iam/userPolicy:UserPolicy", {"user": "=user.name", "policy": READS}),
    "zone": (
        "route53/zone:Zone",
        {"name": "x.internal", "vpcs": [{"vpcId": "=vpc"}], "forceDestroy": True, "tags": {"a": "b"}},
    ),
    "named": (
        "route53/record:Record",
        {"zoneId": "=zone", "name": "gw.x.internal", "type": "A", "ttl": 60, "records": ["10.1.0.4"]},
    ),
    "access": ("iam/accessKey:AccessKey", {"user": "=user.name"}),
    "machine": (
        "ec2/instance:Instance",
        {
            "ami": AMI,
            "instanceType": "t4g.nano",
            "networkInterfaces": [{"networkInterfaceId": "=card", "deviceIndex": 0}],
            "iamInstanceProfile": "=profile",
            "userData": "#cloud-config\n",
            "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
            "rootBlockDevice": {"volumeSize": 8, "volumeType": "gp3", "encrypted": True},
            "tags": {"Name": "m"},
        },
    ),
    "bucket": ("s3/bucket:Bucket", {"forceDestroy": True, "tags": {"a": "b"}}),
    "private": ("s3/bucketPublicAccessBlock:BucketPublicAccessBlock", {"bucket": "=bucket", "blockPublicAcls": True}),
    "sealed": (
        "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        {"bucket": "=bucket", "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]},
    ),
    "owned": (
        "s3/bucketOwnershipControls:BucketOwnershipControls",
        {"bucket": "=bucket", "rule": {"objectOwnership": "BucketOwnerEnforced"}},
    ),
    "versions": (
        "s3/bucketVersioning:BucketVersioning",
        {"bucket": "=bucket", "versioningConfiguration": {"status": "Enabled"}},
    ),
    "expiry": (
        "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        {"bucket": "=bucket", "rules": [{"id": "a", "status": "Enabled", "expiration": {"days": 7}}]},
    ),
    "object": ("s3/bucketObjectv2:BucketObjectv2", {"bucket": "=bucket", "key": "a/b", "contentBase64": "AAEC"}),
    "guard": (
        "s3/bucketPolicy:BucketPolicy",
        {"bucket": "=bucket", "policy": {"Version": "2012-10-17", "Statement": []}},
    ),
    "master": ("kms/key:Key", {"description": "d", "deletionWindowInDays": 7, "tags": {"a": "b"}}),
    "alias": ("kms/alias:Alias", {"name": "alias/a", "targetKeyId": "=master"}),
    "log": ("cloudwatch/logGroup:LogGroup", {"name": "/a/log", "retentionInDays": 30, "tags": {"a": "b"}}),
    "topic": ("sns/topic:Topic", {"name": "t", "tags": {"a": "b"}}),
    "publishers": (
        "sns/topicPolicy:TopicPolicy",
        {"arn": "=topic", "policy": json.dumps({"Version": "2012-10-17", "Statement": []})},
    ),
    "email": (
        "sns/topicSubscription:TopicSubscription",
        {"topic": "=topic", "protocol": "email", "endpoint": "ops@example.com"},
    ),
    "alarm": (
        "cloudwatch/metricAlarm:MetricAlarm",
        {
            "name": "m",
            "namespace": "n",
            "metricName": "Ready",
            "statistic": "Minimum",
            "comparisonOperator": "LessThanThreshold",
            "threshold": 1,
            "period": 60,
            "evaluationPeriods": 1,
            "alarmActions": ["=topic"],
            "tags": {"a": "b"},
        },
    ),
    "parameter": ("ssm/parameter:Parameter", {"name": "/a/b", "type": "String", "value": "v", "tags": {"a": "b"}}),
}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """The provider in an empty AWS of this process."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield Provider(Aws(REGION))


class World:
    """Makes the resources of `WORLD` in order, as a program does."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.ids: dict[str, str] = {}
        self.inputs: dict[str, Props] = {}
        self.outputs: dict[str, Props] = {}

    def make(self, *names: str) -> None:
        for name in names or WORLD:
            kind, given = WORLD[name]
            inputs = self.provider.check(f"aws:{kind}", name, {}, self._filled(given))
            self.ids[name], self.outputs[name] = self.provider.create(f"aws:{kind}", name, inputs)
            self.inputs[name] = inputs

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if isinstance(value, str) and value.startswith("="):
            name, _, key = value[1:].partition(".")
            return self.outputs[name][key] if key else self.ids[name]
        return value

    def change(self, name: str, **news: Any) -> Diff:
        """Apply other inputs, as an update does; says what the diff was."""
        token = f"aws:{WORLD[name][0]}"
        after = {key: value for key, value in {**self.inputs[name], **news}.items() if value is not None}
        diff = self.provider.diff(token, self.inputs[name], after)
        if not diff.replaces:
            self.outputs[name] = self.provider.update(token, name, self.ids[name], self.inputs[name], after)
            self.inputs[name] = after
        return diff

    def read(self, name: str) -> Props | None:
        return self.provider.read(f"aws:{WORLD[name][0]}", name, self.ids[name], self.inputs[name])

    def delete(self, name: str) -> None:
        self.provider.delete(f"aws:{WORLD[name][0]}", name, self.ids[name], self.outputs[name])


@pytest.fixture
def world(provider: Provider) -> World:
    return World(provider)


def test_every_type_is_in_the_world() -> None:
    assert {f"aws:{kind}" for kind, _ in WORLD.values()} == set(RESOURCE_TYPES)


def test_every_type_is_made_read_found_again_and_deleted(world: World) -> None:
    world.make()
    for name in WORLD:
        outputs = world.outputs[name]
        assert outputs.items() >= world.inputs[name].items(), name
        assert world.read(name) is not None, name
        assert world.provider.diff(f"aws:{WORLD[name][0]}", world.inputs[name], world.inputs[name]) == Diff(), name
        token = f"aws:{WORLD[name][0]}"
        if RESOURCE_TYPES[token].id_from_inputs and name != "access":
            assert world.provider.find(token, name, world.inputs[name]) == world.ids[name], name
    for name in reversed(WORLD):
        world.delete(name)
    for name in WORLD:
        assert world.read(name) is None, name
        world.delete(name)  # what is gone already is no error
    assert boto3.client("ec2").describe_addresses()["Addresses"] == []


def test_a_cut_off_creation_is_finished_by_an_update_without_old_inputs(world: World) -> None:
    for name, (kind, _) in WORLD.items():
        world.make(name)
        world.provider.update(f"aws:{kind}", name, world.ids[name], {}, world.inputs[name])
        assert world.read(name) is not None, name


def test_tagged_resources_are_found_by_tags_unless_somebody_owns_them(world: World) -> None:
    world.make("vpc", "subnet", "second")
    find = world.provider.find
    assert find("aws:ec2/vpc:Vpc", "vpc", world.inputs["vpc"]) == world.ids["vpc"]
    assert find("aws:ec2/vpc:Vpc", "vpc", world.inputs["vpc"], [world.ids["vpc"]]) is None
    assert find("aws:ec2/subnet:Subnet", "second", world.inputs["second"]) == world.ids["second"]
    assert find("aws:ec2/subnet:Subnet", "subnet", world.inputs["subnet"]) is None  # no tag says whose it is


def test_a_security_group_starts_without_rules_and_takes_exactly_those_given(world: World) -> None:
    world.make("vpc", "group", "inline")
    ec2 = boto3.client("ec2")

    def rules(name: str) -> list[tuple[bool, str, int]]:
        found = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [world.ids[name]]}])
        return sorted((r["IsEgress"], r["IpProtocol"], r.get("FromPort", -1)) for r in found["SecurityGroupRules"])

    assert rules("group") == []
    assert rules("inline") == [(False, "tcp", 22), (False, "tcp", 22), (True, "-1", -1)]
    world.make("udp", "out")
    assert rules("group") == [(False, "udp", 1194), (True, "-1", -1)]
    assert not world.change("inline", ingress=[], egress=None).replaces
    assert rules("inline") == []


def test_a_launch_waits_until_ec2_sees_the_instance_profile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """IAM is eventually consistent; the words are EC2's."""
    names = list(WORLD)
    world.make(*names[: names.index("machine")])
    ec2 = world.provider.aws.client("ec2")
    text = "Value (p) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    refusal = ClientError({"Error": {"Code": "InvalidParameterValue", "Message": text}}, "RunInstances")
    refusals, launch = [refusal, refusal], ec2.run_instances
    monkeypatch.setattr(compute, "PROFILE_DELAY", 0)
    monkeypatch.setattr(ec2, "run_instances", lambda **arguments: _raise_or(refusals, launch, arguments))
    world.make("machine")
    assert refusals == []
    assert world.read("machine") is not None


def _raise_or(errors: list[ClientError], call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if errors:
        raise errors.pop()
    return call(**arguments)


def test_default_tags_become_inputs_of_what_has_tags(world: World) -> None:
    provider = Provider(world.provider.aws, '{"tags": {"Team": "network", "Name": "default"}}')
    assert provider.check("aws:ec2/vpc:Vpc", "v", {}, {"tags": {"Name": "v"}})["tags"] == {
        "Team": "network",
        "Name": "v",
    }
    assert "tags" not in provider.check("aws:ec2/route:Route", "r", {}, {"routeTableId": "rtb-1"})
    with pytest.raises(ProviderError, match=r"^aws:defaultTags: Team is not a mapping of tags; write "):
        Provider(world.provider.aws, "Team")


def test_tags_of_an_object_have_any_character_that_aws_takes(world: World) -> None:
    world.make("bucket")
    bucket, tags = world.ids["bucket"], {"Cost centre": "a+b=c/ü @1"}
    inputs = {"bucket": bucket, "key": "k", "content": "c", "tags": tags}
    world.provider.create("aws:s3/bucketObjectv2:BucketObjectv2", "o", inputs)
    listed = boto3.client("s3").get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in listed} == tags


def test_routes_change_target_in_place_and_destination_by_replacement(world: World) -> None:
    world.make("vpc", "subnet", "internet", "table", "default", "group", "card")
    assert not world.change("default", gatewayId=None, networkInterfaceId=world.ids["card"]).replaces
    tables = boto3.client("ec2").describe_route_tables(RouteTableIds=[world.ids["table"]])["RouteTables"]
    targets = {r["DestinationCidrBlock"]: r.get("NetworkInterfaceId") for r in tables[0]["Routes"]}
    assert targets["0.0.0.0/0"] == world.ids["card"]
    moved = world.change("default", destinationCidrBlock="10.8.0.0/24")
    assert (moved.replaces, moved.delete_before_replace) == (("destinationCidrBlock",), True)


def test_a_key_changes_in_place_and_waits_for_its_deletion(world: World) -> None:
    world.make("master", "alias")
    kms = boto3.client("kms")
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    changed = world.change("master", description="e", policy=policy, enableKeyRotation=True, tags={"c": "d"})
    assert not changed.replaces
    key = world.ids["master"]
    assert kms.describe_key(KeyId="alias/a")["KeyMetadata"]["Description"] == "e"
    assert kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"] == policy
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "c", "TagValue": "d"}]
    find = world.provider.find
    assert find("aws:kms/key:Key", "master", world.inputs["master"]) == key
    world.delete("alias")
    world.delete("master")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert find("aws:kms/key:Key", "master", world.inputs["master"]) is None


def test_a_log_group_changes_its_retention_and_tags_in_place(world: World) -> None:
    world.make("log")
    logs = boto3.client("logs")

    def retention() -> int | None:
        (group,) = logs.describe_log_groups(logGroupNamePrefix="/a/log")["logGroups"]
        days: int | None = group.get("retentionInDays")
        return days

    assert retention() == 30
    assert not world.change("log", retentionInDays=90, tags={"c": "d"}).replaces
    assert retention() == 90
    assert logs.list_tags_for_resource(resourceArn=world.outputs["log"]["arn"])["tags"] == {"c": "d"}
    world.change("log", retentionInDays=None)
    assert retention() is None


def test_an_interface_changes_its_check_groups_and_address_in_place(world: World) -> None:
    world.make("vpc", "subnet", "second", "group", "inline", "card", "address", "bare")
    world.change("card", sourceDestCheck=True, securityGroups=[world.ids["inline"]])
    card = boto3.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[world.ids["card"]])
    item = card["NetworkInterfaces"][0]
    assert (item["SourceDestCheck"], [g["GroupId"] for g in item["Groups"]]) == (True, [world.ids["inline"]])
    assert world.change("card", privateIps=["10.1.0.11"]).replaces == ("privateIps",)
    before = world.outputs["address"]["publicIp"]
    world.change("address", networkInterface=world.ids["bare"])
    after = world.outputs["address"]
    assert (after["publicIp"], after["networkInterface"]) == (before, world.ids["bare"])


def test_an_instance_changes_type_in_place_and_user_data_by_intent(world: World) -> None:
    world.make("vpc", "subnet", "group", "card", "role", "profile", "machine")
    ec2 = boto3.client("ec2")
    larger = {**world.inputs["machine"]["rootBlockDevice"], "volumeSize": 9}
    world.change("machine", instanceType="t4g.micro", userData="#other\n", rootBlockDevice=larger)
    item = ec2.describe_instances(InstanceIds=[world.ids["machine"]])["Reservations"][0]["Instances"][0]
    assert (item["InstanceType"], item["State"]["Name"]) == ("t4g.micro", "running")
    volume = item["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 9
    encrypted = world.change("machine", rootBlockDevice={**larger, "encrypted": False})
    assert encrypted.replaces == ("rootBlockDevice",)
    assert not world.change("machine", userDataReplaceOnChange=True).replaces
    assert world.change("machine", userData="#third\n").replaces == ("userData",)


def test_credits_change_in_place_and_are_sent_for_burstable_types_alone(world: World) -> None:
    """Amazon EC2 User Guide, "Key concepts for burstable performance instances": T4g starts with unlimited credits."""
    world.make("vpc", "subnet", "group", "card", "role", "profile")
    with moto_patches.patched(moto_patches.keep_credit_specifications):
        world.make("machine")
        id, ec2 = world.ids["machine"], boto3.client("ec2")

        def read_credits(*ids: str) -> list[str]:
            answer = ec2.describe_instance_credit_specifications(InstanceIds=list(ids))
            return [row["CpuCredits"] for row in answer["InstanceCreditSpecifications"]]

        assert read_credits(id) == ["unlimited"]
        assert not world.change("machine", creditSpecification={"cpuCredits": "standard"}).replaces
        assert (world.ids["machine"], read_credits(id)) == (id, ["standard"])

        inputs = {"ami": AMI, "instanceType": "c7g.medium", "creditSpecification": {"cpuCredits": "standard"}}
        other, _ = world.provider.create("aws:ec2/instance:Instance", "other", inputs)
        assert read_credits(other) == [], "the type has no credits, and the call names none"
        refused = ec2.modify_instance_credit_specification(
            InstanceCreditSpecifications=[{"InstanceId": other, "CpuCredits": "standard"}]
        )
        assert refused["UnsuccessfulInstanceCreditSpecifications"][0]["Error"]["Code"] == (
            "InstanceCreditSpecification.NotSupported"
        )


def test_an_update_plans_the_default_of_the_check_against_the_primary_interface(world: World) -> None:
    world.make("vpc", "subnet", "group", "card", "role", "profile")
    token = "aws:ec2/instance:Instance"
    interface = {"networkInterfaceId": world.ids["card"]}
    inputs = {"ami": AMI, "instanceType": "t4g.nano", "primaryNetworkInterface": interface}
    with moto_patches.patched(moto_patches.write_check_to_interface):
        id, outputs = world.provider.create(token, "machine", inputs)
        assert outputs["sourceDestCheck"] is False  # the interface's
        olds, news = world.provider.plan(token, inputs, outputs, inputs)
        assert world.provider.diff(token, olds, news).changed == ("sourceDestCheck",)
        ignoring = world.provider.plan(token, inputs, outputs, inputs, ["sourceDestCheck"])
        assert world.provider.diff(token, *ignoring) == Diff()
        old_block = {**inputs, "networkInterfaces": [{**interface, "deviceIndex": 0}]}
        assert world.provider.diff(token, *world.provider.plan(token, old_block, outputs, old_block)) == Diff()
        world.provider.update(token, "machine", id, olds, news)
        card = world.read("card")
        assert card is not None
        found = boto3.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[world.ids["card"]])
        assert found["NetworkInterfaces"][0]["SourceDestCheck"] is True


def test_an_instance_of_another_architecture_is_another_instance(world: World) -> None:
    diff = world.provider.diff
    token = "aws:ec2/instance:Instance"
    assert diff(token, {"instanceType": "t4g.nano"}, {"instanceType": "t3.nano"}).replaces == ("instanceType",)
    assert diff(token, {"instanceType": "t4g.nano"}, {"instanceType": "t4g.small"}).replaces == ()
    assert diff(token, {"instanceType": "t4g.nano"}, {"instanceType": UNKNOWN}).replaces == ()


def test_a_rule_changes_in_place_and_keeps_its_id(world: World) -> None:
    world.make("vpc", "group", "udp", "out")
    with moto_patches.patched(moto_patches.modify_whole_rules):
        assert not world.change("udp", fromPort=1300, toPort=1300, cidrIpv4="203.0.113.9/32", description="d").replaces
        assert not world.change("out", cidrIpv4="10.0.0.0/8").replaces
    found = boto3.client("ec2").describe_security_group_rules(SecurityGroupRuleIds=[world.ids["udp"]])
    rule = found["SecurityGroupRules"][0]
    assert (rule["FromPort"], rule["CidrIpv4"], rule["Description"]) == (1300, "203.0.113.9/32", "d")


def test_a_vpc_and_its_subnets_get_ipv6_in_place(world: World) -> None:
    world.make("vpc", "subnet")
    assert not world.change("vpc", assignGeneratedIpv6CidrBlock=True).replaces
    block = world.outputs["vpc"]["ipv6CidrBlock"].replace("/56", "/64")
    assert not world.change("subnet", ipv6CidrBlock=block, assignIpv6AddressOnCreation=True).replaces
    assert world.outputs["subnet"]["ipv6CidrBlock"] == block
    world.change("subnet", ipv6CidrBlock=None, assignIpv6AddressOnCreation=None)
    subnet = boto3.client("ec2").describe_subnets(SubnetIds=[world.ids["subnet"]])["Subnets"][0]
    assert not subnet["Ipv6CidrBlockAssociationSet"]


def test_an_interface_outlives_its_instance_and_serves_the_next(world: World) -> None:
    world.make("vpc", "subnet", "group", "card", "address", "role", "profile", "machine")
    world.delete("machine")
    world.make("machine")
    found = boto3.client("ec2").describe_addresses(AllocationIds=[world.ids["address"]])["Addresses"][0]
    assert found["NetworkInterfaceId"] == world.ids["card"]
    assert world.outputs["machine"]["primaryNetworkInterfaceId"] == world.ids["card"]


def test_policies_roles_and_parameters_change_in_place(world: World) -> None:
    world.make("role", "own", "policy", "parameter")
    for number in range(7):  # AWS keeps five versions of a policy
        world.change("policy", policy=READS.replace("GetParameter", f"GetParameter{number}"))
    iam = boto3.client("iam")
    assert len(iam.list_policy_versions(PolicyArn=world.ids["policy"])["Versions"]) == 5
    world.change("role", tags={"c": "d"}, maxSessionDuration=7200)
    role = iam.get_role(RoleName=world.ids["role"])["Role"]
    assert (role["Tags"], role["MaxSessionDuration"]) == ([{"Key": "c", "Value": "d"}], 7200)
    world.change("parameter", value="w", tags=None)
    assert world.outputs["parameter"]["version"] == 2
    ssm = boto3.client("ssm")
    assert ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/a/b")["TagList"] == []


def test_a_bucket_with_versions_in_it_goes_only_by_force(world: World) -> None:
    world.make("bucket", "versions", "object")
    world.change("object", contentBase64="AAED")
    world.outputs["bucket"]["forceDestroy"] = False
    with pytest.raises(ProviderError, match="BucketNotEmpty"):
        world.delete("bucket")
    world.outputs["bucket"]["forceDestroy"] = True
    world.delete("bucket")
    assert boto3.client("s3").list_buckets()["Buckets"] == []


def test_a_name_of_its_own_is_drawn_once_and_kept(provider: Provider) -> None:
    first = provider.check("aws:iam/role:Role", "role", {}, {"assumeRolePolicy": TRUST})
    again = provider.check("aws:iam/role:Role", "role", first, {"assumeRolePolicy": TRUST})
    other = provider.check("aws:iam/role:Role", "role", {}, {"assumeRolePolicy": TRUST})
    assert first == again != other
    assert first["name"].startswith("role-")
    kept = provider.diff("aws:iam/role:Role", {"name": "n", "path": "/"}, {"name": "n", "path": "/x/"})
    assert kept.delete_before_replace  # one name cannot be had twice at once
    assert not provider.diff("aws:iam/role:Role", {"name": "n"}, {"name": "m"}).delete_before_replace


def test_an_unknown_value_counts_as_changed_and_a_secret_tag_does_not(provider: Provider) -> None:
    token = "aws:ec2/subnet:Subnet"
    assert provider.diff(token, {"vpcId": "a"}, {"vpcId": UNKNOWN}).replaces == ("vpcId",)
    assert provider.diff(token, {"vpcId": "a"}, {"vpcId": secret("a")}) == Diff()


@pytest.mark.parametrize(
    ("token", "inputs", "message"),
    [
        ("aws:sqs/queue:Queue", {}, "does not know this type"),
        ("aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16", "typo": 1}, "Vpc thing: .* does not know the input typo"),
        ("aws:ec2/subnet:Subnet", {"cidrBlock": "10.0.0.0/24"}, "Subnet thing: the input vpcId is required"),
        ("aws:ec2/subnet:Subnet", {"vpcId": "vpc-1", "cidrBlock": "10.0.0.0/24"}, "thing: CreateSubnet: InvalidVpcID"),
        ("aws:ec2/route:Route", {"routeTableId": "r", "destinationCidrBlock": "0.0.0.0/0"}, "needs exactly one target"),
        (
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
            {"securityGroupId": "g"},
            "needs one of cidrIpv4",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(provider: Provider, token: str, inputs: Props, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        provider.create(token, "thing", provider.check(token, "thing", {}, inputs))


def test_an_error_holds_no_value_that_was_sent(provider: Provider) -> None:
    inputs = {"name": "/p", "type": "SecureString", "value": "hush-hush"}
    provider.create("aws:ssm/parameter:Parameter", "p", inputs)
    with pytest.raises(ProviderError, match="ParameterAlreadyExists") as caught:
        provider.create("aws:ssm/parameter:Parameter", "p", inputs)
    assert "hush" not in str(caught.value)
    assert caught.value.already_exists


def test_functions_answer_and_unknown_ones_raise(world: World) -> None:
    world.make("vpc", "subnet", "table", "member", "parameter", "zone")
    call = world.provider.invoke
    zone = call("aws:route53/getZone:getZone", {"zoneId": world.ids["zone"]})
    assert (zone["name"], zone["privateZone"], zone["tags"]) == ("x.internal", True, {"a": "b"})
    assert call("aws:index/getCallerIdentity:getCallerIdentity", {})["accountId"] == "123456789012"
    assert call("aws:index/getRegion:getRegion", {})["region"] == REGION
    zones = call("aws:index/getAvailabilityZones:getAvailabilityZones", {"state": "available"})["names"]
    assert zones[0] == f"{REGION}a"
    assert call("aws:ec2/getVpc:getVpc", {"id": world.ids["vpc"]})["cidrBlock"] == "10.1.0.0/16"
    assert call("aws:ec2/getSubnet:getSubnet", {"vpcId": world.ids["vpc"]})["id"] == world.ids["subnet"]
    table = call("aws:ec2/getRouteTable:getRouteTable", {"subnetId": world.ids["subnet"]})
    assert table["routeTableId"] == world.ids["table"]
    assert call("aws:ssm/getParameter:getParameter", {"name": "/a/b"})["value"] == "v"
    boto3.client("ssm").put_parameter(Name="/s", Type="SecureString", Value="x")
    assert call("aws:ssm/getParameter:getParameter", {"name": "/s"})["value"] == secret("x")
    for token, arguments, message in (
        ("aws:ec2/getVpc:getVpc", {"tags": {"Name": "nobody"}}, "0 VPCs match, but exactly one must match"),
        ("aws:ec2/getVpc:getVpc", {"colour": 1}, "does not know the argument colour"),
        ("aws:ec2/getMoon:getMoon", {}, "does not know this function"),
        ("aws:ssm/getParameter:getParameter", {"name": "/no"}, "GetParameter: ParameterNotFound"),
        ("aws:route53/getZone:getZone", {"zoneId": "Z0123456789ABCDEFGHIJ"}, "GetHostedZone: NoSuchHostedZone"),
    ):
        with pytest.raises(ProviderError, match=message):
            call(token, arguments)


def test_a_policy_document_is_spelt_as_aws_does(provider: Provider) -> None:
    given = {
        "statements": [
            {
                "sid": "Read",
                "actions": ["s3:GetObject"],
                "resources": ["arn:aws:s3:::b/*", "arn:aws:s3:::c/*"],
                "principals": [{"type": "Service", "identifiers": ["ec2.amazonaws.com"]}],
                "conditions": [{"test": "Bool", "variable": "aws:SecureTransport", "values": ["true"]}],
            },
            {"effect": "Deny", "notActions": ["s3:*"], "principals": [{"type": "*", "identifiers": ["*"]}]},
        ]
    }
    document = json.loads(provider.invoke("aws:iam/getPolicyDocument:getPolicyDocument", given)["json"])
    assert document == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Sid": "Read",
                "Action": "s3:GetObject",
                "Resource": ["arn:aws:s3:::b/*", "arn:aws:s3:::c/*"],
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Condition": {"Bool": {"aws:SecureTransport": "true"}},
            },
            {"Effect": "Deny", "NotAction": "s3:*", "Principal": "*"},
        ],
    }


def test_an_ipv6_prefix_that_the_api_does_not_give_is_an_error(world: World) -> None:
    world.make("vpc", "subnet", "group", "card")
    with pytest.raises(ProviderError, match="card: "):
        world.change("card", ipv6PrefixCount=1)
