"""What every routed world keeps: revocation, replacement, reboot, sources, packet sizes.

Shown in worlds `tenant` and `site`. Does not prove that AWS itself accepts what is deployed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Any

import pytest

from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import fetch_bundle, install_kit, neighbours, start_client, tunnel_of
from drawbridge.trial.probes import arrives, ask, ping
from lab.region import Host
from tests.lab import stacks, waiting
from tests.lab.commands import read
from tests.lab.stacks import configuration

TUNNEL = 60.0
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@dataclass
class World:
    """A world's stack, as it is deployed now."""

    deployed: Deployment
    raw: dict[str, Any]

    def up(self, **sections: Any) -> Deployment:
        """Deploy it with other sections, and wait until its gateway runs that."""
        config = {**self.raw, **{f"drawbridge:{key}": value for key, value in sections.items()}}
        made = deploy(self.deployed.region, self.deployed.settings.stack, config, lambda _: None)
        self.deployed = stacks.settled(made)
        return made

    @property
    def name(self) -> str:
        return self.deployed.settings.clients[0].name

    @property
    def client(self) -> Host:
        """The first client's machine, its tunnel up."""
        host = self.deployed.region.host(self.name)
        assert ping(host, self.deployed.outputs["privateIp"], TUNNEL) is not None
        return host

    @property
    def private(self) -> Host:
        return self.deployed.region.host("private-host")

    @property
    def tunnel(self) -> str:
        return tunnel_of(self.deployed.settings.clients[0])


