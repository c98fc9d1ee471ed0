"""What the program makes of worlds `tenant` and `site`. Whether a packet passes is not shown here: see tests/lab."""

import io
import json
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

import contract
from settings.stack_file import read_stack_file
from tests.program.conftest import ROOT, Deployment, deploy_into_moto, empty_aws

SITE = contract.Names("home-lan")
FACE = {"CidrIpv4": "203.0.113.10/32", "IsEgress": False}


@pytest.fixture(scope="module")
def site() -> Iterator[Deployment]:
    with empty_aws():
        yield deploy_into_moto(read_stack_file(ROOT / "stacks/Pulumi.site.yaml"), "home-lan")


@pytest.fixture(scope="module")
def tenant() -> Iterator[Deployment]:
    with empty_aws():
        yield deploy_into_moto(read_stack_file(ROOT / "stacks/Pulumi.tenant.yaml"), "ci-1")


def archive(stack: Deployment, key: str) -> dict[str, str]:
    body = stack.s3.get_object(Bucket=stack.outputs["bucket"], Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read().decode() for name, file in files.items() if file}


def ingress(stack: Deployment) -> list[dict[str, Any]]:
    found = [{"Name": "group-id", "Values": [stack.outputs["securityGroupId"]]}]
    rules = stack.ec2.describe_security_group_rules(Filters=found)["SecurityGroupRules"]
    return [rule for rule in rules if not rule["IsEgress"]]


@pytest.mark.seed("3.10")
def test_the_tenants_environment_has_one_public_address(tenant: Deployment) -> None:
    assert len(tenant.ec2.describe_addresses()["Addresses"]) == 1
    subnets = tenant.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [tenant.outputs["vpcId"]]}])["Subnets"]
    assert {subnet["MapPublicIpOnLaunch"] for subnet in subnets} == {False}
    interfaces = tenant.ec2.describe_network_interfaces(NetworkInterfaceIds=[tenant.outputs["gatewayInterfaceId"]])
    (interface,) = interfaces["NetworkInterfaces"]
    assert interface["SourceDestCheck"] is True
    assert len(interface["PrivateIpAddresses"]) == 1


@pytest.mark.seed("3.2")
def test_the_tenants_pool_is_clear_of_usual_networks(tenant: Deployment) -> None:
    text = archive(tenant, contract.Names("ci-1").release_key(tenant.outputs["release"]))
    server = text["root/etc/openvpn/server/server.conf"].splitlines()
    assert {"dev tun0", "server 10.213.77.0 255.255.255.0 nopool", "keepalive 10 120"} <= set(server)
    assert 'push "route 10.180.0.0 255.255.0.0"' in server


@pytest.mark.seed("4.2")
def test_the_sites_server(site: Deployment) -> None:
    files = archive(site, SITE.release_key(site.outputs["release"]))
    server = files["root/etc/openvpn/server/server.conf"].splitlines()
    assert {
        "port 1194",
        "proto udp",
        "dev tun0",
        "topology subnet",
        "server 10.1.2.0 255.255.255.0 nopool",
        'push "route 10.1.0.0 255.255.254.0"',
        'push "route 192.168.1.0 255.255.255.0"',
        "ifconfig-pool-persist /var/lib/openvpn-server/ipp.txt 60",
        "keepalive 10 120",
        "status /run/openvpn-server/status 10",
        "explicit-exit-notify 1",
        "client-config-dir /etc/openvpn/server/ccd",
        "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305",
    } <= set(server)
    device = files["root/etc/systemd/network/10-drawbridge-tun0.network"]
    assert "Address=10.1.2.1/24" in device and "Destination=192.168.1.0/24" in device
    assert files["ccd/home"].splitlines()[1:] == [
        "ifconfig-push 10.1.2.10 255.255.255.0",
        "iroute 192.168.1.0 255.255.255.0",
    ]
    # client-to-client, as a rule of the gateway's filter: OpenVPN's own option would pass every filter by.
    rules = files["root/etc/drawbridge/nftables.conf"]
    assert "elements = { 10.1.2.0/24, 192.168.1.128/25 }" in rules.partition("set peers")[2].partition("}\n")[0] + "}"


@pytest.mark.seed("4.9")
def test_the_sites_networks_are_routed_to_the_interface_and_its_check_is_off(site: Deployment) -> None:
    tables = site.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [site.outputs["vpcId"]]}])
    gateway = site.outputs["gatewayInterfaceId"]
    routes = [
        {route["DestinationCidrBlock"] for route in table["Routes"] if route.get("NetworkInterfaceId") == gateway}
        for table in tables["RouteTables"]
        if any(tag["Key"] == "Stack" for tag in table["Tags"])
    ]
    assert routes == [{"10.1.2.0/24", "192.168.1.0/24"}] * 2
    (interface,) = site.ec2.describe_network_interfaces(NetworkInterfaceIds=[gateway])["NetworkInterfaces"]
    assert interface["SourceDestCheck"] is False


@pytest.mark.seed("4.12")
def test_the_tunnel_and_ssh_are_open_to_the_homes_address_alone(site: Deployment) -> None:
    open_to = {(r["IpProtocol"], r["FromPort"], r["ToPort"], r["CidrIpv4"]) for r in ingress(site)}
    assert open_to == {
        ("udp", 1194, 1194, "203.0.113.10/32"),
        ("tcp", 22, 22, "203.0.113.10/32"),
        # Routers' word that a packet is too large; it opens no port.
        ("icmp", 3, 4, "0.0.0.0/0"),
        # What the VPC's hosts send to the site, through the gateway.
        ("-1", -1, -1, "10.1.0.0/23"),
    }


