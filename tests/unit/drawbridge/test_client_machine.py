"""A client's machine as iproute2 and resolvectl describe it. Other systems: test_foreign_machines.py."""

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from drawbridge import errors
from drawbridge.doctor.client_machine import ClientRoute
from drawbridge.doctor.machine_reader import measure_path, parse_machine, read_machine

DEVICES = [
    {"ifname": "lo", "mtu": 65536, "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
    {
        "ifname": "wlan0",
        "mtu": 1500,
        "addr_info": [
            {"family": "inet", "local": "192.168.1.20", "prefixlen": 24},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
        ],
    },
    {
        "ifname": "tun0",
        "mtu": 1420,
        "linkinfo": {"info_kind": "tun", "info_data": {"type": "tun"}},
        "addr_info": [{"family": "inet", "local": "10.8.0.10", "prefixlen": 24}],
    },
]
ROUTES = [
    {"dst": "default", "gateway": "192.168.1.1", "dev": "wlan0", "metric": 600},
    {"dst": "default", "gateway": "10.99.0.1", "dev": "eth0", "metric": 100},
    {"dst": "10.1.0.0/16", "gateway": "10.8.0.1", "dev": "tun0"},
    {"dst": "203.0.113.20", "gateway": "192.168.1.1", "dev": "wlan0"},
    {"type": "blackhole", "dst": "10.77.0.0/16"},
]
TEXT = f"{json.dumps(DEVICES)}\n{json.dumps(ROUTES)}\n"


def test_devices_routes_and_name_servers() -> None:
    machine = parse_machine(f"{TEXT}Global:\nLink 2 (wlan0): 192.168.1.1\nLink 5 (tun0): 10.1.0.2 fd00::1\n")
    assert {name: (device.mtu, device.is_tunnel) for name, device in machine.devices.items()} == {
        "lo": (65536, False),
        "wlan0": (1500, False),
        "tun0": (1420, True),
    }
    assert [str(device.addresses[0]) for device in machine.list_devices(IPv4Address("10.8.0.1"))] == ["10.8.0.10/24"]
    assert machine.resolvers == {IPv4Address("192.168.1.1"), IPv4Address("10.1.0.2")}


@pytest.mark.parametrize(
    ("address", "device"), [("10.1.2.3", "tun0"), ("203.0.113.20", "wlan0"), ("198.51.100.1", "eth0")]
)
def test_the_longest_prefix_and_then_the_least_metric_decides(address: str, device: str) -> None:
    route = parse_machine(TEXT).find_route(IPv4Address(address))
    assert isinstance(route, ClientRoute)
    assert route.device == device


def test_the_names_of_resolv_conf() -> None:
    machine = parse_machine(f"{TEXT}# by hand\nsearch lan\nnameserver 127.0.0.53\noptions edns0\n")
    assert machine.resolvers == {IPv4Address("127.0.0.53")}


@pytest.mark.parametrize("text", ["", "{}", "[] ", "[1] [2]", '[{"ifname": "a"}] []', "Device eth0 does not exist"])
def test_another_text_is_refused_with_the_command_to_run(text: str) -> None:
    with pytest.raises(errors.MachineError) as caught:
        parse_machine(text)
    assert "ip -json -details address" in caught.value.remedy


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "machine.txt"
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(errors.MachineError, match="cannot be read"):
        read_machine(path)


#: Stands for ping: answers 1,280 bytes, says that 1,500 are too big, loses all else.
PING = """\
#!/bin/sh
while [ "$1" != -s ]; do shift; done
case $2 in
    1252) exit 0 ;;
    1472) echo "ping: local error: message too long, mtu=1400"; exit 1 ;;
    0) exit 2 ;;
    *) exit 1 ;;
esac
"""


@pytest.mark.allow_subprocess
def test_a_path_is_measured_with_pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ping = tmp_path / "ping"
    ping.write_text(PING)
    ping.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sizes = measure_path(IPv4Address("192.0.2.1"), (28, 1280, 1400, 1500))
    assert sizes == {1280: True, 1400: False, 1500: True}


@pytest.mark.allow_subprocess
def test_without_ping_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measure_path(IPv4Address("192.0.2.1"), (1280,)) == {}
