"""Run the gateway's agent out of the current release, or, if that is impossible, out of the release that AWS names.

Everything else is in the agent, which comes with every release, while this file stays the same for the life of the
instance. So it only fetches, and the timer that runs it repeats a failed attempt.
"""

import hashlib
import importlib
import importlib.util
import io
import json
import runpy
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ENV = Path("/etc/drawbridge/env")
CURRENT = Path("/opt/drawbridge/current/agent.py")
FETCHED = Path("/run/drawbridge/agent.py")
#: Seconds until role, metadata, network and clock must be ready; on a first boot all of them may be late.
FETCH_TIMEOUT = 90.0


def main() -> None:
    """Run the agent and end by SystemExit with its exit status, or with 1 if there is no agent to run."""
    if CURRENT.exists():
        try:
            runpy.run_path(str(CURRENT), run_name="__main__")
        except Exception:
            traceback.print_exc()
            print("the current agent crashed; fetching the agent of the release that AWS names", file=sys.stderr)
    env = dict(line.split("=", 1) for line in ENV.read_text().splitlines() if "=" in line)
    if not has_packages():
        install_packages(env["PACKAGES"].split())
    import boto3

    session = boto3.Session(region_name=env["REGION"])
    try:
        source = retry(lambda: fetch_agent(session, env["RELEASE"]), FETCH_TIMEOUT)
    except Exception as error:
        print(f"no agent: {error}", file=sys.stderr)
        refused = isinstance(error, (ValueError, KeyError, tarfile.TarError))
        put_report(session, env["REPORT"], "refused" if refused else "failed", f"no agent: {error}")
        sys.exit(1)
    FETCHED.parent.mkdir(parents=True, exist_ok=True)
    FETCHED.write_bytes(source)
    runpy.run_path(str(FETCHED), run_name="__main__")


def has_packages() -> bool:
    """Return whether the packages that cloud-init should install are there."""
    return bool(importlib.util.find_spec("boto3") and shutil.which("openvpn") and shutil.which("nft"))


def install_packages(packages: list[str]) -> None:
    """Install packages that are missing because the mirror was down or the first boot was cut off.

    The package manager runs in a unit of its own, since the sandbox of this unit does not let it work.
    """
    in_own_unit = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", "--setenv=DEBIAN_FRONTEND=noninteractive"]
    for command in (
        ["dpkg", "--configure", "-a"],
        ["apt-get", "update", "--quiet"],
        ["apt-get", "install", "--quiet", "--assume-yes", "--no-install-recommends", *packages],
    ):
        subprocess.run([*in_own_unit, *command], timeout=300, check=True)
    importlib.invalidate_caches()


def retry(action: Callable[[], T], seconds: float) -> T:
    """Return what `action` returns; repeat it after any exception for `seconds`, then raise the last one."""
    end, pause = time.monotonic() + seconds, 0.5
    while True:
        try:
            return action()
        except Exception:
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)


def fetch_agent(session: Any, parameter: str) -> bytes:
    """Return the agent's source out of the release that `parameter` points at; raises ValueError for a wrong digest."""
    import botocore.config

    settings = botocore.config.Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1})
    pointer = json.loads(session.client("ssm", config=settings).get_parameter(Name=parameter)["Parameter"]["Value"])
    body = session.client("s3", config=settings).get_object(Bucket=pointer["bucket"], Key=pointer["key"])["Body"]
    archive = body.read(4 << 20)
    digest = hashlib.sha256(archive).hexdigest()
    if digest != pointer["sha256"]:
        raise ValueError(f"the release's SHA-256 is {digest}, not {pointer['sha256']}")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        source = tar.extractfile("agent.py")
        if source is None:
            raise ValueError("the release's agent.py is not a file")
        return source.read()


def put_report(session: Any, parameter: str, state: str, reason: str) -> None:
    """Write the operator's report, in the format of the agent's, if AWS can be reached."""
    report = {
        "state": state,
        "release": "",
        "running": "",
        "reason": reason[:1000],
        "instance": _read(Path("/var/lib/cloud/data/instance-id")),
        "units": [],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        session.client("ssm").put_parameter(Name=parameter, Value=json.dumps(report), Type="String", Overwrite=True)
    except Exception as error:
        print(f"the report could not be written: {error}", file=sys.stderr)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


if __name__ == "__main__":
    main()
