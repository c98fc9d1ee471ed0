"""`drawbridge client link` and `fetch -o -`, on moto. Does not prove that S3 or an app takes a link: AWS does that."""

import os
import re
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import segno
from click.testing import CliRunner, Result

from drawbridge import errors
from drawbridge.commands.qr_code import draw_qr_code
from drawbridge.commands.root import cli
from drawbridge.operate import bundle_links
from drawbridge.operate.account import Account
from openvpn.bundle import profile_title

from .conftest import REGION, STACK, Enrol


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["client", *arguments, "--stack", STACK])


@pytest.fixture
def in_s3(account: Account, enrol: Enrol) -> str:
    """The name of a client whose bundle is in S3."""
    bundle = enrol("alice").bundle
    s3, bucket = account.client("s3"), account.names.bundles_bucket("123456789012", REGION)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=bucket, Key=account.names.bundle_key("alice"), Body=bundle)
    account.client("ssm").delete_parameter(Name=account.names.bundle("alice"))
    return "alice"


def test_fetch_to_standard_output_prints_the_bundle_and_nothing_else(
    enrol: Enrol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = enrol("alice").bundle
    result = run("fetch", "alice", "-o", "-")
    assert (result.exit_code, result.stdout, result.stderr) == (0, bundle, "")
    assert [*tmp_path.iterdir()] == []
    missing = run("fetch", "bob", "-o", "-")
    assert (missing.exit_code, missing.stdout) == (1, "")


def test_three_files_do_not_go_to_standard_output_or_into_a_link(account: Account, enrol: Enrol) -> None:
    bundle = f"# {profile_title('gateway.lab', 'windows')}\n{enrol('office').bundle}"
    account.client("ssm").put_parameter(Name=account.names.bundle("office"), Value=bundle, Overwrite=True)
    for arguments in (("fetch", "office", "-o", "-"), ("link", "office")):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "office runs Windows, and needs two scripts besides its bundle" in result.stderr
        assert f"drawbridge client fetch office --stack {STACK}" in result.stderr


def test_a_link_leads_to_the_bundle_for_the_time_that_is_asked_for(in_s3: str) -> None:
    result = run("link", in_s3, "--expires", "2h")
    assert result.exit_code == 0, result.output
    url, import_url = result.stdout.splitlines()
    assert import_url == f"openvpn://import-profile/{url}"
    parts = urlsplit(url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    assert (parts.scheme, parts.path) == ("https", "/clients/alice.ovpn")
    assert parts.hostname == f"drawbridge-{STACK}-123456789012-{REGION}-pki.s3.{REGION}.amazonaws.com"
    assert (query["X-Amz-Expires"], query["X-Amz-Algorithm"]) == ("7200", "AWS4-HMAC-SHA256")
    assert query["response-content-type"] == "application/x-openvpn-profile"
    expires = datetime.now(UTC) + timedelta(hours=2)
    assert f"it works until {expires:%Y-%m-%d}" in result.stderr
    assert "as often as somebody opens it" in result.stderr


def test_the_qr_code_has_the_link_that_apps_import_and_80_columns(in_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(run("link", in_s3).stdout.splitlines()) == 2
    result = run("link", in_s3, "--qr")
    _, import_url, *drawing = result.stdout.splitlines()
    assert {len(line) for line in drawing} == {len(drawing[0])} and len(drawing[0]) <= 80
    code = segno.make_qr(import_url, error="l", boost_error=False)
    assert read_modules(drawing) == [[bool(module) for module in row] for row in code.matrix_iter(border=1)]
    # A terminal is drawn on by default, unless it is too narrow.
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    monkeypatch.setattr("drawbridge.commands.client._is_terminal", lambda: True)
    narrow = run("link", in_s3)
    assert len(narrow.stdout.splitlines()) == 2
    assert re.search(
        r"note: the QR code of the link has \d\d columns, and the terminal has 60; widen it", narrow.stderr
    )
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    assert len(run("link", in_s3).stdout.splitlines()) == 2 + len(drawing)
    assert len(run("link", in_s3, "--no-qr").stdout.splitlines()) == 2


def read_modules(drawing: Sequence[str]) -> list[list[bool]]:
    """Return which modules are dark, where a block is light; the last line may have one row of modules alone."""
    light = {"█": (True, True), "▀": (True, False), "▄": (False, True), " ": (False, False)}
    rows = [[not light[block][half] for block in line] for line in drawing for half in (0, 1)]
    return rows[: len(drawing[0])]


def test_a_text_that_no_qr_code_holds_is_refused() -> None:
    with pytest.raises(errors.QrCodeError, match="3000 characters are too many"):
        draw_qr_code("a" * 3000, None)


def test_a_link_of_temporary_credentials_ends_with_them(account: Account, in_s3: str) -> None:
    temporary = boto3.Session("ASIA", "secret", "token", region_name=REGION)
    account = Account(stack=STACK, session=temporary)
    assert bundle_links.link_to_bundle(account, in_s3, timedelta(hours=1)).is_temporary
    permanent = Account(stack=STACK, session=boto3.Session("AKIA", "secret", region_name=REGION))
    assert not bundle_links.link_to_bundle(permanent, in_s3, timedelta(hours=1)).is_temporary


def test_a_bundle_in_ssm_has_no_link(enrol: Enrol) -> None:
    enrol("bob")
    result = run("link", "bob")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"the bundle of bob is in SSM (/drawbridge/{STACK}/clients/bob/bundle), which has no links" in result.stderr
    assert "drawbridge:secrets.bundles: s3" in result.stderr and "client fetch bob" in result.stderr


@pytest.mark.parametrize(("period", "reason"), [("8d", "at most 7d"), ("1", "is not a period"), ("0h", "not a period")])
def test_a_period_that_no_link_can_have(period: str, reason: str) -> None:
    result = run("link", "alice", "--expires", period)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in " ".join(result.stderr.split())


def test_a_link_of_a_client_that_is_not_there(account: Account) -> None:
    result = run("link", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"stack {STACK} has no client nobody" in result.stderr


def test_what_a_file_has_stays_if_the_disk_is_full(
    enrol: Enrol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol("alice")
    target = tmp_path / "alice.ovpn"
    target.write_text("former")
    target.chmod(0o600)

    def fail(path: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    result = run("fetch", "alice", "--force", "-o", str(target))
    assert result.exit_code == 1 and "No space left on device" in result.stderr
    assert target.read_text() == "former" and [*tmp_path.iterdir()] == [target]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
