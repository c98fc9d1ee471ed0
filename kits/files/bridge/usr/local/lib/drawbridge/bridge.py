#!/usr/bin/env python3
"""Moves this host's addresses from the interface in its LAN to a bridge, and back where that costs the way in.

    bridge.py try       notes the network as it is and tries the bridge; what `install` runs
    bridge.py confirm   says by hand that this host is reached, where no router can prove it
    bridge.py remove    gives the former network back for good
    bridge.py stage     at boot: puts a proven bridge before what would set the network up
    bridge.py watch     makes the bridge and proves it, or takes it back; drawbridge-bridge.service runs it
    bridge.py settle    takes back what is not proven; it runs however `watch` ended, also by kill -9

Until the bridge is proven nothing of it is written but to /run, so that a reboot is a way back as well. Proven means:
each address that the interface had, the bridge has, and the LAN's routers and whoever is logged in from the LAN answer.
The bridge itself is systemd-networkd's; the host's other networks are left to what sets them up.

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
#: Before whatever the host has: the first file that fits an interface counts.
PREFIX = "00-drawbridge-"
SERVICE = "drawbridge-bridge.service"
#: What is of the interface itself, and not of the network it is in.
OF_THE_LINK = ("Match", "Link", "Bridge", "BridgeFDB", "BridgeMDB", "BridgeVLAN", "SR-IOV", "CAN")

Former = dict[str, Any]


class Refused(Exception):
    """A host that cannot be a bridge as it is; the text says why, and what would help."""


def main(command: str) -> int:
    """Return the exit status."""
    try:
        return COMMANDS[command]()
    except Refused as why:
        print(f"no bridge: {why}", file=sys.stderr)
        return 1


# What was there


def snapshot(nic: str) -> Former:
    """The network on an interface, as it is; raises `Refused` where a bridge cannot take it over."""
    found = ip("-details", "link", "show")
    link = next((one for one in found if one["ifname"] == nic), None)
    if link is None:
        raise Refused(f"there is no interface {nic}; name another one in the stack file (bridge: {{interface: …}})")
    if link["link_type"] != "ether" or Path(f"/sys/class/net/{nic}/phy80211").exists():
        raise Refused(f"{nic} is no Ethernet: an access point takes no frames of others; use a cable")
    if link.get("master"):
        raise Refused(f"{nic} is in {link['master']} already; take it out first")
    kinds = {one["ifname"]: one.get("linkinfo", {}).get("info_kind") for one in found}
    above = [one["ifname"] for one in found if one.get("link") == nic and kinds[one["ifname"]] in ("vlan", "macvlan")]
    if above:
        raise Refused(f"{', '.join(above)} is on top of {nic}; a bridge would not take it along")
    if BRIDGE in kinds:
        raise Refused(f"there is an interface {BRIDGE} already, which is not this kit's")
    addresses = list(_addresses(nic))
    if not any(one["family"] == "inet" for one in addresses):
        raise Refused(f"{nic} has no IPv4 address: is it the one in the LAN?")
    index = link["ifindex"]
    manager, sections, of_link = _manager(nic, index)
    before: Former = {
        "nic": nic,
        "mac": link["address"],
        "manager": manager,
        "networkd": _active("systemd-networkd.service"),
        "addresses": addresses,
        "routes": list(_routes(nic, addresses)),
        "resolv": _resolv(),
        "link": of_link,
    }
    before["routers"] = [one["gateway"] for one in before["routes"] if one["dst"] == "default" and one.get("gateway")]
    before["routers"] += [one for one in _advertised(nic) if one not in before["routers"]]
    before["sections"] = sections + _lease(index, addresses) if sections else _sections(before, nic)
    return before


def _addresses(device: str) -> Iterator[dict[str, Any]]:
    for link in ip("address", "show", "dev", device):
        for one in link["addr_info"]:
            if one.get("scope") == "global" and "local" in one:
                yield {**{key: one[key] for key in ("family", "local", "prefixlen")}, "dynamic": "dynamic" in one}


def _routes(nic: str, addresses: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What somebody has set: not what follows from addresses, what a router advertises, or what a lease brought."""
    leased = any(one["dynamic"] and one["family"] == "inet" for one in addresses)
    for family in ("-4", "-6"):
        for one in ip(family, "route", "show", "dev", nic):
            if one.get("protocol") in ("kernel", "ra") or one["dst"].startswith("fe80:") or one.get("type"):
                continue
            kept = ("dst", "gateway", "metric", "prefsrc", "flags", "protocol")
            brought = family == "-4" and leased and (one["dst"] == "default" or one.get("protocol") == "dhcp")
            yield {**{key: one[key] for key in kept if key in one}, "family": family, "lease": brought}