@pytest.fixture(scope="module", params=["tenant", "site"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with stacks.throw_away(request.param) as stack:
        yield World(stack, stacks.of(request.param))


@pytest.mark.seed("9.4")
def test_a_client_that_sends_from_an_address_not_its_own_is_dropped(world: World) -> None:
    client, private, pool = world.client, world.private, world.deployed.settings.tunnel.pool
    # Its own pool, so that only the gateway's OpenVPN can know that it is another's; somebody's outside; the VPC's.
    for forged in (pool.network_address + 99, IPv4Address("198.51.100.99"), IPv4Address(private.address) + 7):
        read(client, "ip", "address", "add", f"{forged}/32", "dev", "lo")
        try:
            command = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", str(forged), private.address]
            send = partial(client.run, command)
            # It leaves the client, and nothing of it comes out of the gateway, under whatever source.
            assert arrives(client, f"icmp and src {forged}", send)
            assert not arrives(private, "icmp[icmptype] == 8", send, timeout=2)
        finally:
            read(client, "ip", "address", "delete", f"{forged}/32", "dev", "lo")
    assert arrives(private, "icmp[icmptype] == 8", lambda: ping(client, private.address, 2)), "the control"


@pytest.mark.seed("9.5")
def test_10_megabytes_pass_a_path_of_1500_bytes(world: World) -> None:
    _transfer(world.client, world.private)


@pytest.mark.seed("9.5")
def test_10_megabytes_pass_a_path_of_1400_bytes(world: World) -> None:
    """A client whose line takes no more, where nothing tells the sender so."""
    clients = [*world.raw["drawbridge:clients"], {"name": "narrow", "at": "203.0.113.99"}]
    stack = world.up(clients=clients)
    number = len(clients) - 1
    narrow = start_client(stack, number, "narrow", mtu=1400)
    assert ping(narrow, world.private.address, TUNNEL) is not None

    too_big = ["ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1380", stack.outputs["publicIp"]]
    assert narrow.run(too_big).returncode != 0, "the control: the line takes no 1,408 bytes"
    _transfer(narrow, world.private)
    world.up()


@pytest.mark.seed("9.2")
def test_the_gateway_is_replaced_and_clients_are_back_with_the_bundle_they_had(world: World) -> None:
    client, before = world.client, world.deployed.outputs
    bundle = read(client, "sha256sum", f"/etc/openvpn/client/{world.name}.conf")
    pid = read(client, "systemctl", "show", "-P", "MainPID", f"openvpn-client@{world.name}")
    gateway = world.raw.get("drawbridge:gateway") or {}
    # Another key of the operator's is other user data, and that means another machine.
    stack = world.up(gateway={**gateway, "sshKey": OTHER_KEY})

    assert stack.outputs["gatewayInstanceId"] != before["gatewayInstanceId"]
    assert {k: stack.outputs[k] for k in ("publicIp", "privateIp", "gatewayInterfaceId")} == {
        k: before[k] for k in ("publicIp", "privateIp", "gatewayInterfaceId")
    }
    # The old one said goodbye, so that nobody waits for keepalive's 120 s of silence.
    log = read(client, "journalctl", "--no-pager", "--unit", f"openvpn-client@{world.name}")
    assert "Connection reset command was pushed by server" in log
    assert ping(client, world.private.address, TUNNEL) is not None
    assert read(client, "sha256sum", f"/etc/openvpn/client/{world.name}.conf") == bundle
    assert read(client, "systemctl", "show", "-P", "MainPID", f"openvpn-client@{world.name}") == pid


@pytest.mark.seed("9.8")
def test_after_a_reboot_the_gateway_is_the_same_and_clients_return(world: World) -> None:
    client, gateway = world.client, world.deployed.gateway
    before, leader = configuration(gateway), gateway.leader
    world.deployed.client("ec2").reboot_instances(InstanceIds=[world.deployed.outputs["gatewayInstanceId"]])
    again = waiting.until(lambda: ((h := world.deployed.gateway).leader != leader and h) or None, 60)
    again.wait_booted(60)

    assert ping(client, world.private.address, TUNNEL) is not None
    assert configuration(again) == before
    for name, address in neighbours(world.deployed.settings.clients[0]).items():
        assert ping(world.deployed.region.host(name), world.private.address, TUNNEL) is not None, address


@pytest.mark.seed("9.1")
def test_a_removed_client_is_cut_off_and_its_name_gets_in_only_with_the_new_bundle(world: World) -> None:
    """Runs last: the client is then another."""
    client, private, stack = world.client, world.private, world.deployed
    config = f"/etc/openvpn/client/{world.name}.conf"
    read(client, "cp", "-p", config, "/etc/openvpn/old.ovpn")
    others = [entry for entry in world.raw["drawbridge:clients"] if entry["name"] != world.name]
    stay = others or [{"name": "somebody", "at": "203.0.113.98"}]
    assert ping(client, private.address, 5) is not None  # its session lives

    deploy(stack.region, stack.settings.stack, {**world.raw, "drawbridge:clients": stay}, lambda _: None)
    waiting.until(lambda: ping(client, stack.outputs["privateIp"], 1) is None, 60)  # cut, within the 60 s
    assert _refused(client, "/etc/openvpn/old.ovpn", stack.outputs["publicIp"])

    world.up(clients=world.raw["drawbridge:clients"])
    assert _refused(client, "/etc/openvpn/old.ovpn", stack.outputs["publicIp"]), (
        "the old bundle, under a name that is good"
    )
    if tunnel_of(stack.settings.clients[0]) == "tun0":
        fetch_bundle(world.deployed, client, world.name)
    else:  # a site's IAM user is another one, too
        install_kit(world.deployed, client, world.name)
    read(client, "systemctl", "restart", f"openvpn-client@{world.name}")
    assert ping(client, private.address, TUNNEL) is not None


def _transfer(client: Host, private: Host) -> None:
    """Ten megabytes each way, in packets that must not be fragmented, as TCP sends them."""
    assert client.run(["sysctl", "-n", "net.ipv4.ip_no_pmtu_disc"]).stdout.strip() == "0"
    size = 10_000_000
    for way in ({"take": size}, {"send": size}):
        answer = ask(client, private.address, timeout=20, **way)
        assert answer is not None and answer.taken == way.get("take", 0)
    assert arrives(client, "tcp and ip[6] & 0x40 != 0", lambda: ask(client, private.address))


def _refused(client: Host, bundle: str, server: str) -> bool:
    """Whether the gateway lets nobody in with a bundle: ten seconds in which it makes no tunnel."""
    command = ["timeout", "10", "openvpn", "--config", bundle, "--dev", "tun9", "--dev-type", "tun", "--verb", "3"]
    said = client.run(command).stdout
    assert server in said, said
    return "Initialization Sequence Completed" not in said
