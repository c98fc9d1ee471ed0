"""The lab's verbs as the person at the terminal sees them, with the lab itself stood in for: tests/lab runs it."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from drawbridge.commands import lab, lab_trial
from drawbridge.commands.root import cli
from drawbridge.trial.checks import Check
from lab import errors as lab_errors
from lab.linux import require_privileges
from settings.problems import Problem, SettingsError

GOOD = [Check(True, "alice -> gateway 10.8.0.1", "0.7 ms"), Check(True, "alice -> private host 10.1.1.10", "0.9 ms")]
BAD = [*GOOD, Check(False, "alice -> metadata of the gateway", "it answered")]


@pytest.fixture(autouse=True)
def as_root_with_tun(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lab, lab_trial):
        monkeypatch.setattr(module, "require_privileges", lambda: None)


def project(directory: Path) -> Path:
    """Make a directory a Pulumi project with one stack; return the stack's file."""
    (directory / "Pulumi.yaml").write_text("name: mine\nstackConfigDir: environments\n")
    (directory / "environments").mkdir()
    path = directory / "environments" / "Pulumi.team.yaml"
    path.write_text("config: {}\n")
    return path


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["lab", *arguments], input=stdin)


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a trial finds; its parts are set by the tests."""

    def up(stack: str, progress: Callable[[str], None]) -> list[Check]:
        assert stack == "lab"
        progress("building the image")
        return GOOD

    module = SimpleNamespace(deploy_and_check=up, try_stack=lambda path, progress: GOOD)
    monkeypatch.setattr(lab_trial, "run", module)
    return module


def raising(error: BaseException) -> Callable[..., list[Check]]:
    def fail(*_: object) -> list[Check]:
        raise error

    return fail


@pytest.mark.usefixtures("trial")
def test_up_shows_progress_and_who_reaches_whom() -> None:
    result = run("up")
    assert result.exit_code == 0
    assert "0.0 s  building the image" in result.stderr
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["ok", "alice", "->", "gateway", "10.8.0.1", "0.7", "ms"],
        ["ok", "alice", "->", "private", "host", "10.1.1.10", "0.9", "ms"],
    ]


def test_up_exits_1_when_one_check_fails(trial: SimpleNamespace) -> None:
    trial.deploy_and_check = lambda stack, progress: BAD
    result = run("up")
    assert result.exit_code == 1
    assert "FAIL  alice -> metadata of the gateway" in result.stdout


def test_up_that_checked_nothing_is_no_success(trial: SimpleNamespace) -> None:
    trial.deploy_and_check = lambda stack, progress: []
    assert run("up").exit_code == 1


@pytest.mark.usefixtures("trial")
def test_up_json_is_json_alone() -> None:
    assert json.loads(run("up", "--json").stdout) == [
        {"ok": True, "promise": check.promise, "figure": check.figure} for check in GOOD
    ]


@pytest.mark.parametrize("verb", [("up",), ("try", "team"), ("exec", "alice", "--", "true"), ("down",)])
def test_without_root_or_tun_it_says_what_works_without(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (lab, lab_trial):
        monkeypatch.setattr(module, "require_privileges", require_privileges)
    project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run(*verb)
    assert result.exit_code == 1
    assert "root" in result.stderr
    assert "make test-unit" in result.stderr
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != "/dev/net/tun" and exists(path))
    result = run(*verb)
    assert result.exit_code == 1
    assert "/dev/net/tun" in result.stderr
    assert "make test-unit" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "drawbridge lab down"),
        (lab_errors.AlreadyUp("another one is being brought up"), 1, "another one is being brought up"),
        (lab_errors.ImageError("the image was cut off"), 1, "the image was cut off"),
        (
            SettingsError([Problem("drawbridge:tunnel.pool", "x", "is no range", "write 10.8.0.0/24")]),
            1,
            "drawbridge:tunnel.pool",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["up", "try"])
def test_what_goes_wrong_is_one_message(
    trial: SimpleNamespace, tmp_path: Path, error: BaseException, code: int, told: str, verb: str
) -> None:
    trial.deploy_and_check = trial.try_stack = raising(error)
    stack = tmp_path / "stack.yaml"
    stack.touch()
    result = run(verb, *([str(stack)] if verb == "try" else []))
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_try_takes_a_name_or_a_path(trial: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def try_stack(path: Path, progress: Callable[[str], None]) -> list[Check]:
        asked.append(path)
        return GOOD

    trial.try_stack = try_stack
    named, other = project(tmp_path), tmp_path / "other.yaml"
    other.touch()
    monkeypatch.chdir(tmp_path)
    assert run("try", "team").exit_code == 0
    assert run("try", str(other)).exit_code == 0
    assert asked == [named, other]
    unknown = run("try", "nosuch")
    assert unknown.exit_code == 2
    assert "stacks that have a file: bonded, bridge" in unknown.stderr and "team" in unknown.stderr


def test_try_writes_its_checks_also_when_they_fail(trial: SimpleNamespace, tmp_path: Path) -> None:
    trial.try_stack = lambda path, progress: BAD
    stack, target = tmp_path / "stack.yaml", tmp_path / "checks.json"
    stack.touch()
    result = run("try", str(stack), "--json", str(target))
    assert result.exit_code == 1
    assert [check["ok"] for check in json.loads(target.read_text())] == [True, True, False]


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The lab's region with one machine, `alice`."""

    def host(name: str) -> SimpleNamespace:
        if name != "alice":
            raise lab_errors.LabError(f"no machine {name} runs in the lab; there is alice")

        def run(argv: Sequence[str], *, timeout: float, stdin: str | None) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(argv, 7, f"{argv} {timeout} {stdin}", "complaint")

        return SimpleNamespace(run=run)

    status = {
        "instances": [
            {
                "name": "gateway",
                "type": "t4g.nano",
                "state": "running",
                "address": "10.1.0.10",
                "public": "198.51.100.9",
            },
            {"name": "private", "type": "t4g.nano", "state": "stopped", "address": None, "public": None},
        ],
        "hosts": [{"name": "alice", "site": "cafe", "address": "192.168.1.5"}],
        "sites": [{"name": "cafe", "public": "203.0.113.7"}],
    }
    running = SimpleNamespace(endpoint="http://127.0.0.1:4999", host=host, status=lambda: status)
    module = SimpleNamespace(connect=lambda: running, down=lambda: True)
    monkeypatch.setattr(lab, "labs", module)
    return module


