"""What every world keeps (rows 9.x), for the tests of any of them to ask.

A failed promise fails the test that asks. Nothing here proves that AWS itself accepts what is deployed.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import fetch_bundle, install_kit, run_checked
from drawbridge.trial.measure import ask_echo, packets_arrive, ping
from lab.linux import nft
from lab.network.plan import BACKBONE
from lab.region import Host, Region
from openvpn.bundle import certificate_of
from pki.authority import Certificate
from tests.support import stacks, waiting

TUNNEL = 60.0
#: Another key of the operator's is other user data, and that means another machine.
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
#: A line that only a private key in clear has.
PRIVATE = re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY|OpenVPN tls-crypt-v2 (server|client) key)-----")


@dataclass
class World:
    """A world's stack, as it is deployed now."""

    deployed: Deployment
    raw: dict[str, Any]

    def deploy_and_wait(self, **sections: Any) -> Deployment:
        """Deploy it with other sections, and wait until its gateway runs that."""
        made = self.deploy(**sections)
        self.deployed = stacks.wait_current(made)
        return made

    def deploy(self, **sections: Any) -> Deployment:
        """Deploy it with other sections, and leave it to the gateway when it looks."""
        config = {**self.raw, **{f"drawbridge:{key}": value for key, value in sections.items()}}
        return deploy(self.deployed.region, self.deployed.settings.stack, config, lambda _: None)

    def client(self, name: str) -> Host:
        """A client's machine, its tunnel up."""
        host = self.deployed.region.host(name)
        assert ping(host, self.deployed.outputs["privateIp"], TUNNEL) is not None
        return host

    @property
    def private(self) -> Host:
        return self.deployed.region.host("private-host")


def bundle_path(name: str) -> str:
    """A client's bundle on its machine."""
    return f"/etc/openvpn/client/{name}.conf"


def check_replacement(world: World, name: str, **sections: Any) -> None:
    """Replace the gateway's machine: the addresses stay, and a client is back with what it had (9.2)."""
    client, before = world.client(name), world.deployed.outputs
    unit, bundle = f"openvpn-client@{name}", run_checked(client, "sha256sum", bundle_path(name))
    pid = run_checked(client, "systemctl", "show", "-P", "MainPID", unit)
    gateway = world.raw.get("drawbridge:gateway") or {}
    # So it stays: to take it back would be one machine more.
    world.raw = {**world.raw, "drawbridge:gateway": {**gateway, "sshKey": OTHER_KEY}}
    stack = world.deploy_and_wait(**sections)

    assert stack.outputs["gatewayInstanceId"] != before["gatewayInstanceId"]
    assert {k: stack.outputs[k] for k in ("publicIp", "privateIp", "gatewayInterfaceId")} == {
        k: before[k] for k in ("publicIp", "privateIp", "gatewayInterfaceId")
    }
    # The old one said goodbye, so that nobody waits for the silence of `tunnel.keepalive`.
    log = run_checked(client, "journalctl", "--no-pager", "--unit", unit)
    assert "Connection reset command was pushed by server" in log
    assert ping(client, world.private.address, TUNNEL) is not None
    assert run_checked(client, "sha256sum", bundle_path(name)) == bundle
    assert run_checked(client, "systemctl", "show", "-P", "MainPID", unit) == pid


def check_revocation(world: World, name: str, *, stay: Sequence[Any], again: Sequence[Any], looks: bool = True) -> None:
    """Take a client out of the stack file, and put it in again (9.1).

    `stay` are the clients without it, `again` those with it. The gateway looks by itself, or is told to.
    """
    client, private, stack = world.client(name), world.private, world.deployed
    old = "/etc/openvpn/old.ovpn"
    run_checked(client, "cp", "-p", bundle_path(name), old)
    assert ping(client, private.address, 5) is not None  # its session lives

    world.deployed = world.deploy(clients=stay)
    if not looks:
        stacks.wait_current(world.deployed)
    waiting.until(lambda: ping(client, stack.outputs["privateIp"], 1) is None, 60)  # cut, within the 60 s
    entry = next(one for one in stack.settings.clients if one.name == name)
    # Where the tunnel was open to its address alone, it is now shut: OpenVPN does not even hear of it.
    check_refused(world, client, old, heard=entry.at is None)

    world.deploy_and_wait(clients=again)
    check_refused(world, client, old)  # under a name that is good
    if entry.needs_kit(world.deployed.settings.tunnel):  # a site's IAM user is another one, too
        install_kit(world.deployed, client, name)
    else:
        fetch_bundle(world.deployed, client, name)
    run_checked(client, "systemctl", "restart", f"openvpn-client@{name}")
    assert ping(client, private.address, TUNNEL) is not None


