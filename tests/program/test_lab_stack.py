"""The stack `lab`'s own file as AWS sees it. What AWS would accept and whether a packet passes is not shown here."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

import contract
from lab.api.iam import Call, is_allowed
from openvpn import bundle as bundles
from pki.authority import Certificate
from tests.program.conftest import REGION, Deployment

ACCOUNT = "123456789012"
NAMES = contract.Names("dev")


@pytest.fixture
def stack(lab_stack: Deployment) -> Deployment:
    return lab_stack


def test_every_output_of_the_contract_and_no_other(stack: Deployment) -> None:
    assert sorted(stack.outputs) == sorted(set(contract.StackOutput) - {contract.StackOutput.PAIR})
    assert all(stack.outputs.values())


@pytest.mark.seed("0.2")
def test_ingress_is_ssh_the_tunnel_echo_and_path_mtu_discovery(stack: Deployment) -> None:
    rules = stack.ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [stack.outputs["securityGroupId"]]}]
    )["SecurityGroupRules"]
    found = {(r["IsEgress"], r["IpProtocol"], r["FromPort"], r["ToPort"], r["CidrIpv4"]) for r in rules}
    assert len(rules) == len(found)
    assert found == {
        (False, "tcp", 22, 22, "192.0.2.0/24"),
        (False, "tcp", 22, 22, "198.51.100.0/24"),
        (False, "tcp", 22, 22, "203.0.113.0/24"),
        (False, "udp", 1194, 1194, "0.0.0.0/0"),
        (False, "icmp", 8, -1, "0.0.0.0/0"),
        (False, "icmp", 3, 4, "0.0.0.0/0"),
        (True, "-1", -1, -1, "0.0.0.0/0"),
    }


def test_routes(stack: Deployment) -> None:
    tables = stack.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [stack.outputs["vpcId"]]}])
    found = {}
    for table in tables["RouteTables"]:
        for association in table["Associations"]:
            if subnet := association.get("SubnetId"):
                found[subnet] = {
                    r["DestinationCidrBlock"]: r["GatewayId"].partition("-")[0]
                    for r in table["Routes"]
                    if r.get("DestinationCidrBlock")
                }
    assert found == {
        stack.outputs["publicSubnetId"]: {"10.1.0.0/16": "local", "0.0.0.0/0": "igw"},
        stack.outputs["privateSubnetId"]: {"10.1.0.0/16": "local"},
    }


def test_network_acls(stack: Deployment) -> None:
    found: dict[str, set[tuple[Any, ...]]] = {}
    for acl in stack.ec2.describe_network_acls()["NetworkAcls"]:
        for association in acl["Associations"]:
            found[association["SubnetId"]] = {
                (
                    "out" if e["Egress"] else "in",
                    e["RuleNumber"],
                    e["Protocol"],
                    e["CidrBlock"],
                    *(e.get("PortRange") or {}).values(),
                )
                for e in acl["Entries"]
                if e["RuleAction"] == "allow"
            }
    assert found[stack.outputs["publicSubnetId"]] == {
        ("in", 100, "-1", "10.1.0.0/16"),
        ("in", 110, "17", "0.0.0.0/0", 1194, 1194),
        ("in", 120, "6", "0.0.0.0/0", 22, 22),
        ("in", 130, "6", "0.0.0.0/0", 1024, 65535),
        ("in", 140, "17", "0.0.0.0/0", 1024, 65535),
        ("in", 150, "1", "0.0.0.0/0"),
        ("out", 100, "-1", "0.0.0.0/0"),
    }
    assert found[stack.outputs["privateSubnetId"]] == {
        ("in", 90, "6", "0.0.0.0/0", 1024, 65535),
        ("in", 100, "-1", "10.1.0.0/16"),
        ("out", 90, "6", "0.0.0.0/0", 443, 443),
        ("out", 100, "-1", "10.1.0.0/16"),
    }


def test_the_role_has_this_policy_alone(stack: Deployment) -> None:
    profile = stack.iam.list_instance_profiles()["InstanceProfiles"][0]
    (role,) = (r["RoleName"] for r in profile["Roles"])
    (name,) = stack.iam.list_role_policies(RoleName=role)["PolicyNames"]
    assert stack.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    parameter = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/drawbridge/dev"
    (key,) = (alias for alias in stack.kms.list_aliases()["Aliases"] if alias["AliasName"] == "alias/drawbridge-dev")
    assert stack.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"] == [
        {
            "Sid": "Pointer",
            "Effect": "Allow",
            "Action": ["ssm:GetParameter", "ssm:GetParameters"],
            "Resource": [f"{parameter}/release"],
        },
        {
            "Sid": "Report",
            "Effect": "Allow",
            "Action": ["ssm:PutParameter"],
            "Resource": [f"{parameter}/report"],
            "Condition": {"StringEquals": {"ssm:Overwrite": "true"}, "StringNotEquals": {"ssm:Policies": "true"}},
        },
        {
            "Sid": "Releases",
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": [f"arn:aws:s3:::{stack.outputs['bucket']}/releases/*"],
        },
        {
            "Sid": "Secrets",
            "Effect": "Allow",
            "Action": ["ssm:GetParameter", "ssm:GetParameters"],
            "Resource": [f"{parameter}/gateway/*"],
        },
        {
            "Sid": "SecretsPath",
            "Effect": "Allow",
            "Action": ["ssm:GetParametersByPath"],
            "Resource": [f"{parameter}/gateway"],
        },
        {
            "Sid": "SecretsKey",
            "Effect": "Allow",
            "Action": ["kms:Decrypt"],
            "Resource": [f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key['TargetKeyId']}"],
            "Condition": {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": f"{parameter}/gateway/*"}},
        },
        {
            "Sid": "ConnectionLog",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": [f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/drawbridge/dev/connections:*"],
        },
        {
            "Sid": "Metrics",
            "Effect": "Allow",
            "Action": ["cloudwatch:PutMetricData"],
            "Resource": ["*"],
            "Condition": {"StringEquals": {"cloudwatch:namespace": "Drawbridge/dev"}},
        },
    ]
    trust = stack.iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    assert [s["Principal"] for s in trust["Statement"]] == [{"Service": "ec2.amazonaws.com"}]


@pytest.mark.seed("9.7")
def test_the_role_can_read_its_own_and_nothing_else(stack: Deployment) -> None:
    (profile,) = stack.iam.list_instance_profiles()["InstanceProfiles"]
    role = profile["Roles"][0]["RoleName"]
    policy = stack.iam.get_role_policy(RoleName=role, PolicyName="gateway")["PolicyDocument"]
    parameters = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"
    objects = f"arn:aws:s3:::{stack.outputs['bucket']}"

    def may(action: str, resource: str, **more: str) -> bool:
        context = {"ssm:Overwrite": "true", "ssm:Policies": "false", **{f"ssm:{key}": more[key] for key in more}}
        return is_allowed([policy], Call(action.partition(":")[0], action, (resource,), context))

    own = [("ssm:GetParameter", f"{parameters}{NAMES.secret(name)}") for name in contract.GATEWAY_SECRETS]
    own += [
        ("ssm:GetParameter", f"{parameters}{NAMES.release}"),
        ("ssm:GetParametersByPath", f"{parameters}{NAMES.secrets}"),
        ("ssm:PutParameter", f"{parameters}{NAMES.report}"),
        ("s3:GetObject", f"{objects}/{NAMES.release_key(stack.outputs['release'])}"),
    ]
    others = [
        ("ssm:GetParameter", f"{parameters}{NAMES.keys}"),
        ("ssm:GetParameter", f"{parameters}{NAMES.bundle('alice')}"),
        ("ssm:GetParameter", f"{parameters}{contract.Names('other').secret('server.key')}"),
        ("ssm:GetParametersByPath", f"{parameters}{NAMES.root}"),
        ("ssm:GetParametersByPath", f"{parameters}{NAMES.authority}"),
        ("ssm:PutParameter", f"{parameters}{NAMES.release}"),
        ("ssm:PutParameter", f"{parameters}{NAMES.secret('server.key')}"),
        ("ssm:DeleteParameter", f"{parameters}{NAMES.report}"),
        ("s3:PutObject", f"{objects}/{NAMES.release_key(stack.outputs['release'])}"),
        ("s3:ListBucket", objects),
        ("s3:GetObject", "arn:aws:s3:::other/releases/x"),
        ("ec2:DescribeInstances", "*"),
        ("ec2:ReplaceRoute", "*"),
    ]
    assert [call for call in own if not may(*call)] == []
    assert [call for call in others if may(*call)] == []
    report = "ssm:PutParameter", f"{parameters}{NAMES.report}"
    assert not may(*report, Policies="true") and not may(*report, Overwrite="false")


@pytest.mark.seed("0.3")
def test_the_machine(stack: Deployment) -> None:
    (reservation,) = stack.ec2.describe_instances(InstanceIds=[stack.outputs["gatewayInstanceId"]])["Reservations"]
    (instance,) = reservation["Instances"]
    assert instance["InstanceType"] == "t4g.nano"
    assert instance["ImageId"] == "ami-0debian13arm64"
    options = instance["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    (disk,) = stack.ec2.describe_volumes()["Volumes"]
    assert (disk["Size"], disk["VolumeType"], disk["Encrypted"]) == (8, "gp3", True)
    assert [i["NetworkInterfaceId"] for i in instance["NetworkInterfaces"]] == [stack.outputs["gatewayInterfaceId"]]
    (interface,) = stack.ec2.describe_network_interfaces(NetworkInterfaceIds=[stack.outputs["gatewayInterfaceId"]])[
        "NetworkInterfaces"
    ]
    assert interface["SourceDestCheck"] is True
    assert interface["PrivateIpAddress"] == stack.outputs["privateIp"]


@pytest.mark.seed("0.1")
def test_bundles_name_the_elastic_ip(stack: Deployment) -> None:
    (address,) = stack.ec2.describe_addresses()["Addresses"]
    assert address["NetworkInterfaceId"] == stack.outputs["gatewayInterfaceId"]
    assert address["PublicIp"] == stack.outputs["publicIp"]
    bundle = parameter(stack, stack.outputs["clients"]["alice"]["bundle"])
    assert f"\nremote {address['PublicIp']} 1194\n" in bundle
    certificate = Certificate.read(bundles.certificate_of(bundle))
    assert (certificate.common_name, str(certificate.serial)) == ("alice", stack.outputs["clients"]["alice"]["serial"])


def test_the_pointer_leads_to_a_release_with_its_digest(stack: Deployment) -> None:
    pointer = json.loads(parameter(stack, NAMES.release))
    archive = stack.s3.get_object(Bucket=pointer["bucket"], Key=pointer["key"])["Body"].read()
    assert hashlib.sha256(archive).hexdigest() == pointer["sha256"] == stack.outputs["release"]
    assert pointer["key"] == NAMES.release_key(pointer["sha256"])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "ccd/alice" in tar.getnames()


def test_the_bucket_is_private(stack: Deployment) -> None:
    bucket = stack.outputs["bucket"]
    assert set(stack.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = stack.s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert stack.s3.get_bucket_versioning(Bucket=bucket).get("Status") is None
    (statement,) = json.loads(stack.s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


@pytest.mark.seed("9.6")
def test_private_keys_are_in_secure_strings_and_nowhere_else(stack: Deployment, caplog: Any) -> None:
    ssm = {p["Name"]: p for p in all_parameters(stack)}
    secure = {name for name, found in ssm.items() if found["Type"] == "SecureString"}
    assert secure == {NAMES.keys, NAMES.bundle("alice"), *(NAMES.secret(name) for name in contract.GATEWAY_SECRETS)}

    secrets = list(key_lines(found["Value"] for name, found in ssm.items() if name in secure))
    assert len(secrets) > 20  # the control: there is something to look for
    data = stack.ec2.describe_instance_attribute(InstanceId=stack.outputs["gatewayInstanceId"], Attribute="userData")[
        "UserData"
    ]["Value"]
    archive = stack.s3.get_object(Bucket=stack.outputs["bucket"], Key=NAMES.release_key(stack.outputs["release"]))
    with tarfile.open(fileobj=io.BytesIO(archive["Body"].read())) as tar:
        members = [tar.extractfile(m).read().decode() for m in tar if m.isfile()]  # type: ignore[union-attr]
    elsewhere = {
        "user data": base64.b64decode(data).decode(),
        "state": json.dumps(stack.resources),
        "outputs": json.dumps(stack.outputs),
        "log": caplog.text,
        "release": "".join(members),
        "open parameters": "".join(found["Value"] for name, found in ssm.items() if name not in secure),
    }
    assert elsewhere["user data"].startswith("#cloud-config\n")
    assert {where for where, text in elsewhere.items() for secret in secrets if secret in text} == set()
    assert {where for where, text in elsewhere.items() if "PRIVATE KEY-----\n" in text} == set()


def test_without_alerts_there_are_no_alarms_and_no_topic(stack: Deployment) -> None:
    assert stack.cloudwatch.describe_alarms()["MetricAlarms"] == []
    assert stack.sns.list_topics()["Topics"] == []


def test_everything_that_can_carry_tags_does(stack: Deployment) -> None:
    bare = [
        (kind, name)
        for kind, name, _, outputs in stack.resources
        if "tags" in outputs and not contract.tags("dev").items() <= (outputs["tags"] or {}).items()
    ]
    assert bare == []
    for found in all_parameters(stack):
        tags = stack.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=found["Name"])["TagList"]
        assert contract.tags("dev").items() <= {t["Key"]: t["Value"] for t in tags}.items(), found["Name"]


def parameter(stack: Deployment, name: str) -> str:
    return str(stack.ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])


def all_parameters(stack: Deployment) -> list[dict[str, Any]]:
    pages = stack.ssm.get_paginator("get_parameters_by_path").paginate(
        Path=NAMES.root, Recursive=True, WithDecryption=True
    )
    return [found for page in pages for found in page["Parameters"]]


def key_lines(values: Any) -> Iterator[str]:
    """Lines of base64 out of every private key in a text."""
    for value in values:
        for block in value.replace("\\n", "\n").split("-----BEGIN ")[1:]:
            title, _, rest = block.partition("-----\n")
            if title.endswith(("PRIVATE KEY", "server key", "client key")):
                yield from (line for line in rest.partition("-----END")[0].split() if len(line) >= 20)
