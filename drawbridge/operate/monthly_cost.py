"""What a stack costs in a month, beside AWS's own VPNs for the same inputs.

Prices are in one dated file, `prices.toml`; the arithmetic is here. What all three pay alike for (the hosts in the VPC)
is left out.
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

#: Hours of a month, as AWS's own calculator counts.
HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a bill."""

    what: str
    dollars: float
    """A month."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What one way to the VPC costs."""

    name: str
    items: tuple[Item, ...]

    @property
    def dollars(self) -> float:
        """A month."""
        return sum(item.dollars for item in self.items)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a stack file does not say."""

    connected: float
    """Hours that each client is connected in a month; sites always are."""
    out: float
    """Gigabytes a month from AWS to clients and sites."""


@cache
def read_prices() -> dict[str, Any]:
    """The price file as it is."""
    return tomllib.loads(PRICES.read_text())


def price_date() -> tuple[date, str]:
    """Of what day, and of which region, the prices are."""
    return read_prices()["date"], read_prices()["region"]


def compare_costs(settings: Settings, usage: Usage) -> tuple[Bill, Bill, Bill]:
    """Bills of the stack, of Site-to-Site VPN and of Client VPN, for the stack's own clients, sites and zones.

    Site-to-Site VPN takes a connection for each site (and needs at least one), Client VPN an association for each zone.
    Raises `StackError` for an instance type whose price is not in the file.
    """
    hour, month, gigabyte = read_prices()["hour"], read_prices()["month"], read_prices()["gigabyte"]
    machine, disk = settings.gateway.instance_type, settings.gateway.disk_size
    if machine not in hour["instance"]:
        known = ", ".join(hour["instance"])
        raise errors.StackError(f"no price of {machine} is known", f"add it to {PRICES}; known are {known}")
    sites = [client for client in settings.clients if client.lan]
    people = len(settings.clients) - len(sites)
    hours = people * usage.connected + len(sites) * HOURS_PER_MONTH
    lines = max(1, len(sites))
    out = Item(f"{usage.out:g} GB out", usage.out * gigabyte["out"])
    gateways, two = (2, "two of: ") if settings.pair else (1, "")
    # The days left on two certificates and, where clients are served, three of each OpenVPN process; each gateway tells
    # its own in one request a minute.
    metrics = 2 if settings.pair else 3 * settings.tunnel.links + 2
    told = metrics * month["metric"] + gateways * HOURS_PER_MONTH * 60 * read_prices()["request"]["metric"]
    zone = [Item("private zone", month["zone"])] if settings.domain else []
    return (
        Bill(
            f"stack {settings.stack}",
            (
                Item(f"{two}instance {machine}", gateways * HOURS_PER_MONTH * hour["instance"][machine]),
                Item(f"{two}public address", gateways * HOURS_PER_MONTH * hour["public_address"]),
                Item(f"{two}disk, {disk} GiB", gateways * disk * month["disk"]),
                Item(f"metrics: {metrics}", told),
                *zone,
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
