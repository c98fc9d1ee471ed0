"""The script that measures clients' paths reads what OpenVPN and nft write, and replaces the filter's elements.

Does not prove that an echo's answer takes the path it stands for: test_narrow_paths.py has real tunnels.
"""

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from openvpn.listener import Listener
from openvpn.model import ENVELOPE
from openvpn.topology import Segment
from tests.support import gateway
from tests.support.sources import load_script
from userdata.cloud_config import FILES
from userdata.release import Release

STATUS = (
    "TITLE\tOpenVPN 2.6.14\nTIME\t2026-11-28 22:25:00\t1795904700\n"
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\tBytes Sent"
    "\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher\n"
    "CLIENT_LIST\talice\t192.0.2.2:35540\t10.8.0.10\tfd00::10\t3\t4\t2026-11-28 22:24:50\t{since}\tUNDEF\t0\t0\tAES\n"
    "CLIENT_LIST\tUNDEF\t192.0.2.9:1\t\t\t9\t9\t2026-11-28 11:22:41\t1795864961\tUNDEF\t1\t1\t\n"
    "HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name\tReal Address\tLast Ref\tLast Ref (time_t)\n"
    "ROUTING_TABLE\t10.8.0.10\talice\t192.0.2.2:35540\t2026-11-28 22:24:50\t1795904690\n"
    "ROUTING_TABLE\t192.168.1.7C\talice\t192.0.2.2:35540\t2026-11-28 22:24:50\t1795904690\n"
    "ROUTING_TABLE\t192.168.1.0/24\talice\t192.0.2.2:35540\t2026-11-28 22:24:50\t1795904690\n"
    "ROUTING_TABLE\tfd00::10\talice\t192.0.2.2:35540\t2026-11-28 22:24:50\t1795904690\n"
    "GLOBAL_STATS\tdco_enabled\t0\nEND\n"
)
SIZES = {"path_1472": 1420, "path_1400": 1348, "path_1280": 1228}
UNKNOWN = 1348


@pytest.fixture(scope="module")
def path_mtu() -> ModuleType:
    """The script as it is on the machine: no module of any package."""
    return load_script(FILES / "path_mtu.py")


class Clients:
    """Stands in for the tunnel and the filter: clients that answer up to a size, some of them in fragments."""

    def __init__(self) -> None:
        self.largest = {IPv4Address("10.8.0.10"): 1500}
        self.fragmented_above = 9999
        self.asked: list[int] = []
        self.transactions: list[list[str]] = []

    def ask(self, addresses: Collection[IPv4Address], size: int) -> set[IPv4Address]:
        self.asked.append(size)
        return {address for address in addresses if size <= self.largest.get(address, 0)}

    def run_nft(self, *arguments: str, commands: Iterable[str] = ()) -> str:
        if arguments[0] == "--file":
            self.transactions.append(list(commands))
        elements = [{"elem": {"val": "192.0.2.2", "expires": 59}}] if self.asked[-1:] > [self.fragmented_above] else []
        return json.dumps({"nftables": [{"metainfo": {}}, {"set": {"name": "fragmented", "elem": elements}}]})


