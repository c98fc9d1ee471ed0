"""Test whether a client's bundle gets through to its gateway, and find the reason if it does not.

A probe needs no privileges, changes nothing and makes no tunnel. OpenVPN does not answer a key that it does not know,
so over UDP a wrong key looks like a port that is blocked on the way. Someone who may read the stack in AWS can have
the two distinguished.
"""

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.gateway_status import find_address, find_instances, read_report
from drawbridge.operate.stored_bundles import read_stored_bundle
from openvpn.bundle import BundleError, Remote, certificate_of, check_complete, has_same_keys, remote_of
from openvpn.handshake import Handshake, ServerCertificateError, Wire, client_key_of
from pki.authority import Certificate, PkiError

#: Seconds that a probe may take, without AWS's answers.
TIME_LIMIT = 5.0
_LOOK_UP = 2.0
_OPEN = 2.5
"""Seconds for the first answer; the rest is for TLS."""

ProbeState = Literal["fine", "configuration", "nothing", "unanswered", "address"]
ProbeCause = Literal["", "server-certificate-ended", "clock-behind"]
ProbeResult = tuple[ProbeState, str, str] | tuple[ProbeState, str, str, ProbeCause]
"""State, what was found, the remedy, and the cause if it has a name of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of a probe."""

    state: ProbeState
    """`fine`: both ends accept each other; `configuration`: OpenVPN answers, and the bundle does not fit it; `nothing`:
    a host answers, and nothing listens on the port; `unanswered`: a host exists, or may exist, and the port is silent;
    `address`: no host answers, or nothing gets through to it.
    """
    remote: str
    """The bundle's `remote`: host, protocol and port."""
    finding: str
    """What the probe saw."""
    remedy: str
    seconds: float
    cause: ProbeCause = ""
    """Why the bundle refuses the gateway's certificate, if it is not the bundle's fault; else empty."""

    @property
    def fine(self) -> bool:
        """True if the bundle works, as far as a probe without a tunnel can see."""
        return self.state == "fine"


def read_bundle(path: Path) -> str:
    """Return a bundle's text; raises `BundleFileError`."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BundleFileError(
            f"{path} cannot be read: {error}", "fetch it: drawbridge client fetch NAME"
        ) from None


def probe_from_account(bundle: str, account: Account | None) -> Verdict:
    """Probe a bundle from where the account's public addresses are reached, and add AWS's findings.

    Raises `BundleFileError`, and `AwsError` if there is an account.
    """
    if account is None:
        return probe_bundle(bundle)
    return add_aws_findings(account, bundle, probe_from(account.namespace, bundle))


def probe_from(namespace: str | None, bundle: str) -> Verdict:
    """Probe a bundle from a network namespace, or from this machine's; raises as `probe_bundle`."""
    if namespace is None:
        return probe_bundle(bundle)
    from lab.linux import within  # Only Linux can import it.

    return within(namespace, lambda: probe_bundle(bundle))


def probe_bundle(bundle: str) -> Verdict:
    """Probe a bundle from here within `TIME_LIMIT` seconds; raises `BundleFileError` for a text that is not a bundle.

    The bundle's keys are used and never shown.
    """
    start = time.monotonic()
    try:
        remote, key = remote_of(bundle), client_key_of(bundle)
        certificate = Certificate.read(certificate_of(bundle))
    except (BundleError, PkiError) as error:
        raise errors.BundleFileError(
            f"this is not a bundle: {error}", "fetch it: drawbridge client fetch NAME"
        ) from None

    def verdict(state: ProbeState, finding: str, remedy: str, cause: ProbeCause = "") -> Verdict:
        where = f"{remote.host} {remote.protocol} {remote.port}"
        seconds = round(time.monotonic() - start, 2)
        return Verdict(state=state, remote=where, finding=finding, remedy=remedy, seconds=seconds, cause=cause)

    if certificate.not_after <= datetime.now(UTC):
        finding = f"the certificate of {certificate.common_name} ended on {certificate.not_after:%Y-%m-%d}"
        return verdict("configuration", finding, _RENEW)
    # Not a `with`, which would wait for a look-up that hangs.
    pool = ThreadPoolExecutor(max_workers=2)
    try:
        try:
            family, address = pool.submit(_look_up, remote).result(_LOOK_UP)
        # UnicodeError: a label of the name is empty or longer than 63 characters.
        except (OSError, UnicodeError, NotYet) as error:
            return verdict("address", f"the name {remote.host} is not found: {error}", _WHERE)
        echo = pool.submit(_answers_echo, family, address[0], start + TIME_LIMIT - 1)
        return verdict(*_try_remote(bundle, remote, client_key_of(bundle), family, address, echo, start))
    finally:
        del key
        pool.shutdown(wait=False, cancel_futures=True)


