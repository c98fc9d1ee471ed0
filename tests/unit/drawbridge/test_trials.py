"""Trials are chosen by what a stack's settings say. Does not prove what a trial checks: tests/lab runs them."""

import contextlib
import hashlib
import re
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pulumi
import pytest

from drawbridge import errors
from drawbridge.operate.stack_files import CHECKOUT, find_stack_file, list_stacks
from drawbridge.operate.stack_records import StackRecord, list_records, name_machine, save_record
from drawbridge.trial import deployment, hosts, removal, routed, run
from drawbridge.trial.admin import list_admin_addresses
from drawbridge.trial.deployment import adapt_to_lab, choose_clients
from drawbridge.trial.hosts import public_address
from drawbridge.trial.routed import list_pairs
from drawbridge.trial.run import TRIALS, StackFile, trials_of
from engine.engine import EngineError
from lab.errors import LabError
from lab.region import Region
from settings.model import Client, Settings
from settings.parse import parse
from settings.stack_file import read_stack_file

_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
CLIENTS = ["clients", "administrator", "routed network"]
SEGMENT = ["clients", "administrator", "segment", "VPC from the segment"]


def settings_of(stack: str) -> Settings:
    return parse(read_stack_file(find_stack_file(stack)), stack=stack, endpoint="http://127.0.0.1")


