"""Build a prepared image: the newest Debian with a gateway's packages, as an AMI of the account.

A machine in a VPC of its own installs the packages and reports on its console, so that it needs neither SSH, nor a
role, nor anybody who may reach it. Everything that a build creates has the build's ID as a tag and is found by it, so
nothing stays behind, even if the build is interrupted while AWS answers.

Sources: Amazon EC2 User Guide, "Create an Amazon EBS-backed AMI"; Amazon EC2 API Reference, CreateImage,
GetConsoleOutput.
"""

import contextlib
import itertools
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from botocore.exceptions import ClientError

import contract
from drawbridge import errors
from drawbridge.operate import prepared_images
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.prepared_images import PreparedImage, tag_filter, tag_list
from images import DEFAULT_IMAGE, IMAGES, PREPARED, PREPARED_BACKPORTS, PREPARED_SYSTEMS, Architecture, list_packages
from userdata.image_config import LIFETIME, render_image_config

Progress = Callable[[str], None]

#: Instance types of a build; both are on Nitro, which has the latest console output.
BUILD_TYPES: dict[Architecture, str] = {"arm64": "t4g.micro", "amd64": "t3.micro"}
#: Range of the VPC of a build. It is connected to nothing, so it may overlap others.
_RANGE = "10.255.255.0/28"

#: Seconds between two looks, and until a step must be done.
POLL = 5.0
INSTALL_TIMEOUT = 30 * 60.0
STATE_TIMEOUT = 10 * 60.0
IMAGE_TIMEOUT = 60 * 60.0
#: Seconds for EC2 to notice that nothing uses a resource any more.
REMOVAL_TIMEOUT = 120.0

