"""The lab's verbs as the person at the terminal sees them, with the lab itself stood in for: tests/lab runs it."""

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.parsers import ResponseParserError
from click.testing import CliRunner, Result

from drawbridge import errors
from drawbridge.commands import lab, lab_trial, output
from drawbridge.commands.root import cli
from drawbridge.operate.leftovers import Leftover
from drawbridge.operate.stack_records import StackRecord, save_record
from drawbridge.trial.checks import Check
from drawbridge.trial.next_steps import suggest_command
from lab import errors as lab_errors
from lab.linux import require_privileges
from settings.problems import Problem, SettingsError

GOOD = [Check(True, "alice -> gateway 10.8.0.1", "0.7 ms"), Check(True, "alice -> private host 10.1.1.10", "0.9 ms")]
LOOK = "drawbridge lab exec alice -- journalctl"
BAD = [*GOOD, Check(False, "alice -> metadata of the gateway", "it answered", LOOK)]


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
    """What a trial finds; its parts are set by the tests. It notes which files were read, and how regions were used."""
    module = SimpleNamespace(read=[], regions=[], checks=GOOD)

    def read_stacks(paths: Sequence[Path]) -> list[SimpleNamespace]:
        module.read += paths
        return [SimpleNamespace(path=path, stack=path.stem.removeprefix("Pulumi.")) for path in paths]

    def deploy_and_check(region: str, file: SimpleNamespace, progress: Callable[[str], None], **_: int) -> list[Check]:
        progress(f"deploying {file.stack} into {region}")
        if isinstance(module.checks, BaseException):
            raise module.checks
        return list(module.checks)

    @contextmanager
    def disposable_region(progress: Callable[[str], None], *, keep: bool) -> Iterator[SimpleNamespace]:
        module.regions.append(keep)
        yield SimpleNamespace(name="try1a2b3c")

    module.read_stacks, module.deploy_and_check = read_stacks, deploy_and_check
    monkeypatch.setattr(lab_trial, "run", module)
    module.labs = SimpleNamespace(
        DEFAULT="lab",
        connect=lambda name: f"lab {name}",
        disposable_region=disposable_region,
        is_going=lambda region: False,
    )
    monkeypatch.setattr(lab_trial, "labs", module.labs)
    return module


@pytest.mark.usefixtures("trial")
def test_up_shows_progress_and_who_reaches_whom() -> None:
    result = run("up")
    assert result.exit_code == 0
    assert "0.0 s  deploying lab into lab lab" in result.stderr
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["ok", "alice", "->", "gateway", "10.8.0.1", "0.7", "ms"],
        ["ok", "alice", "->", "private", "host", "10.1.1.10", "0.9", "ms"],
    ]


def test_up_exits_1_when_one_check_fails(trial: SimpleNamespace) -> None:
    trial.checks = BAD
    result = run("up")
    assert result.exit_code == 1
    assert "FAIL  alice -> metadata of the gateway" in result.stdout
    assert f"alice -> metadata of the gateway failed; look: {LOOK}" in result.stdout.splitlines()


def test_up_that_checked_nothing_is_no_success(trial: SimpleNamespace) -> None:
    trial.checks = []
    assert run("up").exit_code == 1


@pytest.mark.parametrize("is_going", [True, False])
def test_up_says_that_the_lab_was_taken_down_meanwhile(trial: SimpleNamespace, is_going: bool) -> None:
    """Without a region, an AWS SDK fails with whatever it makes of an answer that ended."""
    trial.checks = ResponseParserError("Unable to parse response, invalid XML received: b''")
    trial.labs.is_going = lambda region: is_going
    trial.labs.connect = lambda name: SimpleNamespace(name=name)
    result = run("up", "--lab", "second")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit) == is_going, "another failure stays what it is"
    told = "Error: the lab was taken down meanwhile\n  -> start it again: drawbridge lab up --lab second"
    assert (told in result.stderr) == is_going


@pytest.mark.usefixtures("trial")
def test_up_json_is_json_alone() -> None:
    assert json.loads(run("up", "--json").stdout) == [
        {"stack": "lab", "ok": True, "promise": check.promise, "figure": check.figure, "look": ""} for check in GOOD
    ]


