"""Trials are chosen by what a stack's settings say. Does not prove what a trial checks: tests/lab runs them."""

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from drawbridge.operate.stack_files import CHECKOUT, find_stack_file, list_stacks
from drawbridge.operate.stack_records import StackRecord, list_records, name_machine, save_record
from drawbridge.trial.deployment import adapt_to_lab, choose_clients
from drawbridge.trial.hosts import public_address
from drawbridge.trial.routed import list_pairs
from drawbridge.trial.run import TRIALS, trials_of
from lab.region import Region
from settings.model import Client, Settings
from settings.parse import parse
from settings.stack_file import read_stack_file

CLIENTS = ["clients", "routed network"]
SEGMENT = ["clients", "segment", "VPC from the segment"]


def settings_of(stack: str) -> Settings:
    return parse(read_stack_file(find_stack_file(stack)), stack=stack, endpoint="http://127.0.0.1")


@pytest.mark.parametrize(
    ("stack", "features"),
    [
        ("bonded", ["bonded hosts"]),
        ("bridge", SEGMENT),
        ("ipv6", ["clients", "IPv6", "segment", "VPC from the segment"]),
        ("lab", CLIENTS),
        ("pair", ["pair of gateways"]),
        ("ros2", SEGMENT),
        ("site", CLIENTS),
        ("tenant", CLIENTS),
    ],
)
def test_a_stack_has_the_trials_of_its_features(stack: str, features: list[str]) -> None:
    assert [trial.feature for trial in trials_of(settings_of(stack))] == features


def test_every_stack_of_this_checkout_has_a_trial_and_every_trial_a_stack() -> None:
    stacks = [path.name.split(".")[1] for path in (CHECKOUT / "stacks").glob("Pulumi.*.yaml")]
    assert set(stacks) <= set(list_stacks())
    used = {trial.feature for stack in stacks for trial in trials_of(settings_of(stack))}
    assert used == {trial.feature for trial in TRIALS}
    assert all(trials_of(settings_of(stack)) for stack in stacks)


def clients_of(*sections: Mapping[str, object]) -> tuple[Client, ...]:
    return tuple(Client.model_validate(section) for section in sections)


def test_one_client_of_each_kind_is_started_first() -> None:
    robots = [{"name": f"robot{number}"} for number in range(5)]
    site = {"name": "home", "lan": ["192.168.1.0/24"], "at": "203.0.113.10"}
    clients = clients_of(*robots, {"name": "laptop", "system": "windows"}, site)
    assert [client.name for client in choose_clients(clients, 4)] == ["robot0", "robot1", "laptop", "home"]
    assert [client.name for client in choose_clients(clients, 2)] == ["robot0", "laptop"]
    assert choose_clients(clients, 12) == clients
    assert choose_clients((), 12) == ()


def test_every_client_of_many_is_in_a_pair_both_ways() -> None:
    assert len(list_pairs("abcd")) == 12
    pairs = list_pairs("abcdef")
    assert len(pairs) == 12
    assert set(pairs) == {(second, first) for first, second in pairs}
    assert all(sum(item in pair for pair in pairs) == 4 for item in "abcdef")


def test_a_client_s_home_is_at_no_address_that_is_taken() -> None:
    settings = settings_of("tenant")
    first = public_address(settings, 0)
    second = public_address(settings, 0, {first})
    assert second != first
    assert public_address(settings, 1, {first, second}) not in (first, second)
    closed = settings.model_copy(
        update={"gateway": settings.gateway.model_copy(update={"allow_from": (IPv4Network("198.51.100.7/32"),)})}
    )
    only = IPv4Network("198.51.100.7/32")[0]
    assert public_address(closed, 0) == public_address(closed, 1, {only}) == only, "whom the tunnel lets in"


def region_of(directory: Path) -> Region:
    return Region("lab", directory, 4700, "token", {})


def test_machines_of_two_stacks_have_names_that_do_not_clash(tmp_path: Path) -> None:
    region = region_of(tmp_path)
    records = [StackRecord(stack=stack) for stack in ("first", "second")]
    for record in records:
        save_record(region, record)
        (region.stacks / f"{record.stack}.json").touch()
    names = [name_machine(region, record, "alice") for record in (*records, *records)]
    assert names == ["alice", "alice-second", "alice", "alice-second"]
    assert name_machine(region, records[1], "bob") == "bob"
    assert list_records(region) == records
    (region.stacks / "first.json").unlink()
    assert list_records(region) == records[1:], "a stack without a state is no longer there"


def test_what_exists_outside_of_the_lab_only_is_left_out() -> None:
    name = {"hostname": "vpn.example.com"}
    raw = {
        "aws:region": "eu-west-1",
        "drawbridge:gateway": {**name, "hostedZoneId": "Z0123456789ABCDEFGHIJ"},
        "drawbridge:clients": [{"name": "alice", "csr": "alice.csr"}, {"name": "bob"}],
    }
    assert adapt_to_lab(raw) == {
        "aws:region": "eu-west-1",
        "drawbridge:gateway": name,
        "drawbridge:clients": [{"name": "alice"}, {"name": "bob"}],
    }
    assert adapt_to_lab({"aws:region": "eu-west-1"}) == {"aws:region": "eu-west-1"}