_WHERE = "compare `remote` in the bundle with the address that drawbridge gateway status shows; fetch the bundle again"
_FETCH = "fetch the bundle again: drawbridge client fetch NAME"
_RENEW = "fetch its bundle again, after a pulumi up if that has ended as well: drawbridge client fetch NAME --force"
_START = "check that the gateway and its OpenVPN run: drawbridge gateway status"
_ASK = "have AWS asked as well: --stack NAME; or try from another network"


def _try_remote(
    bundle: str,
    remote: Remote,
    key: Any,
    family: int,
    address: tuple[Any, ...],
    echo: "Future[bool | None]",
    start: float,
) -> ProbeResult:
    """Return what an attempt at the bundle's `remote` shows."""
    try:
        wire = (_Stream if remote.protocol == "tcp" else _Datagrams)(family, address, start + _OPEN)
    except ConnectionRefusedError:
        return "nothing", f"{address[0]} says that nothing listens on {remote.protocol} {remote.port}", _START
    except TimeoutError:
        return _judge_silence(remote, echo, start)
    except OSError as error:
        return "address", f"there is no way to {address[0]}: {error.strerror or error}", _WHERE
    with closing(wire):
        handshake = Handshake(wire, key)
        try:
            if not handshake.reset(start + _OPEN):
                if remote.protocol == "udp":
                    return _judge_silence(remote, echo, start)
                finding = "something listens, and does not answer the bundle's key"
                return "configuration", finding, _FETCH
            if handshake.secure(bundle, start + TIME_LIMIT - 0.3):
                return "fine", "the gateway and the bundle accept each other", "connect"
        except ServerCertificateError as error:
            return "configuration", *_explain_refusal(str(error))
        except ConnectionRefusedError:
            return "nothing", f"{address[0]} says that nothing listens on {remote.protocol} {remote.port}", _START
        except (EOFError, ConnectionResetError):
            if not handshake.answered:
                return "configuration", "something listens, and hangs up on the bundle's key", _FETCH
        except OSError as error:
            return "address", f"there is no way to {address[0]}: {error.strerror or error}", _WHERE
    finding = "OpenVPN knows the bundle's key, and falls silent at its certificate, as it does for one that is revoked"
    return "configuration", finding, f"is the client still in the stack file? {_FETCH}"


def _explain_refusal(reason: str) -> tuple[str, str, ProbeCause]:
    """Return why the bundle refuses the gateway's certificate, the remedy and the cause; OpenSSL gives the reason."""
    cause: ProbeCause
    match reason:
        # The authority's certificate in the bundle ends after the client's, which has not ended.
        case "certificate has expired":
            finding, remedy = "the gateway's certificate has ended", "renew it: pulumi up --stack NAME"
            cause = "server-certificate-ended"
        case "certificate is not yet valid":
            finding, remedy = "the gateway's certificate is not valid yet", "set this machine's clock"
            cause = "clock-behind"
        case _:
            finding = f"OpenVPN knows the bundle's key and shows a certificate that the bundle refuses: {reason}"
            return finding, _FETCH, ""
    return f"{finding}; this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", remedy, cause


def _judge_silence(remote: Remote, echo: "Future[bool | None]", start: float) -> tuple[ProbeState, str, str]:
    """Return the verdict on a port that does not answer: it depends on whether the host answers pings."""
    try:
        host_answers = echo.result(max(0.1, start + TIME_LIMIT - 0.5 - time.monotonic()))
    except NotYet:
        host_answers = None
    except OSError:
        host_answers = False
    port = f"{remote.protocol} {remote.port}"
    if host_answers is None:
        finding = f"{port} is silent, and this user may not send pings to see whether the host exists"
        return "unanswered", finding, _ASK
    if not host_answers:
        return "address", f"neither {port} nor a ping is answered", _WHERE
    if remote.protocol == "tcp":
        finding = f"a host answers pings, and connections to {port} are dropped on the way or by its firewall"
        return "unanswered", finding, _ASK
    finding = (
        f"a host answers pings, and {port} is silent: either the bundle is another gateway's, since OpenVPN answers no "
        "key that it does not know, or the port is shut on the way"
    )
    return "unanswered", finding, _ASK


