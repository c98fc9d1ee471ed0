"""Read a gateway's state and logs: its report and console from AWS; services, sessions and journal over SSH."""

import contextlib
import re
import shlex
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import contract
from drawbridge import errors
from drawbridge.operate import ssh_login
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.leftovers import list_alarms
from drawbridge.operate.ssh_login import SshTarget
from drawbridge.operate.stack_files import LAB
from openvpn.paths import Paths

#: Patterns of the units that run OpenVPN: a server's processes, and a pair's links.
OPENVPN_UNITS = ("openvpn-server@*.service", "drawbridge-link@*.service")

#: The agent forgets what failed before when this file exists.
RETRY_FILE = "/run/drawbridge/retry"

#: Patterns of the units whose journal is shown.
JOURNAL_UNITS = (
    *OPENVPN_UNITS,
    "drawbridge-watch@*.service",
    "drawbridge-client-routes.service",
    "drawbridge-agent.service",
)

#: The agent's runs, each 30 s, and the connections by which it and the metrics ask OpenVPN.
_ROUTINE = re.compile(
    r"systemd\[1\]: ((Starting|Finished) drawbridge-agent\.service|drawbridge-agent\.service: (Deactivated|Consumed))"
    r"|MANAGEMENT: Client (dis)?connected"
)
#: Lines of the journal that are read for each one shown: eight a minute are routine, so 100 lines reach ten hours back.
_READ_PER_LINE = 50

#: States of a report that do not say how the gateway is now, or say that nothing runs.
UNCERTAIN_STATES = ("missing", "pending", "stale", "failed")
#: Lines of the agent, or of what starts it, on a console, as journald writes them.
_CONSOLE_LINE = re.compile(r"drawbridge-agent\[\d+\]: (.*)")
CONSOLE_LINES = 5

#: The agent sends its report every ten minutes; an older one says nothing of now.
REPORT_MAX_AGE = timedelta(minutes=15)

#: Seconds between two looks at the report of a gateway that is waited for.
POLL = 5.0

UNIT_PROPERTIES = ("Id", "ActiveState", "SubState", "ActiveEnterTimestamp", "NRestarts", "MemoryCurrent")

#: OpenVPN's log of a client that connects, with its public address, and of one that ends a former session of its name.
_CONNECTED = re.compile(r"\[([^]]+)\] Peer Connection Initiated with \[AF_INET6?\](?:::ffff:)?(\S+):\d+")
_DISPLACES = re.compile(
    r"new connection by client '([^']+)' (?:will cause previous active|to \S+ has ended its) session"
)

#: Prints these lines of the last 24 hours of its arguments' units; without any, journalctl's exit status is 1.
PRINT_CONNECTIONS = (
    "journalctl --quiet --no-pager --output=cat --since=-24h "
    "--grep='Peer Connection Initiated with|will cause previous active sessions|has ended its session with' "
    '"$@" || true'
)

#: Prints those files of its arguments that exist: a process that is down has no status file.
_PRINT_FILES = 'for file; do [ ! -e "$file" ] || cat "$file"; done'


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSession:
    """One connected client, as in OpenVPN's status file."""

    client: str
    real: str
    """Address and port it comes from."""
    address: str
    """Its address in the tunnel."""
    received: int
    """Bytes from the client."""
    sent: int
    """Bytes to the client."""
    since: datetime


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """The version of a program that runs and the one that is installed; an empty one is not known."""

    running: str = ""
    installed: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftwareReport:
    """The gateway's software: what runs, and what waits for a restart (docs/patches.md)."""

    openvpn: InstalledVersion
    kernel: InstalledVersion
    waiting: Mapping[str, str]
    """What waits, such as a unit, the kernel or a package, with the time since when, ISO 8601."""
    window: str
    """The maintenance window."""
    failure: str
    """Why the last restart failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReport:
    """The last report of the gateway's agent."""

    state: str
    """`ready`, `refused`, `degraded` or `failed` (docs/gateway.md); `pending` before the first run of the agent,
    `missing` if there is no report, `stale` if it says nothing of now.
    """
    release: str
    """SHA-256 of the release that the report is about."""
    reason: str
    """Why it is not ready."""
    time: str
    instance: str = ""
    """EC2 instance that the agent runs on."""
    units: tuple[str, ...] = ()
    """OpenVPN's systemd units, one a process; none if the agent is older than this field."""
    software: SoftwareReport | None = None
    """None if it is not known yet."""
    offloaded: tuple[str, ...] | None = None
    """OpenVPN's instances whose data the kernel carries; None if the stack asks for no data channel offload."""


