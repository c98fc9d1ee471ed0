"""Back up an authority and restore it elsewhere, with the program's own provider on moto's SSM and S3.

Does not prove that packets reach the new gateway: other tests boot one.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result
from moto import mock_aws

import contract
from components import authority_provider
from components.register import IssuerError
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import stack_backup
from drawbridge.operate.account import Account
from drawbridge.operate.stack_backup import Backup, SavedParameter, restore_backup, take_backup
from openvpn import bundle as bundles
from pki import age, tls_crypt
from pki.authority import Certificate
from tests.support.issuing import create_certificates, order_certificates, update_certificates

STACK, FIRST, SECOND = "dev", "eu-west-1", "eu-central-1"
NAMES = contract.Names(STACK)
NOW = datetime(2026, 11, 28, 15, tzinfo=UTC)
PASSPHRASE = "six words that nobody can guess"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS in this process, and a cost of passphrases that tests can pay."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setattr(age.encrypt_file, "__kwdefaults__", {"work_factor": 4})
    with mock_aws():
        yield


@cache
def session(region: str) -> boto3.Session:
    """Return the session of all tests, which reads the services' models once."""
    return boto3.Session(region_name=region, aws_access_key_id="testing", aws_secret_access_key="testing")


def account(region: str = FIRST, stack: str = STACK) -> Account:
    return Account(stack=stack, session=session(region))


def parameters(region: str) -> dict[str, str]:
    return account(region).parameters(NAMES.root, secret=True)


def order(region: str = FIRST, *clients: str, **changes: Any) -> dict[str, Any]:
    """Return the inputs of the stack's certificates in a region, whose gateway has another address in each."""
    profile = f"client\nremote {'192.0.2.1' if region == FIRST else '203.0.113.1'} 1194\n"
    inputs = order_certificates(dict.fromkeys(clients or ("alice", "bob"), profile))
    return {**inputs, "region": region, "owner": f"deployment in {region}", **changes}


def deploy(region: str = FIRST, *clients: str, **changes: Any) -> dict[str, Any]:
    return create_certificates(order(region, *clients, **changes))


def restore(backup: Backup, region: str = SECOND) -> list[str]:
    return restore_backup(account(region), backup, lambda message: None)


@dataclass(frozen=True)
class Saved:
    """A stack in a region that is lost."""

    backup: Backup
    parameters: dict[str, str]


@pytest.fixture(scope="module")
def saved() -> Saved:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        with mock_aws():
            deploy()
            result = Saved(take_backup(account(), NOW), parameters(FIRST))
    return result


def without_owner(parameters: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if not name.endswith("/owner")}


def test_every_bundle_works_again_in_another_region() -> None:
    outs = deploy(FIRST, "alice", "bob", "carol")
    update_certificates(NAMES.root, outs, order(FIRST, "alice", "bob"))
    before = parameters(FIRST)
    written = restore(take_backup(account(), NOW))
    assert {*written} == before.keys() - {NAMES.owner}
    assert without_owner(parameters(SECOND)) == without_owner(before)

    moved = deploy(SECOND, "alice", "bob")
    after = parameters(SECOND)
    assert after[NAMES.owner] == "deployment in eu-central-1"
    assert after[NAMES.keys] == before[NAMES.keys]
    for name in contract.GATEWAY_SECRETS:
        assert after[NAMES.secret(name)] == before[NAMES.secret(name)]
    for client in ("alice", "bob"):
        old, new = before[NAMES.bundle(client)], after[NAMES.bundle(client)]
        assert (bundles.certificate_of(old), bundles.key_of(old)) == (bundles.certificate_of(new), bundles.key_of(new))
        serial = str(Certificate.read(bundles.certificate_of(old)).serial)
        assert tls_crypt.read_metadata(after[NAMES.secret("tls-crypt-v2.key")], bundles.tls_crypt_of(old)) == (
            serial.encode()
        )
        assert serial not in moved["revoked"]
        assert "remote 203.0.113.1" in new
    # The client that was removed before the backup stays revoked.
    assert [entry["client"] for entry in moved["revoked"].values()] == ["carol"]


def test_a_restored_stack_has_its_tags(saved: Saved) -> None:
    restore(saved.backup)
    ssm = account(SECOND).client("ssm")
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=NAMES.keys)["TagList"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == contract.tags(STACK)
    deploy(SECOND, tags={"CostCenter": "7"})
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=NAMES.keys)["TagList"]
    assert {"Key": "CostCenter", "Value": "7"} in tags


