"""Measure what a tunnel carries, ours beside other projects' configurations, and what that costs in processor time.

A client, a gateway and a host behind it are network namespaces of this machine, joined by wires of 1,500 bytes. Both
ends of a tunnel are real processes, those of OpenVPN with keys of one authority; what only concerns the handshake
(tls-crypt and scripts) is left out everywhere. The rounds are interleaved: a change of the machine's load meets every
tunnel.

Run by itself with `python -m bench.throughput`, as root; `--json FILE` keeps the figures, `--figures FILE` renders
those of a former run, `--plots DIRECTORY` and `--page FILE` write them.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bench.namespaces import join, run
from bench.page import add_options
from bench.programs import OF_TUNNELS, require_programs
from bench.throughput_report import (
    STREAMS,
    WAYS,
    Figures,
    FiguresError,
    Round,
    read_figures,
    render_plots,
    render_report,
)
from openvpn import segment_filter
from openvpn.firewall import TABLE, path_chain, render_nftables
from openvpn.model import Tunnel, TunnelClient
from openvpn.paths import Paths
from openvpn.profile import render_profile
from openvpn.server import render_ccd, render_server
from openvpn.topology import Segment
from pki.authority import CertificateAuthority
from tests.support.network_namespace import network_namespace

ROUNDS, SECONDS = 4, 4.0
#: Seconds that a tunnel may take to come up.
PATIENCE = 60
#: Seconds between pings.
PING_INTERVAL = 0.05
#: What is around the report in docs/benchmarks.md.
PAGE_BEGIN, PAGE_END = "<!-- report -->\n", "<!-- end of the report -->"
#: Names of WireGuard's interfaces at the gateway and the client; their sockets are in one directory.
WIREGUARD = ("bench-server", "bench-client")

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
SERVE = """
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
MOVE = """
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
print("started", flush=True)
begin = time.monotonic()
for thread in threads:
    thread.join()
print(sum(counts), time.monotonic() - begin)
"""


class Wires:
    """The namespaces of a client, a gateway and a host, and the authority of their tunnels."""

    def __init__(self, undo: ExitStack) -> None:
        self.client, self.gateway, self.host = (undo.enter_context(network_namespace()) for _ in range(3))
        self.directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        join(self.client, "up0", "192.0.2.2/30", self.gateway, "up0", "192.0.2.1/30")
        join(self.gateway, "vpc", "10.1.0.5/16", self.host, "eth0", f"{HOST}/16")
        run(self.host, "ip", "route", "add", "default", "via", "10.1.0.5")
        run(self.gateway, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        authority = CertificateAuthority.create("bench", timedelta(days=1), datetime.now(UTC))
        ends = {
            "server": authority.issue_server(SERVER_NAME, timedelta(days=1), datetime.now(UTC)),
            "client": authority.issue_client(CLIENT, timedelta(days=1), datetime.now(UTC)),
        }
        self.keys = {
            end: f"<ca>\n{authority.certificate}</ca>\n<cert>\n{leaf.certificate}</cert>\n<key>\n{leaf.key}</key>\n"
            for end, leaf in ends.items()
        }
        serving = undo.enter_context(_process(self.host.enter(sys.executable, "-I", "-c", SERVE), subprocess.PIPE))
        assert serving.stdout and serving.stdout.readline() == "ready\n"

    @contextlib.contextmanager
    def moving(self, way: str, streams: int, seconds: float) -> Iterator["subprocess.Popen[str]"]:
        """Move bytes between the client and the host, and enter the block when all streams have begun."""
        argv = self.client.enter(sys.executable, "-I", "-c", MOVE, way, str(streams), str(seconds))
        with _process(argv, subprocess.PIPE) as mover:
            assert mover.stdout
            if (line := mover.stdout.readline()) != "started\n":
                raise RuntimeError(f"no stream {way}: {line}{mover.stdout.read()}")
            yield mover

    def move(self, way: str, streams: int, seconds: float) -> tuple[int, float]:
        """Move bytes between the client and the host; return how many, and in how many seconds."""
        with self.moving(way, streams, seconds) as mover:
            count, duration = mover.communicate(timeout=seconds + 120)[0].split()
        return int(count), float(duration)

    def ping(self, seconds: float) -> tuple[list[float], float]:
        """Ping the host from the client; return the round-trip times in ms, and the percentage that was lost."""
        count = max(2, round(seconds / PING_INTERVAL))
        argv = self.client.enter("ping", "-n", "-i", f"{PING_INTERVAL}", "-c", f"{count}", HOST)
        out = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, check=False).stdout
        times = [float(time) for time in re.findall(r"time=([\d.]+) ms", out)]
        if len(times) < 2:
            raise RuntimeError(f"no ping is answered beside the streams:\n{out}")
        return times, 100 * (1 - len(times) / count)


