"""The script that moves a host's addresses to a bridge: what it makes of what it finds.

Does not prove that a host is reached afterwards: tests/lab/worlds/test_bridge.py does.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kits.kit import FILES
from tests.support.sources import load_script

NIC = "enp1s0"
LINK = {"ifname": NIC, "ifindex": 2, "link_type": "ether", "address": "02:00:00:00:00:07", "addr_info": []}
ADDRESS = {"family": "inet", "local": "192.168.1.40", "prefixlen": 24, "scope": "global"}
DEFAULT = {"dst": "default", "gateway": "192.168.1.1", "flags": [], "metric": 100}


@pytest.fixture
def script(tmp_path: Path) -> ModuleType:
    """The script, with places of its own instead of the system's."""
    module = load_script(FILES / "bridge/usr/local/lib/drawbridge/bridge.py")
    places: dict[str, Path] = {name: value for name, value in vars(module).items() if isinstance(value, Path)}
    for name, place in places.items():
        setattr(module, name, tmp_path / str(place).lstrip("/"))
    module.KIT.mkdir(parents=True)
    (module.KIT / "br0.netdev").write_text("[NetDev]\nName=br0\nKind=bridge\n\n[Bridge]\nForwardDelaySec=0\n")
    (module.KIT / "br0.network").write_text("\n[Route]\nDestination=10.1.0.0/16\nGateway=192.168.1.193\n")
    return module


Host = Callable[..., None]


