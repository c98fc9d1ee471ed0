"""The program's stack through its life on the embedded engine: what each change touches. No machine boots here."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

import contract
from engine.engine import Engine, Result
from lab.api.moto_patches import modify_whole_rules, patched
from lab.api.moto_state import publish_newer_images, withdraw_image
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT
from tests.support.promises import OTHER_KEY

NAMES = contract.Names("lab")
Run = Callable[[dict[str, Any]], Engine]


@pytest.fixture
def engine(endpoint: str, tmp_path: Path) -> Any:
    """Engines for configurations of one stack in one AWS on loopback."""
    state = tmp_path / "state.json"
    return lambda config: Engine(ROOT, project="drawbridge", stack="lab", config=config, state=state)


@pytest.fixture
def config() -> dict[str, Any]:
    return read_stack_file(ROOT / "stacks/Pulumi.lab.yaml")


def touched(result: Result) -> set[tuple[str, str]]:
    return {(step.operation, step.name) for step in result.steps if step.operation != "same"}


def left_over() -> dict[str, list[Any]]:
    """What carries the stack's tags or lies under its names."""
    tagged = boto3.client("resourcegroupstaggingapi", region_name=REGION).get_resources(
        TagFilters=[{"Key": key, "Values": [value]} for key, value in contract.tags("lab").items()]
    )["ResourceTagMappingList"]
    ssm = boto3.client("ssm", region_name=REGION)
    ec2 = boto3.client("ec2", region_name=REGION)
    arns = [row["ResourceARN"] for row in tagged if ":instance/" not in row["ResourceARN"]]
    kms = boto3.client("kms", region_name=REGION)
    return {
        # A key is deleted after a week, and until then of no use.
        "tagged": [
            arn
            for arn in arns
            if ":kms:" not in arn or kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] != "PendingDeletion"
        ],
        "parameters": ssm.get_parameters_by_path(Path=NAMES.root, Recursive=True)["Parameters"],
        "vpcs": ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"],
        "addresses": ec2.describe_addresses()["Addresses"],
        "interfaces": ec2.describe_network_interfaces()["NetworkInterfaces"],
        "buckets": boto3.client("s3", region_name=REGION).list_buckets()["Buckets"],
        "roles": boto3.client("iam").list_roles()["Roles"],
        "profiles": boto3.client("iam").list_instance_profiles()["InstanceProfiles"],
    }


def test_a_life(engine: Run, config: dict[str, Any]) -> None:
    before = left_over()
    assert engine(config).preview().changes["create"] > 40
    assert left_over() == before

    first = engine(config).up()
    again = engine(config).up()
    assert touched(again) == set()
    assert again.outputs == first.outputs

    more = copy.deepcopy(config)
    more["drawbridge:clients"].append({"name": "bob"})
    second = engine(more).up()
    own = {("update", "authority-certificates"), ("replace", "vault-release"), ("update", "vault-pointer")}
    assert touched(second) == own
    assert second.outputs["clients"]["alice"] == first.outputs["clients"]["alice"]

    third = engine(config).up()
    assert touched(third) == own
    assert "bob" not in third.outputs["clients"]
    assert third.outputs["release"] != first.outputs["release"]

    # The report is the gateway's to write.
    ssm = boto3.client("ssm", region_name=REGION)
    ssm.put_parameter(Name=NAMES.report, Value='{"state": "ready"}', Type="String", Overwrite=True)
    assert touched(engine(config).up()) == set()
    assert ssm.get_parameter(Name=NAMES.report)["Parameter"]["Value"] == '{"state": "ready"}'

    keyed = copy.deepcopy(config)
    keyed["drawbridge:gateway"]["sshKey"] = OTHER_KEY
    fourth = engine(keyed).up()
    assert touched(fourth) == {("replace", "gateway-instance")}
    kept = ("publicIp", "privateIp", "gatewayInterfaceId", "clients", "release")
    assert {key: fourth.outputs[key] for key in kept} == {key: third.outputs[key] for key in kept}
    assert fourth.outputs["gatewayInstanceId"] != third.outputs["gatewayInstanceId"]

    # docs/stolen.md: the gateway was taken over, so its machine ends first.
    boto3.client("ec2", region_name=REGION).terminate_instances(InstanceIds=[fourth.outputs["gatewayInstanceId"]])
    keyed["drawbridge:rotations"] = {"gateway": "2026-11-28T08:10:00Z"}
    fifth = engine(keyed).up(refresh=True)
    new_keys = {("update", "authority-certificates"), ("update", "authority-ssh-host-key")}
    assert touched(fifth) == {*new_keys, ("create", "gateway-instance")}
    assert {key: fifth.outputs[key] for key in kept} == {key: fourth.outputs[key] for key in kept}
    assert touched(engine(keyed).up()) == set()

    keyed["drawbridge:rotations"]["stack"] = "2026-11-28T08:10:00Z"
    sixth = engine(keyed).up()
    assert touched(sixth) == new_keys | own
    assert sixth.outputs["clients"]["alice"]["serial"] != fifth.outputs["clients"]["alice"]["serial"]
    assert touched(engine(keyed).up()) == set()

    engine(config).destroy()
    assert left_over() == before