def check_refused(world: World, client: Host, bundle: str, *, heard: bool = True) -> None:
    """The gateway says that a bundle's certificate is revoked, or is never asked; no tunnel comes of it."""
    serial = Certificate.read(certificate_of(run_checked(client, "cat", bundle))).serial
    gateway, device, unit = world.deployed.gateway, world.deployed.settings.tunnel.device, f"old-{secrets.token_hex(4)}"

    def told() -> int:
        log = run_checked(gateway, "journalctl", "--no-pager", "-o", "cat", "-u", "openvpn-server@server")
        # By the serial that its tls-crypt-v2 key names, before its certificate is asked for; a key without one by that.
        return log.count("TLS CRYPT V2 VERIFY SCRIPT ERROR") + log.count(f"serial={serial} is revoked")

    before = told()
    argv = ["openvpn", "--config", bundle, "--dev", f"{device}9", "--dev-type", device]
    if not heard:
        said = client.run(["timeout", "10", *argv]).stdout
        assert "link remote" in said and "Initialization Sequence Completed" not in said
        assert told() == before
        return
    run_checked(client, "systemd-run", "--quiet", f"--unit={unit}", *argv)
    try:
        waiting.until(lambda: told() > before, 30)
        said = run_checked(client, "journalctl", "--no-pager", "-o", "cat", "-u", unit)
        assert "link remote" in said and "Initialization Sequence Completed" not in said
    finally:
        client.run(["systemctl", "stop", unit])


def check_transfer(client: Host, private: Host) -> None:
    """Ten megabytes pass each way, in packets that must not be fragmented, as TCP sends them (9.5)."""
    assert client.run(["sysctl", "-n", "net.ipv4.ip_no_pmtu_disc"]).stdout.strip() == "0"
    size = 10_000_000
    for way in ({"take": size}, {"send": size}):
        answer = ask_echo(client, private.address, timeout=20, **way)
        assert answer is not None and answer.received == way.get("take", 0)
    assert packets_arrive(client, "tcp and ip[6] & 0x40 != 0", lambda: ask_echo(client, private.address))


def silence_path_errors(region: Region, site: str) -> None:
    """Have the routers at both ends of a site's line drop what is too big for it without a word (RFC 2923)."""
    chain = "type filter hook output priority 0; icmp type destination-unreachable drop;"
    for router in (f"{region.name}-{site}-gw", f"{region.name}-internet"):
        nft(router, f"table ip quiet {{ chain output {{ {chain} }}; }}")


def check_narrow_line(client: Host, mtu: int) -> None:
    """The control for a narrow line: it takes packets of its size, and no bigger ones."""

    def ping_backbone(size: int) -> str:
        ping = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", str(size - 28), str(BACKBONE)]
        return client.run(ping).stdout

    assert " 0 received" not in (answer := ping_backbone(mtu)), answer
    assert " 0 received" in (answer := ping_backbone(mtu + 8)), answer


def check_no_metadata(deployed: Deployment, client: Host, device: str, beyond: str) -> None:
    """A client that sends packets for the metadata into the tunnel has no answer; `beyond` it reaches (9.3)."""
    server = str(deployed.settings.tunnel.pool.network_address + 1)
    run_checked(client, "ip", "route", "replace", "169.254.169.254/32", "via", server, "dev", device)
    try:
        put = ["curl", "-s", "-m", "3", "-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60"]
        before = _count_drops(deployed.gateway)
        asked = client.run([*put, "http://169.254.169.254/latest/api/token"])
        assert (asked.returncode, asked.stdout) == (28, "")  # curl's 28: timed out
        assert _count_drops(deployed.gateway) > before  # it was this firewall that dropped it
    finally:
        run_checked(client, "ip", "route", "delete", "169.254.169.254/32")
    # Controls: the service answers the gateway itself, and the same tunnel carries what is allowed.
    assert run_checked(deployed.gateway, *put, "http://169.254.169.254/latest/api/token")
    assert ping(client, beyond, 5) is not None


