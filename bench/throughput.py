"""Measure what a tunnel carries, ours beside other projects' configurations, and what that costs in processor time.

A client, a gateway and a host behind it are network namespaces of this machine, joined by wires of 1,500 bytes. Both
ends of a tunnel are real OpenVPN processes with keys of one authority; what only concerns the handshake (tls-crypt and
scripts) is left out everywhere. The rounds are interleaved: a change of the machine's load meets every tunnel.

Run by itself with `python -m bench.throughput`, as root; `--json FILE` keeps the figures, and `--figures FILE` prints
the table of such a file.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from openvpn import segment_filter
from openvpn.firewall import TABLE, path_chain, render_nftables
from openvpn.model import Tunnel, TunnelClient
from openvpn.paths import Paths
from openvpn.profile import render_profile
from openvpn.server import render_ccd, render_server
from openvpn.topology import Segment
from pki.authority import CertificateAuthority
from tests.support.network_namespace import NetworkNamespace, network_namespace

ROUNDS, SECONDS = 4, 4.0
STREAMS = (1, 8)
WAYS = ("up", "down")
#: Seconds that a tunnel may take to come up.
PATIENCE = 60

VPC = IPv4Network("10.1.0.0/16")
HOST = "10.1.0.20"
SERVER_NAME, CLIENT = "gateway.bench", "alice"
OURS = Tunnel(
    pool=IPv4Network("10.8.0.0/24"),
    routes=(VPC,),
    clients=(TunnelClient(name=CLIENT, address=IPv4Address("10.8.0.10")),),
)

#: Options of ours that need files or scripts of a gateway, and do not concern the data channel.
_HANDSHAKE = (
    "tls-crypt-v2",
    "tls-crypt-v2-verify",
    "crl-verify",
    "script-security",
    "learn-address",
    "tls-verify",
    "management",
    "status",
    "status-version",
    "ifconfig-pool-persist",
    "route-up",
)

#: Serves connections on the host behind the gateway: `s` sends until the other end closes, `t` counts what comes.
_SERVE = """
import socket, threading
def serve(connection):
    data, total = bytearray(1 << 20), 0
    with connection:
        try:
            if connection.recv(1) == b"s":
                while True:
                    connection.sendall(data)
            while count := connection.recv_into(data):
                total += count
            connection.sendall(b"%d" % total)
        except OSError:
            pass
with socket.create_server(("10.1.0.20", 5001), backlog=64) as server:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
"""

#: Moves bytes over connections side by side for some seconds, and prints how many and for how long.
_MOVE = """
import socket, sys, threading, time
way, streams, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
counts, started = [0] * streams, threading.Barrier(streams + 1)
def move(number):
    data = bytearray(1 << 20)
    with socket.create_connection(("10.1.0.20", 5001), timeout=60) as connection:
        connection.sendall(b"s" if way == "down" else b"t")
        started.wait()
        end = time.monotonic() + seconds
        if way == "down":
            while time.monotonic() < end:
                counts[number] += connection.recv_into(data)
        else:
            while time.monotonic() < end:
                connection.sendall(data[: 1 << 16])
            connection.shutdown(socket.SHUT_WR)
            counts[number] = int(connection.recv(20))
threads = [threading.Thread(target=move, args=(number,)) for number in range(streams)]
for thread in threads:
    thread.start()
started.wait()
begin = time.monotonic()
for thread in threads:
    thread.join()
