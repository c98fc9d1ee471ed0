"""Each command about clients and gateways when AWS denies a call, a name or a bundle is wrong, or two operators work.

`COMMANDS` has a row for every command, so that one that is added without a row fails. AWS's refusals are in its own
words. Does not prove which permissions the policies grant: tests/program/test_policies.py does.
"""

import errno
import json
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from drawbridge import errors
from drawbridge.commands.client import client as client_group
from drawbridge.commands.gateway import gateway as gateway_group
from drawbridge.commands.root import cli
from drawbridge.doctor import path_reader
from drawbridge.operate import bundle_probe, private_files, renewals, rotations, ssh_login, stack_files
from drawbridge.operate.account import POLICIES, Account, translate_aws_errors
from drawbridge.operate.stack_file_lock import lock_stack_file
from openvpn.bundle import render_bundle
from pki import tls_crypt
from pki.authority import CertificateAuthority

from .conftest import REGION, STACK

NOW = datetime.now(UTC)

#: Arguments of every command; NAME stands for a client, and FILE for a bundle's file.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "client fetch": ("NAME", "--force"),
    "client history": ("NAME",),
    "client kit": ("NAME",),
    "client link": ("NAME",),
    "client list": ("--revoked", "--no-login"),
    "client renew": ("NAME",),
    "client rotate": ("NAME",),
    "client show": ("NAME", "--no-login"),
    "gateway doctor": ("NAME", "--bundle", "FILE"),
    "gateway logs": (),
    "gateway probe": ("FILE",),
    "gateway retry": (),
    "gateway rotate": (),
    "gateway status": (),
}

#: A client whose bundle is in S3; all others have theirs in SSM.
IN_S3 = "phone"


def test_every_command_has_its_row() -> None:
    groups = {"client": client_group, "gateway": gateway_group}
    assert {f"{name} {command}" for name, group in groups.items() for command in group.commands} == {*COMMANDS}


@dataclass
class World:
    """A deployed stack whose clients are in every state, and the operator's directory."""

    account: Account
    directory: Path

    @property
    def stack_file(self) -> Path:
        return self.directory / f"Pulumi.{STACK}.yaml"

    def run(self, command: str, name: str = "alice") -> Result:
        """Run a command of the table about a client."""
        words = {"NAME": name, "FILE": str(self.directory / f"{name}.ovpn")}
        arguments = [words.get(argument, argument) for argument in COMMANDS[command]]
        return CliRunner().invoke(cli, [*command.split(), *arguments, "--stack", STACK])

    def files(self) -> dict[str, bytes]:
        """Return the content of each file of the directory."""
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


FILE = """\
config:
  aws:region: eu-west-1
  drawbridge:clients:
    - {name: alice}
    - {name: phone}
    - {name: ended}
    - {name: pending}
    - {name: torn}
"""

PROFILE = "client\nproto udp\nremote 127.0.0.1 9\nverify-x509-name gateway name\n"


