"""Compare a stack's monthly cost with AWS's own VPNs for the same inputs.

Prices are in one dated file, `prices.toml`. Costs that all three share (the hosts in the VPC) are left out.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from drawbridge import errors
from images import PREPARED_SYSTEMS
from settings.model import Settings

PRICES = Path(__file__).with_name("prices.toml")

#: As in AWS's Pricing Calculator.
HOURS_PER_MONTH = 730

#: Alarms on each gateway (`components.alarms`, which the command cannot import).
ALARMS = 9

#: Standard parameters of Systems Manager that an account may have in a region; they are free.
STANDARD_PARAMETERS = 10_000

#: GB of a prepared image's snapshot, an estimate: AWS bills the blocks that are written.
SNAPSHOT_SIZE = 2

#: Clients that share a parameter of the register (ADR 16).
CLIENTS_PER_PAGE = 25


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
    load: float = 100
    """Average load of the gateway's processors, percent; it costs something above the baseline of unlimited credits."""


@cache
def read_prices() -> dict[str, Any]:
    """Return the contents of the price file."""
    return tomllib.loads(PRICES.read_text(encoding="utf-8"))


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
    _check_price(machine)
    sites = [client for client in settings.clients if client.lan]
    people = len(settings.clients) - len(sites)
    hours = people * usage.connected + len(sites) * HOURS_PER_MONTH
    lines = max(1, len(sites))
    out = Item(f"{usage.out:g} GB out", usage.out * gigabyte["out"])
    gateways, two = (2, "two of: ") if settings.pair else (1, "")
    zone = [Item("private zone", month["zone"])] if settings.domain else []
    key = [Item("secrets' key", month["key"])] if settings.secrets.key == "stack" else []
    return (
        Bill(
            f"stack {settings.stack}",
            (
                Item(f"{two}instance {machine}", gateways * HOURS_PER_MONTH * hour["instance"][machine]),
                Item(f"{two}public address", gateways * HOURS_PER_MONTH * hour["public_address"]),
                Item(f"{two}disk, {disk} GiB", gateways * disk * month["disk"]),
                *_prepared_image(settings),
                *_metrics(settings),
                *_alarms(settings),
                *_connection_log(settings, hours),
                *_surplus_credits(settings, usage),
                *zone,
                *_name_queries(settings, hours),
                *key,
                *_advanced_parameters(settings),
                *_between_zones(settings, usage),
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


def price_resources(
    *, machines: Iterable[str], addresses: int, gibibytes: int, keys: int, zones: int, alarms: int
) -> float:
    """Return the monthly cost of resources that exist, without traffic, metrics and logs.

    `machines` are the types of the instances that run. Raises `StackError` for a type without a price in the file.
    """
    hour, month = read_prices()["hour"], read_prices()["month"]
    types = list(machines)
    for machine in types:
        _check_price(machine)
    hours = sum(hour["instance"][machine] for machine in types) + addresses * hour["public_address"]
    fixed = gibibytes * month["disk"] + keys * month["key"] + zones * month["zone"] + alarms * month["alarm"]
    return float(HOURS_PER_MONTH * hours + fixed)


def _check_price(machine: str) -> None:
    types = read_prices()["hour"]["instance"]
    if machine not in types:
        raise errors.StackError(f"there is no price for {machine}", f"add it to {PRICES}; it has {', '.join(types)}")


def _prepared_image(settings: Settings) -> list[Item]:
    """Return the cost of one prepared image's snapshot, which all stacks of the region may share."""
    if settings.gateway.image not in PREPARED_SYSTEMS:
        return []
    return [Item(f"image, {SNAPSHOT_SIZE} GB", SNAPSHOT_SIZE * read_prices()["month"]["snapshot"])]


def _advanced_parameters(settings: Settings) -> list[Item]:
    """Return the cost of the parameters that exceed the account's standard ones, if it has none but the stack's.

    Bundles in S3 cost nothing that shows: 2,000 are 8 MB, and reading all of them less than a cent.
    """
    clients = 0 if settings.secrets.bundles == "s3" else len(settings.clients)
    kits = sum(client.needs_kit(settings.tunnel) for client in settings.clients)
    excess = clients + kits + len(settings.clients) // CLIENTS_PER_PAGE - STANDARD_PARAMETERS
    if settings.secrets.tier != "intelligent" or excess <= 0:
        return []
    return [Item(f"advanced parameters: {excess:,}", excess * read_prices()["month"]["advanced_parameter"])]


def _metrics(settings: Settings) -> list[Item]:
    """Return the cost of the metrics and of the requests that send them; CloudWatch bills a metric by the hour."""
    level, gateways = settings.gateway.metrics, 2 if settings.pair else 1
    if level == "off":
        return []
    if level == "full":
        # Days left on two certificates, days that a fix waits, and three of each OpenVPN process that serves clients,
        # once a minute.
        metrics = 2 * gateways if settings.pair else 3 * settings.tunnel.links + 3
        billed, requests = float(metrics), HOURS_PER_MONTH * 60
    else:
        # Clients and bytes every five minutes where clients are served, and both kinds of days once a day.
        metrics = 2 * gateways if settings.pair else 4
        billed, requests = (2 * gateways / 24, 30) if settings.pair else (2 + 2 / 24, HOURS_PER_MONTH * 12)
    if settings.alerts:
        # Whether each gateway is ready: every five minutes, or each minute; and at `full` the first end once a day.
        metrics += gateways
        billed += gateways * (1 + 1 / 24 if level == "full" else 1)
        requests = max(requests, HOURS_PER_MONTH * 12)
    prices = read_prices()
    dollars = billed * prices["month"]["metric"] + gateways * requests * prices["request"]["metric"]
    return [Item(f"metrics: {metrics}", dollars)]


def _alarms(settings: Settings) -> list[Item]:
    """Return the cost of the alarms; what is sent only if it is remarkable is left out, as are e-mails."""
    if settings.alerts is None:
        return []
    alarms = ALARMS * (2 if settings.pair else 1)
    return [Item(f"alarms: {alarms}", alarms * read_prices()["month"]["alarm"])]


#: Hours of a session, and bytes of its two events with what CloudWatch Logs adds to them; both are estimates.
SESSION_HOURS, SESSION_BYTES = 1, 700
#: Bytes of its journal that a gateway sends in an hour at most: LINES_BYTES of connections.py.
JOURNAL_BYTES = 32 << 10


def _connection_log(settings: Settings, hours: float) -> list[Item]:
    """Return the cost of the connection log, for clients that are connected for `hours` a month in all.

    It counts all lines of the journal that a gateway may send.
    """
    if settings.log.days is None:
        return []
    gigabyte = read_prices()["gigabyte"]
    gateways = 2 if settings.pair else 1
    gigabytes = (hours / SESSION_HOURS * SESSION_BYTES + gateways * HOURS_PER_MONTH * JOURNAL_BYTES) / 1e9
    stored = gigabytes * settings.log.days / 30
    return [Item("connection log", gigabytes * gigabyte["log"] + stored * gigabyte["stored_log"])]


def _name_queries(settings: Settings, hours: float) -> list[Item]:
    """Return the cost of looking the gateway's name up, once for each session.

    A record costs nothing itself, and its hosted zone exists without the stack.
    """
    if settings.gateway.hosted_zone_id is None:
        return []
    queries = hours / SESSION_HOURS
    return [Item(f"DNS queries: {queries:,.0f}", queries * read_prices()["request"]["dns_query"])]


def _surplus_credits(settings: Settings, usage: Usage) -> list[Item]:
    """Return the cost of CPU time above the baseline, which only unlimited credits allow for longer."""
    gateway, prices = settings.gateway, read_prices()
    if not gateway.is_burstable or gateway.credits != "unlimited":
        return []
    family = gateway.instance_type.partition(".")[0]
    surplus = max(0.0, usage.load - prices["baseline"][gateway.instance_type]) / 100
    gateways = 2 if settings.pair else 1
    # Every type of these families up to `large` has two virtual processors.
    dollars = gateways * 2 * surplus * HOURS_PER_MONTH * prices["hour"]["surplus_credits"][family]
    return [Item(f"CPU credits at {usage.load:g} % load", dollars)]


def _between_zones(settings: Settings, usage: Usage) -> list[Item]:
    """Return the cost of traffic to private hosts in other zones than the gateway's, if hosts are spread evenly."""
    zones = settings.network.zones
    if zones == 1:
        return []
    gigabytes = usage.out * (zones - 1) / zones
    return [Item(f"{gigabytes:g} GB between zones", gigabytes * 2 * read_prices()["gigabyte"]["between_zones"])]
