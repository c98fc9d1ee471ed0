"""Stacks in the lab: deploy one, start its clients where users are, check what its settings promise.

Everything goes the way a user's does: the program deploys through the AWS API, a client's machine fetches its own bundle from SSM over
the lab's Internet, and what is checked is checked with packets. Nothing here knows how a component is made.
"""

import itertools
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import boto3
import pulumi

import contract
from drawbridge import errors
from drawbridge.account import LAB, PROJECT, stack_file
from drawbridge.checks import Check
from lab import region as labs
from lab.errors import LabError
from settings import Settings, parse, read_stack_file

Progress = Callable[[str], None]
#: Clients that get a machine of their own; of more, the others are only checked to have a bundle.
MACHINES = 4
#: Public addresses of homes: TEST-NET-3 (RFC 5737).
HOMES = IPv4Network("203.0.113.0/24")
_READY_SECONDS = 120
_TUNNEL_SECONDS = 60


@dataclass(frozen=True)
class Deployment:
    """One stack, deployed into a region of this machine."""

    region: labs.Region
    settings: Settings
    outputs: Mapping[str, Any]
    changes: Mapping[str, int]

    @property
    def names(self) -> contract.Names:
        """What the stack's things are called."""
        return contract.Names(self.settings.stack)

    def client(self, service: str) -> Any:
        """A boto3 client of the lab's operator, in the stack's AWS region."""
        return boto3.client(
            service,
            region_name=self.settings.region,
            endpoint_url=self.region.endpoint,
            aws_access_key_id=self.region.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.region.environment["AWS_SECRET_ACCESS_KEY"],
        )

    @property
    def gateway(self) -> labs.Host:
        """The gateway's machine as it is now (its instance may have been replaced)."""
        return self.region.host(self.outputs["gatewayInstanceId"])


# --- the two commands --------------------------------------------------------------------------------------------------


def up(stack: str, progress: Progress) -> list[Check]:
    """Bring the lab and a stack up, or up to date, and leave them running; who reaches whom.

    Raises:
        SettingsError: the stack file; nothing was touched.
        LabError: the lab; EngineError: the deployment.
    """
    raw = read_stack_file(stack_file(stack))
    parse(raw, stack=stack, endpoint="http://127.0.0.1")
    running = labs.connect() or labs.start(progress=progress)
    return _deploy_and_check(running, stack, raw, progress)


def try_stack(path: Path, progress: Progress) -> list[Check]:
    """Deploy a stack file into a region of its own, check what its settings promise, take everything down.

    Raises:
        As `up`. Nothing is left behind in any case.
    """
    stack = path.stem.removeprefix("Pulumi.")
    raw = read_stack_file(path)
    parse(raw, stack=stack, endpoint="http://127.0.0.1")
    with throw_away_region(progress) as running:
        return _deploy_and_check(running, stack, raw, progress)


@contextmanager
def throw_away_region(progress: Progress = lambda _: None) -> Iterator[labs.Region]:
    """A region under a name of its own that is gone when the block ends, however it ends."""
    name = f"try{secrets.token_hex(3)}"
    try:
        yield labs.start(name, progress)
    finally:
        progress("taking the region down")
        labs.down(name)


def _deploy_and_check(running: labs.Region, stack: str, raw: Mapping[str, Any], progress: Progress) -> list[Check]:
    deployed = deploy(running, stack, raw, progress)
    place_hosts(deployed, progress)
    progress("waiting for the gateway")
    checks = [_ready(deployed)]
    progress("checking")
    return [*checks, *connectivity(deployed)]


# --- deploying ---------------------------------------------------------------------------------------------------------


def deploy(running: labs.Region, stack: str, raw: Mapping[str, Any], progress: Progress) -> Deployment:
    """Run the program against the lab with the embedded engine; the operator's SSH key is the lab's own.

    Raises:
        StackError: the settings, or what the program said of them.
        LabError: what the engine said.
    """
    from lab.engine import EngineError

    config = {**raw, "drawbridge:gateway": {"sshKey": _ssh_key(running), **(raw.get("drawbridge:gateway") or {})}}
    progress(f"deploying stack {stack}")
    with _environment({**running.environment, "AWS_REGION": str(config["aws:region"])}):
        try:
            settings = parse(config, stack=stack, endpoint=running.endpoint)
            result = engine(running, stack, config, progress).up()
        except pulumi.RunError as error:
            raise errors.StackError(str(error)) from error
        except EngineError as error:
            raise errors.LabError(str(error), f"see {running.directory}/log; start anew: drawbridge lab down") from error
    running.settle()
    told = ", ".join(f"{count} {verb}" for verb, count in result.changes.items() if count)
    progress(f"deployed: {told}")
    return Deployment(running, settings, result.outputs, result.changes)