@pytest.fixture
def world(account: Account, authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    (tmp_path / f"Pulumi.{STACK}.yaml").write_text(FILE)
    world = World(account, tmp_path)
    ssm, s3, logs = account.client("ssm"), account.client("s3"), account.client("logs")
    names = account.names
    key = tls_crypt.client_key(tls_crypt.server_key())
    for name in ("alice", IN_S3, "ended", "torn"):
        issued, lifetime = (NOW - timedelta(days=9), 8) if name == "ended" else (NOW, 365)
        leaf = authority.issue_client(name, timedelta(days=lifetime), issued)
        bundle = render_bundle(PROFILE, authority.certificate, leaf.certificate, leaf.key, key)
        if name == "torn":
            bundle = bundle[: bundle.index("<key>") + 20]
        (tmp_path / f"{name}.ovpn").write_text(bundle)
        if name != IN_S3:
            ssm.put_parameter(Name=names.bundle(name), Value=bundle, Type="SecureString")
            continue
        bucket = names.bundles_bucket("123456789012", REGION)
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=bucket, Key=names.bundle_key(name), Body=bundle)
    entry = {
        "client": "gone",
        "notAfter": (NOW + timedelta(days=9)).isoformat(),
        "revoked": (NOW - timedelta(days=1)).isoformat(),
    }
    parameters = {
        f"{names.issued}/page-0": json.dumps({"7": entry}),
        names.release: json.dumps({"bucket": bucket, "key": "k", "sha256": "ab" * 32}),
        names.kit_digest("alice"): sha256(b"kit").hexdigest(),
        names.ssh_host_key: "ssh-ed25519 AAAA",
        names.report: json.dumps({"state": "ready", "release": "ab" * 32, "time": NOW.isoformat()}),
    }
    for parameter, value in parameters.items():
        ssm.put_parameter(Name=parameter, Value=value, Type="String")
    s3.put_object(Bucket=bucket, Key=names.kit_key("alice"), Body=b"kit")
    logs.create_log_group(logGroupName=names.connections)
    ec2 = account.client("ec2")
    address = ec2.allocate_address(Domain="vpc")
    tags = [{"Key": key, "Value": value} for key, value in names.tags("gateway").items()]
    ec2.create_tags(Resources=[address["AllocationId"]], Tags=tags)

    def refuse_login(target: ssh_login.SshTarget) -> None:
        raise errors.UnreachableError(f"no connection to {target.host}", "is it up?")

    silence = bundle_probe.Verdict(
        state="unanswered", remote="127.0.0.1 udp 9", finding="the port is silent", remedy="ask AWS", seconds=0.0
    )
    monkeypatch.setattr(ssh_login, "connect", refuse_login)
    monkeypatch.setattr(bundle_probe, "probe_from", lambda *_: silence)
    return world


# --- AWS denies a call ------------------------------------------------------------------------------------------------

ENTITY = "arn:aws:iam::123456789012:user/operator"
#: Actions that operations of S3 are called, where the names differ.
S3_ACTIONS = {"ListObjectsV2": "ListBucket"}


def refuse(service: str, operation: str) -> tuple[str, ClientError]:
    """Return an action, and AWS's refusal of it in the service's words."""
    action = f"{service}:{S3_ACTIONS.get(operation, operation) if service == 's3' else operation}"
    reason = f"{ENTITY} is not authorized to perform: {action}"
    because = f"because no identity-based policy allows the {action} action"
    match service:
        case "ec2":
            code = "UnauthorizedOperation"
            message = (
                f"You are not authorized to perform this operation. User: {reason} {because}. Encoded authorization "
                f"failure message: {'Ab3_' * 200}"
            )
        case "s3":
            code, message = "AccessDenied", f'User: {reason} on resource: "arn:aws:s3:::drawbridge-x" {because}'
        case "cloudwatch":
            code, message = "AccessDenied", f"User: {reason} on resource: * {because}"
        case _:
            code, message = "AccessDeniedException", f"User: {reason} on resource: arn:aws:{service}:::x {because}"
    return action, ClientError({"Error": {"Code": code, "Message": message}}, operation)


