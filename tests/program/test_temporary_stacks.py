"""Stacks for a time: listed, audited and reaped without their files, also after a job that died half-way.

Runs the whole program in the lab's API, without machines.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from drawbridge.commands.root import cli
from drawbridge.operate import claims, reaper, stack_creation
from drawbridge.operate.account import Account
from drawbridge.operate.lab_account import connect_region
from engine.engine import Engine, Event
from lab.api.moto_patches import patched
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT
from tests.support.ipam import create_pool, list_allocations
from tests.support.lab_api import Api, serve_lab_api
from tools import policies

PAST, FUTURE = "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z"


def credentials(api: Api) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": api.endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": api.keys.lab_key,
        "AWS_SECRET_ACCESS_KEY": api.keys.lab_secret,
    }


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with patched(), serve_lab_api(Validator(Rules(throttle_writes=False))) as api:
        yield api


@pytest.fixture(autouse=True)
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in credentials(api).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def account(environment: None) -> Account:
    return connect_region(REGION)


def config(world: str, end: str | None) -> dict[str, Any]:
    """A world's configuration as `stack new` writes it."""
    tags = {"DrawbridgeOwner": "ann"} | ({"DrawbridgeEnd": end} if end else {})
    return read_stack_file(ROOT / "stacks" / f"Pulumi.{world}.yaml") | {"aws:defaultTags": {"tags": tags}}


