"""`drawbridge stack new`: the file that it writes, and the claims by which no two stacks have the same ranges."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from click.testing import CliRunner, Result

import contract
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import address_pools, claims, stack_creation
from drawbridge.operate.account import WRITE_CONFIG, Account
from drawbridge.operate.stack_creation import StackRequest
from drawbridge.operate.stack_files import CHECKOUT
from lab.api import moto_state
from lab.api.validation.validator import Validator
from settings.checks.overlaps import list_ranges
from settings.model import Settings
from settings.parse import parse
from settings.stack_file import read_stack_file
from tests.support.ipam import create_pool, list_allocations
from tests.support.lab_api import REGION, serve_lab_api

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@example"
NOW = datetime.now(UTC)

Write = Callable[..., Settings]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Pulumi project of one's own, as the working directory."""
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    # Reading the checkout's own files at each creation would take most of the tests' time.
    monkeypatch.setattr(
        stack_creation, "list_stacks", lambda: [path.suffixes[0][1:] for path in tmp_path.glob("Pulumi.*.yaml")]
    )
    return tmp_path


@pytest.fixture
def single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make AWS's calls one after the other: moto in this process does not expect several threads."""
    lock, call = threading.Lock(), BaseClient._make_api_call  # type: ignore[attr-defined]

    def call_alone(*arguments: Any) -> Any:
        with lock:
            return call(*arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call_alone)


def world(name: str) -> Path:
    return CHECKOUT / "stacks" / f"Pulumi.{name}.yaml"


def request(name: str, source: str = "ros2", *, end: datetime | None = None, pool: str | None = None) -> StackRequest:
    return StackRequest(
        name=name, source=world(source), owner="ann", end=end, region=None, ssh_key=None, admin_from=(), pool=pool
    )


def read(path: Path) -> Settings:
    return parse(read_stack_file(path), stack=path.stem.removeprefix("Pulumi."), endpoint="http://127.0.0.1")


def ranges(settings: Settings) -> list[IPv4Network]:
    return [network for _, network in list_ranges(settings.network, settings.pair, settings.tunnel, {})]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["stack", "new", *arguments])


@pytest.mark.parametrize("source", sorted(path.suffixes[0][1:] for path in CHECKOUT.glob("stacks/Pulumi.*.yaml")))
def test_every_world_is_copied_with_ranges_of_its_own(source: str, account: Account, project: Path) -> None:
    created = stack_creation.create_stack(account, request("dev", source))
    former, settings = read(world(source)), read(created.path)
    ours = [network for claim in created.claims[1:] for number in [int(claim.subject.partition("/")[2])]
            for network in (stack_creation.vpc_range(number), stack_creation.tunnel_range(number))]  # fmt: skip
    bridged = any(client.bridge for client in settings.clients)
    for network in ranges(settings):
        assert any(network.subnet_of(range_) for range_ in ours) or (bridged and network == former.tunnel.pool)
    assert [(client.name, client.lan) for client in settings.clients] == [
        (client.name, client.lan) for client in former.clients
    ]
    assert [network.prefixlen for network in ranges(settings)] == [network.prefixlen for network in ranges(former)]
    # Comments stay.
    comments = [line for line in world(source).read_text().splitlines() if line.startswith("#")]
    assert [line for line in created.path.read_text().splitlines() if line.startswith("#")] == comments


def test_fixed_addresses_move_with_the_pool(account: Account, project: Path) -> None:
    settings = stack_creation.create_stack(account, request("dev", "tenant")).settings
    hosts = [
        int(client.address) - int(settings.tunnel.pool.network_address) for client in settings.clients if client.address
    ]
    assert hosts == [10, 11]


@pytest.mark.usefixtures("single_calls")
def test_twenty_at_once_have_no_range_in_common(account: Account, project: Path) -> None:
    sources = ["ros2", "pair", "tenant", "lab"] * 5
    with ThreadPoolExecutor(20) as pool:
        created = list(
            pool.map(lambda n: stack_creation.create_stack(account, request(f"job-{n}", sources[n])), range(20))
        )
    settings = [entry.settings for entry in created]
    assert len({entry.path for entry in created}) == 20
    for one, two in combinations(settings, 2):
        assert not any(a.overlaps(b) for a in ranges(one) for b in ranges(two)), (one.stack, two.stack)
    # A pair has two VPCs.
    assert len(claims.list_claims(account)) == 20 + 20 + 5


