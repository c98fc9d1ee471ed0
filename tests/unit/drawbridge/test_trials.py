"""Trials are chosen by what a stack's settings say. Does not prove what a trial checks: tests/lab runs them."""

import pytest

from drawbridge.operate.stack_files import CHECKOUT, find_stack_file, list_stacks
from drawbridge.trial.deployment import adapt_to_lab
from drawbridge.trial.run import TRIALS, trials_of
from settings.model import Settings
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
