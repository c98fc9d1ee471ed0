"""What the program makes of world `pair`. Whether a packet passes is shown by tests/lab/worlds/test_pair.py."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pulumi
import pytest

import contract
from drawbridge.doctor import path_checks, path_reader
from drawbridge.operate import connection_log
from drawbridge.operate.account import Account
from lab.api.moto_patches import add_quota_increases, patched
from openvpn.bundle import ca_of, certificate_of
from pki.authority import Certificate
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT, Deploy, Deployment, deploy_into_moto, empty_aws
from tests.program.test_doctor import account_of, report_ready
from tests.program.test_worlds import archive

A, B = contract.Names("duo"), contract.Names("duo", "b")
NETWORKD = "root/etc/systemd/network/30-drawbridge"
STACK = read_stack_file(ROOT / "stacks/Pulumi.pair.yaml")


@pytest.fixture(scope="module")
def pair() -> Iterator[Deployment]:
    with empty_aws():
        yield deploy_into_moto(STACK, "duo")


def outputs(pair: Deployment) -> tuple[dict[str, Any], dict[str, Any]]:
    return pair.outputs, pair.outputs[contract.StackOutput.PAIR]


def files(pair: Deployment) -> tuple[dict[str, str], dict[str, str]]:
    """Both gateways' releases; their keys are the same in any stack."""
    one, other = outputs(pair)
    return archive(pair, A.release_key(one["release"])), archive(pair, B.release_key(other["release"]))


def value(pair: Deployment, name: str) -> str:
    return str(pair.ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])


def macs(release: dict[str, str]) -> list[str]:
    paths = (f"{NETWORKD}-bond0.netdev", f"{NETWORKD}-ovn0.link", f"{NETWORKD}-ovn1.link")
    lines = [line for path in paths for line in release[path].splitlines()]
    return [line.partition("=")[2] for line in lines if line.startswith("MACAddress=")]


@pytest.mark.seed("1.3")
def test_either_serves_one_link_and_is_client_of_the_other(pair: Deployment) -> None:
    ends, releases = outputs(pair), files(pair)
    for here, (names, name, other) in enumerate(((A, "a", B), (B, "b", A))):
        there = 1 - here
        served = set(releases[here][f"root/etc/drawbridge/links/ovn{here}.conf"].splitlines())
        assert {
            f"dev ovn{here}",
            f"port {1194 + here}",
            "tls-server",
            f"verify-x509-name {'ba'[here]} name",
            "ca /etc/openvpn/server/secrets/ca.crt",
            "key /etc/openvpn/server/secrets/server.key",
            "crl-verify /etc/openvpn/server/revoked dir",
        } <= served
        # The other link is all in the bundle that the other gateway's authority has issued.
        called = value(pair, other.bundle(name))
        assert {
            f"dev ovn{there}",
            f"remote {ends[there]['publicIp']} {1194 + there}",
            "tls-client",
            f"verify-x509-name {('duo.drawbridge', 'b.duo.drawbridge')[there]} name",
        } <= set(called.splitlines())
        manifest = json.loads(releases[here]["manifest.json"])
        assert manifest["bundles"] == {f"ovn{there}.ovpn": other.bundle(name)}
        unit = f"root/etc/systemd/system/drawbridge-link@ovn{there}.service.d/20-bundle.conf"
        assert f"--config /etc/openvpn/server/secrets/ovn{there}.ovpn" in releases[here][unit]
        assert Certificate.read(certificate_of(called)).common_name == name
        assert (
            Certificate.read(value(pair, names.secret("server.crt"))).common_name
            == (("duo.drawbridge", "b.duo.drawbridge")[here])
        )
        # Its own authority's certificate, and the other's for the other link.
        assert value(pair, names.secret("ca.crt")).strip() != ca_of(called).strip()
        assert value(pair, other.secret("ca.crt")).strip() == ca_of(called).strip()
    assert value(pair, A.secret("server.key")) != value(pair, B.secret("server.key"))
    assert value(pair, A.secret("tls-crypt-v2.key")) != value(pair, B.secret("tls-crypt-v2.key"))


@pytest.mark.seed("1.2")
def test_hardware_addresses_are_pinned_and_differ(pair: Deployment, deploy: Deploy) -> None:
    one, other = map(macs, files(pair))
    assert len({*one, *other}) == 6
    again = deploy(STACK, "other")  # another stack of that file
    assert [macs(release) for release in files(again)] == [one, other]