def test_bundles_come_from_s3_and_may_be_longer_than_a_parameter() -> None:
    bucket = NAMES.bundles_bucket("123456789012", FIRST)
    s3 = account().client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": FIRST})
    key = account().client("kms").create_key()["KeyMetadata"]["Arn"]
    profile = "# OpenVPN profile for dev.drawbridge on windows\n" + "pull-filter accept route\n" * 100
    deploy(profiles={"alice": profile}, bucket=bucket, key=key)
    backup = take_backup(account(), NOW)
    assert len(backup.gateways["a"]["clients/alice/bundle"].value) > stack_backup.PARAMETER_LIMIT
    restore(backup)
    stored = parameters(SECOND)[NAMES.bundle("alice")]
    assert len(stored) <= stack_backup.PARAMETER_LIMIT
    assert bundles.system_of(stored) == "windows"
    outs = deploy(SECOND, "alice")
    assert bundles.key_of(parameters(SECOND)[NAMES.bundle("alice")]) == bundles.key_of(stored)
    assert outs["revoked"] == {}


def test_both_gateways_of_a_pair_are_restored_or_none() -> None:
    for letter in contract.GATEWAYS:
        deploy(FIRST, "peer", end=letter if letter != "a" else None, serverName=contract.Names(STACK, letter).server)
    backup = take_backup(account(), NOW)
    assert [*backup.gateways] == ["a", "b"]
    before = parameters(FIRST)
    restore(backup)
    assert without_owner(parameters(SECOND)) == without_owner(before)


class CutOff(Exception):
    """The machine that restores is switched off."""