@dataclass(frozen=True, slots=True)
class DisplacedClient:
    """A client whose bundle connected while it was connected already, so that the former session ended."""

    name: str
    sessions: int
    """Sessions that ended so."""
    addresses: tuple[str, ...]
    """Public addresses that the bundle connected from."""


@dataclass(frozen=True, slots=True)
class ActiveAlarm:
    """An alarm of the stack's that is on."""

    name: str
    text: str
    """What it means."""
    since: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayStatus:
    """The state of a gateway at one moment."""

    address: str
    report: AgentReport
    release: str
    """SHA-256 of the release that the stack asks for."""
    services: Mapping[str, Mapping[str, str]]
    """systemd's properties of each of OpenVPN's units."""
    sessions: tuple[ClientSession, ...]
    """Clients of all processes."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Of a pair's gateway: each link's state in the bond, ``up`` or ``down``."""
    displaced: tuple[DisplacedClient, ...] = ()
    """Clients whose sessions ended in the last 24 hours because their bundles connected once more."""
    alarms: tuple[ActiveAlarm, ...] = ()
    """The stack's alarms that are on, of both gateways of a pair."""
    console: tuple[str, ...] = ()
    """Last lines of the agent on the instance's console, if its report does not say how the gateway is."""
    login_error: str = ""
    """Why the gateway could not be asked over SSH; its services and sessions are unknown then."""
    is_remote: bool = False
    """Whether nobody tried to log in: then the report alone says how the gateway is."""

    @property
    def healthy(self) -> bool:
        """True if all of OpenVPN's units run, on the release that the stack asks for, and all links are up."""
        return (
            self.report.state == "ready"
            and self.report.release == self.release
            and (self.is_remote or {service.get("ActiveState") for service in self.services.values()} == {"active"})
            and {*self.links.values()} <= {"up"}
        )


@dataclass(frozen=True, slots=True)
class GatewayInstance:
    """A gateway's EC2 instance that is not terminated."""

    id: str
    state: str
    """EC2's name of it, such as `running`."""


def find_instances(account: Account) -> tuple[GatewayInstance, ...]:
    """Return the gateway's instances, found by their tags: one, or none while it is replaced. Raises `AwsError`."""
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in account.names.tags("gateway").items()]
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    with translate_aws_errors(account.stack):
        reservations = account.client("ec2").describe_instances(Filters=filters + alive)["Reservations"]
    return tuple(
        GatewayInstance(instance["InstanceId"], instance["State"]["Name"])
        for reservation in reservations
        for instance in reservation["Instances"]
    )


def find_address(account: Account) -> str:
    """Return the gateway's Elastic IP, found by its tags; raises `NotDeployedError` if there is none."""
    tags = account.names.tags("gateway")
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    with translate_aws_errors(account.stack):
        addresses = account.client("ec2").describe_addresses(Filters=filters)["Addresses"]
    if not addresses:
        raise errors.NotDeployedError(
            f"stack {account.stack} has no gateway here", f"deploy it: {deploy_command(account.stack)}"
        )
    return str(addresses[0]["PublicIp"])


def deploy_command(stack: str) -> str:
    """Return the command that deploys a stack."""
    return "make lab" if stack == LAB else f"pulumi up --stack {stack}"


def ssh_target(account: Account, *, user: str, identity: Path | None) -> SshTarget:
    """Return how to log in to the gateway: its address by tag, its host key from SSM. Raises `AwsError`."""
    return SshTarget(
        host=find_address(account),
        host_key=account.parameter(account.names.ssh_host_key),
        user=user,
        identity=identity or account.identity,
        dial=account.dial,
    )


def wait_ready(account: Account, timeout: float, progress: Callable[[str], None], *, poll: float = POLL) -> AgentReport:
    """Return the agent's report once it is ready on the release that the stack asks for, without SSH.

    `timeout` and `poll`, the time between two looks, are in seconds. Raises `UnreachableError` after that time, or if
    the agent has refused the release, `AwsError` and `MalformedError`.
    """
    end, last = time.monotonic() + timeout, ""
    while True:
        release, state = "", "not deployed"
        try:
            release = str(account.json_parameter(account.names.release).get("sha256", ""))
            report = read_report(account, find_instances(account))
        except errors.NotDeployedError as error:
            state = str(error)
        else:
            if report.state == "ready" and report.release == release:
                return report
            state = " ".join(filter(None, (report.state, report.reason)))
            if report.state == "ready":
                state = f"ready on release {report.release[:12]}, not yet on {release[:12]}"
            if report.state == "refused" and report.release == release:
                raise errors.UnreachableError(
                    f"the gateway of stack {account.stack} is not ready: {state}", "deploy other settings"
                )
        if state != last:
            progress(state)
            last = state
        if time.monotonic() > end:
            raise errors.UnreachableError(
                f"the gateway of stack {account.stack} is not ready after {timeout:.0f} s: {state}",
                "read the agent's last lines on its console: drawbridge gateway status --no-login",
            )
        time.sleep(poll)


