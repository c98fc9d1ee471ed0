"""The files of a client on Windows, as text. Does not prove that Windows runs it: no Windows was there."""

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from kits import windows as kit
from openvpn.bundle import remote_of, render_bundle
from openvpn.model import GLOBAL6, Tunnel, TunnelClient, TunnelIPv6
from openvpn.profile import render_profile

TUNNEL = Tunnel(
    pool=IPv4Network("10.8.0.0/24"),
    routes=(IPv4Network("10.1.0.0/16"),),
    clients=(TunnelClient(name="office", system="windows"), TunnelClient(name="alice")),
    domain="tenant.internal",
    resolver=IPv4Address("10.1.0.2"),
)

#: What OpenVPN tells a script (openvpn(8), "Environmental Variables"), and what the profile does.
ENVIRONMENT = {
    "dev",
    "ifconfig_local",
    "ifconfig_netmask",
    "ifconfig_ipv6_local",
    "ifconfig_ipv6_netbits",
    "ifconfig_ipv6_remote",
    "drawbridge_block_ipv6",
    "route_vpn_gateway",
    "route_net_gateway",
    "route_network_",
    "route_netmask_",
    "route_gateway_",
    "route_ipv6_network_",
    "route_ipv6_gateway_",
    "foreign_option_",
    "trusted_ip",
    "drawbridge_redirect",
}


def bundle(tunnel: Tunnel = TUNNEL, client: str = "office") -> str:
    return render_bundle(render_profile(tunnel, "203.0.113.7", "gateway.lab", client), "CA", "CERT", "KEY", "TLS")


def files(tunnel: Tunnel = TUNNEL) -> dict[str, str]:
    return kit.files(bundle(tunnel), "office")


@pytest.mark.seed("2.15")
def test_three_files_whose_lines_end_as_on_windows() -> None:
    texts = files()
    assert list(texts) == ["office.ovpn", "office-up.cmd", "office-down.cmd"]
    for text in texts.values():
        assert text.endswith("\r\n") and re.findall(r"(?<!\r)\n|\r(?!\n)", text) == []
    assert "KEY" not in texts["office-up.cmd"] + texts["office-down.cmd"]
    assert remote_of(texts["office.ovpn"]).host == "203.0.113.7"


@pytest.mark.seed("2.15")
def test_paths_are_escaped_twice() -> None:
    lines = files()["office.ovpn"].splitlines()
    # The option's value is read once, and what it then is once more, as a command.
    assert r'up "\"C:\\\\Program Files\\\\OpenVPN\\\\config-auto\\\\office-up.cmd\""' in lines
    assert r'down "\"C:\\\\Program Files\\\\OpenVPN\\\\config-auto\\\\office-down.cmd\""' in lines
    assert {"script-security 2", "ifconfig-noexec", "route-noexec"} <= set(lines)


def test_only_clients_on_windows_have_scripts() -> None:
    assert "up" in files()["office.ovpn"] and "config-auto" not in bundle(client="alice")
    assert render_profile(TUNNEL, "203.0.113.7", "gateway.lab", "alice") == render_profile(
        TUNNEL, "203.0.113.7", "gateway.lab"
    )


def test_a_bundle_with_scripts_still_fits_a_parameter() -> None:
    longest = replace(TUNNEL, clients=(TunnelClient(name="c" * 63, system="windows"),), redirect=True)
    # The PEM texts of P-256 are 2,303 characters.
    assert len(render_profile(longest, "203.0.113.7", "g" * 63, "c" * 63)) + 2400 < 4096


def test_all_traffic_is_known_to_the_scripts() -> None:
    assert "setenv drawbridge_redirect 1" in files(replace(TUNNEL, redirect=True))["office.ovpn"].splitlines()
    assert "drawbridge_redirect" not in files()["office.ovpn"]
    tunnel = replace(TUNNEL, redirect=True, resolver=IPv4Address("10.1.0.2"))
    lines = files(tunnel)["office.ovpn"].splitlines()
    assert {"setenv drawbridge_block_ipv6 1", "setenv opt block-outside-dns"} <= set(lines)
    ipv6 = TunnelIPv6(pool=IPv6Network("2001:db8::/80"), routes=(GLOBAL6,))
    assert "drawbridge_block_ipv6" not in files(replace(tunnel, ipv6=ipv6))["office.ovpn"]


@pytest.mark.seed("2.15")
def test_the_scripts_use_what_they_are_told_and_take_back_all_that_they_set() -> None:
    up, down = files()["office-up.cmd"], files()["office-down.cmd"]
    for text in (up, down):
        used = set(re.findall(r"%(\w+)%", text)) | set(re.findall(r"!(\w+?_)%%n!", text))
        used |= set(re.findall(r"if defined (\w+?)(?:%%n|\s)", text))
        assert used <= ENVIRONMENT and text.count("(") == text.count(")")
        assert text.startswith("@echo off\r\n") and text.endswith("exit /b 0\r\n")
    commands = sorted(re.findall(r"(?:netsh interface (ipv\d (?:add|set) \w+)|(route add))", up))
    assert commands == sorted(
        [("ipv4 set address", ""), ("ipv6 add address", ""), ("ipv4 add dnsservers", "")]
        + 2 * [("ipv6 add route", "")]
        + 4 * [("", "route add")]
    )
    gone = sorted(re.findall(r"(?:netsh interface (ipv\d delete \w+)|(route delete))", down))
    assert gone == sorted(
        [(f"ipv{v} delete {kind}", "") for v, kind in ((4, "address"), (6, "address"), (4, "dnsservers"))]
        + 2 * [("ipv6 delete route", "")]
        + 4 * [("", "route delete")]
    )
    # Each thing that fails on the way up ends it; on the way down nothing does.
    working = [line for line in up.splitlines() if re.search(r"netsh|route add", line)]
    assert all(line.endswith("|| exit /b 1") for line in working)
    assert "exit /b 1" not in down
