"""The way from a bare instance to the agent, in this process. Does not prove that a machine boots this way."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from contract import Names
from tests.support import gateway
from userdata import cloud_config
from userdata.files import bootstrap
from userdata.release import Release

NAMES = Names("test")
BUCKET = "releases-of-test"

#: An agent that works: it leaves a report.
WORKS = """
import json, pathlib, sys
pathlib.Path({report!r}).write_text(json.dumps({{"reason": ""}}))
print("{name} runs as", __name__)
sys.exit(3)
"""
#: Agents that passed their checks and do not work.
ENDS = "raise SystemExit(0)"
RAISES = "raise RuntimeError('in its loop')"
CRASHES = """
import json, pathlib
pathlib.Path({report!r}).write_text(json.dumps({{"reason": "the agent crashed, see its journal: KeyError('x')"}}))
raise SystemExit(1)
"""


@pytest.fixture
def aws() -> Iterator[Any]:
    with mock_aws():
        session = boto3.Session(region_name="eu-west-1")
        location = {"LocationConstraint": "eu-west-1"}
        session.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        yield session


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's directories in a directory."""
    environment = tmp_path / "env"
    environment.write_text(cloud_config.env(names=NAMES, region="eu-west-1"))
    monkeypatch.setattr(bootstrap, "ENV", environment)
    monkeypatch.setattr(bootstrap, "CURRENT", tmp_path / "current/agent.py")
    monkeypatch.setattr(bootstrap, "LAST_GOOD", tmp_path / "last/agent.py")
    monkeypatch.setattr(bootstrap, "RUNTIME", tmp_path / "run")
    monkeypatch.setattr(bootstrap, "INSTANCE", tmp_path / "instance-id")
    monkeypatch.setattr(bootstrap, "FETCH_TIMEOUT", 0.0)
    monkeypatch.setattr(bootstrap, "has_packages", lambda: True)
    monkeypatch.setattr(bootstrap, "is_openvpn_up", lambda: False)
    (tmp_path / "run").mkdir()
    (tmp_path / "current").mkdir()
    (tmp_path / "instance-id").write_text("i-1\n")
    return tmp_path


def publish(aws: Any, release: Release, archive: bytes | None = None) -> None:
    body = release.archive if archive is None else archive
    aws.client("s3").put_object(Bucket=BUCKET, Key="k", Body=body)
    pointer = json.dumps({"bucket": BUCKET, "key": "k", "sha256": release.sha256})
    aws.client("ssm").put_parameter(Name=NAMES.release, Type="String", Value=pointer, Overwrite=True)


def run() -> object:
    with pytest.raises(SystemExit) as ended:
        bootstrap.main()
    return ended.value.code


def agent(machine: Path, text: str = WORKS, name: str = "the agent") -> bytes:
    """Return an agent's source."""
    if "{" in text:
        text = text.format(report=str(machine / "run/report.json"), name=name)
    return text.encode()


def release_of(source: bytes) -> Release:
    return gateway.pack_release({"agent.py": source})


