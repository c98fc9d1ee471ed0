"""A client's machine as macOS and Windows describe it, and what the doctor finds on it.

The texts are written after the systems' manuals. Does not prove what a release of them prints.
"""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from drawbridge.doctor.client_machine import ClientMachine
from drawbridge.doctor.machine_reader import parse_machine, read_machine
from drawbridge.doctor.path_checks import find_first_broken, judge_path
from drawbridge.errors import MachineError

from .test_path_checks import WHOLE

IFCONFIG = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
	options=1203<RXCSUM,TXCSUM,TXSTATUS,SW_TIMESTAMP>
	inet 127.0.0.1 netmask 0xff000000
	inet6 ::1 prefixlen 128
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	ether 02:00:5e:00:53:01
	inet6 fe80::1%en0 prefixlen 64 secured scopeid 0x6
	inet 192.168.1.20 netmask 0xffffff00 broadcast 192.168.1.255
	status: active
utun0: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
	inet6 fe80::2%utun0 prefixlen 64 scopeid 0xf
utun4: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1420
	inet 10.8.0.10 --> 10.8.0.10 netmask 0xffffff00
"""
NETSTAT = """\
Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.1.1        UGScg                 en0
default            link#16            UCSIg               utun4
10.1/16            10.8.0.1           UGSc                utun4
10.8/24            10.8.0.10          UGSc                utun4
10.8.0.10          10.8.0.10          UH                  utun4
127                127.0.0.1          UCS                   lo0
192.168.1          link#6             UCS                   en0      !
203.0.113.20/32    192.168.1.1        UGSc                  en0
224.0.0/4          link#6             UmCS                  en0      !

"""
SCUTIL = """\
DNS configuration

resolver #1
  search domain[0] : vpc.example.com
  nameserver[0] : 10.1.0.2
  if_index : 16 (utun4)
  flags    : Request A records
  reach    : 0x00000002 (Reachable)

resolver #2
  domain   : local
  options  : mdns

DNS configuration (for scoped queries)

resolver #1
  nameserver[0] : 192.168.1.1
  if_index : 6 (en0)
  flags    : Scoped, Request A records
"""
MACOS = IFCONFIG + NETSTAT + SCUTIL

IPCONFIG = """\

Windows IP Configuration

   Host Name . . . . . . . . . . . . : OFFICE
   DNS Suffix Search List. . . . . . : vpc.example.com

Unknown adapter OpenVPN Data Channel Offload:

   Connection-specific DNS Suffix  . : vpc.example.com
   Description . . . . . . . . . . . : OpenVPN Data Channel Offload
   Physical Address. . . . . . . . . :
   DHCP Enabled. . . . . . . . . . . : No
   IPv4 Address. . . . . . . . . . . : 10.8.0.10(Preferred)
   Subnet Mask . . . . . . . . . . . : 255.255.255.0
   Default Gateway . . . . . . . . . :
   DNS Servers . . . . . . . . . . . : 10.1.0.2
   NetBIOS over Tcpip. . . . . . . . : Enabled

Wireless LAN adapter Wi-Fi:

   Connection-specific DNS Suffix  . :
   Description . . . . . . . . . . . : Wireless-AC 9560
   Physical Address. . . . . . . . . : 02-00-5E-00-53-01
   IPv4 Address. . . . . . . . . . . : 192.168.1.20(Preferred)
   Subnet Mask . . . . . . . . . . . : 255.255.255.0
   Lease Obtained. . . . . . . . . . : Saturday, November 28, 2026 08:00:00
   Default Gateway . . . . . . . . . : fe80::1%12
                                       192.168.1.1
   DHCP Server . . . . . . . . . . . : 192.168.1.1
   DNS Servers . . . . . . . . . . . : 192.168.1.1
                                       192.168.1.2

Ethernet adapter Ethernet:

   Media State . . . . . . . . . . . : Media disconnected
   Description . . . . . . . . . . . : Gigabit Network Connection