@pytest.fixture(scope="module")
def deployed(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Stack `gone`, past its end."""
    state = tmp_path_factory.mktemp("state") / "state.json"
    engine = Engine(ROOT, project="drawbridge", stack="gone", config=config("tenant", PAST), state=state)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in credentials(api).items():
            environment.setenv(name, value)
        engine.up()
    return engine


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory without stack files."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["stack", *arguments])


def listing() -> dict[str, Any]:
    result = run("list", "--json")
    assert result.exit_code == 0, result.output
    return {entry["name"]: entry for entry in json.loads(result.stdout)}


@pytest.mark.usefixtures("deployed", "elsewhere")
def test_all_stacks_of_the_account_are_listed_without_their_files(account: Account) -> None:
    claims.claim_subject(account, "stack/later", "later", "bob", claims.parse_moment(FUTURE), lambda _: False)
    rows = listing()
    assert rows["later"] == {
        "name": "later", "owner": "bob", "end": "2126-01-01T00:00:00+00:00", "state": "claimed", "dollars": 0.0,
    }  # fmt: skip
    gone = rows["gone"]
    assert (gone["owner"], gone["end"], gone["state"]) == ("ann", "2026-01-01T00:00:00+00:00", "pending")
    # A t4g.nano, its address, 8 GiB, the secrets' key and a private zone.
    assert gone["dollars"] == pytest.approx(730 * (0.0042 + 0.005) + 8 * 0.08 + 1.00 + 0.50)
    text = run("list").stdout
    assert "2026-01-01 00:00Z (past)" in text and "8.86" in text


@pytest.mark.usefixtures("deployed", "elsewhere")
def test_an_audit_of_all_stacks_names_orphans(account: Account, api: Api) -> None:
    ec2 = api.client("ec2")
    tags = [{"Key": "Project", "Value": "drawbridge"}, {"Key": "Stack", "Value": "half"}]
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}])["Vpc"][
        "VpcId"
    ]
    foreign = ec2.create_vpc(CidrBlock="10.98.0.0/16")["Vpc"]["VpcId"]
    result = run("audit", "--all", "--json")
    audits = {entry["stack"]: entry for entry in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert {stack: entry["orphan"] for stack, entry in audits.items()} == {
        "gone": "past its end",
        "half": "without a gateway",
    }
    assert audits["half"]["resources"] == [{"kind": "VPC", "name": vpc}]
    assert foreign not in result.stdout
    alone = run("audit", "half")
    assert (alone.exit_code, vpc in alone.stdout) == (1, True)
    ec2.delete_vpc(VpcId=vpc)
    ec2.delete_vpc(VpcId=foreign)
    assert run("audit", "half").exit_code == 0


@pytest.fixture
def reaper_account(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work as a user with exactly the reaper's policy, and without waiting."""
    monkeypatch.setattr(reaper, "POLL", 0.0)
    monkeypatch.setattr(reaper, "TIMEOUT", 30.0)
    document = (policies.POLICIES / "reaper.json").read_text()
    user = f"reaper-{secrets.token_hex(4)}"
    for name, value in api.create_user(user, document).items():
        monkeypatch.setenv(name.upper(), value)


def create_vpc(api: Api, cidr: str, tags: dict[str, str]) -> str:
    """Create a VPC with a subnet and an internet gateway, all with these tags, as the first steps of a job do."""
    ec2 = api.client("ec2")

    def specify(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]

    vpc = str(ec2.create_vpc(CidrBlock=cidr, TagSpecifications=specify("vpc"))["Vpc"]["VpcId"])
    subnet = cidr.replace("/16", "/24").replace("/24", "/25")
    ec2.create_subnet(VpcId=vpc, CidrBlock=subnet, TagSpecifications=specify("subnet"))
    gateway = ec2.create_internet_gateway(TagSpecifications=specify("internet-gateway"))["InternetGateway"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
    return vpc


class KilledError(Exception):
    """Stands for the signal that ends a job."""


def kill_half_way(state: Path, stack: str) -> None:
    """Deploy a stack until its instance exists, and lose its state."""

    def end(event: Event) -> None:
        if event.kind == "end" and event.step and "aws:ec2/instance:Instance" in event.step.urn:
            raise KilledError

    engine = Engine(ROOT, project="drawbridge", stack=stack, config=config("site", PAST), state=state, events=end)
    with contextlib.suppress(Exception):
        engine.up()
    state.unlink(missing_ok=True)


@pytest.mark.usefixtures("deployed", "elsewhere")
def test_stacks_made_at_once_are_reaped_without_clash_and_leak(
    account: Account, api: Api, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One has all its resources, one was killed half-way, two have only their first, two have nothing yet."""
    quotas = api.client("service-quotas")
    quotas.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-F678F1CE", DesiredValue=50)
    quotas.request_service_quota_increase(ServiceCode="vpc", QuotaCode="L-A4707A72", DesiredValue=50)
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    before = {vpc["VpcId"] for vpc in api.client("ec2").describe_vpcs()["Vpcs"]}
    moment = claims.parse_moment(FUTURE)
    source = ROOT / "stacks" / "Pulumi.ros2.yaml"

    def create(number: int) -> stack_creation.NewStack:
        stack = stack_creation.StackRequest(
            name=f"job-{number}", source=source, owner="ci", end=moment, region=None, ssh_key=None, admin_from=()
        )
        return stack_creation.create_stack(account, stack)

    with ThreadPoolExecutor(5) as pool:
        created = list(pool.map(create, range(5)))
    assert len({entry.settings.network.cidr for entry in created}) == 5
    for entry in created[1:3]:
        tags = {"Project": "drawbridge", "Stack": entry.settings.stack, "DrawbridgeEnd": PAST}
        create_vpc(api, str(entry.settings.network.cidr), tags)
    kill_half_way(tmp_path / "lost.json", "job-0")
    kept = create_vpc(api, "10.15.0.0/24", {"Project": "drawbridge", "Stack": "kept"})
    foreign = create_vpc(api, "10.14.0.0/24", {"DrawbridgeEnd": PAST, "Stack": "job-1"})

    request.getfixturevalue("reaper_account")
    dry = run("reap", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert re.findall(r"^stack (\S+) of", dry.stdout, re.MULTILINE) == ["gone", "job-0", "job-1", "job-2"]
    assert foreign not in dry.stdout

    refused = run("reap", "kept")
    assert (refused.exit_code, "stack kept has no end" in refused.output) == (1, True)
    assert "there is no stack nobody" in run("reap", "nobody").output
    reaped = run("reap")
    assert reaped.exit_code == 0, reaped.output
    assert listing().keys() - {"later"} == {"kept", "job-3", "job-4"}
    assert (
        run("audit", "gone", "--region", REGION).exit_code == run("audit", "job-0", "--region", REGION).exit_code == 0
    )
    after = {vpc["VpcId"] for vpc in api.client("ec2").describe_vpcs()["Vpcs"]}
    assert after - before == {kept, foreign}
    left = claims.list_claims(account)
    assert {claim.stack for claim in left} - {"later"} == {"job-3", "job-4"}
    claims.release_claims(account, left)


@pytest.mark.usefixtures("elsewhere")
def test_the_reaper_releases_an_allocation_of_an_ipam_pool(
    account: Account, api: Api, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of a job that died with its state: only a VPC and the claims are there."""
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    ec2 = api.client("ec2")
    pool = create_pool(ec2, "172.20.0.0/14")
    source = ROOT / "stacks" / "Pulumi.ros2.yaml"
    stacks = {
        name: stack_creation.create_stack(
            account,
            stack_creation.StackRequest(
                name=name, source=source, owner="ci", end=claims.parse_moment(end), region=None, ssh_key=None,
                admin_from=(), pool=pool,
            ),
        ).settings.network.cidr
        for name, end in (("died", PAST), ("alive", FUTURE))
    }  # fmt: skip
    create_vpc(api, str(stacks["died"]), {"Project": "drawbridge", "Stack": "died", "DrawbridgeEnd": PAST})
    assert list_allocations(ec2, pool).keys() == {str(stacks["died"]), str(stacks["alive"])}
    request.getfixturevalue("reaper_account")
    result = run("reap", "died")
    assert result.exit_code == 0, result.output
    assert list_allocations(ec2, pool) == {str(stacks["alive"]): "drawbridge stack alive"}
    claims.release_claims(account, [claim for claim in claims.list_claims(account) if claim.stack == "alive"])


@pytest.mark.usefixtures("elsewhere")
def test_what_is_not_the_stack_s_stays_and_is_named(api: Api, request: pytest.FixtureRequest) -> None:
    vpc = create_vpc(api, "10.13.0.0/24", {"Project": "drawbridge", "Stack": "shared", "DrawbridgeEnd": PAST})
    subnet = api.client("ec2").create_subnet(VpcId=vpc, CidrBlock="10.13.0.128/25")["Subnet"]["SubnetId"]
    request.getfixturevalue("reaper_account")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reaper, "TIMEOUT", 0.0)
        result = run("reap", "shared")
    assert result.exit_code == 1
    assert re.search(rf"^VPC +{vpc} +DependencyViolation", result.stdout, re.MULTILINE), result.stdout
    api.client("ec2").delete_subnet(SubnetId=subnet)
    assert run("reap", "shared").exit_code == 0
    assert "shared" not in listing()


@pytest.mark.usefixtures("elsewhere")
def test_a_stack_of_which_one_resource_has_no_end_stays(api: Api) -> None:
    """Whoever takes the end out of the stack's file keeps the stack, also if its deployment ends half-way."""
    create_vpc(api, "10.12.0.0/24", {"Project": "drawbridge", "Stack": "mixed", "DrawbridgeEnd": PAST})
    create_vpc(api, "10.11.0.0/24", {"Project": "drawbridge", "Stack": "mixed"})
    assert listing()["mixed"]["end"] is None
    assert run("reap", "mixed").exit_code == 1
    assert "no stack is past its end" in run("reap", "--dry-run").stdout


@pytest.mark.usefixtures("elsewhere")
def test_a_user_of_a_stack_of_that_name_in_another_region_stays(api: Api, request: pytest.FixtureRequest) -> None:
    """IAM has the users of all regions, so each user's own end counts."""
    ours = {"Project": "drawbridge", "Stack": "twin"}
    create_vpc(api, "10.10.0.0/24", {**ours, "DrawbridgeEnd": PAST})
    iam = api.client("iam")
    for name, end in (("drawbridge-twin-past", PAST), ("drawbridge-twin-later", FUTURE)):
        tags = [{"Key": key, "Value": value} for key, value in {**ours, "DrawbridgeEnd": end}.items()]
        iam.create_user(UserName=name, Tags=tags)
    request.getfixturevalue("reaper_account")
    result = run("reap", "twin")
    assert result.exit_code == 0, result.output
    names = {user["UserName"] for user in iam.list_users()["Users"]}
    assert {name for name in names if name.startswith("drawbridge-twin-")} == {"drawbridge-twin-later"}
    iam.delete_user(UserName="drawbridge-twin-later")


PAGE = (ROOT / "docs" / "temporary.md").read_text()


def blocks(language: str, word: str) -> list[str]:
    """Return the code blocks of the page in a language that have a word."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [block for block in found if word in block]


@pytest.mark.allow_subprocess
@pytest.mark.usefixtures("elsewhere")
def test_the_schedule_s_build_reaps_as_the_role_that_the_page_creates(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins: this test for EventBridge's schedule and for CodeBuild's machine, the checkout for `tools/setup`."""
    if not shutil.which("aws"):
        pytest.skip("AWS's CLI is not on PATH")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (recipe,) = blocks("sh", "create-schedule")
    # Version 1 of the CLI does not read AWS_REGION.
    environment = {**os.environ, "AWS_PAGER": "", "AWS_DEFAULT_REGION": REGION}
    done = subprocess.run(["bash", "-euc", recipe], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    schedule = api.client("scheduler").get_schedule(Name="drawbridge-reaper")
    assert (schedule["ScheduleExpression"], schedule["State"]) == ("rate(1 hour)", "ENABLED")
    assert schedule["Target"]["Arn"].endswith(":aws-sdk:codebuild:startBuild")
    role = api.client("iam").get_role(RoleName="drawbridge-reaper")["Role"]
    assert schedule["Target"]["RoleArn"] == role["Arn"]
    principals = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
    assert set(principals) == {"codebuild.amazonaws.com", "scheduler.amazonaws.com"}

    build = api.client("codebuild").start_build(projectName=json.loads(schedule["Target"]["Input"])["ProjectName"])
    project = api.client("codebuild").batch_get_projects(names=[build["build"]["projectName"]])["projects"][0]
    assert project["serviceRole"].rpartition("/")[2] == role["RoleName"]
    assert project["source"]["buildspec"] == "reap.yml"
    (text,) = blocks("yaml", "phases:")
    phases = yaml.safe_load(text)["phases"]
    assert [phase["commands"] for phase in phases.values()] == [
        ["tools/setup python"],
        [".venv/bin/drawbridge stack reap"],
    ]

    create_vpc(api, "10.9.0.0/24", {"Project": "drawbridge", "Stack": "hourly", "DrawbridgeEnd": PAST})
    kept = create_vpc(api, "10.8.0.0/24", {"Project": "drawbridge", "Stack": "still", "DrawbridgeEnd": FUTURE})
    keys = api.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="build")["Credentials"]
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"):
        variable = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
        monkeypatch.setenv(f"AWS_{variable}", keys[name])
    monkeypatch.setattr(reaper, "POLL", 0.0)
    result = run("reap")
    assert result.exit_code == 0, result.output
    assert "nothing of stack hourly is left" in result.stdout
    for name, value in credentials(api).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    assert "hourly" not in listing() and kept in run("audit", "still").stdout
