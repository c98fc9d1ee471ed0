"""Where users are: a home for each client, a host in the private subnet.

A client's machine does what its user would: it fetches its own bundle from SSM over the lab's Internet and starts
OpenVPN at boot.
"""

import itertools
import json
import secrets
from ipaddress import IPv4Network

from drawbridge.trial.deployment import Deployment, Progress
from drawbridge.trial.probes import PORT, serve
from lab import region as labs
from lab.errors import LabError
from settings import Settings

#: Clients that get a machine of their own.
MACHINES = 4
#: Public addresses of homes: TEST-NET-3 (RFC 5737).
HOMES = IPv4Network("203.0.113.0/24")

#: What a client's machine runs to get its bundle: the AWS API over the Internet, and a file nobody else reads.
FETCH = """
import os, sys
import boto3
name, parameter, region = sys.argv[1:]
ssm = boto3.client("ssm", region_name=region)
bundle = ssm.get_parameter(Name=parameter, WithDecryption=True)["Parameter"]["Value"]
path = f"/etc/openvpn/client/{name}.conf"
with os.fdopen(os.open(path + ".new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as out:
    out.write(bundle)
os.replace(path + ".new", path)
"""


def place_hosts(deployed: Deployment, progress: Progress) -> None:
    """Start a home for each client (up to `MACHINES`) and a host in the private subnet; what is there stays."""
    private = start_private_host(deployed)
    for number, client in enumerate(deployed.settings.clients[:MACHINES]):
        progress(f"starting client {client.name}")
        start_client(deployed, number, client.name)
    host = deployed.region.host(private)
    host.wait_booted()
    serve(host)


def start_private_host(deployed: Deployment, name: str = "private-host") -> str:
    """An instance of plain Debian in the private subnet, for pings and probes; its id. One that runs is taken."""
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
        GroupName=f"{name}-{secrets.token_hex(4)}",
        Description="Answers ping and probes",
        VpcId=deployed.outputs["vpcId"],
    )["GroupId"]
    anywhere = [{"CidrIp": "0.0.0.0/0"}]
    echo = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": anywhere}
    probe = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": anywhere}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[echo, probe])
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
        must(host, "systemctl", "enable", "--now", f"openvpn-client@{name}")
    return host


def fetch_bundle(deployed: Deployment, host: labs.Host, name: str) -> None:
    """Have a client's machine fetch its bundle from SSM with its own credentials."""
    must(host, "python3", "-c", FETCH, name, deployed.names.bundle(name), deployed.settings.region)


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
    must(host, "install", "-D", "-m", "0600", "/dev/stdin", "/root/.aws/credentials", stdin=text)


def must(host: labs.Host, *argv: str, stdin: str | None = None) -> str:
    done = host.run(argv, stdin=stdin)
    if done.returncode:
        raise LabError(f"on {host.name}, `{argv[0]}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
