"""Judge the gateway's part of a path: OpenVPN, its certificate, and what the gateway forwards."""

from drawbridge.doctor.path_hops import FETCH, LOGS, RESTORE, PathCheck, PathHop
from drawbridge.doctor.path_snapshot import PathSnapshot, Unread, UnreadError, VpcInterface, interface_of, require
from drawbridge.doctor.vpc_rules import Packet, select_rules


def _find_missing_report(path: PathSnapshot) -> str | None:
    report = require(path.report)
    return f"its report is {report.state}: {report.reason}" if report.state in ("missing", "pending") else None


def _find_stale_report(path: PathSnapshot) -> str | None:
    report = require(path.report)
    return report.reason if report.state == "stale" else None


def _find_failed_gateway(path: PathSnapshot) -> str | None:
    report = require(path.report)
    return report.reason or report.state if report.state == "failed" else None


def _find_old_release(path: PathSnapshot) -> str | None:
    report, release = require(path.report), require(path.release)
    if report.state in ("refused", "degraded"):
        return f"{report.state}: {report.reason}"
    if report.state == "ready" and report.release != release.sha256:
        return f"the gateway runs release {report.release[:12]}, the stack's is {release.sha256[:12]}"
    return None


def _find_no_listener(path: PathSnapshot) -> str | None:
    return path.verdict.finding if path.verdict and path.verdict.state == "nothing" else None


def _find_ended_server_certificate(path: PathSnapshot) -> str | None:
    return path.verdict.finding if path.verdict and path.verdict.cause == "server-certificate-ended" else None


def _find_slow_clock(path: PathSnapshot) -> str | None:
    return path.verdict.finding if path.verdict and path.verdict.cause == "clock-behind" else None


def _find_refused_handshake(path: PathSnapshot) -> str | None:
    if path.verdict is None or path.verdict.state == "fine":
        return None
    if path.verdict.state == "configuration":
        return path.verdict.finding
    raise UnreadError(Unread(f"no TLS from here: {path.verdict.finding}"))


def _find_refused_forwarding(path: PathSnapshot) -> str | None:
    destinations = require(path.release).destinations
    if path.target is None or any(path.target in network for network in destinations):
        return None
    return f"the gateway forwards to {', '.join(map(str, destinations)) or 'nothing'}, not to {path.target}"


def _find_unforwarded_range(path: PathSnapshot) -> str | None:
    destinations = require(path.release).destinations
    if path.target is not None or not destinations:
        return None
    missing = [
        str(network)
        for network in require(path.vpc_ranges)
        if not any(network.subnet_of(destination) for destination in destinations)
    ]
    return f"the gateway does not forward to {', '.join(missing)} of the VPC" if missing else None


def _find_refused_egress(path: PathSnapshot) -> str | None:
    peer = path.target or require(path.vpc_ranges)[0][4]
    packet = Packet(peer=peer, protocol=path.target_protocol, port=path.target_port)
    host_groups = path.host.groups if isinstance(path.host, VpcInterface) else ()
    if any(rule.applies(packet, host_groups) for rule in select_rules(require(path.rules), "egress")):
        return None
    return f"{', '.join(interface_of(path).groups)} lets nothing out to {peer}"


GATEWAY_CHECKS = (
    PathCheck(
        "report-missing",
        PathHop.LISTENER,
        "",
        _find_missing_report,
        "wait two minutes after a deployment; then read its console: drawbridge gateway status --stack {stack}",
    ),
    PathCheck(
        "report-stale",
        PathHop.LISTENER,
        "",
        _find_stale_report,
        "read its console: drawbridge gateway status --stack {stack}; if it has hung, reboot the instance",
    ),
    PathCheck("gateway-failed", PathHop.LISTENER, "", _find_failed_gateway, LOGS),
    PathCheck(
        "release-not-in-force",
        PathHop.LISTENER,
        "",
        _find_old_release,
        f"wait a minute after a deployment; then: {LOGS}; drawbridge gateway retry --stack {{stack}}",
    ),
    PathCheck("listener-closed", PathHop.LISTENER, "", _find_no_listener, LOGS),
    PathCheck(
        "server-certificate-ended",
        PathHop.TLS,
        "",
        _find_ended_server_certificate,
        "pulumi up --stack {stack} renews it, and OpenVPN restarts within a minute; bundles stay as they are",
    ),
    PathCheck("clock-behind", PathHop.TLS, "", _find_slow_clock, "set this machine's clock, or start its NTP client"),
    PathCheck("handshake-refused", PathHop.TLS, "", _find_refused_handshake, f"fetch the bundle again: {FETCH}"),
    PathCheck(
        "forwarding-refused",
        PathHop.FORWARDING,
        "FIREWALL_RULES_RESTRICTION",
        _find_refused_forwarding,
        "add its network to drawbridge:tunnel.routes; then: pulumi up --stack {stack}",
    ),
    PathCheck(
        "range-not-forwarded",
        PathHop.FORWARDING,
        "FIREWALL_RULES_RESTRICTION",
        _find_unforwarded_range,
        "the VPC has a range that the release does not know: pulumi up --stack {stack}",
    ),
    PathCheck("group-outbound", PathHop.FORWARDING, "ENI_SG_RULES_MISMATCH", _find_refused_egress, RESTORE),
)