def engine(running: labs.Region, stack: str, config: Mapping[str, Any], progress: Progress = lambda _: None) -> Any:
    """The embedded engine for a stack of this lab; its state lies with the lab's."""
    from lab.engine import Engine, Event

    def tell(event: Event) -> None:
        if event.kind in ("warning", "error", "info"):
            progress(event.text)

    state = running.stacks / f"{stack}.json"
    return Engine(PROJECT, project=contract.PROJECT, stack=stack, config=config, state=state, events=tell)


def identity(running: labs.Region) -> Path:
    """The lab operator's private SSH key, which its gateways let in."""
    return running.directory / "operator"


def _ssh_key(running: labs.Region) -> str:
    key = identity(running)
    if not key.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(key)], check=True, timeout=10
        )
    return key.with_suffix(".pub").read_text().strip()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Point the SDKs of this process at the lab for the length of a block: they know no other door."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)


# --- hosts: homes with clients, instances in the private subnet ----------------------------------------------------------

#: What a client's machine runs to get its bundle: the AWS API over the Internet, and a file nobody else reads.
FETCH = """
import os, sys
import boto3
name, parameter, region = sys.argv[1:]
bundle = boto3.client("ssm", region_name=region).get_parameter(Name=parameter, WithDecryption=True)["Parameter"]["Value"]
path = f"/etc/openvpn/client/{name}.conf"
with os.fdopen(os.open(path + ".new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as out:
    out.write(bundle)
os.replace(path + ".new", path)
"""


def place_hosts(deployed: Deployment, progress: Progress) -> None:
    """Start a home for each client (up to `MACHINES`) and a host in the private subnet; what is there stays."""
    start_private_host(deployed)
    for number, client in enumerate(deployed.settings.clients[:MACHINES]):
        progress(f"starting client {client.name}")
        start_client(deployed, number, client.name)


