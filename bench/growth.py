"""Figures of issuing certificates to many clients: seconds of CPU, calls to AWS and memory, and how they grow.

AWS is moto in this process: a call meets no quota, and its seconds include moto's. The calls say how long SSM takes.
"""

import math
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

from botocore.client import BaseClient

from components.authority_provider import Issuer
from tests.support.aws import aws_environment, reset_moto, serve_moto

#: Clients, from the fewest to the most.
CLIENTS = (10, 250, 2000)

#: What is measured of each number of clients, as the change of that number.
CHANGES = {"first": 0, "nothing changed": 0, "one more": 1, "one less": 0}


def measure_growth(sizes: tuple[int, ...] = CLIENTS) -> Iterator[str]:
    """Yield a line for each figure."""
    seconds: dict[str, dict[int, float]] = {change: {} for change in CHANGES}
    with serve_moto() as url, patch.dict(os.environ, aws_environment(url)):
        _converge({}, _props(1), Counter())  # The first one also loads AWS's models.
        for clients in sizes:
            reset_moto(url)
            outs: dict[str, Any] = {}
            for change, more in CHANGES.items():
                # A machine under load takes longer, but not more of its processor.
                start, calls = time.process_time(), Counter[str]()
                outs = _converge(outs, _props(clients + more), calls)
                seconds[change][clients] = time.process_time() - start
                listed = ", ".join(f"{count} {name}" for name, count in sorted(calls.items()))
                yield f"{seconds[change][clients]:8.2f} s of CPU  {clients} clients, {change}: {listed}"
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            yield f"{memory:8} MiB  at most, with that AWS, up to {clients} clients"
    yield f"{os.getloadavg()[0]:8.1f}    load of the machine"
    if len(sizes) > 1:
        for change, by_size in seconds.items():
            yield f"{_slope(by_size):8.2f}    log-log slope of the seconds, {change} (goal: 1.1 at most)"


def _converge(outs: dict[str, Any], props: dict[str, Any], calls: Counter[str]) -> dict[str, Any]:
    """Create the authority, or update it if an input has changed, and count the calls."""
    original = BaseClient._make_api_call  # type: ignore[attr-defined]

    def count(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        calls[operation] += 1
        return original(client, operation, arguments)

    issuer = Issuer()
    BaseClient._make_api_call = count  # type: ignore[attr-defined]
    try:
        if not outs:
            return issuer.create(props).outs or {}
        if not issuer.diff("", outs, props).changes:
            return outs
        return issuer.update("", outs, props).outs or {}
    finally:
        BaseClient._make_api_call = original  # type: ignore[attr-defined]


def _props(clients: int) -> dict[str, Any]:
    return {
        "stack": "bench",
        "region": "eu-west-1",
        "account": "123456789012",
        "serverName": "bench.drawbridge",
        "profiles": {f"client{number:04}": "client\nremote 192.0.2.1\n" for number in range(clients)},
        "lifetimes": {"ca": 3650.0, "server": 825.0, "client": 365.0},
        "owner": "bench",
    }


def _slope(by_size: Mapping[int, float]) -> float:
    """Return the exponent between the two largest sizes; a fixed part hides it in smaller ones."""
    (less, short), (more, long) = sorted(by_size.items())[-2:]
    return math.log(max(long, 0.001) / max(short, 0.001)) / math.log(more / less)
