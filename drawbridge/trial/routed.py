"""Check what a routed (tun) stack promises by its settings.

A refusal only counts if its counterpart passes: each check of a dropped packet also sends one that must arrive on the
same way.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations
from typing import Any, TypeVar

from drawbridge.trial import hosts
from drawbridge.trial.checks import Check
from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import find_home, find_private_host, free_lan, site_hosts, tunnel_interface
from drawbridge.trial.measure import EchoAnswer, ask_echo, format_rtt, packets_arrive, ping, resolve_name, send_datagram
from lab import region as labs
from settings.model import Client, Settings, Tunnel

_T = TypeVar("_T")

_READY_SECONDS = 240
_TUNNEL_SECONDS = 60
#: Time to wait for a packet that must not arrive.
_DROPPED_SECONDS = 2
_METADATA = IPv4Address("169.254.169.254")
#: An address that no stack file names (TEST-NET-1, RFC 5737), unless it allows all.
_STRANGER = IPv4Address("192.0.2.66")
#: Clients of which every pair is checked.
_ALL_PAIRS = 4
#: Bytes of the transfer that a check times.
_TRANSFER = 4 << 20


def applies(settings: Settings) -> bool:
    """Return whether a stack has this trial: clients on a routed (tun) network."""
    return hosts.applies(settings) and settings.tunnel.device == "tun"


def check_release(deployed: Deployment, *, name: str = "gateway", timeout: float = _READY_SECONDS) -> Check:
    """Check that the gateway reports within `timeout` seconds that it runs the stack's release."""
    promise = f"{name} runs the stack's release"
    report = wait_report(deployed, deployed.outputs["release"], timeout)
    if report.get("state") == "ready" and report.get("release") == deployed.outputs["release"]:
        return Check(True, promise, f"ready {time.monotonic() - deployed.ended:.0f} s after the deployment")
    parts = [report[key] for key in ("state", "reason") if report.get(key)]
    return Check(False, promise, f"not within {timeout:.0f} s: {': '.join(parts) or 'it has not reported'}")


def wait_report(deployed: Deployment, release: str, timeout: float = _READY_SECONDS) -> dict[str, Any]:
    """Wait for the gateway's report about a release and return it; after `timeout` seconds, the last one or nothing."""
    ssm, report = deployed.client("ssm"), dict[str, Any]()
    deadline = time.monotonic() + timeout
    instance = deployed.outputs["gatewayInstanceId"]
    while time.monotonic() < deadline:
        try:
            report = json.loads(ssm.get_parameter(Name=deployed.names.report)["Parameter"]["Value"])
        except (ssm.exceptions.ParameterNotFound, json.JSONDecodeError):
            report = {}
        if report.get("release") == release and report.get("instance") == instance:
            return report
        time.sleep(0.3)
    return report


def check_connectivity(deployed: Deployment) -> Iterator[Check]:
    """Check that each started client reaches the gateway and the private host through its tunnel."""
    private = find_private_host(deployed)
    targets = {"gateway": deployed.outputs["privateIp"], "private host": private.address}
    for client in deployed.clients:
        host = deployed.host(client.name)
        for label, address in targets.items():
            rtt = ping(host, address, _TUNNEL_SECONDS)
            yield Check(rtt is not None, f"{client.name} -> {label} {address}", format_rtt(rtt))


def check_routed(deployed: Deployment) -> Iterator[Check]:
    """Check which hosts reach each other, by which addresses, and which do not."""
    connected = True
    for check in check_connectivity(deployed):
        yield check
        connected = connected and check.ok
    if not connected:
        return  # All other checks would fail for the same reason.
    for client in deployed.clients:
        host = deployed.host(client.name)
        yield from _check_tunnel(deployed, client, host)
        yield from _check_admin(deployed, client, host)
        yield from check_site(deployed, client)
        yield from _names(deployed, client, host)
    for client, peer in list_pairs(deployed.clients):
        yield _check_peers(deployed, client, peer)
    yield from _check_stranger(deployed)


def list_pairs(items: Sequence[_T]) -> list[tuple[_T, _T]]:
    """Return the ordered pairs to check: all of up to four items; of more, each with the next one, both ways."""
    if len(items) <= _ALL_PAIRS:
        return list(permutations(items, 2))
    neighbours = list(zip(items, [*items[1:], items[0]], strict=True))
    return [pair for first, second in neighbours for pair in ((first, second), (second, first))]


