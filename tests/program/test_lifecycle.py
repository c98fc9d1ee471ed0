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
from lab.api.moto_state import publish_newer_images, withdraw_image
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT

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
    keyed["drawbridge:gateway"]["sshKey"] = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me"
    fourth = engine(keyed).up()
    assert touched(fourth) == {("replace", "gateway-instance")}
    kept = ("publicIp", "privateIp", "gatewayInterfaceId", "clients", "release")
    assert {key: fourth.outputs[key] for key in kept} == {key: third.outputs[key] for key in kept}
    assert fourth.outputs["gatewayInstanceId"] != third.outputs["gatewayInstanceId"]

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
