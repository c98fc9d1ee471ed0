"""drawbridge gateway …"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TypeVar

import click

from contract import GATEWAYS
from drawbridge.commands import options, output, path_table, rotation
from drawbridge.doctor import client_machine, machine_reader, path_checks, path_reader
from drawbridge.operate import bundle_probe, connection_log, gateway_status, rotations
from drawbridge.operate.account import Account
from drawbridge.operate.gateway_status import AgentReport, SoftwareReport
from drawbridge.operate.lab_account import connect
from drawbridge.operate.ssh_login import SshTarget

#: How far back the journal is read in CloudWatch Logs.
JOURNAL_PERIOD = timedelta(days=7)

F = TypeVar("F", bound=Callable[..., Any])


def _login(command: F) -> F:
    """Add the options of every command that logs in to the gateway."""
    second = click.option("--second", is_flag=True, help="The second gateway of a pair.")
    return options.of_account(second(options.login(command)))


def _find_target(
    stack: str, region: str | None, user: str, identity: Path | None, second: bool
) -> tuple[Account, SshTarget]:
    account = replace(connect(stack, region=region), gateway=GATEWAYS[1 if second else 0])
    return account, gateway_status.ssh_target(account, user=user, identity=identity)


@click.group()
def gateway() -> None:
    """Look at a gateway: status, logs, reachability."""


@gateway.command()
@_login
@click.option(
    "--wait",
    "patience",
    callback=options.optional_period,
    help="Wait until its report says that it is ready on the stack's release, at most so long, such as 10m.",
)
@click.option("--no-login", is_flag=True, help="Do not log in to the gateway: go by its report and by AWS.")
@options.json
def status(
    stack: str,
    region: str | None,
    user: str,
    identity: Path | None,
    second: bool,
    patience: timedelta | None,
    no_login: bool,
    wants_json: bool,
) -> None:
    """Show what the gateway runs and who is connected.

    Exit 0 if its state is ready, on the stack's release, and all its processes and links are up; else exit 1.
    """
    account = replace(connect(stack, region=region), gateway=GATEWAYS[1 if second else 0])
    if patience is not None:
        with output.progress() as progress:
            gateway_status.wait_ready(account, patience.total_seconds(), progress, poll=gateway_status.POLL)
    target = None if no_login else gateway_status.ssh_target(account, user=user, identity=identity)
    state = gateway_status.read_status(account, target)
    if wants_json:
        output.print_line(output.as_json(state))
    else:
        output.table(
            ("", state.address),
            [
                ("state", " ".join(filter(None, (state.report.state, state.report.reason)))),
                ("release", f"{state.report.release[:12]} (the stack's: {state.release[:12]})"),
                *(
                    (unit.removesuffix(".service"), _describe_service(state.services[unit]))
                    for unit in sorted(state.services)
                ),
                ("reported", state.report.time),
                *_describe_offload(state.report),
                *(_describe_software(state.report.software) if state.report.software else ()),
                *([("login", state.login_error)] if state.login_error else []),
                *((f"link {tap}", status) for tap, status in sorted(state.links.items())),
                *(
                    (f"ALARM {alarm.name}", f"{alarm.text} since {alarm.since:%Y-%m-%d %H:%MZ}")
                    for alarm in state.alarms
                ),
            ],
        )
    if not wants_json and state.console:
        output.print_line("\nthe agent's last lines on the instance's console:")
        for line in state.console:
            output.print_line(f"  {line}")
    if not wants_json and not state.links and not state.login_error and not state.is_remote:
        output.print_line()
        output.table(
            ("client", "address", "from", "since", "received", "sent"),
            [
                (s.client, s.address, s.real, f"{s.since:%Y-%m-%d %H:%M:%S}Z", str(s.received), str(s.sent))
                for s in state.sessions
            ],
        )
        if state.displaced:
            output.print_line("\nbundles that connected again while they were connected, in the last 24 hours:")
            output.table(
                ("client", "sessions ended", "addresses"),
                [(client.name, str(client.sessions), " ".join(client.addresses)) for client in state.displaced],
            )
            output.print_line(
                "A bundle that is in use twice does so, and a client that changes networks: see docs/stolen.md."
            )
    if not state.healthy:
        raise SystemExit(1)


def _describe_offload(report: AgentReport) -> list[tuple[str, str]]:
    """Return a row that says where the data is carried, if the stack asks for data channel offload."""
    if report.offloaded is None:
        return []
    kernel = "the kernel" if report.offloaded else "OpenVPN: it is not 2.7, or the kernel has no ovpn"
    return [("data channel", f"carried by {kernel}")]


def _describe_software(software: SoftwareReport) -> list[tuple[str, str]]:
    """Return rows with the versions that run, and the fixes that wait."""
    rows = []
    for name, version in (("openvpn", software.openvpn), ("kernel", software.kernel)):
        running = version.running or "unknown"
        is_current = not version.installed or version.installed == version.running
        rows.append((name, running if is_current else f"{running} runs, {version.installed} is installed"))
    if software.waiting:
        days = gateway_status.days_waiting(software, datetime.now(UTC))
        rows.append(("fixes", f"{', '.join(software.waiting)} for {days:.1f} days, until {software.window} UTC"))
    if software.failure:
        rows.append(("failure", software.failure))
    return rows


def _describe_service(properties: Mapping[str, str]) -> str:
    """Return a unit's state for people."""
    states = " ".join(properties.get(name, "?") for name in ("ActiveState", "SubState"))
    since = properties.get("ActiveEnterTimestamp")
    return f"{states}, since {since}" if since else states


