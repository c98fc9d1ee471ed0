"""Read a snapshot of the path from a client to a host in the VPC: from AWS, and by a probe of the client's bundle.

Nothing is changed. A part that AWS refuses to show stays unread, and the rest is read all the same.
"""

import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from typing import Any, TypeVar

from drawbridge import errors
from drawbridge.doctor.client_machine import SMALLEST_PATH, ClientMachine
from drawbridge.doctor.ipv6_path_reader import read_ipv6_path
from drawbridge.doctor.machine_reader import measure_path, read_segment_size
from drawbridge.doctor.path_snapshot import ClientRecord, ElasticIp, Ipv6Path, PathSnapshot, Unread, VpcInterface
from drawbridge.doctor.vpc_reader import parse_acl, parse_route_table, parse_rules
from drawbridge.doctor.vpc_rules import IngressEgressRule, SubnetAcl, VpcRouteTable
from drawbridge.operate import bundle_probe, bundles, client_states, connection_log, gateway_status
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.deployed_release import DeployedRelease, read_release
from drawbridge.operate.gateway_status import AgentReport
from drawbridge.operate.revoked_certificates import list_revoked
from drawbridge.operate.stack_files import configured_clients
from drawbridge.operate.stored_bundles import read_stored_bundle
from openvpn.bundle import BundleError, certificate_of, check_complete, has_same_keys, remote_of, with_port
from openvpn.model import packet_size
from openvpn.pull_filter import accepted_options, own_address
from pki.authority import Certificate, PkiError

T = TypeVar("T")

#: How far the connection log is read back for the client's last session or refusal.
LOG_PERIOD = timedelta(days=7)