def test_up_deploys_several_stacks_and_heads_the_checks_of_each(
    trial: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = project(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = run("up", "lab", str(mine), "--lab", "second")
    assert [line for line in result.stdout.splitlines() if line.startswith("stack")] == ["stack lab", "stack team"]
    assert "deploying team into lab second" in result.stderr
    assert trial.read[1] == mine
    twice = run("up", "team", str(mine))
    assert (twice.exit_code, "stack team is named twice" in twice.stderr) == (2, True)


@pytest.mark.usefixtures("trial")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_by_any_signal_is_one_line(
    trial: SimpleNamespace, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: int) -> list[Check]:
        signal.raise_signal(number)
        return GOOD

    trial.deploy_and_check = interrupt
    before = signal.getsignal(signal.SIGTERM)
    up, tried = run("up"), run("try", "lab")
    assert (up.exit_code, tried.exit_code) == (128 + number, 128 + number)
    assert "interrupted; to remove what was started: drawbridge lab down" in up.stderr
    assert "interrupted; its region is removed" in tried.stderr
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_kept_region_says_how_to_look_at_it_and_how_to_take_it_down(trial: SimpleNamespace) -> None:
    trial.checks = BAD
    result = run("try", "ipv6", "--keep")
    assert (result.exit_code, trial.regions) == (1, [True])
    for command in ("lab status --lab try1a2b3c", "gateway status --stack ipv6", "lab down --lab try1a2b3c"):
        assert f"drawbridge {command}" in result.stderr
    run("try", "ipv6")
    assert trial.regions == [True, False]


def test_destroy_lists_what_is_left(trial: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Leftover] = []
    monkeypatch.setattr(lab_trial, "removal", SimpleNamespace(destroy_stack=lambda region, stack, progress: left))
    result = run("destroy", "tenant")
    assert (result.exit_code, result.stdout) == (0, "nothing of stack tenant is left\n")
    left.append(Leftover("address", "eipalloc-1"))
    result = run("destroy", "tenant")
    assert result.exit_code == 1
    assert [line.split() for line in result.stdout.splitlines()] == [["left", "name"], ["address", "eipalloc-1"]]
    trial.labs.connect = lambda name: None
    result = run("destroy", "tenant")
    assert (result.exit_code, "no lab runs on this machine" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "verb", [("up",), ("try", "team"), ("exec", "alice", "--", "true"), ("down",), ("destroy", "lab"), ("env",)]
)
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
        (KeyboardInterrupt(), 130, "interrupted"),
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
    trial.checks = error
    stack = tmp_path / "stack.yaml"
    stack.touch()
    result = run(verb, *([str(stack)] if verb == "try" else []))
    assert result.exit_code == code
    assert told in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "error",
    [
        lab_errors.LabError("the machine left was still booting after 420 s"),
        lab_errors.MachineDown("the machine left was still booting after 420 s"),
        errors.DeploymentError("the machine left was still booting after 420 s", "see /var/lib/aws-lab/try1a2b3c/log"),
    ],
)
def test_an_error_in_a_region_that_is_gone_says_how_to_keep_one(
    trial: SimpleNamespace, tmp_path: Path, error: Exception
) -> None:
    trial.checks = error
    stack = tmp_path / "stack.yaml"
    stack.touch()
    removed, kept = run("try", str(stack)), run("try", str(stack), "--keep")
    assert removed.stderr.splitlines()[-2:] == [
        "Error: the machine left was still booting after 420 s",
        f"  -> its region is removed; keep one to look at: drawbridge lab try {stack} --keep",
    ]
    assert "keep one to look at" not in kept.stderr


def test_try_takes_a_name_or_a_path(trial: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, other = project(tmp_path), tmp_path / "other.yaml"
    other.touch()
    monkeypatch.chdir(tmp_path)
    assert run("try", "team").exit_code == 0
    assert run("try", str(other)).exit_code == 0
    assert trial.read == [named, other]
    unknown = run("try", "nosuch")
    assert unknown.exit_code == 2
    assert "stacks that have a file: bonded, bridge" in unknown.stderr and "team" in unknown.stderr


def test_try_writes_its_checks_also_when_they_fail(trial: SimpleNamespace, tmp_path: Path) -> None:
    trial.checks = BAD
    stack, target = tmp_path / "stack.yaml", tmp_path / "checks.json"
    stack.touch()
    result = run("try", str(stack), "--json", str(target))
    assert result.exit_code == 1
    assert [check["ok"] for check in json.loads(target.read_text())] == [True, True, False]
    assert f"look at it: drawbridge lab try {stack} --keep" in result.stderr
    assert LOOK not in result.stdout, "the machine is gone"


def test_a_silence_ends_with_a_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "SILENCE", 0.05)
    said = ""
    with output.progress() as progress:
        progress("checking: segment")
        while "still at it" not in said:
            said += capsys.readouterr().err
    assert said.splitlines()[0].endswith("checking: segment")
    assert "progress" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("promise", "machine"),
    [
        ("alice -> gateway 10.1.0.4", "alice-tenant"),
        ("alice (203.0.113.10) -x gateway's SSH", "alice-tenant"),
        ("ovn0 of alice: its cable is pulled", "alice-tenant"),
        ("alice-2 -> gateway 10.1.0.4", "alice-2"),
        ("private host -x alice-hidden 192.168.1.2", "private-host-tenant"),
        ("alice-hidden 192.168.1.2 -> private host", "alice-hidden"),
        ("gateway runs the stack's release", "drawbridge-tenant-gateway"),
        ("gateway b is bonded", "drawbridge-tenant-gateway-b"),
    ],
)
def test_a_failed_check_names_a_command_that_exists(
    region: SimpleNamespace, promise: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"alice": "alice-tenant", "alice-2": "alice-2", "alice-hidden": "alice-hidden"}
    record = StackRecord(
        stack="tenant", machines={**names, "private-host": "private-host-tenant"}, clients={"alice": [], "alice-2": []}
    )
    deployed: Any = SimpleNamespace(
        region=SimpleNamespace(name="try1a2b3c"),
        record=record,
        settings=SimpleNamespace(stack="tenant", clients=()),
        letter="a",
    )
    program, noun, *words = shlex.split(suggest_command(deployed, promise))
    assert (program, noun, words[:4]) == ("drawbridge", "lab", ["exec", "--lab", "try1a2b3c", machine])
    commands: list[list[str]] = []

    def host(name: str) -> SimpleNamespace:
        assert name == machine

        def run_command(argv: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
            commands.append(list(argv))
            return subprocess.CompletedProcess(argv, 0, "", "")

        return SimpleNamespace(run=run_command)

    monkeypatch.setattr(region.connect("lab"), "host", host)
    assert run(*words).exit_code == 0
    assert commands == [words[words.index("--") + 1 :]]


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
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
                "name": "drawbridge-tenant-gateway",
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
    running = SimpleNamespace(
        endpoint="http://127.0.0.1:4999",
        host=host,
        status=lambda: status,
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:4999"},
        stacks=tmp_path,
    )
    module = SimpleNamespace(DEFAULT="lab", connect=lambda name: running, down=lambda name: True, running=list)
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
    region.connect = lambda name: None
    for options in ((), ("--json",)):
        result = run("status", *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Error: no lab runs on this machine\n  -> " in result.stderr
    result = run("exec", "alice", "--", "true")
    assert (result.exit_code, "make lab" in result.stderr) == (1, True)
    region.running = lambda: ["try1a2b3c"]
    assert "others run: try1a2b3c" in run("status").stderr
    region.down = lambda name: False
    assert run("down").stdout == "there was no lab to remove\n"


def test_status_shows_the_region_with_its_stacks(region: SimpleNamespace) -> None:
    record = StackRecord(
        stack="tenant",
        file="/infra/Pulumi.tenant.yaml",
        aws_region="eu-west-1",
        machines={"alice": "alice", "private-host": "private"},
        clients={"alice": ["alice"]},
    )
    save_record(region.connect("lab"), record)
    (region.connect("lab").stacks / "tenant.json").touch()
    lines = [line.split() for line in run("status").stdout.splitlines()]
    assert lines == [
        ["AWS", "API:", "http://127.0.0.1:4999"],
        [],
        ["stack", "AWS", "region", "clients", "file"],
        ["tenant", "eu-west-1", "alice", "/infra/Pulumi.tenant.yaml"],
        [],
        ["machine", "stack", "is", "address", "public"],
        ["drawbridge-tenant-gateway", "tenant", "t4g.nano,", "running", "10.1.0.10", "198.51.100.9"],
        ["private", "tenant", "t4g.nano,", "stopped"],
        ["alice", "tenant", "host", "at", "cafe", "192.168.1.5", "203.0.113.7"],
    ]
    state = json.loads(run("status", "--json").stdout)
    assert [i["name"] for i in state["instances"]] == ["drawbridge-tenant-gateway", "private"]
    assert [(stack["name"], stack["clients"]) for stack in state["stacks"]] == [("tenant", ["alice"])]


@pytest.mark.usefixtures("region")
def test_env_points_a_shell_at_the_region() -> None:
    assert run("env", "--lab", "second").stdout.splitlines() == [
        "export AWS_ENDPOINT_URL=http://127.0.0.1:4999",
        "export AWS_REGION=eu-west-1",
        "export AWS_DEFAULT_REGION=eu-west-1",
        "export DRAWBRIDGE_LAB=second",
    ]


@pytest.mark.usefixtures("region")
def test_down_says_that_nothing_is_left() -> None:
    assert run("down").stdout == "the lab is removed\n"