def _look_up(remote: Remote) -> tuple[int, tuple[Any, ...]]:
    kind = socket.SOCK_STREAM if remote.protocol == "tcp" else socket.SOCK_DGRAM
    family, _, _, _, address = socket.getaddrinfo(remote.host, remote.port, type=kind)[0]
    return family, address


class _Datagrams:
    """UDP; connected, so that ICMP errors about the port are raised."""

    retransmit_after = 0.7

    def __init__(self, family: int, address: tuple[Any, ...], deadline: float) -> None:
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.connect(address)

    def send(self, packet: bytes) -> None:
        self._socket.send(packet)

    def receive(self, seconds: float) -> bytes | None:
        self._socket.settimeout(max(seconds, 0.001))
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            return None

    def close(self) -> None:
        self._socket.close()


class _Stream:
    """TCP; each packet follows its length."""

    retransmit_after = float("inf")

    def __init__(self, family: int, address: tuple[Any, ...], deadline: float) -> None:
        self._socket = socket.create_connection(address[:2], timeout=deadline - time.monotonic())
        self._buffer = b""

    def send(self, packet: bytes) -> None:
        self._socket.sendall(struct.pack("!H", len(packet)) + packet)

    def receive(self, seconds: float) -> bytes | None:
        self._socket.settimeout(max(seconds, 0.001))
        while len(self._buffer) < 2 or len(self._buffer) < 2 + (size := int.from_bytes(self._buffer[:2], "big")):
            try:
                got = self._socket.recv(65536)
            except TimeoutError:
                return None
            if not got:
                raise EOFError
            self._buffer += got
        packet, self._buffer = self._buffer[2 : 2 + size], self._buffer[2 + size :]
        return packet

    def close(self) -> None:
        self._socket.close()


_: Callable[..., Wire] = _Datagrams
_ = _Stream


def _answers_echo(family: int, address: str, deadline: float) -> bool | None:
    """Return whether a host answers pings, None if this user may not send any."""
    six = family == socket.AF_INET6
    protocol, echo = (socket.IPPROTO_ICMPV6, 128) if six else (socket.IPPROTO_ICMP, 8)
    try:
        icmp = socket.socket(family, socket.SOCK_DGRAM, protocol)
    except OSError:
        return _run_ping(address)
    with closing(icmp):
        icmp.connect((address, 0))
        for number in range(1, 4):
            # The kernel writes the checksum and the identifier (icmp(7)).
            header = struct.pack("!BBHHH", echo, 0, 0, 0, number)
            summed = sum(struct.unpack("!4H", header))
            summed = ~(summed + (summed >> 16)) & 0xFFFF
            with suppress(TimeoutError):
                icmp.settimeout(max(0.001, min(1.0, deadline - time.monotonic())))
                icmp.send(struct.pack("!BBHHH", echo, 0, summed, 0, number))
                return bool(icmp.recv(1024))
    return False


def _run_ping(address: str) -> bool | None:
    """Return the same by the ping program, which may have the privilege that this process lacks."""
    program = shutil.which("ping", path=os.environ.get("PATH", os.defpath))
    if program is None:
        return None
    argv = [program, "-n", "-c", "2", "-i", "0.5", "-W", "1", address]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=5, check=False)
    except PermissionError:
        # Its file has a capability that this process may not grant (capabilities(7), "Safety checking").
        return None
    # 1: no answer; 2: anything else, such as no permission (ping(8)).
    return {0: True, 1: False}.get(done.returncode)


