"""The gateway as its operator sees it: which release it runs, whether OpenVPN is up, who is connected, what it logged.

What the gateway reports by itself (SSM) needs no way to it; the rest is read over SSH.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import contract
from drawbridge import errors
from drawbridge.operate import ssh_login
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.stack_files import LAB
from openvpn.paths import Paths

INSTANCE = "server"
UNIT = f"openvpn-server@{INSTANCE}.service"
#: The processes of a pair's gateway, which has no clients.
LINKS = ("drawbridge-link@ovn0.service", "drawbridge-link@ovn1.service")
JOURNAL_UNITS = ("openvpn-server@*.service", "drawbridge-link@*.service", "drawbridge-watch@*.service",
         "drawbridge-agent.service")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSession:
    """One connected client, as OpenVPN's status file has it."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReport:
    """What the gateway's agent last wrote about itself."""

    state: str
    """`ready`, `refused` (a release, the last good one stays) or `failed`."""
    release: str
    """SHA-256 of the release it speaks of."""
    reason: str
    """Why, where it is not ready."""
    time: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayStatus:
    """A gateway at one moment."""

    address: str
    report: AgentReport
    wanted: str
    """SHA-256 of the release it should run."""
    service: Mapping[str, str]
    """systemd's properties of OpenVPN's unit; of several, one that is not active."""
    sessions: tuple[ClientSession, ...]
    links: Mapping[str, str] = field(default_factory=dict)
    """Of a pair's gateway: each link's state in the bond, ``up`` or ``down``."""

    @property
    def healthy(self) -> bool:
        """Whether OpenVPN runs, on the release the stack asks for, and all links are up."""
        return (
            self.report.state == "ready"
            and self.report.release == self.wanted
            and self.service.get("ActiveState") == "active"
            and {*self.links.values()} <= {"up"}
        )


UNIT_PROPERTIES = ("ActiveState", "SubState", "ActiveEnterTimestamp", "NRestarts", "MemoryCurrent")


def find_address(account: Account) -> str:
    """The gateway's Elastic IP, found by its tags; raises `NotDeployedError` where there is none."""
    tags = account.names.tags("gateway")
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    with translate_aws_errors(account.stack):
        found = account.client("ec2").describe_addresses(Filters=filters)["Addresses"]
    if not found:
        raise errors.NotDeployedError(
            f"stack {account.stack} has no gateway here", f"deploy it: {deploy_command(account.stack)}"
        )
    return str(found[0]["PublicIp"])


def deploy_command(stack: str) -> str:
    """The command that deploys a stack."""
    return "make lab" if stack == LAB else f"pulumi up --stack {stack}"


def ssh_target(account: Account, *, user: str, identity: Path | None) -> ssh_login.SshTarget:
    """How to reach the stack's gateway: address by tag, host key from SSM. Raises `AwsError`."""
    return ssh_login.SshTarget(
        host=find_address(account),
        host_key=account.parameter(account.names.ssh_host_key),
        user=user,
        identity=identity or account.identity,
        dial=account.dial,
    )


def read_status(account: Account, where: ssh_login.SshTarget) -> GatewayStatus:
    """The gateway now; raises `AwsError` and `GatewayError`."""
    report = read_report(account)
    wanted = json.loads(account.parameter(account.names.release))["sha256"]
    paired = is_pair(account)
    with ssh_login.connect(where) as shell:
        shown = shell.run(
            f"systemctl show --property={','.join(UNIT_PROPERTIES)} {' '.join(LINKS if paired else (UNIT,))}"
        )
        # Nobody but root and OpenVPN reads the directory: its socket obeys whoever reaches it.
        sessions = "" if paired else shell.run(f"sudo -n cat {Paths(INSTANCE).status}")
        links = shell.run("cat /proc/net/bonding/bond0") if paired else ""
    services = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.strip().split("\n\n")
    ]
    return GatewayStatus(
        address=where.host,
        report=report,
        wanted=wanted,
        service=min(services, key=lambda service: service.get("ActiveState") == "active"),
        sessions=parse_sessions(sessions),
        links=parse_links(links),
    )


def is_pair(account: Account) -> bool:
    """Whether the stack has two gateways."""
    try:
        account.parameter(contract.Names(account.stack, contract.GATEWAYS[1]).release)
    except errors.NotDeployedError:
        return False
    return True


def parse_links(text: str) -> dict[str, str]:
    """Each slave's state out of /proc/net/bonding/bond0, ``up`` or ``down``.

    >>> parse_links("MII Status: up\\nSlave Interface: ovn0\\nMII Status: down\\n")
    {'ovn0': 'down'}
    """
    found, current = {}, ""
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "Slave Interface":
            current = value
        elif key == "MII Status" and current:
            found[current] = value
    return found


def read_report(account: Account) -> AgentReport:
    """What the agent last reported; raises `NotDeployedError` where it never did."""
    try:
        report = json.loads(account.parameter(account.names.report))
    except errors.NotDeployedError as error:
        raise errors.NotDeployedError(
            f"the gateway of stack {account.stack} has not reported yet",
            f"wait two minutes after {deploy_command(account.stack)}; then read the console of its instance",
        ) from error
    return AgentReport(**{key: str(report.get(key) or "") for key in ("state", "release", "reason", "time")})


def parse_sessions(text: str) -> tuple[ClientSession, ...]:
    """Connected clients out of a status file, version 3: fields parted by tabs, their order told by HEADER lines.

    Source: openvpn(8), `--status-version`. A client still in its handshake has no name (UNDEF) and is left out.
    """
    columns: list[str] = []
    sessions = []
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        if kind == "HEADER" and fields[:1] == ["CLIENT_LIST"]:
            columns = fields[1:]
        elif kind == "CLIENT_LIST":
            row = dict(zip(columns, fields, strict=False))
            if row["Common Name"] == "UNDEF":
                continue
            sessions.append(
                ClientSession(
                    client=row["Common Name"],
                    real=row["Real Address"],
                    address=row["Virtual Address"],
                    received=int(row["Bytes Received"]),
                    sent=int(row["Bytes Sent"]),
                    since=datetime.fromtimestamp(int(row["Connected Since (time_t)"]), UTC),
                )
            )
    return tuple(sessions)


def read_logs(where: ssh_login.SshTarget, *, lines: int, follow: bool = False) -> Iterator[str]:
    """The journal of OpenVPN and the agent, oldest first; `follow` never ends by itself. Raises `GatewayError`."""
    command = ["sudo", "-n", "journalctl", "--no-pager", "--output=short-iso", f"--lines={lines}"]
    command += [f"--unit={unit}" for unit in JOURNAL_UNITS]
    if follow:
        command.append("--follow")
    with ssh_login.connect(where) as shell:
        yield from shell.lines(shlex.join(command), timeout=None if follow else ssh_login.COMMAND_TIMEOUT)
