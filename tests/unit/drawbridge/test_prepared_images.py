"""Prepared images are built, listed and removed, on moto; the machine's console is the test's.

Does not prove that a machine installs the packages: tests/lab does.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

import contract
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import image_build, prepared_images
from drawbridge.operate.account import Account
from drawbridge.operate.prepared_images import PreparedImage, tag_list
from lab.api.moto_patches import patched, serve_console_output, tag_snapshots_of_images
from lab.api.moto_state import finish_image, publish_images, start_images
from userdata.image_config import render_image_config

from .conftest import REGION, STACK

READY = "[   41.2] drawbridge-image {}: ready debian=13.2 openvpn=2.6.14-1+deb13u1 packages=" + "ab" * 32 + "\r\n"


class Machine:
    """The console of a build's machine, and what EC2 does with its image."""

    def __init__(self, ec2: Any) -> None:
        self._ec2 = ec2
        self.lines: Iterator[str] = itertools.chain(["[ OK ] Reached target\r\n"], itertools.repeat(READY))
        self.finishes: Callable[[str], object] = lambda image: finish_image(REGION, image, saved=True)

    def read_console(self, instance: str, size: int) -> bytes:
        (described,) = self._ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
        (build,) = (tag["Value"] for tag in described["Tags"] if tag["Key"] == contract.BUILD_TAG)
        return next(self.lines).format(build).encode()

    def describe_images(self, original: Callable[..., Any], **arguments: Any) -> Any:
        """Have each new image be pending at first."""
        started = start_images(REGION)
        answer = original(**arguments)
        for image, _ in started:
            self.finishes(image)
        return answer


@pytest.fixture
def machine(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    publish_images(REGION)
    machine = Machine(account.client("ec2"))
    create = Account.client

    def client(self: Account, service: str) -> Any:
        created = create(self, service)
        if service == "ec2":
            original = created.describe_images
            created.describe_images = lambda **arguments: machine.describe_images(original, **arguments)
        return created

    monkeypatch.setattr(Account, "client", client)
    monkeypatch.setattr(image_build, "POLL", 0.0)
    monkeypatch.setattr(image_build, "REMOVAL_TIMEOUT", 0.0)
    with patched(tag_snapshots_of_images, serve_console_output(machine.read_console)):
        yield machine


def build(account: Account, **options: Any) -> PreparedImage:
    return image_build.build_image(account, "arm64", lambda _: None, poll=0.0, **options)


def left_behind(account: Account) -> list[str]:
    """Return the builds whose resources, other than images and their snapshots, still exist."""
    ec2 = account.client("ec2")
    filters = [{"Name": "tag-key", "Values": [contract.BUILD_TAG]}]
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    answers = (
        ec2.describe_instances(Filters=filters + alive)["Reservations"],
        ec2.describe_security_groups(Filters=filters)["SecurityGroups"],
        ec2.describe_subnets(Filters=filters)["Subnets"],
        ec2.describe_route_tables(Filters=filters)["RouteTables"],
        ec2.describe_internet_gateways(Filters=filters)["InternetGateways"],
        ec2.describe_vpcs(Filters=filters)["Vpcs"],
        ec2.describe_volumes(Filters=filters)["Volumes"],
    )
    return [str(entry) for answer in answers for entry in answer]


def list_own_snapshots(account: Account) -> list[str]:
    snapshots = account.client("ec2").describe_snapshots(
        OwnerIds=["self"], Filters=[{"Name": "tag-key", "Values": [contract.BUILD_TAG]}]
    )["Snapshots"]
    return [snapshot["SnapshotId"] for snapshot in snapshots]


def launch(account: Account, image: str, tags: dict[str, str]) -> str:
    ec2 = account.client("ec2")
    launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    if tags:
        ec2.create_tags(Resources=[launched], Tags=tag_list(tags))
    return str(launched)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["image", *arguments, "--stack", STACK])


def test_a_build_leaves_an_image_that_says_what_is_in_it_and_nothing_else(account: Account, machine: Machine) -> None:
    image = build(account)
    assert (image.state, image.architecture, image.debian) == ("available", "arm64", "13.2")
    assert (image.openvpn, image.packages) == ("2.6.14-1+deb13u1", "ab" * 32)
    assert (image.base, image.stacks) == ("ami-0debian13arm64", ())
    assert image.builder.startswith("arn:aws:")
    assert image.days_old(datetime.now(UTC)) == 0
    assert list(image.snapshots) == list_own_snapshots(account)
    assert image.dollars == pytest.approx(0.4), "8 GB at most"
    assert left_behind(account) == []


