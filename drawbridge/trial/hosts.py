"""Start the machines of a stack's users: a home for each client, and a host in the private subnet.

A client's machine does what its user would: it fetches its own bundle from SSM over the lab's Internet and starts
OpenVPN at boot.
"""

import hashlib
import itertools
import json
import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from drawbridge.operate.bundles import kit_command
from drawbridge.operate.stack_records import save_record
from drawbridge.operate.stored_bundles import read_stored_bundle
from drawbridge.trial.deployment import Deployment, Progress, client_user, name_own_machine
from drawbridge.trial.measure import ECHO_PORT, start_echo
from images import DEFAULT_IMAGE, IMAGES
from lab import region as labs
from lab.errors import LabError
from openvpn.windows import FIRST_OPTION
from settings.model import Client, Settings, Tunnel

#: Name of the instance in the private subnet, in its stack.
PRIVATE_HOST = "private-host"
#: Public addresses of homes: TEST-NET-3 (RFC 5737).
HOMES = IPv4Network("203.0.113.0/24")

#: Runs on a client's machine: it fetches the bundle over the lab's Internet into a file that only root reads. Windows
#: clients are simulated on Linux: the Windows part of the bundle is cut off and the MAC address is set.
FETCH_SCRIPT = """
import os, sys
import boto3
name, address, region, adapter, windows = sys.argv[1:]
if address.startswith("s3://"):
    bucket, _, key = address.removeprefix("s3://").partition("/")
    bundle = boto3.client("s3", region_name=region).get_object(Bucket=bucket, Key=key)["Body"].read().decode()
else:
    ssm = boto3.client("ssm", region_name=region)
    bundle = ssm.get_parameter(Name=address, WithDecryption=True)["Parameter"]["Value"]
profile, keys = bundle[:bundle.index("<ca>")], bundle[bundle.index("<ca>"):]
bundle = profile.partition(windows)[0] + adapter + keys
path = f"/etc/openvpn/client/{name}.conf"
with os.fdopen(os.open(path + ".new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as out:
    out.write(bundle)
os.replace(path + ".new", path)
"""


def applies(settings: Settings) -> bool:
    """Return whether a stack has this trial: clients with one link each."""
    return settings.pair is None and settings.tunnel.links == 1


def place_hosts(
    deployed: Deployment, progress: Progress, *, renews: bool = False, failures: dict[str, str] | None = None
) -> None:
    """Start a home for each of the deployment's `clients` and a host in the private subnet, unless they run.

    With `renews`, machines that run fetch their bundles again if these have changed. With `failures`, a client that
    does not start is noted there with the reason and is no longer one of the deployment's `clients`; otherwise its
    error is raised.
    """
    private = start_private_host(deployed)
    for client in deployed.clients:
        progress(f"starting client {client.name}")
        try:
            machine = start_client(deployed, deployed.settings.clients.index(client), client.name)
            if renews:
                renew_bundle(deployed, machine, client)
        except LabError as error:
            if failures is None:
                raise
            failures[client.name] = str(error)
            deployed.failed.add(client.name)
    host = deployed.region.host(private)
    host.wait_booted()
    start_echo(host)
    for client in deployed.clients:
        for name in site_hosts(deployed.settings, client):
            neighbour = deployed.host(name)
            neighbour.wait_booted()
            start_echo(neighbour)