def _advertised(nic: str) -> list[str]:
    found = ip("-6", "route", "show", "default", "dev", nic)
    return [one["gateway"] for one in found if one.get("protocol") == "ra" and "gateway" in one]


def _manager(nic: str, index: int) -> tuple[str, str, str]:
    """Who set an interface up; what systemd-networkd was told of its network and of the link, where it is that."""
    told = _variables(LINKS / str(index)) if _active("systemd-networkd.service") else {}
    if told.get("NETWORK_FILE"):
        files = [told["NETWORK_FILE"], *re.findall(r"(?:\\.|\S)+", told.get("NETWORK_FILE_DROPINS", ""))]
        blocks = [block for file in files for block in _blocks(Path(file.strip('"')).read_text())]
        network = "".join(text for name, text in blocks if name not in OF_THE_LINK)
        return "networkd", network, "".join(text for name, text in blocks if name == "Link")
    if shutil.which("ifquery") and not call("ifquery", "--state", nic).returncode:
        if str(Path("/etc/resolv.conf").resolve()).startswith("/run/resolvconf"):
            raise Refused("the package resolvconf would forget the name servers of the interface; remove it first")
        return "ifupdown", "", ""
    managed = _active("NetworkManager.service") and "unmanaged" not in call(*_STATE_OF, nic).stdout
    others = ["NetworkManager"] if managed else []
    others += [name for name in ("dhcpcd", "connman") if _active(f"{name}.service")]
    if others:
        raise Refused(f"{others[0]} has {nic}; leave it to systemd-networkd or ifupdown (docs/bridges.md says how)")
    return "none", "", ""


_STATE_OF = ("nmcli", "-g", "GENERAL.STATE", "device", "show")


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Sections of a file for systemd, each with its name."""
    for part in re.split(r"(?m)^(?=\[)", text):
        if heading := re.match(r"\[([^]]+)\]", part):
            yield heading[1], part.rstrip("\n") + "\n"


def _resolv() -> str | None:
    """The list of name servers, where it is a file that somebody writes."""
    file = Path("/etc/resolv.conf")
    return file.read_text() if file.is_file() and not file.is_symlink() else None


def _lease(index: int, addresses: list[dict[str, Any]]) -> str:
    """What gets the same lease for another interface: the identifier it was given to (RFC 4361), and its address."""
    identifier = _variables(LEASES / str(index)).get("CLIENTID", "")
    iaid = f"IAID={int(identifier[2:10], 16)}\n" if re.fullmatch(r"ff[0-9a-f]{8,}", identifier) else ""
    leased = [one["local"] for one in addresses if one["dynamic"] and one["family"] == "inet"]
    return f"\n[DHCPv4]\n{iaid}RequestAddress={leased[0]}\n" if leased else ""


def _sections(before: Former, nic: str) -> str:
    """The network of an interface that systemd-networkd did not set up, in its terms."""
    leased = [one for one in before["addresses"] if one["dynamic"] and one["family"] == "inet"]
    advertised = any(one["dynamic"] for one in before["addresses"] if one["family"] == "inet6") or _advertised(nic)
    text = f"[Network]\nDHCP={'ipv4' if leased else 'no'}\nIPv6AcceptRA={'yes' if advertised else 'no'}\n"
    if str(Path("/etc/resolv.conf").resolve()).startswith("/run/systemd/resolve"):
        for word, *rest in map(str.split, _lines(Path("/run/systemd/resolve/resolv.conf"))):
            text += "".join(f"DNS={one}\n" for one in rest) if word == "nameserver" else ""
            text += f"Domains={' '.join(rest)}\n" if word == "search" else ""
    if leased:
        text += f"\n[DHCPv4]\nClientIdentifier=mac\nRequestAddress={leased[0]['local']}\n"
    for one in before["addresses"]:
        if not one["dynamic"]:
            text += f"\n[Address]\nAddress={one['local']}/{one['prefixlen']}\n"
    for one in before["routes"]:
        if not one["lease"]:
            text += f"\n[Route]\n{_route(one)}"
    return text


def _route(one: Mapping[str, Any]) -> str:
    everything = "0.0.0.0/0" if one["family"] == "-4" else "::/0"
    text = f"Destination={everything if one['dst'] == 'default' else one['dst']}\n"
    for key, name in (("gateway", "Gateway"), ("metric", "Metric"), ("prefsrc", "PreferredSource")):
        text += f"{name}={one[key]}\n" if key in one else ""
    return text + ("GatewayOnLink=yes\n" if "onlink" in one.get("flags", ()) else "")


# What is to be there


def compose(before: Former) -> dict[str, str]:
    """Files for systemd-networkd by name."""
    device = (KIT / f"{BRIDGE}.netdev").read_text()
    # The LAN knows the host by its hardware address, and so does whoever leases it the other ones.
    device = device.replace("Kind=bridge\n", f"Kind=bridge\nMACAddress={before['mac']}\n")
    files = {
        f"{BRIDGE}.netdev": device,
        f"{BRIDGE}.network": f"[Match]\nName={BRIDGE}\n\n{before['sections']}{(KIT / f'{BRIDGE}.network').read_text()}",
        "port.network": f"[Match]\nName={before['nic']}\n\n{before['link']}{_PORT}",
    }
    others = (file for file in KIT.iterdir() if file.name not in files)
    return files | {file.name: file.read_text() for file in others}


_PORT = f"""
[Network]
Bridge={BRIDGE}
LinkLocalAddressing=no
IPv6AcceptRA=no
LLDP=no
"""


def stage() -> int:
    """Puts the bridge's files where they count until the next reboot."""
    before = remembered()
    for name, text in _staged().items():
        write(NETWORKD / f"{PREFIX}{name}", text)
    if not before["networkd"]:
        # Other interfaces' routes and rules are not its own here.
        write(NETWORKD_CONF, "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n")
        call("systemctl", "start", "--no-block", "systemd-networkd.service")
    write(RUN / "ports" / before["nic"], "")
    theirs = _variables(Path("/etc/default/networking")).get("EXCLUDE_INTERFACES", "")
    write(RUN / "networking", f'EXCLUDE_INTERFACES="{f"{theirs} ".lstrip()}{before["nic"]}"\n')
    return 0