def read_status(account: Account, target: SshTarget | None) -> GatewayStatus:
    """Return the gateway's state now, of every OpenVPN process; raises `AwsError` and `MalformedError`.

    Without a target, it is what AWS knows: the agent's report, alarms and console.
    """
    instances = find_instances(account)
    try:
        report = read_report(account, instances)
    except errors.NotDeployedError as error:
        report = AgentReport(state="missing", release="", reason=f"{error}; {error.remedy}", time="")
    status = GatewayStatus(
        address=target.host if target else find_address(account),
        report=report,
        release=str(account.json_parameter(account.names.release).get("sha256", "")),
        services={},
        sessions=(),
        alarms=find_active_alarms(account),
        console=read_console(account, instances) if report.state in UNCERTAIN_STATES else (),
        is_remote=target is None,
    )
    if target is None:
        return status
    try:
        return _read_services(target, status)
    except errors.MalformedError:
        raise
    except errors.GatewayError as error:
        return replace(status, login_error="; ".join(filter(None, (str(error), error.remedy))))


def read_sessions(account: Account, target: SshTarget) -> tuple[ClientSession, ...]:
    """Return the clients that are connected to any of the gateway's OpenVPN processes; raises `AwsError`, and
    `GatewayError`.
    """
    try:
        units = parse_report(account.json_parameter(account.names.report)).units
    except errors.NotDeployedError:
        units = ()
    with ssh_login.connect(target) as shell:
        return _read_status_files(shell, units or _find_units(shell))


def _read_status_files(shell: ssh_login.Shell, units: Iterable[str]) -> tuple[ClientSession, ...]:
    files = [Paths(unit.partition("@")[2].removesuffix(".service")).status for unit in units]
    # Only root and OpenVPN may read the directory, because the management socket in it obeys everybody.
    return parse_sessions(shell.run(shlex.join(["sudo", "-n", "sh", "-c", _PRINT_FILES, "sh", *files])))


def _read_services(target: SshTarget, status: GatewayStatus) -> GatewayStatus:
    """Return the status with what the gateway itself says over SSH; raises `GatewayError`."""
    with ssh_login.connect(target) as shell:
        units = status.report.units or _find_units(shell)
        if not units:
            return status
        properties = shell.run(shlex.join(["systemctl", "show", f"--property={','.join(UNIT_PROPERTIES)}", *units]))
        sessions = _read_status_files(shell, units)
        has_links = any(unit.startswith("drawbridge-link@") for unit in units)
        links = shell.run("cat /proc/net/bonding/bond0") if has_links else ""
        journals = [f"--unit={unit}" for unit in (*units, "drawbridge-client-routes.service")]
        connections = shell.run(shlex.join(["sudo", "-n", "sh", "-c", PRINT_CONNECTIONS, "sh", *journals]))
    return replace(
        status,
        services=parse_services(properties),
        sessions=sessions,
        links=parse_links(links),
        displaced=find_displaced(connections),
    )


def find_active_alarms(account: Account) -> tuple[ActiveAlarm, ...]:
    """Return the stack's alarms that are on, by name; raises `AwsError`."""
    with translate_aws_errors(account.stack):
        alarms = list_alarms(account)
    return tuple(
        ActiveAlarm(
            alarm["AlarmName"], alarm.get("AlarmDescription", ""), alarm["StateUpdatedTimestamp"].astimezone(UTC)
        )
        for alarm in sorted(alarms, key=lambda alarm: str(alarm["AlarmName"]))
        if alarm["StateValue"] == "ALARM"
    )


def _find_units(shell: ssh_login.Shell) -> tuple[str, ...]:
    """Return OpenVPN's units that a gateway has loaded, for an agent that has not reported them yet."""
    listing = shell.run(shlex.join(["systemctl", "list-units", "--all", "--plain", "--no-legend", *OPENVPN_UNITS]))
    names = (line.split()[0] for line in listing.splitlines() if line.strip())
    return tuple(sorted(name for name in names if _UNIT.fullmatch(name)))