def tunnel_address(host: labs.Host, client: Client, tunnel: Tunnel) -> IPv4Address | None:
    """Return a client's current address in the tunnel, None if it has none."""
    shown = host.run(["ip", "-json", "-4", "address", "show", "dev", tunnel_interface(client, tunnel)])
    links = json.loads(shown.stdout or "[]") if shown.returncode == 0 else []
    addresses = [entry["local"] for link in links for entry in link.get("addr_info", [])]
    return IPv4Address(addresses[0]) if addresses else None


@contextmanager
def route_through_tunnel(deployed: Deployment, host: labs.Host, client: Client, address: IPv4Address) -> Iterator[None]:
    """Have a client send packets for an address into the tunnel during the block, whatever was pushed."""
    server = str(deployed.settings.tunnel.pool.network_address + 1)
    route = [f"{address}/32", "via", server, "dev", tunnel_interface(client, deployed.settings.tunnel)]
    host.run(["ip", "route", "replace", *route])
    try:
        yield
    finally:
        host.run(["ip", "route", "delete", *route])


def _check_tunnel(deployed: Deployment, client: Client, host: labs.Host) -> Iterator[Check]:
    settings, private = deployed.settings, find_private_host(deployed)
    name, address = client.name, tunnel_address(host, client, settings.tunnel)
    if client.address:
        yield Check(address == client.address, f"{name} has its address {client.address}", str(address))
    expected = deployed.outputs["privateIp"] if settings.tunnel.nat else str(address)
    yield _check_source(f"{name} -> private host", ask_echo(host, private.address), expected)
    transfer = ask_echo(host, private.address, send=_TRANSFER, take=_TRANSFER, timeout=_TUNNEL_SECONDS)
    complete = transfer is not None and transfer.received == _TRANSFER
    speed = f"{2 * _TRANSFER * 8 / 1e6 / transfer.seconds:.0f} Mbit/s" if transfer else "stuck"
    yield Check(complete, f"{name} <-> private host: {_TRANSFER >> 20} MiB each way", speed)
    with route_through_tunnel(deployed, host, client, _METADATA):
        reached = ask_echo(host, _METADATA, port=80, timeout=_DROPPED_SECONDS)
    yield Check(reached is None, f"{name} -x gateway's metadata {_METADATA}", "dropped" if reached is None else "open")


def _names(deployed: Deployment, client: Client, host: labs.Host) -> Iterator[Check]:
    """Check the names of the private zone at the VPC's resolver, which answers clients behind NAT in the VPC."""
    settings = deployed.settings
    if not (settings.domain and settings.tunnel.nat and settings.tunnel.vpc):
        return
    (vpc,) = deployed.client("ec2").describe_vpcs(VpcIds=[deployed.outputs["vpcId"]])["Vpcs"]
    name, resolver = f"gateway.{settings.domain}", IPv4Network(vpc["CidrBlock"])[2]
    address = resolve_name(host, name, resolver)
    yield Check(address == deployed.outputs["privateIp"], f"{client.name}: {name}", f"{address}, of {resolver}")


def _check_admin(deployed: Deployment, client: Client, host: labs.Host) -> Iterator[Check]:
    """Check that SSH is open exactly from the addresses of the settings."""
    _, public = find_home(deployed, deployed.settings.clients.index(client))
    gateway = deployed.settings.gateway
    allowed = public == gateway.admin_at or any(public in network for network in gateway.admin_from)
    yield _check_ssh(deployed, host, f"{client.name} ({public})", allowed)


def _check_ssh(deployed: Deployment, host: labs.Host, who: str, allowed: bool) -> Check:
    # An SSH server sends its banner first; four bytes of it show that the port is open.
    seconds = _TUNNEL_SECONDS if allowed else _DROPPED_SECONDS
    script = f"timeout {seconds} bash -c 'head -c 4 </dev/tcp/{deployed.outputs['publicIp']}/22'"
    is_open = host.run(["sh", "-c", script], timeout=2 * _TUNNEL_SECONDS).stdout == "SSH-"
    return Check(
        is_open == allowed, f"{who} {'->' if allowed else '-x'} gateway's SSH", "open" if is_open else "dropped"
    )