def apply() -> None:
    """Make the bridge, and give it the interface's network."""
    before = remembered()
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
    """Give the former network back."""
    before = remembered()
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
        for one in before["addresses"]:
            broadcast = ("broadcast", "+") if one["family"] == "inet" else ("nodad",)
            call("ip", "address", "replace", f"{one['local']}/{one['prefixlen']}", *broadcast, "dev", nic)
        for one in sorted(before["routes"], key=lambda route: "gateway" in route):
            named = ((key, name) for key, name in (("gateway", "via"), ("metric", "metric"), ("prefsrc", "src")))
            words = [word for key, name in named if key in one for word in (name, str(one[key]))]
            words += ["onlink"] if "onlink" in one.get("flags", ()) else []
            call("ip", one["family"], "route", "replace", one["dst"], "dev", nic, *words)


# Whether it holds


def unproven(before: Former, device: str, witnesses: Iterable[str]) -> str | None:
    """Why it is not known that this host is reached by an interface; None if it is."""
    here = {one["local"] for one in _addresses(device)} if Path(f"/sys/class/net/{device}").exists() else set[str]()
    lost = [
        one["local"]
        for one in before["addresses"]
        if one["local"] not in here and (one["family"] == "inet" or not one["dynamic"])
    ]
    if lost:
        return f"{device} has not the address {lost[0]}" + (f" but {', '.join(sorted(here))}" if here else "")
    silent = [one for one in witnesses if not answers(one, device)]
    if silent:
        return f"{silent[0]} does not answer on {device}"
    return None


def answers(address: str, device: str) -> bool:
    """Whether a host of the LAN answers: pings, or at least who it is."""
    if call("ping", "-n", "-c", "1", "-W", "1", "-I", device, address).returncode == 0:
        return True
    known = ip("neighbour", "show", "to", address, "dev", device)
    return any("lladdr" in one and {"REACHABLE", "DELAY", "PROBE"} & set(one.get("state", ())) for one in known)


def prove(before: Former, device: str, witnesses: list[str], seconds: float) -> str | None:
    """Wait until it is proven, or for so long; the reason why it is not."""
    end = time.monotonic() + seconds
    while why := unproven(before, device, witnesses):
        if time.monotonic() > end:
            return why
        time.sleep(0.5)
    if witnesses or (STATE / "confirmed").exists():
        return None
    print("no router to ask: confirm with `python3 /usr/local/lib/drawbridge/bridge.py confirm`", flush=True)
    while not (RUN / "confirm").exists():
        if time.monotonic() > end:
            return "it has no default route that could prove it, and nobody confirmed it"
        time.sleep(0.5)
    return None