@pytest.fixture
def host(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a function that sets what the commands find that the script runs."""

    def be(
        *,
        links: list[dict[str, Any]] | None = None,
        addresses: list[dict[str, Any]] | None = None,
        routes: list[dict[str, Any]] | None = None,
        active: tuple[str, ...] = (),
        ifupdown: bool = False,
    ) -> None:
        listed_links = [LINK] if links is None else links
        listed_addresses = [ADDRESS] if addresses is None else addresses

        def call(*argv: str) -> "subprocess.CompletedProcess[str]":
            output: object = []
            match [word for word in argv if word not in ("-json", "-details", "-4")]:
                case ["ip", "link", "show"]:
                    output = listed_links
                case ["ip", "address", *_]:
                    output = [{**LINK, "addr_info": listed_addresses}]
                case ["ip", "route", "show", *_]:
                    output = [DEFAULT] if routes is None else routes
                case ["systemctl", "--quiet", "is-active", unit]:
                    return subprocess.CompletedProcess(argv, int(unit not in active), "", "")
                case ["ifquery", *_]:
                    return subprocess.CompletedProcess(argv, int(not ifupdown), "", "")
            return subprocess.CompletedProcess(argv, 0, json.dumps(output), "")

        monkeypatch.setattr(script, "call", call)
        monkeypatch.setattr(script.shutil, "which", lambda name: name if ifupdown else None)

    return be


def test_what_nobody_manages_becomes_what_it_is(script: ModuleType, host: Host) -> None:
    host()
    files = script.compose(script.snapshot(NIC))

    assert "Kind=bridge\nMACAddress=02:00:00:00:00:07\n" in files["br0.netdev"]
    assert files["br0.network"] == (
        "[Match]\nName=br0\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n"
        "\n[Address]\nAddress=192.168.1.40/24\n"
        "\n[Route]\nDestination=0.0.0.0/0\nGateway=192.168.1.1\nMetric=100\n"
        "\n[Route]\nDestination=10.1.0.0/16\nGateway=192.168.1.193\n"
    )
    assert files["port.network"].startswith(f"[Match]\nName={NIC}\n") and "Bridge=br0\n" in files["port.network"]


def test_a_lease_is_asked_for_again_by_the_same_name(script: ModuleType, host: Host) -> None:
    host(addresses=[{**ADDRESS, "dynamic": True}], ifupdown=True)
    before = script.snapshot(NIC)

    assert before["manager"] == "ifupdown" and before["routers"] == ["192.168.1.1"]
    network = script.compose(before)["br0.network"]
    assert "DHCP=ipv4\n" in network and "ClientIdentifier=mac\nRequestAddress=192.168.1.40\n" in network
    assert "Address=192.168.1.40/24" not in network and "Gateway=192.168.1.1\n" not in network


def test_networkds_own_files_are_kept_but_for_what_is_of_the_link(
    script: ModuleType, host: Host, tmp_path: Path
) -> None:
    file = tmp_path / "20-lan.network"
    file.write_text(
        f"[Match]\nName={NIC}\n\n[Link]\nMTUBytes=1400\n\n[Network]\nDHCP=yes\nDNS=192.0.2.1\n\n[DHCPv4]\nUseDNS=no\n"
    )
    script.LINKS.mkdir(parents=True)
    (script.LINKS / "2").write_text(f"ADMIN_STATE=configured\nNETWORK_FILE={file}\n")
    script.LEASES.mkdir(parents=True)
    (script.LEASES / "2").write_text("ADDRESS=192.168.1.40\nCLIENTID=ff0000000a00020000ab11\n")
    host(addresses=[{**ADDRESS, "dynamic": True}], active=("systemd-networkd.service",))
    files = script.compose(script.snapshot(NIC))

    assert "DNS=192.0.2.1\n" in files["br0.network"] and "UseDNS=no\n" in files["br0.network"]
    assert "IAID=10\nRequestAddress=192.168.1.40\n" in files["br0.network"]
    assert f"Name={NIC}" not in files["br0.network"] and "MTUBytes" not in files["br0.network"]
    assert "[Link]\nMTUBytes=1400\n" in files["port.network"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"links": []}, f"there is no interface {NIC}"),
        ({"links": [{**LINK, "link_type": "none"}]}, "is not wired Ethernet"),
        ({"links": [{**LINK, "master": "bond0"}]}, "is already a port of bond0"),
        (
            {"links": [LINK, {"ifname": "v7", "link": NIC, "linkinfo": {"info_kind": "vlan"}}]},
            f"v7 is on top of {NIC}",
        ),
        ({"links": [LINK, {"ifname": "br0"}]}, "there is already an interface br0"),
        ({"addresses": []}, "has no IPv4 address"),
        ({"active": ("NetworkManager.service",)}, f"NetworkManager manages {NIC}"),
        ({"active": ("dhcpcd.service",)}, f"dhcpcd manages {NIC}"),
    ],
)
def test_a_host_that_cannot_be_a_bridge_is_left_as_it_is(
    script: ModuleType, host: Host, state: dict[str, Any], reason: str
) -> None:
    host(**state)
    with pytest.raises(script.BridgeError, match=reason):
        script.snapshot(NIC)
    assert not script.STATE.exists() and not script.NETWORKD.exists()


def test_what_is_staged_is_volatile_until_it_is_proven(script: ModuleType, host: Host) -> None:
    host()
    before = script.snapshot(NIC)
    for name, text in script.compose(before).items():
        script.write(script.STATE / "network" / name, text)
    script.write(script.STATE / "former.json", json.dumps(before))
    script.stage()

    assert sorted(file.name for file in script.NETWORKD.iterdir()) == [
        "00-drawbridge-br0.netdev",
        "00-drawbridge-br0.network",
        "00-drawbridge-port.network",
    ]
    assert (script.RUN / "networking").read_text() == f'EXCLUDE_INTERFACES="{NIC}"\n'
    assert not (script.STATE / "confirmed").exists()


def test_an_address_that_is_another_one_proves_nothing(
    script: ModuleType, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host()
    before = script.snapshot(NIC)
    monkeypatch.setattr(script.Path, "exists", lambda _: True)
    monkeypatch.setattr(script, "answers", lambda address, _: address == "192.168.1.1")

    assert script.find_fault(before, "br0", ["192.168.1.1"]) is None
    assert script.find_fault(before, "br0", ["192.168.1.9"]) == "192.168.1.9 does not answer on br0"
    host(addresses=[{**ADDRESS, "local": "192.168.1.77"}])
    assert script.find_fault(before, "br0", []) == "br0 does not have the address 192.168.1.40; it has 192.168.1.77"


@pytest.fixture
def deeds(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the steps that the script takes; the host is reached through the interfaces that `reached` names."""
    done: list[str] = []
    script.write(script.STATE / "former.json", json.dumps({"nic": NIC, "routers": ["192.168.1.1"], "admins": []}))
    script.write(script.ENV, "NIC=\nTIMEOUT=10\n")
    for name in ("apply", "restore"):
        monkeypatch.setattr(script, name, lambda name=name: done.append(name))
    monkeypatch.setattr(
        script, "wait_reachable", lambda before, device, *_: None if device in script.reached else "silence"
    )
    return done


@pytest.mark.parametrize(
    ("trying", "reached", "did", "stays"),
    [
        (True, {"br0"}, ["apply"], True),
        (True, {NIC}, ["apply", "restore"], False),
        (True, set(), ["apply", "restore"], False),
        # At a boot, from here on: without the bridge where that helps, with it where nobody answers anyway.
        (False, {"br0"}, ["apply"], True),
        (False, {NIC}, ["apply", "restore"], False),
        (False, set(), ["apply", "restore", "apply"], True),
    ],
)
def test_a_bridge_stays_if_it_is_not_what_cuts_the_host_off(
    script: ModuleType, deeds: list[str], trying: bool, reached: set[str], did: list[str], stays: bool
) -> None:
    vars(script)["reached"] = reached
    script.write(script.RUN / "trying" if trying else script.STATE / "confirmed", "")

    if stays:
        assert script.watch() == 0
    else:
        with pytest.raises(script.BridgeError, match="silence; the former network is restored"):
            script.watch()
    assert deeds == did
    assert (script.STATE / "confirmed").exists() == (stays or not trying)


def test_what_was_never_proven_is_not_made_at_a_boot(script: ModuleType, deeds: list[str]) -> None:
    with pytest.raises(script.BridgeError, match="never confirmed"):
        script.watch()
    assert deeds == []


def test_where_there_is_no_router_somebody_has_to_say_that_it_is_reached(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "find_fault", lambda *_: None)
    assert "nobody has confirmed the bridge" in script.wait_reachable({}, "br0", [], 0)
    script.confirm()
    assert script.wait_reachable({}, "br0", [], 10) is None
