"""Check the administrator's own way to the gateway: SSH from an allowed address, with the stack's key."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from drawbridge import errors
from drawbridge.operate import ssh_login
from drawbridge.operate.account import dial
from drawbridge.operate.gateway_status import ssh_target
from drawbridge.operate.lab_account import operator_key
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment, name_own_machine
from drawbridge.trial.hosts import find_home, list_from
from images import DEFAULT_IMAGE, IMAGES
from lab import linux
from settings.model import Settings

#: Name of the machine on the Internet that the administrator logs in from, where no client is at an allowed address.
ADMIN = "admin"


def check_login(deployed: Deployment) -> Iterator[Check]:
    """Check that the operator logs in to the gateway from an address that the settings allow; nothing without one."""
    if not (allowed := list_admin_addresses(deployed.settings)):
        return
    public, namespace = _find_workplace(deployed, allowed)

    def dial_there(host: str, port: int, timeout: float) -> socket.socket:
        return linux.within(namespace, lambda: dial(host, port, timeout))

    user = IMAGES.get(deployed.settings.gateway.image, IMAGES[DEFAULT_IMAGE]).login_user
    account = replace(deployed.account, dial=dial_there, identity=operator_key(deployed.region))
    promise = f"administrator ({public}) -> gateway's SSH, as {user}"
    try:
        target = ssh_target(account, user=user, identity=None)
        with ssh_login.connect(target) as shell:
            name = shell.run("id -un").strip()
    except (errors.GatewayError, errors.AwsError) as error:
        yield Check(False, promise, str(error))
        return
    yield Check(name == user, promise, f"logged in as {name}")


def list_admin_addresses(settings: Settings) -> list[IPv4Address]:
    """Return addresses that may use SSH, up to 256 of each range."""
    gateway = settings.gateway
    ranges = [address for network in gateway.admin_from for address in list_from(network, network.num_addresses // 2)]
    return [*([gateway.admin_at] if gateway.admin_at else []), *ranges]


def _find_workplace(deployed: Deployment, allowed: list[IPv4Address]) -> tuple[IPv4Address, str]:
    """Return an allowed address and the namespace of a machine there: a client's, or one that is started for it."""
    gateway = deployed.settings.gateway
    for client in deployed.clients:
        _, public = find_home(deployed, deployed.settings.clients.index(client))
        if public == gateway.admin_at or any(public in network for network in gateway.admin_from):
            return public, deployed.host(client.name).namespace
    status = deployed.region.status()
    used = {site["public"] for site in status["sites"]} | {host["address"] for host in status["hosts"]}
    public = next((address for address in allowed if str(address) not in used), allowed[0])
    machine = deployed.name_machine(name_own_machine(deployed.settings, ADMIN))
    host = deployed.region.add_internet_host(machine, address=public)
    return IPv4Address(host.address), host.namespace
