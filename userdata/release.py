"""Build a release: everything but secrets that a gateway runs on, in one archive that is known by its digest.

Layout, as the agent reads it: `manifest.json`, `agent.py`, `ccd/` with a file for each client, `revoked/` with a file
for each revoked serial (the client's name, and on a second line when the certificate ends), and under `root/` the files
that are linked to their places on the machine. Units there run the other scripts.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path

from contract import GATEWAY_SECRETS
from openvpn import addressing, firewall, segment_bridge, server, sysctl, tun_device
from openvpn.model import ENVELOPE, Tunnel, TunnelClient
from openvpn.paths import Paths
from userdata.cloud_config import FILES

#: Files and bytes that the agent takes out of an archive, and bytes of the archive itself.
MAX_FILES = 20_000
MAX_UNPACKED = 16 << 20
MAX_ARCHIVE = 4 << 20

#: Last word of the agent's dry run, as the agent has it.
CHECKED = "checked"

#: Scripts of a release, beside each other.
SCRIPTS = ("agent.py", "metrics.py", "patches.py", "connections.py")

#: Shape of `manifest.json`, as in the agent, which cannot be imported here: it needs modules that Windows lacks.
FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLinks:
    """The links of a pair's gateway, which serves no clients (`openvpn.pair`)."""

    taps: tuple[str, ...]
    files: Mapping[str, str]
    """Texts by their path on the machine, without the first slash."""
    bundles: Mapping[str, str]
    """Parameters of the bundles that the gateway is a client with, each by the name of its file beside the secrets."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """A certificate that was revoked: its client's name and its end, ISO 8601; each may be empty."""

    client: str = ""
    not_after: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """An archive, tar and gzip, and its SHA-256 in hexadecimal."""

    archive: bytes = field(repr=False)
    sha256: str


def build(
    tunnel: Tunnel,
    *,
    admin_from: tuple[IPv4Network, ...],
    allow_from: tuple[IPv4Network, ...],
    vpc: tuple[IPv4Network, ...],
    revoked: Mapping[str, Revocation],
    links: PairLinks | None = None,
    metrics: str = "basic",
    maintenance_window: str = "sun:03:00-sun:04:00",
    clients_end: str | None = None,
    connection_log: bool = False,
) -> Release:
    """Return the release of a tunnel; the same values always give the same bytes.

    `admin_from`, `allow_from` and `vpc` are those of `openvpn.firewall.render_nftables`. `revoked` has
    revocations by their serials in decimal; a client's name also ends the live session of a client whose key was
    replaced, not only that of a client who was removed. With `links` the gateway runs these, and the tunnel only
    describes its filter. `maintenance_window` has the format of `patches.py`. In a stack with alarms `clients_end` says
    when the first of the clients' certificates ends (ISO 8601; empty without clients). Raises ValueError for a release
    that the agent would refuse for its size.
    """
    rules = firewall.render_nftables(tunnel, admin_from=admin_from, allow_from=allow_from, vpc=vpc)
    manifest = {
        "format": FORMAT,
        "check": CHECKED,
        **_manifest_entries(tunnel, links),
        "secrets": list(GATEWAY_SECRETS),
    }
    clients = () if links else tunnel.clients
    contents = {
        "manifest.json": json.dumps(manifest, indent=2) + "\n",
        **{script: (FILES / script).read_text() for script in SCRIPTS},
        "metrics-level": f"{metrics}\n",
        "maintenance-window": f"{maintenance_window}\n",
        **({} if clients_end is None else {"alarms.json": json.dumps({"clientsEnd": clients_end}) + "\n"}),
        "connection-log": "on\n" if connection_log else "off\n",
        **{f"ccd/{client.name}": server.render_ccd(client, tunnel) for client in clients},
        **{f"revoked/{serial}": _render_revocation(revocation) for serial, revocation in revoked.items()},
        **{f"root/{path}": text for path, text in _read_tree(FILES / "root").items()},
        **{f"root/{path}": text for path, text in (links.files if links else _server_files(tunnel)).items()},
        "root/etc/drawbridge/nftables.conf": rules,
        "root/etc/sysctl.d/90-drawbridge.conf": sysctl.render_sysctl(tunnel),
        **{f"root/{path}": text for path, text in _topology_files(tunnel).items()},
        **{f"root/{path}": text for path, text in _metrics_files(metrics).items()},
        **({f"root/{CONNECTIONS_DROP_IN}": START_CONNECTIONS} if connection_log else {}),
        **(_path_files(tunnel) if tunnel.measured_paths else {}),
        **(_sharing_files(tunnel) if tunnel.listener.sharing > 1 else {}),
    }
    archive = pack({path: text.encode() for path, text in contents.items()}, directories=("ccd", "revoked"))
    _check_size(contents, archive, len(clients), len(revoked))
    return Release(archive=archive, sha256=sha256(archive).hexdigest())


def _render_revocation(revocation: Revocation) -> str:
    lines = (revocation.client, revocation.not_after)
    return "".join(f"{line}\n" for line in lines) if any(lines) else ""


def _check_size(contents: Mapping[str, str], archive: bytes, clients: int, revoked: int) -> None:
    unpacked = sum(len(text.encode()) for text in contents.values())
    if len(contents) > MAX_FILES or unpacked > MAX_UNPACKED or len(archive) > MAX_ARCHIVE:
        raise ValueError(
            f"the release of {clients} clients and {revoked} revoked certificates has {len(contents)} files, "
            f"{unpacked} bytes and as an archive {len(archive)} bytes, and a gateway takes {MAX_FILES}, {MAX_UNPACKED} "
            f"and {MAX_ARCHIVE}; use fewer clients, or a shorter drawbridge:lifetimes.client, after which revoked "
            "certificates leave the release"
        )


