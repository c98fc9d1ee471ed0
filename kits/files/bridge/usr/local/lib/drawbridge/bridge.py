#!/usr/bin/env python3
"""Moves this host's addresses from the interface in its LAN to a bridge, and back if the host is no longer reached.

    bridge.py try       records the present network and tries the bridge; `install` runs it
    bridge.py confirm   confirms by hand that this host is reached, where no router can answer
    bridge.py remove    restores the former network for good
    bridge.py stage     at boot: installs the files of a confirmed bridge before the network starts
    bridge.py watch     creates the bridge and confirms or undoes it; drawbridge-bridge.service runs it
    bridge.py undo      undoes a bridge that is not confirmed; it runs however `watch` ended, also after kill -9

Until the bridge is confirmed its files are only in /run, so that a reboot restores the network as well. A bridge is
confirmed if it has each address that the interface had, and if the LAN's routers and all hosts that are logged in from
the LAN answer. systemd-networkd runs the bridge; the host's other networks stay with whatever configures them.

Sources: systemd.network(5), networkctl(1), interfaces(5) and ifup(8); /run/systemd/netif as sd-network(3) reads it.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

BRIDGE = "br0"
KIT = Path("/etc/drawbridge/bridge")
ENV = Path("/etc/drawbridge/bridge.env")
STATE = Path("/var/lib/drawbridge-bridge")
RUN = Path("/run/drawbridge-bridge")
NETWORKD = Path("/run/systemd/network")
NETWORKD_CONF = Path("/run/systemd/networkd.conf.d/00-drawbridge.conf")
LINKS = Path("/run/systemd/netif/links")
LEASES = Path("/run/systemd/netif/leases")
#: Sorts before the host's own files: the first file that matches an interface counts.
PREFIX = "00-drawbridge-"
SERVICE = "drawbridge-bridge.service"
#: Sections of a .network file that describe the interface itself, not its network.
LINK_SECTIONS = ("Match", "Link", "Bridge", "BridgeFDB", "BridgeMDB", "BridgeVLAN", "SR-IOV", "CAN")

Former = dict[str, Any]


class BridgeError(Exception):
    """This host cannot be a bridge; the text says why, and what would help."""


def main(command: str) -> int:
    """Run a command and return the exit status."""
    try:
        return COMMANDS[command]()
    except BridgeError as error:
        print(f"no bridge: {error}", file=sys.stderr)
        return 1


# The former network


def snapshot(nic: str) -> Former:
    """Return the present network of an interface; raises `BridgeError` if a bridge cannot take it over."""
    links = ip("-details", "link", "show")
    link = next((entry for entry in links if entry["ifname"] == nic), None)
    if link is None:
        raise BridgeError(f"there is no interface {nic}; name another one in the stack file (bridge: {{interface: …}})")
    if link["link_type"] != "ether" or Path(f"/sys/class/net/{nic}/phy80211").exists():
        raise BridgeError(f"{nic} is not wired Ethernet: an access point drops frames of other hosts; use a cable")
    if link.get("master"):
        raise BridgeError(f"{nic} is already a port of {link['master']}; remove it from there first")
    kinds = {entry["ifname"]: entry.get("linkinfo", {}).get("info_kind") for entry in links}
    upper = [entry["ifname"] for entry in links if entry.get("link") == nic]
    upper = [name for name in upper if kinds[name] in ("vlan", "macvlan")]
    if upper:
        raise BridgeError(f"{', '.join(upper)} is on top of {nic} and would not work on a bridge")
    if BRIDGE in kinds:
        raise BridgeError(f"there is already an interface {BRIDGE} that does not belong to this kit")
    addresses = list(_addresses(nic))
    if not any(address["family"] == "inet" for address in addresses):
        raise BridgeError(f"{nic} has no IPv4 address: is it the interface in the LAN?")
    index = link["ifindex"]
    manager, sections, link_sections = _manager(nic, index)
    before: Former = {
        "nic": nic,
        "mac": link["address"],
        "manager": manager,
        "networkd": _active("systemd-networkd.service"),
        "addresses": addresses,
        "routes": list(_routes(nic, addresses)),
        "resolv": _resolv(),
        "link": link_sections,
    }
    default = [route for route in before["routes"] if route["dst"] == "default" and route.get("gateway")]
    before["routers"] = [route["gateway"] for route in default]
    before["routers"] += [router for router in _advertised(nic) if router not in before["routers"]]
    before["sections"] = sections + _lease(index, addresses) if sections else _sections(before, nic)
    return before


def _addresses(device: str) -> Iterator[dict[str, Any]]:
    for link in ip("address", "show", "dev", device):
        for entry in link["addr_info"]:
            if entry.get("scope") == "global" and "local" in entry:
                yield {**{key: entry[key] for key in ("family", "local", "prefixlen")}, "dynamic": "dynamic" in entry}


def _routes(nic: str, addresses: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the configured routes, without those that follow from addresses or that a router has advertised."""
    keys = ("dst", "gateway", "metric", "prefsrc", "flags", "protocol")
    leased = any(address["dynamic"] and address["family"] == "inet" for address in addresses)
    for family in ("-4", "-6"):
        for route in ip(family, "route", "show", "dev", nic):
            if route.get("protocol") in ("kernel", "ra") or route["dst"].startswith("fe80:") or route.get("type"):
                continue
            by_lease = family == "-4" and leased and (route["dst"] == "default" or route.get("protocol") == "dhcp")
            yield {**{key: route[key] for key in keys if key in route}, "family": family, "lease": by_lease}