def parse_services(text: str) -> dict[str, dict[str, str]]:
    """Return the properties of each unit from the output of `systemctl show`, by the unit's name.

    >>> parse_services("Id=a.service\\nActiveState=active\\n\\nId=b.service\\nActiveState=failed\\n")
    {'a.service': {'ActiveState': 'active'}, 'b.service': {'ActiveState': 'failed'}}
    """
    blocks = (
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.strip().split("\n\n")
    )
    return {block.pop("Id", "?"): block for block in blocks}


def is_pair(account: Account) -> bool:
    """Return whether the stack has two gateways."""
    try:
        account.parameter(contract.Names(account.stack, contract.GATEWAYS[1]).release)
    except errors.NotDeployedError:
        return False
    return True


def parse_links(text: str) -> dict[str, str]:
    """Return each slave's state from /proc/net/bonding/bond0, ``up`` or ``down``.

    >>> parse_links("MII Status: up\\nSlave Interface: ovn0\\nMII Status: down\\n")
    {'ovn0': 'down'}
    """
    states, slave = {}, ""
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "Slave Interface":
            slave = value
        elif key == "MII Status" and slave:
            states[slave] = value
    return states


def read_report(account: Account, instances: Iterable[GatewayInstance]) -> AgentReport:
    """Return the agent's last report, `stale` if it is old or not of `instances`; raises `NotDeployedError` if there is
    none yet.
    """
    try:
        report = account.json_parameter(account.names.report)
    except errors.NotDeployedError as error:
        raise errors.NotDeployedError(
            f"the gateway of stack {account.stack} has not reported yet",
            f"wait two minutes after {deploy_command(account.stack)}; then read the console of its instance",
        ) from error
    return mark_stale(parse_report(report), datetime.now(UTC), {instance.id for instance in instances})


def read_console(account: Account, instances: Iterable[GatewayInstance]) -> tuple[str, ...]:
    """Return the agent's last lines on the consoles of a gateway's instances, as AWS has them; raises `AwsError`.

    The agent prints there what keeps it from running and reporting, each change once.
    """
    output = ""
    ec2 = account.client("ec2")
    for instance in instances:
        with translate_aws_errors(account.stack):
            try:
                answer = ec2.get_console_output(InstanceId=instance.id, Latest=True)
            except ec2.exceptions.ClientError as error:
                # Only instances on Nitro have the latest output, as all current types are.
                if error.response["Error"]["Code"] != "UnsupportedOperation":
                    raise
                answer = ec2.get_console_output(InstanceId=instance.id)
        output += answer.get("Output", "")
    return find_console_lines(output)


def find_console_lines(output: str) -> tuple[str, ...]:
    """Return the agent's last lines in the output of a console.

    >>> find_console_lines("[    1.5] drawbridge-agent[9]: failed: no agent: no route\\r\\n[ OK ] Reached target\\r\\n")
    ('failed: no agent: no route',)
    """
    return tuple(line.strip() for line in _CONSOLE_LINE.findall(output))[-CONSOLE_LINES:]


def mark_stale(report: AgentReport, now: datetime, instances: Collection[str]) -> AgentReport:
    """Return the report as it is, or as `stale` if it is older than `REPORT_MAX_AGE` at `now`, or of another instance.

    A report without a time is not the agent's, and stays as it is: the deployment writes one before the agent runs.
    """
    last = f"{report.state} {report.reason}".strip()
    if report.instance and report.instance not in instances:
        current = ", ".join(sorted(instances)) or "missing"
        reason = f"the last report is of instance {report.instance}, the gateway's is {current}: {last}"
        return replace(report, state="stale", reason=reason)
    try:
        age = now - datetime.fromisoformat(report.time).astimezone(UTC)
    except (ValueError, OverflowError):
        return report
    if age <= REPORT_MAX_AGE:
        return report
    return replace(report, state="stale", reason=f"the last report is of {report.time}: {last}")


def parse_report(report: Mapping[str, Any]) -> AgentReport:
    """Return the report that a JSON object holds; raises `MalformedError` if its units are not OpenVPN's."""
    texts = {key: str(report.get(key) or "") for key in ("state", "release", "reason", "time", "instance")}
    units = report.get("units") or []
    if not isinstance(units, list) or not all(isinstance(unit, str) and _UNIT.fullmatch(unit) for unit in units):
        raise errors.MalformedError("the gateway's report does not name OpenVPN's units", _DISTRUST)
    offloaded = report.get("offloaded")
    return AgentReport(
        **texts,
        units=tuple(units),
        software=parse_software(report.get("software")),
        offloaded=tuple(map(str, offloaded)) if isinstance(offloaded, list) else None,
    )