def add_aws_findings(account: Account, bundle: str, verdict: Verdict) -> Verdict:
    """Return a verdict with AWS's findings about the stack's gateway; raises `AwsError`.

    The verdict on a bundle that works stays as it is.
    """
    if verdict.fine:
        return verdict
    for state, finding, remedy in _find_differences(account, bundle):
        return Verdict(state=state, remote=verdict.remote, finding=finding, remedy=remedy, seconds=verdict.seconds)
    finding = (
        f"{verdict.finding}; the bundle is the stack's own, the gateway runs, and its security group has the port open"
    )
    if verdict.state == "configuration":
        # OpenVPN has answered, so nothing in between stops it.
        return replace(verdict, finding=finding)
    remedy = "something between here and AWS stops it: try another network, or tunnel.protocol: tcp on port 443"
    return Verdict(state=verdict.state, remote=verdict.remote, finding=finding, remedy=remedy, seconds=verdict.seconds)


def _find_differences(account: Account, bundle: str) -> Iterator[tuple[ProbeState, str, str]]:
    """Yield the differences from a gateway that works, the most likely cause first."""
    remote, certificate = remote_of(bundle), Certificate.read(certificate_of(bundle))
    name, address = certificate.common_name, find_address(account)
    try:
        current = read_stored_bundle(account, account.names, name)
    except errors.NotDeployedError:
        yield "configuration", f"stack {account.stack} has no client {name}", "add it in the stack file, and deploy"
        return
    try:
        check_complete(current)
        expected, end = remote_of(current), Certificate.read(certificate_of(current)).not_after
    except (BundleError, PkiError):
        finding = f"the bundle of {name} in stack {account.stack} is damaged"
        yield "configuration", finding, f"deploy again: pulumi up --stack {account.stack}"
        return
    fetch = f"drawbridge client fetch {name} --stack {account.stack} --force"
    if certificate.not_after <= (now := datetime.now(UTC)):
        finding = f"the certificate of {name} ended on {certificate.not_after:%Y-%m-%d}"
        if end > now:
            yield "configuration", f"{finding}; its new one is valid until {end:%Y-%m-%d}", fetch
        yield "configuration", f"{finding} and has not been renewed", f"pulumi up --stack {account.stack}, then {fetch}"
    if remote != expected:
        finding = f"the bundle leads to {remote.host} {remote.protocol} {remote.port}, the stack's gateway is at "
        finding += f"{expected.host} {expected.protocol} {expected.port}"
        yield "address" if remote.host != expected.host else "configuration", finding, fetch
    if not has_same_keys(bundle, current):
        yield "configuration", f"the bundle is not the one that {name} has now", fetch
    yield from _find_gateway_fault(account)
    yield from _find_closed_port(account, expected, address)


def _find_gateway_fault(account: Account) -> Iterator[tuple[ProbeState, str, str]]:
    instances = find_instances(account)
    states = [instance.state for instance in instances]
    if states != ["running"]:
        yield "nothing", f"the gateway's instance is {', '.join(states) or 'missing'}", "start it"
    report = read_report(account, instances)
    if report.state != "ready":
        finding = f"the gateway reports: {' '.join(filter(None, (report.state, report.reason)))}"
        yield "nothing", finding, f"drawbridge gateway logs --stack {account.stack}"


def _find_closed_port(account: Account, remote: Remote, address: str) -> Iterator[tuple[ProbeState, str, str]]:
    """Yield whether the security group keeps the port closed, or open to some addresses only."""
    ec2 = account.client("ec2")
    with translate_aws_errors(account.stack):
        elastic_ip = ec2.describe_addresses(PublicIps=[address])["Addresses"][0]
        (interface,) = ec2.describe_network_interfaces(NetworkInterfaceIds=[elastic_ip["NetworkInterfaceId"]])[
            "NetworkInterfaces"
        ]
        groups = [{"Name": "group-id", "Values": [group["GroupId"] for group in interface["Groups"]]}]
        rules = ec2.describe_security_group_rules(Filters=groups)["SecurityGroupRules"]
    open_to = [
        IPv4Network(rule["CidrIpv4"])
        for rule in rules
        if not rule["IsEgress"]
        and rule.get("CidrIpv4")
        and rule["IpProtocol"] == remote.protocol
        and rule["FromPort"] <= remote.port <= rule["ToPort"]
    ]
    if not open_to:
        finding = f"the gateway's security group has {remote.protocol} {remote.port} open to nobody outside"
        yield "unanswered", finding, f"pulumi up --stack {account.stack} restores its rules"
    elif not any(network.prefixlen == 0 for network in open_to):
        finding = f"the security group has the port open to {', '.join(map(str, open_to))} alone"
        yield "unanswered", finding, "come from there, or see drawbridge access allow-me"