def _advertised(nic: str) -> list[str]:
    routes = ip("-6", "route", "show", "default", "dev", nic)
    return [route["gateway"] for route in routes if route.get("protocol") == "ra" and "gateway" in route]


def _manager(nic: str, index: int) -> tuple[str, str, str]:
    """Return the name of an interface's network manager, and networkd's sections for its network and for the link."""
    status = _variables(LINKS / str(index)) if _active("systemd-networkd.service") else {}
    if status.get("NETWORK_FILE"):
        files = [status["NETWORK_FILE"], *re.findall(r"(?:\\.|\S)+", status.get("NETWORK_FILE_DROPINS", ""))]
        blocks = [block for file in files for block in _blocks(Path(file.strip('"')).read_text())]
        network = "".join(text for name, text in blocks if name not in LINK_SECTIONS)
        return "networkd", network, "".join(text for name, text in blocks if name == "Link")
    if shutil.which("ifquery") and not call("ifquery", "--state", nic).returncode:
        if str(Path("/etc/resolv.conf").resolve()).startswith("/run/resolvconf"):
            raise BridgeError("the package resolvconf would forget the name servers of the interface; remove it first")
        return "ifupdown", "", ""
    managed = _active("NetworkManager.service") and "unmanaged" not in call(*_STATE_OF, nic).stdout
    managers = ["NetworkManager"] if managed else []
    managers += [name for name in ("dhcpcd", "connman") if _active(f"{name}.service")]
    if managers:
        remedy = "let systemd-networkd or ifupdown manage it (see docs/bridges.md)"
        raise BridgeError(f"{managers[0]} manages {nic}; {remedy}")
    return "none", "", ""


_STATE_OF = ("nmcli", "-g", "GENERAL.STATE", "device", "show")


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the sections of a systemd file, each with its name."""
    for part in re.split(r"(?m)^(?=\[)", text):
        if heading := re.match(r"\[([^]]+)\]", part):
            yield heading[1], part.rstrip("\n") + "\n"


def _resolv() -> str | None:
    """Return the content of /etc/resolv.conf if it is a regular file."""
    file = Path("/etc/resolv.conf")
    return file.read_text() if file.is_file() and not file.is_symlink() else None


def _lease(index: int, addresses: list[dict[str, Any]]) -> str:
    """Return the section that gets the same lease on the bridge: its client identifier (RFC 4361) and its address."""
    identifier = _variables(LEASES / str(index)).get("CLIENTID", "")
    iaid = f"IAID={int(identifier[2:10], 16)}\n" if re.fullmatch(r"ff[0-9a-f]{8,}", identifier) else ""
    leased = [address["local"] for address in addresses if address["dynamic"] and address["family"] == "inet"]
    return f"\n[DHCPv4]\n{iaid}RequestAddress={leased[0]}\n" if leased else ""


def _sections(before: Former, nic: str) -> str:
    """Return systemd-networkd's sections for the network of an interface that it did not configure."""
    dynamic = [address for address in before["addresses"] if address["dynamic"]]
    leased = [address for address in dynamic if address["family"] == "inet"]
    advertised = any(address["family"] == "inet6" for address in dynamic) or _advertised(nic)
    text = f"[Network]\nDHCP={'ipv4' if leased else 'no'}\nIPv6AcceptRA={'yes' if advertised else 'no'}\n"
    if str(Path("/etc/resolv.conf").resolve()).startswith("/run/systemd/resolve"):
        for word, *rest in map(str.split, _lines(Path("/run/systemd/resolve/resolv.conf"))):
            text += "".join(f"DNS={server}\n" for server in rest) if word == "nameserver" else ""
            text += f"Domains={' '.join(rest)}\n" if word == "search" else ""
    if leased:
        text += f"\n[DHCPv4]\nClientIdentifier=mac\nRequestAddress={leased[0]['local']}\n"
    for address in before["addresses"]:
        if not address["dynamic"]:
            text += f"\n[Address]\nAddress={address['local']}/{address['prefixlen']}\n"
    for route in before["routes"]:
        if not route["lease"]:
            text += f"\n[Route]\n{_route(route)}"
    return text


