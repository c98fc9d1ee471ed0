"""The policies of docs/policies: stacks live, and the command reads, as users with exactly them.

Does not prove that AWS judges as the lab does: `lab.api.iam` says what it goes by.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner
from moto.ec2.models import ec2_backends

import contract
from components.access import EC2_TRUST
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.doctor import path_checks, path_reader
from drawbridge.operate import (
    bundle_probe,
    bundles,
    claims,
    client_states,
    gateway_status,
    image_build,
    ingress_rules,
    leftovers,
    prepared_images,
    stack_creation,
    stack_inventory,
)
from drawbridge.operate.account import Account
from drawbridge.operate.address_pools import find_pool
from drawbridge.operate.revoked_certificates import list_revoked
from engine.engine import Engine, Result
from lab.api.iam import ACCOUNT
from lab.api.moto_patches import patched, serve_console_output
from lab.api.moto_state import ADMINISTRATOR_POLICY
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT
from tests.support.ipam import create_pool, list_allocations
from tests.support.lab_api import Api, serve_lab_api
from tools import policies

STACKS = {path.suffixes[0].removeprefix("."): path for path in sorted(ROOT.glob("stacks/Pulumi.*.yaml"))}
DEPLOYER = (policies.POLICIES / "deployer.json").read_text()
OPERATOR = (policies.POLICIES / "operator.json").read_text()
REAPER = (policies.POLICIES / "reaper.json").read_text()
IMAGE_BUILDER = (policies.POLICIES / "image-builder.json").read_text()


TRUST = json.dumps(EC2_TRUST)
ALL = json.dumps(ADMINISTRATOR_POLICY)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    # Calls come as fast as this process can; an account sees them at the network's pace.
    with patched(), serve_lab_api(Validator(Rules(throttle_writes=False))) as api:
        for name, value in {"AWS_ENDPOINT_URL": api.endpoint, "AWS_DEFAULT_REGION": REGION}.items():
            monkeypatch.setenv(name, value)
        yield api


Become = Callable[[str, str], None]


@pytest.fixture
def become(api: Api, monkeypatch: pytest.MonkeyPatch) -> Become:
    """Have the environment's credentials be those of a new user with one policy."""

    def be(name: str, document: str) -> None:
        for key, value in api.create_user(name, document).items():
            monkeypatch.setenv(key.upper(), value)

    return be


def deploy(stack: str, config: dict[str, Any], state: Path) -> Engine:
    return Engine(ROOT, project="drawbridge", stack=stack, config=config, state=state)


def without(document: str, action: str) -> str:
    """Return a policy without an action."""
    policy = json.loads(document)
    for statement in policy["Statement"]:
        statement["Action"] = [allowed for allowed in statement["Action"] if allowed != action]
    policy["Statement"] = [statement for statement in policy["Statement"] if statement["Action"]]
    return json.dumps(policy)