def start_private_host(deployed: Deployment, name: str = "private-host") -> str:
    """An instance of plain Debian in the private subnet that answers ping; its id. One that runs is taken."""
    ec2 = deployed.client("ec2")
    found = ec2.describe_instances(
        Filters=[
            {"Name": "tag:Name", "Values": [name]},
            {"Name": "subnet-id", "Values": [deployed.outputs["privateSubnetId"]]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
    )["Reservations"]
    if found:
        return str(found[0]["Instances"][0]["InstanceId"])
    group = ec2.create_security_group(
        GroupName=f"{name}-{secrets.token_hex(4)}", Description="Answers ping", VpcId=deployed.outputs["vpcId"]
    )["GroupId"]
    anywhere = [{"CidrIp": "0.0.0.0/0"}]
    echo = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": anywhere}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[echo])
    image = deployed.client("ssm").get_parameter(Name="/aws/service/debian/release/13/latest/arm64")
    made = ec2.run_instances(
        ImageId=image["Parameter"]["Value"],
        InstanceType="t4g.nano",
        MinCount=1,
        MaxCount=1,
        SubnetId=deployed.outputs["privateSubnetId"],
        SecurityGroupIds=[group],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
    )
    return str(made["Instances"][0]["InstanceId"])


def home_of(settings: Settings, number: int) -> IPv4Network:
    """The LAN of a client's home: its declared one, or a range that clashes with none of the stack's."""
    client = settings.clients[number]
    if client.lan:
        return client.lan[0]
    taken = [settings.network.cidr, settings.tunnel.pool, *settings.tunnel.routes]
    taken += [lan for other in settings.clients for lan in other.lan]
    free = (
        network
        for network in IPv4Network("192.168.0.0/16").subnets(new_prefix=24)
        if not any(network.overlaps(other) for other in taken)
    )
    return next(itertools.islice(free, number + 1, None))


def start_client(deployed: Deployment, number: int, name: str) -> labs.Host:
    """A client's machine at its own home, with its bundle fetched by itself and OpenVPN enabled at boot."""
    running, settings = deployed.region, deployed.settings
    place = f"home-{name}"
    running.premises(place, public=HOMES[number + 10], lan=home_of(settings, number))
    known = any(host["name"] == name for host in running.status()["hosts"])
    host = running.add_host(name, premises=place)
    if not known:
        host.wait_booted()
        _give_credentials(deployed, host, name)
        fetch_bundle(deployed, host, name)
        _must(host, "systemctl", "enable", "--now", f"openvpn-client@{name}")
    return host


def fetch_bundle(deployed: Deployment, host: labs.Host, name: str) -> None:
    """Have a client's machine fetch its bundle from SSM with its own credentials."""
    _must(host, "python3", "-c", FETCH, name, deployed.names.bundle(name), deployed.settings.region)


def _give_credentials(deployed: Deployment, host: labs.Host, name: str) -> None:
    """An IAM user that may read this client's bundle and nothing else, and its key on the client's machine."""
    iam, user = deployed.client("iam"), f"{deployed.settings.stack}-{name}"
    account = deployed.client("sts").get_caller_identity()["Account"]
    arn = f"arn:aws:ssm:{deployed.settings.region}:{account}:parameter{deployed.names.bundle(name)}"
    statement = {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": arn}
    iam.create_user(UserName=user)
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=user, PolicyName="bundle", PolicyDocument=policy)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    text = f"[default]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n"
    _must(host, "install", "-D", "-m", "0600", "/dev/stdin", "/root/.aws/credentials", stdin=text)


def _must(host: labs.Host, *argv: str, stdin: str | None = None) -> str:
    done = host.run(argv, stdin=stdin)
    if done.returncode:
        raise LabError(f"on {host.name}, `{argv[0]}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout


# --- checks --------------------------------------------------------------------------------------------------------------


def _ready(deployed: Deployment) -> Check:
    """The gateway reports that it runs the release the stack asks for."""
    start = time.monotonic()
    what = "gateway runs the stack's release"
    said = wait_report(deployed, deployed.outputs["release"])
    if said.get("state") == "ready" and said.get("release") == deployed.outputs["release"]:
        return Check(True, what, f"ready {time.monotonic() - start:.0f} s after the deployment")
    return Check(False, what, f"{said.get('state', 'no report')}: {said.get('reason', '')}")


def wait_report(deployed: Deployment, release: str, timeout: float = _READY_SECONDS) -> dict[str, Any]:
    """The gateway's report about a release, waited for; the last other one (or nothing) after `timeout` seconds."""
    ssm, said = deployed.client("ssm"), dict[str, Any]()
    deadline = time.monotonic() + timeout
    instance = deployed.outputs["gatewayInstanceId"]
    while time.monotonic() < deadline:
        try:
            said = json.loads(ssm.get_parameter(Name=deployed.names.report)["Parameter"]["Value"])
        except (ssm.exceptions.ParameterNotFound, json.JSONDecodeError):
            said = {}
        if said.get("release") == release and said.get("instance") == instance:
            return said
        time.sleep(0.3)
    return said


def connectivity(deployed: Deployment) -> list[Check]:
    """Each started client reaches the gateway's address and the private host through its tunnel."""
    private = deployed.region.host("private-host")
    targets = {"gateway": deployed.outputs["privateIp"], "private host": private.address}
    checks = []
    for client in deployed.settings.clients[:MACHINES]:
        host = deployed.region.host(client.name)
        for label, address in targets.items():
            found = ping(host, address, _TUNNEL_SECONDS)
            checks.append(Check(found is not None, f"{client.name} -> {label} {address}", _figure(found)))
    return checks


def ping(host: labs.Host, address: str | IPv4Address, timeout: float) -> float | None:
    """Round-trip time of a ping, milliseconds, tried again until one is answered; None after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done = host.run(["ping", "-n", "-c", "1", "-W", "1", str(address)])
        for word in done.stdout.split():
            if word.startswith("time="):
                return float(word.removeprefix("time="))
    return None


def _figure(milliseconds: float | None) -> str:
    return "no answer" if milliseconds is None else f"{milliseconds:.1f} ms"


__all__ = ["LAB", "Deployment", "connectivity", "deploy", "place_hosts", "try_stack", "up"]