def _route(route: Mapping[str, Any]) -> str:
    everything = "0.0.0.0/0" if route["family"] == "-4" else "::/0"
    text = f"Destination={everything if route['dst'] == 'default' else route['dst']}\n"
    for key, name in (("gateway", "Gateway"), ("metric", "Metric"), ("prefsrc", "PreferredSource")):
        text += f"{name}={route[key]}\n" if key in route else ""
    return text + ("GatewayOnLink=yes\n" if "onlink" in route.get("flags", ()) else "")


# The bridge


def compose(before: Former) -> dict[str, str]:
    """Return the bridge's files for systemd-networkd by name."""
    device = (KIT / f"{BRIDGE}.netdev").read_text()
    # The bridge takes the interface's hardware address, which the LAN's hosts and its DHCP server know.
    device = device.replace("Kind=bridge\n", f"Kind=bridge\nMACAddress={before['mac']}\n")
    files = {
        f"{BRIDGE}.netdev": device,
        f"{BRIDGE}.network": f"[Match]\nName={BRIDGE}\n\n{before['sections']}{(KIT / f'{BRIDGE}.network').read_text()}",
        "port.network": f"[Match]\nName={before['nic']}\n\n{before['link']}{_PORT}",
    }
    additional = (file for file in KIT.iterdir() if file.name not in files)
    return files | {file.name: file.read_text() for file in additional}


_PORT = f"""
[Network]
Bridge={BRIDGE}
LinkLocalAddressing=no
IPv6AcceptRA=no
LLDP=no
"""


def stage() -> int:
    """Install the bridge's files until the next reboot."""
    before = load_former()
    for name, text in _staged().items():
        write(NETWORKD / f"{PREFIX}{name}", text)
    if not before["networkd"]:
        # The routes and rules of other interfaces stay as they are.
        write(NETWORKD_CONF, "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n")
        call("systemctl", "start", "--no-block", "systemd-networkd.service")
    write(RUN / "ports" / before["nic"], "")
    excluded = _variables(Path("/etc/default/networking")).get("EXCLUDE_INTERFACES", "")
    write(RUN / "networking", f'EXCLUDE_INTERFACES="{f"{excluded} ".lstrip()}{before["nic"]}"\n')
    return 0


def apply() -> None:
    """Create the bridge with the interface's network."""
    before = load_former()
    nic = before["nic"]
    if before["manager"] == "ifupdown":
        call("ifdown", nic)
        if before["resolv"] and _resolv() != before["resolv"]:
            write(Path("/etc/resolv.conf"), before["resolv"])
    running = _active("systemd-networkd.service")
    stage()
    call("ip", "address", "flush", "dev", nic)
    if running:
        call("networkctl", "reload")
        call("networkctl", "reconfigure", nic)
    else:
        call("systemctl", "start", "systemd-networkd.service")


