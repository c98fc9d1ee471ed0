"""Run the gateway's agent: that of the current release, or the last one that worked, or that of the release AWS names.

The agent comes with every release, while this file stays the same for the life of the instance. An agent that works
leaves a report on this machine. One that leaves none in `MAX_RUNS` runs, or hangs until systemd ends it, gives way to
the last agent that did. What keeps all from running is reported to AWS, and to the console by the standard error.
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
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ENV = Path("/etc/drawbridge/env")
INSTANCE = Path("/var/lib/cloud/data/instance-id")
CURRENT = Path("/opt/drawbridge/current/agent.py")
#: The last agent that worked.
LAST_GOOD = Path("/var/lib/drawbridge/agent.py")
#: Empty after each boot.
RUNTIME = Path("/run/drawbridge")
MAX_RUNS = 3
#: Seconds after which a run that has not ended was ended by systemd.
MAX_RUN = 540.0
#: Seconds until role, metadata, network and clock must be ready; on a first boot all of them may be late.
FETCH_TIMEOUT = 90.0
#: Seconds that installing packages may take.
INSTALL_TIMEOUT = 480.0


def main() -> None:
    """Run an agent and end by SystemExit with its exit status, or with 1 if it leaves no sign of life."""
    fallback = RUNTIME / "fallback"
    try:
        if CURRENT.exists():
            current = CURRENT.read_bytes()
            if not is_lifeless(current):
                fallback.unlink(missing_ok=True)
                run_agent(CURRENT, current)
            if LAST_GOOD.exists() and LAST_GOOD.read_bytes() != current:
                reason = f"the agent of release {CURRENT.parent.resolve().name[:12]} does not work: the one before runs"
                print(reason)  # The agent has it on the console.
                write(fallback, reason.encode())
                run_agent(LAST_GOOD, LAST_GOOD.read_bytes())
        env = read_env()
        if not has_packages():
            install_packages(env["PACKAGES"].split())
        source = retry(lambda: fetch_agent(env), FETCH_TIMEOUT)
        fetched = RUNTIME / "agent.py"
        write(fetched, source)
        run_agent(fetched, source)
        raise RuntimeError("the agent of the release that AWS names crashed, see its journal")
    except Exception as error:
        put_report(f"no agent: {describe_error(error)}")
        sys.exit(1)


def run_agent(path: Path, source: bytes) -> None:
    """Run an agent and end by SystemExit with its exit status; return if it raised an exception."""
    sign, status, runs = read_sign(), None, read_runs(source)[0] + 1
    write_runs(path, source, runs, time.monotonic())
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        status = end.code
    except Exception:
        traceback.print_exc(file=sys.stdout)
        write_runs(path, source, runs)
        return
    if read_sign() in (0, sign):
        write_runs(path, source, runs)
        put_report(f"the agent left no report, its exit status is {status or 0}")
        sys.exit(1)
    write_runs(path, source, 0)
    if not LAST_GOOD.exists() or LAST_GOOD.read_bytes() != source:
        write(LAST_GOOD, source)
    sys.exit(status)


def read_sign() -> int:
    """Return the time of the last report on this machine, 0 if the agent crashed before it wrote it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = RUNTIME / "report.json"
        if not json.loads(path.read_text())["reason"].startswith("the agent crashed"):
            return path.stat().st_mtime_ns
    return 0


def is_lifeless(source: bytes) -> bool:
    """Return whether an agent left no report in its last runs, or in one that was ended from outside."""
    runs, started = read_runs(source)
    hung = started > 0 and time.monotonic() - started >= MAX_RUN
    # `drawbridge gateway retry` leaves a file.
    return (runs >= MAX_RUNS or hung) and not (RUNTIME / "retry").exists()


def read_runs(source: bytes) -> tuple[int, float]:
    """Return how often an agent ran without a report, and when a run began that has not ended, by the steady clock."""
    with suppress(OSError, ValueError):
        name, runs, started = (RUNTIME / "runs").read_text().split()
        if name == hashlib.sha256(source).hexdigest():
            return int(runs), float(started)
    return 0, 0.0


def write_runs(path: Path, source: bytes, runs: int, started: float = 0.0) -> None:
    """Note the runs of the current release's agent, and of no other."""
    if path == CURRENT:
        write(RUNTIME / "runs", f"{hashlib.sha256(source).hexdigest()} {runs} {started}".encode())


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step, if there is room for it."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)