def _check_peers(deployed: Deployment, client: Client, peer: Client) -> Check:
    """Check that clients reach each other exactly if `clientToClient` is on."""
    allowed = deployed.settings.tunnel.client_to_client
    address = tunnel_address(deployed.host(peer.name), peer, deployed.settings.tunnel)
    rtt = ping(deployed.host(client.name), str(address), _TUNNEL_SECONDS if allowed else _DROPPED_SECONDS)
    promise = f"{client.name} {'->' if allowed else '-x'} {peer.name} {address}"
    return Check((rtt is not None) == allowed, promise, format_rtt(rtt) if allowed or rtt else "dropped")


def check_site(deployed: Deployment, client: Client) -> Iterator[Check]:
    """Check the LAN behind a client: its hosts reach the VPC, and the VPC reaches its declared parts only."""
    private, nat = find_private_host(deployed), deployed.settings.tunnel.nat
    for name, address in site_hosts(deployed.settings, client).items():
        neighbour = deployed.host(name)
        expected = deployed.outputs["privateIp"] if nat else str(address)
        yield _check_source(
            f"{name} {address} -> private host", ask_echo(neighbour, private.address, timeout=10), expected
        )
        allowed = any(address in network for network in client.reachable)
        rtt = ping(private, address, _TUNNEL_SECONDS if allowed else _DROPPED_SECONDS)
        promise = f"private host {'->' if allowed else '-x'} {name} {address}"
        yield Check((rtt is not None) == allowed, promise, format_rtt(rtt) if allowed or rtt else "dropped")
        if allowed:
            yield _check_source(f"private host -> {name}", ask_echo(private, address), private.address)


def _check_stranger(deployed: Deployment) -> Iterator[Check]:
    """Check that an address that no setting names is kept out."""
    gateway, port = deployed.settings.gateway, deployed.settings.tunnel.port
    protocol = deployed.settings.tunnel.protocol
    clients = deployed.clients
    open_to_all = any(_STRANGER in network for network in gateway.allow_from)
    admin_to_all = any(_STRANGER in network for network in gateway.admin_from)
    if (open_to_all and admin_to_all) or not clients:
        return
    host = _start_stranger(deployed)
    public, gateway_host = deployed.outputs["publicIp"], deployed.gateway

    def comes(sender: labs.Host, source: IPv4Address) -> bool:
        packets = f"{protocol} and dst port {port} and src {source}"
        send = partial(send_datagram if protocol == "udp" else _send_syn, sender, public, port)
        return packets_arrive(gateway_host, packets, send, timeout=_DROPPED_SECONDS)

    if not open_to_all:
        client_host = deployed.host(clients[0].name)
        _, public_home = find_home(deployed, deployed.settings.clients.index(clients[0]))
        control = comes(client_host, public_home)
        yield Check(control, f"{clients[0].name} -> tunnel's port {port}", "arrives" if control else "dropped")
        came = comes(host, _STRANGER)
        yield Check(not came, f"stranger ({_STRANGER}) -x tunnel's port {port}", "arrives" if came else "dropped")
    if not admin_to_all:
        yield _check_ssh(deployed, host, f"stranger ({_STRANGER})", allowed=False)


def _start_stranger(deployed: Deployment) -> labs.Host:
    """Start a machine at an address that no setting names; stacks of one region share it."""
    site, machine = "elsewhere", deployed.share_machine("stranger")
    deployed.region.add_site(site, public=_STRANGER, lan=free_lan(deployed.settings, 0))
    host = deployed.region.add_host(machine, site=site)
    host.wait_booted()
    return host


def _send_syn(host: labs.Host, address: str, port: int) -> None:
    """Send the first packet of a TCP connection."""
    host.run(["timeout", "2", "bash", "-c", f": </dev/tcp/{address}/{port}"])


def _check_source(promise: str, answer: EchoAnswer | None, expected: str) -> Check:
    """Check the source address that the other end sees."""
    source = answer.source if answer else "no answer"
    return Check(source == expected, f"{promise}, seen as {expected}", source)
