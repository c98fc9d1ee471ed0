"""The texts that servers and clients read, whole: a change of one of them is meant to be seen here.

Does not prove: that OpenVPN starts on them (unit/openvpn/test_real_openvpn.py does) or the kernel takes them.
"""

import ast
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest

import openvpn.model
from openvpn import site_filter, sysctl
from openvpn.bundle import BundleError, ca_of, certificate_of, key_of, remote_of, render_bundle, tls_crypt_of
from openvpn.listener import Listener
from openvpn.model import GLOBAL6, ServerProcess, Tunnel, TunnelClient, TunnelIPv6
from openvpn.profile import PROFILE_LIMIT, render_profile
from openvpn.pull_filter import NEGOTIATED
from openvpn.server import render_ccd, render_server
from openvpn.topology import BondedSegment, Routed, Segment
from pki import tls_crypt
from pki.authority import CertificateAuthority
from settings import model

ALICE = TunnelClient(name="alice")
HOME = TunnelClient(
    name="home",
    address=IPv4Address("10.8.0.10"),
    lan=(IPv4Network("192.168.1.0/24"), IPv4Network("192.168.2.0/24")),
    reachable=(IPv4Network("192.168.1.128/25"),),
)
TUNNEL = Tunnel(pool=IPv4Network("10.8.0.0/24"), routes=(IPv4Network("10.1.0.0/16"),), clients=(ALICE, HOME))
#: As long as a name in AWS and a safe common name get.
REMOTE, SERVER = "ec2-203-000-113-254.ap-southeast-2.compute.amazonaws.com", "g" * 63