_DNS_PORT = 53
_REMOTE = re.compile(r"^remote (\S+) ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PathQuery:
    """A path that is to be examined: its client, and the host at its end."""

    client: str | None = None
    """Name of the client; without one the path begins at the Internet."""
    bundle: str | None = None
    """Text of the bundle that the client has; without it, the one that the stack has for the client."""
    source: IPv4Address | None = None
    """The client's public address; without it, the one that the connection log last saw."""
    target: IPv4Address | None = None
    """Private address of the host that the client wants to reach."""
    target6: IPv6Address | None = None
    """The host's IPv6 address, if it is named by that."""
    target_protocol: str | None = None
    target_port: int | None = None
    machine: ClientMachine | None = None
    """The client's own machine, if it was read."""
    measures_path: bool = False
    """Whether this machine is the client's, so that the way to the gateway is measured from here."""
    probes: bool = True
    """Whether the bundle is probed from here."""


def read_snapshot(account: Account, query: PathQuery) -> PathSnapshot:
    """Return what is known of a path now.

    A client's own machine may lack AWS credentials: with a machine and a bundle, parts that need them stay unread. Else
    raises `CredentialsError`. Raises `NotDeployedError` for a stack that is not deployed, or a client that it does not
    have and never had, and `BundleFileError` for a bundle that is damaged.
    """
    if query.machine is None or query.bundle is None:
        _require_stack(account)
    now = datetime.now(UTC)
    client: ClientRecord | Unread | None = None
    bundle = query.bundle
    if query.client is not None:
        account, client, bundle = _read_client(account, query.client, query.bundle)
    session, refusal = _read_connections(account, query.client, now)
    instances = _read(lambda: gateway_status.find_instances(account))
    interface = _read(lambda: _find_interface(account, _tag_filters(account)))
    vpc = _read_vpc(account, interface)
    host, host_state, host_rules = _read_host(account, interface, query.target)
    elastic_ip, resolved = _read(lambda: _find_elastic_ip(account)), _resolve(client)
    release = _read(lambda: read_release(account))
    segment_size = _read_segment_size(query, client) if query.measures_path else None
    source = query.source or _last_origin(session) or _find_peer(account, release)
    return PathSnapshot(
        stack=account.stack,
        now=now,
        client=client,
        source=source,
        target=query.target,
        target6=query.target6,
        ipv6=_read_ipv6(account, interface, release, query.target6),
        target_protocol=query.target_protocol,
        target_port=query.target_port,
        resolved=resolved,
        elastic_ip=elastic_ip,
        interface=interface,
        instances=instances,
        impaired=_read_impairments(account, instances),
        internet_gateways=vpc.internet_gateways,
        vpc_ranges=vpc.ranges,
        subnets=vpc.subnets,
        route_tables=vpc.route_tables,
        acls=vpc.acls,
        rules=_read_rules(account, interface),
        host=host,
        host_state=host_state,
        host_rules=host_rules,
        release=release,
        report=_read_report(account, instances),
        session=session,
        refusal=refusal,
        machine=query.machine,
        path_sizes=_measure_path(resolved, release, segment_size) if query.measures_path else {},
        segment_size=segment_size,
        verdict=_probe(account, bundle, release) if query.probes and bundle else None,
    )


def _require_stack(account: Account) -> None:
    """Raise `NotDeployedError` for a stack that is not deployed, and `CredentialsError`."""
    try:
        account.parameter(account.names.release)
    except (errors.NotDeployedError, errors.CredentialsError):
        raise
    except errors.AwsError:
        return  # The hops that need it say so.


def _read(call: Callable[[], T]) -> T | Unread:
    """Return what a call reads, or why it does not."""
    try:
        return call()
    except (errors.AwsError, errors.MalformedError) as error:
        reason = "; ".join(filter(None, (str(error), error.remedy)))
        return Unread(reason, error.permission if isinstance(error, errors.AccessDeniedError) else "")


# --- the client -------------------------------------------------------------------------------------------------------


def _read_client(account: Account, name: str, bundle: str | None) -> tuple[Account, ClientRecord | Unread, str | None]:
    """Return the account of the gateway that a client connects to, the client, and the bundle that it has."""
    described = None if bundle is None else _describe_client(name, bundle, is_current=True)
    stored: str | Unread | None = None
    for names in account.all_names:
        gateway = account if names == account.names else replace(account, gateway=names.gateway)
        stored = _read(lambda gateway=gateway: _find_bundle(gateway, name))  # type: ignore[misc]  # bound at once
        if stored is not None:
            account = gateway
            break
    if isinstance(stored, Unread):
        return account, described or stored, bundle
    if stored is None:
        return account, _find_former_client(account, name), bundle
    if bundle is None:
        return account, _describe_stored_client(account, name, stored), stored
    return account, _describe_client(name, bundle, is_current=has_same_keys(bundle, stored)), bundle


def _describe_stored_client(account: Account, name: str, bundle: str) -> ClientRecord:
    """Return a client by the bundle that the stack has for it; raises `BundleFileError` if that is damaged."""
    try:
        return _describe_client(name, bundle, is_current=True)
    except errors.BundleFileError as error:
        raise errors.BundleFileError(
            f"the bundle of {name} in stack {account.stack} is damaged",
            f"deploy again: pulumi up --stack {account.stack}",
        ) from error


def _find_bundle(account: Account, name: str) -> str | None:
    with suppress(errors.NotDeployedError):
        return read_stored_bundle(account, account.names, name)
    return None


def _find_former_client(account: Account, name: str) -> ClientRecord | Unread:
    """Return a client that has no bundle; raises `NotDeployedError` if the stack does not know it at all."""
    if name in configured_clients(account.stack):
        return ClientRecord(name=name, state="pending")
    certificates = _read(lambda: list_revoked(account))
    if isinstance(certificates, Unread):
        return certificates
    if revoked := [certificate for certificate in certificates if certificate.name == name]:
        last = max(revoked, key=lambda certificate: certificate.revoked)
        return ClientRecord(
            name=name, state="revoked", revoked=last.revoked, serial=last.serial, not_after=last.not_after
        )
    bundles.read_client(account, name)
    raise AssertionError("a client without a bundle cannot be read")


def _describe_client(name: str, bundle: str, *, is_current: bool) -> ClientRecord:
    try:
        check_complete(bundle)
        certificate = Certificate.read(certificate_of(bundle))
        remote = remote_of(bundle)
    except (BundleError, PkiError):
        raise errors.BundleFileError(
            f"the bundle of {name} is damaged", f"fetch it again: drawbridge client fetch {name} --force"
        ) from None
    if certificate.common_name != name:
        raise errors.BundleFileError(
            f"the bundle belongs to {certificate.common_name}, not to {name}", "name its client, or another file"
        )
    options = [option.split() for option in accepted_options(bundle)]
    return ClientRecord(
        name=name,
        state="enrolled",
        serial=certificate.serial,
        not_after=certificate.not_after,
        remote=remote,
        fallbacks=tuple(_REMOTE.findall(bundle))[1:],
        address=own_address(bundle),
        tunnel_gateway=next((IPv4Address(words[1]) for words in options if words[0] == "route-gateway"), None),
        routes=tuple(IPv4Network("/".join(words[1:3])) for words in options if words[0] == "route" and words[1:]),
        resolver=next((IPv4Address(words[2]) for words in options if words[:2] == ["dhcp-option", "DNS"]), None),
        is_current=is_current,
    )


def _resolve(client: ClientRecord | Unread | None) -> tuple[IPv4Address, ...] | Unread:
    """Return the IPv4 addresses of the host in a client's `remote`; none if the name is not found."""
    if not isinstance(client, ClientRecord) or client.remote is None:
        return ()
    with suppress(AddressValueError):
        return (IPv4Address(client.remote.host),)
    try:
        answers = socket.getaddrinfo(client.remote.host, None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        # Not an answer: this machine has no resolver now.
        return Unread(f"this machine's resolver does not answer: {error}") if error.errno == socket.EAI_AGAIN else ()
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(IPv4Address(str(answer[4][0])) for answer in answers))


def _read_segment_size(query: PathQuery, client: ClientRecord | Unread | None) -> int | None:
    """Return the bytes of the segments that pass through the tunnel from here: to the named host, or the resolver."""
    services = []
    if query.target is not None and query.target_protocol == "tcp" and query.target_port is not None:
        services.append((query.target, query.target_port))
    if isinstance(client, ClientRecord) and client.resolver is not None:
        services.append((client.resolver, _DNS_PORT))
    return next(filter(None, (read_segment_size(*service) for service in services)), None)


def _measure_path(
    resolved: tuple[IPv4Address, ...] | Unread, release: DeployedRelease | Unread, segment_size: int | None
) -> Mapping[int, bool]:
    """Return which sizes of packets pass from here to the address in the client's `remote`."""
    if isinstance(resolved, Unread) or isinstance(release, Unread) or not resolved:
        return {}
    size = packet_size(segment_size, release.frame_header) if segment_size else release.path_mtu
    return measure_path(resolved[0], (SMALLEST_PATH, size))


def _read_connections(
    account: Account, client: str | None, now: datetime
) -> tuple[client_states.SessionState | Unread, ConnectionEvent | Unread | None]:
    """Return the client's session by the connection log, and its last event if that is a refusal."""
    if client is None:
        return client_states.SessionState(), None
    events = _read(lambda: connection_log.read_events(account, LOG_PERIOD, client))
    if isinstance(events, Unread):
        return events, events
    sources = client_states.SessionSources(live=None, events=tuple(events), is_pair=False)
    gateway = "/".join((account.stack, *([account.gateway] if account.gateway != account.all_names[0].gateway else [])))
    session = client_states.describe_session(client, gateway, sources, now)
    return session, events[-1] if events and events[-1].event == "refused" else None


def _last_origin(session: client_states.SessionState | Unread) -> IPv4Address | None:
    origins = () if isinstance(session, Unread) else session.origins
    for origin in origins:
        with suppress(AddressValueError):
            return IPv4Address(origin)
    return None


def _find_peer(account: Account, release: DeployedRelease | Unread) -> IPv4Address | None:
    """Return the address of a pair's other gateway, which is the client; None if this is not a pair's."""
    if isinstance(release, Unread) or not release.is_pair:
        return None
    for names in account.all_names:
        if names != account.names:
            peer = replace(account, gateway=names.gateway)
            elastic_ip = _read(lambda peer=peer: _find_elastic_ip(peer))  # type: ignore[misc]  # bound at once
            return elastic_ip.address if isinstance(elastic_ip, ElasticIp) else None
    return None


def _probe(account: Account, bundle: str, release: DeployedRelease | Unread) -> bundle_probe.Verdict:
    """Return the verdict on a bundle as it is seen from here, without AWS's findings.

    A bond's bundle is for every link, and names the port of the first; the verdict is on the first link that fails.
    """
    verdict = bundle_probe.probe_from(account.namespace, bundle)
    if isinstance(release, Unread) or len(release.links) < 2:
        return verdict
    for listener in release.listeners:
        verdict = bundle_probe.probe_from(account.namespace, with_port(bundle, listener.port))
        if not verdict.fine:
            return replace(verdict, finding=f"link {listener.link}: {verdict.finding}")
    return verdict


# --- the gateway ------------------------------------------------------------------------------------------------------


def _tag_filters(account: Account) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in account.names.tags("gateway").items()]