print(sum(counts), time.monotonic() - begin)
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tunnel to be measured: one of ours, or options of another project beside those that all of them need."""

    name: str
    source: str
    tunnel: Tunnel | None = None
    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()


CANDIDATES = (
    Candidate("bare wire", "no tunnel; the gateway forwards"),
    Candidate("ours, tun", "the default of `device: tun`, the client's path measured", OURS),
    Candidate("ours, tap", "the default of `device: tap`, without its filter", replace(OURS, topology=Segment())),
    Candidate(
        "angristan",
        # README.md of github.com/angristan/openvpn-install, "Security and Encryption": AES-128-GCM, SHA256, TLS 1.2.
        "openvpn-install's README, defaults of a headless install",
        server=("data-ciphers AES-128-GCM", "auth SHA256", "tls-version-min 1.2", "keepalive 10 120", "verb 3"),
        client=("data-ciphers AES-128-GCM", "auth SHA256", "verb 3"),
    ),
    Candidate(
        "kylemanna",
        # bin/ovpn_genconfig of github.com/kylemanna/docker-openvpn without options: it names no cipher.
        "docker-openvpn's ovpn_genconfig without options",
        server=("keepalive 10 60", "persist-key", "persist-tun", "verb 3"),
    ),
    Candidate(
        "pritunl",
        # pritunl/constants.py of github.com/pritunl/pritunl, the configurations of server and client: monthly
        # renegotiation, small buffers at the client; its default cipher gives way to what both ends negotiate.
        "pritunl's constants.py, with the cipher that OpenVPN 2.6 negotiates",
        server=("ping 10", "ping-restart 60", "persist-tun", "reneg-sec 2592000", "verb 2", "mute 3"),
        client=("persist-tun", "reneg-sec 2592000", "sndbuf 100000", "rcvbuf 100000", "verb 2", "mute 3"),
    ),
    Candidate(
        "the posts'",
        # The posts whose worlds this project's seeds are: both ends log each packet.
        "AES-256-CBC and `verb 6`, as in the posts that this project began with",
        server=("data-ciphers AES-256-CBC", "auth SHA256", "keepalive 10 120", "verb 6"),
        client=("data-ciphers AES-256-CBC", "auth SHA256", "verb 6"),
    ),
)


@dataclass(frozen=True, slots=True)
class Round:
    """The rates and the cost of a tunnel in a round."""

    candidate: str
    load: float
    """Load of the machine before it."""
    rates: dict[str, float]
    """Mbit/s by way and streams, such as `up 1`."""
    cpu_per_gb: float
    """Seconds of processor time of both OpenVPN processes for 10^9 bytes, over all ways and streams."""


class Wires:
    """The namespaces of a client, a gateway and a host, and the authority of their tunnels."""

    def __init__(self, undo: ExitStack) -> None:
        self.client, self.gateway, self.host = (undo.enter_context(network_namespace()) for _ in range(3))
        self.directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        _join(self.client, "up0", "192.0.2.2/30", self.gateway, "up0", "192.0.2.1/30")
        _join(self.gateway, "vpc", "10.1.0.5/16", self.host, "eth0", f"{HOST}/16")
        _run(self.host, "ip", "route", "add", "default", "via", "10.1.0.5")
        _run(self.gateway, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        authority = CertificateAuthority.create("bench", timedelta(days=1), datetime.now(UTC))
        ends = {
            "server": authority.issue_server(SERVER_NAME, timedelta(days=1), datetime.now(UTC)),
            "client": authority.issue_client(CLIENT, timedelta(days=1), datetime.now(UTC)),
        }
        self.keys = {
            end: f"<ca>\n{authority.certificate}</ca>\n<cert>\n{leaf.certificate}</cert>\n<key>\n{leaf.key}</key>\n"
            for end, leaf in ends.items()
        }
        serving = undo.enter_context(_process(self.host.enter(sys.executable, "-I", "-c", _SERVE), subprocess.PIPE))
        assert serving.stdout and serving.stdout.readline() == "ready\n"

    def move(self, way: str, streams: int, seconds: float) -> tuple[int, float]:
        """Move bytes between the client and the host; return how many, and in how many seconds."""
        argv = self.client.enter(sys.executable, "-I", "-c", _MOVE, way, str(streams), str(seconds))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 120, check=True)
        count, duration = done.stdout.split()
        return int(count), float(duration)


def _join(left: NetworkNamespace, name: str, address: str, right: NetworkNamespace, far: str, far_address: str) -> None:
    ends = ("netns", f"{left.holder}", "type", "veth", "peer", "name", far, "netns", f"{right.holder}")
    subprocess.run(["ip", "link", "add", name, *ends], check=True)
    for namespace, device, interface_address in ((left, name, address), (right, far, far_address)):
        _run(namespace, "ip", "address", "add", interface_address, "dev", device)
        _run(namespace, "ip", "link", "set", device, "up")


def _run(namespace: NetworkNamespace, *argv: str) -> None:
    done = subprocess.run(namespace.enter(*argv), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")


@contextlib.contextmanager
def _process(argv: Sequence[str], output: int) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def open_tunnel(wires: Wires, candidate: Candidate) -> Iterator[tuple[int, ...]]:
    """Bring a candidate's tunnel up for the block, and yield its processes."""
    with ExitStack() as undo:
        if candidate.name == CANDIDATES[0].name:
            _run(wires.client, "ip", "route", "replace", f"{VPC}", "via", "192.0.2.1")
            undo.callback(_run, wires.client, "ip", "route", "delete", f"{VPC}")
            yield ()
            return
        if candidate.tunnel:
            server, client = _our_configurations(wires, candidate.tunnel, undo)
        else:
            server, client = _other_configurations(wires, candidate)
        pids = []
        for end, namespace, text in (("server", wires.gateway, server), ("client", wires.client, client)):
            config, log = wires.directory / f"{end}.conf", wires.directory / f"{end}.log"
            config.write_text(text + wires.keys[end])
            argv = namespace.enter("openvpn", "--config", str(config))
            process = undo.enter_context(_process(argv, undo.enter_context(log.open("w")).fileno()))
            _wait_up(log)
            pids.append(process.pid)
        yield tuple(pids)