def image_of(result: Result) -> str:
    """Return the image that a stack's gateway was launched from."""
    ec2 = boto3.client("ec2", region_name=REGION)
    described = ec2.describe_instances(InstanceIds=[result.outputs["gatewayInstanceId"]])
    return str(described["Reservations"][0]["Instances"][0]["ImageId"])


def test_an_image_stays_until_the_documented_command_takes_the_newest(engine: Run, config: dict[str, Any]) -> None:
    first = engine(config).up()
    newer = publish_newer_images(REGION, "13")
    assert withdraw_image(REGION, image_of(first))
    assert touched(engine(config).up()) == set(), "it runs on, whatever became of its image"

    documented = (ROOT / "docs/deploy.md").read_text()
    [pattern] = re.findall(r"--replace '(.*PinnedImage.*)'", documented)
    upgraded = engine(config).up(replacing=pattern)
    assert touched(upgraded) == {("replace", "gateway-image-arm64"), ("replace", "gateway-instance")}
    assert image_of(upgraded) == newer["arm64"] != image_of(first)
    assert upgraded.outputs["publicIp"] == first.outputs["publicIp"]
    assert touched(engine(config).up()) == set()


def test_changes_of_architecture_and_of_networks_behind_the_gateway(engine: Run, config: dict[str, Any]) -> None:
    config["drawbridge:tunnel"]["nat"] = False  # packets of other addresses pass the interface
    first = engine(config).up()
    ec2 = boto3.client("ec2", region_name=REGION)

    assert image_of(first) == "ami-0debian13arm64"
    config["drawbridge:gateway"]["instanceType"] = "t3.nano"
    second = engine(config).up()
    assert touched(second) == {
        ("create", "gateway-image-amd64"),
        ("delete", "gateway-image-arm64"),
        ("replace", "gateway-instance"),
    }
    assert image_of(second) == "ami-0debian13amd64"
    assert touched(engine(config).up()) == set()
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[second.outputs["gatewayInterfaceId"]])
    assert interface["NetworkInterfaces"][0]["SourceDestCheck"] is False

    # Entries of network ACLs are numbered by position, and no two have a number at once.
    config["drawbridge:clients"] = [{"name": f"site-{n}", "lan": [f"192.168.{n}.0/24"]} for n in (1, 3, 5)]
    engine(config).up()
    del config["drawbridge:clients"][1]
    engine(config).up()
    acls = ec2.describe_network_acls()["NetworkAcls"]
    ranges = [entry["CidrBlock"] for acl in acls for entry in acl["Entries"] if not entry["Egress"]]
    assert [cidr for cidr in ranges if cidr.startswith("192.168.")] == ["192.168.1.0/24", "192.168.5.0/24"]


def move_client(result: Result, client: str, address: str) -> None:
    """Move a client's dynamic rule to another address, as its kit does."""
    ec2 = boto3.client("ec2", region_name=REGION)
    (rule,) = ec2.describe_security_group_rules(
        Filters=[{"Name": f"tag:{contract.FOLLOWS_TAG}", "Values": [contract.rule_for(client)]}]
    )["SecurityGroupRules"]
    changed = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort", "Description")} | {
        "CidrIpv4": f"{address}/32"
    }
    ec2.modify_security_group_rules(
        GroupId=result.outputs["securityGroupId"],
        SecurityGroupRules=[{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": changed}],
    )


def tunnel_rules(result: Result) -> set[str]:
    ec2 = boto3.client("ec2", region_name=REGION)
    rules = ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [result.outputs["securityGroupId"]]}]
    )["SecurityGroupRules"]
    return {
        f"{rule['Description']} {rule['CidrIpv4']}"
        for rule in rules
        if rule.get("Description", "").startswith("tunnel")
    }


def test_a_range_that_a_moved_address_has(engine: Run, config: dict[str, Any]) -> None:
    """AWS knows a rule by protocol, ports and range, and refuses a second one (`InvalidPermission.Duplicate`)."""
    first, second = "203.0.113.7", "203.0.113.8"
    config["drawbridge:gateway"] = {"instanceType": "t4g.nano", "allowFrom": ["198.51.100.0/24"]}
    config["drawbridge:clients"] = [{"name": "home", "at": "192.0.2.9"}]
    with patched(modify_whole_rules):
        move_client(engine(config).up(), "home", first)
        config["drawbridge:gateway"]["allowFrom"].append(f"{first}/32")
        result = engine(config).up()
        assert tunnel_rules(result) == {"tunnel 198.51.100.0/24", f"tunnel/home {first}/32"}

        move_client(result, "home", second)
        result = engine(config).up()
        rules = {"tunnel 198.51.100.0/24", f"tunnel {first}/32"}
        assert tunnel_rules(result) == rules | {f"tunnel/home {second}/32"}

        # An address that moves no longer, and one that begins to.
        config["drawbridge:clients"] = [{"name": "home"}]
        config["drawbridge:gateway"]["allowFrom"].append(f"{second}/32")
        assert tunnel_rules(engine(config).up()) == rules | {f"tunnel {second}/32"}
        config["drawbridge:clients"] = [{"name": "home", "at": second}]
        config["drawbridge:gateway"]["allowFrom"].pop()
        assert tunnel_rules(engine(config).up()) == rules | {f"tunnel/home {second}/32"}
        assert touched(engine(config).up()) == set()
