"""The device of a routed tunnel, as files. Does not prove that systemd-networkd takes them: tests/lab does."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from openvpn import segment_bridge, tun_device
from openvpn.model import Tunnel, TunnelClient, TunnelIPv6
from openvpn.server import render_server
from openvpn.topology import PairLink, Segment
from userdata.cloud_config import FILES

HOME = TunnelClient(
    name="home",
    address=IPv4Address("10.8.0.10"),
    lan=(IPv4Network("192.168.1.0/24"), IPv4Network("192.168.7.0/24")),
)
TUNNEL = Tunnel(pool=IPv4Network("10.8.0.0/24"), clients=(HOME,))
SIX = replace(TUNNEL, ipv6=TunnelIPv6(pool=IPv6Network("2001:db8:1:2:3::/80")))
NETWORK = "etc/systemd/network/10-drawbridge-tun0.network"
UNIT = "etc/systemd/system/openvpn-server@.service.d/{}.conf"


def settings(text: str, section: str) -> list[list[str]]:
    """Return the lines of each section of this name."""
    blocks = (block.strip().splitlines() for block in f"\n{text}".split("\n["))
    return [[line for line in lines if line] for name, *lines in filter(None, blocks) if name == f"{section}]"]


def test_the_device_is_openvpns() -> None:
    text = tun_device.render_files(TUNNEL)["etc/systemd/network/10-drawbridge-tun0.netdev"]
    assert settings(text, "NetDev") == [["Name=tun0", "Kind=tun"]]
    assert settings(text, "Tun") == [["User=openvpn"]]


def test_it_has_the_gateways_addresses_and_the_routes_to_networks_behind_clients() -> None:
    text = tun_device.render_files(SIX)[NETWORK]
    assert settings(text, "Link")[0][0] == f"MTUBytes={TUNNEL.mtu}"
    assert settings(text, "Address") == [
        ["Address=10.8.0.1/24"],
        ["Address=2001:db8:1:2:3::1/80", "DuplicateAddressDetection=none"],
    ]
    assert settings(text, "Route") == [["Destination=192.168.1.0/24"], ["Destination=192.168.7.0/24"]]
    assert settings(tun_device.render_files(replace(TUNNEL, clients=()))[NETWORK], "Route") == []


def test_a_network_behind_a_client_is_no_matter_of_openvpns() -> None:
    assert render_server(TUNNEL) == render_server(replace(TUNNEL, clients=(replace(HOME, lan=()),)))


@pytest.mark.parametrize("topology", [Segment(), PairLink()])
def test_no_other_tunnel_has_one(topology: Segment | PairLink) -> None:
    assert tun_device.render_files(Tunnel(pool=TUNNEL.pool, topology=topology)) == {}


def test_openvpn_gets_no_privilege_and_waits_for_its_device() -> None:
    segment = replace(TUNNEL, clients=(), topology=Segment())
    for text, devices in (
        (tun_device.render_files(TUNNEL)[UNIT.format("routed")], ["tun0"]),
        (segment_bridge.render_files(segment)[UNIT.format("segment")], ["tap0", "br0"]),
    ):
        assert "Capabilit" not in text
        for device in devices:
            assert f" --interface={device}:no-carrier" in text
        (restore,) = (line for line in text.splitlines() if line.endswith("networkctl reload && \\"))
        assert restore.startswith("ExecStartPre=+") and f"ls -d {' '.join(devices)} " in restore


def test_systemd_sets_the_sandbox_up_once_for_each_start_of_openvpn() -> None:
    """That takes a second on a busy machine, for each command inside it, and clients wait meanwhile."""
    segment = replace(TUNNEL, clients=(), topology=Segment())
    drop_ins = [
        (FILES / "root" / UNIT.format("drawbridge")).read_text(),
        tun_device.render_files(TUNNEL)[UNIT.format("routed")],
        segment_bridge.render_files(segment)[UNIT.format("segment")],
    ]
    before_openvpn = [line for text in drop_ins for line in text.splitlines() if line.startswith("ExecStartPre=")]
    assert len(before_openvpn) == 3
    assert all(line.startswith("ExecStartPre=+") for line in before_openvpn), before_openvpn


OFFLOADED = replace(TUNNEL, data_channel_offload=True)


def test_with_data_channel_offload_openvpn_creates_the_device_and_may_do_so() -> None:
    files = tun_device.render_files(OFFLOADED)
    assert not [path for path in files if path.endswith(".netdev")]
    unit = files[UNIT.format("routed")]
    assert "AmbientCapabilities=CAP_NET_ADMIN\nCapabilityBoundingSet=CAP_NET_ADMIN\n" in unit
    assert "wait-online" not in unit, "the device is not there before OpenVPN"
    assert "disable-dco" not in render_server(OFFLOADED)
    assert "disable-dco" in render_server(TUNNEL), "the control"


def test_with_data_channel_offload_a_network_is_routed_by_its_clients_address() -> None:
    """The kernel finds the peer by the next hop; without one it looks for a client with the destination's address."""
    text = tun_device.render_files(OFFLOADED)[NETWORK]
    assert settings(text, "Route") == [
        ["Destination=192.168.1.0/24", "Gateway=10.8.0.10"],
        ["Destination=192.168.7.0/24", "Gateway=10.8.0.10"],
    ]
    dynamic = replace(OFFLOADED, clients=(replace(HOME, address=None),))
    assert settings(tun_device.render_files(dynamic)[NETWORK], "Route") == []