@pytest.fixture
def clients(path_mtu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()
    monkeypatch.setattr(path_mtu, "run_nft", clients.run_nft)
    return clients


def session(path_mtu: ModuleType, since: str = "1", peer: str = "192.0.2.2:1") -> Any:
    address = IPv4Address("10.8.0.10")
    return path_mtu.Session(address, peer, since, (ip_network(address), ip_network("fd00::10")))


def elements(chain: str) -> list[str]:
    """Return the commands that have one client's addresses in both maps."""
    return [
        line
        for name, address in (("client_paths", "10.8.0.10/32"), ("client_paths6", "fd00::10/128"))
        for line in (
            f"flush map inet drawbridge {name}",
            f"add element inet drawbridge {name} {{ {address} timeout 300s : goto {chain} }}",
        )
    ]


EMPTY = ["flush map inet drawbridge client_paths", "flush map inet drawbridge client_paths6"]


def test_sessions_are_read_with_all_that_is_routed_to_them(path_mtu: ModuleType) -> None:
    (alice,) = path_mtu.read_sessions(STATUS.format(since=1795904690))
    assert (alice.address, alice.peer, alice.outer_address) == (
        IPv4Address("10.8.0.10"),
        "192.0.2.2:35540",
        "192.0.2.2",
    )
    assert alice.networks == (ip_network("10.8.0.10"), ip_network("192.168.1.0/24"), ip_network("fd00::10"))
    assert path_mtu.read_sessions(STATUS.format(since=1795904691)) != [alice]
    assert path_mtu.read_sessions(STATUS[:200]) == path_mtu.read_sessions("") == []


def test_status_files_are_read_again_when_they_have_changed(
    path_mtu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_mtu, "RUNTIME", tmp_path)
    files = path_mtu.StatusFiles()
    assert files.sessions() == []
    status = tmp_path / "openvpn-server/status"
    status.parent.mkdir()
    status.write_text(STATUS.format(since=1))
    assert [alice.since for alice in files.sessions()] == ["1"]
    status.write_text(STATUS.format(since=2))
    os.utime(status, ns=(1, 1))
    assert [alice.since for alice in files.sessions()] == ["2"]
    status.unlink()
    assert files.sessions() == []


@pytest.mark.parametrize("size", [84, 1420])
def test_an_echo_is_what_icmp_wants_and_only_its_own_answer_counts(path_mtu: ModuleType, size: int) -> None:
    token = bytes(range(16))
    request = path_mtu.render_echo(7, 9, token, size)
    assert (len(request), request[0], path_mtu.checksum(request)) == (size - 20, 8, 0)
    header = b"\x45" + bytes(19)
    answer = header + b"\0" + request[1:]
    assert path_mtu.read_echo(answer, 7, token) == (9, size)
    assert path_mtu.read_echo(header + request, 7, token) is None
    assert path_mtu.read_echo(answer, 8, token) is path_mtu.read_echo(answer, 7, token[::-1]) is None
    options = b"\x46" + bytes(23) + answer[20:]
    assert path_mtu.read_echo(options, 7, token) == (9, size + 4)
    for length in range(44):
        assert path_mtu.read_echo(answer[:length], 7, token) is None


@pytest.mark.parametrize(
    ("largest", "fragmented_above", "asked", "chain"),
    [
        (1420, 9999, [84, 1420], "path_1472"),
        (1419, 9999, [84, 1420, 1228, 1348], "path_1400"),
        (1347, 9999, [84, 1420, 1228, 1348], "path_1280"),
        # The answer came, but in fragments.
        (1420, 1348, [84, 1420, 1228, 1348], "path_1400"),
        # It answers, but nothing large: its own firewall's doing more likely than its path's.
        (1000, 9999, [84, 1420, 1228], None),
        (0, 9999, [84], None),
    ],
)
def test_a_path_is_the_largest_size_that_is_answered_in_one_piece(
    path_mtu: ModuleType, clients: Clients, largest: int, fragmented_above: int, asked: list[int], chain: str | None
) -> None:
    clients.largest[IPv4Address("10.8.0.10")], clients.fragmented_above = largest, fragmented_above
    alice = session(path_mtu)
    assert path_mtu.measure(clients, [alice], SIZES) == ({alice: chain} if chain else {})
    assert clients.asked == asked


def test_elements_never_overlap(path_mtu: ModuleType) -> None:
    """Nft would refuse all of them."""
    paths = dict.fromkeys(map(ip_network, ("10.0.1.0/24", "10.0.0.0/16", "10.1.0.0/16", "10.0.0.0/24")), "path_1280")
    commands = path_mtu.render_elements(paths)
    assert [word for word in commands[1].split() if "/" in word] == ["10.0.0.0/16", "10.1.0.0/16"]
    assert path_mtu.render_elements({}) == EMPTY


def test_elements_last_as_long_as_the_session_and_its_address(path_mtu: ModuleType, clients: Clients) -> None:
    path_map = path_mtu.PathMap(SIZES, UNKNOWN)
    for sessions, expected in (
        ([session(path_mtu)], [EMPTY, elements("path_1472")]),
        # It is not measured all the time.
        ([session(path_mtu)], []),
        # Another address of its own, then a new session: what was measured is not believed until it was measured again.
        ([session(path_mtu, peer="192.0.2.2:2")], [EMPTY, elements("path_1472")]),
        ([session(path_mtu, since="2")], [EMPTY, elements("path_1472")]),
        ([], [EMPTY]),
    ):
        clients.transactions.clear()
        path_map.update(sessions, clients)
        assert clients.transactions == expected


@pytest.mark.parametrize(
    ("before", "after", "chain"),
    [
        (1420, 1228, "path_1280"),
        (1228, 1420, "path_1472"),
        # No answer: what is known of a narrow path stays, and of a wide one does not.
        (1228, 0, "path_1280"),
        (1420, 0, None),
    ],
)
def test_paths_are_measured_again(
    path_mtu: ModuleType,
    clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    after: int,
    chain: str | None,
) -> None:
    monkeypatch.setattr(path_mtu, "INTERVAL", 0.0)
    path_map = path_mtu.PathMap(SIZES, UNKNOWN)
    for largest in (before, after):
        clients.largest[IPv4Address("10.8.0.10")] = largest
        path_map.update([session(path_mtu)], clients)
    assert clients.transactions[-1] == (elements(chain) if chain else EMPTY)


def test_elements_are_written_anew_before_they_expire(
    path_mtu: ModuleType, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after the agent has loaded the filter anew, which empties the maps."""
    assert path_mtu.WRITE_INTERVAL < path_mtu.ELEMENT_LIFE / 2
    path_map = path_mtu.PathMap(SIZES, UNKNOWN)
    path_map.update([session(path_mtu)], clients)
    monkeypatch.setattr(path_map, "_write_at", 0.0)
    clients.transactions.clear()
    path_map.update([session(path_mtu)], clients)
    assert clients.transactions == [elements("path_1472")]


def test_a_filter_that_is_being_loaded_costs_no_measurement(
    path_mtu: ModuleType, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_map = path_mtu.PathMap(SIZES, UNKNOWN)
    path_map.update([session(path_mtu)], clients)

    def refuse(*_: object, **__: object) -> str:
        raise OSError("No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(path_mtu, "run_nft", refuse)
        patch.setattr(path_map, "_write_at", 0.0)
        with pytest.raises(OSError, match="No such file"):
            path_map.update([session(path_mtu)], clients)
    path_map.update([session(path_mtu)], clients)
    assert clients.transactions[-1] == elements("path_1472")


def test_the_release_has_the_sizes_of_the_tunnel() -> None:
    contents = gateway.release_contents(gateway.build_release())
    settings = json.loads(contents["path-mtu.json"])
    assert settings["device"] == "tun0"
    assert settings["unknown"] == gateway.TUNNEL.path_mtu - ENVELOPE
    assert [*settings["paths"].values()] == sorted(settings["paths"].values(), reverse=True)
    assert next(iter(settings["paths"].values())) == gateway.TUNNEL.mtu
    rules = contents["root/etc/drawbridge/nftables.conf"].decode()
    for chain, size in settings["paths"].items():
        assert f"chain {chain} {{" in rules
        # Each size is even, as the checksum of an echo wants it.
        assert size % 2 == 0
    text = contents["root/etc/systemd/system/drawbridge-path-mtu.service"].decode()
    assert "/opt/drawbridge/current/path_mtu.py" in text


@pytest.mark.parametrize(
    "built",
    [
        gateway.build_release(replace(gateway.TUNNEL, topology=Segment())),
        gateway.build_release(replace(gateway.TUNNEL, listener=Listener("tcp", (443,)))),
        gateway.build_linked_release(),
    ],
    ids=["segment", "tcp", "pair"],
)
def test_nothing_is_measured_where_it_would_not_matter(built: Release) -> None:
    """Frames on a segment do not pass the rule, and TCP splits the tunnel's packets itself."""
    contents = gateway.release_contents(built)
    assert not {"path_mtu.py", "path-mtu.json"} & contents.keys()
    assert not any("path-mtu" in path for path in contents)
    assert "client_paths" not in contents["root/etc/drawbridge/nftables.conf"].decode()