def parse_software(software: object) -> SoftwareReport | None:
    """Return the part of a report that describes the software; None if there is none, or not in that format."""
    if not isinstance(software, Mapping) or not software:
        return None
    versions = {}
    for name in ("openvpn", "kernel"):
        pair = software.get(name)
        texts = pair if isinstance(pair, Mapping) else {}
        versions[name] = InstalledVersion(str(texts.get("running") or ""), str(texts.get("installed") or ""))
    waiting = software.get("waiting")
    return SoftwareReport(
        **versions,
        waiting={str(name): str(since) for name, since in waiting.items()} if isinstance(waiting, Mapping) else {},
        window=str(software.get("window") or ""),
        failure=str(software.get("failure") or ""),
    )


def days_waiting(software: SoftwareReport, now: datetime) -> float:
    """Return the days that the fix that has waited longest waits; 0 if none does."""
    days = [0.0]
    for since in software.waiting.values():
        with contextlib.suppress(ValueError, OverflowError):
            days.append((now - datetime.fromisoformat(since).astimezone(UTC)).total_seconds() / 86400)
    return max(days)


_DISTRUST = "look at the gateway's journal: drawbridge gateway logs; if it stays so, do not trust the gateway"

#: Names of the units that run OpenVPN.
_UNIT = re.compile(r"(openvpn-server|drawbridge-link)@[a-z0-9]+\.service")


def parse_sessions(text: str) -> tuple[ClientSession, ...]:
    """Return the connected clients from status files of version 3: fields between tabs, in the order of HEADER lines.

    Raises `MalformedError` for a line that is not in that format.
    Source: openvpn(8), `--status-version`. A client still in its handshake has no name (UNDEF) and is left out.
    """
    columns: list[str] = []
    sessions = []
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        if kind == "HEADER" and fields[:1] == ["CLIENT_LIST"]:
            columns = fields[1:]
        elif kind == "CLIENT_LIST":
            session = _parse_session(dict(zip(columns, fields, strict=False)))
            if session.client != "UNDEF":
                sessions.append(session)
    return tuple(sessions)


def _parse_session(row: Mapping[str, str]) -> ClientSession:
    try:
        return ClientSession(
            client=row["Common Name"],
            real=row["Real Address"],
            address=row["Virtual Address"],
            received=int(row["Bytes Received"]),
            sent=int(row["Bytes Sent"]),
            since=datetime.fromtimestamp(int(row["Connected Since (time_t)"]), UTC),
        )
    except (KeyError, ValueError, OverflowError, OSError):
        raise errors.MalformedError("OpenVPN's status file on the gateway is malformed", _DISTRUST) from None


def find_displaced(journal: str) -> tuple[DisplacedClient, ...]:
    """Return the clients in OpenVPN's log whose sessions ended because their bundles connected once more, by name."""
    sessions = Counter(_DISPLACES.findall(journal))
    addresses: dict[str, set[str]] = {}
    for name, address in _CONNECTED.findall(journal):
        addresses.setdefault(name, set()).add(address)
    return tuple(
        DisplacedClient(name, sessions[name], tuple(sorted(addresses.get(name, ())))) for name in sorted(sessions)
    )


def read_logs(target: SshTarget, *, lines: int, follow: bool = False) -> Iterator[str]:
    """Yield the journal of OpenVPN and the agent, oldest first, for ever if `follow`; raises `GatewayError`.

    What is logged each minute while nothing happens is left out, so that a day's events are among a few lines.
    """
    read = lines if follow else lines * _READ_PER_LINE
    command = ["sudo", "-n", "journalctl", "--no-pager", "--output=short-iso", f"--lines={read}"]
    command += [f"--unit={unit}" for unit in JOURNAL_UNITS]
    if follow:
        command.append("--follow")
    with ssh_login.connect(target) as shell:
        journal = shell.lines(shlex.join(command), timeout=None if follow else ssh_login.COMMAND_TIMEOUT)
        events = (line for line in journal if not _ROUTINE.search(line))
        yield from events if follow else deque(events, maxlen=lines)


def retry_release(target: SshTarget) -> None:
    """Have the agent try the stack's release again, whatever failed before; raises `GatewayError`."""
    with ssh_login.connect(target) as shell:
        shell.run(f"sudo -n touch {RETRY_FILE}")
        shell.run("sudo -n systemctl start --no-block drawbridge-agent.service")
