"""The instance metadata service, asked over the wire from instances' networks.

Does not prove the categories that the lab does not know; docs/lab.md names what there is.
"""

import json
import socket
from collections.abc import Callable, Mapping

import pytest
from botocore.exceptions import ClientError

from lab.namespaces import add_namespace, delete_namespace
from tests.support.cloud import ALL, Cloud, Instance, Place, client

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"
INSTANCE_ID = "/latest/meta-data/instance-id"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def token(place: Place, seconds: int = 60, *, of: str = "169.254.169.254") -> str:
    status, body = place.asks("/latest/api/token", "PUT", headers={TTL: str(seconds)}, of=of)
    return body if status == 200 else ""


def launch(cloud: Cloud, **options: object) -> Instance:
    vpc = cloud.vpc()
    return cloud.instance(vpc.subnet(), vpc.group([ALL]), MetadataOptions=options)


def test_with_tokens_required_a_request_without_one_is_refused(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Use the Instance Metadata Service to access instance metadata": IMDSv2."""
    strict, lax = launch(cloud, HttpTokens="required"), launch(cloud, HttpTokens="optional")

    assert strict.asks(INSTANCE_ID) == (401, "")
    assert strict.asks(INSTANCE_ID, headers={TOKEN: "made-up"})[0] == 401
    assert strict.asks(INSTANCE_ID, headers={TOKEN: token(strict)}) == (200, strict.id)
    assert lax.asks(INSTANCE_ID) == (200, lax.id)


def test_a_token_ends_with_its_ttl(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Use the Instance Metadata Service": 1 second to 6 hours."""
    instance = launch(cloud, HttpTokens="required")
    for wrong in ("0", "21601", "soon", ""):
        assert instance.asks("/latest/api/token", "PUT", headers={TTL: wrong})[0] == 400
    assert instance.asks("/latest/api/token", "PUT")[0] == 400
    assert instance.asks("/latest/api/token", headers={TTL: "60"})[0] == 405

    short = token(instance, 1)
    assert instance.asks(INSTANCE_ID, headers={TOKEN: short})[0] == 200
    instance.run("sh", "-c", "sleep 1.1")  # the token's whole life
    assert instance.asks(INSTANCE_ID, headers={TOKEN: short})[0] == 401


def test_a_token_is_one_instances_own(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Use the Instance Metadata Service": a session token is instance-specific."""
    one, other = launch(cloud, HttpTokens="required"), launch(cloud, HttpTokens="required")
    assert other.asks(INSTANCE_ID, headers={TOKEN: token(one)})[0] == 401


def test_no_token_is_given_to_a_proxy(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Use the Instance Metadata Service": not with an X-Forwarded-For header."""
    instance = launch(cloud)
    headers = {TTL: "60", "X-Forwarded-For": "10.0.0.1"}
    assert instance.asks("/latest/api/token", "PUT", headers=headers)[0] == 403


def test_a_token_goes_no_further_than_the_hop_limit(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Modify instance metadata options for existing instances": hop limit."""
    instance = launch(cloud, HttpTokens="required", HttpPutResponseHopLimit=1)
    guest = container_of(instance)
    try:
        assert token(instance)
        assert not token(guest), "a container's packets have one more hop"

        cloud.ec2.modify_instance_metadata_options(InstanceId=instance.id, HttpPutResponseHopLimit=2)
        assert token(guest)
        assert guest.asks(INSTANCE_ID)[0] == 401, "what was not named stays as it was"
    finally:
        delete_namespace(guest.namespace)


def container_of(instance: Instance) -> Place:
    """A network namespace behind the instance, which translates its packets."""
    guest = Place(instance.region, f"{instance.namespace}c", "172.17.0.2")
    add_namespace(guest.namespace)
    instance.run("ip", "link", "add", "docker0", "type", "veth", "peer", "name", "eth0", "netns", guest.namespace)
    instance.run("ip", "address", "add", "172.17.0.1/24", "dev", "docker0", check=True)
    instance.run("ip", "link", "set", "docker0", "up", check=True)
    guest.run("ip", "address", "add", "172.17.0.2/24", "dev", "eth0", check=True)
    guest.run("ip", "link", "set", "eth0", "up", check=True)
    guest.run("ip", "route", "add", "default", "via", "172.17.0.1", check=True)
    instance.run("sysctl", "-qw", "net.ipv4.ip_forward=1", check=True)
    chain = "add chain ip nat out { type nat hook postrouting priority srcnat; }"
    for command in ("add table ip nat", chain, 'add rule ip nat out oifname "ens5" masquerade'):
        instance.run("nft", command, check=True)
    return guest


def test_the_service_can_be_turned_off_and_on(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Modify instance metadata options for existing instances": HttpEndpoint."""
    instance = launch(cloud)
    for endpoint, status in (("disabled", 403), ("enabled", 200)):
        cloud.ec2.modify_instance_metadata_options(InstanceId=instance.id, HttpEndpoint=endpoint)
        assert instance.asks(INSTANCE_ID)[0] == status


def test_the_ipv6_endpoint_is_there_when_it_is_enabled(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Use the Instance Metadata Service": [fd00:ec2::254]."""
    vpc = cloud.vpc(ipv6=True)
    instance = cloud.instance(vpc.subnet(), vpc.group(), card={"Ipv6AddressCount": 1})
    there = "fd00:ec2::254"
    assert instance.asks(INSTANCE_ID, of=there)[0] == 403

    cloud.ec2.modify_instance_metadata_options(InstanceId=instance.id, HttpProtocolIpv6="enabled")
    assert instance.asks(INSTANCE_ID, of=there) == (200, instance.id)


def test_no_security_group_or_acl_stands_before_it(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "Control subnet traffic with network ACLs": IMDS and DNS are not filtered."""
    vpc = cloud.vpc()
    instance = cloud.instance(vpc.subnet(), vpc.group([], egress=[]))
    for egress in (True, False):
        cloud.ec2.delete_network_acl_entry(NetworkAclId=vpc.default_acl, RuleNumber=100, Egress=egress)
    assert instance.asks(INSTANCE_ID)[0] == 200


def test_nobody_asks_under_anothers_address(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Access instance metadata for an EC2 instance": link-local, for the instance alone."""
    vpc = cloud.vpc()
    subnet, group = vpc.subnet(), vpc.group([ALL])
    asker, neighbour = cloud.instance(subnet, group), cloud.instance(subnet, group)
    unchecked = {"NetworkInterfaceId": asker.interface, "SourceDestCheck": {"Value": False}}
    cloud.ec2.modify_network_interface_attribute(**unchecked)
    with neighbour.captures(0x0800) as answers:
        asker.calls("169.254.169.254", 80, source=neighbour.address)
        assert not answers.has(socket.inet_aton("169.254.169.254"))
        assert token(neighbour), "control: its own questions are answered"
        assert answers.has(socket.inet_aton("169.254.169.254"))


def test_it_says_what_the_api_says(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Instance metadata categories"."""
    vpc = cloud.vpc(online=True)
    subnet, group = vpc.subnet(), vpc.group([ALL])
    instance = cloud.instance(subnet, group, public=True, UserData="#!/bin/sh\ntrue\n")
    for path, value in (
        ("meta-data/local-ipv4", instance.address),
        ("meta-data/public-ipv4", instance.public),
        ("meta-data/mac", instance.mac),
        ("meta-data/instance-type", "t3.nano"),
        ("meta-data/placement/region", "eu-west-1"),
        (f"meta-data/network/interfaces/macs/{instance.mac}/subnet-id", subnet),
        (f"meta-data/network/interfaces/macs/{instance.mac}/vpc-id", vpc.id),
        ("user-data", "#!/bin/sh\ntrue\n"),
    ):
        assert instance.asks(f"/latest/{path}") == (200, value)
    assert instance.asks("/latest/meta-data/iam")[0] == 404
    assert instance.asks("/latest/meta-data/nothing")[0] == 404
    document = json.loads(instance.asks("/latest/dynamic/instance-identity/document")[1])
    assert (document["instanceId"], document["architecture"]) == (instance.id, "x86_64")


def test_the_identity_document_names_the_architecture_of_the_type(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Instance identity documents"."""
    subnet = cloud.vpc().subnet()
    instance = cloud.instance(subnet, ImageId="ami-0debian13arm64", InstanceType="t4g.nano")
    document = json.loads(instance.asks("/latest/dynamic/instance-identity/document")[1])
    assert document["architecture"] == "arm64"


def role(cloud: Cloud, name: str, trust: Mapping[str, object], *statements: Mapping[str, object]) -> None:
    """A role with an inline policy, and an instance profile of the same name."""
    iam = client(cloud.region, "iam")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    if statements:
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def test_role_credentials_come_from_sts_and_may_do_what_the_role_may(cloud: Cloud) -> None:
    """Amazon EC2 User Guide, "Retrieve security credentials from instance metadata"."""
    arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/mine/*"
    role(cloud, "reader", TRUST, {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": arn})
    ssm = client(cloud.region, "ssm")
    for name in ("/mine/one", "/theirs/one"):
        ssm.put_parameter(Name=name, Value="value", Type="SecureString")
    vpc = cloud.vpc()
    instance = cloud.instance(vpc.subnet(), vpc.group(), IamInstanceProfile={"Name": "reader"})

    assert instance.asks("/latest/meta-data/iam/security-credentials/") == (200, "reader")
    given = json.loads(instance.asks("/latest/meta-data/iam/security-credentials/reader")[1])
    assert given["Code"] == "Success"
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["Token"],
    }
    own = client(cloud.region, "ssm", **keys)
    assert own.get_parameter(Name="/mine/one", WithDecryption=True)["Parameter"]["Value"] == "value"
    assert instance.id in client(cloud.region, "sts", **keys).get_caller_identity()["Arn"]
    attempts: tuple[Callable[[], object], ...] = (
        lambda: own.get_parameter(Name="/theirs/one"),
        lambda: own.put_parameter(Name="/mine/one", Value="x", Type="String", Overwrite=True),
        lambda: client(cloud.region, "ec2", **keys).describe_instances(),
    )
    for attempt in attempts:
        with pytest.raises(ClientError, match=r"not authorized|UnauthorizedOperation"):
            attempt()
    with pytest.raises(ClientError, match="security token"):
        client(cloud.region, "ssm", **{**keys, "aws_session_token": "another"}).get_parameter(Name="/mine/one")


def test_a_role_that_does_not_trust_ec2_gives_no_credentials(cloud: Cloud) -> None:
    """IAM User Guide, "Troubleshoot IAM roles for EC2": AssumeRoleUnauthorizedAccess."""
    other = json.loads(json.dumps(TRUST).replace("ec2.", "lambda."))
    role(cloud, "other", other)
    vpc = cloud.vpc()
    instance = cloud.instance(vpc.subnet(), vpc.group(), IamInstanceProfile={"Name": "other"})
    given = json.loads(instance.asks("/latest/meta-data/iam/security-credentials/other")[1])
    assert given["Code"] == "AssumeRoleUnauthorizedAccess"
    assert "AccessKeyId" not in given


def test_names_are_answered_by_the_vpcs_resolver(cloud: Cloud) -> None:
    """Amazon VPC User Guide, "DNS attributes for your VPC": the resolver at base + 2 and 169.254.169.253."""
    vpc = cloud.vpc()
    instance = cloud.instance(vpc.subnet(), vpc.group([], egress=[]))
    for server in ("10.1.0.2", "169.254.169.253"):
        assert instance.resolves("ssm.eu-west-1.amazonaws.com", server) == ["192.0.2.10"]
        assert instance.resolves("no.such.name.example", server) == []