def _manifest_entries(tunnel: Tunnel, links: PairLinks | None) -> dict[str, object]:
    """Return the manifest's entries for the processes: instances of openvpn-server@ unless it names another unit."""
    timers = ["drawbridge-patches.timer"]
    if links is None:
        return {"instances": [process.instance for process in tunnel.processes], "beside": timers}
    return {
        "instances": list(links.taps),
        "unit": "drawbridge-link",
        "configs": "etc/drawbridge/links",
        "beside": [*(f"drawbridge-watch@{tap}.service" for tap in links.taps), *timers],
        "bundles": dict(links.bundles),
    }


def _server_files(tunnel: Tunnel) -> dict[str, str]:
    return {
        Paths(process.instance).config.lstrip("/"): server.render_server(tunnel, process)
        for process in tunnel.processes
    }


def _topology_files(tunnel: Tunnel) -> dict[str, str]:
    return {**_segment_files(tunnel), **tun_device.render_files(tunnel), **_low_port_files(tunnel)}


def _segment_files(tunnel: Tunnel) -> dict[str, str]:
    """Return the files that only a segment needs."""
    if not tunnel.layout.is_segment:
        return {}
    suspend = {"etc/drawbridge/suspend.py": (FILES / "suspend.py").read_text()}
    return {**segment_bridge.render_files(tunnel), **_read_tree(FILES / "segment"), **suspend}


#: Drop-in for ports below 1,024, which need a capability (capabilities(7)).
LOW_PORT = """\
[Service]
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
"""


def _low_port_files(tunnel: Tunnel) -> dict[str, str]:
    """Return the files that only a port below 1,024 needs."""
    needed = tunnel.listener.ports[0] < 1024
    return {"etc/systemd/system/openvpn-server@.service.d/low-port.conf": LOW_PORT} if needed else {}


#: Drop-ins for the timer, which sends the metrics of level `full` every minute.
METRICS_INTERVALS = {"basic": 300, "off": 86400}


def _metrics_files(level: str) -> dict[str, str]:
    """Return the drop-in that sends metrics less often; one empty line resets all of a timer's (systemd.timer(5))."""
    if level not in METRICS_INTERVALS:
        return {}
    text = f"[Timer]\nOnActiveSec=\nOnActiveSec=30\nOnUnitInactiveSec={METRICS_INTERVALS[level]}\n"
    return {"etc/systemd/system/drawbridge-metrics.timer.d/interval.conf": text}


#: Each run of the agent starts the connection log's process unless it runs; the process ends itself where it is off.
CONNECTIONS_DROP_IN = "etc/systemd/system/drawbridge-agent.service.d/connections.conf"
START_CONNECTIONS = "[Unit]\nWants=drawbridge-connections.service\n"


def _path_files(tunnel: Tunnel) -> dict[str, str]:
    """Return what only a gateway has that measures its clients' paths: the script, its settings and its unit."""
    sizes = {firewall.path_chain(path): path - ENVELOPE for path in tunnel.measured_paths}
    # With several devices, routes say which one a client is reached by.
    device = tunnel.layout.interface if len(tunnel.interfaces) == 1 else ""
    settings = {"device": device, "paths": sizes, "unknown": tunnel.path_mtu - ENVELOPE}
    return {
        "path_mtu.py": (FILES / "path_mtu.py").read_text(),
        "path-mtu.json": json.dumps(settings) + "\n",
        **{f"root/{path}": text for path, text in _read_tree(FILES / "routed").items()},
    }


def _sharing_files(tunnel: Tunnel) -> dict[str, str]:
    """Return what only a gateway has whose processes share a port: the script that sets routes, and its settings."""
    clients = {client.name: _list_networks(tunnel, client) for client in tunnel.clients}
    devices = {process.instance: process.adapter for process in tunnel.processes}
    settings = {"source": str(tunnel.layout.address), "devices": devices, "clients": clients}
    return {
        "client_routes.py": (FILES / "client_routes.py").read_text(),
        "client-routes.json": json.dumps(settings) + "\n",
        **{f"root/{path}": text for path, text in _read_tree(FILES / "sharing").items()},
    }


def _list_networks(tunnel: Tunnel, client: TunnelClient) -> list[str]:
    """Return the addresses and networks that routes lead to; none on a segment, whose bridge finds clients itself."""
    if tunnel.layout.is_segment:
        return []
    address, address6 = addressing.fixed_addresses(tunnel)[client.name], addressing.fixed_addresses6(tunnel)
    return [str(address), *([str(address6[client.name])] if client.name in address6 else []), *map(str, client.lan)]


def pack(contents: Mapping[str, bytes], *, directories: Sequence[str] = ()) -> bytes:
    """Return a reproducible tar.gz of files, and of directories that may be empty."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in directories:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, content in sorted(contents.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    # Not the gzip module: its header differs between versions of Python.
    gzip = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return gzip.compress(buffer.getvalue()) + gzip.flush()


def _read_tree(root: Path) -> dict[str, str]:
    """Return the text of each file under `root` by its path there."""
    return {f"{path.relative_to(root)}": path.read_text() for path in root.rglob("*") if path.is_file()}