def report_in(aws: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(aws.client("ssm").get_parameter(Name=NAMES.report)["Parameter"]["Value"])
    return report


def test_first_boot_runs_the_agent_of_the_named_release(aws: Any, machine: Path, capsys: Any) -> None:
    publish(aws, release_of(agent(machine)))
    assert run() == 3
    assert capsys.readouterr() == ("the agent runs as __main__\n", "")


def test_later_runs_ask_nobody(machine: Path, capsys: Any) -> None:
    bootstrap.CURRENT.write_bytes(agent(machine))
    assert run() == 3
    assert capsys.readouterr() == ("the agent runs as __main__\n", "")


@pytest.mark.fault("2.9")
def test_a_broken_current_agent_is_replaced(aws: Any, machine: Path, capsys: Any) -> None:
    bootstrap.CURRENT.write_text("import nothing_of_this_name\n")
    publish(aws, release_of(agent(machine)))
    assert run() == 3
    assert "ModuleNotFoundError" in capsys.readouterr().out


@pytest.mark.fault("2.15")
@pytest.mark.parametrize("fault", [ENDS, RAISES, CRASHES])
def test_an_agent_that_leaves_no_report_gives_way_to_the_last_one_that_did(
    machine: Path, capsys: Any, fault: str
) -> None:
    bootstrap.CURRENT.write_bytes(agent(machine, name="the last good agent"))
    assert run() == 3
    bootstrap.CURRENT.write_bytes(agent(machine, fault))
    runs = [run() for _ in range(bootstrap.MAX_RUNS + 2)]
    out, err = capsys.readouterr()
    assert runs[-2:] == [3, 3]
    assert out.count("the last good agent runs") == 1 + runs.count(3)
    assert (machine / "run/fallback").read_text() == "the agent of release current does not work: the one before runs"
    assert "does not work" not in err, "the agent says it there; two that take turns would flood the console"
    bootstrap.CURRENT.write_bytes(agent(machine, name="a mended agent"))
    assert run() == 3
    assert "a mended agent runs" in capsys.readouterr().out
    assert not (machine / "run/fallback").exists()


@pytest.mark.allow_subprocess
def test_an_agent_that_hangs_until_systemd_ends_it_gives_way(machine: Path, capsys: Any) -> None:
    bootstrap.CURRENT.write_bytes(agent(machine, name="the last good agent"))
    run()
    hangs = b"import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    bootstrap.CURRENT.write_bytes(hangs)
    if (child := os.fork()) == 0:
        bootstrap.run_agent(bootstrap.CURRENT, hangs)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    runs, started = bootstrap.read_runs(hangs)
    assert (runs, started > 0) == (1, True)
    assert not bootstrap.is_lifeless(hangs), "it may have been killed for another reason"
    bootstrap.write_runs(bootstrap.CURRENT, hangs, runs, started - bootstrap.MAX_RUN)
    assert run() == 3
    assert capsys.readouterr().out.count("the last good agent runs") == 2


def test_the_operator_may_have_the_current_agent_tried_again(machine: Path) -> None:
    source = agent(machine, ENDS)
    bootstrap.CURRENT.write_bytes(source)
    bootstrap.write_runs(bootstrap.CURRENT, source, bootstrap.MAX_RUNS)
    assert bootstrap.is_lifeless(source)
    (machine / "run/retry").touch()
    assert not bootstrap.is_lifeless(source)


def test_without_any_agent_that_works_it_is_said(aws: Any, machine: Path, capsys: Any) -> None:
    publish(aws, release_of(agent(machine, ENDS)))
    assert run() == 1
    assert report_in(aws)["reason"] == "the agent left no report, its exit status is 0"
    assert capsys.readouterr().err == "failed: the agent left no report, its exit status is 0\n"


@pytest.mark.parametrize(("is_up", "state"), [(False, "failed"), (True, "degraded")])
@pytest.mark.parametrize("message", ["ParameterNotFound", "SHA-256", "agent.py"])
def test_no_agent_is_reported(
    aws: Any, machine: Path, monkeypatch: pytest.MonkeyPatch, is_up: bool, state: str, message: str
) -> None:
    monkeypatch.setattr(bootstrap, "is_openvpn_up", lambda: is_up)
    if message == "SHA-256":
        publish(aws, gateway.build_release(), gateway.build_release().archive[:-1])
    elif message == "agent.py":
        publish(aws, gateway.pack_release({"manifest.json": b"{}"}))
    assert run() == 1
    report = report_in(aws)
    assert (report["state"], report["instance"]) == (state, "i-1")
    assert message in report["reason"]
    assert set(report) == {"state", "release", "running", "reason", "instance", "units", "time"}
    assert not (machine / "run/agent.py").exists()


def test_packages_that_cannot_be_installed_are_reported_each_change_once_on_the_console(
    aws: Any, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    complaint = "apt-get install failed: W: Failed to fetch http://mirror.test/: Connection refused"

    def fail(packages: list[str]) -> None:
        assert "openvpn" in packages
        raise RuntimeError(complaint)

    monkeypatch.setattr(bootstrap, "has_packages", lambda: False)
    monkeypatch.setattr(bootstrap, "install_packages", fail)
    assert [run(), run()] == [1, 1]
    assert report_in(aws)["reason"] == f"no agent: {complaint}"
    out, err = capsys.readouterr()
    assert err == out == f"failed: no agent: {complaint}\n"


def test_a_machine_without_credentials_says_so(machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Nothing can be reported to AWS then: the console has it."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert run() == 1
    reason = "no agent: no credentials: the instance has no instance profile, or its metadata service does not answer"
    assert capsys.readouterr().err == f"failed: {reason}\n"


def test_a_machine_without_a_route_says_why_aws_is_not_reached(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    for name, value in {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed}",
    }.items():
        monkeypatch.setenv(name, value)
    assert run() == 1
    assert "Connection refused" in capsys.readouterr().err


def test_patience_has_an_end() -> None:
    tries: list[int] = []

    def late() -> int:
        tries.append(0)
        if len(tries) < 2:
            raise OSError("no metadata yet")
        return len(tries)

    assert bootstrap.retry(late, 5.0) == 2
    with pytest.raises(ZeroDivisionError):
        bootstrap.retry(lambda: 1 // 0, 0.0)


@pytest.mark.allow_subprocess
def test_missing_packages_are_installed_outside_of_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for systemd-run that notes what it is to run."""
    log = tmp_path / "log"
    program = tmp_path / "systemd-run"
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bootstrap.install_packages(["openvpn", "nftables"])
    commands = [line.partition("DEBIAN_FRONTEND=noninteractive ")[2] for line in log.read_text().splitlines()]
    assert commands == [
        "dpkg --configure -a",
        "apt-get update --quiet",
        "apt-get install --quiet --assume-yes --no-install-recommends openvpn nftables",
    ]


@pytest.mark.allow_subprocess
def test_what_the_package_manager_complains_of_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apt-get update` without a mirror warns and succeeds; the error is the next command's."""
    program = tmp_path / "systemd-run"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in *update*) echo "W: Failed to fetch: Could not connect to mirror.test:80" >&2;;\n'
        '*install*) echo "E: Unable to locate package openvpn" >&2; exit 100;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    complaints = "W: Failed to fetch: Could not connect to mirror.test:80 | E: Unable to locate package openvpn"
    with pytest.raises(RuntimeError, match=re.escape(f"apt-get install failed: {complaints}")):
        bootstrap.install_packages(["openvpn"])