def test_jobs_at_once_wait_for_ssm_which_takes_few_parameters_a_second(project: Path) -> None:
    with serve_lab_api(Validator()) as api:
        keys = api.create_user("ann", json.dumps(moto_state.ADMINISTRATOR_POLICY))
        session: Any = boto3.Session(**keys, region_name=REGION)  # type: ignore[arg-type]
        accounts = [Account(stack=f"job-{n}", session=session, endpoint=api.endpoint) for n in range(12)]
        for account in accounts:
            account.client("ssm", WRITE_CONFIG)  # a session creates clients for one thread at a time only

        def create(account: Account) -> bool:
            subjects = [f"stack/{account.stack}", f"range/{account.stack.removeprefix('job-')}"]
            return all(claims.claim_subject(account, name, account.stack, "ann", None, lambda _: False)
                       for name in subjects)  # fmt: skip

        with ThreadPoolExecutor(len(accounts)) as pool:
            assert all(pool.map(create, accounts))


def test_twenty_at_once_with_one_name_are_one_stack(account: Account, tmp_path: Path, project: Path) -> None:

    def create(number: int) -> bool:
        claim = claims.claim_subject(account, "stack/dev", "dev", f"job-{number}", None, lambda _: False)
        return claim is not None

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(create, range(20))) == 1


def test_twenty_at_once_that_find_an_abandoned_claim_are_one_stack(account: Account) -> None:
    past = NOW - timedelta(hours=1)
    assert claims.claim_subject(account, "range/16", "old", "bob", past, lambda _: False)

    def create(number: int) -> bool:
        return claims.claim_subject(account, "range/16", f"job-{number}", "ann", None,
                                    lambda claim: claim.is_past(NOW)) is not None  # fmt: skip

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(create, range(20))) == 1
    (claim,) = claims.list_claims(account)
    assert (claim.generation, claim.owner) == (2, "ann")


def test_a_claim_is_abandoned_only_past_its_end_and_without_a_deployed_stack(account: Account, project: Path) -> None:
    past = NOW - timedelta(hours=1)
    stack_creation.create_stack(account, request("dev", end=NOW + timedelta(hours=1))).path.unlink()
    with pytest.raises(errors.StackError, match="the name dev is already claimed by ann until 2"):
        stack_creation.create_stack(account, request("dev"))
    stack_creation.create_stack(account, request("old", end=past)).path.unlink()
    ssm = account.client("ssm")
    ssm.put_parameter(Name=contract.Names("old").owner, Value="x", Type="String")
    with pytest.raises(errors.StackError, match="the name old is already claimed"):
        stack_creation.create_stack(account, request("old"))
    ssm.delete_parameter(Name=contract.Names("old").owner)
    created = stack_creation.create_stack(account, request("old"))
    assert {claim.stack for claim in claims.list_claims(account)} == {"dev", "old"}
    assert created.claims[0].generation == 2


def test_ranges_of_vpcs_routes_and_other_files_are_avoided(
    account: Account, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_creation, "LAST_NUMBER", 20)
    ec2 = account.client("ec2")
    ec2.create_vpc(CidrBlock="10.16.128.0/24")
    vpc = ec2.create_vpc(CidrBlock="10.200.0.0/16")["Vpc"]["VpcId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.145.3.0/24", GatewayId=gateway)
    (project / "Pulumi.mine.yaml").write_text("config: {aws:region: eu-west-1, network: {cidr: 10.18.0.0/16}}")
    numbers = {stack_creation.create_stack(account, request(name)).claims[1].subject for name in ("one", "two")}
    assert numbers == {"range/19", "range/20"}
    with pytest.raises(errors.StackError, match=r"no range of 10\.0\.0\.0/8 is free for stack three"):
        stack_creation.create_stack(account, request("three"))
    assert "three" not in {claim.stack for claim in claims.list_claims(account)}
    assert not (project / "Pulumi.three.yaml").exists()


