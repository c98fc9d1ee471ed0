"""A bridged LAN's texts. Does not prove that nft or networkd take them: tests/lab/worlds/test_bridge.py does."""

import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from openvpn import lan_bridge, segment_bridge, segment_filter
from openvpn.addressing import client_macs, gateway_mac, segment_addresses, source_macs
from openvpn.model import Tunnel, TunnelClient, TunnelIPv6
from openvpn.paths import Paths
from openvpn.profile import render_profile
from openvpn.server import render_ccd, render_server
from openvpn.topology import BridgedSegment, Segment
from userdata.cloud_config import FILES

LAN = IPv4Network("192.168.1.0/24")
HOME, LAPTOP = TunnelClient(name="home", lan=(LAN,)), TunnelClient(name="laptop")
TUNNEL = Tunnel(
    topology=BridgedSegment("home", LAN),
    pool=IPv4Network("192.168.1.192/26"),
    routes=(IPv4Network("10.1.0.0/16"),),
    clients=(HOME, LAPTOP),
    client_to_client=True,
    fixed_mtu=lan_bridge.MTU,
)
IPV6 = TunnelIPv6(pool=IPv6Network("2001:db8:1:2:3::/80"), routes=(IPv6Network("2001:db8:1::/56"),))
SIX = replace(
    TUNNEL,
    ipv6=IPV6,
    clients=(replace(HOME, address6=IPv6Address("::10")), LAPTOP),
)


def elements(rules: str, name: str) -> set[str]:
    match = re.search(rf"set {name} \{{[^}}]*elements = \{{ ([^}}]*) \}}", rules)
    assert match
    return set(match[1].split(", "))


def test_segment_and_lan_are_one_network() -> None:
    network = segment_bridge.render_files(TUNNEL)["etc/systemd/network/10-drawbridge-br0.network"]
    assert "Address=192.168.1.193/24\n" in network
    assert f"ifconfig-push {segment_addresses(TUNNEL)['laptop']} 255.255.255.0\n" in render_ccd(LAPTOP, TUNNEL)
    assert segment_addresses(TUNNEL)["laptop"] in TUNNEL.pool
    # The LAN is on the wire, so the server pushes no route to it.
    assert "192.168.1.0" not in render_server(TUNNEL)


def test_the_bridges_host_has_nothing_of_the_tunnels() -> None:
    # It has as many hardware addresses as its LAN, up to OpenVPN's own limit; every other client has few.
    assert render_ccd(HOME, TUNNEL) == "# client home\n"
    assert "max-routes-per-client 9\n" in render_ccd(LAPTOP, TUNNEL)
    assert "lladdr" not in render_profile(TUNNEL, "203.0.113.7", "x.drawbridge", "home")
    assert "home" not in segment_addresses(TUNNEL) and "home" not in source_macs(TUNNEL)


def test_its_client_brings_the_lans_addresses_but_none_of_the_segments() -> None:
    rules = segment_filter.render_nftables(TUNNEL)
    assert elements(rules, "behind") == {"192.168.1.0/25", "192.168.1.128/26"}
    assert elements(rules, "guarded") == {gateway_mac(TUNNEL), client_macs(TUNNEL)["laptop"]}
    assert "ether saddr != @members goto lan_frames" in rules
    # The control: without a bridge a hardware address that nobody has is dropped.
    alone = segment_filter.render_nftables(replace(TUNNEL, topology=Segment(), clients=(LAPTOP,)))
    assert "ether saddr != @members counter name spoofed drop" in alone
    assert "lan_frames" not in alone


def test_nobody_has_the_gateways_global_address() -> None:
    assert "2001:db8:1:2:3::1" in elements(segment_filter.render_nftables(SIX), "taken6")
    # The bridging host's own is one of the LAN's.
    assert "2001:db8:1:2:3::10" not in elements(segment_filter.render_nftables(SIX), "taken6")


@pytest.mark.allow_subprocess
@pytest.mark.parametrize(
    ("address", "client", "learned"),
    [
        ("02:00:00:00:00:99", "home", True),
        ("02:00:00:00:00:99@0", "home", True),
        ("02:00:00:00:00:99", "laptop", False),
        ("laptop", "laptop", True),
        ("laptop", "home", False),
        ("gateway", "home", False),
        ("gateway", "laptop", False),
    ],
)
def test_whose_a_hardware_address_is(tmp_path: Path, address: str, client: str, learned: bool) -> None:
    """The script that OpenVPN asks, with the owners that the gateway has."""
    assert learn_address(tmp_path, TUNNEL, address, client) == learned
    counted = {path.name: path.read_text() for path in (tmp_path / "refused").iterdir()}
    assert counted == ({} if learned else {client: "1\n"})
    assert learn_address(tmp_path, TUNNEL, address, client) == learned
    assert learned or (tmp_path / "refused" / client).read_text() == "2\n"


@pytest.mark.allow_subprocess
def test_openvpn_may_learn_an_address_that_nobody_has_where_the_filter_drops_its_frames(tmp_path: Path) -> None:
    plain = replace(TUNNEL, topology=Segment(), clients=(LAPTOP, TunnelClient(name="robot")))
    assert learn_address(tmp_path, plain, "02:00:00:00:00:99", "laptop")
    assert "ether saddr != @members counter name spoofed drop" in segment_filter.render_nftables(plain)
    for address in (client_macs(plain)["robot"], gateway_mac(plain)):
        assert not learn_address(tmp_path, plain, address, "laptop")


