"""Measure how throughput grows with a gateway's processes: python -m bench.scaling, as root.

A machine with few processors stands in for one with many: each OpenVPN process of the gateway may use a share of a
processor (CPU bandwidth control of its cgroup), which stands for one of its own. The clients, which are real ones, and
the host behind the gateway share the rest. The rounds are interleaved, so that a change of the machine's load meets
every number of processes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from statistics import median, quantiles

from bench.gateway_processes import Gateway, Issuer, cpu_seconds, running_gateway, user_seconds
from bench.namespaces import join, run
from bench.page import add_options, keep_report
from bench.programs import OF_TUNNELS, require_programs
from bench.throughput import HOST, MOVE, SERVE, VPC
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from tests.support.network_namespace import NetworkNamespace, network_namespace

#: Numbers of processes, and clients, of which each process has as many.
PROCESSES, CLIENTS = (1, 2, 4), 4
#: Share of a processor that stands for a processor, and microseconds in which it is spent.
SHARE, PERIOD = 0.12, 10_000
ROUNDS, SECONDS = 3, 4.0
GATEWAY, POOL, SOURCES = "198.51.100.1", IPv4Network("10.8.0.0/24"), IPv4Network("10.64.0.0/20")
#: Cgroups of version 1 and 2, and the file of each that limits processor time.
_CGROUPS = ((Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us"), (Path("/sys/fs/cgroup"), "cpu.max"))
GOAL = 0.9


@dataclass(frozen=True, slots=True)
class Flow:
    """The throughput of a gateway with so many processes."""

    processes: int
    load: float
    rate: float
    """Mbit/s of all clients together, the mean of both ways."""
    used: float
    """Share of their stand-in processors that the processes used."""
    user: float
    """CPU-seconds of the processes' own code for 1 GB that they carried."""
    cost: float
    """The same with the kernel's. That has what the kernel does for the receiving end in a sender's time."""


def hash_source(address: IPv4Address) -> int:
    """Return the hash by which the packet filter chooses a process. Source: Linux's include/linux/jhash.h."""
    mask = 0xFFFFFFFF

    def rotate(word: int, bits: int) -> int:
        return (word << bits | word >> (32 - bits)) & mask

    a = b = c = (0xDEADBEEF + 4 + 0x5EED) & mask
    a = (a + int.from_bytes(address.packed, "little")) & mask
    c = ((c ^ b) - rotate(b, 14)) & mask
    a = ((a ^ c) - rotate(c, 11)) & mask
    b = ((b ^ a) - rotate(a, 25)) & mask
    c = ((c ^ b) - rotate(b, 16)) & mask
    a = ((a ^ c) - rotate(c, 4)) & mask
    b = ((b ^ a) - rotate(a, 14)) & mask
    return ((c ^ b) - rotate(b, 24)) & mask


def choose_sources(count: int) -> list[IPv4Address]:
    """Return addresses of which each belongs to another one of `count` processes, and evenly to fewer."""
    chosen: dict[int, IPv4Address] = {}
    for address in SOURCES.hosts():
        chosen.setdefault(hash_source(address) * count >> 32, address)
    return [chosen[number] for number in range(count)]


@contextlib.contextmanager
def limited_processor(name: str, pid: int, share: float) -> Iterator[None]:
    """Hold a process to a share of a processor."""
    base, file = next((base, file) for base, file in _CGROUPS if (base / "cgroup.procs").exists())
    group = base / f"drawbridge-bench-{os.getpid()}-{name}"
    group.mkdir()
    try:
        if file == "cpu.max":
            (group / file).write_text(f"{int(PERIOD * share)} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(f"{PERIOD}")
            (group / file).write_text(f"{int(PERIOD * share)}")
        (group / "cgroup.procs").write_text(f"{pid}")
        yield
    finally:
        (base / "cgroup.procs").write_text(f"{pid}")
        group.rmdir()


class Wires:
    """Namespaces of a gateway, a host behind it, and clients, each with an address of its own."""

    def __init__(self, undo: ExitStack) -> None:
        self.gateway, self.host, *self.clients = (undo.enter_context(network_namespace()) for _ in range(2 + CLIENTS))
        run(self.gateway, "ip", "address", "add", f"{GATEWAY}/32", "dev", "lo")
        join(self.gateway, "vpc", "10.1.0.5/16", self.host, "eth0", f"{HOST}/16")
        run(self.host, "ip", "route", "add", "default", "via", "10.1.0.5")
        for number, (client, source) in enumerate(zip(self.clients, choose_sources(CLIENTS), strict=True)):
            near, far = f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}"
            join(self.gateway, f"up{number}", f"{near}/30", client, "eth0", f"{far}/30")
            run(client, "ip", "address", "add", f"{source}/32", "dev", "lo")
            run(client, "ip", "route", "add", GATEWAY, "via", near, "src", str(source))
            run(self.gateway, "ip", "route", "add", str(source), "via", far, "src", GATEWAY)
        argv = self.host.enter(sys.executable, "-I", "-c", SERVE)
        serving = undo.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        undo.callback(serving.kill)
        assert serving.stdout and serving.stdout.readline() == "ready\n"

    def move(self, way: str, seconds: float) -> tuple[int, float]:
        """Move bytes between all clients and the host at once; return how many, and the Mbit/s of all together."""
        with ExitStack() as undo:
            movers = []
            for client in self.clients:
                argv = client.enter(sys.executable, "-I", "-c", MOVE, way, "2", str(seconds))
                movers.append(undo.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)))
                undo.callback(movers[-1].kill)
            results = [mover.communicate(timeout=seconds + 60)[0].split()[1:] for mover in movers]
        moved = [(int(count), float(duration)) for count, duration in results]
        return sum(count for count, _ in moved), sum(count * 8 / duration / 1e6 for count, duration in moved)