def logged_in(before: Former) -> list[str]:
    """Who is logged in by SSH from the LAN itself: others come through a router."""
    told = call("ss", "-Htn", "state", "established", "( sport = :22 )").stdout.splitlines()
    peers = {line.split()[-1].rpartition(":")[0].strip("[]").removeprefix("::ffff:") for line in told if line.split()}
    return sorted(peer for peer in peers if _on_link(peer, before["nic"]))


def _on_link(peer: str, nic: str) -> bool:
    ways = ip("route", "get", peer)
    return bool(ways) and ways[0].get("dev") == nic and "gateway" not in ways[0]


def watch() -> int:
    """Makes the bridge and proves it, or gives the former network back."""
    before, trying = remembered(), (RUN / "trying").exists()
    confirmed = STATE / "confirmed"
    if not (trying or confirmed.exists()):
        raise Refused("it was never proven; run the kit's `install` again")
    if trying or not Path(f"/sys/class/net/{BRIDGE}/brif/{before['nic']}").exists():
        apply()
    witnesses = before["routers"] + (before["admins"] if trying else [])
    timeout = float(_variables(ENV)["TIMEOUT"])
    why = prove(before, BRIDGE, witnesses, timeout)
    if why is None:
        write(confirmed, "")
        (RUN / "trying").unlink(missing_ok=True)
        print(f"{BRIDGE} has this host's addresses, and it is reached there", flush=True)
        return 0
    restore()
    write(RUN / "why", why)
    if not trying and (still := prove(before, before["nic"], witnesses, timeout)):
        print(f"{why}, and without the bridge {still}: it stays", flush=True)
        apply()
        return 0
    raise Refused(f"{why}; the former network is back")


def settle() -> int:
    """Takes back what is not proven."""
    if (RUN / "trying").exists():
        (RUN / "trying").unlink()
        if any(NETWORKD.glob(f"{PREFIX}*")):
            restore()
    return 0


# What people ask for


def try_it() -> int:
    """Notes the network as it is and tries the bridge; raises `Refused` when the former network is back."""
    before = remembered() if (STATE / "former.json").exists() else None
    wanted = _variables(ENV).get("NIC")
    if before and (STATE / "confirmed").exists() and Path(f"/sys/class/net/{BRIDGE}").exists():
        if (wanted or before["nic"]) == before["nic"] and compose(before) == _staged():
            return 0
        # Another bridge than before is tried from where that one came from.
        remove()
        prove(before, before["nic"], before["routers"], 30)
    nic = wanted or _default_interface()
    before = snapshot(nic)
    before["admins"] = logged_in(before)
    shutil.rmtree(STATE, ignore_errors=True)
    for name, text in compose(before).items():
        write(STATE / "network" / name, text)
    write(STATE / "former.json", json.dumps(before, indent=1))
    (RUN / "confirm").unlink(missing_ok=True)
    (RUN / "why").unlink(missing_ok=True)
    write(RUN / "trying", "")
    print(f"moving this host's addresses from {nic} to {BRIDGE}", file=sys.stderr)
    call("systemctl", "restart", SERVICE)
    if not (STATE / "confirmed").exists():
        why = (RUN / "why").read_text() if (RUN / "why").exists() else f"see `journalctl -u {SERVICE}`"
        raise Refused(f"{why}; the former network is back")
    return 0


def confirm() -> int:
    """Says by hand that this host is reached."""
    write(RUN / "confirm", "")
    return 0


def remove() -> int:
    """Gives the former network back for good."""
    if (STATE / "former.json").exists():
        (STATE / "confirmed").unlink(missing_ok=True)
        if Path(f"/sys/class/net/{BRIDGE}").exists():
            restore()
    return 0


def _default_interface() -> str:
    found = ip("-4", "route", "show", "default")
    if not found:
        raise Refused("there is no default route to tell the LAN's interface by; name it in the stack file")
    return str(min(found, key=lambda one: int(one.get("metric", 0)))["dev"])


# Small things


def remembered() -> Former:
    """The former network."""
    try:
        found: Former = json.loads((STATE / "former.json").read_text())
    except FileNotFoundError:
        raise Refused("no former network is known; run the kit's `install`") from None
    return found


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
    """Write a file that is there whole or not at all, also after a power cut."""
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
    """What ip(8) lists; nothing where it fails."""
    found = json.loads(call("ip", "-json", *words).stdout or "[]")
    return [one for one in found if one]


def call(*argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command; a minute at most."""
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=None if "restart" in argv else 60, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", "it did not end")


COMMANDS = {
    "try": try_it,
    "confirm": confirm,
    "remove": remove,
    "stage": stage,
    "watch": watch,
    "settle": settle,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
