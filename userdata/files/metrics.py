#!/usr/bin/env python3
"""Sends the gateway's metrics to CloudWatch: bytes, clients, displaced sessions, days of certificates and of fixes.

It runs by a timer with the instance's role, which may write to the stack's own namespace and to no other. The release
has the level beside this script: `full` sends each process's metrics, `basic` the gateway's, and once a day the days
left and the days that a fix has waited; both send how many sessions were displaced, if any were. `off` sends nothing.
In a stack with alarms the release also has `alarms.json`, and this script sends what these are for. The last counter
values are in its state directory; after a restart of OpenVPN, counting starts at zero. A metric that cannot be read is
missing, as while the machine boots, and what cannot be sent is sent by the next run. Neither is a failure of the unit:
an alarm on a missing `Ready` says that nothing comes. Only Python's standard library and boto3.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

#: Seconds; OpenVPN serves one management client at a time.
MANAGEMENT_TIMEOUT = 5.0
#: Seconds before the first run in which displaced sessions count.
FIRST_PERIOD = 300
SECRETS = Path("/etc/openvpn/server/secrets")
ENVIRONMENT = Path("/etc/drawbridge/env")
LEVEL = Path(__file__).with_name("metrics-level")
#: Written by patches.py, which runs every five minutes.
SOFTWARE = Path("/var/lib/drawbridge-patches/status.json")
#: In a stack with alarms: JSON with `clientsEnd`, when the first of the clients' certificates ends, or empty.
ALARMS = Path(__file__).with_name("alarms.json")
#: Exists where OpenVPN's processes share a port; and the unit that then ends displaced sessions.
SHARING, ROUTES = Path(__file__).with_name("client-routes.json"), "drawbridge-client-routes.service"
REPORT = Path("/run/drawbridge/report.json")
#: The agent writes its report each time it runs, every 30 seconds; an older one says nothing of now.
REPORT_MAX_AGE = timedelta(minutes=15)
CONNTRACK = Path("/proc/sys/net/netfilter")
#: CloudWatch bills a metric for each hour in which it is sent. These are sent from a part of their alarms' thresholds
#: on: percent of the connection table, and dropped packets a second.
TABLE_REMARKABLE, DROPS_REMARKABLE = 50, 10


def read_load(answer: str) -> dict[str, int]:
    """Read the answer to `load-stats`: clients now, and bytes since the process started.

    >>> read_load("SUCCESS: nclients=2,bytesin=10,bytesout=30")
    {'nclients': 2, 'bytesin': 10, 'bytesout': 30}
    """
    return {key: int(value) for key, value in re.findall(r"(nclients|bytesin|bytesout)=(\d+)", answer)}


def query_load(path: Path) -> dict[str, int]:
    """Return the answer of OpenVPN's management socket to `load-stats`; raises OSError if there is no answer."""
    end = time.monotonic() + MANAGEMENT_TIMEOUT
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(MANAGEMENT_TIMEOUT)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8", newline="\n") as stream:
            stream.write("load-stats\n")
            stream.flush()
            while time.monotonic() < end and (line := stream.readline()):
                if line.startswith("SUCCESS:"):
                    return read_load(line)
    raise TimeoutError("no answer to load-stats")


def find_sockets() -> list[Path]:
    """Return the management socket of each OpenVPN process."""
    return sorted(Path("/run").glob("openvpn-*/mgmt.sock"))