def check_no_key_exposed(deployed: Deployment, client: Host, name: str) -> None:
    """No private key is in user data, state, outputs or any log (9.6)."""
    ec2, gateway = deployed.client("ec2"), deployed.gateway
    data = ec2.describe_instance_attribute(InstanceId=deployed.outputs["gatewayInstanceId"], Attribute="userData")
    machine = next((deployed.region.directory / "machines").glob(f"{deployed.outputs['gatewayInstanceId']}*"))
    texts = {
        "user data": data["UserData"]["Value"],
        "user data on the machine": run_checked(gateway, "cat", "/var/lib/cloud/instance/user-data.txt"),
        "Pulumi state": (deployed.region.stacks / f"{deployed.settings.stack}.json").read_text(),
        "stack outputs": json.dumps(deployed.outputs),
        "the gateway's journal": run_checked(gateway, "journalctl", "--no-pager"),
        "cloud-init's logs": run_checked(gateway, "sh", "-c", "cat /var/log/cloud-init*.log"),
        "the client's journal": run_checked(client, "journalctl", "--no-pager"),
        "the console": (machine / "console.log").read_text(errors="replace"),
        "the region's log": (deployed.region.directory / "log").read_text(),
    }
    held = [
        run_checked(gateway, "cat", f"/etc/openvpn/server/secrets/{one}") for one in ("server.key", "tls-crypt-v2.key")
    ]
    held.append(run_checked(client, "cat", bundle_path(name)).partition("<key>")[2])
    assert all(PRIVATE.search(secret) for secret in held[:2])  # the control: the pattern finds a key
    bodies = [unique_line(secret) for secret in held]

    for where, text in texts.items():
        assert text or where in ("the console", "the region's log"), where
        assert not PRIVATE.search(text), where
        assert not any(one in text for one in bodies), where


