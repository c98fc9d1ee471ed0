"""`drawbridge stack up` and `destroy`, with a stand-in for Pulumi's CLI that writes its arguments down.

Does not prove that the real CLI takes them: no test runs these commands with it.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from drawbridge.commands.root import cli
from drawbridge.operate import claims
from drawbridge.operate.account import Account
from tests.unit.drawbridge.conftest import REGION

pytestmark = pytest.mark.allow_subprocess

#: Answers as the CLI does as far as the Automation API reads it.
STAND_IN = """#!{python} -I
import pathlib, sys
directory = pathlib.Path(__file__).parent
arguments = [argument for argument in sys.argv[1:] if argument != "--non-interactive"]
with (directory / "calls").open("a") as file:
    print(*arguments, file=file)
known = directory / "known"
if arguments[0] == "version":
    print("v3.250.0")
elif arguments[:2] == ["stack", "init"]:
    if known.exists():
        sys.exit("error: stack 'dev' already exists")
    known.touch()
elif arguments[:2] == ["stack", "select"] and not known.exists():
    sys.exit("error: no stack named 'dev' found")
elif arguments[:2] == ["stack", "rm"]:
    known.unlink()
elif arguments[:2] == ["stack", "output"]:
    print("{{}}")
elif arguments[:2] == ["stack", "history"]:
    print('[{{"kind": "update", "startTime": "2026-01-01T00:00:00.000Z", "message": "", "environment": {{}},'
          ' "config": {{}}, "result": "succeeded"}}]')
elif arguments[0] in ("up", "destroy"):
    if (directory / "fails").exists():
        sys.exit("error: the region is full")
    print("Resources: all of them")
"""


@dataclass
class StandIn:
    """A stand-in for the CLI, in its own directory."""

    directory: Path

    @property
    def calls(self) -> list[str]:
        lines = (self.directory / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[0] in ("up", "destroy") or line.startswith("stack rm")]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    directory = tmp_path / "bin"
    directory.mkdir()
    executable = directory / "pulumi"
    executable.write_text(STAND_IN.format(python=sys.executable))
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return StandIn(directory)


@pytest.fixture
def stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(f"config: {{aws:region: {REGION}, clients: [{{name: alice}}]}}")
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["stack", *arguments])


def test_up_deploys_the_file_without_questions(stand_in: StandIn, stack_file: Path) -> None:
    result = run("up", "dev")
    assert result.exit_code == 0, result.output
    assert "Resources: all of them" in result.stdout
    (call,) = stand_in.calls
    assert call.startswith("up --yes --skip-preview")
    assert f"--config-file {stack_file} " in call and call.endswith("--stack dev")
    assert run("up", str(stack_file)).exit_code == 0


def test_destroy_keeps_the_file_and_releases_the_claims(stand_in: StandIn, stack_file: Path, account: Account) -> None:
    assert claims.claim_subject(account, "stack/dev", "dev", "ann", None, lambda _: False)
    assert claims.claim_subject(account, "range/20", "dev", "ann", None, lambda _: False)
    assert claims.claim_subject(account, "range/21", "other", "bob", None, lambda _: False)
    assert run("up", "dev").exit_code == 0
    result = run("destroy", "dev")
    assert result.exit_code == 0, result.output
    assert stand_in.calls[1:] == [stand_in.calls[1], "stack rm --yes --preserve-config dev"]
    assert stand_in.calls[1].startswith("destroy --")
    assert stack_file.exists()
    assert [claim.stack for claim in claims.list_claims(account)] == ["other"]
    # A stack that was claimed and never deployed.
    assert run("destroy", "dev").exit_code == 0


def test_what_is_left_after_destroy_is_named(stand_in: StandIn, stack_file: Path, account: Account) -> None:
    account.client("ssm").put_parameter(Name="/drawbridge/dev/report", Value="x", Type="String")
    unknown = run("destroy", "dev")
    assert unknown.exit_code == 1
    assert "Pulumi's backend has no stack dev, but the account has 1 resources of it" in unknown.output
    run("up", "dev")
    result = run("destroy", "dev")
    assert (result.exit_code, "/drawbridge/dev/report" in result.output) == (1, True)


def test_the_cli_s_own_error_is_the_message(stand_in: StandIn, stack_file: Path) -> None:
    (stand_in.directory / "fails").touch()
    result = run("up", "dev")
    assert result.exit_code == 1
    assert "Pulumi did not run to its end for stack dev: the region is full\n  -> " in result.output


@pytest.mark.parametrize("verb", ["up", "destroy"])
def test_without_the_cli_one_error_says_how_to_get_it(
    verb: str, stack_file: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(verb, "dev")
    assert result.exit_code == 1
    assert "the Pulumi CLI is not on PATH\n  -> install it" in result.output


def test_a_stack_past_its_end_is_not_deployed(stand_in: StandIn, stack_file: Path) -> None:
    tags = "{tags: {DrawbridgeEnd: 2026-01-01T00:00:00Z}}"
    stack_file.write_text(f"config: {{aws:region: {REGION}, aws:defaultTags: {tags}, clients: [{{name: alice}}]}}")
    result = run("up", "dev")
    assert result.exit_code == 1
    assert "stack dev is past its end, 2026-01-01T00:00:00Z" in result.output
    assert datetime.now(UTC).year > 2025
    stack_file.write_text(stack_file.read_text().replace("2026-01-01T00:00:00Z", "never"))
    assert "aws:defaultTags.DrawbridgeEnd: never is not a valid time" in run("up", "dev").output


def test_stack_lab_is_not_for_the_cli(stand_in: StandIn) -> None:
    result = run("up", "lab")
    assert "deploy it: drawbridge lab up" in result.output
