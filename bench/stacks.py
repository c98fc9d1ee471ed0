"""Make, use and reap many whole stacks at once in the lab's API: python -m bench.stacks [--count 20].

Each stack has a process of its own, as a CI job has: it writes its file with `stack new`, deploys the program, and
reads its outputs and its clients' bundles. When all are deployed, `stack reap` runs a day later. Exit 1 if two stacks
have a range in common, or if anything of a stack is left.

Stand-ins: moto's API without machines, so nobody sends packets through the gateways; Drawbridge's engine instead of
Pulumi's CLI; and a clock that is a day ahead for the reaper.
"""

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self
from unittest.mock import patch

from drawbridge.commands import stack_reap
from drawbridge.commands.root import cli
from drawbridge.operate import bundles, claims, reaper
from drawbridge.operate.lab_account import connect, connect_region
from drawbridge.operate.leftovers import find_leftovers
from drawbridge.operate.rotations import read_settings
from drawbridge.operate.stack_inventory import list_summaries
from engine.engine import Engine
from lab.api import moto_state
from lab.api.moto_patches import patched
from lab.api.validation.validator import Validator
from tests.support.lab_api import REGION, Api, serve_lab_api
from tests.support.stacks import world_config

ROOT = Path(__file__).resolve().parents[1]
WORLD = "tenant"
#: Quotas of VPCs, internet gateways and Elastic IPs, of which each stack has one.
QUOTAS = (("vpc", "L-F678F1CE"), ("vpc", "L-A4707A72"), ("ec2", "L-0263D0A3"))


class LaterDatetime(datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UsedStack:
    """A stack that was made and used."""

    name: str
    ranges: tuple[IPv4Network, ...]
    vpc: str
    cpu: float
    """The processor's seconds of its process."""


def use_stack(name: str, directory: Path) -> UsedStack:
    """Create, deploy and use a stack."""
    os.chdir(directory)
    source = ROOT / "stacks" / f"Pulumi.{WORLD}.yaml"
    run_drawbridge("stack", "new", name, "--from", str(source), "--ttl", "1h", "--no-ssh")
    settings, state = read_settings(name), directory / f"{name}.json"
    outputs = Engine(ROOT, project="drawbridge", stack=name, config=world_config(name), state=state).up().outputs
    account = connect(name, region=REGION)
    for client in settings.clients:
        _, bundle = bundles.read_bundle(account, client.name)
        if f"remote {outputs['publicIp']} " not in bundle:
            raise AssertionError(f"{name}: the bundle of {client.name} leads elsewhere")
    ranges = (*(vpc.cidr for vpc in settings.vpcs), settings.tunnel.pool)
    return UsedStack(name, ranges, str(outputs["vpcId"]), measure_cpu())


def run_drawbridge(*arguments: str) -> str:
    """Return the output of a command that succeeds."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        cli.main(arguments, standalone_mode=False)
    return printed.getvalue()


def measure_cpu() -> float:
    """Return the processor's seconds that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def find_clashes(stacks: list[UsedStack]) -> Iterator[str]:
    """Yield what two stacks have in common."""
    for first, second in itertools.combinations(stacks, 2):
        common = [f"{a} and {b}" for a in first.ranges for b in second.ranges if a.overlaps(b)]
        common += [first.vpc] if first.vpc == second.vpc else []
        yield from (f"{first.name}, {second.name}: {text}" for text in common)


def find_leaks(stacks: list[UsedStack]) -> Iterator[str]:
    """Yield what is left of these stacks, and of any other."""
    for stack in stacks:
        yield from (
            f"{stack.name}: {left.kind} {left.name}" for left in find_leftovers(connect(stack.name, region=REGION))
        )
    yield from (summary.name for summary in list_summaries(connect_region(REGION)))
    yield from (claim.parameter for claim in claims.list_claims(connect_region(REGION)))


def raise_quotas(api: Api, count: int) -> None:
    """Have the account take so many stacks beside what AWS makes itself."""
    for service, code in QUOTAS:
        api.client("service-quotas").request_service_quota_increase(
            ServiceCode=service, QuotaCode=code, DesiredValue=count + 1
        )


def use_and_reap(count: int) -> tuple[list[UsedStack], list[str]]:
    """Return so many stacks that were used at once, and what was wrong."""
    names = [f"job-{number}" for number in range(1, count + 1)]
    with (
        tempfile.TemporaryDirectory() as text,
        patched(),
        serve_lab_api(Validator()) as api,
    ):
        directory = Path(text)
        (directory / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
        raise_quotas(api, count)
        keys = api.create_user("ci", json.dumps(moto_state.ADMINISTRATOR_POLICY))
        os.environ |= {name.upper(): value for name, value in keys.items()}
        os.environ |= {"AWS_ENDPOINT_URL": api.endpoint, "AWS_REGION": REGION}
        spawning = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=spawning) as pool:
            stacks = list(pool.map(use_stack, names, [directory] * count))
        wrong = list(find_clashes(stacks))
        listed = json.loads(run_drawbridge("stack", "list", "--json", "--region", REGION))
        if {entry["name"] for entry in listed} != set(names):
            wrong.append(f"stack list names {[entry['name'] for entry in listed]}")
        with (
            patch.object(stack_reap, "datetime", LaterDatetime),
            patch.object(reaper, "datetime", LaterDatetime),
            patch.object(reaper, "POLL", 0.0),
        ):
            run_drawbridge("stack", "reap", "--region", REGION)
        return stacks, [*wrong, *find_leaks(stacks)]


def main() -> int:
    """Print what was seen; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    count = parser.parse_args().count
    begin = time.monotonic()
    stacks, wrong = use_and_reap(count)
    seconds, cpu = time.monotonic() - begin, measure_cpu() + sum(stack.cpu for stack in stacks)
    for line in wrong:
        print(line, file=sys.stderr)
    print(
        f"{count} stacks made, used and reaped: {len(wrong)} clashes and leaks; {seconds:.0f} s, {cpu:.0f} s of CPU "
        f"(load of the machine {os.getloadavg()[0]:.0f}; {datetime.now(UTC):%Y-%m-%d})"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