def restore() -> None:
    """Restore the former network."""
    before = load_former()
    nic = before["nic"]
    for file in (*NETWORKD.glob(f"{PREFIX}*"), NETWORKD_CONF, RUN / "ports" / nic, RUN / "networking"):
        file.unlink(missing_ok=True)
    call("ip", "link", "delete", BRIDGE)
    if before["networkd"]:
        call("networkctl", "reload")
    else:
        call("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd.service")
    call("ip", "link", "set", nic, "nomaster")
    call("ip", "link", "set", nic, "addrgenmode", "eui64", "up")
    if before["manager"] == "networkd":
        call("networkctl", "reconfigure", nic)
    elif before["manager"] == "ifupdown":
        call("ifup", "--force", nic)
    else:
        for address in before["addresses"]:
            options = ("broadcast", "+") if address["family"] == "inet" else ("nodad",)
            call("ip", "address", "replace", f"{address['local']}/{address['prefixlen']}", *options, "dev", nic)
        for route in sorted(before["routes"], key=lambda route: "gateway" in route):
            keywords = (("gateway", "via"), ("metric", "metric"), ("prefsrc", "src"))
            words = [word for key, name in keywords if key in route for word in (name, str(route[key]))]
            words += ["onlink"] if "onlink" in route.get("flags", ()) else []
            call("ip", route["family"], "route", "replace", route["dst"], "dev", nic, *words)


# Reachability


def find_fault(before: Former, device: str, witnesses: Iterable[str]) -> str | None:
    """Return why this host may not be reached through an interface; None if all witnesses answer."""
    exists = Path(f"/sys/class/net/{device}").exists()
    present = {address["local"] for address in _addresses(device)} if exists else set[str]()
    lost = [
        address["local"]
        for address in before["addresses"]
        if address["local"] not in present and (address["family"] == "inet" or not address["dynamic"])
    ]
    if lost:
        instead = f"; it has {', '.join(sorted(present))}" if present else ""
        return f"{device} does not have the address {lost[0]}{instead}"
    silent = [address for address in witnesses if not answers(address, device)]
    if silent:
        return f"{silent[0]} does not answer on {device}"
    return None


def answers(address: str, device: str) -> bool:
    """Return whether a host of the LAN answers a ping, or at least ARP or neighbour discovery."""
    if call("ping", "-n", "-c", "1", "-W", "1", "-I", device, address).returncode == 0:
        return True
    neighbours = ip("neighbour", "show", "to", address, "dev", device)
    alive = {"REACHABLE", "DELAY", "PROBE"}
    return any("lladdr" in neighbour and alive & set(neighbour.get("state", ())) for neighbour in neighbours)


def wait_reachable(before: Former, device: str, witnesses: list[str], seconds: float) -> str | None:
    """Wait at most `seconds` until the host is reached through `device`; return the fault, or None if it is reached."""
    end = time.monotonic() + seconds
    while fault := find_fault(before, device, witnesses):
        if time.monotonic() > end:
            return fault
        time.sleep(0.5)
    if witnesses or (STATE / "confirmed").exists():
        return None
    command = "python3 /usr/local/lib/drawbridge/bridge.py confirm"
    print(f"there is no router that could answer: run `{command}` if this host is reached", flush=True)
    while not (RUN / "confirm").exists():
        if time.monotonic() > end:
            return "there is no router that could answer, and nobody has confirmed the bridge by hand"
        time.sleep(0.5)
    return None


def find_admins(before: Former) -> list[str]:
    """Return the addresses in the LAN itself that are logged in by SSH; all others come through a router."""
    sockets = call("ss", "-Htn", "state", "established", "( sport = :22 )").stdout.splitlines()
    ends = (line.split()[-1] for line in sockets if line.split())
    peers = {end.rpartition(":")[0].strip("[]").removeprefix("::ffff:") for end in ends}
    return sorted(peer for peer in peers if _on_link(peer, before["nic"]))


def _on_link(peer: str, nic: str) -> bool:
    routes = ip("route", "get", peer)
    return bool(routes) and routes[0].get("dev") == nic and "gateway" not in routes[0]


def watch() -> int:
    """Create the bridge and confirm it, or restore the former network."""
    before, trying = load_former(), (RUN / "trying").exists()
    confirmed = STATE / "confirmed"
    if not (trying or confirmed.exists()):
        raise BridgeError("it was never confirmed; run the kit's `install` again")
    if trying or not Path(f"/sys/class/net/{BRIDGE}/brif/{before['nic']}").exists():
        apply()
    witnesses = before["routers"] + (before["admins"] if trying else [])
    timeout = float(_variables(ENV)["TIMEOUT"])
    fault = wait_reachable(before, BRIDGE, witnesses, timeout)
    if fault is None:
        write(confirmed, "")
        (RUN / "trying").unlink(missing_ok=True)
        print(f"{BRIDGE} has this host's addresses, and the host is reached through it", flush=True)
        return 0
    restore()
    write(RUN / "why", fault)
    if not trying and (fault_without := wait_reachable(before, before["nic"], witnesses, timeout)):
        print(f"{fault}, and without the bridge {fault_without}: the bridge stays", flush=True)
        apply()
        return 0
    raise BridgeError(f"{fault}; the former network is restored")


