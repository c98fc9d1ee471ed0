"""The way from a bare instance to the agent, in this process. Does not prove that a machine boots this way."""

import json
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
AGENT = "import sys\nprint('the agent runs as', __name__)\nsys.exit(3)\n"


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
    monkeypatch.setattr(bootstrap, "FETCHED", tmp_path / "run/agent.py")
    monkeypatch.setattr(bootstrap, "FETCH_TIMEOUT", 0.0)
    monkeypatch.setattr(bootstrap, "has_packages", lambda: True)
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


def test_first_boot_runs_the_agent_of_the_named_release(aws: Any, machine: Path, capsys: Any) -> None:
    publish(aws, gateway.pack_release({"agent.py": AGENT.encode()}))
    assert run() == 3
    assert capsys.readouterr().out == "the agent runs as __main__\n"


def test_later_runs_ask_nobody(machine: Path, capsys: Any) -> None:
    bootstrap.CURRENT.parent.mkdir()
    bootstrap.CURRENT.write_text(AGENT)
    assert run() == 3
    assert capsys.readouterr().out == "the agent runs as __main__\n"


@pytest.mark.fault("2.9")
def test_a_broken_current_agent_is_replaced(aws: Any, machine: Path, capsys: Any) -> None:
    bootstrap.CURRENT.parent.mkdir()
    bootstrap.CURRENT.write_text("import nothing_of_this_name\n")
    publish(aws, gateway.pack_release({"agent.py": AGENT.encode()}))
    assert run() == 3
    assert "crashed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "message"), [("failed", "ParameterNotFound"), ("refused", "SHA-256"), ("refused", "agent.py")]
)
def test_no_agent_is_reported(aws: Any, machine: Path, state: str, message: str) -> None:
    if message == "SHA-256":
        publish(aws, gateway.build_release(), gateway.build_release().archive[:-1])
    elif message == "agent.py":
        publish(aws, gateway.pack_release({"manifest.json": b"{}"}))
    assert run() == 1
    report = json.loads(aws.client("ssm").get_parameter(Name=NAMES.report)["Parameter"]["Value"])
    assert report["state"] == state
    assert message in report["reason"]
    assert set(report) == {"state", "release", "running", "reason", "instance", "units", "time"}
    assert not bootstrap.FETCHED.exists()


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