def start_private_host(deployed: Deployment, name: str = PRIVATE_HOST) -> str:
    """Return the id of a plain Debian instance in the private subnet, for pings, echoes and SSH; start it if needed."""
    ec2, name = deployed.client("ec2"), deployed.name_machine(name_own_machine(deployed.settings, name))
    reservations = ec2.describe_instances(
        Filters=[
            {"Name": "tag:Name", "Values": [name]},
            {"Name": "subnet-id", "Values": [deployed.private_subnet]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
    )["Reservations"]
    if reservations:
        return str(reservations[0]["Instances"][0]["InstanceId"])
    group = ec2.create_security_group(
        GroupName=f"{name}-{secrets.token_hex(4)}",
        Description="Answers ping and probes",
        VpcId=deployed.outputs["vpcId"],
    )["GroupId"]
    anywhere = [{"CidrIp": "0.0.0.0/0"}]
    echo = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": anywhere}
    probe = {"IpProtocol": "tcp", "FromPort": ECHO_PORT, "ToPort": ECHO_PORT, "IpRanges": anywhere}
    ssh6 = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[echo, probe, ssh6])
    image = deployed.client("ssm").get_parameter(Name=IMAGES[DEFAULT_IMAGE].parameters["arm64"])
    launched = ec2.run_instances(
        ImageId=image["Parameter"]["Value"],
        InstanceType="t4g.nano",
        MinCount=1,
        MaxCount=1,
        SubnetId=deployed.private_subnet,
        SecurityGroupIds=[group],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
    )
    return str(launched["Instances"][0]["InstanceId"])


def find_private_host(deployed: Deployment) -> labs.Host:
    """Return the host in the private subnet, which `start_private_host` has started."""
    return deployed.host(name_own_machine(deployed.settings, PRIVATE_HOST))


def home_network(settings: Settings, number: int) -> IPv4Network:
    """Return the LAN of a client's home: the declared one, or a range that overlaps none of the stack's."""
    client = settings.clients[number]
    return client.lan[0] if client.lan else free_lan(settings, number)


def free_lan(settings: Settings, number: int) -> IPv4Network:
    """Return a LAN, by its number, that overlaps none of the stack's ranges."""
    used = [settings.network.cidr, settings.tunnel.pool, *settings.tunnel.routes]
    used += [lan for client in settings.clients for lan in client.lan]
    free = (
        network
        for network in IPv4Network("192.168.0.0/16").subnets(new_prefix=24)
        if not any(network.overlaps(used_network) for used_network in used)
    )
    return next(itertools.islice(free, number + 1, None))


def public_address(settings: Settings, number: int, avoided: Collection[IPv4Address] = ()) -> IPv4Address:
    """Return a client's public address: the declared one, or one that may reach the tunnel.

    It is one of `avoided` only if the tunnel is open to no other.
    """
    client = settings.clients[number]
    if client.at:
        return client.at
    allowed = settings.gateway.allow_from
    homes = [address for address in list_from(HOMES, number + 10) if any(address in network for network in allowed)]
    candidates = [*homes, *list_from(allowed[number % len(allowed)], number + 10)] if allowed else list_from(HOMES, 10)
    used = {*avoided, *(declared.at for declared in settings.clients)}
    return next((address for address in candidates if address not in used), candidates[0])


def list_from(network: IPv4Network, start: int) -> list[IPv4Address]:
    """Return up to 256 addresses of a range from the one with this number on, and then from its beginning."""
    return [network[(start + n) % network.num_addresses] for n in range(min(network.num_addresses, 256))]


def find_home(deployed: Deployment, number: int) -> tuple[str, IPv4Address]:
    """Return the name and the public address of the site that a client's machine is at, or will be."""
    status = deployed.region.status()
    publics = {site["name"]: IPv4Address(site["public"]) for site in status["sites"]}
    machine = deployed.record.machine(deployed.settings.clients[number].name)
    if site := next((host["site"] for host in status["hosts"] if host["name"] == machine and host["site"]), None):
        return site, publics[site]
    public = public_address(deployed.settings, number, set(publics.values()))
    # Whoever comes from one address is at one site.
    return next((name for name, address in publics.items() if address == public), f"home-{machine}"), public


def start_client(deployed: Deployment, number: int, name: str, mtu: int = 1500) -> labs.Host:
    """Start a client's machine at its own home; it fetches its bundle itself, and OpenVPN is enabled at boot.

    A site's machine is set up by its kit, and gets neighbours that reach AWS through it. `mtu` is the home's, bytes.
    """
    region, settings = deployed.region, deployed.settings
    client, machine = settings.clients[number], deployed.name_machine(name)
    site, public = find_home(deployed, number)
    lan = home_network(settings, number)
    region.add_site(site, public=public, lan=lan, mtu=mtu)
    is_running = any(host["name"] == machine for host in region.status()["hosts"])
    host = region.add_host(machine, site=site)
    if not is_running:
        host.wait_booted()
        _set_up(deployed, host, client, site)
    return host


def _set_up(deployed: Deployment, host: labs.Host, client: Client, site: str) -> None:
    """Have a client's new machine fetch its bundle and connect; start the hosts in its LAN."""
    region, name, tunnel = deployed.region, client.name, deployed.settings.tunnel
    neighbours = site_hosts(deployed.settings, client) if client.needs_kit(tunnel) else {}
    deployed.record.clients[name] = [name, *neighbours]
    deployed.record.bundles.pop(name, None)
    save_record(region, deployed.record)
    digest = _bundle_digest(deployed, name)
    if not client.needs_kit(tunnel):
        _give_credentials(deployed, host, name)
        fetch_bundle(deployed, host, name)
        run_checked(host, "systemctl", "enable", "--now", f"openvpn-client@{name}")
        _record_bundle(deployed, name, digest)
        return
    hints = install_kit(deployed, host, name)
    for network, via in re.findall(r"(\S+) via (this host|\S+)", hints):
        region.add_route(site, IPv4Network(network), host.address if via == "this host" else via)
    for neighbour, address in neighbours.items():
        region.add_host(deployed.name_machine(neighbour), site=site, address=address)
    _record_bundle(deployed, name, digest)


def _record_bundle(deployed: Deployment, name: str, digest: str) -> None:
    deployed.record.bundles[name] = digest
    save_record(deployed.region, deployed.record)


def renew_bundle(deployed: Deployment, host: labs.Host, client: Client) -> None:
    """Have a client's machine fetch its bundle again, and connect with it, if it was set up with another one.

    A machine whose set-up has failed is set up again.
    """
    name = client.name
    if name not in deployed.record.bundles:
        site, _ = find_home(deployed, deployed.settings.clients.index(client))
        host.wait_booted()
        _set_up(deployed, host, client, site)
        return
    digest = _bundle_digest(deployed, name)
    if deployed.record.bundles[name] == digest:
        return
    host.wait_booted()
    if client.needs_kit(deployed.settings.tunnel):
        install_kit(deployed, host, name)
    else:
        _give_credentials(deployed, host, name)
        fetch_bundle(deployed, host, name)
        run_checked(host, "systemctl", "restart", f"openvpn-client@{name}")
    _record_bundle(deployed, name, digest)


def _bundle_digest(deployed: Deployment, name: str) -> str:
    return hashlib.sha256(read_stored_bundle(deployed.account, deployed.names, name).encode()).hexdigest()


def site_hosts(settings: Settings, client: Client) -> dict[str, IPv4Address]:
    """Return hosts for a site's LAN by name: one in each reachable part, and one that is not reachable.

    None has an address of the tunnel's pool, which is part of the LAN of a bridged site.
    """
    if not client.lan:
        return {}
    lan, pool = client.lan[0], settings.tunnel.pool
    reachable = [network for network in client.reachable if network.subnet_of(lan)]
    # The router has the first address, and hosts without an address get those from the tenth on.
    free = [lan[n] for n in range(2, min(lan.num_addresses - 1, 4096)) if not 10 <= n < 20]
    free = [address for address in free if address not in pool]
    hidden = next((address for address in free if not any(address in network for network in reachable)), None)
    hosts = {f"{client.name}-hidden": hidden} if hidden else {}
    for number, network in enumerate(reachable):
        last = network.num_addresses - (1 if network.broadcast_address < lan.broadcast_address else 2)
        ours = (network[n] for n in range(max(last, 0), -1, -1) if network[n] not in pool)
        hosts |= {f"{client.name}-reachable{number or ''}": address for address in itertools.islice(ours, 1)}
    return {name_own_machine(settings, name): address for name, address in hosts.items()}


def tunnel_interface(client: Client, tunnel: Tunnel) -> str:
    """Return the name of the interface that has a client's address in the tunnel, on the client's machine."""
    if client.bridge:
        return "br0"
    if tunnel.links > 1:
        return "bond0"
    return "drawbridge0" if client.needs_kit(tunnel) else f"{tunnel.device}0"


def install_kit(deployed: Deployment, host: labs.Host, name: str) -> str:
    """Set up a client's host as its owner does, and return the output of the kit's command.

    The owner gives the host an access key or, if the stack has no IAM users, the bundle.
    """
    if deployed.settings.iam.users == "none":
        bundle = read_stored_bundle(deployed.account, deployed.names, name)
        path = f"/etc/openvpn/client/{name}.conf"
        run_checked(host, "install", "-D", "-m", "0600", "/dev/stdin", path, stdin=bundle)
    else:
        _install_key(deployed, host, deployed.names.kit_user(name))
    return run_checked(host, "sh", "-c", kit_command(deployed.account, name), timeout=180)


def fetch_bundle(deployed: Deployment, host: labs.Host, name: str) -> None:
    """Have a client's machine fetch its bundle from SSM or S3 with its own credentials."""
    settings = deployed.settings
    mac = next((client.mac for client in settings.clients if client.name == name), None)
    adapter = f"lladdr {mac}\n" if mac else ""
    address = deployed.names.bundle_address(name, _find_bundles_bucket(deployed))
    run_checked(host, "python3", "-c", FETCH_SCRIPT, name, address, settings.region, adapter, FIRST_OPTION)


def _find_bundles_bucket(deployed: Deployment) -> str | None:
    """Return the bucket of the clients' bundles; None if they are in SSM."""
    if deployed.settings.secrets.bundles == "ssm":
        return None
    account = deployed.client("sts").get_caller_identity()["Account"]
    return deployed.names.bundles_bucket(account, deployed.settings.region)


def _give_credentials(deployed: Deployment, host: labs.Host, name: str) -> None:
    """Create an IAM user that may only read this client's bundle, and put its key on the client's machine."""
    iam, user = deployed.client("iam"), client_user(deployed.settings.stack, name)
    account = deployed.client("sts").get_caller_identity()["Account"]
    action = "ssm:GetParameter"
    arn = f"arn:aws:ssm:{deployed.settings.region}:{account}:parameter{deployed.names.bundle(name)}"
    if bucket := _find_bundles_bucket(deployed):
        action, arn = "s3:GetObject", f"arn:aws:s3:::{bucket}/{deployed.names.bundle_key(name)}"
    statements = [{"Effect": "Allow", "Action": action, "Resource": arn}]
    if (key := deployed.settings.secrets.key).startswith("arn:"):
        # The policy of an existing key names no user.
        statements.append({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key})
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=user)
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName=user, PolicyName="bundle", PolicyDocument=policy)
    _install_key(deployed, host, user)


def _install_key(deployed: Deployment, host: labs.Host, user: str) -> None:
    """Create an access key for an IAM user and put it into root's AWS credentials on a machine."""
    iam = deployed.client("iam")
    for former in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=user, AccessKeyId=former["AccessKeyId"])
    key = iam.create_access_key(UserName=user)["AccessKey"]
    text = f"[default]\naws_access_key_id = {key['AccessKeyId']}\naws_secret_access_key = {key['SecretAccessKey']}\n"
    run_checked(host, "install", "-D", "-m", "0600", "/dev/stdin", "/root/.aws/credentials", stdin=text)


def run_checked(host: labs.Host, *argv: str, stdin: str | None = None, timeout: float = 60) -> str:
    done = host.run(argv, stdin=stdin, timeout=timeout)
    if done.returncode:
        raise LabError(f"on {host.name}, `{argv[0]}` failed: {done.stderr.strip()[-500:]}")
    return done.stdout