def test_the_file_names_owner_and_end_as_tags_of_every_resource(account: Account, project: Path) -> None:
    result = run(
        "dev", "--from", "lab", "--ttl", "4h", "--ssh-key", KEY, "--admin-from", "203.0.113.7", "--owner", "ci"
    )
    assert result.exit_code == 0, result.output
    config = read_stack_file(project / "Pulumi.dev.yaml")
    tags = config["aws:defaultTags"]["tags"]
    assert tags["DrawbridgeOwner"] == "ci"
    end = datetime.fromisoformat(tags["DrawbridgeEnd"])
    assert timedelta(hours=3, minutes=55) < end - datetime.now(UTC) <= timedelta(hours=4)
    assert config["drawbridge:gateway"]["sshKey"] == KEY
    assert config["drawbridge:gateway"]["adminFrom"] == ["203.0.113.7/32"]
    assert stack_creation.read_end(config) == end
    assert "deploy it: drawbridge stack up dev" in result.output
    assert json.loads(account.parameter("/drawbridge/_claims/stack/dev/1"))["owner"] == "ci"


def test_without_a_terminal_it_names_the_options_that_it_needs(account: Account, project: Path) -> None:
    result = run("dev")
    assert result.exit_code == 1
    assert "--ssh-key and --admin-from must be given" in result.output
    assert "--no-ssh" in result.output
    assert claims.list_claims(account) == []


def test_no_ssh_needs_nothing_else(account: Account, project: Path) -> None:
    assert run("dev", "--no-ssh").exit_code == 0
    settings = read(project / "Pulumi.dev.yaml")
    assert (settings.gateway.admin_from, settings.gateway.ssh_key) == ((), None)


def test_on_a_terminal_it_asks(account: Account, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drawbridge.commands.stack_new._is_terminal", lambda: True)
    key = project / "key.pub"
    key.write_text(KEY + "\n")
    result = CliRunner().invoke(cli, ["stack", "new", "dev"], input=f"{key}\n203.0.113.7, 198.51.100.0/24\n")
    assert result.exit_code == 0, result.output
    gateway = read(project / "Pulumi.dev.yaml").gateway
    assert gateway.ssh_key == KEY
    assert list(map(str, gateway.admin_from)) == ["203.0.113.7/32", "198.51.100.0/24"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("Dev", "--no-ssh"), "Dev is not a valid stack name"),
        (("lab", "--no-ssh"), "stack lab is that of the region on this machine"),
        (("dev", "--no-ssh", "--from", "nowhere"), "does not exist; stacks that have a file"),
        (("dev", "--no-ssh", "--ttl", "soon"), "soon is not a period"),
        (("dev", "--no-ssh", "--ssh-key", KEY), "--no-ssh cannot be combined"),
        (("dev", "--ssh-key", "ssh-ed25519 AAAA", "--admin-from", "203.0.113.7"), "not the one line of a public key"),
        (("dev", "--ssh-key", KEY, "--admin-from", "203.0.113.7/8"), "203.0.113.7/8 is not a valid IPv4 range"),
    ],
)
def test_wrong_arguments_claim_nothing(
    arguments: tuple[str, ...], reason: str, account: Account, project: Path
) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert reason in result.output
    assert claims.list_claims(account) == []
    assert list(project.glob("Pulumi.*.yaml")) == []


def test_a_file_that_exists_stays(account: Account, project: Path) -> None:
    (project / "Pulumi.dev.yaml").write_text("mine")
    result = run("dev", "--no-ssh")
    assert "already exists" in result.output
    assert (project / "Pulumi.dev.yaml").read_text() == "mine"
    assert claims.list_claims(account) == []


def test_a_file_that_cannot_be_written_releases_its_claims(
    account: Account, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack_creation, "_write_new_file", refuse)
    with pytest.raises(KeyboardInterrupt):
        stack_creation.create_stack(account, request("dev"))
    assert claims.list_claims(account) == []


def test_the_owner_is_the_caller(account: Account) -> None:
    assert stack_creation.find_owner(account) == "moto"


TAGS = {"Drawbridge": "vpc"}