@contextlib.contextmanager
def _process(argv: Sequence[str], output: int) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def open_bare_wire(wires: Wires, undo: ExitStack) -> tuple[int, ...]:
    """Route through the gateway without a tunnel."""
    run(wires.client, "ip", "route", "replace", f"{VPC}", "via", "192.0.2.1")
    undo.callback(run, wires.client, "ip", "route", "delete", f"{VPC}")
    return ()


def open_ours(wires: Wires, undo: ExitStack, *, tunnel: Tunnel) -> tuple[int, ...]:
    """Bring one of our tunnels up."""
    return _open_openvpn(wires, undo, *_our_configurations(wires, tunnel, undo))


def open_others(wires: Wires, undo: ExitStack, *, server: Sequence[str], client: Sequence[str] = ()) -> tuple[int, ...]:
    """Bring the tunnel of another project's OpenVPN up: its options beside those that all of them need."""
    return _open_openvpn(wires, undo, *_other_configurations(wires, server, client))


def open_wireguard_go(wires: Wires, undo: ExitStack) -> tuple[int, ...]:
    """Bring a userspace WireGuard up; its gateway has no filter. Sources: wireguard-go's README, wg(8)."""
    run(wires.gateway, "nft", "flush", "ruleset")
    private = {end: subprocess.run(["wg", "genkey"], capture_output=True, check=True).stdout for end in WIREGUARD}
    public = {
        end: subprocess.run(["wg", "pubkey"], input=key, capture_output=True, check=True).stdout.decode().strip()
        for end, key in private.items()
    }
    server, client = WIREGUARD
    pids = []
    for name, namespace, address, peer in (
        (server, wires.gateway, f"{OURS.layout.address}/24", (public[client], f"{OURS.clients[0].address}/32")),
        (client, wires.client, f"{OURS.clients[0].address}/24", (public[server], "0.0.0.0/0")),
    ):
        key, socket = wires.directory / f"{name}.key", Path(f"/run/wireguard/{name}.sock")
        key.write_bytes(private[name])
        undo.callback(socket.unlink, missing_ok=True)
        argv = namespace.enter("env", "LOG_LEVEL=error", "wireguard-go", "-f", name)
        log = wires.directory / f"{name}.log"
        pids.append(undo.enter_context(_process(argv, undo.enter_context(log.open("w")).fileno())).pid)
        _wait(socket.exists, log)
        run(namespace, "wg", "set", name, "private-key", f"{key}", "peer", peer[0], "allowed-ips", peer[1])
        run(namespace, "ip", "address", "add", address, "dev", name)
        run(namespace, "ip", "link", "set", name, "up")
    run(wires.gateway, "wg", "set", server, "listen-port", "51820")
    run(wires.client, "wg", "set", client, "peer", public[server], "endpoint", "192.0.2.1:51820")
    run(wires.client, "ip", "route", "add", f"{VPC}", "dev", client)
    return tuple(pids)


def _open_openvpn(wires: Wires, undo: ExitStack, server: str, client: str) -> tuple[int, ...]:
    pids = []
    for end, namespace, text in (("server", wires.gateway, server), ("client", wires.client, client)):
        config, log = wires.directory / f"{end}.conf", wires.directory / f"{end}.log"
        config.write_text(text + wires.keys[end])
        argv = namespace.enter("openvpn", "--config", str(config))
        process = undo.enter_context(_process(argv, undo.enter_context(log.open("w")).fileno()))
        _wait_up(log)
        pids.append(process.pid)
    return tuple(pids)


def _wait_up(log: Path) -> None:
    _wait(lambda: "Initialization Sequence Completed" in log.read_text(errors="replace"), log)


