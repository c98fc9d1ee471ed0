"""Read from a stack's release what its gateway should run: listener, clients, routes, filter and translation."""

import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePosixPath
from typing import Literal

from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors
from openvpn.model import packet_size
from openvpn.topology import ETHERNET_HEADER

#: Bytes of an archive, and of all its files, that are read; the same as the gateway's own limits.
MAX_ARCHIVE, MAX_UNPACKED = 4 << 20, 16 << 20

_PORT = re.compile(r"^port (\d+)$", re.MULTILINE)
_TAP = re.compile(r"^dev-type tap$", re.MULTILINE)
_TCP = re.compile(r"^proto tcp", re.MULTILINE)
_PUSHED_ROUTE = re.compile(r'^push "route (\S+) (\S+)"$', re.MULTILINE)
_SEGMENTS = re.compile(r"^ *chain segments \{(.*?)\}", re.MULTILINE | re.DOTALL)
_SEGMENT = re.compile(r"^ *tcp option maxseg size set (\d+)$", re.MULTILINE)
_SET = re.compile(r"set (\w+) \{\n\s*type ipv[46]_addr\n(?:\s*flags [\w,]+\n)?\s*elements = \{ ([^}]*) \}")


@dataclass(frozen=True, slots=True)
class ServerPort:
    """The protocol and port on which an OpenVPN process listens."""

    protocol: Literal["udp", "tcp"]
    port: int
    link: str = ""
    """The bond's link that it serves, such as `ovn1`; empty if clients have one tunnel."""

    def __str__(self) -> str:
        """Return it for people.

        >>> str(ServerPort("udp", 1195, "ovn1")), str(ServerPort("tcp", 443))
        ('udp 1195 of link ovn1', 'tcp 443')
        """
        return f"{self.protocol} {self.port}" + (f" of link {self.link}" if self.link else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployedRelease:
    """The release that a stack asks its gateway to run."""

    sha256: str
    protocol: Literal["udp", "tcp"]
    ports: tuple[int, ...]
    """Port of each OpenVPN process, or the one that they share."""
    links: tuple[str, ...] = ()
    """The bond's link that each of the processes serves; none if clients have one tunnel."""
    clients: frozenset[str] | None
    """Clients that may connect; None for a pair's gateway, which lets in whoever has its bundle."""
    revoked: frozenset[int]
    """Serials of certificates that it refuses."""
    routes: tuple[IPv4Network, ...]
    """Networks whose routes clients get."""
    destinations: tuple[IPv4Network, ...]
    """Networks that it forwards to."""
    sources: tuple[IPv4Network, ...]
    """Networks of clients, and behind them."""
    clients6: IPv6Network | None = None
    """Range of clients' IPv6 addresses; None if the tunnel has no IPv6."""
    destinations6: tuple[IPv6Network, ...] = ()
    """IPv6 networks that it forwards to."""
    path_mtu: int
    """Bytes of the largest packet of the tunnel in which a client sends TCP whose path is not known."""
    frame_header: int = 0
    """Bytes that the tunnel carries in front of each IP packet: those of an Ethernet frame's header on a segment."""
    measures_paths: bool = False
    """Whether the gateway measures the paths of clients that answer echoes."""
    translates: bool
    """Whether the VPC sees the gateway's own address in place of the clients'."""

    @property
    def is_pair(self) -> bool:
        """True if the client is the other gateway of a pair."""
        return self.clients is None

    @property
    def listeners(self) -> tuple[ServerPort, ...]:
        """Protocol and port of each OpenVPN process."""
        links = self.links or ("",) * len(self.ports)
        return tuple(ServerPort(self.protocol, port, link) for port, link in zip(self.ports, links, strict=True))


def read_release(account: Account) -> DeployedRelease:
    """Return the gateway's release.

    Raises `NotDeployedError` if the stack has none, `MalformedError` for an archive whose digest is not the one in SSM,
    else `AwsError`.
    """
    pointer = account.json_parameter(account.names.release)
    bucket, key = str(pointer.get("bucket", "")), str(pointer.get("key", ""))
    with translate_aws_errors(account.stack, "release"):
        archive = account.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read(MAX_ARCHIVE + 1)
    digest = str(pointer.get("sha256", ""))
    if len(archive) > MAX_ARCHIVE or sha256(archive).hexdigest() != digest:
        raise errors.MalformedError(
            f"the release s3://{bucket}/{key} does not have the digest that {account.names.release} names",
            f"pulumi up --stack {account.stack} writes it anew; find out in CloudTrail who changed the object",
        )
    try:
        return parse_release(archive, digest)
    except (ValueError, KeyError, tarfile.TarError, zlib.error, EOFError):
        raise errors.MalformedError(
            f"the release s3://{bucket}/{key} is not in the format of this version",
            f"deploy with this version: pulumi up --stack {account.stack}",
        ) from None


def parse_release(archive: bytes, digest: str) -> DeployedRelease:
    """Return the release that an archive holds; raises ValueError, KeyError or TarError for another archive."""
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    unpacked = unpacker.decompress(archive, MAX_UNPACKED)
    with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
        files = {member.name: member for member in tar if member.isfile()}

        def read(name: str) -> str:
            stream = tar.extractfile(files[name])
            return "" if stream is None else stream.read().decode()

        names = [name for name in sorted(files) if _is_configuration(name)]
        listening = [(name, port) for name in names for port in _PORT.findall(read(name))]
        configurations = "\n".join(map(read, names))
        rules = read("root/etc/drawbridge/nftables.conf")
        is_pair = "unit" in json.loads(read("manifest.json"))
        if "client-routes.json" in files:
            listening = listening[:1]  # The processes share the first one's port.
    sets = {name: elements.split(", ") for name, elements in _SET.findall(rules)}
    segments = "".join(_SEGMENTS.findall(rules))
    frame_header = ETHERNET_HEADER if _TAP.search(configurations) else 0
    return DeployedRelease(
        sha256=digest,
        protocol="tcp" if _TCP.search(configurations) else "udp",
        ports=tuple(int(port) for _, port in listening),
        links=tuple(_name_links([name for name, _ in listening], is_pair=is_pair)),
        clients=None if is_pair else frozenset(_names_below("ccd/", files)),
        revoked=frozenset(map(int, _names_below("revoked/", files))),
        routes=tuple(IPv4Network("/".join(route)) for route in dict.fromkeys(_PUSHED_ROUTE.findall(configurations))),
        destinations=tuple(map(IPv4Network, sets.get("destinations", ()))),
        sources=tuple(map(IPv4Network, sets.get("sources", ()))),
        clients6=next(map(IPv6Network, sets.get("clients6", ())), None),
        destinations6=tuple(map(IPv6Network, sets.get("destinations6", ()))),
        path_mtu=packet_size(min(map(int, _SEGMENT.findall(segments)), default=0), frame_header),
        frame_header=frame_header,
        measures_paths="path-mtu.json" in files,
        translates="masquerade" in rules,
    )


def _names_below(directory: str, files: Iterable[str]) -> Iterator[str]:
    yield from (name.removeprefix(directory) for name in files if name.startswith(directory))


def _is_configuration(name: str) -> bool:
    """Return whether a file is the configuration of an OpenVPN server; the other link of a pair's gateway is not."""
    return name.startswith(("root/etc/openvpn/server/", "root/etc/drawbridge/links/")) and name.endswith(".conf")


def _name_links(configurations: list[str], *, is_pair: bool) -> Iterator[str]:
    """Yield the link of each process; a pair's are named after it, and bonded clients' come in the links' order."""
    for number, name in enumerate(configurations):
        if is_pair:
            yield PurePosixPath(name).stem
        elif len(configurations) > 1:
            yield f"ovn{number}"