def test_vpcs_get_ranges_of_the_pool_with_the_tag(account: Account, project: Path) -> None:
    ec2 = account.client("ec2")
    pool = create_pool(ec2, "172.20.0.0/14", tags=TAGS)
    create_pool(ec2, "172.24.0.0/14", tags={"Drawbridge": "other"})
    create_pool(ec2, "2001:db8::/32", tags=TAGS, family="ipv6")
    create_pool(ec2, "203.0.113.0/24", tags=TAGS, scope="Public")
    create_pool(ec2, "172.28.0.0/14", tags=TAGS, locale="us-east-1")
    result = run("two", "--from", str(world("pair")), "--no-ssh")
    assert result.exit_code == 0, result.output
    assert pool in result.stdout
    settings = read(project / "Pulumi.two.yaml")
    vpcs = [str(vpc.cidr) for vpc in settings.vpcs]
    assert list_allocations(ec2, pool) == dict.fromkeys(vpcs, "drawbridge stack two")
    assert len(vpcs) == 2 and all(cidr.startswith("172.2") for cidr in vpcs)
    assert settings.tunnel.pool.subnet_of(IPv4Network("10.128.0.0/9"))


def test_without_a_pool_of_that_tag_the_range_is_claimed(account: Account, project: Path) -> None:
    create_pool(account.client("ec2"), "172.20.0.0/14")
    result = run("dev", "--no-ssh")
    assert (result.exit_code, result.stderr) == (0, "")
    assert read(project / "Pulumi.dev.yaml").network.cidr.subnet_of(IPv4Network("10.0.0.0/8"))


@pytest.mark.usefixtures("single_calls")
def test_twenty_at_once_with_and_without_a_pool_have_no_range_in_common(account: Account, project: Path) -> None:
    """The pool has all ranges that numbers stand for, of VPCs and of tunnels."""
    ec2 = account.client("ec2")
    pool = create_pool(ec2, "10.0.0.0/8")
    sources = ["ros2", "pair", "tenant", "lab"] * 5

    def create(n: int) -> stack_creation.NewStack:
        return stack_creation.create_stack(account, request(f"job-{n}", sources[n], pool=pool if n < 10 else None))

    with ThreadPoolExecutor(20) as executor:
        created = list(executor.map(create, range(20)))
    settings = [entry.settings for entry in created]
    for one, two in combinations(settings, 2):
        assert not any(a.overlaps(b) for a in ranges(one) for b in ranges(two)), (one.stack, two.stack)
    pooled = {str(vpc.cidr) for entry in settings[:10] for vpc in entry.vpcs}
    assert list_allocations(ec2, pool).keys() == pooled
    claims.release_claims(account, claims.list_claims(account))
    assert (list_allocations(ec2, pool), claims.list_claims(account)) == ({}, [])


def test_the_pool_s_ranges_that_are_in_use_are_not_given(account: Account, project: Path) -> None:
    ec2 = account.client("ec2")
    length = read(world("ros2")).network.cidr.prefixlen
    first, second = list(IPv4Network("172.16.0.0/12").subnets(new_prefix=length))[:2]
    pool = create_pool(ec2, str(first), str(second))
    ec2.create_vpc(CidrBlock=f"{first[0]}/28")
    created = stack_creation.create_stack(account, request("dev", pool=pool))
    assert created.settings.network.cidr == second
    with pytest.raises(errors.StackError, match=f"IPAM pool {pool} has no /{length} for stack more: The allocation"):
        stack_creation.create_stack(account, request("more", pool=pool))
    assert {claim.stack for claim in claims.list_claims(account)} == {"dev"}
    assert not (project / "Pulumi.more.yaml").exists()


