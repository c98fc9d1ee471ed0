"""What a stack costs. Does not prove that the prices are still AWS's: the file has a date."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.alarms import CONDITIONS
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import monthly_cost
from drawbridge.operate.stack_files import find_stack_file
from settings.model import Client, Secrets, Settings
from settings.parse import parse
from settings.stack_file import read_stack_file


def site(**gateway: object) -> Settings:
    raw = read_stack_file(find_stack_file("site"))
    raw["drawbridge:gateway"] = {**raw["drawbridge:gateway"], **gateway}
    raw["drawbridge:clients"].append({"name": "laptop", "at": "203.0.113.11"})
    return parse(raw, stack="site", endpoint=None)


@pytest.mark.seed("4.18")
def test_the_same_inputs_cost_less_than_awss_own_vpns() -> None:
    stack, lines, endpoint = monthly_cost.compare_costs(site(), monthly_cost.Usage(connected=100, out=10))

    items = ["instance t4g.nano", "public address", "disk, 8 GiB", "metrics: 4", "connection log", "secrets' key"]
    assert [item.name for item in stack.items] == [*items, "10 GB out"]
    # A session of each hour that a client is connected, and 32 KiB of the journal an hour, kept for 90 days.
    log = ((100 + 730) * 700 + 730 * 32_768) / 1e9 * (0.50 + 3 * 0.03)
    fixed = 730 * (0.0042 + 0.005) + 8 * 0.08 + (2 + 2 / 24) * 0.30 + 0.0876 + 1 + 0.9
    assert stack.dollars == pytest.approx(fixed + log)
    assert log < 0.02
    assert lines.dollars == pytest.approx(730 * 0.05 + 0.9)
    # One association; a laptop for 100 hours, and the site always.
    assert endpoint.dollars == pytest.approx(730 * 0.10 + (100 + 730) * 0.05 + 0.9)
    assert stack.dollars < lines.dollars < endpoint.dollars


def test_a_pair_has_two_machines() -> None:
    one, *_ = monthly_cost.compare_costs(site(), monthly_cost.Usage(connected=0, out=0))
    pair, *_ = monthly_cost.compare_costs(
        parse(read_stack_file(find_stack_file("pair")), stack="pair", endpoint=None),
        monthly_cost.Usage(connected=0, out=0),
    )
    machines = sum(item.dollars for item in one.items[:3])
    assert sum(item.dollars for item in pair.items[:3]) == pytest.approx(2 * machines)
    assert pair.items[0].name == "two of: instance t4g.nano"


def test_an_instance_type_without_a_price_is_told() -> None:
    with pytest.raises(errors.StackError, match=r"there is no price for m7g\.metal") as error:
        monthly_cost.compare_costs(site(instanceType="m7g.metal"), monthly_cost.Usage(connected=0, out=0))
    assert "prices.toml" in error.value.remedy


def test_prices_have_a_date_a_region_and_sources() -> None:
    day, region = monthly_cost.price_date()
    assert isinstance(day, date) and region == "us-east-1"
    groups = re.split(r"^((?:#.*\n)+)", monthly_cost.PRICES.read_text(), flags=re.MULTILINE)[1:]
    priced = {
        says: rest for says, rest in zip(groups[::2], groups[1::2], strict=True) if re.search(r" = [\d.]+$", rest, re.M)
    }
    assert len(priced) == 17
    for says in priced:  # what they are for, where they were read, and where AWS itself has them
        assert re.match(r"# .+: .*(tables?|pages?|notes|costs|Addresses|Pricing)", says, re.DOTALL), says
        assert re.search(r"aws\.amazon\.com/\S+pricing", says), says


def test_a_name_in_a_hosted_zone_costs_its_queries_alone() -> None:
    def costs(**gateway: str) -> tuple[set[str], float]:
        stack, *_ = monthly_cost.compare_costs(site(**gateway), monthly_cost.Usage(connected=100, out=0))
        return {item.name for item in stack.items}, stack.dollars

    items, dollars = costs()
    assert costs(hostname="vpn.example.com") == (items, dollars)
    named, with_record = costs(hostname="vpn.example.com", hostedZoneId="Z0123456789ABCDEFGHIJ")
    assert named - items == {"DNS queries: 830"}
    assert with_record - dollars == pytest.approx(830 * 0.40 / 1e6)


def test_a_domain_and_a_second_process_cost_what_they_are() -> None:
    def bill(world: str) -> dict[str, float]:
        raw = read_stack_file(find_stack_file(world))
        stack, *_ = monthly_cost.compare_costs(
            parse(raw, stack=world, endpoint=None), monthly_cost.Usage(connected=0, out=0)
        )
        return {item.name: item.dollars for item in stack.items}

    assert bill("tenant")["private zone"] == 0.5
    assert "private zone" not in bill("site")
    assert bill("bonded")["metrics: 4"] == bill("site")["metrics: 4"] > bill("pair")["metrics: 4"]


def items(settings: Settings, **usage: float) -> dict[str, float]:
    stack, *_ = monthly_cost.compare_costs(settings, monthly_cost.Usage(**{"connected": 0, "out": 10, **usage}))
    return {item.name: item.dollars for item in stack.items}


def test_a_connection_log_costs_by_its_retention() -> None:
    def log(retention: object) -> float | None:
        raw = read_stack_file(find_stack_file("site")) | {"drawbridge:log": {"retention": retention}}
        return items(parse(raw, stack="site", endpoint=None)).get("connection log")

    assert log("none") is None
    short, long = log(1), log(3653)
    assert short and long and long > short


def test_a_prepared_image_costs_its_snapshot() -> None:
    usage = monthly_cost.Usage(connected=0, out=0)
    plain, *_ = monthly_cost.compare_costs(site(), usage)
    prepared, *_ = monthly_cost.compare_costs(site(image="ours"), usage)
    assert {item.name: item.dollars for item in prepared.items if item not in plain.items} == {"image, 2 GB": 0.1}


def test_metrics_cost_by_their_level() -> None:
    assert items(site(metrics="full"))["metrics: 6"] == pytest.approx(6 * 0.30 + 730 * 60 * 0.00001)
    assert not [name for name in items(site(metrics="off")) if name.startswith("metrics")]


@pytest.mark.parametrize(("level", "metrics"), [("basic", 5), ("full", 7)])
def test_alarms_cost_and_so_does_what_they_are_for(level: str, metrics: int) -> None:
    raw = read_stack_file(find_stack_file("site"))
    raw["drawbridge:gateway"] = {**raw["drawbridge:gateway"], "metrics": level}
    without = parse(raw, stack="site", endpoint=None)
    settings = parse({**raw, "drawbridge:alerts": {"email": "a@example.com"}}, stack="site", endpoint=None)
    bill, before = items(settings), items(without)
    assert bill["alarms: 9"] == pytest.approx(0.90)
    daily = 1 / 24 if level == "full" else 0
    assert bill[f"metrics: {metrics}"] - before[f"metrics: {metrics - 1}"] == pytest.approx(0.30 * (1 + daily))
    assert not [name for name in before if name.startswith("alarms")]


def test_a_pair_has_twice_as_many_alarms() -> None:
    raw = read_stack_file(find_stack_file("pair"))
    settings = parse({**raw, "drawbridge:alerts": {"email": "a@example.com"}}, stack="pair", endpoint=None)
    assert items(settings)["alarms: 18"] == pytest.approx(1.80)
    assert items(settings)["metrics: 6"] == pytest.approx(2 * (0.30 * (1 + 2 / 24) + 730 * 12 * 0.00001))


def test_the_number_of_alarms_is_the_programs() -> None:
    assert len(CONDITIONS) + 2 == monthly_cost.ALARMS


def test_parameters_over_the_accounts_standard_ones_cost_unless_bundles_are_in_s3() -> None:
    crowd = tuple(Client(name=f"client{number}") for number in range(10_000))
    few = site()

    def advanced(**secrets: str) -> list[float]:
        settings = few.model_copy(update={"clients": crowd, "secrets": Secrets.model_validate(secrets)})
        return [cost for name, cost in items(settings).items() if name == "advanced parameters: 400"]

    assert advanced() == advanced(tier="intelligent", bundles="s3") == []
    assert advanced(tier="intelligent") == [pytest.approx(400 * 0.05)]


def test_unlimited_credits_cost_the_time_above_the_baseline() -> None:
    assert not [name for name in items(site()) if "CPU" in name], "standard credits cost nothing"
    unlimited = site(credits="unlimited")
    assert items(unlimited)["CPU credits at 100 % load"] == pytest.approx(2 * 0.95 * 730 * 0.04)
    assert items(unlimited, load=4)["CPU credits at 4 % load"] == 0
    assert items(site(credits="unlimited", instanceType="t3.small"), load=25)["CPU credits at 25 % load"] == (
        pytest.approx(2 * 0.05 * 730 * 0.05)
    )


def test_traffic_to_other_zones_costs_on_both_sides() -> None:
    raw = read_stack_file(find_stack_file("tenant"))
    raw["drawbridge:network"] = {**raw["drawbridge:network"], "zones": 2}
    settings = parse(raw, stack="tenant", endpoint=None)
    assert items(settings, out=10)["5 GB between zones"] == pytest.approx(5 * 0.02)
    assert not [name for name in items(site()) if "zones" in name]


@pytest.mark.seed("4.18")
def test_the_command_shows_all_three() -> None:
    done = CliRunner().invoke(cli, ["stack", "cost", "tenant"])
    assert done.exit_code == 0, done.output
    for name in ("stack tenant", "AWS Site-to-Site VPN", "AWS Client VPN", str(monthly_cost.price_date()[0])):
        assert name in done.output
    shown = json.loads(CliRunner().invoke(cli, ["stack", "cost", "tenant", "--json"]).output)
    assert [bill["name"] for bill in shown["bills"]] == ["stack tenant", "AWS Site-to-Site VPN", "AWS Client VPN"]


def test_a_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text("config: {aws:region: nowhere}\n")
    done = CliRunner().invoke(cli, ["stack", "cost", str(path)])
    assert done.exit_code == 1 and "is not a valid AWS region" in done.output