def _find_elastic_ip(account: Account) -> ElasticIp | None:
    with translate_aws_errors(account.stack):
        addresses = account.client("ec2").describe_addresses(Filters=_tag_filters(account))["Addresses"]
    if not addresses:
        return None
    return ElasticIp(
        address=IPv4Address(addresses[0]["PublicIp"]), interface=str(addresses[0].get("NetworkInterfaceId") or "")
    )


def _find_interface(account: Account, filters: list[dict[str, Any]]) -> VpcInterface | None:
    with translate_aws_errors(account.stack):
        interfaces = account.client("ec2").describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
    if not interfaces:
        return None
    interface = interfaces[0]
    attachment = interface.get("Attachment") or {}
    return VpcInterface(
        id=interface["NetworkInterfaceId"],
        vpc=interface["VpcId"],
        subnet=interface["SubnetId"],
        address=IPv4Address(interface["PrivateIpAddress"]),
        groups=tuple(group["GroupId"] for group in interface["Groups"]),
        source_dest_check=bool(interface["SourceDestCheck"]),
        instance=str(attachment.get("InstanceId") or ""),
        attachment=str(attachment.get("Status") or ""),
    )


def _read_impairments(
    account: Account, instances: tuple[gateway_status.GatewayInstance, ...] | Unread
) -> Mapping[str, str] | Unread:
    """Return the status checks of the gateway's instance that fail."""
    if isinstance(instances, Unread):
        return instances
    running = [instance.id for instance in instances if instance.state == "running"]
    if not running:
        return {}

    def read() -> dict[str, str]:
        with translate_aws_errors(account.stack):
            statuses = account.client("ec2").describe_instance_status(InstanceIds=running)["InstanceStatuses"]
        checks = ((name, status[f"{name.title()}Status"]["Status"]) for status in statuses for name in _STATUS_CHECKS)
        return {name: word for name, word in checks if word == "impaired"}

    return _read(read)


