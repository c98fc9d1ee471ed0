"""A release: everything a gateway runs on that is no secret, in one archive that is known by its digest.

Layout, as the agent reads it: `manifest.json`, `agent.py`, `ccd/` with a file for each client, `revoked/` with a file
for each revoked serial, and under `root/` the files that get linked to their places on the machine. `metrics.py` is for
a unit among them.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network

from contract import GATEWAY_SECRETS
from openvpn import firewall, segment_bridge, server, sysctl
from openvpn.model import Tunnel
from openvpn.paths import Paths
from userdata.cloud_config import FILES
from userdata.files.agent import FORMAT


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLinks:
    """What a gateway runs that serves no clients, but holds an address over links to another one (`openvpn.pair`)."""

    taps: tuple[str, ...]
    files: Mapping[str, str]
    """Texts by their path on the machine, without the first slash."""
    bundles: Mapping[str, str]
    """Parameters with the bundles it is a client with, by the file each goes to, beside the secrets."""


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
    revoked: Mapping[str, str] | Mapping[int, str] | Sequence[int],
    links: PairLinks | None = None,
) -> Release:
    """Return the release of a tunnel; the same values always give the same bytes.

    `admin_from`, `allow_from` and `vpc` are those of `openvpn.firewall.render_nftables`. `revoked` are serials; where a
    mapping says whose they were, the live session of a client whose key was replaced is cut as well, not only that of
    one who is gone. With `links` they are what runs, and the tunnel is what its filter is about.
    """
    rules = firewall.render_nftables(tunnel, admin_from=admin_from, allow_from=allow_from, vpc=vpc)
    owners = revoked if isinstance(revoked, Mapping) else dict.fromkeys(map(str, revoked), "")
    manifest = {"format": FORMAT, **_processes(tunnel, links), "secrets": list(GATEWAY_SECRETS)}
    clients = () if links else tunnel.clients
    contents = {
        "manifest.json": json.dumps(manifest, indent=2) + "\n",
        **{script: (FILES / script).read_text() for script in ("agent.py", "metrics.py")},
        **{f"ccd/{client.name}": server.render_ccd(client, tunnel) for client in clients},
        **{f"revoked/{serial}": f"{owner}\n" if owner else "" for serial, owner in owners.items()},
        **_static(),
        **{f"root/{path}": text for path, text in (links.files if links else _served(tunnel)).items()},
        "root/etc/drawbridge/nftables.conf": rules,
        "root/etc/sysctl.d/90-drawbridge.conf": sysctl.render_sysctl(tunnel),
        **{f"root/{path}": text for path, text in (_segment(tunnel) | _low_port(tunnel)).items()},
    }
    archive = pack({path: text.encode() for path, text in contents.items()}, directories=("ccd", "revoked"))
    return Release(archive=archive, sha256=sha256(archive).hexdigest())


def _processes(tunnel: Tunnel, links: PairLinks | None) -> dict[str, object]:
    """What the manifest says of the processes: openvpn-server@… unless it says otherwise."""
    if links is None:
        return {"instances": [process.instance for process in tunnel.processes]}
    return {
        "instances": list(links.taps),
        "unit": "drawbridge-link",
        "configs": "etc/drawbridge/links",
        "beside": [f"drawbridge-watch@{tap}.service" for tap in links.taps],
        "bundles": dict(links.bundles),
    }


def _served(tunnel: Tunnel) -> dict[str, str]:
    return {
        Paths(process.instance).config.lstrip("/"): server.render_server(tunnel, process)
        for process in tunnel.processes
    }


def _segment(tunnel: Tunnel) -> dict[str, str]:
    """What only a segment needs."""
    if not tunnel.layout.is_segment:
        return {}
    learn = (FILES / "learn-address.sh").read_text()
    return {**segment_bridge.render_files(tunnel), Paths.learn.lstrip("/"): learn}


#: Over the unit of ours: a port that only root may listen on (capabilities(7)).
LOW_PORT = """\
[Service]
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
"""


def _low_port(tunnel: Tunnel) -> dict[str, str]:
    """What only a port below 1,024 needs."""
    needed = tunnel.listener.ports[0] < 1024
    return {"etc/systemd/system/openvpn-server@.service.d/low-port.conf": LOW_PORT} if needed else {}


def pack(contents: Mapping[str, bytes], *, directories: Sequence[str] = ()) -> bytes:
    """Return a tar.gz of files, and of directories that may be empty, that does not tell when, where or by whom."""
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
    # Not the gzip module: what it writes into the header differs between versions of Python.
    gzip = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return gzip.compress(buffer.getvalue()) + gzip.flush()


def _static() -> dict[str, str]:
    root = FILES / "root"
    return {f"root/{path.relative_to(root)}": path.read_text() for path in root.rglob("*") if path.is_file()}
