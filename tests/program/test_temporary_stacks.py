"""Stacks for a time, listed and audited without their files.

Runs the whole program in the lab's API, without machines.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from drawbridge.commands.root import cli
from drawbridge.operate import claims
from drawbridge.operate.account import Account
from drawbridge.operate.lab_account import connect_region
from engine.engine import Engine
from lab.api.moto_patches import patched
from lab.api.rules import Rules
from lab.api.validation.validator import Validator
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT
from tests.support.lab_api import Api, serve_lab_api

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
    assert "without a gateway" in run("audit", "--all").stdout
    alone = run("audit", "half")
    assert (alone.exit_code, vpc in alone.stdout) == (1, True)
    ec2.delete_vpc(VpcId=vpc)
    ec2.delete_vpc(VpcId=foreign)
    assert run("audit", "half").exit_code == 0
