"""The path from a client to a host, as it is read from the AWS of a deployed stack; whole, and broken hop by hop.

Does not prove that AWS drops what is called broken.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, NoReturn

import boto3
import pytest

import contract
from drawbridge import errors
from drawbridge.doctor import path_checks, path_reader
from drawbridge.doctor.machine_reader import parse_machine
from drawbridge.doctor.path_checks import HopResult
from drawbridge.doctor.path_hops import PathHop
from drawbridge.operate.account import Account
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT, Deployment, deploy_into_moto, empty_aws

CLIENT = IPv4Address("203.0.113.10")
FILES = {"dev": "lab", "home-lan": "site"}
CLIENTS = {"dev": "alice", "home-lan": "home"}


def account_of(stack: str) -> Account:
    session = boto3.Session(region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")
    return Account(stack=stack, session=session)


def report_ready(stack: Deployment, names: contract.Names) -> None:
    """Have a gateway report that the stack's release runs, as its agent does."""
    outputs = stack.outputs if names.gateway == contract.GATEWAYS[0] else stack.outputs[contract.StackOutput.PAIR]
    report = {
        "state": "ready",
        "release": outputs["release"],
        "reason": "",
        "time": datetime.now(UTC).isoformat(),
        "instance": outputs["gatewayInstanceId"],
        "units": ["openvpn-server@server.service"],
    }
    stack.ssm.put_parameter(Name=names.report, Value=json.dumps(report), Type="String", Overwrite=True)


def add_host(stack: Deployment) -> str:
    """Launch a host in the private subnet that lets everybody in; return its instance's ID."""
    group = stack.ec2.create_security_group(GroupName="host", Description="host", VpcId=stack.outputs["vpcId"])[
        "GroupId"
    ]
    everybody = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    stack.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=everybody)
    (instance,) = stack.ec2.run_instances(
        ImageId="ami-0debian13amd64",
        InstanceType="t3.nano",
        MinCount=1,
        MaxCount=1,
        SubnetId=stack.outputs["privateSubnetId"],
        SecurityGroupIds=[group],
    )["Instances"]
    return str(instance["InstanceId"])


