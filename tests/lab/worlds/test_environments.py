"""Environments that come and go: up from nothing, a job through the tunnel, down, and again; two at a time.

Does not prove that AWS itself forgets what it is told to delete.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from drawbridge.operate import leftovers
from drawbridge.operate.stack_files import find_stack_file
from drawbridge.operate.stack_records import list_records
from drawbridge.trial.deployment import Deployment, create_engine, deploy
from drawbridge.trial.hosts import PRIVATE_HOST, run_checked, start_client, start_private_host
from drawbridge.trial.measure import ask_echo, ping, start_echo
from drawbridge.trial.removal import destroy_stack
from drawbridge.trial.routed import wait_report
from lab.region import Host, Region, disposable_region
from settings.stack_file import read_stack_file
from tests.support.cloud import raise_quotas

TUNNEL = 60.0


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with disposable_region() as running:
        raise_quotas(running)
        yield running


def config(public: str) -> dict[str, Any]:
    """World `tenant` for one CI job."""
    return {**read_stack_file(find_stack_file("tenant")), "drawbridge:clients": [{"name": "job", "at": public}]}


def up(region: Region, stack: str, raw: dict[str, Any]) -> Deployment:
    made = deploy(region, stack, raw, lambda _: None)
    assert made.changes["create"] and not made.changes["same"], "it came up from nothing"
    return made


def job(made: Deployment) -> str:
    """A test job through the VPN: it asks a service of the environment's own; the source that saw."""
    assert wait_report(made, made.outputs["release"])["state"] == "ready"
    start_private_host(made)
    tenant = made.host(PRIVATE_HOST)
    tenant.wait_booted(120)
    start_echo(tenant)
    client = start_client(made, 0, made.settings.clients[0].name)
    assert ping(client, tenant.address, TUNNEL) is not None
    answer = ask_echo(client, tenant.address)
    assert answer is not None
    return answer.source


def down(made: Deployment) -> None:
    """As `drawbridge lab destroy` does: the stack, and what the job itself had started."""
    assert destroy_stack(made.region, made.settings.stack, lambda _: None) == []


def resolves(host: Host, name: str) -> str | None:
    """The address that a machine's own resolver library finds for a name."""
    found = host.run(["getent", "ahostsv4", name]).stdout.split()
    return found[0] if found else None


@contextmanager
def as_pushed(client: Host) -> Iterator[None]:
    """A client whose system takes the resolver and the domain it is pushed, as NetworkManager and phones do."""
    journal = run_checked(client, "journalctl", "--no-pager", "-u", "openvpn-client@*", "--grep", "PUSH: Received")
    pushed = dict(re.findall(r"dhcp-option (DNS|DOMAIN) ([^,']+)", journal))
    before = run_checked(client, "cat", "/etc/resolv.conf")
    text = f"nameserver {pushed['DNS']}\nsearch {pushed['DOMAIN']}\n"
    run_checked(client, "tee", "/etc/resolv.conf", stdin=text)
    try:
        yield
    finally:
        run_checked(client, "tee", "/etc/resolv.conf", stdin=before)


@pytest.mark.seed("3.11")
@pytest.mark.seed("3.12")
@pytest.mark.seed("3.14")
def test_two_at_a_time_then_nothing_then_again(region: Region) -> None:
    raws = {"ci-1": config("203.0.113.21"), "ci-2": config("203.0.113.22")}
    made = {name: up(region, name, raw) for name, raw in raws.items()}
    # Both are there, in networks of the same ranges, and neither knows of the other.
    assert {name: job(one) for name, one in made.items()} == {n: one.outputs["privateIp"] for n, one in made.items()}
    for name, other in (("ci-1", "ci-2"), ("ci-2", "ci-1")):
        client, tenant = made[name].host("job"), made[name].host(PRIVATE_HOST)
        assert resolves(client, f"gateway.{name}.tenant.internal") is None, "the Internet knows no such name"
        with as_pushed(client):
            for host in (client, tenant):
                assert resolves(host, f"gateway.{name}.tenant.internal") == made[name].outputs["privateIp"]
                assert resolves(host, f"gateway.{other}.tenant.internal") is None
            assert resolves(client, "gateway") == made[name].outputs["privateIp"]
    bundles = {name: set(leftovers.find_leftovers(one.account)) for name, one in made.items()}
    assert bundles["ci-1"] and bundles["ci-2"] and not bundles["ci-1"] & bundles["ci-2"]

    machines = {host["name"] for host in region.status()["hosts"]}
    assert machines == {"job", "job-ci-2"}, "the names of machines do not clash"
    down(made["ci-1"])
    status = region.status()
    assert [host["name"] for host in status["hosts"]] == ["job-ci-2"]
    assert [site["name"] for site in status["sites"]] == ["home-job-ci-2"]
    assert [record.stack for record in list_records(region)] == ["ci-2"]
    assert leftovers.find_leftovers(made["ci-1"].account) == []
    assert set(leftovers.find_leftovers(made["ci-2"].account)) == bundles["ci-2"], "the other is untouched"
    assert ping(made["ci-2"].host("job"), made["ci-2"].outputs["privateIp"], TUNNEL) is not None

    # A second run is as clean as the first.
    again = up(region, "ci-1", raws["ci-1"])
    kinds = {thing.kind for thing in leftovers.find_leftovers(again.account)}
    assert kinds == {thing.kind for thing in bundles["ci-1"]}
    assert {"interface", "address", "parameter", "bucket", "role", "user", "instance", "VPC", "hosted zone"} <= kinds
    down(again)
    down(made["ci-2"])
    assert region.status()["hosts"] == [] and list_records(region) == []
    assert [thing for one in made.values() for thing in leftovers.find_leftovers(one.account)] == []


@pytest.mark.seed("3.14")
def test_the_audit_finds_what_was_left(region: Region) -> None:
    """The control: each kind of thing that could be left, left."""
    raw = config("203.0.113.23")
    made = up(region, "ci-3", raw)
    with made.environment():
        create_engine(region, "ci-3", raw).destroy()
    tags = [{"Key": "Project", "Value": "drawbridge"}, {"Key": "Stack", "Value": "ci-3"}]
    address = made.client("ec2").allocate_address(TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}])
    made.client("ssm").put_parameter(Name="/drawbridge/ci-3/x", Value="x", Type="String")
    zone = made.client("route53").create_hosted_zone(Name="ci-3.tenant.internal", CallerReference="ci-3")["HostedZone"]
    id = zone["Id"].rpartition("/")[2]
    made.client("route53").change_tags_for_resource(ResourceType="hostedzone", ResourceId=id, AddTags=tags)
    made.client("logs").create_log_group(logGroupName="/drawbridge/ci-3/openvpn")
    made.client("iam").create_user(UserName="drawbridge-ci-3-x", Tags=tags)
    where = {"CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}}
    made.client("s3").create_bucket(Bucket="drawbridge-ci-3-123456789012-eu-west-1", **where)

    assert {(thing.kind, thing.name) for thing in leftovers.find_leftovers(made.account)} == {
        ("address", address["AllocationId"]),
        ("user", "drawbridge-ci-3-x"),
        ("log group", "/drawbridge/ci-3/openvpn"),
        ("bucket", "drawbridge-ci-3-123456789012-eu-west-1"),
        ("parameter", "/drawbridge/ci-3/x"),
        ("hosted zone", f"ci-3.tenant.internal ({id})"),
    }