class ApiCalls:
    """Records boto3's calls, and has AWS refuse one operation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, str]] = []
        self.refusals: dict[tuple[str, str], ClientError] = {}
        send = BaseClient._make_api_call  # type: ignore[attr-defined]

        def call(client: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
            call = str(client.meta.service_model.service_name), operation
            self.made.append(call)
            if call in self.refusals:
                raise self.refusals[call]
            return send(client, operation, parameters)

        monkeypatch.setattr(BaseClient, "_make_api_call", call)


@pytest.fixture
def calls(world: World, monkeypatch: pytest.MonkeyPatch) -> ApiCalls:
    return ApiCalls(monkeypatch)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_denied_call_is_one_error_that_names_the_action_and_the_policy(
    command: str, world: World, calls: ApiCalls
) -> None:
    name = IN_S3 if command in ("client fetch", "client link") else "alice"
    world.account.client("ssm").delete_parameter(Name=world.account.names.bundle("torn"))
    calls.made.clear()
    world.run(command, name)
    world.stack_file.write_text(FILE)
    # Who is known to AWS may always ask who it is.
    needed = sorted({call for call in calls.made if call[0] != "sts"})
    assert needed or command.endswith("rotate"), "the control: it calls AWS"
    for call in needed:
        before = world.files()
        action, error = refuse(*call)
        calls.refusals = {call: error}
        result = world.run(command, name)
        assert action in result.output, (call, result.output)
        assert "docs/policies/operator.json" in result.output, (call, result.output)
        assert "Ab3_" not in result.output, "AWS's encoded message says nothing to a person"
        if result.exit_code == 1 and not command.startswith(("gateway doctor", "gateway probe")):
            assert result.stderr.count("Error: ") == 1, result.stderr
            assert result.stdout == ""
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert world.files() == before


@pytest.mark.parametrize(
    ("code", "message", "action", "remedy"),
    [
        pytest.param(
            "AccessDeniedException",
            f"User: {ENTITY} is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k "
            "because no resource-based policy allows the kms:Decrypt action (Service: AWSKMS; Status Code: 400)",
            "kms:Decrypt",
            f"add {ENTITY} to drawbridge:secrets.users in the stack file, then: pulumi up --stack {STACK}",
            id="the stack's key decides who decrypts",
        ),
        pytest.param(
            "AccessDeniedException",
            f"User: {ENTITY} is not authorized to perform: ssm:GetParameter on resource: arn:aws:ssm:::parameter/x "
            "with an explicit deny in a service control policy",
            "ssm:GetParameter",
            "docs/policies/operator.json is not enough: ask the administrator of the account or organization",
            id="a policy of the organization denies it",
        ),
        pytest.param("AccessDenied", "Access Denied", "s3:GetObject", "docs/policies/operator.json", id="S3 says less"),
        pytest.param(
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
            "ec2:GetObject",
            "docs/policies/operator.json",
            id="EC2 says less",
        ),
    ],
)
def test_what_a_refusal_leaves_out_is_known_otherwise(code: str, message: str, action: str, remedy: str) -> None:
    with pytest.raises(errors.AccessDeniedError) as refused, translate_aws_errors(STACK):
        raise ClientError({"Error": {"Code": code, "Message": message}}, "GetObject")
    assert refused.value.permission == action
    assert action in str(refused.value)
    assert remedy in refused.value.remedy


def test_each_policy_that_a_remedy_names_exists() -> None:
    for policy in POLICIES:
        assert (stack_files.CHECKOUT / "docs" / "policies" / f"{policy}.json").is_file()


# --- names and bundles that are wrong ---------------------------------------------------------------------------------

MISSING = f"stack {STACK} has no client nobody"
PENDING = f"client pending is in Pulumi.{STACK}.yaml, but stack {STACK} has no bundle of it"
REVOKED = f"client gone of stack {STACK} was revoked on"
ENDED = "the certificate of ended ended on"
TORN = "the bundle of torn"
NOT_IN_FILE = "has no client"

#: What each command that takes a client's name says of a client in each state; an empty text: it does its work.
NAMES: Mapping[str, Mapping[str, str]] = {
    "client fetch": {"nobody": MISSING, "pending": PENDING, "gone": REVOKED, "ended": ENDED, "torn": TORN},
    "client history": {"nobody": MISSING, "pending": PENDING, "gone": REVOKED, "ended": "", "torn": ""},
    "client kit": {"nobody": MISSING, "pending": PENDING, "gone": REVOKED, "ended": "no kit for ended"},
    "client link": {"nobody": MISSING, "pending": PENDING, "gone": REVOKED, "ended": ENDED, "torn": TORN},
    "client renew": {
        "nobody": NOT_IN_FILE,
        "pending": "pending has no certificate yet",
        "gone": NOT_IN_FILE,
        "ended": "",
        "torn": TORN,
    },
    # The order is carried out by a deployment, which needs no bundle.
    "client rotate": {"nobody": NOT_IN_FILE, "pending": "", "gone": NOT_IN_FILE, "ended": "", "torn": ""},
    "client show": {"nobody": MISSING, "pending": PENDING, "gone": REVOKED, "ended": "", "torn": TORN},
}


def test_every_command_that_takes_a_name_says_what_is_wrong_with_it() -> None:
    takes_name = {name for name, arguments in COMMANDS.items() if "NAME" in arguments and "FILE" not in arguments}
    assert {*NAMES} == takes_name


@pytest.mark.parametrize("command", NAMES)
def test_a_client_in_a_state_that_a_command_cannot_use(command: str, world: World) -> None:
    before = world.files()
    for name, expected in NAMES[command].items():
        result = world.run(command, name)
        assert result.exit_code == (1 if expected else 0), (name, result.output)
        assert "BEGIN" not in result.output
        if expected:
            assert result.stdout == "" and result.stderr.count("Error: ") == 1
            assert expected in result.stderr and "\n  -> " in result.stderr, (name, result.stderr)
            assert world.files() == before
        world.stack_file.write_text(FILE)


def test_the_doctor_names_the_state_of_a_client(world: World) -> None:
    for name, breakage in (
        ("pending", "client-pending"),
        ("gone", "client-revoked"),
        ("ended", "certificate-ended"),
        ("alice", ""),
    ):
        result = CliRunner().invoke(cli, ["gateway", "doctor", name, "--no-probe", "--stack", STACK])
        assert isinstance(result.exception, SystemExit), result.exception
        named = {word for word in ("client-pending", "client-revoked", "certificate-ended") if word in result.output}
        assert named == ({breakage} if breakage else set())


def test_a_half_written_bundle_is_one_clear_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_probe, "probe_from", lambda _, bundle: bundle_probe.probe_bundle(bundle))
    for arguments in (
        ("client", "list", "--no-login"),
        ("gateway", "doctor", "torn"),
        ("gateway", "doctor", "torn", "--bundle", "torn.ovpn"),
        ("gateway", "doctor", "alice", "--bundle", "torn.ovpn"),
        ("gateway", "probe", "torn.ovpn"),
    ):
        result = CliRunner().invoke(cli, [*arguments, "--stack", STACK])
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
        assert result.stderr.count("Error: ") == 1, (arguments, result.output)
        assert "damaged" in result.stderr or "is not a bundle" in result.stderr
        assert "BEGIN" not in result.output


def test_a_probe_says_that_the_stack_s_copy_of_a_bundle_is_damaged(
    world: World, authority: CertificateAuthority
) -> None:
    leaf = authority.issue_client("torn", timedelta(days=9), NOW)
    key = tls_crypt.client_key(tls_crypt.server_key())
    bundle = render_bundle(PROFILE, authority.certificate, leaf.certificate, leaf.key, key)
    (world.directory / "torn.ovpn").write_text(bundle)
    result = world.run("gateway probe", "torn")
    assert "the bundle of torn in stack team is damaged" in result.stdout
    assert f"deploy again: pulumi up --stack {STACK}" in result.stdout


def test_a_bundle_that_ends_anywhere_is_refused_and_not_shown(world: World) -> None:
    bundle = (world.directory / "alice.ovpn").read_text()
    torn = world.directory / "cut.ovpn"
    for length in range(0, len(bundle.rstrip()) - 1, 97):
        torn.write_text(bundle[:length])
        with pytest.raises(errors.BundleFileError, match="this is not a bundle") as refused:
            bundle_probe.probe_bundle(bundle_probe.read_bundle(torn))
        assert "BEGIN" not in str(refused.value)
        with pytest.raises(errors.BundleFileError, match="damaged"):
            path_reader._describe_client("alice", bundle[:length], is_current=True)


def test_one_client_s_damaged_bundle_does_not_stop_commands_about_another(world: World) -> None:
    for command in ("client renew", "client history", "client show", "client fetch"):
        result = world.run(command, "alice")
        assert result.exit_code == 0, result.output


# --- two operators at once --------------------------------------------------------------------------------------------

#: Commands that change the stack file, with the clients that two operators name, and the section that both write.
ORDERS: Mapping[str, tuple[tuple[str, str], str]] = {
    "client renew": (("alice", "ended"), "renewals"),
    "client rotate": (("alice", IN_S3), "clients"),
    "gateway rotate": (("alice", "alice"), "gateway"),
}
#: Commands that write other files.
WRITES = ("client fetch",)


def test_every_command_that_writes_a_file_is_run_twice_at_once(world: World) -> None:
    for command in COMMANDS:
        world.stack_file.write_text(FILE)
        before = {**world.files(), "alice.ovpn": b"another"}
        (world.directory / "alice.ovpn").write_bytes(b"another") if command in WRITES else None
        world.run(command)
        changed = {name for name, content in world.files().items() if content != before.get(name)} - {"alice.ovpn"}
        assert changed == ({world.stack_file.name} if command in ORDERS else set()), command


class Operator(threading.Thread):
    """Runs a command beside another one."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self.arguments = [*arguments, "--stack", STACK]
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            cli.main(self.arguments, "drawbridge", standalone_mode=False)
        except BaseException as error:
            self.error = error