@pytest.mark.usefixtures("region")
def test_exec_gives_back_what_the_command_said_and_its_exit_code() -> None:
    result = run("exec", "alice", "--timeout", "5", "--", "ping", "-c1", "10.8.0.1", stdin="piped")
    assert (result.exit_code, result.stdout, result.stderr) == (
        7,
        "('ping', '-c1', '10.8.0.1') 5.0 piped",
        "complaint",
    )


@pytest.mark.usefixtures("region")
def test_exec_in_a_machine_that_is_not_there() -> None:
    result = run("exec", "bob", "--", "true")
    assert result.exit_code == 1
    assert "there is alice" in result.stderr


def test_status_and_exec_and_down_where_no_lab_runs(region: SimpleNamespace) -> None:
    region.connect = lambda: None
    assert "no lab runs" in run("status").stdout
    assert json.loads(run("status", "--json").stdout) == {}
    result = run("exec", "alice", "--", "true")
    assert (result.exit_code, "make lab" in result.stderr) == (1, True)
    region.down = lambda: False
    assert run("down").stdout == "there was no lab to remove\n"


@pytest.mark.usefixtures("region")
def test_status_shows_the_region() -> None:
    lines = [line.split() for line in run("status").stdout.splitlines()]
    assert lines == [
        ["AWS", "API:", "http://127.0.0.1:4999"],
        [],
        ["machine", "is", "address", "public"],
        ["gateway", "t4g.nano,", "running", "10.1.0.10", "198.51.100.9"],
        ["private", "t4g.nano,", "stopped"],
        ["alice", "host", "at", "cafe", "192.168.1.5", "203.0.113.7"],
    ]
    assert [i["name"] for i in json.loads(run("status", "--json").stdout)["instances"]] == ["gateway", "private"]


@pytest.mark.usefixtures("region")
def test_down_says_that_nothing_is_left() -> None:
    assert run("down").stdout == "the lab is removed\n"
