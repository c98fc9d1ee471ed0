"""Test what a gateway that was taken over writes: it controls no terminal, and ends no command in a traceback."""

import json
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawbridge import errors
from drawbridge.commands import output
from drawbridge.commands.root import Failure
from drawbridge.operate import gateway_status
from drawbridge.operate.account import Account
from drawbridge.operate.bundle_probe import probe_bundle
from drawbridge.printable import escape_controls
from drawbridge.trial.checks import Check
from openvpn.bundle import BundleError, remote_of, render_bundle
from pki import tls_crypt
from pki.authority import CertificateAuthority

#: Clears the screen, sets the clipboard, and reverses what follows.
HOSTILE = "ready\x1b[2J\x1b]52;c;cHduZWQ=\x07\x9b2J\u202egnp\x00\x7f\r\u2028\udc80"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def controls(text: str) -> set[str]:
    """Return the characters of a text that a terminal obeys or that reverse its direction, without line breaks."""
    bidi = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    return {c for c in text if (ord(c) < 32 or 127 <= ord(c) < 160 or c in bidi) and c != "\n"}


@pytest.mark.attack("9.4")
@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    escaped = escape_controls(text)
    assert not controls(escaped)
    assert "\n" not in escaped
    escaped.encode()
    assert escape_controls(escaped) == escaped


@given(st.text(alphabet=string.ascii_letters + string.digits + " äß日本-:/"))
def test_a_plain_text_stays_as_it_is(text: str) -> None:
    assert escape_controls(text) == text


@pytest.mark.attack("9.4")
def test_tables_checks_and_progress_escape_what_they_print(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name",), [(HOSTILE + "\nforged row",)])
    output.check_lines([Check(promise=HOSTILE, ok=True, figure=HOSTILE)])
    with output.progress() as show:
        show(HOSTILE)
    Failure(HOSTILE, HOSTILE).show()
    captured = capsys.readouterr()
    assert not controls(captured.out)
    assert not controls(captured.err)
    assert r"\x1b[2J" in captured.out
    assert "\nforged row" not in captured.out


@pytest.mark.attack("9.5")
@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", "[" * 5000])
@pytest.mark.parametrize("parameter", ["report", "release"])
def test_a_parameter_that_is_not_a_json_object_ends_in_one_error(account: Account, parameter: str, text: str) -> None:
    name = getattr(account.names, parameter)
    account.client("ssm").put_parameter(Name=name, Value=text or " ", Type="String", Tier="Advanced")
    with pytest.raises(errors.MalformedError, match=name):
        account.json_parameter(name)


@pytest.mark.attack("9.5")
@given(st.dictionaries(st.sampled_from(["state", "release", "reason", "time", "units"]), json_values))
def test_a_report_with_any_values_is_read_or_refused(report: dict[str, object]) -> None:
    try:
        parsed = gateway_status.parse_report(json.loads(json.dumps(report)))
    except errors.MalformedError:
        return
    assert not parsed.units or parsed.units == tuple(report["units"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "unit", ["x.service", "--property=a", "openvpn-server@../../x.service", "openvpn-server@a b.service"]
)
def test_a_unit_that_does_not_run_openvpn_is_refused(unit: str) -> None:
    with pytest.raises(errors.MalformedError):
        gateway_status.parse_report({"units": [unit]})


COLUMNS = ("Common Name", "Real Address", "Virtual Address", "Bytes Received", "Bytes Sent", "Connected Since (time_t)")
words = st.text(alphabet=string.printable + "²\x1b", max_size=24) | st.integers().map(str)


@pytest.mark.attack("9.5")
@given(
    columns=st.lists(st.sampled_from(COLUMNS), max_size=8),
    rows=st.lists(st.lists(words, max_size=8), max_size=4),
)
def test_a_status_file_with_any_fields_is_read_or_refused(columns: list[str], rows: list[list[str]]) -> None:
    lines = ["\t".join(["HEADER", "CLIENT_LIST", *columns]), *("\t".join(["CLIENT_LIST", *row]) for row in rows)]
    try:
        sessions = gateway_status.parse_sessions("\n".join(lines))
    except errors.MalformedError:
        return
    assert len(sessions) <= sum(len("\n".join(row).splitlines()) + 1 for row in rows)


@pytest.mark.parametrize("since", ["10000000000000000", "-10000000000000000", "²", "1e3"])
def test_a_time_that_is_none_is_refused(since: str) -> None:
    text = (
        "\t".join(["HEADER", "CLIENT_LIST", *COLUMNS])
        + "\n"
        + "\t".join(["CLIENT_LIST", "a", "b", "c", "1", "2", since])
    )
    with pytest.raises(errors.MalformedError):
        gateway_status.parse_sessions(text)


@pytest.mark.attack("9.5")
@given(
    st.lists(st.sampled_from(["remote", "proto", "verify-x509-name", "<ca>", "</ca>", "<cert>"]) | words).map("\n".join)
)
def test_a_bundle_of_any_lines_is_refused(text: str) -> None:
    with pytest.raises(errors.BundleFileError):
        probe_bundle(text)


@pytest.mark.parametrize("port", ["²", "٣", "0", "65536", "1" * 5000])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(BundleError):
        remote_of(f"remote 127.0.0.1 {port}\nproto udp\nverify-x509-name a name\n")
    assert remote_of("remote 127.0.0.1 1194\nproto udp\nverify-x509-name a name\n").port == 1194


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test"])
def test_a_name_that_dns_cannot_hold_is_a_finding(host: str) -> None:
    authority = CertificateAuthority.create("test", timedelta(days=2), datetime.now(UTC))
    leaf = authority.issue_client("alice", timedelta(days=1), datetime.now(UTC))
    profile = f"client\nremote {host} 1194\nproto udp\nverify-x509-name gateway name\n"
    key = tls_crypt.client_key(tls_crypt.server_key())
    verdict = probe_bundle(render_bundle(profile, authority.certificate, leaf.certificate, leaf.key, key))
    assert verdict.state == "address"