class DeployedPath:
    """The path to a host of a stack that is deployed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack = deploy_into_moto(read_stack_file(ROOT / f"stacks/Pulumi.{FILES[name]}.yaml"), name)
        report_ready(self.stack, contract.Names(name))
        self.host_id = add_host(self.stack)
        self.account = account_of(name)
        self.host = self.stack.ec2.describe_instances(InstanceIds=[self.host_id])["Reservations"][0]["Instances"][0]

    def judge(self, **part: Any) -> tuple[HopResult, ...]:
        query = {
            "client": CLIENTS[self.name],
            "source": CLIENT,
            "target": IPv4Address(self.host["PrivateIpAddress"]),
            "target_protocol": "tcp",
            "target_port": 443,
            "probes": False,
            **part,
        }
        return path_checks.judge_path(path_reader.read_snapshot(self.account, path_reader.PathQuery(**query)))


def assert_whole(path: DeployedPath, *skipped: PathHop) -> None:
    """Check that nothing is broken or unknown, with and without a client and a host."""
    for query in ({"target": None}, {"client": None, "target": None}, {}):
        results = path.judge(**query)
        assert {result.state for result in results} <= {"ok", "skipped"}, results
    without_ipv6 = (PathHop.IPV6_ADDRESS, PathHop.IPV6_ROUTE, PathHop.IPV6_RULES)
    assert [result.hop for result in results if result.state == "skipped"] == [*skipped, *without_ipv6]


Break = Callable[[DeployedPath], object]


def modify_report(**part: object) -> Break:
    def change(path: DeployedPath) -> None:
        names = contract.Names(path.name)
        report = json.loads(path.account.parameter(names.report)) | part
        path.stack.ssm.put_parameter(Name=names.report, Value=json.dumps(report), Type="String", Overwrite=True)

    return change


def remove_rules(group: Callable[[DeployedPath], str], **matching: object) -> Break:
    """Return what takes the rules of a security group away that have these values."""

    def change(path: DeployedPath) -> None:
        filters = [{"Name": "group-id", "Values": [group(path)]}]
        rules = path.stack.ec2.describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
        for rule in rules:
            if matching.items() <= rule.items():
                revoke = "egress" if rule["IsEgress"] else "ingress"
                getattr(path.stack.ec2, f"revoke_security_group_{revoke}")(
                    GroupId=group(path), SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]]
                )

    return change


def deny(subnet: str, *, outbound: bool) -> Break:
    """Return what has the network ACL of a subnet refuse everything in one direction."""

    def change(path: DeployedPath) -> None:
        filters = [{"Name": "association.subnet-id", "Values": [path.stack.outputs[subnet]]}]
        (acl,) = path.stack.ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
        path.stack.ec2.create_network_acl_entry(
            NetworkAclId=acl["NetworkAclId"],
            RuleNumber=1,
            Protocol="-1",
            RuleAction="deny",
            Egress=outbound,
            CidrBlock="0.0.0.0/0",
        )

    return change


def delete_route(subnet: str, destination: str) -> Break:
    def change(path: DeployedPath) -> None:
        filters = [{"Name": "association.subnet-id", "Values": [path.stack.outputs[subnet]]}]
        (table,) = path.stack.ec2.describe_route_tables(Filters=filters)["RouteTables"]
        path.stack.ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock=destination)

    return change


def detach_internet_gateway(path: DeployedPath) -> None:
    filters = [{"Name": "attachment.vpc-id", "Values": [path.stack.outputs["vpcId"]]}]
    (gateway,) = path.stack.ec2.describe_internet_gateways(Filters=filters)["InternetGateways"]
    path.stack.ec2.detach_internet_gateway(
        InternetGatewayId=gateway["InternetGatewayId"], VpcId=path.stack.outputs["vpcId"]
    )


def check_sources(path: DeployedPath) -> None:
    path.stack.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=path.stack.outputs["gatewayInterfaceId"], SourceDestCheck={"Value": True}
    )


def release_elastic_ip(path: DeployedPath) -> None:
    (address,) = path.stack.ec2.describe_addresses()["Addresses"]
    path.stack.ec2.release_address(AllocationId=address["AllocationId"])


def disassociate_elastic_ip(path: DeployedPath) -> None:
    (address,) = path.stack.ec2.describe_addresses()["Addresses"]
    path.stack.ec2.disassociate_address(AssociationId=address["AssociationId"])


def group_of_host(path: DeployedPath) -> str:
    return str(path.host["SecurityGroups"][0]["GroupId"])


def group_of_gateway(path: DeployedPath) -> str:
    return str(path.stack.outputs["securityGroupId"])


#: Breakages of stack `site`, one after another from the path's end to its beginning, so that the new one is the first.
BREAKAGES: tuple[tuple[str, str, Break], ...] = (
    ("host-stopped", "BAD_STATE", lambda path: path.stack.ec2.stop_instances(InstanceIds=[path.host_id])),
    ("host-group-empty", "SG_HAS_NO_RULES", remove_rules(group_of_host, IsEgress=False)),
    ("host-acl-outbound", "SUBNET_ACL_RESTRICTION", deny("privateSubnetId", outbound=True)),
    ("host-acl-inbound", "SUBNET_ACL_RESTRICTION", deny("privateSubnetId", outbound=False)),
    ("return-route-missing", "NO_ROUTE_TO_DESTINATION", delete_route("privateSubnetId", "10.1.2.0/24")),
    ("source-dest-check", "ENI_SOURCE_DEST_CHECK_RESTRICTION", check_sources),
    ("group-outbound", "ENI_SG_RULES_MISMATCH", remove_rules(group_of_gateway, IsEgress=True)),
    ("gateway-failed", "", modify_report(state="failed", reason="no space left on device")),
    ("report-stale", "", modify_report(instance="i-0123456789abcdef0")),
    ("report-missing", "", lambda path: path.stack.ssm.delete_parameter(Name=contract.Names(path.name).report)),
    ("group-port-closed", "ENI_SG_RULES_MISMATCH", remove_rules(group_of_gateway, FromPort=1194)),
    ("group-empty", "SG_HAS_NO_RULES", remove_rules(group_of_gateway, IsEgress=False)),
    ("acl-outbound", "SUBNET_ACL_RESTRICTION", deny("publicSubnetId", outbound=True)),
    ("acl-inbound", "SUBNET_ACL_RESTRICTION", deny("publicSubnetId", outbound=False)),
    ("default-route-missing", "NO_ROUTE_TO_DESTINATION", delete_route("publicSubnetId", "0.0.0.0/0")),
    ("internet-gateway-missing", "BAD_STATE_ATTACHMENT", detach_internet_gateway),
    (
        "instance-stopped",
        "BAD_STATE",
        lambda path: path.stack.ec2.stop_instances(InstanceIds=[path.stack.outputs["gatewayInstanceId"]]),
    ),
    (
        "instance-missing",
        "NO_SOURCE_OR_DESTINATION",
        lambda path: path.stack.ec2.terminate_instances(InstanceIds=[path.stack.outputs["gatewayInstanceId"]]),
    ),
    ("elastic-ip-elsewhere", "IGW_PRIVATE_IP_ASSOCIATION_FOR_INGRESS", disassociate_elastic_ip),
    ("elastic-ip-missing", "NO_SOURCE_OR_DESTINATION", release_elastic_ip),
)


def test_nothing_is_broken_and_then_each_breakage_in_aws_is_the_first_one() -> None:
    with empty_aws():
        path = DeployedPath("home-lan")
        assert_whole(path, PathHop.MACHINE, PathHop.TLS, PathHop.RESOLVER, PathHop.TRANSLATION)
        for name, code, break_path in BREAKAGES:
            break_path(path)
            broken = path_checks.find_first_broken(path.judge())
            assert broken is not None, name
            assert (broken.breakage, broken.code) == (name, code), broken


@pytest.fixture(scope="module")
def lab_path() -> Iterator[DeployedPath]:
    with empty_aws():
        yield DeployedPath("dev")


def test_nothing_is_broken_where_hosts_see_the_gateway_s_address(lab_path: DeployedPath) -> None:
    assert_whole(lab_path, PathHop.MACHINE, PathHop.TLS, PathHop.RESOLVER, PathHop.VPC_ROUTE)


def test_without_port_22_nothing_is_unknown(lab_path: DeployedPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's answers and the gateway's report are enough: the doctor dials nobody."""

    def refuse(host: str, port: int, timeout: float) -> NoReturn:
        pytest.fail(f"{host}:{port} was dialled")

    remove_rules(group_of_gateway, IpProtocol="tcp", FromPort=22)(lab_path)
    rules = lab_path.stack.ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [group_of_gateway(lab_path)]}]
    )["SecurityGroupRules"]
    assert 22 not in {rule.get("FromPort") for rule in rules}
    monkeypatch.setattr(lab_path, "account", replace(lab_path.account, dial=refuse))
    assert_whole(lab_path, PathHop.MACHINE, PathHop.TLS, PathHop.RESOLVER, PathHop.VPC_ROUTE)


