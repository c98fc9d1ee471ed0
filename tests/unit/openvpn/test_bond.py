"""A bonded host's files. Does not prove that they make a bond: tests/lab/worlds/test_links_pair.py does."""

import re
from dataclasses import replace
from ipaddress import IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvpn.bond import BRIDGE_MODES, PAIR_MODES, Bond, BondError, BondLink, render_files
from openvpn.topology import BOND, BondMode

LISTENS = BondLink(number=0, port=1194, peer="right", uplink="eth0")
CALLS = BondLink(number=1, port=1195, peer="right.drawbridge", remote="203.0.113.51")
LEFT = Bond(group="g", host="left", address=IPv4Interface("10.0.0.1/24"), mode="balance-xor", links=(LISTENS, CALLS))
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
NETWORKD = "etc/systemd/network/30-drawbridge"


def conf(bond: Bond, tap: str) -> list[str]:
    return render_files(bond)[f"etc/drawbridge/links/{tap}.conf"].splitlines()


@pytest.mark.seed("1.2")
@given(group=NAMES, hosts=st.lists(NAMES, min_size=2, max_size=8, unique=True))
def test_hardware_addresses_are_unique_local_and_always_the_same(group: str, hosts: list[str]) -> None:
    bonds = [replace(LEFT, group=group, host=host) for host in hosts]
    macs = [bond.mac(device) for bond in bonds for device in (BOND, "ovn0", "ovn1")]

    assert len(set(macs)) == len(macs)
    assert all(re.fullmatch(r"02(:[0-9a-f]{2}){5}", mac) for mac in macs)
    assert macs == [replace(b).mac(device) for b in bonds for device in (BOND, "ovn0", "ovn1")]


def test_they_are_pinned_on_the_bond_and_on_each_tap() -> None:
    files = render_files(LEFT)

    assert f"MACAddress={LEFT.mac(BOND)}" in files[f"{NETWORKD}-{BOND}.netdev"].splitlines()
    for tap in ("ovn0", "ovn1"):
        link = files[f"{NETWORKD}-{tap}.link"].splitlines()
        assert f"OriginalName={tap}" in link and f"MACAddress={LEFT.mac(tap)}" in link


def test_a_link_is_in_the_bond_as_long_as_its_tunnel_holds_the_tap() -> None:
    for tap in ("ovn0", "ovn1"):
        lines = conf(LEFT, tap)
        assert "up-delay" in lines and "keepalive 1 5" in lines and f"dev {tap}" in lines
        assert "persist-tun" not in lines
        assert "Bond=bond0" in render_files(LEFT)[f"{NETWORKD}-{tap}.network"]


def test_one_link_is_served_and_the_other_called() -> None:
    served, called = conf(LEFT, "ovn0"), conf(LEFT, "ovn1")

    assert {"tls-server", "port 1194", "float", "remote-cert-tls client", "verify-x509-name right name"} <= set(served)
    assert {"tls-client", "remote 203.0.113.51 1195", "remote-cert-tls server"} <= set(called)
    assert "verify-x509-name right.drawbridge name" in called and "bind-dev eth0" in served
    assert not any(line.startswith(("remote ", "nobind")) for line in served)
    assert not any(line.startswith(("port ", "bind-dev")) for line in called)


def test_at_a_gateway_that_serves_many_it_is_a_client() -> None:
    shared = replace(LEFT, links=(replace(CALLS, shared=True),), gateway="10.0.0.254", mode="balance-alb")

    assert "client" in conf(shared, "ovn1") and "tls-client" not in conf(shared, "ovn1")
    assert "GATEWAY=10.0.0.254" in render_files(shared)["etc/drawbridge/links/ovn1.env"]


@pytest.mark.parametrize("mode", sorted({*PAIR_MODES, *BRIDGE_MODES}))
def test_each_mode_watches_carriers_and_only_xor_has_a_hash(mode: BondMode) -> None:
    links = LEFT.links if mode in PAIR_MODES else (replace(CALLS, shared=True),)
    lines = render_files(replace(LEFT, links=links, mode=mode))[f"{NETWORKD}-{BOND}.netdev"].splitlines()

    assert f"Mode={mode}" in lines and "MIIMonitorSec=100ms" in lines
    assert ("TransmitHashPolicy=layer3+4" in lines) == (mode == "balance-xor")
    assert not any("ARP" in line and "Gratuitous" not in line for line in lines)


def test_balance_alb_is_refused_between_two_hosts_and_the_reason_is_told() -> None:
    with pytest.raises(BondError, match=r"left cannot use balance-alb: .* are dropped; use balance-xor or"):
        replace(LEFT, mode="balance-alb")


@pytest.mark.parametrize("mode", ["balance-xor", "balance-rr"])
def test_modes_of_one_address_on_both_links_are_refused_where_they_end_in_a_bridge(mode: BondMode) -> None:
    shared = tuple(replace(link, shared=True, remote="203.0.113.1") for link in LEFT.links)
    with pytest.raises(BondError, match="one port at a time; use balance-alb or active-backup"):
        replace(LEFT, links=shared, mode=mode)


def test_nothing_in_it_is_a_key() -> None:
    assert not any("BEGIN" in text or "<ca>" in text for text in render_files(LEFT).values())