def test_the_sites_kit_holds_names_and_no_secret(site: Deployment) -> None:
    files = archive(site, SITE.kit_key("home"))
    (rule,) = [r for r in ingress(site) if {"Key": contract.FOLLOWS_TAG, "Value": "tunnel/home"} in r["Tags"]]

    assert files["bundles"] == "home /drawbridge/home-lan/clients/home/bundle\n"
    assert f"RULE={rule['SecurityGroupRuleId']}\n" in files["kit.env"]
    assert files["units"].split() == [
        "drawbridge-site.service",
        "drawbridge-allow-me.timer",
        "openvpn-client@home.service",
    ]
    assert "10.1.0.0/23 via this host" in files["hints"]
    assert "net.ipv4.ip_forward = 1" in files["root/etc/sysctl.d/90-drawbridge-site.conf"]
    assert not any("PRIVATE KEY" in text or "-----BEGIN" in text for text in files.values())
    kit = site.s3.get_object(Bucket=site.outputs["bucket"], Key=SITE.kit_key("home"))["Body"].read()
    assert site.ssm.get_parameter(Name=SITE.kit_digest("home"))["Parameter"]["Value"] == sha256(kit).hexdigest()


@pytest.mark.seed("4.15")
def test_the_sites_user_may_move_its_own_rule_and_nothing_else(site: Deployment) -> None:
    user = SITE.kit_user("home")
    found = site.iam.get_user_policy(UserName=user, PolicyName="member")["PolicyDocument"]
    statements = {
        s["Sid"]: (s["Action"], s["Resource"])
        for s in (found if isinstance(found, dict) else json.loads(found))["Statement"]
    }
    (rule,) = [r for r in ingress(site) if {"Key": contract.FOLLOWS_TAG, "Value": "tunnel/home"} in r["Tags"]]
    base = "arn:aws:ec2:eu-west-1:123456789012"
    aliases = {alias["AliasName"]: alias.get("TargetKeyId") for alias in site.kms.list_aliases()["Aliases"]}
    key = f"arn:aws:kms:eu-west-1:123456789012:key/{aliases[contract.key_alias(SITE.stack)]}"
    assert statements == {
        "Bundle": (
            ["ssm:GetParameter", "ssm:GetParameters"],
            [f"arn:aws:ssm:eu-west-1:123456789012:parameter{SITE.bundle('home')}"],
        ),
        "BundleKey": (["kms:Decrypt"], [key]),
        "Kit": (["s3:GetObject"], [f"arn:aws:s3:::{site.outputs['bucket']}/kits/home.tar.gz"]),
        "DynamicRule": (
            ["ec2:ModifySecurityGroupRules"],
            [f"{base}:security-group/{rule['GroupId']}", f"{base}:security-group-rule/{rule['SecurityGroupRuleId']}"],
        ),
    }
    assert site.iam.list_access_keys(UserName=user)["AccessKeyMetadata"] == []


@pytest.mark.seed("3.12")
def test_each_environment_has_a_domain_of_its_own() -> None:
    """Two of one stack file: a zone each, known to its own VPC alone, with the gateway's private name in it."""
    raw = read_stack_file(ROOT / "stacks/Pulumi.tenant.yaml")
    with empty_aws():
        for name in ("ci-8", "ci-9"):
            stack = deploy_into_moto(raw, name)
            vpc = {"VPCId": stack.outputs["vpcId"], "VPCRegion": "eu-west-1"}
            (zone,) = stack.route53.list_hosted_zones_by_vpc(**vpc)["HostedZoneSummaries"]
            assert zone["Name"] == f"{name}.tenant.internal."
            found = stack.route53.get_hosted_zone(Id=zone["HostedZoneId"])
            assert found["HostedZone"]["Config"]["PrivateZone"] is True
            records = stack.route53.list_resource_record_sets(HostedZoneId=zone["HostedZoneId"])["ResourceRecordSets"]
            addresses = {r["Name"]: r["ResourceRecords"] for r in records if r["Type"] == "A"}
            assert addresses == {f"gateway.{name}.tenant.internal.": [{"Value": stack.outputs["privateIp"]}]}
            files = archive(stack, contract.Names(name).release_key(stack.outputs["release"]))
            server = files["root/etc/openvpn/server/server.conf"].splitlines()
            # The VPC's resolver, which clients reach by the gateway's translation.
            assert {
                'push "dhcp-option DNS 10.180.0.2"',
                f'push "dhcp-option DOMAIN {name}.tenant.internal"',
            } <= set(server)


def test_without_a_domain_none_is_pushed(site: Deployment) -> None:
    files = archive(site, SITE.release_key(site.outputs["release"]))
    assert "dhcp-option" not in files["root/etc/openvpn/server/server.conf"]
    vpc = {"VPCId": site.outputs["vpcId"], "VPCRegion": "eu-west-1"}
    assert site.route53.list_hosted_zones_by_vpc(**vpc)["HostedZoneSummaries"] == []