def undo_unconfirmed() -> int:
    """Restore the former network if the bridge is still on trial."""
    if (RUN / "trying").exists():
        (RUN / "trying").unlink()
        if any(NETWORKD.glob(f"{PREFIX}*")):
            restore()
    return 0


# Commands for people


def try_bridge() -> int:
    """Record the present network and try the bridge; raises `BridgeError` if the former network was restored."""
    before = load_former() if (STATE / "former.json").exists() else None
    configured = _variables(ENV).get("NIC")
    if before and (STATE / "confirmed").exists() and Path(f"/sys/class/net/{BRIDGE}").exists():
        if (configured or before["nic"]) == before["nic"] and compose(before) == _staged():
            return 0
        # A different bridge is tried from the network that was there before the first one.
        remove()
        wait_reachable(before, before["nic"], before["routers"], 30)
    nic = configured or _default_interface()
    before = snapshot(nic)
    before["admins"] = find_admins(before)
    shutil.rmtree(STATE, ignore_errors=True)
    for name, text in compose(before).items():
        write(STATE / "network" / name, text)
    write(STATE / "former.json", json.dumps(before, indent=1))
    (RUN / "confirm").unlink(missing_ok=True)
    (RUN / "why").unlink(missing_ok=True)
    # On its way down the service of a former bridge would undo what is tried now.
    call("systemctl", "stop", SERVICE)
    write(RUN / "trying", "")
    print(f"moving this host's addresses from {nic} to {BRIDGE}", file=sys.stderr)
    call("systemctl", "restart", SERVICE)
    if not (STATE / "confirmed").exists():
        fault = (RUN / "why").read_text() if (RUN / "why").exists() else f"see `journalctl -u {SERVICE}`"
        raise BridgeError(f"{fault}; the former network is restored")
    return 0


def confirm() -> int:
    """Confirm by hand that this host is reached."""
    write(RUN / "confirm", "")
    return 0


def remove() -> int:
    """Restore the former network for good."""
    if (STATE / "former.json").exists():
        (STATE / "confirmed").unlink(missing_ok=True)
        if Path(f"/sys/class/net/{BRIDGE}").exists():
            restore()
    return 0


def _default_interface() -> str:
    routes = ip("-4", "route", "show", "default")
    if not routes:
        raise BridgeError("there is no default route that shows the LAN's interface; name it in the stack file")
    return str(min(routes, key=lambda route: int(route.get("metric", 0)))["dev"])


# Files and programs


def load_former() -> Former:
    """Return the former network; raises `BridgeError` if none was recorded."""
    try:
        former: Former = json.loads((STATE / "former.json").read_text())
    except FileNotFoundError:
        raise BridgeError("no former network was recorded; run the kit's `install`") from None
    return former


def _staged() -> dict[str, str]:
    return {file.name: file.read_text() for file in (STATE / "network").iterdir()}


def _variables(file: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in _lines(file) if not line.startswith("#"))
    return {key: value.strip().strip('"') for key, _, value in pairs}


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.strip()] if file.exists() else []


def _active(unit: str) -> bool:
    return call("systemctl", "--quiet", "is-active", unit).returncode == 0


def write(file: Path, text: str) -> None:
    """Replace a file in one step: it has the old content or the new, also after a power failure."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def ip(*words: str) -> list[dict[str, Any]]:
    """Return the entries that ip(8) lists; none if it fails."""
    entries = json.loads(call("ip", "-json", *words).stdout or "[]")
    return [entry for entry in entries if entry]


def call(*argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command, for at most a minute unless it restarts a unit; a failure is a result with exit status 1."""
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=None if "restart" in argv else 60, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", "it did not end")


COMMANDS = {
    "try": try_bridge,
    "confirm": confirm,
    "remove": remove,
    "stage": stage,
    "watch": watch,
    "undo": undo_unconfirmed,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
