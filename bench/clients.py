"""Measure how many clients a gateway takes at once: python -m bench.clients, as root.

The gateway's OpenVPN processes run on their real release with all of its limits (bench.gateway_processes). The clients
are one process in another network namespace (bench.client_load) with addresses of their own, and share the machine's
processors with the gateway: the figures have the processor time of both. They carry no data.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from ipaddress import IPv4Network
from pathlib import Path

from bench.clients_report import Rush, render_rushes
from bench.gateway_processes import Issuer, cpu_seconds, resident, running_gateway
from bench.namespaces import join, run
from bench.page import add_options, keep_report
from bench.programs import OF_TUNNELS, require_programs
from openvpn.listener import Listener
from openvpn.model import Tunnel, TunnelClient
from tests.support.network_namespace import NetworkNamespace, network_namespace

CLIENTS = 2000
#: Processes, and clients behind one public address.
CASES = ((1, 1), (2, 1), (1, 20))
#: Seconds that all clients have.
PATIENCE = 120.0
GATEWAY, NEAR = "192.0.2.1", "192.0.2.2"
#: Where clients have their addresses, and what the tunnel gives them.
SOURCES, POOL = IPv4Network("10.64.0.0/20"), IPv4Network("10.96.0.0/21")
VPC = IPv4Network("10.1.0.0/16")
ROOT = Path(__file__).resolve().parents[1]


def measure_rush(processes: int, count: int, each: int = 1, wait: float = PATIENCE) -> Rush:
    """Have clients, so many behind one address, connect at once to a gateway of so many processes."""
    members = tuple(TunnelClient(name=f"client{number:04}") for number in range(count))
    tunnel = Tunnel(pool=POOL, routes=(VPC,), clients=members, listener=Listener("udp", (1194,), sharing=processes))
    issuer = Issuer()
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        clients, namespace = (undo.enter_context(network_namespace()) for _ in range(2))
        _join(clients, namespace)
        order = {
            "address": GATEWAY,
            "port": 1194,
            "wait": wait,
            "clients": [
                {
                    "bundle": issuer.issue_bundle(tunnel, client.name, GATEWAY),
                    "source": str(SOURCES[1 + number // each]),
                }
                for number, client in enumerate(members)
            ],
        }
        (directory / "order.json").touch(mode=0o600)
        (directory / "order.json").write_text(json.dumps(order))
        (directory / "gateway").mkdir()
        gateway = undo.enter_context(running_gateway(namespace, directory / "gateway", tunnel, issuer))
        argv = clients.enter(sys.executable, "-m", "bench.client_load", str(directory / "order.json"))
        load = undo.enter_context(
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        )
        undo.callback(load.kill)
        assert load.stdin and load.stdout
        if load.stdout.readline() != "ready\n":
            raise RuntimeError("the clients do not start")
        machine, memory = os.getloadavg()[0], resident(gateway.pids)
        spent, followed = cpu_seconds(gateway.pids), cpu_seconds(gateway.followers)
        load.stdin.write("\n")
        load.stdin.flush()
        outcome = json.loads(load.stdout.readline())
        spent, followed = cpu_seconds(gateway.pids) - spent, cpu_seconds(gateway.followers) - followed
        end = time.monotonic() + 11  # The status file is written every 10 seconds.
        while sum(gateway.sessions()) < len(outcome["times"]) and time.monotonic() < end:
            time.sleep(0.2)
        return Rush(
            processes=processes,
            clients=count,
            each=each,
            load=machine,
            limited=_count_limited(namespace),
            overflowed=_count_overflowed(namespace),
            sessions=gateway.sessions(),
            gateway_cpu=spent,
            followers_cpu=followed,
            generator_cpu=outcome["cpu"],
            memory_before=memory,
            memory_after=resident(gateway.pids),
            times=[round(seconds, 2) for seconds in outcome["times"]],
            **{key: outcome[key] for key in ("errors", "attempts", "repeats")},
        )


def _join(clients: NetworkNamespace, gateway: NetworkNamespace) -> None:
    """Join the clients' namespace to the gateway's; every address of `SOURCES` is there."""
    join(clients, "up0", f"{NEAR}/30", gateway, "up0", f"{GATEWAY}/30")
    run(clients, "ip", "route", "add", "local", str(SOURCES), "dev", "lo")
    run(gateway, "ip", "route", "add", str(SOURCES), "via", NEAR)


def _count_limited(namespace: NetworkNamespace) -> int:
    """Return the first packets that the filter's limit for each address has dropped."""
    listed = json.loads(run(namespace, "nft", "-j", "list", "counter", "inet", "drawbridge", "sessions"))
    return next(int(entry["counter"]["packets"]) for entry in listed["nftables"] if "counter" in entry)


def _count_overflowed(namespace: NetworkNamespace) -> int:
    """Return the datagrams that found a full socket. Source: Linux's Documentation/networking/snmp_counter.rst."""
    names, values = re.findall(r"^Udp: (.*)$", run(namespace, "cat", "/proc/net/snmp"), re.MULTILINE)
    return int(dict(zip(names.split(), values.split(), strict=True))["RcvbufErrors"])


def measure_clients(count: int = CLIENTS) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from render_rushes([measure_rush(processes, count, each) for processes, each in CASES])


def read_rushes(content: str) -> list[Rush]:
    """Return the figures in the text of a JSON file."""
    return [Rush(**rush) for rush in json.loads(content)]


def main() -> None:
    """Print the report of a run, or of the figures of a former one."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--processes", type=int, help="only this number of processes, each client at its own address")
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.figures:
        rushes = read_rushes(arguments.figures.read_text())
    else:
        require_programs(*OF_TUNNELS)
        cases = ((arguments.processes, 1),) if arguments.processes else CASES
        rushes = [measure_rush(processes, arguments.clients, each) for processes, each in cases]
    keep_report(arguments, "clients", render_rushes(rushes), map(asdict, rushes))


if __name__ == "__main__":
    main()