def learn_address(runtime: Path, tunnel: Tunnel, address: str, client: str) -> bool:
    """Return the answer of the gateway's script to `client` sending from `address`, or from a member's by its name."""
    (runtime / "members").write_text(segment_bridge.render_members(tunnel))
    (runtime / "refused").mkdir(exist_ok=True)
    script = (FILES / "segment" / Paths.learn.lstrip("/")).read_text()
    script = script.replace(Paths.members, str(runtime / "members"))
    macs = {**client_macs(tunnel), "gateway": gateway_mac(tunnel)}
    argv = ["sh", "-c", script, "sh", str(runtime), "add", macs.get(address, address), client]
    return subprocess.run(argv, check=False, timeout=10).returncode == 0


@pytest.mark.allow_subprocess
def test_a_client_is_refused_while_a_process_has_suspended_it(tmp_path: Path) -> None:
    script = FILES / "segment" / Paths.verify_member.lstrip("/")

    def accepts(depth: int, name: str) -> bool:
        argv = ["sh", str(script), str(tmp_path / "openvpn-server"), str(depth), f"CN={name}"]
        return (
            subprocess.run(argv, check=False, timeout=10, env={"X509_0_CN": name} if depth == 0 else {}).returncode == 0
        )

    for process, name in (("server", "laptop"), ("server1", "robot")):
        (tmp_path / f"openvpn-{process}/suspended").mkdir(parents=True)
        (tmp_path / f"openvpn-{process}/suspended/{name}").touch()
    assert accepts(1, "CA") and accepts(0, "home")
    assert not accepts(0, "laptop") and not accepts(0, "robot")


def test_the_host_gets_what_the_segment_adds() -> None:
    files = lan_bridge.render_files(HOME, TUNNEL, lan_bridge.BridgeHost())
    network = files["etc/drawbridge/bridge/br0.network"]
    assert network == "\n[Route]\nDestination=10.1.0.0/16\nGateway=192.168.1.193\n"
    assert "ForwardDelaySec=0\n" in files["etc/drawbridge/bridge/br0.netdev"]
    assert files["etc/drawbridge/bridge.env"] == "NIC=\nTIMEOUT=60\n"


def test_with_ipv6_it_has_the_address_that_is_named_for_it_and_its_own_way_to_the_internet() -> None:
    (home, _) = SIX.clients
    network = lan_bridge.render_files(home, SIX, lan_bridge.BridgeHost())["etc/drawbridge/bridge/br0.network"]
    assert "[Address]\nAddress=2001:db8:1:2:3::10/80\n" in network
    assert "Destination=2001:db8:1::/56\nGateway=2001:db8:1:2:3::1\nPreferredSource=2001:db8:1:2:3::10\n" in network
    redirected = replace(SIX, ipv6=replace(IPV6, routes=(IPv6Network("2000::/3"),)))
    files = lan_bridge.render_files(home, redirected, lan_bridge.BridgeHost())
    assert "2000::" not in files["etc/drawbridge/bridge/br0.network"]
    # Without a name for it, it has none.
    unnamed = replace(SIX, clients=(HOME, LAPTOP))
    files = lan_bridge.render_files(HOME, unnamed, lan_bridge.BridgeHost())
    assert "2001:db8" not in files["etc/drawbridge/bridge/br0.network"]


def test_a_router_by_its_link_local_address_is_the_bridges() -> None:
    host = lan_bridge.BridgeHost(gateway6=IPv6Address("fe80::254%br0"))
    network = lan_bridge.render_files(HOME, TUNNEL, host)["etc/drawbridge/bridge/br0.network"]
    assert network.endswith("[Route]\nGateway=fe80::254\nGatewayOnLink=yes\n")


def test_a_tap_is_made_before_openvpn_or_by_it() -> None:
    unit = "etc/systemd/system/openvpn-client@home.service.d/drawbridge.conf"
    persistent, dynamic = (
        lan_bridge.render_files(HOME, TUNNEL, lan_bridge.BridgeHost(tap=tap)) for tap in ("persistent", "dynamic")
    )
    assert "ip tuntap add dev tap0 mode tap" in persistent[unit] and "ip tuntap" not in dynamic[unit]
    assert "Promiscuous=yes\n" in persistent["etc/drawbridge/bridge/tap0.network"]
    assert "etc/drawbridge/bridge/tap0.network" not in dynamic
    for files in (persistent, dynamic):
        assert "--ifconfig-noexec --route-noexec" in files[unit] and "ip link delete tap0" in files[unit]
        assert "Requires=drawbridge-bridge.service" in files[unit]


def test_the_hosts_own_filter_takes_only_the_segments_hosts_for_neighbours() -> None:
    wide = replace(TUNNEL, routes=(IPv4Network("192.168.0.0/16"), IPv4Network("192.168.1.64/26")))
    far = elements(lan_bridge.render_nftables(wide), "far")
    assert "192.168.1.192/26" in far
    macs = {gateway_mac(TUNNEL), client_macs(TUNNEL)["laptop"]}
    assert elements(lan_bridge.render_nftables(TUNNEL), "members") == macs
    assert not any(IPv4Address("192.168.1.70") in IPv4Network(network) for network in far)
    assert any(IPv4Address("192.168.2.1") in IPv4Network(network) for network in far)