def changed(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stack's configuration with other values of keys that reach many resources."""
    news = copy.deepcopy(config)
    news.setdefault("drawbridge:gateway", {})["instanceType"] = "t4g.micro"
    news.setdefault("drawbridge:tunnel", {})["port"] = 1300
    if "drawbridge:pair" not in news:
        *_, last = news["drawbridge:clients"]
        # The last one's certificate is revoked, and a new one is issued.
        last["name"] = "zoe"
    return news


@pytest.mark.parametrize("stack", STACKS)
def test_a_deployer_creates_changes_and_destroys_a_stack(stack: str, become: Become, tmp_path: Path, api: Api) -> None:
    become("deployer", DEPLOYER)
    config = read_stack_file(STACKS[stack])
    first = deploy(stack, config, tmp_path / "state.json").up()
    second = deploy(stack, changed(config), tmp_path / "state.json").up()
    assert operations(second) > {"update", "same"}
    assert first.outputs["publicIp"] == second.outputs["publicIp"]
    deploy(stack, config, tmp_path / "state.json").destroy()
    assert api.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []
    assert [user["UserName"] for user in api.client("iam").list_users()["Users"]] == ["deployer"]


@pytest.mark.parametrize(
    "action", ["ec2:CreateRouteTable", "ec2:CreateTags", "iam:PassRole", "s3:PutBucketPolicy", "ssm:PutParameter"]
)
def test_without_an_action_a_run_is_refused_and_names_it(action: str, become: Become, tmp_path: Path) -> None:
    """The control of the test above."""
    become("deployer", without(DEPLOYER, action))
    with pytest.raises(Exception, match=f"not authorized to perform: {action} |cannot write .*: AccessDenied"):
        deploy("lab", read_stack_file(STACKS["lab"]), tmp_path / "state.json").up()


def test_a_deployer_keeps_the_record_of_a_public_name(become: Become, tmp_path: Path, api: Api) -> None:
    created = api.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    zone, state = created.rpartition("/")[2], tmp_path / "state.json"

    def config(hostname: str) -> dict[str, Any]:
        stack = read_stack_file(STACKS["lab"])
        gateway = {**stack.get("drawbridge:gateway", {}), "hostname": hostname, "hostedZoneId": zone}
        return stack | {"drawbridge:gateway": gateway}

    def look_up() -> list[tuple[str, list[str]]]:
        sets = api.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        return [
            (record["Name"], [value["Value"] for value in record["ResourceRecords"]])
            for record in sets
            if record["Type"] == "A"
        ]

    become("hindered", without(DEPLOYER, "route53:Get*"))
    with pytest.raises(
        Exception, match=rf"hostedZoneId: {zone} cannot be looked up .*; ask for the permissions of docs"
    ):
        deploy("lab", config("vpn.example.com"), state).up()
    become("deployer", DEPLOYER)
    address = deploy("lab", config("vpn.example.com"), state).up().outputs["publicIp"]
    assert look_up() == [("vpn.example.com.", [address])]
    # The stack's own record is not in its way.
    assert operations(deploy("lab", config("vpn.example.com"), state).up()) == {"same"}
    deploy("lab", config("gw.example.com"), state).up()
    assert look_up() == [("gw.example.com.", [address])]
    deploy("lab", config("gw.example.com"), state).destroy()
    assert look_up() == []


def test_a_deployer_claims_ranges_for_a_new_stack(
    become: Become, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    become("deployer", DEPLOYER)
    account = Account(stack="job", session=boto3.Session(region_name=REGION), endpoint=api.endpoint)
    request = stack_creation.StackRequest(
        name="job",
        source=STACKS["ros2"],
        owner=stack_creation.find_owner(account),
        end=None,
        region=None,
        ssh_key=None,
        admin_from=(),
    )
    created = stack_creation.create_stack(account, request)
    assert created.claims[0].owner == "deployer"
    claims.release_claims(account, created.claims)
    assert claims.list_claims(account) == []
    created.path.unlink()

    pool = create_pool(api.client("ec2"), "172.20.0.0/14", tags={"Drawbridge": "vpc"})
    created = stack_creation.create_stack(account, replace(request, pool=find_pool(account)))
    assert list_allocations(api.client("ec2"), pool).keys() == {str(created.settings.network.cidr)}
    claims.release_claims(account, created.claims)
    assert list_allocations(api.client("ec2"), pool) == {}


def test_who_may_not_look_for_pools_gets_a_range_without_one(
    become: Become, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    pool = create_pool(api.client("ec2"), "172.20.0.0/14", tags={"Drawbridge": "vpc"})
    policy = json.loads(DEPLOYER)
    policy["Statement"].append({"Effect": "Deny", "Action": "ec2:DescribeIpamPools", "Resource": "*"})
    become("deployer", json.dumps(policy))
    arguments = ["stack", "new", "job", "--no-ssh", "--region", REGION]
    named = CliRunner().invoke(cli, [*arguments, "--ipam-pool", pool])
    assert (named.exit_code, "AWS denies ec2:DescribeIpamPools" in named.output) == (1, True), named.output
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "warning: AWS denies ec2:DescribeIpamPools, so the VPC gets a range without an IPAM pool" in result.stderr
    assert list_allocations(api.client("ec2"), pool) == {}


def test_a_deployer_reaches_nothing_else(become: Become, api: Api) -> None:
    vpc = api.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    api.client("iam").create_role(RoleName="admin", AssumeRolePolicyDocument=TRUST)
    api.client("ssm").put_parameter(Name="/other/secret", Value="v", Type="String")
    become("deployer", DEPLOYER)
    # boto3.client would keep the credentials of an earlier test.
    session = boto3.Session(region_name=REGION)
    ec2, iam, ssm, s3 = (session.client(service) for service in ("ec2", "iam", "ssm", "s3"))
    tags = [{"Key": "Project", "Value": "drawbridge"}]
    calls: tuple[Callable[[], object], ...] = (
        lambda: ec2.delete_vpc(VpcId=vpc),
        lambda: ec2.create_tags(Resources=[vpc], Tags=tags),
        lambda: ec2.create_subnet(
            VpcId=vpc, CidrBlock="10.9.1.0/24", TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}]
        ),
        lambda: ec2.create_vpc(CidrBlock="10.8.0.0/16"),
        lambda: iam.put_role_policy(RoleName="admin", PolicyName="p", PolicyDocument=ALL),
        lambda: iam.create_role(RoleName="admin2", AssumeRolePolicyDocument=TRUST),
        lambda: ssm.get_parameter(Name="/other/secret"),
        lambda: s3.create_bucket(Bucket="other", CreateBucketConfiguration={"LocationConstraint": REGION}),
    )
    for refused in calls:
        with pytest.raises(ClientError, match="not authorized"):
            refused()


def test_an_operator_reads_a_stack_and_moves_its_rules(become: Become, api: Api, tmp_path: Path) -> None:
    become("deployer", DEPLOYER)
    deploy("home-lan", site_of_operator(), tmp_path / "state.json").up()
    become("operator", OPERATOR)
    account = Account(stack="home-lan", session=boto3.Session(region_name=REGION), endpoint=api.endpoint)
    assert [client.name for client in bundles.list_clients(account)] == ["home"]
    sources = client_states.read_sources(account, timedelta(days=1), None)
    assert [client.session.state for client in client_states.list_client_states(account, sources)] == ["unknown"]
    assert (sources.events, sources.notes, list_revoked(account)) == ((), (), [])
    (bundle,) = bundles.save_bundle(account, "home", tmp_path / "home.ovpn").files
    assert "install" in bundles.kit_command(account, "home")
    bucket = json.loads(account.parameter(account.names.release))["bucket"]
    account.client("s3").get_object(Bucket=bucket, Key=account.names.kit_key("home"))
    assert gateway_status.ssh_target(account, user="admin", identity=None).host
    instances = gateway_status.find_instances(account)
    assert gateway_status.read_report(account, instances).state == "pending"
    assert gateway_status.read_console(account, instances) == ()
    verdict = bundle_probe.Verdict(state="unanswered", remote="", finding="", remedy="", seconds=0)
    assert bundle_probe.add_aws_findings(account, bundle.read_text(), verdict).finding
    query = path_reader.PathQuery(client="home", target=IPv4Address("10.1.0.10"), probes=False)
    hops = path_checks.judge_path(path_reader.read_snapshot(account, query))
    assert [hop for hop in hops if hop.permission] == []
    assert {leftover.kind for leftover in leftovers.find_leftovers(account)} > {
        "VPC",
        "bucket",
        "parameter",
        "role",
        "user",
    }
    assert [stack.name for stack in stack_inventory.list_summaries(account)] == ["home-lan"]
    assert ingress_rules.allow_me(account, "home", IPv4Address("203.0.113.99")).after == "203.0.113.99/32"
    for secret in (account.names.keys, account.names.secret("server.key")):
        with pytest.raises(errors.AwsError, match="not authorized"):
            account.parameter(secret, secret=True)


@pytest.mark.parametrize(
    "action", ["ssm:GetParametersByPath", "iam:ListRoleTags", "ec2:GetConsoleOutput", "ec2:ModifySecurityGroupRules"]
)
def test_an_operator_without_an_action_is_refused_with_its_name(
    action: str, become: Become, api: Api, tmp_path: Path
) -> None:
    """The control of the test above."""
    become("deployer", DEPLOYER)
    deploy("home-lan", site_of_operator(), tmp_path / "state.json").up()
    become("operator", without(OPERATOR, action))
    account = Account(stack="home-lan", session=boto3.Session(region_name=REGION), endpoint=api.endpoint)
    with pytest.raises(errors.AwsError, match=f"not authorized to perform: {action} "):
        bundles.list_clients(account)
        leftovers.find_leftovers(account)
        gateway_status.read_console(account, gateway_status.find_instances(account))
        ingress_rules.allow_me(account, "home", IPv4Address("203.0.113.99"))


@pytest.mark.parametrize(
    ("action", "hops"),
    [
        ("ec2:DescribeNetworkAcls", ["network ACL"]),
        ("logs:FilterLogEvents", ["address"]),
    ],
)
def test_an_operator_without_an_action_has_all_other_hops_judged(
    action: str, hops: list[str], become: Become, api: Api, tmp_path: Path
) -> None:
    become("deployer", DEPLOYER)
    deploy("home-lan", site_of_operator(), tmp_path / "state.json").up()
    policy = json.loads(OPERATOR)
    policy["Statement"].append({"Effect": "Deny", "Action": action, "Resource": "*"})
    become("operator", json.dumps(policy))
    account = Account(stack="home-lan", session=boto3.Session(region_name=REGION), endpoint=api.endpoint)
    query = path_reader.PathQuery(client="home", source=IPv4Address("203.0.113.10"), probes=False)
    results = path_checks.judge_path(path_reader.read_snapshot(account, query))
    assert [result.hop for result in results if result.state == "unknown"] == hops
    assert {result.permission for result in results if result.state == "unknown"} == {action}
    assert [result.breakage for result in results if result.state == "broken"] == ["report-missing"]


def site_of_operator() -> dict[str, Any]:
    """Return stack `site`, whose key the operator may use."""
    users = ["arn:aws:iam::123456789012:user/operator"]
    return read_stack_file(STACKS["site"]) | {"drawbridge:secrets": {"users": users}}


def operations(result: Result) -> set[str]:
    return {step.operation for step in result.steps}


@pytest.fixture
def account(api: Api, become: Become, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Who may build images; the machine of a build is done at once."""
    monkeypatch.setattr(image_build, "REMOVAL_TIMEOUT", 0.0)
    become("image-builder", IMAGE_BUILDER)

    def read_console(instance: str, size: int) -> bytes:
        tags = ec2_backends[ACCOUNT][REGION].get_instance(instance).get_tags()
        (build,) = (tag["value"] for tag in tags if tag["key"] == contract.BUILD_TAG)
        return f"drawbridge-image {build}: ready debian=13.2 openvpn=2.6.14 packages=ab\n".encode()

    with patched(serve_console_output(read_console)):
        yield Account(stack="prod", session=boto3.Session(region_name=REGION), endpoint=api.endpoint)


def test_an_image_builder_builds_lists_and_removes(account: Account, api: Api) -> None:
    built = image_build.build_image(account, "arm64", lambda _: None, poll=0.0)
    assert [image.id for image in prepared_images.list_images(account)] == [built.id]
    assert api.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []
    prepared_images.remove_image(account, built.id)
    assert prepared_images.list_images(account) == []


@pytest.mark.parametrize("action", ["ec2:CreateRouteTable", "ec2:GetConsoleOutput", "ec2:CreateImage"])
def test_without_an_action_no_image_is_built_and_nothing_is_left(
    action: str, account: Account, api: Api, become: Become
) -> None:
    """The control of the test above."""
    become("hindered", without(IMAGE_BUILDER, action))
    hindered = replace(account, session=boto3.Session(region_name=REGION))
    with pytest.raises(errors.AwsError, match=f"not authorized to perform: {action} "):
        image_build.build_image(hindered, "arm64", lambda _: None, poll=0.0)
    assert api.client("ec2").describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []


def test_an_image_builder_reaches_nothing_else(account: Account, api: Api) -> None:
    ec2 = api.client("ec2")
    instance = ec2.run_instances(ImageId="ami-0debian13amd64", InstanceType="t3.nano", MinCount=1, MaxCount=1)
    identity = instance["Instances"][0]["InstanceId"]
    builder = account.client("ec2")
    calls: tuple[Callable[[], object], ...] = (
        lambda: builder.terminate_instances(InstanceIds=[identity]),
        lambda: builder.create_image(InstanceId=identity, Name="stolen"),
        lambda: builder.get_console_output(InstanceId=identity),
        lambda: builder.deregister_image(ImageId="ami-0debian13amd64"),
    )
    for refused in calls:
        with pytest.raises(ClientError, match="not authorized"):
            refused()


def test_the_policies_are_up_to_date() -> None:
    assert policies.files() == {
        "deployer.json": DEPLOYER,
        "operator.json": OPERATOR,
        "reaper.json": REAPER,
        "image-builder.json": IMAGE_BUILDER,
    }


@pytest.mark.parametrize("document", [DEPLOYER, OPERATOR, REAPER, IMAGE_BUILDER])
def test_iam_takes_a_policy_of_this_length(document: str) -> None:
    assert len(re.sub(r"\s", "", document)) <= 6144
