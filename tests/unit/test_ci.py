"""docs/ci.md: its script runs with stand-ins for `drawbridge`, `openvpn` and `sudo`; its workflows are read.

Does not prove that a runner can do what they ask for, nor that packets pass: tests/lab does that for the same commands.
"""

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from drawbridge.commands.root import cli
from tests.support.sources import ROOT

PAGE = (ROOT / "docs" / "ci.md").read_text()
(SCRIPT,) = re.findall(r"^```sh\n(#!.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
GITHUB, GITLAB = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))

#: Writes its arguments down, and fails if a file says so.
DRAWBRIDGE = """#!/bin/sh
echo "$*" >> calls
[ ! -e "fail-$2" ] || exit 1
"""
OPENVPN = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --writepid) sleep 300 & echo $! > "$2" ;;
    --log) [ -e fail-openvpn ] && echo AUTH_FAILED > "$2" || echo 'Initialization Sequence Completed' > "$2" ;;
  esac
  shift
done
"""
#: Waits are over at once.
SLEEP = """#!/bin/sh
[ "$1" != 1 ] || exit 0
exec /bin/sleep "$1"
"""


@dataclass
class Job:
    """A CI job's directory."""

    directory: Path

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "with-network.sh", *command],
            cwd=self.directory,
            env={"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", "CI_RUN": "123456"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> tuple[int, str]:
        process = self.start(*command)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @property
    def calls(self) -> list[str]:
        return (self.directory / "calls").read_text().splitlines()

    @property
    def has_tunnel(self) -> bool:
        """Whether the stand-in for OpenVPN still runs."""
        pid = (self.directory / "openvpn.pid").read_text().strip()
        return Path("/proc", pid).exists() and "sleep" in Path("/proc", pid, "cmdline").read_text()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "bin").mkdir()
    scripts = {"drawbridge": DRAWBRIDGE, "openvpn": OPENVPN, "sleep": SLEEP, "sudo": '#!/bin/sh\nexec "$@"\n'}
    for name, text in scripts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "with-network.sh").write_text(SCRIPT)
    return Job(tmp_path)


STEPS = [
    "stack new ci-123456 --from tenant --ttl 2h --no-ssh",
    "stack up ci-123456",
    "gateway status --stack ci-123456 --wait 10m --no-login",
    "client fetch ci-job --stack ci-123456",
    "stack destroy ci-123456",
]


@pytest.mark.allow_subprocess
def test_a_command_runs_in_the_network_and_everything_is_destroyed(job: Job) -> None:
    code, output = job.run("sh", "-c", "echo in $STACK; exit 7")
    assert (code, "in ci-123456" in output, job.calls) == (7, True, STEPS), output
    assert not job.has_tunnel
    assert job.run("true")[0] == 0


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_whatever_fails_the_stack_is_destroyed(step: int, job: Job) -> None:
    (job.directory / f"fail-{STEPS[step].split()[1]}").touch()
    code, _ = job.run("touch", "ran")
    assert (code, job.calls) == (1, [*STEPS[: step + 1], STEPS[-1]])
    assert not (job.directory / "ran").exists()


@pytest.mark.allow_subprocess
def test_a_tunnel_that_does_not_come_up_shows_its_log(job: Job) -> None:
    (job.directory / "fail-openvpn").touch()
    code, output = job.run("touch", "ran")
    assert (code, "AUTH_FAILED" in output, job.calls[-1]) == (1, True, STEPS[-1])
    assert not job.has_tunnel and not (job.directory / "ran").exists()


@pytest.mark.allow_subprocess
def test_what_is_left_in_the_account_fails_the_job(job: Job) -> None:
    (job.directory / "fail-destroy").touch()
    assert job.run("true")[0] == 1


@pytest.mark.allow_subprocess
def test_a_job_that_is_ended_destroys_its_stack(job: Job) -> None:
    process = job.start("sh", "-c", "touch started; exec sleep 300")
    end = time.monotonic() + 60
    while not (job.directory / "started").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert (process.returncode, job.calls) == (143, STEPS)
    assert not job.has_tunnel


@pytest.mark.parametrize("step", STEPS)
def test_the_command_has_these_verbs_and_options(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(step)
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        child = command.get_command(context, arguments.pop(0))
        assert child is not None
        command = child
    # `stack up` looks for the file, which `stack new` has written in a real job.
    if "up" not in step.split():
        command.make_context("command", arguments)


def test_the_workflow_for_github_has_no_long_lived_key_and_always_destroys() -> None:
    (workflow,) = GITHUB["jobs"].values()
    assert GITHUB["permissions"]["id-token"] == "write"
    steps: list[dict[str, Any]] = workflow["steps"]
    (credentials,) = (step["with"] for step in steps if "aws-actions" in step.get("uses", ""))
    assert credentials.keys() == {"role-to-assume", "aws-region"}
    assert "secrets." not in PAGE and "AWS_SECRET_ACCESS_KEY" not in PAGE
    (last,) = (step for step in steps if "if" in step)
    assert (last["if"], last["run"]) == ("always()", 'drawbridge stack destroy "ci-$CI_RUN"')
    assert any(step.get("run", "").startswith("ci/with-network.sh") for step in steps)


def test_the_workflow_for_gitlab_assumes_a_role_and_always_destroys() -> None:
    (job,) = GITLAB.values()
    assert job["after_script"] == ['drawbridge stack destroy "ci-$CI_RUN"']
    assert job["script"] == ["ci/with-network.sh ci/test.sh"]
    variables = job["variables"]
    assert {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} <= variables.keys()
    assert f'echo "$AWS_TOKEN" > {variables["AWS_WEB_IDENTITY_TOKEN_FILE"]}' in job["before_script"]