@pytest.mark.parametrize("number", [0, 1, 3, 9, 10])
def test_a_restore_that_was_cut_off_is_continued(number: int, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    put, count = stack_backup._ParameterWriter.put, 0

    def put_until_cut(self: Any, name: str, parameter: SavedParameter) -> None:
        nonlocal count
        if count == number:
            raise CutOff
        count += 1
        put(self, name, parameter)

    with monkeypatch.context() as patch:
        patch.setattr(stack_backup._ParameterWriter, "put", put_until_cut)
        with pytest.raises(CutOff):
            restore(saved.backup)
    if number:
        # A deployment before it is complete would create another authority.
        with pytest.raises(IssuerError, match=r"restored in part only; run `drawbridge stack restore FILE"):
            deploy(SECOND)
    restore(saved.backup)
    assert without_owner(parameters(SECOND)) == without_owner(saved.parameters)
    assert deploy(SECOND)["revoked"] == {}


def test_a_restore_of_a_complete_one_changes_nothing(saved: Saved) -> None:
    restore(saved.backup)
    assert restore(saved.backup) == []


def test_keys_that_were_lost_come_back_and_nothing_else_changes() -> None:
    deploy()
    backup, before = take_backup(account(), NOW), parameters(FIRST)
    account().client("ssm").delete_parameter(Name=NAMES.keys)
    assert restore(backup, FIRST) == [NAMES.keys]
    outs = deploy(FIRST, owner="deployment after the state was lost")
    assert without_owner(parameters(FIRST)) == without_owner(before)
    assert outs["revoked"] == {}


@pytest.mark.parametrize("same", [False, True])
def test_a_stack_that_has_an_authority_is_refused_and_stays_as_it_is(same: bool) -> None:
    deploy()
    backup = take_backup(account(), NOW)
    region = FIRST if same else SECOND
    if not same:
        deploy(SECOND)
    before = parameters(region)
    reason = "has this authority: a restore would take back" if same else "has another authority, whose clients"
    with pytest.raises(errors.BackupError, match=f"stack dev in {region} {reason}"):
        restore(backup, region)
    assert parameters(region) == before


def test_an_authority_that_was_renewed_since_the_backup_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    outs, later = deploy(), datetime.now(UTC) + timedelta(days=3300)
    old = take_backup(account(), NOW)
    monkeypatch.setattr(authority_provider, "_now", lambda: later)
    update_certificates(NAMES.root, outs, order())
    update_certificates(NAMES.root, outs, order(FIRST, "alice", "bob", "carol"))
    with pytest.raises(errors.BackupError, match="has this authority: a restore would take back"):
        restore(old, FIRST)
    # Bundles with either of its certificates are in one backup.
    assert take_backup(account(), later).created > old.created


def test_another_backup_does_not_continue_a_restore(saved: Saved) -> None:
    restore(saved.backup)
    with pytest.raises(errors.BackupError, match="is being restored from another backup") as caught:
        restore(replace(saved.backup, created="2020-01-01T00:00:00+00:00"))
    assert NAMES.authority in caught.value.remedy


def test_another_stack_name_is_refused(saved: Saved) -> None:
    with pytest.raises(errors.BackupError, match=r"accept the server dev\.drawbridge only"):
        restore_backup(account(SECOND, "prod"), saved.backup, print)


def test_a_deployment_that_is_under_way_is_not_backed_up() -> None:
    deploy()
    ssm, bundle = account().client("ssm"), parameters(FIRST)[NAMES.bundle("alice")]
    update_certificates(NAMES.root, deploy(FIRST), order(rotations={"stack": "2026-11-01T00:00:00Z"}))
    ssm.put_parameter(Name=NAMES.bundle("alice"), Value=bundle, Type="SecureString", Overwrite=True)
    with pytest.raises(errors.BackupError, match="the bundle of alice is not one of the authority's") as caught:
        take_backup(account(), NOW)
    assert "pulumi up --stack dev" in caught.value.remedy


def test_a_stack_that_is_not_deployed_has_no_backup() -> None:
    with pytest.raises(errors.NotDeployedError, match="stack dev has no authority in eu-central-1"):
        take_backup(account(SECOND), NOW)


def test_denied_writes_are_named_and_lose_nothing(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    put = stack_backup._ParameterWriter.put

    def deny(self: Any, name: str, parameter: SavedParameter) -> None:
        with self._translate_errors():
            if name == NAMES.keys:
                error = {"Error": {"Code": "AccessDeniedException", "Message": "no identity-based policy allows it"}}
                raise ClientError(error, "PutParameter")  # type: ignore[arg-type]
        put(self, name, parameter)

    with monkeypatch.context() as patch:
        patch.setattr(stack_backup._ParameterWriter, "put", deny)
        with pytest.raises(errors.AwsError, match="AWS denies PutParameter") as caught:
            restore(saved.backup)
    assert "then run the same command again, which continues" in caught.value.remedy
    assert restore(saved.backup) == [NAMES.keys]


def run(*arguments: str, passphrase: str = PASSPHRASE) -> Result:
    return CliRunner().invoke(cli, ["stack", *arguments, "--stack", STACK, "--passphrase-file", "-"], input=passphrase)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "dev.age"


def test_the_commands_move_a_stack(file: Path) -> None:
    deploy()
    done = run("backup", str(file), "--region", FIRST)
    assert done.exit_code == 0, done.output
    assert f"{file}: the authority of stack dev in eu-west-1 and 2 bundles" in done.output
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert content.startswith(b"age-encryption.org/v1\n")
    assert b"PRIVATE KEY" not in content
    assert json.loads(age.decrypt_file(content, PASSPHRASE))["version"] == stack_backup.VERSION

    again = run("backup", str(file), "--region", FIRST)
    assert again.exit_code == 1
    assert "already exists" in again.output
    assert run("backup", str(file), "--force", "--region", FIRST).exit_code == 0

    done = run("restore", str(file), "--region", SECOND)
    assert done.exit_code == 0, done.output
    assert "1. pulumi up --stack dev, with aws:region: eu-central-1 in the stack file" in done.output
    assert "PRIVATE KEY" not in done.output


def test_a_short_passphrase_is_refused_before_anything_is_read(file: Path) -> None:
    done = run("backup", str(file), "--region", FIRST, passphrase="secret")
    assert (done.exit_code, file.exists()) == (1, False)
    assert "the passphrase has 6 characters" in done.output
    assert "secret" not in done.output.replace("secrets", "")


#: What becomes of a good file, and what is said of it.
BAD_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "wrong passphrase": (lambda file: age.encrypt_file(b"{}", PASSPHRASE.upper()), "the passphrase is wrong"),
    "cut file": (lambda file: file[:-1], "it was cut off or changed"),
    "empty file": (lambda file: b"", "it is not an age file"),
    "another age file": (lambda file: age.encrypt_file(b"[]", PASSPHRASE), "it holds no backup of a stack"),
    "newer version": (
        lambda file: age.encrypt_file(b'{"version": 2}', PASSPHRASE),
        "has version 2, and this Drawbridge",
    ),
    "text": (lambda file: age.encrypt_file(b"-----BEGIN PRIVATE KEY", PASSPHRASE), "it holds no backup of a stack"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_no_backups_are_refused_and_write_nothing(case: str, saved: Saved, file: Path) -> None:
    stack_backup.write_backup(saved.backup, file, PASSPHRASE)
    change, message = BAD_FILES[case]
    file.write_bytes(change(file.read_bytes()))
    done = run("restore", str(file), "--region", SECOND)
    assert done.exit_code == 1
    assert message in done.output
    assert "PRIVATE" not in done.output
    assert "Traceback" not in done.output
    assert parameters(SECOND) == {}


def test_a_file_that_is_missing_is_one_error(file: Path) -> None:
    done = run("restore", str(file), "--region", SECOND)
    assert done.exit_code == 2
    assert f"{file} does not exist" in done.output