def read_env() -> dict[str, str]:
    """Return the variables of this gateway."""
    return dict(line.split("=", 1) for line in ENV.read_text().splitlines() if "=" in line)


def has_packages() -> bool:
    """Return whether the packages that cloud-init should install are there."""
    return bool(importlib.util.find_spec("boto3") and shutil.which("openvpn") and shutil.which("nft"))


def install_packages(packages: list[str]) -> None:
    """Install packages that are missing because the mirror was down or the first boot was cut off.

    The package manager runs in a unit of its own, because this unit's sandbox is too tight. Raises RuntimeError.
    """
    in_own_unit = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", "--setenv=DEBIAN_FRONTEND=noninteractive"]
    end = time.monotonic() + INSTALL_TIMEOUT
    complaints: list[str] = []
    for command in (
        ["dpkg", "--configure", "-a"],
        ["apt-get", "update", "--quiet"],
        ["apt-get", "install", "--quiet", "--assume-yes", "--no-install-recommends", *packages],
    ):
        name = " ".join(command[:2])
        try:
            seconds = max(end - time.monotonic(), 1)
            result = subprocess.run([*in_own_unit, *command], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(" | ".join([f"{name} did not end in time", *complaints])) from None
        # `apt-get update` warns, and succeeds, if it reaches no mirror; the next command then fails.
        lines = result.stderr.splitlines()
        complaints += [line for line in lines if line.startswith(("E:", "W:"))]
        if result.returncode:
            raise RuntimeError(f"{name} failed: {' | '.join(dict.fromkeys(complaints)) or ' | '.join(lines[-3:])}")
    importlib.invalidate_caches()


def retry(action: Callable[[], Any], seconds: float) -> Any:
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


def fetch_agent(env: dict[str, str]) -> bytes:
    """Return the agent's source out of the release that AWS names; raises ValueError for a wrong digest."""
    import boto3
    import botocore.config

    settings = botocore.config.Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1})
    session = boto3.Session(region_name=env["REGION"])
    ssm, s3 = (session.client(service, config=settings) for service in ("ssm", "s3"))
    pointer = json.loads(ssm.get_parameter(Name=env["RELEASE"])["Parameter"]["Value"])
    archive = s3.get_object(Bucket=pointer["bucket"], Key=pointer["key"])["Body"].read(4 << 20)
    digest = hashlib.sha256(archive).hexdigest()
    if digest != pointer["sha256"]:
        raise ValueError(f"the release's SHA-256 is {digest}, not {pointer['sha256']}")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        source = tar.extractfile("agent.py")
        if source is None:
            raise ValueError("the release's agent.py is not a file")
        return source.read()


def describe_error(error: Exception) -> str:
    """Return an error's text, with the reason why AWS cannot be reached."""
    if type(error).__name__ == "NoCredentialsError":
        return "no credentials: the instance has no instance profile, or its metadata service does not answer"
    cause = getattr(error, "kwargs", {}).get("error", "")
    return f"{error} {str(cause).rpartition('>: ')[2]}".strip() or repr(error)


def print_error(text: str) -> None:
    """Print a line to the console if it is not the last one there, else only to the journal."""
    last = RUNTIME / "console"
    is_new = not last.exists() or last.read_text() != text
    print(text, file=sys.stderr if is_new else sys.stdout, flush=True)
    write(last, text.encode())


def put_report(reason: str) -> None:
    """Print why no agent runs, and write the operator's report, in the agent's format, if AWS can be reached."""
    state = "degraded" if is_openvpn_up() else "failed"
    print_error(f"{state}: {reason}")
    report = {
        "state": state,
        "release": "",
        "running": "",
        "reason": reason[:1000],
        "instance": INSTANCE.read_text().strip() if INSTANCE.exists() else "",
        "units": [],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        import boto3

        env = read_env()
        ssm = boto3.Session(region_name=env["REGION"]).client("ssm")
        ssm.put_parameter(Name=env["REPORT"], Value=json.dumps(report), Type="String", Overwrite=True)
    except Exception as error:
        print(f"the report could not be written: {describe_error(error)}")


def is_openvpn_up() -> bool:
    """Return whether any OpenVPN process runs."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["systemctl", "--quiet", "is-active", "openvpn-server@*", "drawbridge-link@*"]
        return subprocess.run(command, timeout=30).returncode == 0
    return False


if __name__ == "__main__":
    main()