#: EC2's status checks: of the hardware below the instance, and of its system.
_STATUS_CHECKS = ("system", "instance")


def _read_report(
    account: Account, instances: tuple[gateway_status.GatewayInstance, ...] | Unread
) -> AgentReport | Unread:
    if isinstance(instances, Unread):
        return instances

    def read() -> AgentReport:
        try:
            return gateway_status.read_report(account, instances)
        except errors.NotDeployedError as error:
            return AgentReport(state="missing", release="", reason=str(error), time="")

    return _read(read)


# --- the VPC ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Vpc:
    ranges: tuple[IPv4Network, ...] | Unread
    subnets: Mapping[str, IPv4Network] | Unread
    internet_gateways: tuple[str, ...] | Unread
    route_tables: tuple[VpcRouteTable, ...] | Unread
    acls: tuple[SubnetAcl, ...] | Unread


def _read_vpc(account: Account, interface: VpcInterface | Unread | None) -> _Vpc:
    """Return the VPC of the gateway's interface."""
    if not isinstance(interface, VpcInterface):
        unread = interface or Unread(_WITHOUT_INTERFACE)
        return _Vpc(ranges=unread, subnets=unread, internet_gateways=unread, route_tables=unread, acls=unread)
    filters = [{"Name": "vpc-id", "Values": [interface.vpc]}]

    def list_pages(operation: str, key: str, filters: list[dict[str, Any]] = filters) -> list[dict[str, Any]]:
        with translate_aws_errors(account.stack):
            return [
                item
                for page in account.client("ec2").get_paginator(operation).paginate(Filters=filters)
                for item in page[key]
            ]

    def read_ranges() -> tuple[IPv4Network, ...]:
        associations = [
            entry for vpc in list_pages("describe_vpcs", "Vpcs") for entry in vpc["CidrBlockAssociationSet"]
        ]
        return tuple(
            IPv4Network(entry["CidrBlock"])
            for entry in associations
            if entry["CidrBlockState"]["State"] == "associated"
        )

    def read_internet_gateways() -> tuple[str, ...]:
        attached = [{"Name": "attachment.vpc-id", "Values": [interface.vpc]}]
        gateways = list_pages("describe_internet_gateways", "InternetGateways", attached)
        return tuple(gateway["InternetGatewayId"] for gateway in gateways)

    return _Vpc(
        ranges=_read(read_ranges),
        subnets=_read(
            lambda: {
                subnet["SubnetId"]: IPv4Network(subnet["CidrBlock"])
                for subnet in list_pages("describe_subnets", "Subnets")
                if subnet.get("CidrBlock")
            }
        ),
        internet_gateways=_read(read_internet_gateways),
        route_tables=_read(lambda: tuple(map(parse_route_table, list_pages("describe_route_tables", "RouteTables")))),
        acls=_read(lambda: tuple(map(parse_acl, list_pages("describe_network_acls", "NetworkAcls")))),
    )


