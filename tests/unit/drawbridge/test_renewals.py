"""`client renew` and `client list --expires-in`. Does not prove what a deployment does: unit/components has that."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from drawbridge.commands.root import cli

from .conftest import STACK, Enrol

FILE = """\
config:
  aws:region: eu-west-1
  drawbridge:clients:
    - {name: alice} # Ours.
    - {name: bob}
    - {name: carol}
    - {name: home, lan: [192.168.1.0/24]}
"""


@pytest.fixture
def stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    path = tmp_path / f"Pulumi.{STACK}.yaml"
    path.write_text(FILE)
    return path


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--stack", STACK])
    assert result.exit_code == code, result.stdout
    return result.stdout if code == 0 else result.output


def read_renewals(path: Path) -> dict[str, str]:
    renewals = yaml.safe_load(path.read_text())["config"].get("drawbridge:rotations", {}).get("renewals", {})
    assert isinstance(renewals, dict)
    return renewals


def test_named_clients_are_renewed_and_the_rest_of_the_file_stays(stack_file: Path, enrol: Enrol) -> None:
    ends = {name: f"{enrol(name).leaf.not_after:%Y-%m-%d}" for name in ("alice", "bob", "home")}
    printed = run("client", "renew", "alice", "home").splitlines()
    moments = read_renewals(stack_file)
    assert moments.keys() == {"alice", "home"}
    assert abs((datetime.fromisoformat(moments["alice"]) - datetime.now(UTC)).total_seconds()) < 60
    assert "    - {name: alice} # Ours." in stack_file.read_text()
    assert printed[0] == f"{stack_file} has drawbridge:rotations, renewals, for 2 clients: {moments['alice']}"
    assert printed[2:4] == [
        f"1. pulumi up --stack {STACK}: no session ends, and no certificate is revoked",
        "2. each client needs its new bundle before its former certificate ends:",
    ]
    assert printed[5].split(maxsplit=2)[:2] == ["alice", ends["alice"]]
    assert printed[6].endswith(f"run on home what this prints: drawbridge client kit home --stack {STACK}")
    # A second order is later, and keeps that of the others.
    run("client", "renew", "alice")
    again = read_renewals(stack_file)
    assert again["alice"] > moments["alice"] and again["home"] == moments["home"]


def test_all_that_end_within_a_time_are_renewed(stack_file: Path, enrol: Enrol) -> None:
    for name, days in (("alice", 365), ("bob", 20), ("carol", 31)):
        enrol(name, days=days)
    assert [client["name"] for client in json.loads(run("client", "list", "--expires-in", "30d", "--json"))] == ["bob"]
    run("client", "renew", "--all", "--within", "5w", "--preview")
    assert stack_file.read_text() == FILE
    run("client", "renew", "--all", "--within", "5w")
    assert read_renewals(stack_file).keys() == {"bob", "carol"}
    assert run("client", "renew", "--all", "--within", "12h") == "no client's certificate ends within this time\n"
    assert run("client", "list", "--expires-in", "12h") == "no client's certificate ends within this time\n"
    run("client", "renew", "--all")
    assert read_renewals(stack_file).keys() == {"alice", "bob", "carol"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alcie", "has no client alcie"),
        ("dave", "has no client dave any more, and the next deployment revokes its certificate"),
        (
            "carol",
            "carol has no certificate yet, which could be renewed",
        ),
    ],
    ids=["not there", "removed", "pending"],
)
def test_a_name_without_a_certificate_to_renew_is_refused(
    stack_file: Path, enrol: Enrol, name: str, expected: str
) -> None:
    enrol("alice")
    enrol("dave")
    refused = CliRunner().invoke(cli, ["client", "renew", "alice", name, "--stack", STACK])
    assert refused.exit_code == 1 and expected in refused.output.replace("\n", " "), refused.output
    assert stack_file.read_text() == FILE


@pytest.mark.parametrize("arguments", [[], ["alice", "--all"], ["--all", "--within", "soon"]])
def test_mistaken_arguments_are_refused(stack_file: Path, arguments: list[str]) -> None:
    assert run("client", "renew", *arguments, code=2)
    assert stack_file.read_text() == FILE