def measure_flow(wires: Wires, processes: int, share: float, seconds: float) -> Flow:
    """Bring a gateway of so many processes and its clients up, and measure what they carry."""
    members = tuple(TunnelClient(name=f"client{number}") for number in range(CLIENTS))
    tunnel = Tunnel(pool=POOL, routes=(VPC,), clients=members, listener=Listener("udp", (1194,), sharing=processes))
    issuer, load = Issuer(), os.getloadavg()[0]
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        (directory / "gateway").mkdir()
        gateway = undo.enter_context(running_gateway(wires.gateway, directory / "gateway", tunnel, issuer))
        for client, namespace in zip(members, wires.clients, strict=True):
            _connect(directory, namespace, client.name, issuer.issue_bundle(tunnel, client.name, GATEWAY), undo)
        _check_spread(gateway)
        for number, pid in enumerate(gateway.pids):
            undo.enter_context(limited_processor(str(number), pid, share))
        wires.move("up", 1)  # Its connections and buffers grow first.
        begin, before, user = time.monotonic(), cpu_seconds(gateway.pids), user_seconds(gateway.pids)
        (up, rate_up), (down, rate_down) = (wires.move(way, seconds) for way in ("up", "down"))
        spent, user = cpu_seconds(gateway.pids) - before, user_seconds(gateway.pids) - user
        used, moved = spent / (time.monotonic() - begin) / share / processes, (up + down) / 1e9
        return Flow(processes, load, (rate_up + rate_down) / 2, used, user / moved, spent / moved)


def _connect(directory: Path, namespace: NetworkNamespace, name: str, bundle: str, undo: ExitStack) -> None:
    config, log = directory / f"{name}.ovpn", directory / f"{name}.log"
    config.touch(mode=0o600)
    config.write_text(bundle)
    argv = namespace.enter("openvpn", "--config", str(config), "--log", str(log))
    process = undo.enter_context(subprocess.Popen(argv))
    undo.callback(process.kill)
    end = time.monotonic() + 60
    while not (log.exists() and "Initialization Sequence Completed" in log.read_text(errors="replace")):
        if time.monotonic() > end:
            raise TimeoutError(f"{name} does not connect:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _check_spread(gateway: Gateway) -> None:
    """Raise RuntimeError unless each process has as many clients as every other."""
    if len(gateway.pids) > 1 and {len(names) for names in gateway.noted()} != {CLIENTS // len(gateway.pids)}:
        raise RuntimeError(f"clients are not spread evenly: {gateway.noted()}")


def measure_scaling(rounds: int = ROUNDS, seconds: float = SECONDS, share: float = SHARE) -> list[Flow]:
    """Measure each number of processes in each round."""
    with ExitStack() as undo:
        wires = Wires(undo)
        return [measure_flow(wires, processes, share, seconds) for _ in range(rounds) for processes in PROCESSES]


def render_scaling(flows: list[Flow]) -> Iterator[str]:
    """Yield the lines of Markdown that hold the figures; what falls short of the goal is marked."""
    single = [flow for flow in flows if flow.processes == 1]
    yield "| processes | Mbit/s | share of stand-ins used | CPU-seconds per GB, own code's | with the kernel's |"
    yield "| --- | --- | --- | --- | --- |"
    groups = {processes: [flow for flow in flows if flow.processes == processes] for processes in PROCESSES}
    for processes, chosen in groups.items():
        figures = [(flow.rate, flow.used, flow.user, flow.cost) for flow in chosen]
        rate, used, user, cost = map(median, zip(*figures, strict=True))
        yield f"| {processes} | {rate:.0f} | {used:.2f} | {user:.1f} | {cost:.1f} |"
    yield ""
    yield f"| to one alone (goal: {GOAL}) | Mbit/s of each | bytes per CPU-second, own code's | with the kernel's |"
    yield "| --- | --- | --- | --- |"
    for processes, chosen in groups.items():
        pairs = list(zip(chosen, single, strict=True))
        cells = (
            [flow.rate / processes / alone.rate for flow, alone in pairs],
            [alone.user / flow.user for flow, alone in pairs],
            [alone.cost / flow.cost for flow, alone in pairs],
        )
        yield f"| {processes} | {' | '.join(map(_render_ratios, cells))} |"
    yield ""
    loads = [flow.load for flow in flows]
    yield (
        f"Medians, and the middle half of {len(single)} rounds; the load of the machine was {min(loads):.1f} to "
        f"{max(loads):.1f}."
    )


def _render_ratios(ratios: list[float]) -> str:
    """Return the median of at least two ratios and their middle half; marked if the median falls short of the goal."""
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" + (", **short**" if middle < GOAL else "")


def main() -> None:
    """Print the report of a run, or of the figures of a former one."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--share", type=float, default=SHARE, help="share of a processor that stands for one")
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.figures:
        flows = [Flow(**flow) for flow in json.loads(arguments.figures.read_text())]
    else:
        require_programs(*OF_TUNNELS)
        flows = measure_scaling(arguments.rounds, arguments.seconds, arguments.share)
    keep_report(arguments, "processes", render_scaling(flows), map(asdict, flows))


if __name__ == "__main__":
    main()