@gateway.command()
@_login
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(min=0), help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Show new lines as they come, until Ctrl-C.")
@click.option(
    "--no-login", is_flag=True, help="Do not log in to the gateway: show the errors that CloudWatch Logs has of it."
)
def logs(
    stack: str,
    region: str | None,
    user: str,
    identity: Path | None,
    second: bool,
    lines: int,
    follow: bool,
    no_login: bool,
) -> None:
    """Show the journal of OpenVPN and of the gateway's agent.

    Without a login, it shows the agent's lines, systemd's warnings and OpenVPN's own errors of the last seven days,
    which the gateway sends to its connection log within two minutes.
    """
    if no_login:
        if follow:
            raise click.UsageError("--follow needs a login: leave out --no-login")
        account = replace(connect(stack, region=region), gateway=GATEWAYS[1 if second else 0])
        for entry in connection_log.read_journal(account, lines, JOURNAL_PERIOD):
            output.print_line(f"{entry.time:%Y-%m-%dT%H:%M:%SZ} {entry.unit}: {entry.message}")
        return
    _, target = _find_target(stack, region, user, identity, second)
    # Ctrl-C is how following ends; it is not a failure.
    with suppress(KeyboardInterrupt) if follow else nullcontext():
        for line in gateway_status.read_logs(target, lines=lines, follow=follow):
            output.print_line(line, nl=False)


@gateway.command()
@_login
def retry(stack: str, region: str | None, user: str, identity: Path | None, second: bool) -> None:
    """Have the gateway try the stack's release again, also one that it has refused.

    If the release fails again, clients may lose their connection for some seconds.
    """
    _, target = _find_target(stack, region, user, identity, second)
    gateway_status.retry_release(target)
    output.print_line(f"the gateway tries again; see `drawbridge gateway status --stack {stack}`")


@gateway.command()
@options.stack
@options.preview
def rotate(stack: str, preview: bool) -> None:
    """Have the next `pulumi up` replace the gateway's keys, and print the steps; of a pair, both gateways' keys.

    New are the server's key, the tls-crypt-v2 key and the SSH host key. Every client needs its bundle again.
    """
    rotation.order(lambda: rotations.plan_gateway_rotation(stack, datetime.now(UTC)), stack, preview=preview)