def test_a_client_that_never_was_is_refused_with_the_way_to_list_them(lab_path: DeployedPath) -> None:
    with pytest.raises(errors.NotDeployedError, match="stack dev has no client nobody") as caught:
        lab_path.judge(client="nobody")
    assert caught.value.remedy == "list its clients: drawbridge client list --stack dev"


def test_the_bundle_of_another_client_is_refused(lab_path: DeployedPath) -> None:
    text = lab_path.account.parameter(contract.Names("dev").bundle("alice"), secret=True)
    with pytest.raises(errors.BundleFileError, match="the bundle belongs to alice, not to bob"):
        lab_path.judge(client="bob", bundle=text)


def test_a_bundle_that_leads_elsewhere(lab_path: DeployedPath) -> None:
    text = lab_path.account.parameter(contract.Names("dev").bundle("alice"), secret=True)
    address = str(lab_path.stack.outputs["publicIp"])
    results = lab_path.judge(bundle=text.replace(f"remote {address} ", "remote 192.0.2.99 "))
    broken = path_checks.find_first_broken(results)
    assert broken is not None
    assert (broken.breakage, broken.finding) == (
        "remote-elsewhere",
        f"the bundle leads to 192.0.2.99, the gateway's address is {address}",
    )
    assert broken.remedy.endswith("drawbridge client fetch alice --stack dev --force, and import it")