def options(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_a_client_with_the_gateways_name_has_its_address_too() -> None:
    profile = render_profile(TUNNEL, "vpn.example.com", "gateway.lab", fallback="203.0.113.7")
    remotes = [line for line in options(profile) if line.startswith("remote ")]
    assert remotes == ["remote vpn.example.com 1194", "remote 203.0.113.7 1194"]
    assert remote_of(render_bundle(profile, "CA", "CERT", "KEY", "TLS")).host == "vpn.example.com"


def test_server() -> None:
    assert (
        render_server(TUNNEL)
        == """\
# OpenVPN server 'server'
dev tun0
dev-type tun
proto udp
port 1194
disable-dco
ifconfig-noexec
route-noexec
topology subnet
server 10.8.0.0 255.255.255.0 nopool
ifconfig-pool 10.8.0.128 10.8.0.254
ifconfig-pool-persist /var/lib/openvpn-server/ipp.txt 60
push "route 10.1.0.0 255.255.0.0"
ca /etc/openvpn/server/secrets/ca.crt
cert /etc/openvpn/server/secrets/server.crt
key /etc/openvpn/server/secrets/server.key
tls-crypt-v2 /etc/openvpn/server/secrets/tls-crypt-v2.key force-cookie
script-security 2
tls-crypt-v2-verify "/bin/sh /etc/drawbridge/verify-key"
dh none
tls-version-min 1.2
remote-cert-tls client
data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305
crl-verify /etc/openvpn/server/revoked dir
client-config-dir /etc/openvpn/server/ccd
ccd-exclusive
max-clients 1012
hand-window 15
connect-freq-initial 100000 10
keepalive 1 7
explicit-exit-notify 1
tun-mtu 1440
mssfix 0
mtu-disc no
fast-io
persist-key
persist-tun
management /run/openvpn-server/mgmt.sock unix
status /run/openvpn-server/status 10
status-version 3
verb 3
"""
    )


def test_server_s_text_does_not_change_with_clients_below_the_dynamic_range() -> None:
    carol = TunnelClient(name="carol", address=IPv4Address("10.8.0.99"))
    more = Tunnel(pool=TUNNEL.pool, routes=TUNNEL.routes, clients=(HOME, carol, TunnelClient(name="dave")))
    assert render_server(more) == render_server(TUNNEL)


def test_another_instance_port_and_verbosity() -> None:
    text = render_server(Tunnel(pool=TUNNEL.pool, verb=5, keepalive=(5, 20)), ServerProcess("second", "tun1", 1195))
    lines = options(text)
    assert {"dev tun1", "port 1195", "verb 5", "keepalive 5 20"} <= set(lines)
    assert "management /run/openvpn-second/mgmt.sock unix" in lines
    assert "/run/openvpn-server" not in text


def test_over_tcp_the_connection_s_end_is_the_farewell() -> None:
    tunnel = Tunnel(pool=TUNNEL.pool, listener=Listener("tcp", (443,)))
    server, profile = set(options(render_server(tunnel))), set(options(render_profile(tunnel, REMOTE, SERVER)))
    plain = Tunnel(pool=TUNNEL.pool)
    assert server ^ set(options(render_server(plain))) == {
        "proto tcp-server",
        "port 443",
        "tcp-nodelay",
        "proto udp",
        "port 1194",
        "explicit-exit-notify 1",
        "connect-freq-initial 100000 10",
        "mtu-disc no",
        "fast-io",
    }
    assert profile ^ set(options(render_profile(plain, REMOTE, SERVER))) == {
        "proto tcp",
        f"remote {REMOTE} 443",
        "proto udp",
        f"remote {REMOTE} 1194",
        "explicit-exit-notify 1",
    }


@pytest.mark.seed("2.14")
def test_both_ends_say_as_much_as_is_asked_for() -> None:
    for verb in (Tunnel(pool=TUNNEL.pool).verb, 5):
        tunnel = Tunnel(pool=TUNNEL.pool, verb=verb)
        for text in (render_server(tunnel), render_profile(tunnel, REMOTE, SERVER)):
            assert f"verb {verb}" in options(text)
    assert model.Tunnel().verb == Tunnel(pool=TUNNEL.pool).verb == 3
    assert model.Tunnel(verb=5).verb == 5


def test_pings_are_as_the_settings_say() -> None:
    assert model.Tunnel().keepalive == Tunnel(pool=TUNNEL.pool).keepalive == (1, 7)
    assert "keepalive 10 120" in options(render_server(Tunnel(pool=TUNNEL.pool, keepalive=(10, 120))))


def test_full_pool_hands_out_nothing() -> None:
    clients = tuple(TunnelClient(name=f"c{i}", address=TUNNEL.pool.network_address + i) for i in range(2, 255))
    assert "ifconfig-pool" not in render_server(Tunnel(pool=TUNNEL.pool, clients=clients))


def test_clients_learn_each_other_s_networks_just_as_declared() -> None:
    tunnel = Tunnel(pool=TUNNEL.pool, clients=TUNNEL.clients, client_to_client=True)
    added = set(options(render_server(tunnel))) - set(options(render_server(TUNNEL)))
    assert added == {'push "route 192.168.1.0 255.255.255.0"', 'push "route 192.168.2.0 255.255.255.0"'}
    # The firewall would see nothing of what OpenVPN passes on by itself.
    assert "client-to-client" not in render_server(tunnel)


def test_redirect_is_pushed_only_if_asked_for() -> None:
    def pushed(tunnel: Tunnel) -> list[str]:
        return [line for line in options(render_server(tunnel)) if re.search("redirect|block|ifconfig-ipv6|DNS", line)]

    ipv6 = TunnelIPv6(pool=IPv6Network("2001:db8:1:2:3::/80"), routes=(GLOBAL6,))
    both = replace(TUNNEL, redirect=True, ipv6=ipv6)
    assert pushed(TUNNEL) == []
    assert 'push "redirect-gateway def1"' in pushed(both) and not any("block" in line for line in pushed(both))
    # A tunnel without IPv6 stops the client's own, which would pass it by.
    assert pushed(replace(TUNNEL, redirect=True, resolver=IPv4Address("10.1.0.2"))) == [
        'push "ifconfig-ipv6 fd5b:9c1e:40d2::2/64 fd5b:9c1e:40d2::1"',
        'push "redirect-gateway def1 ipv6"',
        'push "block-ipv6"',
        'push "dhcp-option DNS 10.1.0.2"',
    ]


def test_ccd() -> None:
    assert render_ccd(ALICE, TUNNEL) == "# client alice\n"
    assert (
        render_ccd(HOME, TUNNEL)
        == """\
# client home
ifconfig-push 10.8.0.10 255.255.255.0
iroute 192.168.1.0 255.255.255.0
iroute 192.168.2.0 255.255.255.0
"""
    )


@pytest.mark.seed("4.3")
def test_a_site_keeps_its_keys_and_other_clients_leave_that_to_their_openvpn() -> None:
    wanted = {"resolv-retry infinite", "nobind", "persist-tun", "persist-key", "remote-cert-tls server"}
    assert wanted <= set(options(render_profile(TUNNEL, REMOTE, SERVER, "home")))
    assert wanted - {"persist-key"} <= set(options(render_profile(TUNNEL, REMOTE, SERVER, "alice")))
    assert "persist-key" not in options(render_profile(TUNNEL, REMOTE, SERVER, "alice"))


@pytest.mark.seed("4.3")
def test_profile() -> None:
    assert (
        render_profile(TUNNEL, "203.0.113.7", "gateway.lab")
        == """\
# OpenVPN profile for gateway.lab
client
dev tun
proto udp
remote 203.0.113.7 1194
nobind
resolv-retry infinite
server-poll-timeout 10
connect-retry 2 2
persist-tun
remote-cert-tls server
verify-x509-name gateway.lab name
tls-version-min 1.2
auth-retry nointeract
auth-nocache
explicit-exit-notify 1
tun-mtu 1440
verb 3
pull-filter accept "ping"
pull-filter accept "peer-id "
pull-filter accept "cipher "
pull-filter accept "key-derivation "
pull-filter accept "protocol-flags "
pull-filter accept "tun-mtu "
pull-filter accept "socket-flags TCP_NODELAY"
pull-filter accept "push-continuation "
pull-filter accept "topology subnet"
pull-filter accept "route-gateway 10.8.0.1"
pull-filter accept "ifconfig "
pull-filter accept "route 10.1.0.0 255.255.0.0"
pull-filter ignore "\\""
pull-filter ignore ""
"""
    )


def accepted(tunnel: Tunnel, client: str) -> set[str]:
    """What a client accepts besides what every client does."""
    lines = [line for line in options(render_profile(tunnel, REMOTE, SERVER, client)) if "pull-filter accept" in line]
    return {line.split('"')[1] for line in lines} - {*NEGOTIATED, "topology subnet", "route-gateway 10.8.0.1"}


def test_a_client_accepts_its_own_address_and_routes_and_no_others() -> None:
    tunnel = replace(TUNNEL, client_to_client=True)
    vpc, lans = "route 10.1.0.0 255.255.0.0", {f"route 192.168.{n}.0 255.255.255.0" for n in (1, 2)}
    assert accepted(TUNNEL, "home") == accepted(tunnel, "home") == {"ifconfig 10.8.0.10 255.255.255.0", vpc}
    # Its own networks are pushed to the others.
    assert accepted(tunnel, "alice") == {"ifconfig ", vpc, *lans}
    redirected = replace(TUNNEL, redirect=True, domain="vpc.example.com", resolver=IPv4Address("10.1.0.2"))
    assert accepted(redirected, "home") - accepted(TUNNEL, "home") == {
        "ifconfig-ipv6 fd5b:9c1e:40d2::2/64 fd5b:9c1e:40d2::1",
        "redirect-gateway def1 ipv6",
        "block-ipv6",
        "dhcp-option DNS 10.1.0.2",
        "dhcp-option DOMAIN vpc.example.com",
    }
    ipv6 = TunnelIPv6(pool=IPv6Network("2001:db8:1:2:3::/80"), routes=(IPv6Network("2001:db8::/56"),))
    assert accepted(replace(TUNNEL, ipv6=ipv6), "home") - accepted(TUNNEL, "home") == {
        "ifconfig-ipv6 2001:db8:1:2:3::a/80 2001:db8:1:2:3::1",
        "route-ipv6 2001:db8::/56",
    }


def test_all_that_a_server_pushes_is_accepted() -> None:
    """By every client that gets it; what a server pushes by itself, a real one shows (test_real_openvpn)."""
    ipv6 = TunnelIPv6(pool=IPv6Network("2001:db8:1:2:3::/80"), routes=(IPv6Network("2001:db8::/56"),))
    for topology in (Routed(), Segment(), BondedSegment()):
        tunnel = replace(TUNNEL, topology=topology, client_to_client=True, redirect=True, ipv6=ipv6)
        pushed = re.findall(r'^push "(.*)"$', render_server(tunnel), re.MULTILINE)
        assert len(pushed) == {Routed: 5, Segment: 6, BondedSegment: 0}[type(topology)]
        begins = tuple(re.findall(r'^pull-filter accept "(.*)"$', render_profile(tunnel, "r", "s", "alice"), re.M))
        assert [option for option in pushed if not option.startswith(begins)] == []


@pytest.mark.parametrize(("count", "listed"), [(8, True), (11, False), (100, False)])
def test_routes_that_do_not_fit_a_parameter_are_not_listed(count: int, listed: bool) -> None:
    routes = tuple(IPv4Network(f"172.16.{n}.0/24") for n in range(count))
    tunnel = replace(TUNNEL, routes=routes)
    profile = render_profile(tunnel, REMOTE, "lab.drawbridge", "home")
    assert ("route 172.16.7.0 255.255.255.0" in accepted(tunnel, "home")) is listed
    assert ("route " in accepted(tunnel, "home")) is not listed
    assert len(profile) <= PROFILE_LIMIT


def test_bundle_fits_a_parameter_and_gives_its_parts_back() -> None:
    now = datetime.now(UTC)
    authority = CertificateAuthority.create("c" * 64, timedelta(days=3650), now)
    leaf = authority.issue_client("a" * 63, timedelta(days=365), now)
    wrapped = tls_crypt.client_key(tls_crypt.server_key(), b"9" * 49)
    routes = tuple(IPv4Network(f"172.16.{n}.0/24") for n in range(100))
    # With padding up to the longest profile that there is.
    profile = render_profile(replace(TUNNEL, routes=routes), REMOTE, SERVER).ljust(PROFILE_LIMIT, "\n")
    bundle = render_bundle(profile, authority.certificate, leaf.certificate, leaf.key, wrapped)

    assert len(bundle) < 4096
    assert bundle.startswith(profile)
    assert ca_of(bundle) == authority.certificate
    assert certificate_of(bundle) == leaf.certificate
    assert key_of(bundle) == leaf.key
    assert tls_crypt_of(bundle) == wrapped


@pytest.mark.parametrize("text", ["", "client\n", "client\n<key>\nc2VjcmV0\n", "</key>\n\n<key>\nc2VjcmV0"])
def test_text_that_is_no_bundle_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(BundleError, match="no <key>") as caught:
        key_of(text)
    assert "c2VjcmV0" not in str(caught.value)


def test_sysctl() -> None:
    assert (
        sysctl.render_sysctl(TUNNEL)
        == """\
# forwarding for tun0
net.ipv4.ip_forward = 1
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.conf.*.rp_filter = 1
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.default.send_redirects = 0
net.ipv4.conf.all.accept_redirects = 0
net.ipv4.conf.default.accept_redirects = 0
net.ipv4.conf.all.accept_source_route = 0
net.ipv4.conf.default.accept_source_route = 0
"""
    )


@pytest.mark.seed("0.18")
def test_texts_know_nothing_but_values() -> None:
    """No AWS and no other package of ours: the same text serves any host."""
    for file in Path(openvpn.model.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "openvpn", "pki"}, file


def test_a_sites_filter_leaves_what_its_lan_may_send_to_the_gateway_which_has_measured_the_path() -> None:
    rules = site_filter.render_nftables(HOME, TUNNEL, interface="tun0")
    assert re.findall(r"maxseg size set (\d+)", rules) == [str(TUNNEL.segment_size)]