def test_both_run_the_files_of_any_bonded_host(pair: Deployment) -> None:
    for here, (release, network) in enumerate(zip(files(pair), ("10.2.0.0/16", "10.1.0.0/16"), strict=True)):
        bond = release[f"{NETWORKD}-bond0.netdev"].splitlines()
        assert {"Mode=balance-xor", "TransmitHashPolicy=layer3+4", "MTUBytes=1500"} <= set(bond)
        address = release[f"{NETWORKD}-bond0.network"].splitlines()
        assert {f"Address=10.0.0.{1 + here}/24", f"Destination={network}", f"Gateway=10.0.0.{2 - here}"} <= set(address)
        for name in ("drawbridge-link@", "drawbridge-watch@"):
            assert f"root/etc/systemd/system/{name}.service" in release
        manifest = json.loads(release["manifest.json"])
        assert (manifest["unit"], manifest["instances"]) == ("drawbridge-link", ["ovn0", "ovn1"])
        watchers = ["drawbridge-watch@ovn0.service", "drawbridge-watch@ovn1.service"]
        assert manifest["beside"] == [*watchers, "drawbridge-patches.timer"]
        # Never both at once.
        assert release["maintenance-window"] == ("sun:03:00-sun:03:30\n", "sun:03:30-sun:04:00\n")[here]
        assert not any("PRIVATE KEY" in text or "-----BEGIN" in text for text in release.values())
        assert not any("openvpn/server/server.conf" in path for path in release)


def test_each_port_is_open_to_the_other_address_alone(pair: Deployment) -> None:
    ends, releases = outputs(pair), files(pair)
    for here, port in enumerate((1194, 1195)):
        group = [{"Name": "group-id", "Values": [ends[here]["securityGroupId"]]}]
        rules = pair.ec2.describe_security_group_rules(Filters=group)["SecurityGroupRules"]
        found = {(r["IpProtocol"], r["FromPort"], r["ToPort"], r["CidrIpv4"]) for r in rules if not r["IsEgress"]}
        far = ends[1 - here]["publicIp"]
        assert found == {
            ("udp", port, port, f"{far}/32"),
            ("icmp", 8, -1, f"{far}/32"),
            # Routers' word that a packet is too large.
            ("icmp", 3, 4, "0.0.0.0/0"),
            ("-1", -1, -1, f"10.{1 + here}.0.0/16"),
            *(("tcp", 22, 22, one) for one in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")),
        }
        rules = releases[here]["root/etc/drawbridge/nftables.conf"]
        assert f'udp dport {port} iifname != "bond0" ip saddr @allowed accept' in rules
        assert f"elements = {{ {far}/32 }}" in rules.partition("set allowed")[2].partition("set vpc")[0]


def test_each_vpc_leads_to_the_other_over_the_gateways_interface(pair: Deployment) -> None:
    for here, end in enumerate(outputs(pair)):
        tables = pair.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [end["vpcId"]]}])["RouteTables"]
        ways = [
            route["DestinationCidrBlock"]
            for table in tables
            for route in table["Routes"]
            if route.get("NetworkInterfaceId") == end["gatewayInterfaceId"]
        ]
        assert ways == [f"10.{2 - here}.0.0/16"] * 2
        (nic,) = pair.ec2.describe_network_interfaces(NetworkInterfaceIds=[end["gatewayInterfaceId"]])[
            "NetworkInterfaces"
        ]
        assert nic["SourceDestCheck"] is False


@pytest.mark.seed("9.7")
def test_neither_role_reads_what_is_the_others_but_for_its_own_bundle(pair: Deployment) -> None:
    base = "arn:aws:ssm:eu-west-1:123456789012:parameter"
    aliases = {alias["AliasName"]: alias.get("TargetKeyId") for alias in pair.kms.list_aliases()["Aliases"]}
    key = f"arn:aws:kms:eu-west-1:123456789012:key/{aliases['alias/drawbridge-duo']}"
    for names, role, bundle in (
        (A, "gateway", B.bundle("a")),
        (B, "gateway-b", A.bundle("b")),
    ):
        found = pair.iam.get_role_policy(RoleName=f"drawbridge-duo-{role}-eu-west-1", PolicyName="gateway")
        document = found["PolicyDocument"]
        policy = document if isinstance(document, dict) else json.loads(document)
        resources = {s["Sid"]: s["Resource"] for s in policy["Statement"]}
        contexts = {
            s["Sid"]: s["Condition"]["StringLike"]["kms:EncryptionContext:PARAMETER_ARN"]
            for s in policy["Statement"]
            if s["Action"] == ["kms:Decrypt"]
        }
        assert contexts == {"SecretsKey": f"{base}{names.secrets}/*", "BundleKey": f"{base}{bundle}"}
        assert resources == {
            "Pointer": [f"{base}{names.release}"],
            "Report": [f"{base}{names.report}"],
            "Releases": [f"arn:aws:s3:::{pair.outputs['bucket']}/{names.releases}/*"],
            "Secrets": [f"{base}{names.secrets}/*"],
            "SecretsPath": [f"{base}{names.secrets}"],
            "SecretsKey": [key],
            "Bundle": [f"{base}{bundle}"],
            "BundleKey": [key],
            "Metrics": ["*"],
            "ConnectionLog": [f"arn:aws:logs:{REGION}:123456789012:log-group:{names.connections}:*"],
        }