def days_left(not_after: str, now: datetime) -> float:
    """Return the days from `now` to the date that `openssl x509 -enddate` has printed.

    >>> days_left("notAfter=Jan 11 00:00:00 2030 GMT", datetime(2030, 1, 1, tzinfo=UTC))
    10.0
    """
    end = datetime.strptime(not_after.strip().partition("=")[2], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    return (end - now).total_seconds() / 86400


def count_bytes(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes since the last run; all bytes if OpenVPN has restarted since."""
    restarted = any(now[key] < before.get(key, 0) for key in ("bytesin", "bytesout"))
    return {key: now[key] - (0 if restarted else before.get(key, 0)) for key in ("bytesin", "bytesout")}


def process_metrics(instance: str, load: Mapping[str, int], before: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the metrics of one OpenVPN process."""
    traffic, dimension = count_bytes(load, before), [{"Name": "Process", "Value": instance}]
    return [
        {"MetricName": "ConnectedClients", "Dimensions": dimension, "Value": load["nclients"], "Unit": "Count"},
        {"MetricName": "BytesReceived", "Dimensions": dimension, "Value": traffic["bytesin"], "Unit": "Bytes"},
        {"MetricName": "BytesSent", "Dimensions": dimension, "Value": traffic["bytesout"], "Unit": "Bytes"},
    ]


def gateway_metrics(
    loads: Mapping[str, Mapping[str, int]], before: Mapping[str, Any], *, shares: bool = False
) -> list[dict[str, Any]]:
    """Return the metrics of all OpenVPN processes together.

    A bonded client is connected to each of them; if one port `shares` its clients among them, a client is to one.
    """
    if not loads:
        return []
    clients = (sum if shares else max)(load["nclients"] for load in loads.values())
    counts = [count_bytes(load, before.get(instance, {})) for instance, load in loads.items()]
    return [
        {"MetricName": "ConnectedClients", "Value": clients, "Unit": "Count"},
        {"MetricName": "Bytes", "Value": sum(sum(count.values()) for count in counts), "Unit": "Bytes"},
    ]


def earliest_end(certificates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the days left on the certificate that ends first, as a metric of the gateway."""
    if not certificates:
        return []
    return [{"MetricName": "DaysLeft", "Value": min(metric["Value"] for metric in certificates), "Unit": "None"}]


def certificate_metrics(now: datetime) -> list[dict[str, Any]]:
    """Return the days left on the certificates of this machine; nothing if one takes too long to read."""
    metrics = []
    for name in ("server", "ca"):
        command = ["openssl", "x509", "-noout", "-enddate", "-in", str(SECRETS / f"{name}.crt")]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
            days = days_left(result.stdout, now) if result.returncode == 0 else None
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"the certificates could not be read: {error}", file=sys.stderr)
            return []
        if days is not None:
            dimension = [{"Name": "Certificate", "Value": name}]
            metrics.append({"MetricName": "DaysLeft", "Dimensions": dimension, "Value": days, "Unit": "None"})
    return metrics


def waiting_fixes(now: datetime) -> list[dict[str, Any]]:
    """Return the days that a fix has waited for its installation or a restart, 0 if none waits, as a metric.

    Nobody knows what waits while patches.py does not run; that counts from its last run.
    """
    try:
        moments = [datetime.fromtimestamp(SOFTWARE.stat().st_mtime, UTC)]
        moments += map(datetime.fromisoformat, json.loads(SOFTWARE.read_text())["waiting"].values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    days = (now - min(moments)).total_seconds() / 86400
    return [{"MetricName": "DaysFixWaiting", "Value": 0.0 if days < 1 / 24 else days, "Unit": "None"}]


def client_metrics(clients_end: str, now: datetime) -> list[dict[str, Any]]:
    """Return the days left on the certificate of the client whose ends first; nothing without clients."""
    if not clients_end:
        return []
    days = (datetime.fromisoformat(clients_end).astimezone(UTC) - now).total_seconds() / 86400
    dimension = [{"Name": "Certificate", "Value": "client"}]
    return [{"MetricName": "DaysLeft", "Dimensions": dimension, "Value": days, "Unit": "None"}]


def is_ready(report: str, now: datetime) -> bool:
    """Return whether the agent's report (JSON) is of now and says `ready`."""
    try:
        values = json.loads(report)
        age = now - datetime.fromisoformat(values["time"]).astimezone(UTC)
        return bool(values["state"] == "ready" and age <= REPORT_MAX_AGE)
    except (ValueError, TypeError, KeyError, OverflowError):
        return False


def table_metrics(count: str, size: str) -> list[dict[str, Any]]:
    """Return how full the connection table is, in percent, if that is remarkable."""
    percent = 100 * int(count) / int(size)
    return (
        [{"MetricName": "ConnectionTable", "Value": percent, "Unit": "Percent"}] if percent >= TABLE_REMARKABLE else []
    )


def read_drops(counters: str) -> int:
    """Return the packets that the filter has dropped, from the JSON of `nft list counters`: its counters count drops.

    >>> read_drops('{"nftables": [{"counter": {"table": "drawbridge", "name": "spoofed", "packets": 3}}]}')
    3
    """
    rows = (row.get("counter", {}) for row in json.loads(counters)["nftables"])
    return sum(row["packets"] for row in rows if str(row.get("table", "")).startswith("drawbridge"))


def drop_metrics(drops: int, before: int, seconds: int) -> list[dict[str, Any]]:
    """Return the packets dropped since the last run, if these are remarkably many; a new filter counts from zero."""
    dropped = drops - before if drops >= before else drops
    remarkable = dropped >= DROPS_REMARKABLE * max(1, seconds)
    return [{"MetricName": "DroppedPackets", "Value": dropped, "Unit": "Count"}] if remarkable else []


def alarm_metrics(now: datetime, before: Mapping[str, Any], memory: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics that alarms are for; what the next run needs is added to `memory`."""
    report = ""
    with contextlib.suppress(OSError, ValueError):
        report = REPORT.read_text()

    def read_table() -> list[dict[str, Any]]:
        return table_metrics(*((CONNTRACK / f"nf_conntrack_{name}").read_text() for name in ("count", "max")))

    def count_drops() -> list[dict[str, Any]]:
        listing = subprocess.run(
            ["nft", "--json", "list", "counters"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        memory["drops"] = read_drops(listing.stdout)
        # The first run has nothing to compare with.
        if "drops" not in before:
            return []
        return drop_metrics(memory["drops"], before["drops"], memory["until"] - before["until"])

    return [
        {"MetricName": "Ready", "Value": int(is_ready(report, now)), "Unit": "None"},
        *read_or_omit("the connection table", read_table),
        *read_or_omit("the packet filter's counters", count_drops),
    ]


def read_or_omit(source: str, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the metrics of a source; nothing, and a line in the journal, if it cannot be read or makes no sense."""
    try:
        return read()
    except (OSError, ArithmeticError, LookupError, TypeError, ValueError, subprocess.SubprocessError) as error:
        print(f"{source} could not be read: {error!r}", file=sys.stderr)
        return []


def displaced_sessions(since: int, until: int) -> list[dict[str, Any]]:
    """Return how many sessions ended because another one of the same client began, as a metric; nothing if none did.

    CloudWatch bills a metric for each hour in which it is sent. `since` and `until` are seconds since 1970.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--unit=openvpn-server@*", f"--unit={ROUTES}"]
    command += [
        f"--since=@{since}",
        f"--until=@{until}",
        "--grep=will cause previous active sessions|has ended its session with",
    ]
    try:
        # The exit status is 1 if no line matches.
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"the journal could not be read: {error}", file=sys.stderr)
        return []
    count = len(result.stdout.splitlines())
    return [{"MetricName": "DisplacedSessions", "Value": count, "Unit": "Count"}] if count else []


def read_memory(path: Path) -> dict[str, Any]:
    """Return what the last run has kept; nothing if there was none, or a power cut damaged it."""
    try:
        memory: dict[str, Any] = json.loads(path.read_text())
        loads = [value for key, value in memory.items() if key not in ("day", "until", "drops")]
        counts = [*(count for load in loads for count in load.values()), memory.get("until", 0), memory.get("drops", 0)]
    except (OSError, ValueError, AttributeError):
        return {}
    return memory if all(isinstance(count, int) for count in counts) else {}


def send(region: str, namespace: str, metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Send metrics to CloudWatch; return whether it has taken them, and write a line to the journal if not."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
        cloudwatch = boto3.client("cloudwatch", region_name=region, config=config)
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=metrics)
    except (BotoCoreError, ClientError, OSError) as error:
        print(f"the metrics could not be sent to CloudWatch: {error}", file=sys.stderr)
        return False
    return True


def main() -> int:
    """Send the level's metrics once and return the exit status."""
    try:
        level = LEVEL.read_text().strip()
        env = {key: value for key, _, value in (row.partition("=") for row in ENVIRONMENT.read_text().splitlines())}
        region, namespace = env["REGION"], f"Drawbridge/{env['STACK']}"
    except (OSError, KeyError) as error:
        print(f"nothing says which metrics to send, and where to: {error!r}", file=sys.stderr)
        return 0
    if level == "off":
        return 0
    memory = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/drawbridge-metrics")) / "load.json"
    before, now, metrics = read_memory(memory), datetime.now(UTC), []
    loads: dict[str, dict[str, int]] = {}
    for path in find_sockets():
        instance = path.parent.name.removeprefix("openvpn-")
        try:
            load = query_load(path)
            processes = process_metrics(instance, load, before.get(instance, {}))
        except (OSError, KeyError, ValueError) as error:
            print(f"{instance}: {error!r}", file=sys.stderr)
        else:
            loads[instance] = load
            metrics += processes if level == "full" else []
    today, until = str(now.date()), int(now.timestamp())
    certificates = certificate_metrics(now)
    # Certificates that could not be read are read by the next run, not on the next day.
    after: dict[str, Any] = {**loads, **({"day": today} if certificates else {}), "until": until}
    alarms = None
    with contextlib.suppress(OSError, ValueError):
        alarms = json.loads(ALARMS.read_text())
    if alarms is not None:
        certificates = [*certificates, *client_metrics(alarms["clientsEnd"], now)]
        metrics += alarm_metrics(now, before, after)
    metrics += (
        [*certificates, *waiting_fixes(now)]
        if level == "full"
        else gateway_metrics(loads, before, shares=SHARING.exists())
    )
    # CloudWatch bills a metric for each hour in which it is sent.
    if before.get("day") != today:
        metrics += waiting_fixes(now) if level != "full" else []
        metrics += earliest_end(certificates) if level != "full" or alarms is not None else []
    metrics += displaced_sessions(before.get("until", until - FIRST_PERIOD), until)
    if metrics and send(region, namespace, metrics):
        try:
            memory.write_text(json.dumps(after))
        except OSError as error:
            print(f"the next run will count from an earlier one: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