#: The machine of alice, whose Wi-Fi has the range of the VPC's private subnet.
MACHINE = parse_machine(
    json.dumps(
        [
            {
                "ifname": "wlan0",
                "mtu": 1500,
                "addr_info": [{"family": "inet", "local": "10.1.1.77", "prefixlen": 24}],
            },
            {
                "ifname": "tun0",
                "mtu": 1420,
                "linkinfo": {"info_kind": "tun"},
                "addr_info": [{"family": "inet", "local": "10.8.0.10", "prefixlen": 24}],
            },
        ]
    )
    + json.dumps(
        [
            {"dst": "default", "dev": "wlan0"},
            {"dst": "10.1.1.0/24", "dev": "wlan0"},
            {"dst": "10.8.0.0/24", "dev": "tun0"},
            {"dst": "10.1.0.0/16", "dev": "tun0"},
        ]
    )
)


@pytest.mark.parametrize("has_credentials", [True, False])
def test_a_vpc_behind_the_client_s_own_wifi(
    has_credentials: bool, lab_path: DeployedPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the client's machine, without credentials too."""
    text = lab_path.account.parameter(contract.Names("dev").bundle("alice"), secret=True)

    def refuse(self: Account, service: str) -> None:
        raise errors.CredentialsError("no AWS credentials")

    if not has_credentials:
        monkeypatch.setattr(Account, "client", refuse)
    for target in (None, IPv4Address(lab_path.host["PrivateIpAddress"])):
        results = lab_path.judge(bundle=text, machine=MACHINE, target=target)
        broken = path_checks.find_first_broken(results)
        assert broken is not None
        assert (broken.breakage, broken.code) == ("network-is-local", "MORE_SPECIFIC_ROUTE")
        assert broken.finding.startswith("10.1.1.0/24 is behind wlan0 on the machine")
        assert any(result.state == "unknown" for result in results) == (not has_credentials)
    if not has_credentials:
        with pytest.raises(errors.CredentialsError):
            lab_path.judge()


def test_a_stack_that_is_not_deployed(lab_path: DeployedPath) -> None:
    with pytest.raises(errors.NotDeployedError, match="stack gone has no /drawbridge/gone/release"):
        path_reader.read_snapshot(account_of("gone"), path_reader.PathQuery())


def test_a_release_that_somebody_replaced_is_not_judged_by(lab_path: DeployedPath) -> None:
    key = contract.Names("dev").release_key(lab_path.stack.outputs["release"])
    bucket = lab_path.stack.outputs["bucket"]
    archive = lab_path.stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    lab_path.stack.s3.put_object(Bucket=bucket, Key=key, Body=b"something else")
    try:
        unknown = [result for result in lab_path.judge() if result.state == "unknown"]
    finally:
        lab_path.stack.s3.put_object(Bucket=bucket, Key=key, Body=archive)
    assert PathHop.FORWARDING in [result.hop for result in unknown]
    assert "does not have the digest" in unknown[0].finding
