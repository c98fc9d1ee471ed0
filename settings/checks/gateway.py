"""Check which addresses may reach the gateway."""

import re
from collections.abc import Iterator
from ipaddress import collapse_addresses
from typing import assert_never

from settings.draft import Draft, Topology
from settings.maintenance import MINIMUM, parse_window
from settings.model import MAX_PROCESSES
from settings.problems import FORMATS, NAMESPACE, Problem, problem_at
from settings.ssh_key import is_complete

#: Families that run on Xen and not on Nitro, which prefixes of an interface need (Amazon EC2 Instance Types, "Instances
#: built on the AWS Nitro System"; Amazon EC2 User Guide, "Assign prefixes to network interfaces").
XEN_FAMILY = re.compile(r"c[134]|d2|f1|g2|g3s?|h1|i[23]|m[1-4]|p[23]|r[34]|t[12]|x1e?")


def check_allow_from(draft: Draft) -> Iterator[Problem]:
    """Check that each client may reach the tunnel from somewhere; a pair has no clients."""
    if draft.gateway is None or draft.gateway.allow_from or draft.has_pair:
        return
    # A bonded host has several addresses, and without IAM users a kit cannot update a client's.
    has_dynamic_rules = draft.topology is not Topology.BONDED and (draft.iam is None or draft.iam.users != "none")
    if not draft.clients:
        remedy = "add a range" + (", or clients with `at`, their public addresses" if has_dynamic_rules else "")
        yield problem_at("gateway.allowFrom", [], "lets nobody reach the tunnel", remedy)
    if names := [client.name for client in draft.clients.values() if client.at is None]:
        reason = f"keeps these clients from the tunnel: {', '.join(names)}"
        remedy = "add a range" + (", or give each client `at`, its public address" if has_dynamic_rules else "")
        yield problem_at("gateway.allowFrom", [], reason, remedy)


def check_admin_from(draft: Draft) -> Iterator[Problem]:
    """Check that SSH is open to the world only if that is confirmed."""
    if draft.gateway is None or draft.gateway.admin_from_anywhere:
        return
    # Two halves of the world are the world: the number of addresses counts.
    if sum(network.num_addresses for network in collapse_addresses(draft.gateway.admin_from)) >= 2**31:
        remedy = "use your own addresses, or confirm with adminFromAnywhere: true"
        yield problem_at("gateway.adminFrom", draft.gateway.admin_from, "opens SSH to the world", remedy)


def check_credits(draft: Draft) -> Iterator[Problem]:
    """Check that only an instance type that has CPU credits is given a mode of them."""
    gateway = draft.gateway
    if gateway is not None and "credits" in gateway.model_fields_set and not gateway.is_burstable:
        reason = f"has no meaning for {gateway.instance_type}, which is not burstable"
        yield problem_at("gateway.credits", gateway.credits, reason, "remove the key, or use a type such as t4g.nano")


def check_processes(draft: Draft) -> Iterator[Problem]:
    """Check that no links have their processes already, and that there is a port for each."""
    if draft.gateway is None or draft.topology is None or (processes := draft.gateway.processes) == 1:
        return
    match draft.topology:
        case Topology.ROUTED | Topology.SEGMENT:
            most = MAX_PROCESSES if processes == "auto" else processes
            if draft.tunnel and draft.tunnel.port + most - 1 > 65535:
                reason = f"leaves no ports for {most} processes on the gateway"
                yield problem_at("tunnel.port", draft.tunnel.port, reason, f"use {65536 - most} or less")
        case Topology.BONDED:
            reason = "is not possible with two links, which have a process each"
            yield problem_at("gateway.processes", processes, reason, "leave it out")
        case Topology.PAIR:
            reason = "is not possible in a pair, whose two links have a process each"
            yield problem_at("gateway.processes", processes, reason, "leave it out")
        case _:
            assert_never(draft.topology)


def check_maintenance_window(draft: Draft) -> Iterator[Problem]:
    """Check that the window has room for a reboot of each gateway, one after the other."""
    if draft.gateway is None:
        return
    window, minimum = parse_window(draft.gateway.maintenance_window), MINIMUM * (2 if draft.has_pair else 1)
    if window.minutes < minimum:
        text = draft.gateway.maintenance_window
        reason = f"is too short for {'two gateways' if draft.has_pair else 'a reboot'}"
        yield problem_at("gateway.maintenanceWindow", text, reason, f"use {minimum} minutes or more")


def check_hostname(draft: Draft) -> Iterator[Problem]:
    """Check that a hosted zone has a name to get a record for."""
    gateway = draft.gateway
    if gateway is not None and gateway.hosted_zone_id and not gateway.hostname:
        remedy = "add hostname, the name of the record, or leave hostedZoneId out"
        yield problem_at("gateway.hostedZoneId", gateway.hosted_zone_id, "has no name to get a record for", remedy)


def check_ssh_key(draft: Draft) -> Iterator[Problem]:
    """Check that the operator's public key was not cut off when it was copied."""
    key = draft.gateway.ssh_key if draft.gateway else None
    if key is not None and not is_complete(key):
        yield problem_at("gateway.sshKey", key, "is not a whole public key", FORMATS["sshKey"].remedy)


def check_instance_type(draft: Draft) -> Iterator[Problem]:
    """Check that the instance type runs Debian without a host of its own, and has IPv6 prefixes if they are needed."""
    if draft.gateway is None:
        return
    name = draft.gateway.instance_type
    family = name.partition(".")[0]
    if family.startswith("mac"):
        reason = "needs a dedicated host, which the stack does not create"
        yield problem_at("gateway.instanceType", name, reason, "use a type such as t4g.nano")
    elif XEN_FAMILY.fullmatch(family) and draft.tunnel and draft.tunnel.has_ipv6:
        reason = f"takes no IPv6 prefix, which {NAMESPACE}:tunnel.ipv6 needs: it has no Nitro hypervisor"
        yield problem_at("gateway.instanceType", name, reason, "use a type such as t4g.nano or t3.nano")


CHECKS = (
    check_allow_from,
    check_admin_from,
    check_credits,
    check_processes,
    check_maintenance_window,
    check_ssh_key,
    check_instance_type,
    check_hostname,
)