@pytest.mark.parametrize("command", ORDERS)
def test_two_operators_who_change_one_stack_file_lose_nothing(
    command: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one starts when the first has read the file, and has not written it yet."""
    clients, section = ORDERS[command]
    first, second = (
        Operator(*command.split(), *(client for argument in COMMANDS[command] if argument == "NAME"))
        for client in clients
    )
    write, written = rotations.write_value, list[Any]()

    def write_late(stack_file: Path, keys: tuple[str, ...], value: Any) -> None:
        if threading.current_thread() is first:
            second.start()
            second.join(0.5)
        write(stack_file, keys, value)
        written.append(value)

    monkeypatch.setattr(rotations, "write_value", write_late)
    monkeypatch.setattr(renewals, "write_value", write_late)
    for operator in (first, second):
        operator.start() if operator is first else None
        operator.join(30)
    assert (first.error, second.error) == (None, None)
    ordered = yaml.safe_load(world.stack_file.read_text())["config"]["drawbridge:rotations"][section]
    if command == "gateway rotate":
        assert ordered == written[-1] > written[0], "a deployment in between has carried out the first one"
    else:
        assert ordered.keys() == {*clients}


def test_an_operator_who_would_wait_for_ever_is_told(world: World) -> None:
    with (
        lock_stack_file(world.stack_file),
        pytest.raises(errors.StackError, match=f"another drawbridge command is changing {world.stack_file}"),
        lock_stack_file(world.stack_file, wait=0),
    ):
        pass
    with lock_stack_file(world.stack_file, wait=0), lock_stack_file(world.directory / "Pulumi.none.yaml", wait=0):
        pass


def test_a_deployment_reads_the_file_before_or_after_a_change(world: World) -> None:
    operators = [Operator("client", "rotate", client) for client in ("alice", IN_S3, "ended", "torn")]
    for operator in operators:
        operator.start()
    while any(operator.is_alive() for operator in operators):
        assert len(rotations.read_settings(STACK).clients) == 5
    assert [operator.error for operator in operators] == [None] * 4
    assert len(rotations.read_settings(STACK).rotations.clients) == 4


@pytest.mark.parametrize("force", [False, True], ids=["a new file", "--force"])
def test_two_operators_who_fetch_into_one_file_have_a_whole_bundle(
    force: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["client", "fetch", "alice", "-o", "one.ovpn", *(["--force"] if force else [])]
    first, second = Operator(*arguments), Operator(*arguments)
    create = tempfile.mkstemp

    def create_late(*positional: Any, **named: Any) -> tuple[int, str]:
        if threading.current_thread() is first:
            second.start()
            second.join(30)
        return create(*positional, **named)

    before = world.files()
    monkeypatch.setattr(tempfile, "mkstemp", create_late)
    first.start()
    first.join(30)
    assert second.error is None
    assert (first.error is None) == force
    if not force:
        assert isinstance(first.error, click.ClickException) and "one.ovpn already exists" in first.error.message
    assert world.files() == {**before, "one.ovpn": before["alice.ovpn"]}


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_of_three_files_all_are_written_or_none(failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, created = tempfile.mkstemp, list[str]()

    def fail(*positional: Any, **named: Any) -> tuple[int, str]:
        created.append("")
        if len(created) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(*positional, **named)

    monkeypatch.setattr(tempfile, "mkstemp", fail)
    contents = {tmp_path / name: b"text" for name in ("office.ovpn", "office-up.cmd", "office-down.cmd")}
    with pytest.raises(OSError, match="No space left"):
        private_files.write_private_files(contents)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "office-down.cmd").write_text("former")
    with pytest.raises(FileExistsError) as refused:
        private_files.write_private_files(contents)
    assert Path(refused.value.filename).name == "office-down.cmd"
    assert [path.name for path in tmp_path.iterdir()] == ["office-down.cmd"]