def _read_ipv6(
    account: Account,
    interface: VpcInterface | Unread | None,
    release: DeployedRelease | Unread,
    target: IPv6Address | None,
) -> Ipv6Path | Unread | None:
    """Return the VPC as packets of IPv6 see it; None if the tunnel has none."""
    if isinstance(release, Unread):
        return release
    if release.clients6 is None:
        return None
    if not isinstance(interface, VpcInterface):
        return interface or Unread(_WITHOUT_INTERFACE)
    return _read(lambda: read_ipv6_path(account, interface, target))


_WITHOUT_INTERFACE = "the gateway has no network interface"


def _read_rules(account: Account, interface: VpcInterface | Unread | None) -> tuple[IngressEgressRule, ...] | Unread:
    """Return the rules of an interface's security groups."""
    if not isinstance(interface, VpcInterface):
        return interface or Unread(_WITHOUT_INTERFACE)

    def read() -> tuple[IngressEgressRule, ...]:
        filters = [{"Name": "group-id", "Values": list(interface.groups)}]
        with translate_aws_errors(account.stack):
            pages = account.client("ec2").get_paginator("describe_security_group_rules").paginate(Filters=filters)
            return tuple(parse_rules(rule for page in pages for rule in page["SecurityGroupRules"]))

    return _read(read)


def _read_host(
    account: Account, interface: VpcInterface | Unread | None, target: IPv4Address | None
) -> tuple[VpcInterface | Unread | None, str | Unread, tuple[IngressEgressRule, ...] | Unread]:
    """Return the interface of the host at an address, its instance's state, and its security groups' rules."""
    if target is None:
        return None, "", ()
    if not isinstance(interface, VpcInterface):
        unread = interface or Unread(_WITHOUT_INTERFACE)
        return unread, unread, unread
    filters = [
        {"Name": "vpc-id", "Values": [interface.vpc]},
        {"Name": "addresses.private-ip-address", "Values": [str(target)]},
    ]
    host = _read(lambda: _find_interface(account, filters))
    if not isinstance(host, VpcInterface):
        return host, host or "", host or ()
    return host, _read(lambda: _read_state(account, host.instance)), _read_rules(account, host)


def _read_state(account: Account, instance: str) -> str:
    if not instance:
        return ""
    with translate_aws_errors(account.stack):
        reservations = account.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    return str(reservations[0]["Instances"][0]["State"]["Name"])
