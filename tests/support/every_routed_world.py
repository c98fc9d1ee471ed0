"""Tests that every routed world has to pass (rows 9.x); a module of a world derives its class from this one.

The module has a fixture `world`. They change its stack for good, so they come last. Does not prove that AWS accepts it.
"""

from functools import partial
from ipaddress import IPv4Address
from typing import ClassVar

import pytest

from drawbridge.trial.hosts import run_checked, site_hosts, start_client
from drawbridge.trial.measure import packets_arrive, ping
from tests.support import promises, waiting
from tests.support.promises import World
from tests.support.stacks import configuration_digests

TUNNEL = promises.TUNNEL


class EveryRoutedWorld:
    client: ClassVar[str]
    """Name of the stack file's first client."""
    looks: ClassVar[bool]
    """Whether a revocation waits until the gateway looks by itself, which takes a minute."""

    @pytest.mark.seed("9.4")
    def test_a_client_that_sends_from_an_address_not_its_own_is_dropped(self, world: World) -> None:
        client, private, pool = world.client(self.client), world.private, world.deployed.settings.tunnel.pool
        # Its own pool, so that only the gateway's OpenVPN can know that it is another's; somebody's outside; the VPC's.
        for forged in (pool.network_address + 99, IPv4Address("198.51.100.99"), IPv4Address(private.address) + 7):
            run_checked(client, "ip", "address", "add", f"{forged}/32", "dev", "lo")
            try:
                command = ["ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", str(forged), private.address]
                send = partial(client.run, command)
                # It leaves the client, and nothing of it comes out of the gateway, under whatever source.
                assert packets_arrive(client, f"icmp and src {forged}", send)
                assert not packets_arrive(private, "icmp[icmptype] == 8", send, timeout=2)
            finally:
                run_checked(client, "ip", "address", "delete", f"{forged}/32", "dev", "lo")
        assert packets_arrive(private, "icmp[icmptype] == 8", lambda: ping(client, private.address, 2)), "the control"

    @pytest.mark.seed("9.5")
    def test_10_megabytes_pass_a_path_of_1500_bytes(self, world: World) -> None:
        promises.check_transfer(world.client(self.client), world.private)

    @pytest.mark.seed("9.5")
    def test_10_megabytes_pass_a_path_of_1400_bytes(self, world: World) -> None:
        """A client whose line takes no more, where no router says so."""
        clients = [*world.raw["drawbridge:clients"], {"name": "narrow", "at": "203.0.113.99"}]
        stack = world.deploy_and_wait(clients=clients)
        number = len(clients) - 1
        narrow = start_client(stack, number, "narrow", mtu=1400)
        promises.silence_path_errors(stack.region, "home-narrow")
        assert ping(narrow, world.private.address, TUNNEL) is not None
        promises.check_narrow_line(narrow, 1400)
        promises.check_transfer(narrow, world.private)
        world.deploy_and_wait()

    @pytest.mark.seed("9.2")
    @pytest.mark.fault("3.10")
    def test_the_gateway_is_replaced_and_clients_are_back_with_the_bundle_they_had(self, world: World) -> None:
        promises.check_replacement(world, self.client)

    @pytest.mark.seed("9.8")
    def test_after_a_reboot_the_gateway_is_the_same_and_clients_return(self, world: World) -> None:
        client, gateway = world.client(self.client), world.deployed.gateway
        before, leader = configuration_digests(gateway), gateway.leader
        world.deployed.client("ec2").reboot_instances(InstanceIds=[world.deployed.outputs["gatewayInstanceId"]])
        again = waiting.until(lambda: ((h := world.deployed.gateway).leader != leader and h) or None, 60)
        again.wait_booted(60)

        assert ping(client, world.private.address, TUNNEL) is not None
        assert configuration_digests(again) == before
        for name, address in site_hosts(world.deployed.settings, world.deployed.settings.clients[0]).items():
            assert ping(world.deployed.region.host(name), world.private.address, TUNNEL) is not None, address

    @pytest.mark.seed("9.1")
    @pytest.mark.attack("5.1")
    def test_a_removed_client_is_cut_off_and_its_name_gets_in_only_with_the_new_bundle(self, world: World) -> None:
        """Runs last: the client is then another."""
        every = world.raw["drawbridge:clients"]
        others = [entry for entry in every if entry["name"] != self.client]
        stay = others or [{"name": "somebody", "at": "203.0.113.98"}]
        promises.check_revocation(world, self.client, stay=stay, again=every, looks=self.looks)
