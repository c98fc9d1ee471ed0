"""A segment's texts: whose is what. That nft and networkd take them: see tests/lab/worlds/test_ros2.py."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from openvpn import segment_bridge, segment_filter
from openvpn.addressing import client_macs, derive_link_local, fixed_addresses6, gateway_mac, segment_addresses
from openvpn.model import MulticastRange, Tunnel, TunnelClient, TunnelIPv6
from openvpn.profile import render_profile
from openvpn.server import render_ccd, render_server
from openvpn.topology import Segment

DESKTOP, ROBOT = TunnelClient(name="ros_desktop"), TunnelClient(name="robot", address=IPv4Address("192.168.255.10"))
TUNNEL = Tunnel(
    topology=Segment(), pool=IPv4Network("192.168.255.0/24"), clients=(DESKTOP, ROBOT), client_to_client=True
)
IPV6 = TunnelIPv6(pool=IPv6Network("2001:db8:1:2:3::/80"), routes=(IPv6Network("2000::/3"),))
SIX = replace(TUNNEL, ipv6=IPV6)


def test_the_server_leaves_the_address_to_the_bridge_and_asks_whose_hardware_address_it_is() -> None:
    lines = render_server(TUNNEL).splitlines()
    assert {"dev tap0", "dev-type tap", "mode server", "tls-server"} <= set(lines)
    assert 'push "route-gateway 192.168.255.1"' in lines
    assert any(line.startswith("learn-address ") for line in lines)
    assert not any(line.split()[0] in {"server", "ifconfig", "ifconfig-pool", "client-to-client"} for line in lines)


def test_each_client_has_an_address_and_a_hardware_address_that_its_profile_sets() -> None:
    assert f"ifconfig-push {segment_addresses(TUNNEL)['ros_desktop']} 255.255.255.0" in render_ccd(DESKTOP, TUNNEL)
    assert "ifconfig-push 192.168.255.10 255.255.255.0" in render_ccd(ROBOT, TUNNEL)
    profile = render_profile(TUNNEL, "203.0.113.7", "gateway.lab", "robot")
    assert f"lladdr {client_macs(TUNNEL)['robot']}\n" in profile
    assert f"ip link set $dev address {client_macs(TUNNEL)['robot']} " in profile  # once more, after udev
    windows = replace(ROBOT, mac="00:ff:5e:00:53:01")
    tunnel = replace(TUNNEL, clients=(windows,))
    assert "lladdr" not in render_profile(tunnel, "203.0.113.7", "gateway.lab", "robot")
    assert client_macs(tunnel)["robot"] == "00:ff:5e:00:53:01"


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=40, unique=True))
def test_addresses_are_apart_and_one_client_more_moves_none(names: list[str]) -> None:
    def addresses(count: int) -> dict[str, IPv4Address]:
        clients = tuple(TunnelClient(name=name) for name in names[:count])
        return dict(segment_addresses(replace(TUNNEL, clients=clients)))

    every = addresses(len(names))
    assert len(set(every.values())) == len(names)
    assert all(TUNNEL.layout.address < address < TUNNEL.pool.broadcast_address for address in every.values())
    assert addresses(len(names) - 1).items() <= every.items()


def test_a_64_that_is_advertised_lets_hosts_make_addresses_that_are_nobody_s() -> None:
    block = IPv6Network("2001:db8:1:ff::/64")
    advertised = replace(IPV6, pool=block, advertised=True, default_router=True)
    announced = replace(SIX, ipv6=advertised)
    network = segment_bridge.render_files(announced)["etc/systemd/network/10-drawbridge-br0.network"]
    assert "IPv6SendRA=yes\n" in network and "[IPv6SendRA]\nRouterLifetimeSec=1800\nEmitDNS=no\n" in network
    assert f"[IPv6Prefix]\nPrefix={block}\n" in network and "[IPv6RoutePrefix]\nRoute=2000::/3\n" in network
    # Who only reaches the VPC gets no default route of it.
    vpc = replace(SIX, ipv6=replace(advertised, default_router=False, routes=(IPv6Network("2001:db8:1::/56"),)))
    text = segment_bridge.render_files(vpc)["etc/systemd/network/10-drawbridge-br0.network"]
    assert "RouterLifetimeSec=0\n" in text and "Route=2001:db8:1::/56\n" in text
    assert "SendRA" not in segment_bridge.render_files(SIX)["etc/systemd/network/10-drawbridge-br0.network"]

    rules = segment_filter.render_nftables(announced)
    mac = client_macs(TUNNEL)["robot"]
    formed = block[int(derive_link_local(mac)) & (2**64 - 1)]
    (listed,) = [line for line in rules.split("set taken6")[1].splitlines() if "elements" in line]
    assert f"{mac} . {formed}" in rules
    assert all(str(address) in listed for address in (formed, fixed_addresses6(announced)["robot"], block[1]))
    assert f"ip6 saddr != {{ ::, fe80::/10, {block} }} jump source" in rules
    assert "ip6 saddr != { ::, fe80::/10 } jump source" in segment_filter.render_nftables(SIX)


def test_the_filter_knows_who_has_what() -> None:
    text = segment_filter.render_nftables(SIX)
    mac, formed = client_macs(TUNNEL)["robot"], derive_link_local(client_macs(TUNNEL)["robot"])
    for pair in (f"{mac} . 192.168.255.10", f"{mac} . {formed}", f"{mac} . {fixed_addresses6(SIX)['robot']}"):
        assert pair in text
    assert str(derive_link_local(gateway_mac(TUNNEL))) in text
    assert "@groups" not in text
    named = replace(SIX, multicast=(MulticastRange(group=IPv4Network("239.255.0.0/16"), ports=(7400, 7500)),))
    assert "239.255.0.0/16 . 7400-7500" in segment_filter.render_nftables(named)


def test_the_filter_holds_multicast_to_its_own_rate() -> None:
    text = segment_filter.render_nftables(replace(SIX, multicasts=77, broadcasts=55))
    assert "@group_talkers { ether saddr limit rate over 77/second burst 77 packets }" in text
    assert "@talkers { ether saddr limit rate over 55/second burst 55 packets }" in text


def test_ipv6_addresses_follow_the_ipv4_ones_unless_they_are_chosen() -> None:
    chosen = TunnelClient(name="chosen", address6=IPv6Address("::a"))
    both = replace(SIX, clients=(ROBOT, chosen))
    assert fixed_addresses6(both)["chosen"] == IPv6Address("2001:db8:1:2:3::a")
    assert fixed_addresses6(both)["robot"] != fixed_addresses6(both)["chosen"]  # it would have had that one
    assert fixed_addresses6(SIX)["robot"] == IPv6Address("2001:db8:1:2:3::a")
    assert "ifconfig-ipv6-push 2001:db8:1:2:3::a/80 2001:db8:1:2:3::1" in render_ccd(ROBOT, SIX)


def test_the_bridge_has_the_addresses_and_the_port_sends_back() -> None:
    files = segment_bridge.render_files(SIX)
    network = files["etc/systemd/network/10-drawbridge-br0.network"]
    assert "Address=192.168.255.1/24" in network and "Address=2001:db8:1:2:3::1/80" in network
    assert "HairPin=yes\nIsolated=no" in files["etc/systemd/network/10-drawbridge-tap0.network"]
    apart = segment_bridge.render_files(replace(SIX, client_to_client=False))
    assert "HairPin=no\nIsolated=yes" in apart["etc/systemd/network/10-drawbridge-tap0.network"]
    assert segment_bridge.render_files(Tunnel(pool=TUNNEL.pool)) == {}
