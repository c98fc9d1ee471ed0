"""What the program reads back from a release."""

import pytest

from drawbridge.operate.deployed_release import parse_release
from openvpn.model import Tunnel
from openvpn.topology import BondedSegment, Routed, Segment, Topology
from tests.support import gateway


@pytest.mark.parametrize("topology", [Routed(), Segment(), BondedSegment()])
@pytest.mark.parametrize("path_mtu", [1280, 1400])
def test_the_packets_of_a_client_whose_path_is_not_known_fill_the_path_that_the_stack_names(
    topology: Topology, path_mtu: int
) -> None:
    """On a segment each packet has a frame's header, too."""
    built = gateway.build_release(Tunnel(pool=gateway.TUNNEL.pool, topology=topology, path_mtu=path_mtu))
    assert parse_release(built.archive, built.sha256).path_mtu == path_mtu