def test_each_gateway_has_a_connection_log_and_a_history_has_both(pair: Deployment) -> None:
    listed = pair.logs.describe_log_groups(logGroupNamePrefix=A.root)["logGroups"]
    groups = {group["logGroupName"]: group for group in listed}
    assert {name: group["retentionInDays"] for name, group in groups.items()} == {A.connections: 90, B.connections: 90}
    for minute, names in enumerate((B, A)):
        arn = groups[names.connections]["arn"].removesuffix(":*")
        assert pair.logs.list_tags_for_resource(resourceArn=arn)["tags"] == names.tags("connections")
        write_event(pair, names, datetime.now(UTC) - timedelta(minutes=2 - minute))
    account = Account(stack="duo", session=boto3.Session("testing", "testing", region_name=REGION))
    events = connection_log.read_history(account, "alice", timedelta(hours=1))
    assert [event.gateway for event in events] == ["duo/b", "duo"]


def write_event(pair: Deployment, names: contract.Names, moment: datetime) -> None:
    """Write an event of client alice to a gateway's log as the gateway does."""
    gateway = f"{names.stack}{'' if names.gateway == 'a' else f'/{names.gateway}'}"
    event = {
        "id": gateway, "time": moment.isoformat(), "event": "connected", "gateway": gateway, "process": "ovn0",
        "client": "alice", "address": "203.0.113.7", "port": 40001,
    }  # fmt: skip
    stream = {"logGroupName": names.connections, "logStreamName": "i-1"}
    pair.logs.create_log_stream(**stream)
    pair.logs.put_log_events(
        **stream, logEvents=[{"timestamp": int(moment.timestamp() * 1000), "message": json.dumps(event)}]
    )


def judge(stack: str, gateway: str, client: str | None) -> tuple[path_checks.HopResult, ...]:
    """Return what the doctor says of the path to one gateway of a pair."""
    account = replace(account_of(stack), gateway=gateway)
    return path_checks.judge_path(
        path_reader.read_snapshot(account, path_reader.PathQuery(client=client, probes=False))
    )


@pytest.mark.parametrize(("gateway", "client"), [("a", None), ("b", None), ("a", "a"), ("a", "b")])
def test_the_doctor_finds_nothing_broken_between_the_gateways(
    pair: Deployment, gateway: str, client: str | None
) -> None:
    for names in (A, B):
        report_ready(pair, names)
    results = judge("duo", gateway, client)
    assert {result.state for result in results} <= {"ok", "skipped"}, results


def test_gateways_alone_where_the_vpcs_stay_apart(deploy: Deploy) -> None:
    tunnel = {**STACK["drawbridge:tunnel"], "vpc": False}
    with patched(add_quota_increases):  # the other stack of this module counts
        quotas = boto3.client("service-quotas", region_name=REGION)
        for service, code in (("vpc", "L-F678F1CE"), ("ec2", "L-0263D0A3")):
            quotas.request_service_quota_increase(ServiceCode=service, QuotaCode=code, DesiredValue=20)
        stack = deploy({**STACK, "drawbridge:tunnel": tunnel}, "apart")
    for release, end in zip(files(stack), outputs(stack), strict=True):
        assert "[Route]" not in release[f"{NETWORKD}-bond0.network"]
        (nic,) = stack.ec2.describe_network_interfaces(NetworkInterfaceIds=[end["gatewayInterfaceId"]])[
            "NetworkInterfaces"
        ]
        assert nic["SourceDestCheck"] is True
    assert not [name for kind, name, *_ in stack.resources if name.startswith("routes")]
    for names in (contract.Names("apart"), contract.Names("apart", "b")):
        report_ready(stack, names)
        results = judge("apart", names.gateway, None)
        assert {result.state for result in results} <= {"ok", "skipped"}, results
        assert "the pair does not route between its VPCs" in [result.finding for result in results]


@pytest.mark.seed("1.5")
def test_balance_alb_is_refused_with_the_reason_before_anything_is_made(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        deploy({**STACK, "drawbridge:tunnel": {"bond": "balance-alb"}}, "refused")
    assert str(refused.value) == (
        "drawbridge:tunnel.bond: balance-alb loses frames between two hosts: each sends to the hardware address of one "
        "link, the other drops them; use balance-xor, active-backup or balance-rr"
    )