def _wait(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the tunnel does not come up:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _our_configurations(wires: Wires, tunnel: Tunnel, undo: ExitStack) -> tuple[str, str]:
    """Return the configurations of one of our tunnels, its device and its filter in force."""
    device, bridge, address = tunnel.processes[0].adapter, tunnel.layout.interface, f"{tunnel.layout.address}/24"
    run(wires.gateway, "ip", "tuntap", "add", "dev", device, "mode", tunnel.layout.device)
    undo.callback(run, wires.gateway, "ip", "link", "delete", device)
    run(wires.gateway, "ip", "link", "set", device, "mtu", str(tunnel.mtu), "up")
    if bridge != device:
        run(wires.gateway, "ip", "link", "add", bridge, "type", "bridge")
        undo.callback(run, wires.gateway, "ip", "link", "delete", bridge)
        run(wires.gateway, "ip", "link", "set", device, "master", bridge)
        run(wires.gateway, "ip", "link", "set", bridge, "mtu", str(tunnel.mtu), "up")
    run(wires.gateway, "ip", "address", "add", address, "dev", bridge)
    rules = render_nftables(tunnel, admin_from=(), allow_from=(IPv4Network("0.0.0.0/0"),), vpc=(VPC,))
    if tunnel.layout.is_segment:
        # The segment's own filter needs an nft of Debian 13, which this machine may lack.
        rules = rules.removesuffix(segment_filter.render_nftables(tunnel))
    if tunnel.measured_paths:
        chain = path_chain(tunnel.measured_paths[0])
        rules += f"add element {TABLE} client_paths {{ {OURS.clients[0].address} timeout 1h : goto {chain} }}\n"
    (wires.directory / "rules").write_text(rules)
    run(wires.gateway, "nft", "-f", str(wires.directory / "rules"))
    undo.callback(run, wires.gateway, "nft", "flush", "ruleset")
    (wires.directory / "ccd").mkdir(exist_ok=True)
    (wires.directory / "ccd" / CLIENT).write_text(render_ccd(tunnel.clients[0], tunnel))
    server = render_server(tunnel).replace(Paths.root, str(wires.directory))
    profile = render_profile(tunnel, "192.0.2.1", SERVER_NAME, CLIENT)
    return _without_handshake(server, ("ca", "cert", "key")), _without_handshake(profile, ())


def _without_handshake(text: str, more: tuple[str, ...]) -> str:
    return "".join(line for line in text.splitlines(True) if line.split(" ")[0].strip() not in (*_HANDSHAKE, *more))


def _other_configurations(wires: Wires, of_server: Sequence[str], of_client: Sequence[str]) -> tuple[str, str]:
    """Return the configurations of another project's tunnel, with the translation that its documents have."""
    server = (
        "port 1194",
        "proto udp",
        "dev tun0",
        "topology subnet",
        f"server {OURS.pool.network_address} {OURS.pool.netmask}",
        "dh none",
        f'push "route {VPC.network_address} {VPC.netmask}"',
        *of_server,
    )
    client = ("client", "dev tun0", "proto udp", "remote 192.0.2.1 1194", "nobind", "remote-cert-tls server")
    rules = 'table ip nat { chain after { type nat hook postrouting priority 100; oifname "vpc" masquerade; }; }'
    run(wires.gateway, "nft", f"flush ruleset; {rules}")
    return "\n".join((*server, "")), "\n".join((*client, *of_client, ""))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tunnel to be measured."""

    name: str
    source: str
    """Where its configuration is from."""
    open: Callable[[Wires, ExitStack], tuple[int, ...]]
    """Brings it up until the stack unwinds; returns the ids of its processes."""
    peer: bool = False
    """Whether it is another project's, which ours should not be slower than."""
    programs: tuple[str, ...] = ("openvpn",)
    """What must be installed for it."""


CANDIDATES = (
    Candidate("bare wire", "no tunnel; the gateway forwards", open_bare_wire),
    Candidate("ours, tun", "the default of `device: tun`, the client's path measured", partial(open_ours, tunnel=OURS)),
    Candidate(
        "ours, tap",
        "the default of `device: tap`, without its filter",
        partial(open_ours, tunnel=replace(OURS, topology=Segment())),
    ),
    Candidate(
        "angristan",
        # README.md of github.com/angristan/openvpn-install, "Security and Encryption": AES-128-GCM, SHA256, TLS 1.2.
        "openvpn-install's README, defaults of a headless install",
        partial(
            open_others,
            server=("data-ciphers AES-128-GCM", "auth SHA256", "tls-version-min 1.2", "keepalive 10 120", "verb 3"),
            client=("data-ciphers AES-128-GCM", "auth SHA256", "verb 3"),
        ),
        peer=True,
    ),
    Candidate(
        "kylemanna",
        # bin/ovpn_genconfig of github.com/kylemanna/docker-openvpn without options: it names no cipher.
        "docker-openvpn's ovpn_genconfig without options",
        partial(
            open_others,
            server=("keepalive 10 60", "persist-key", "persist-tun", "verb 3"),
        ),
        peer=True,
    ),
    Candidate(
        "pritunl",
        # pritunl/constants.py of github.com/pritunl/pritunl, the configurations of server and client: monthly
        # renegotiation, small buffers at the client; its default cipher gives way to what both ends negotiate.
        "pritunl's constants.py, with the cipher that OpenVPN 2.6 negotiates",
        partial(
            open_others,
            server=("ping 10", "ping-restart 60", "persist-tun", "reneg-sec 2592000", "verb 2", "mute 3"),
            client=("persist-tun", "reneg-sec 2592000", "sndbuf 100000", "rcvbuf 100000", "verb 2", "mute 3"),
        ),
        peer=True,
    ),
    Candidate(
        "the posts'",
        # The posts whose worlds this project's seeds are: both ends log each packet.
        "AES-256-CBC and `verb 6`, as in the posts that this project began with",
        partial(
            open_others,
            server=("data-ciphers AES-256-CBC", "auth SHA256", "keepalive 10 120", "verb 6"),
            client=("data-ciphers AES-256-CBC", "auth SHA256", "verb 6"),
        ),
        peer=True,
    ),
    Candidate(
        "wireguard-go",
        "WireGuard in userspace with its defaults, as Debian packages it",
        open_wireguard_go,
        peer=True,
        programs=("wireguard-go", "wg"),
    ),
)


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of processes, of their own and of the kernel's on their behalf. Source: proc(5)."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def measure_round(wires: Wires, candidate: Candidate, seconds: float) -> Round:
    """Measure a candidate once: each way with each number of streams, then pings beside a stream each way."""
    with ExitStack() as undo:
        pids = candidate.open(wires, undo)
        wires.move("up", 1, 0.5)  # Its first packets, and the window's growth, belong to no figure.
        load, before, moved, rates = os.getloadavg()[0], _cpu_seconds(pids), 0, {}
        for streams in STREAMS:
            for way in WAYS:
                count, duration = wires.move(way, streams, seconds)
                moved += count
                rates[f"{way} {streams}"] = count * 8 / duration / 1e6
        cost = (_cpu_seconds(pids) - before) / moved * 1e9
        with wires.moving("up", 1, seconds + 1), wires.moving("down", 1, seconds + 1):
            times, lost = wires.ping(seconds)
        percentile = statistics.quantiles(times, n=20, method="inclusive")[-1]
        return Round(candidate.name, load, rates, cost, statistics.median(times), percentile, lost)


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> Figures:
    """Measure every candidate whose programs are installed in each round."""
    begin, candidates = datetime.now(UTC), list(_installed())
    with ExitStack() as undo:
        wires = Wires(undo)
        measured = [measure_round(wires, candidate, seconds) for _ in range(rounds) for candidate in candidates]
    version = subprocess.run(["openvpn", "--version"], capture_output=True, text=True, check=False).stdout
    return Figures(
        begin=begin,
        machine={
            "kernel": platform.release().partition("-")[0],
            "processors": os.cpu_count(),
            "openvpn": " ".join(version.split()[:2]),
            "priority": _priority(),
        },
        seconds=seconds,
        candidates={candidate.name: candidate.source for candidate in candidates},
        peers=[candidate.name for candidate in candidates if candidate.peer],
        rounds=measured,
    )


def _installed() -> Iterator[Candidate]:
    for candidate in CANDIDATES:
        missing = [program for program in candidate.programs if not shutil.which(program)]
        if missing:
            print(f"{candidate.name}: left out, no {', '.join(missing)}; tools/setup bench", file=sys.stderr)
        else:
            yield candidate


def _priority() -> str:
    if os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO):
        return "real-time priority"
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return f"a nice value of {nice}" if nice else "normal priority"


def measure_throughput() -> Iterator[str]:
    """Yield the lines of the report."""
    yield from render_report(measure())


def main() -> int:
    """Print the report of a run, or of the figures of a former one; return 2 if these cannot be read, else 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    add_options(parser)
    parser.add_argument("--plots", type=Path, help="directory for the plots")
    arguments = parser.parse_args()
    if arguments.figures:
        try:
            figures = read_figures(arguments.figures.read_text(), str(arguments.figures))
        except FiguresError as error:
            print(error, file=sys.stderr)
            return 2
    else:
        require_programs(*OF_TUNNELS)
        figures = measure(arguments.rounds, arguments.seconds)
    report = "\n".join(render_report(figures)) + "\n"
    print(report, end="")
    if arguments.json:
        content = asdict(figures) | {"begin": figures.begin.isoformat(timespec="seconds")}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.plots:
        for name, plot in render_plots(figures).items():
            (arguments.plots / name).write_text(plot)
    if arguments.page:
        before, rest = arguments.page.read_text().split(PAGE_BEGIN)
        arguments.page.write_text(f"{before}{PAGE_BEGIN}\n{report}\n{PAGE_END}{rest.split(PAGE_END)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