def _wait_up(log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while "Initialization Sequence Completed" not in log.read_text(errors="replace"):
        if time.monotonic() > end:
            raise TimeoutError(f"the tunnel does not come up:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _our_configurations(wires: Wires, tunnel: Tunnel, undo: ExitStack) -> tuple[str, str]:
    """Return the configurations of one of our tunnels, its device and its filter in force."""
    device, bridge, address = tunnel.processes[0].adapter, tunnel.layout.interface, f"{tunnel.layout.address}/24"
    _run(wires.gateway, "ip", "tuntap", "add", "dev", device, "mode", tunnel.layout.device)
    undo.callback(_run, wires.gateway, "ip", "link", "delete", device)
    _run(wires.gateway, "ip", "link", "set", device, "mtu", str(tunnel.mtu), "up")
    if bridge != device:
        _run(wires.gateway, "ip", "link", "add", bridge, "type", "bridge")
        undo.callback(_run, wires.gateway, "ip", "link", "delete", bridge)
        _run(wires.gateway, "ip", "link", "set", device, "master", bridge)
        _run(wires.gateway, "ip", "link", "set", bridge, "mtu", str(tunnel.mtu), "up")
    _run(wires.gateway, "ip", "address", "add", address, "dev", bridge)
    rules = render_nftables(tunnel, admin_from=(), allow_from=(IPv4Network("0.0.0.0/0"),), vpc=(VPC,))
    if tunnel.layout.is_segment:
        # The segment's own filter needs an nft of Debian 13, which this machine may lack.
        rules = rules.removesuffix(segment_filter.render_nftables(tunnel))
    if tunnel.measured_paths:
        chain = path_chain(tunnel.measured_paths[0])
        rules += f"add element {TABLE} client_paths {{ {OURS.clients[0].address} timeout 1h : goto {chain} }}\n"
    (wires.directory / "rules").write_text(rules)
    _run(wires.gateway, "nft", "-f", str(wires.directory / "rules"))
    undo.callback(_run, wires.gateway, "nft", "flush", "ruleset")
    (wires.directory / "ccd").mkdir(exist_ok=True)
    (wires.directory / "ccd" / CLIENT).write_text(render_ccd(tunnel.clients[0], tunnel))
    server = render_server(tunnel).replace(Paths.root, str(wires.directory))
    profile = render_profile(tunnel, "192.0.2.1", SERVER_NAME, CLIENT)
    return _without_handshake(server, ("ca", "cert", "key")), _without_handshake(profile, ())


def _without_handshake(text: str, more: tuple[str, ...]) -> str:
    return "".join(line for line in text.splitlines(True) if line.split(" ")[0].strip() not in (*_HANDSHAKE, *more))


def _other_configurations(wires: Wires, candidate: Candidate) -> tuple[str, str]:
    """Return the configurations of another project's tunnel, with the translation that its documents have."""
    server = (
        "port 1194",
        "proto udp",
        "dev tun0",
        "topology subnet",
        f"server {OURS.pool.network_address} {OURS.pool.netmask}",
        "dh none",
        f'push "route {VPC.network_address} {VPC.netmask}"',
        *candidate.server,
    )
    client = ("client", "dev tun0", "proto udp", "remote 192.0.2.1 1194", "nobind", "remote-cert-tls server")
    rules = 'table ip nat { chain after { type nat hook postrouting priority 100; oifname "vpc" masquerade; }; }'
    _run(wires.gateway, "nft", f"flush ruleset; {rules}")
    return "\n".join((*server, "")), "\n".join((*client, *candidate.client, ""))


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of processes, of their own and of the kernel's on their behalf. Source: proc(5)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def measure_round(wires: Wires, candidate: Candidate, seconds: float) -> Round:
    """Measure a candidate once, each way with each number of streams."""
    with open_tunnel(wires, candidate) as pids:
        wires.move("up", 1, 0.5)  # Its first packets, and the window's growth, belong to no figure.
        load, before, moved, rates = os.getloadavg()[0], _cpu_seconds(pids), 0, {}
        for streams in STREAMS:
            for way in WAYS:
                count, duration = wires.move(way, streams, seconds)
                moved += count
                rates[f"{way} {streams}"] = count * 8 / duration / 1e6
        return Round(candidate.name, load, rates, (_cpu_seconds(pids) - before) / moved * 1e9)


def measure_rounds(rounds: int = ROUNDS, seconds: float = SECONDS) -> list[Round]:
    """Measure every candidate in each round."""
    with ExitStack() as undo:
        wires = Wires(undo)
        return [measure_round(wires, candidate, seconds) for _ in range(rounds) for candidate in CANDIDATES]


def measure_throughput() -> Iterator[str]:
    """Yield the table's lines."""
    yield from render_table(measure_rounds())


def render_table(rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the lines of a Markdown table: medians, each with the smallest and the largest figure.

    The last column has how many times as fast as ours, tun, each is, by the sum of the rates of the same round. The
    goal is that no other project's OpenVPN is faster; one that is has the word `faster` there.
    """
    columns = [f"{way} {streams}" for streams in STREAMS for way in WAYS]
    titles = [f"{column.replace(' ', ', ')} stream{'s' * (not column.endswith(' 1'))}" for column in columns]
    yield f"| | {' | '.join(titles)} | CPU-seconds per GB | to ours, tun |"
    yield "| --- |" + " --- |" * (len(columns) + 2)
    by_name = {
        candidate.name: [each for each in rounds if each.candidate == candidate.name] for candidate in CANDIDATES
    }
    for candidate in CANDIDATES:
        figures = by_name[candidate.name]
        cells = [_spread([each.rates[column] for each in figures], 0) for column in columns]
        ratios = [
            sum(each.rates.values()) / sum(ours.rates.values())
            for each, ours in zip(figures, by_name[CANDIDATES[1].name], strict=True)
        ]
        cells += [_spread([each.cpu_per_gb for each in figures], 1), _spread(ratios, 2)]
        if not candidate.tunnel and candidate.server and statistics.median(ratios) > 1:
            cells[-1] += ", faster"
        yield f"| {candidate.name} | {' | '.join(cells)} |"


def _spread(figures: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{figure:,.{digits}f}" for figure in (statistics.median(figures), min(figures), max(figures)))
    return f"{middle} ({low} to {high})"


def main() -> int:
    """Print the table of a run, or of the figures of a former one; return 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    if arguments.figures:
        rows = json.loads(arguments.figures.read_text())["rounds"]
        print(*render_table([Round(**row) for row in rows]), sep="\n")
        return 0
    begin = datetime.now(UTC)
    rounds = measure_rounds(arguments.rounds, arguments.seconds)
    print(*render_table(rounds), sep="\n")
    loads = [each.load for each in rounds]
    print(f"load of the machine {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} processors")
    if arguments.json:
        version = subprocess.run(["openvpn", "--version"], capture_output=True, text=True, check=False).stdout
        figures = {
            "begin": begin.isoformat(timespec="seconds"),
            "machine": {"kernel": platform.release(), "processors": os.cpu_count(), "openvpn": version.split(" [")[0]},
            "seconds": arguments.seconds,
            "candidates": {candidate.name: candidate.source for candidate in CANDIDATES},
            "rounds": [asdict(each) for each in rounds],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