def test_an_image_with_backports_has_their_openvpn_and_kernel_and_is_of_another_system(
    account: Account, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []

    def render(*arguments: Any, **options: Any) -> str:
        launched.append(render_image_config(*arguments, **options))
        return launched[-1]

    monkeypatch.setattr(image_build, "render_image_config", render)
    image = build(account, backports=True)
    (described,) = account.client("ec2").describe_images(ImageIds=[image.id])["Images"]
    tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
    assert tags[contract.IMAGE_TAG] == "debian-13-backports"
    build(account)
    backports, plain = (yaml.safe_load(text) for text in launched)
    command = backports["runcmd"][0]
    assert {"openvpn/trixie-backports", "linux-image-cloud-arm64/trixie-backports", "nftables"} <= {*command}
    origins = "origin=Debian Backports,codename=${distro_codename}-backports"
    assert any(origins in file["content"] for file in backports["write_files"]), "their fixes are installed as well"
    assert "openvpn" in plain["runcmd"][0] and not any("backports" in word for word in plain["runcmd"][0]), (
        "the control"
    )
    assert not any("backports" in file["path"] for file in plain["write_files"]), "the control"


def test_the_machine_has_no_role_and_nobody_may_connect(
    account: Account, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_build, "remove_build", lambda *_, **__: None)
    build(account)
    ec2 = account.client("ec2")
    filters = [{"Name": "tag-key", "Values": [contract.BUILD_TAG]}]
    (row,) = ec2.describe_instances(Filters=filters)["Reservations"]
    (instance,) = row["Instances"]
    assert "IamInstanceProfile" not in instance and "KeyName" not in instance
    (group,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    assert group["IpPermissions"] == []
    assert [entry["GroupId"] for entry in instance["SecurityGroups"]] == [group["GroupId"]]
    behaviour = ec2.describe_instance_attribute(
        InstanceId=instance["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert behaviour["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_a_machine_in_an_existing_subnet_needs_no_vpc_of_its_own(account: Account, machine: Machine) -> None:
    ec2 = account.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    vpcs: list[int] = []

    def finish(image: str) -> None:
        vpcs.append(len(ec2.describe_vpcs()["Vpcs"]))
        finish_image(REGION, image, saved=True)

    machine.finishes = finish
    build(account, subnet=subnet)
    assert vpcs == [1]
    assert left_behind(account) == []
    assert ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]


def interrupt() -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        (
            lambda: "drawbridge-image {}: failed: the packages cannot be installed: E: Failed to fetch\r\n",
            errors.ImageBuildError,
            "the packages cannot be installed: E: Failed to fetch",
        ),
        (interrupt, KeyboardInterrupt, None),
    ],
    ids=["the packages are missing", "Ctrl-C"],
)
def test_a_build_that_ends_early_leaves_nothing(
    account: Account, machine: Machine, line: Callable[[], str], error: type[BaseException], message: str | None
) -> None:
    machine.lines = (line() for _ in itertools.count())
    with pytest.raises(error, match=message):
        build(account)
    assert left_behind(account) == []
    assert prepared_images.list_images(account) == []
    assert list_own_snapshots(account) == []


def test_an_image_that_aws_cannot_create_goes_with_the_rest(account: Account, machine: Machine) -> None:
    machine.finishes = lambda image: finish_image(REGION, image, saved=False)
    with pytest.raises(errors.ImageBuildError, match="is failed: "):
        build(account)
    assert left_behind(account) == []
    assert prepared_images.list_images(account) == []
    assert list_own_snapshots(account) == []


def test_a_machine_that_ends_by_itself_is_no_image(account: Account, machine: Machine) -> None:
    ec2 = account.client("ec2")

    def end() -> str:
        instances = [row["Instances"][0]["InstanceId"] for row in ec2.describe_instances()["Reservations"]]
        ec2.terminate_instances(InstanceIds=instances)
        return ""

    machine.lines = (end() for _ in itertools.count())
    with pytest.raises(errors.ImageBuildError, match="the machine of the build is terminated, and was not done"):
        build(account)


def test_a_report_of_another_build_is_none(account: Account, machine: Machine) -> None:
    assert image_build.parse_report(READY.format("other"), "this") is None
    assert image_build.parse_report("drawbridge-image this: installing openvpn\r\n", "this") is None


def test_the_next_build_removes_what_a_killed_one_has_left(
    account: Account, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(image_build, "remove_build", lambda *_, **__: None)
        kept = build(account)
    ec2 = account.client("ec2")
    assert left_behind(account) != []
    image_build.remove_leftovers(ec2, datetime.now(UTC), 0.0)
    assert left_behind(account) != [], "that build may still run"
    image_build.remove_leftovers(ec2, datetime.now(UTC) + timedelta(hours=4), 0.0)
    assert left_behind(account) == []
    assert [image.id for image in prepared_images.list_images(account)] == [kept.id]


def test_the_command_builds_lists_and_removes(account: Account, machine: Machine) -> None:
    built = run("build", "--architecture", "arm64")
    assert built.exit_code == 0, built.output
    image = built.stdout.strip().splitlines()[-1]
    launch(account, image, contract.tags("prod"))
    anonymous = launch(account, image, {})
    listed = run("list")
    assert re.search(
        rf"{image} +available +arm64 +0 +13\.2 +2\.6\.14-1\+deb13u1 +0\.40 +{anonymous}, prod", listed.stdout
    )
    refused = run("remove", image)
    assert refused.exit_code == 1
    assert f"Error: {image} is in use by {anonymous}, prod\n  -> let the gateway take a newer image" in refused.output

    ec2 = account.client("ec2")
    rows = ec2.describe_instances(Filters=[{"Name": "image-id", "Values": [image]}])["Reservations"]
    ec2.terminate_instances(InstanceIds=[row["Instances"][0]["InstanceId"] for row in rows])
    removed = run("remove", image)
    assert (removed.exit_code, removed.stdout) == (0, f"{image} and its snapshot are removed\n")
    assert list_own_snapshots(account) == []
    again = run("remove", image)
    assert again.exit_code == 1
    assert f"{image} is not a prepared image of this account and region" in again.output


def test_an_image_that_is_not_prepared_is_not_removed(account: Account, machine: Machine) -> None:
    with pytest.raises(errors.StackError, match="ami-0debian13arm64 is not a prepared image"):
        prepared_images.remove_image(account, "ami-0debian13arm64")


def test_an_interrupted_removal_goes_on(account: Account, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    image = build(account)
    account.client("ec2").deregister_image(ImageId=image.id)
    assert list_own_snapshots(account) == list(image.snapshots)
    prepared_images.remove_image(account, image.id)
    with pytest.raises(ClientError, match=r"InvalidSnapshot\.NotFound"):
        account.client("ec2").describe_snapshots(SnapshotIds=list(image.snapshots))