_IN_USE_CODES = frozenset({"DependencyViolation", "InvalidSnapshot.InUse"})
_GONE_CODES = frozenset({"InvalidAMIID.Unavailable", "Gateway.NotAttached"})


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts that the machine of a build reports of itself."""

    debian: str
    openvpn: str
    packages: str
    """SHA-256 of the names and versions of all installed packages."""


def build_image(
    account: Account,
    architecture: Architecture,
    progress: Progress,
    *,
    subnet: str | None = None,
    backports: bool = False,
    poll: float = POLL,
) -> PreparedImage:
    """Return a new prepared image, once it is available; everything else that the build created is removed.

    `subnet` is an existing subnet for the machine, which reaches Debian's mirrors from there; by default the build has
    a VPC of its own. With `backports` the image has OpenVPN and the kernel of Debian's backports. `poll` is the seconds
    between two looks.

    Raises:
        AwsError: AWS refused a call, or does not offer the machine.
        ImageBuildError: the packages could not be installed, or a step took too long.
    """
    with translate_aws_errors(account.stack, policy=account.policy):
        name = PREPARED_BACKPORTS if backports else PREPARED
        build = _ImageBuild(account, name, architecture, progress, poll)
        with _interruptible():
            image = build.run(subnet)
    return next(entry for entry in prepared_images.list_images(account) if entry.id == image)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP too, so that a build cleans up."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Windows has no SIGHUP.
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    former = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _ImageBuild:
    """One build, by its ID."""

    def __init__(
        self, account: Account, name: str, architecture: Architecture, progress: Progress, poll: float
    ) -> None:
        self._account = account
        self._ec2 = account.client("ec2")
        self._name, self._system, self._architecture = name, PREPARED_SYSTEMS[name], architecture
        self._progress = progress
        self._poll = poll
        self._started = datetime.now(UTC)
        self._id = f"{self._started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"

    def run(self, subnet: str | None) -> str:
        """Return the ID of the image."""
        remove_leftovers(self._ec2, self._started, self._poll)
        parameter = IMAGES[DEFAULT_IMAGE].parameters[self._architecture]
        base = self._account.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        is_done = False
        try:
            self._progress(f"build {self._id}: starting a {BUILD_TYPES[self._architecture]} from {base}")
            instance = self._start(base, subnet or self._create_network())
            facts = self._wait_installed(instance)
            self._progress(f"OpenVPN {facts.openvpn} on Debian {facts.debian} is installed; stopping the machine")
            self._ec2.stop_instances(InstanceIds=[instance])
            self._wait(lambda: self._state(instance) == "stopped", STATE_TIMEOUT, f"{instance} does not stop")
            image = self._create_image(instance, base, facts)
            self._progress(f"creating {image}, which takes some minutes")
            self._wait(lambda: self._is_available(image), IMAGE_TIMEOUT, f"{image} does not become available")
            is_done = True
            return image
        finally:
            self._progress("removing what the build needed" if is_done else "removing what the build has created")
            remove_build(self._ec2, self._id, self._poll, with_images=not is_done)

    def _tags(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the tags of the build's resources of some types, as the calls that create them take them."""
        tags = {"Project": contract.PROJECT, contract.BUILD_TAG: self._id, "Name": "drawbridge-image-build"}
        return [{"ResourceType": kind, "Tags": tag_list(tags)} for kind in kinds]

    def _create_network(self) -> str:
        """Return a new subnet, in a new VPC, that reaches the Internet."""
        ec2 = self._ec2
        machine = BUILD_TYPES[self._architecture]
        offerings = ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [machine]}]
        )["InstanceTypeOfferings"]
        if not offerings:
            raise errors.AwsError(f"no zone of the region offers {machine}", "build the image in another region")
        zone = min(offering["Location"] for offering in offerings)
        vpc = ec2.create_vpc(CidrBlock=_RANGE, TagSpecifications=self._tags("vpc"))["Vpc"]["VpcId"]
        created = ec2.create_subnet(
            VpcId=vpc, CidrBlock=_RANGE, AvailabilityZone=zone, TagSpecifications=self._tags("subnet")
        )
        subnet = created["Subnet"]["SubnetId"]
        internet = ec2.create_internet_gateway(TagSpecifications=self._tags("internet-gateway"))
        gateway = internet["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        # The VPC's own route table has no tag, by which a policy could allow to change it.
        table = ec2.create_route_table(VpcId=vpc, TagSpecifications=self._tags("route-table"))["RouteTable"]
        ec2.associate_route_table(RouteTableId=table["RouteTableId"], SubnetId=subnet)
        ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        return str(subnet)

    def _start(self, base: str, subnet: str) -> str:
        """Return the machine that installs the packages; nobody can connect to it."""
        ec2 = self._ec2
        (described,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
        group = ec2.create_security_group(
            GroupName=f"drawbridge-image-{self._id}",
            Description="Build of an image: nobody may connect",
            VpcId=described["VpcId"],
            TagSpecifications=self._tags("security-group"),
        )["GroupId"]
        launched = ec2.run_instances(
            ImageId=base,
            InstanceType=BUILD_TYPES[self._architecture],
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            SecurityGroupIds=[group],
            UserData=render_image_config(
                self._id,
                list_packages(self._name, self._architecture),
                backports=self._name == PREPARED_BACKPORTS,
            ),
            # It powers off by itself after a while, so it goes even if this program is killed.
            InstanceInitiatedShutdownBehavior="terminate",
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            TagSpecifications=self._tags("instance", "volume", "network-interface"),
        )
        return str(launched["Instances"][0]["InstanceId"])

    def _wait_installed(self, instance: str) -> ImageFacts:
        facts = self._wait(
            lambda: self._read_report(instance), INSTALL_TIMEOUT, f"{instance} does not report that it is done"
        )
        assert isinstance(facts, ImageFacts)
        return facts

    def _read_report(self, instance: str) -> ImageFacts | None:
        """Return what the machine has reported, None if it is not done; raises `ImageBuildError` if it failed."""
        try:
            answer = self._ec2.get_console_output(InstanceId=instance, Latest=True)
        except ClientError as error:
            # EC2 knows no new instance everywhere at once.
            if error.response["Error"]["Code"] != "InvalidInstanceID.NotFound":
                raise
            return None
        if facts := parse_report(answer.get("Output", ""), self._id):
            return facts
        if (state := self._state(instance)) not in ("pending", "running"):
            raise errors.ImageBuildError(f"the machine of the build is {state}, and was not done", _AGAIN)
        return None

    def _create_image(self, instance: str, base: str, facts: ImageFacts) -> str:
        tags = {
            "Project": contract.PROJECT,
            "Name": f"drawbridge-{self._system}-{self._architecture}",
            contract.IMAGE_TAG: self._system,
            contract.BUILD_TAG: self._id,
            prepared_images.ARCHITECTURE_TAG: self._architecture,
            prepared_images.BASE_TAG: base,
            prepared_images.DEBIAN_TAG: facts.debian,
            prepared_images.OPENVPN_TAG: facts.openvpn,
            prepared_images.PACKAGES_TAG: facts.packages,
            prepared_images.BUILDER_TAG: self._account.client("sts").get_caller_identity()["Arn"][:256],
        }
        return str(
            self._ec2.create_image(
                InstanceId=instance,
                Name=f"drawbridge-{self._system}-{self._architecture}-{self._id}",
                Description=f"Debian {facts.debian} with OpenVPN {facts.openvpn}, for a gateway of Drawbridge",
                TagSpecifications=[{"ResourceType": kind, "Tags": tag_list(tags)} for kind in ("image", "snapshot")],
            )["ImageId"]
        )

    def _is_available(self, image: str) -> bool:
        """Return whether an image is available; raises `ImageBuildError` if it never will be."""
        described = self._ec2.describe_images(Owners=["self"], Filters=[{"Name": "image-id", "Values": [image]}])
        # EC2 knows no new image everywhere at once.
        state = described["Images"][0]["State"] if described["Images"] else "pending"
        if state not in ("pending", "available"):
            reason = described["Images"][0].get("StateReason", {}).get("Message", "AWS gives no reason")
            raise errors.ImageBuildError(f"{image} is {state}: {reason}", _AGAIN)
        return bool(state == "available")

    def _state(self, instance: str) -> str:
        answer = self._ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": [instance]}])
        states = [entry["State"]["Name"] for row in answer["Reservations"] for entry in row["Instances"]]
        return str(states[0]) if states else "pending"

    def _wait(self, look: Callable[[], object], seconds: float, complaint: str) -> object:
        """Return what `look` returns once that is true; raises `ImageBuildError` after so many seconds."""
        end = time.monotonic() + seconds
        while not (answer := look()):
            if time.monotonic() > end:
                raise errors.ImageBuildError(f"{complaint} in {seconds / 60:.0f} minutes", _AGAIN)
            time.sleep(self._poll)
        return answer


_AGAIN = "run the command again; nothing of this build is left"


def parse_report(output: str, build: str) -> ImageFacts | None:
    """Return what the machine of a build reports on its console, None if it has not reported yet.

    Raises `ImageBuildError` if it reports that it failed.

    >>> parse_report("drawbridge-image 1: ready debian=13.2 openvpn=2.6.14-1 packages=ab\\r\\n", "1")
    ImageFacts(debian='13.2', openvpn='2.6.14-1', packages='ab')
    """
    lines = re.findall(rf"drawbridge-image {re.escape(build)}: (ready|failed:) ([^\r\n]*)", output)
    for state, text in lines:
        if state != "ready":
            raise errors.ImageBuildError(
                f"{text.strip()}", "can the subnet reach Debian's mirrors? Then run the command again"
            )
        values = dict(entry.partition("=")[::2] for entry in text.split())
        return ImageFacts(values.get("debian", ""), values.get("openvpn", ""), values.get("packages", ""))
    return None


def remove_leftovers(ec2: Any, now: datetime, poll: float) -> None:
    """Remove what builds that were killed have left; a build that may still run keeps its own."""
    oldest = now - timedelta(minutes=2 * LIFETIME) - timedelta(seconds=IMAGE_TIMEOUT)
    filters = [{"Name": "tag-key", "Values": [contract.BUILD_TAG]}]
    tagged = [
        *itertools.chain.from_iterable(
            row["Instances"] for row in ec2.describe_instances(Filters=filters)["Reservations"]
        ),
        *ec2.describe_security_groups(Filters=filters)["SecurityGroups"],
        *ec2.describe_internet_gateways(Filters=filters)["InternetGateways"],
        *ec2.describe_vpcs(Filters=filters)["Vpcs"],
    ]
    builds = {tag["Value"] for entry in tagged for tag in entry.get("Tags", ()) if tag["Key"] == contract.BUILD_TAG}
    for build in sorted(builds):
        if build < f"{oldest:%Y%m%d-%H%M%S}":
            remove_build(ec2, build, poll, with_images=False)


def remove_build(ec2: Any, build: str, poll: float, *, with_images: bool) -> None:
    """Remove all that a build has created, and with `with_images` its image; idempotent."""
    filters = [tag_filter(contract.BUILD_TAG, build)]
    with contextlib.ExitStack() as steps:  # in reverse, and each of them even if another one fails
        steps.callback(_remove_network, ec2, filters, poll)
        steps.callback(_terminate, ec2, filters, poll)
        if with_images:
            steps.callback(_remove_images, ec2, filters, poll)


def _remove_images(ec2: Any, filters: list[dict[str, Any]], poll: float) -> None:
    for image in ec2.describe_images(Owners=["self"], Filters=filters)["Images"]:
        _delete(ec2.deregister_image, poll, ImageId=image["ImageId"])
    for snapshot in ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]:
        _delete(ec2.delete_snapshot, poll, SnapshotId=snapshot["SnapshotId"])


def _terminate(ec2: Any, filters: list[dict[str, Any]], poll: float) -> None:
    end = time.monotonic() + STATE_TIMEOUT
    while True:
        reservations = ec2.describe_instances(Filters=filters)["Reservations"]
        instances = [instance for row in reservations for instance in row["Instances"]]
        alive = {entry["InstanceId"]: entry["State"]["Name"] for entry in instances}
        alive = {instance: state for instance, state in alive.items() if state != "terminated"}
        if ending := [instance for instance, state in alive.items() if state != "shutting-down"]:
            ec2.terminate_instances(InstanceIds=ending)
        if not alive or time.monotonic() > end:
            return
        time.sleep(poll)


def _remove_network(ec2: Any, filters: list[dict[str, Any]], poll: float) -> None:
    for group in ec2.describe_security_groups(Filters=filters)["SecurityGroups"]:
        _delete(ec2.delete_security_group, poll, GroupId=group["GroupId"])
    tables = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    for association in (association for table in tables for association in table["Associations"]):
        _delete(ec2.disassociate_route_table, poll, AssociationId=association["RouteTableAssociationId"])
    for subnet in ec2.describe_subnets(Filters=filters)["Subnets"]:
        _delete(ec2.delete_subnet, poll, SubnetId=subnet["SubnetId"])
    for table in tables:
        _delete(ec2.delete_route_table, poll, RouteTableId=table["RouteTableId"])
    for gateway in ec2.describe_internet_gateways(Filters=filters)["InternetGateways"]:
        identity = gateway["InternetGatewayId"]
        for attachment in gateway["Attachments"]:
            _delete(ec2.detach_internet_gateway, poll, InternetGatewayId=identity, VpcId=attachment["VpcId"])
        _delete(ec2.delete_internet_gateway, poll, InternetGatewayId=identity)
    for vpc in ec2.describe_vpcs(Filters=filters)["Vpcs"]:
        _delete(ec2.delete_vpc, poll, VpcId=vpc["VpcId"])


def _delete(call: Callable[..., object], poll: float, **identity: str) -> None:
    """Delete a resource once EC2 notices that nothing uses it any more; one that is gone already counts as deleted."""
    end = time.monotonic() + REMOVAL_TIMEOUT
    while True:
        try:
            call(**identity)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code.endswith(".NotFound") or code in _GONE_CODES:
                return
            if code not in _IN_USE_CODES or time.monotonic() > end:
                raise
            time.sleep(poll)
        else:
            return