def test_a_failed_creation_releases_its_allocation(
    account: Account, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = create_pool(account.client("ec2"), "172.20.0.0/14")

    def refuse(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stack_creation, "_write_new_file", refuse)
    with pytest.raises(KeyboardInterrupt):
        stack_creation.create_stack(account, request("dev", pool=pool))
    assert list_allocations(account.client("ec2"), pool) == {}


def test_a_name_s_abandoned_allocation_is_released(account: Account, project: Path) -> None:
    ec2 = account.client("ec2")
    pool = create_pool(ec2, "172.20.0.0/14")
    old = stack_creation.create_stack(account, request("dev", end=NOW - timedelta(hours=1), pool=pool))
    old.path.unlink()
    stack_creation.create_stack(account, request("dev"))
    assert list_allocations(ec2, pool) == {}


def test_an_allocation_that_the_pool_s_owner_released_is_no_error(account: Account, project: Path) -> None:
    ec2 = account.client("ec2")
    pool = create_pool(ec2, "172.20.0.0/14")
    created = stack_creation.create_stack(account, request("dev", pool=pool))
    allocation = next(claim.allocation for claim in created.claims if claim.allocation)
    ec2.release_ipam_pool_allocation(IpamPoolId=pool, IpamPoolAllocationId=allocation.id, Cidr=str(allocation.cidr))
    claims.release_claims(account, created.claims)
    assert claims.list_claims(account) == []


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ("pool-1", "pool-1 is not the ID of an IPAM pool"),
        ("ipam-pool-0123456789abcdef0", "there is no IPAM pool ipam-pool-0123456789abcdef0 in eu-west-1"),
        ({"family": "ipv6"}, "has no IPv4 ranges"),
        ({"scope": "Public"}, "is in a public scope"),
        ({"locale": "us-east-1"}, "has the locale us-east-1, not eu-west-1"),
    ],
)
def test_a_named_pool_that_cannot_be_used_is_refused(
    pool: str | dict[str, str], reason: str, account: Account, project: Path
) -> None:
    name = pool if isinstance(pool, str) else create_pool(account.client("ec2"), **pool)  # type: ignore[arg-type]
    result = run("dev", "--no-ssh", "--ipam-pool", name)
    assert (result.exit_code, reason in result.output) == (1, True), result.output
    assert claims.list_claims(account) == []
    assert list(project.glob("Pulumi.*.yaml")) == []


def test_of_several_pools_with_the_tag_one_must_be_named(account: Account, project: Path) -> None:
    first, second = sorted(create_pool(account.client("ec2"), "172.20.0.0/14", tags=TAGS) for _ in range(2))
    result = run("dev", "--no-ssh")
    assert (result.exit_code, f"have the tag Drawbridge: vpc: {first}, {second}" in result.output) == (1, True)
    assert run("dev", "--no-ssh", "--ipam-pool", second).exit_code == 0
    assert list_allocations(account.client("ec2"), first) == {}


def test_an_allocation_gives_way_to_a_number_that_was_claimed_meanwhile(
    account: Account, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = account.client("ec2")
    pool = create_pool(ec2, "10.144.0.0/15")
    allocate = address_pools.allocate_range

    def interrupt(*arguments: Any) -> claims.Allocation:
        allocation = allocate(*arguments)
        claims.claim_subject(account, "range/16", "other", "bob", None, lambda _: False)
        return allocation

    monkeypatch.setattr(stack_creation, "allocate_range", interrupt)
    created = stack_creation.create_stack(account, request("dev", pool=pool))
    assert str(created.settings.network.cidr) == "10.145.0.0/16"
    assert list_allocations(ec2, pool).keys() == {"10.145.0.0/16"}


def test_a_number_gives_way_to_a_range_that_was_allocated_meanwhile(
    account: Account, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = create_pool(account.client("ec2"), "10.16.0.0/16")
    monkeypatch.setattr(stack_creation, "LAST_NUMBER", 17)
    monkeypatch.setattr("random.shuffle", lambda numbers: None)
    claim = claims.claim_subject

    def interrupt(account: Account, subject: str, *arguments: Any) -> claims.Claim | None:
        if subject == "range/16":
            allocation = address_pools.allocate_range(account, pool, "other", 20, [])
            claims.claim_allocation(account, allocation, "other", "bob", None)
        return claim(account, subject, *arguments)

    monkeypatch.setattr(stack_creation, "claim_subject", interrupt)
    created = stack_creation.create_stack(account, request("dev"))
    assert str(created.settings.network.cidr) == "10.17.0.0/16"
    assert {entry.subject for entry in claims.list_claims(account) if entry.stack == "dev"} == {"stack/dev", "range/17"}