@gateway.command()
@click.argument("bundle", type=options.InputFile())
@click.option("--stack", envvar="DRAWBRIDGE_STACK", help="The bundle's stack; AWS is then asked as well.")
@options.region
@options.json
def probe(bundle: Path, stack: str | None, region: str | None, wants_json: bool) -> None:
    """Report within five seconds whether a client's BUNDLE gets through to its gateway, or why not.

    It makes no tunnel, needs no root, and ends no session. Exit 1 if the bundle does not get through.
    """
    account = connect(stack, region=region) if stack else None
    verdict = bundle_probe.probe_from_account(bundle_probe.read_bundle(bundle), account)
    if wants_json:
        output.print_line(output.as_json(verdict))
    else:
        output.print_line(f"{verdict.state}: {verdict.finding} ({verdict.remote}, {verdict.seconds:.1f} s)")
        if not verdict.fine:
            output.print_line(f"  -> {verdict.remedy}")
    if not verdict.fine:
        raise SystemExit(1)


@gateway.command()
@click.argument("client", required=False)
@click.option(
    "--bundle",
    type=options.InputFile(),
    help="The bundle that the client has; otherwise the one that the stack has for it.",
)
@click.option("--from", "source", type=options.Address(), help="The client's public address.")
@click.option(
    "--to",
    "target",
    type=options.HostAddress(),
    help="Private IPv4, or IPv6 address of the host at the end.",
)
@click.option("--port", callback=options.service, help="Port of that host: 443, or 53/udp.")
@click.option(
    "--here",
    "is_client",
    is_flag=True,
    help="This machine is the client's: judge its routes, path and name servers too.",
)
@click.option(
    "--machine",
    type=options.InputFile(),
    help="What the client's own machine has printed of itself (docs/troubleshooting.md).",
)
@click.option("--no-probe", is_flag=True, help="Do not probe the bundle from here.")
@click.option("--second", is_flag=True, help="The second gateway of a pair, where no client is named.")
@options.of_account
@options.json
def doctor(
    client: str | None,
    bundle: Path | None,
    source: IPv4Address | None,
    target: IPv4Address | IPv6Address | None,
    port: tuple[str, int] | None,
    is_client: bool,
    machine: Path | None,
    no_probe: bool,
    second: bool,
    stack: str,
    region: str | None,
    wants_json: bool,
) -> None:
    """Walk the path from CLIENT to a host, and name the first broken hop and what to do.

    It reads AWS and changes nothing; it needs no SSH. Exit 1 if a hop is broken.
    """
    if port and target is None:
        raise click.UsageError("--port is of a host: name it with --to")
    if bundle and client is None:
        raise click.UsageError("--bundle is a client's: name the client")
    if is_client and machine:
        raise click.UsageError("use --here or --machine, not both")
    account = replace(connect(stack, region=region), gateway=GATEWAYS[1 if second else 0])
    protocol, number = port or (None, None)
    query = path_reader.PathQuery(
        client=client,
        bundle=bundle_probe.read_bundle(bundle) if bundle else None,
        source=source,
        target=target if isinstance(target, IPv4Address) else None,
        target6=target if isinstance(target, IPv6Address) else None,
        target_protocol=protocol,
        target_port=number,
        machine=_read_machine(is_client, machine),
        measures_path=is_client,
        probes=not no_probe,
    )
    results = path_checks.judge_path(path_reader.read_snapshot(account, query))
    if wants_json:
        output.print_line(output.as_json(results))
    else:
        path_table.print_path(results)
    if path_checks.find_first_broken(results):
        raise SystemExit(1)


def _read_machine(is_client: bool, path: Path | None) -> client_machine.ClientMachine | None:
    """Return this machine if it is the client's, or the one that a file describes."""
    if is_client:
        return machine_reader.read_own_machine()
    return machine_reader.read_machine(path) if path else None
