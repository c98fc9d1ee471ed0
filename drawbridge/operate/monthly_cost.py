"""Compare a stack's monthly cost with AWS's own VPNs for the same inputs.

Prices are in one dated file, `prices.toml`. Costs that all three share (the hosts in the VPC) are left out.
"""

import tomllib
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from drawbridge import errors
from settings.model import Settings

PRICES = Path(__file__).with_name("prices.toml")

#: As in AWS's Pricing Calculator.
HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a bill."""

    name: str
    dollars: float
    """A month."""


@dataclass(frozen=True, slots=True)
class Bill:
    """The monthly cost of one way to the VPC."""

    name: str
    items: tuple[Item, ...]

    @property
    def dollars(self) -> float:
        """A month."""
        return sum(item.dollars for item in self.items)


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage that a stack file does not state."""

    connected: float
    """Hours that each client is connected in a month; sites always are."""
    out: float
    """Gigabytes a month from AWS to clients and sites."""


@cache
def read_prices() -> dict[str, Any]:
    """Return the contents of the price file."""
    return tomllib.loads(PRICES.read_text())


def price_date() -> tuple[date, str]:
    """Return the day and the AWS region that the prices are of."""
    return read_prices()["date"], read_prices()["region"]


def compare_costs(settings: Settings, usage: Usage) -> tuple[Bill, Bill, Bill]:
    """Return the bills of the stack, of Site-to-Site VPN and of Client VPN, for its clients, sites and zones.

    Site-to-Site VPN takes a connection for each site (and needs at least one), Client VPN an association for each zone.
    Raises `StackError` for an instance type without a price in the file.
    """
    hour, month, gigabyte = read_prices()["hour"], read_prices()["month"], read_prices()["gigabyte"]
    machine, disk = settings.gateway.instance_type, settings.gateway.disk_size
    if machine not in hour["instance"]:
        types = ", ".join(hour["instance"])
        raise errors.StackError(f"there is no price for {machine}", f"add it to {PRICES}; it has {types}")
    sites = [client for client in settings.clients if client.lan]
    people = len(settings.clients) - len(sites)
    hours = people * usage.connected + len(sites) * HOURS_PER_MONTH
    lines = max(1, len(sites))
    out = Item(f"{usage.out:g} GB out", usage.out * gigabyte["out"])
    gateways, two = (2, "two of: ") if settings.pair else (1, "")
    # The days left on two certificates and, where clients are served, three of each OpenVPN process. Each gateway sends
    # its metrics in one request a minute.
    metrics = 2 if settings.pair else 3 * settings.tunnel.links + 2
    metrics_cost = metrics * month["metric"] + gateways * HOURS_PER_MONTH * 60 * read_prices()["request"]["metric"]
    zone = [Item("private zone", month["zone"])] if settings.domain else []
    key = [Item("secrets' key", month["key"])] if settings.secrets.key == "stack" else []
    return (
        Bill(
            f"stack {settings.stack}",
            (
                Item(f"{two}instance {machine}", gateways * HOURS_PER_MONTH * hour["instance"][machine]),
                Item(f"{two}public address", gateways * HOURS_PER_MONTH * hour["public_address"]),
                Item(f"{two}disk, {disk} GiB", gateways * disk * month["disk"]),
                Item(f"metrics: {metrics}", metrics_cost),
                *zone,
                *key,
                out,
            ),
        ),
        Bill(
            "AWS Site-to-Site VPN",
            (Item(f"connections: {lines}", lines * HOURS_PER_MONTH * hour["site_connection"]), out),
        ),
        Bill(
            "AWS Client VPN",
            (
                Item(
                    f"associations: {settings.network.zones}",
                    settings.network.zones * HOURS_PER_MONTH * hour["client_association"],
                ),
                Item(f"connections: {hours:g} h", hours * hour["client_connection"]),
                out,
            ),
        ),
    )