@pytest.mark.parametrize(
    ("stack", "features"),
    [
        ("bonded", ["bonded hosts"]),
        ("bridge", SEGMENT),
        ("ipv6", ["clients", "administrator", "IPv6", "segment", "VPC from the segment"]),
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


def test_clients_that_are_left_out_are_counted_before_anything_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("lab").model_copy(update={"clients": clients_of(*({"name": f"c{n}"} for n in range(40)))})
    said = list[str]()

    def stop(*_: object) -> None:
        raise LabError("it would be deployed")

    monkeypatch.setattr(run, "adopt", stop)
    region: Any = SimpleNamespace(use_own_kernels=lambda own, progress=None: None)
    for clients in (12, 40):
        with pytest.raises(LabError):
            run.deploy_and_check(region, StackFile(Path("x"), settings, {}), said.append, clients=clients)
    assert said == [f"12 of 40 clients started: {', '.join(f'c{n}' for n in range(12))}"]


def test_a_client_stays_at_its_home_when_another_one_goes() -> None:
    """Homes are numbered by the order of the clients, and a client that runs has its home already."""
    settings = settings_of("lab").model_copy(update={"clients": clients_of(*({"name": name} for name in "abc"))})
    sites = [{"name": f"home-{name}", "public": f"203.0.113.{10 + number}"} for number, name in enumerate("abcd")]
    running = [{"name": name, "site": f"home-{name}"} for name in "abd"]
    region: Any = SimpleNamespace(status=lambda: {"sites": sites, "hosts": running})
    left = settings.model_copy(update={"clients": clients_of({"name": "a"}, {"name": "d"})})
    deployed = deployment.Deployment(region, left, {}, {})
    assert hosts.find_home(deployed, 1) == ("home-d", IPv4Address("203.0.113.13"))


@pytest.mark.parametrize(
    ("report", "figure"),
    [
        ({}, "not within 0 s: it has not reported"),
        ({"state": "pending", "reason": ""}, "not within 0 s: pending"),
        ({"state": "failed", "reason": "no space left"}, "not within 0 s: failed: no space left"),
    ],
)
def test_a_gateway_that_is_not_ready_says_what_it_reported(
    monkeypatch: pytest.MonkeyPatch, report: dict[str, str], figure: str
) -> None:
    monkeypatch.setattr(routed, "wait_report", lambda deployed, release, timeout: report)
    deployed = deployment.Deployment(cast(Region, None), settings_of("lab"), {"release": "abc"}, {})
    check = routed.check_release(deployed, timeout=0)
    assert (check.ok, check.figure) == (False, figure)


def test_a_gateway_s_time_counts_from_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients start before it is looked at."""
    monkeypatch.setattr(routed, "wait_report", lambda *_: {"state": "ready", "release": "abc"})
    region, ended = cast(Region, None), time.monotonic() - 3700
    deployed = deployment.Deployment(region, settings_of("lab"), {"release": "abc"}, {}, ended=ended)
    check = routed.check_release(deployed)
    assert check.ok and check.figure.startswith("ready 370")


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


def test_the_administrator_s_addresses_are_those_that_may_use_ssh() -> None:
    assert list_admin_addresses(settings_of("site")) == [IPv4Address("203.0.113.10")]
    addresses = list_admin_addresses(settings_of("lab"))
    assert IPv4Address("192.0.2.128") in addresses and IPv4Address("203.0.113.128") in addresses
    gateway = settings_of("lab").gateway.model_copy(update={"admin_from": ()})
    assert list_admin_addresses(settings_of("lab").model_copy(update={"gateway": gateway})) == []


def region_of(directory: Path) -> Region:
    return Region("lab", directory, 4700, "token", {})


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (
            "aws:ec2/subnet:Subnet private: DependencyViolation: The subnet 'subnet-1' has dependencies and cannot be "
            "deleted.",
            "first terminate the instances and delete the network interfaces that you made there",
        ),
        ("aws:ec2/subnet:Subnet private: InternalError", "drawbridge lab down"),
    ],
)
def test_a_failed_removal_keeps_the_record_and_names_the_remedy(
    failure: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise EngineError(failure)

    directory, record = region_of(tmp_path), StackRecord(stack="lab")
    save_record(directory, record)
    (directory.stacks / "lab.json").touch()
    region: Any = SimpleNamespace(
        directory=directory.directory, stacks=directory.stacks, status=lambda: {"hosts": [], "sites": []}
    )
    deployed: Any = SimpleNamespace(
        region=region, settings=settings_of("lab"), record=record, client=lambda service: None,
        environment=contextlib.nullcontext,
    )  # fmt: skip
    monkeypatch.setattr(removal, "load_deployment", lambda region, stack: deployed)
    monkeypatch.setattr(removal, "create_engine", lambda *_: SimpleNamespace(destroy=fail))
    with pytest.raises(errors.DeploymentError, match=re.escape(failure)) as failed:
        removal.destroy_stack(region, "lab", lambda _: None)
    assert remedy in failed.value.remedy
    assert list_records(directory) == [record]


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


def test_a_client_may_have_the_name_of_one_of_the_lab_s_own_machines(tmp_path: Path) -> None:
    """The lab's own machine gets another name; one that stacks share keeps it, and the client's gets the other."""
    names = ("private-host", "admin", "stranger", "home-hidden", "private-host-lab", "alice")
    site: dict[str, object] = {"name": "home", "lan": ["192.168.1.0/24"], "at": "203.0.113.10"}
    clients = clients_of(site, *({"name": name} for name in names))
    settings = settings_of("lab").model_copy(update={"clients": clients})
    region, record = region_of(tmp_path), StackRecord(stack="lab")
    deployed = deployment.Deployment(region, settings, {}, {}, record=record)
    own = [deployment.name_own_machine(settings, name) for name in ("private-host", "admin")]
    started = [deployed.name_machine(name) for name in (*own, *names, *hosts.site_hosts(settings, clients[0]))]
    started.append(deployed.share_machine("stranger"))
    assert len({*started}) == len(started) == len(record.machines)
    assert [record.machine(name) for name in names] == [
        name if name != "stranger" else "stranger-lab" for name in names
    ]
    assert (own[0], started[-1]) == ("private-host-lab-lab", "stranger")


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


@pytest.mark.parametrize("kit", [False, True])
def test_a_machine_gets_its_bundle_again_only_if_that_has_changed(
    kit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = ["first"]
    done: list[str] = []
    monkeypatch.setattr(hosts, "read_stored_bundle", lambda account, names, name: stored[-1])
    monkeypatch.setattr(hosts, "install_kit", lambda deployed, host, name: done.append("kit"))
    monkeypatch.setattr(hosts, "run_checked", lambda host, *argv: done.append(" ".join(argv)))
    monkeypatch.setattr(hosts, "fetch_bundle", lambda deployed, host, name: done.append(f"fetch {stored[-1]}"))
    monkeypatch.setattr(hosts, "_give_credentials", lambda deployed, host, name: None)
    record = StackRecord(stack="lab", bundles={"alice": hashlib.sha256(b"first").hexdigest()})
    settings = settings_of("lab")
    deployed: Any = SimpleNamespace(
        account=None, names=None, record=record, region=region_of(tmp_path), settings=settings
    )
    host: Any = SimpleNamespace(wait_booted=lambda: None)
    section = {"name": "alice", **({"at": "203.0.113.10"} if kit else {})}
    (client,) = clients_of(section)
    hosts.renew_bundle(deployed, host, client)
    assert done == []
    stored.append("second")
    hosts.renew_bundle(deployed, host, client)
    assert done == (["kit"] if kit else ["fetch second", "systemctl restart openvpn-client@alice"])
    hosts.renew_bundle(deployed, host, client)
    assert len(done) == (1 if kit else 2)


def test_a_quota_s_refusal_says_how_to_make_room_in_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    region = region_of(tmp_path)
    for name in ("operator", "operator.pub"):
        (tmp_path / name).write_text(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"
        )

    def refuse(**_: object) -> None:
        raise pulumi.RunError("drawbridge:network: needs 1 new VPC, but the account's quota is 5")

    engine = SimpleNamespace(up=refuse)
    monkeypatch.setattr(deployment, "create_engine", lambda region, stack, config, progress: engine)
    with pytest.raises(errors.StackError) as refusal:
        deployment.deploy(region, "lab", read_stack_file(find_stack_file("lab")), lambda _: None)
    assert "drawbridge lab destroy STACK" in refusal.value.remedy


def test_a_warning_of_the_program_is_shown_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr(deployment, "Engine", lambda *_, events, **__: events)
    tell = deployment.create_engine(region_of(tmp_path), "lab", {}, said.append)
    for kind in ("warning", "error", "created"):
        tell(SimpleNamespace(kind=kind, text=f"the {kind}"))
    assert said == ["warning: the warning", "the error"]


def test_a_client_that_does_not_start_is_a_failed_check_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("tenant")
    region: Any = SimpleNamespace(host=lambda name: SimpleNamespace(wait_booted=lambda: None))
    deployed = deployment.Deployment(region, settings, {}, {})

    def start(deployed: object, number: int, name: str) -> None:
        if name == "engineer":
            raise LabError("on engineer, `systemctl` failed")

    monkeypatch.setattr(hosts, "start_private_host", lambda deployed: "private-host")
    monkeypatch.setattr(hosts, "start_echo", lambda host: None)
    monkeypatch.setattr(hosts, "start_client", start)
    with pytest.raises(LabError):
        hosts.place_hosts(deployed, lambda _: None)
    failures = dict[str, str]()
    hosts.place_hosts(deployed, lambda _: None, failures=failures)
    assert failures == {"engineer": "on engineer, `systemctl` failed"}
    assert [client.name for client in deployed.clients] == ["ci-job"]
