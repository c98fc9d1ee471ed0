"""Tests that every world with a segment has to pass (rows 9.x); a module of a world derives its class from this one.

The module has a fixture `world`. They change its stack for good, so they come last. Does not prove that AWS accepts it.
"""

from typing import ClassVar

import pytest

from drawbridge.trial.hosts import start_client
from tests.support import promises
from tests.support.promises import World

#: An additional client, whose line takes 1,280 bytes.
NARROW = {"name": "narrow"}


class EverySegment:
    client: ClassVar[str]
    """Name of a client of the stack file."""

    @pytest.mark.seed("9.3")
    def test_clients_do_not_reach_the_gateway_s_metadata(self, world: World) -> None:
        promises.check_no_metadata(world.deployed, world.client(self.client), "tap0", world.private.address)

    @pytest.mark.seed("9.6")
    def test_no_private_key_is_where_others_read(self, world: World) -> None:
        promises.check_no_key_exposed(world.deployed, world.client(self.client), self.client)

    @pytest.mark.seed("9.7")
    @pytest.mark.attack("8.1", "8.2", "8.3", "8.4", "8.5")
    def test_the_instance_role_reads_what_its_gateway_needs_and_nothing_else(self, world: World) -> None:
        promises.check_instance_role(world.deployed, self.client)

    @pytest.mark.seed("9.5")
    def test_10_megabytes_pass_paths_of_1500_and_of_1280_bytes(self, world: World) -> None:
        """The second one is of a client whose line takes no more, where no router says so."""
        promises.check_transfer(world.client(self.client), world.private)
        clients = world.raw["drawbridge:clients"]
        tunnel = {**world.raw["drawbridge:tunnel"], "pathMtu": 1280}
        stack = world.deploy_and_wait(clients=[*clients, NARROW], tunnel=tunnel)
        narrow = start_client(stack, len(clients), NARROW["name"], mtu=1280)
        promises.silence_path_errors(stack.region, f"home-{NARROW['name']}")
        world.client(NARROW["name"])
        promises.check_narrow_line(narrow, 1280)
        promises.check_transfer(narrow, world.private)

    @pytest.mark.seed("9.2")
    @pytest.mark.fault("3.10")
    def test_the_gateway_is_replaced_and_clients_are_back_with_the_bundle_they_had(self, world: World) -> None:
        promises.check_replacement(world, NARROW["name"], clients=[*world.raw["drawbridge:clients"], NARROW])

    @pytest.mark.seed("9.1")
    @pytest.mark.attack("5.1")
    def test_a_removed_client_is_cut_off_and_its_name_gets_in_only_with_the_new_bundle(self, world: World) -> None:
        clients = world.raw["drawbridge:clients"]
        promises.check_revocation(world, NARROW["name"], stay=clients, again=[*clients, NARROW], looks=False)