"""
ROUTE_PRINT = """\
===========================================================================
Interface List
 12...02 00 5e 00 53 01 ......Wireless-AC 9560
  1...........................Software Loopback Interface 1
===========================================================================

IPv4 Route Table
===========================================================================
Active Routes:
Network Destination        Netmask          Gateway       Interface  Metric
          0.0.0.0          0.0.0.0      192.168.1.1     192.168.1.20     35
         10.1.0.0      255.255.0.0         10.8.0.1        10.8.0.10    281
         10.8.0.0    255.255.255.0         On-link         10.8.0.10    281
        127.0.0.0        255.0.0.0         On-link         127.0.0.1    331
      192.168.1.0    255.255.255.0         On-link      192.168.1.20    291
===========================================================================
Persistent Routes:
  None
"""
WINDOWS = IPCONFIG + ROUTE_PRINT
#: The same of a machine that speaks German.
GERMAN = (
    WINDOWS.replace("Connection-specific DNS Suffix  .", "Verbindungsspezifisches DNS-Suffix:")
    .replace("IPv4 Address. . . . . . . . . . . : 10.8.0.10(Preferred)", "IPv4-Adresse  . . . . : 10.8.0.10(Bevorzugt)")
    .replace("Subnet Mask . . . . . . . . . . . :", "Subnetzmaske  . . . . . . . . . . :")
    .replace("Default Gateway . . . . . . . . . :", "Standardgateway . . . . . . . . . :")
    .replace("DHCP Server . . . . . . . . . . . :", "DHCP-Server . . . . . . . . . . . :")
    .replace("DNS Servers . . . . . . . . . . . :", "DNS-Server  . . . . . . . . . . . :")
    .replace("On-link", "Auf Verbindung")
    .replace("Persistent Routes:", "Ständige Routen:")
)
TUNNELS = {"macOS": "utun4", "Windows": "Unknown adapter OpenVPN Data Channel Offload"}
TEXTS = {"macOS": MACOS, "Windows": WINDOWS}


@pytest.mark.parametrize("system", TEXTS)
def test_a_healthy_machine_has_nothing_broken(system: str) -> None:
    machine = parse_machine(TEXTS[system])
    results = judge_path(replace(WHOLE, machine=machine))
    assert {result.state for result in results} <= {"ok", "skipped"}, results


def test_a_mac_s_devices_routes_and_name_servers() -> None:
    machine = parse_machine(MACOS)
    assert {
        name: (device.mtu, device.is_tunnel, len(device.addresses)) for name, device in machine.devices.items()
    } == {
        "lo0": (16384, False, 1),
        "en0": (1500, False, 1),
        "utun0": (1380, True, 0),
        "utun4": (1420, True, 1),
    }
    assert [device.name for device in machine.list_devices(IPv4Address("10.8.0.1"))] == ["utun4"]
    assert {str(route.destination): route.device for route in machine.routes} == {
        "0.0.0.0/0": "en0",
        "10.1.0.0/16": "utun4",
        "10.8.0.0/24": "utun4",
        "10.8.0.10/32": "utun4",
        "127.0.0.0/8": "lo0",
        "192.168.1.0/24": "en0",
        "203.0.113.20/32": "en0",
        "224.0.0.0/4": "en0",
    }
    assert machine.resolvers == {IPv4Address("10.1.0.2")}


def test_an_older_mac_s_routes_have_more_columns() -> None:
    older = NETSTAT.replace("Flags               Netif", "Flags        Refs      Use   Netif")
    older = "\n".join(
        " ".join([*words[:3], "1", "0", *words[3:]]) if (words := line.split()) and words[0][0].isdigit() else line
        for line in older.replace("default            192.168.1.1        UGScg ", "0/1 192.168.1.1 UGScg ").splitlines()
        if "link#16" not in line
    )
    machine = parse_machine(f"{IFCONFIG}{older}\n{SCUTIL}")
    assert machine.routes[0].device == "en0" and machine.routes[1].device == "utun4"


@pytest.mark.parametrize("text", [WINDOWS, GERMAN, WINDOWS.replace("\n", "\r\n")], ids=["English", "German", "CR LF"])
def test_a_windows_machine_s_adapters_routes_and_name_servers(text: str) -> None:
    machine = parse_machine(text)
    tunnel, wifi = machine.devices.values()
    assert (tunnel.name, tunnel.is_tunnel, tunnel.mtu) == (TUNNELS["Windows"], True, None)
    assert ([str(address) for address in tunnel.addresses], wifi.is_tunnel) == (["10.8.0.10/24"], False)
    assert [str(address) for address in wifi.addresses] == ["192.168.1.20/24"]
    assert machine.resolvers == {IPv4Address(word) for word in ("10.1.0.2", "192.168.1.1", "192.168.1.2")}
    routes = {str(route.destination): (route.device, route.metric) for route in machine.routes}
    assert routes["0.0.0.0/0"] == (wifi.name, 35)
    assert routes["10.1.0.0/16"] == (tunnel.name, 281)
    assert routes["127.0.0.0/8"] == ("127.0.0.1", 331)


@pytest.mark.parametrize(
    ("system", "former", "new", "name"),
    [
        ("macOS", "192.168.1          link#6", "10.1.1             link#6", "network-is-local"),
        ("macOS", "10.1/16            10.8.0.1           UGSc                utun4\n", "", "tunnel-route-missing"),
        ("macOS", "default            192.168.1.1        UGScg                 en0\n", "", "remote-without-route"),
        ("macOS", "inet 10.8.0.10 -->", "inet 10.99.0.10 -->", "tunnel-down"),
        ("macOS", "nameserver[0] : 10.1.0.2", "nameserver[0] : 192.168.1.1", "resolver-elsewhere"),
        ("Windows", "      192.168.1.0    255.255.255.0", "         10.1.1.0    255.255.255.0", "network-is-local"),
        ("Windows", "         10.1.0.0      255.255.0.0", "         10.9.0.0      255.255.0.0", "tunnel-route-missing"),
        ("Windows", "          0.0.0.0          0.0.0.0", "        10.44.0.0      255.255.0.0", "remote-without-route"),
        ("Windows", ": 10.8.0.10(Preferred)", ": 169.254.7.7(Preferred)", "tunnel-down"),
        ("Windows", ": 10.1.0.2\n", ": 192.168.1.3\n", "resolver-elsewhere"),
    ],
)
def test_what_is_broken_on_a_machine_has_the_same_name_on_every_system(
    system: str, former: str, new: str, name: str
) -> None:
    assert former in TEXTS[system]
    # Without the route to the gateway's address alone, which a redirected client has besides.
    text = TEXTS[system].replace(former, new).replace("203.0.113.20/32", "198.51.100.1/32")
    broken = find_first_broken(judge_path(replace(WHOLE, machine=parse_machine(text))))
    assert broken is not None
    assert broken.breakage == name, broken


def test_two_tunnels_on_a_mac() -> None:
    second = "utun5: flags=8051<UP,RUNNING> mtu 1420\n\tinet 10.8.0.130 --> 10.8.0.130 netmask 0xffffff00\n"
    broken = find_first_broken(judge_path(replace(WHOLE, machine=parse_machine(IFCONFIG + second + NETSTAT + SCUTIL))))
    assert broken is not None
    assert (broken.breakage, broken.finding) == ("tunnel-twice", "utun4 and utun5 are tunnels to the gateway")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp437"])
def test_a_file_is_read_in_the_encodings_that_windows_writes(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "machine.txt"
    path.write_bytes(GERMAN.encode(encoding))
    assert isinstance(read_machine(path), ClientMachine)
    assert len(read_machine(path).routes) == 5


@pytest.mark.parametrize(
    "text", [IFCONFIG, NETSTAT, IPCONFIG, ROUTE_PRINT], ids=["ifconfig", "netstat", "ipconfig", "route"]
)
def test_half_of_a_description_is_refused(text: str) -> None:
    with pytest.raises(MachineError, match="not described as expected"):
        parse_machine(text)