def check_instance_role(deployed: Deployment, name: str) -> None:
    """The instance's role reads what its gateway needs, and nothing else (9.7, attacks 8.x); `name` is a client's."""
    gateway, names, outputs = deployed.gateway, deployed.names, deployed.outputs
    bucket, key = outputs["bucket"], names.release_key(outputs["release"])
    report = f"ssm.put_parameter(Name='{names.report}', Value='{{}}', Type='String'"
    policy = json.dumps([{"Type": "Expiration", "Version": "1.0", "Attributes": {"Timestamp": "2099-01-01T00:00:00Z"}}])
    allowed = [
        f"ssm.get_parameter(Name='{names.release}')",
        f"ssm.get_parameters_by_path(Path='{names.secrets}', WithDecryption=True)",
        f"s3.get_object(Bucket='{bucket}', Key='{key}')",
        f"{report}, Overwrite=True)",
        f"cloudwatch.put_metric_data(Namespace='{names.metrics}', {_METRIC})",
    ]
    reads = [
        f"ssm.get_parameters_by_path(Path='{names.authority}', WithDecryption=True)",
        f"ssm.get_parameters_by_path(Path='{names.root}', Recursive=True, WithDecryption=True)",
        f"ssm.get_parameter(Name='{names.keys}', WithDecryption=True)",
        f"ssm.get_parameters(Names=['{names.release}', '{names.keys}'], WithDecryption=True)",
        f"ssm.get_parameters_by_path(Path='{names.issued}')",
        f"ssm.get_parameter(Name='{names.bundle(name)}', WithDecryption=True)",
        f"ssm.get_parameter_history(Name='{names.secret('server.key')}', WithDecryption=True)",
        "ssm.get_parameter(Name='/drawbridge/other/gateway/server.key', WithDecryption=True)",
    ]
    writes = [
        f"ssm.put_parameter(Name='{parameter}', Value='x', Type='{kind}', Overwrite=True)"
        for parameter, kind in (
            (names.release, "String"),
            (names.ssh_host_key, "String"),
            (names.secret("server.key"), "SecureString"),
            (f"{names.report}/below", "String"),
        )
    ]
    writes += [
        f"{report}, Overwrite=True, Tier='Advanced', Policies='{policy}')",
        f"{report})",
        f"ssm.delete_parameter(Name='{names.report}')",
    ]
    objects = [
        f"s3.put_object(Bucket='{bucket}', Key='{key}', Body=b'')",
        f"s3.put_object(Bucket='{bucket}', Key='{names.kit_key(name)}', Body=b'')",
        f"s3.get_object(Bucket='{bucket}', Key='{names.kit_key(name)}')",
        f"s3.delete_object(Bucket='{bucket}', Key='{key}')",
        f"s3.list_objects_v2(Bucket='{bucket}')",
        "s3.list_buckets()",
    ]
    group, interface = outputs["securityGroupId"], outputs["gatewayInterfaceId"]
    opened = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    others = [
        "ec2.describe_instances()",
        f"ec2.authorize_security_group_ingress(GroupId='{group}', IpPermissions=[{opened}])",
        f"ec2.modify_network_interface_attribute(NetworkInterfaceId='{interface}', SourceDestCheck={{'Value': False}})",
        "iam.list_users()",
        f"iam.put_role_policy(RoleName='{names.role('eu-west-1')}', PolicyName='more', PolicyDocument='{{}}')",
        *(
            f"cloudwatch.put_metric_data(Namespace='{namespace}', {_METRIC})"
            for namespace in ("Drawbridge/other", f"{names.metrics}/more", "AWS/EC2")
        ),
    ]
    denied = reads + writes + objects + others
    ssm = deployed.client("ssm")
    before = ssm.get_parameter(Name=names.report)["Parameter"]["Value"]
    try:
        said = call_aws(gateway, *allowed, *denied)
        assert {call: said[call] for call in allowed} == dict.fromkeys(allowed, "ok")
        assert {call: said[call] for call in denied if said[call] not in _DENIALS} == {}
    finally:
        # What the gateway has reported once it does not report again.
        ssm.put_parameter(Name=names.report, Value=before, Type="String", Overwrite=True)


_METRIC = "MetricData=[{'MetricName': 'X', 'Value': 1}]"
#: Codes of IAM's refusals: S3's and CloudWatch's, Systems Manager's, EC2's.
_DENIALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


def call_aws(host: Host, *calls: str) -> dict[str, str]:
    """What became of AWS calls made on a machine with the credentials it has there: `ok`, or the error's code."""
    script = (
        "import boto3, json, sys, botocore.exceptions as e\n"
        "names = ('ssm', 's3', 'ec2', 'iam', 'cloudwatch')\n"
        "ssm, s3, ec2, iam, cloudwatch = (boto3.client(s, region_name='eu-west-1') for s in names)\n"
        "said = {}\n"
        "for call in json.load(sys.stdin):\n"
        "    try:\n        eval(call)\n        said[call] = 'ok'\n"
        "    except e.ClientError as error:\n        said[call] = error.response['Error']['Code']\n"
        "print(json.dumps(said))\n"
    )
    said: dict[str, str] = json.loads(run_checked(host, "python3", "-c", script, stdin=json.dumps(calls)))
    return said


def unique_line(pem: str) -> str:
    """A line that no other key has, of a PEM private key.

    Not the first: that is mostly what kind of key it is.
    """
    return PRIVATE.split(pem)[-1].split()[1]


def _count_drops(gateway: Host) -> int:
    """Packets that the gateway's firewall has dropped on their way to metadata."""
    table = run_checked(gateway, "nft", "list", "table", "inet", "drawbridge")
    return sum(int(count) for count in re.findall(r"packets (\d+) bytes \d+ drop", table)) + sum(
        int(count) for count in re.findall(r"counter \w*metadata\w* \{\s*packets (\d+)", table)
    )
