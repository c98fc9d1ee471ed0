"""The register of certificates on moto's SSM: its pages, what leaves it, and what moves into it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import contract
from components import authority_provider
from components.authority_provider import BATCH, Issuer
from components.register import CLOCK_MARGIN, PARAMETER_LIMIT, ParameterStore, Register
from pki.authority import Certificate
from tests.support.issuing import order_certificates

NAMES = contract.Names("dev")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LAST = "9" * 48
"""The largest serials have about as many digits."""


def open_register(ssm: Any) -> Register:
    return Register(ParameterStore(ssm, NAMES), NAMES)


def certificate(serial: int, *, days: int = 365) -> Certificate:
    return Certificate(
        certificate="",
        common_name="",
        serial=serial,
        fingerprint="",
        not_before=NOW,
        not_after=NOW + timedelta(days=days),
    )


def pages(ssm: Any) -> dict[str, str]:
    paginator = ssm.get_paginator("get_parameters_by_path").paginate(Path=NAMES.issued)
    return {p["Name"].rpartition("/")[2]: p["Value"] for page in paginator for p in page["Parameters"]}


def add_single(ssm: Any, serial: int, client: str, *, days: int = 365, revoked: str | None = None) -> None:
    """Write an entry as versions before the pages did."""
    end = (NOW + timedelta(days=days)).isoformat()
    value = {"client": client, "fingerprint": "f", "notAfter": end, "revoked": revoked}
    ssm.put_parameter(Name=f"{NAMES.issued}/{serial}", Value=json.dumps(value), Type="String")


def test_an_entry_leaves_when_its_certificate_has_ended(ssm: Any) -> None:
    register = open_register(ssm)
    register.add({"alice": certificate(1), "bob": certificate(2, days=10), "carol": certificate(3)})
    register.revoke_all_but({1}, NOW)
    assert set(register.revoked) == {2, 3}
    # A gateway's clock may be behind.
    ended = NOW + timedelta(days=10) + CLOCK_MARGIN
    open_register(ssm).revoke_all_but({1}, ended)
    assert set(open_register(ssm).revoked) == {2, 3}
    open_register(ssm).revoke_all_but({1}, ended + timedelta(seconds=1))
    assert set(open_register(ssm).entries) == {1, 3}
    assert set(open_register(ssm).revoked) == {3}


def test_an_ended_certificate_leaves_without_being_revoked_first(ssm: Any, record: Callable[[], list[str]]) -> None:
    register = open_register(ssm)
    register.add({"alice": certificate(1, days=1)})
    calls = record()
    register.revoke_all_but((), NOW + timedelta(days=9))
    assert calls == ["DeleteParameters"]
    assert pages(ssm) == {}


@pytest.fixture
def record(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return a function that starts a record of the calls to AWS, by their names."""
    from botocore.client import BaseClient

    def start() -> list[str]:
        calls: list[str] = []
        call = BaseClient._make_api_call  # type: ignore[attr-defined]

        def keep(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
            calls.append(operation)
            return call(self, operation, arguments)

        monkeypatch.setattr(BaseClient, "_make_api_call", keep)
        return calls

    return start


def test_years_of_renewals_and_short_lives_do_not_grow_the_register(ssm: Any) -> None:
    """A thousand jobs, each with a client that lives for a day, and three clients that are renewed each year."""
    serial, now, sizes = 0, NOW, []
    for _ in range(20):
        register = open_register(ssm)
        lives: dict[str, Certificate] = {}
        for job in range(50):
            serial += 1
            lives[f"job{job}"] = Certificate(
                certificate="", common_name="", serial=serial, fingerprint="", not_before=now,
                not_after=now + timedelta(days=30),
            )  # fmt: skip
        register.add(lives)
        register.revoke_all_but({serial}, now)
        sizes.append(len(register.entries))
        now += timedelta(days=20)
    assert serial == 1000
    assert max(sizes) == sizes[-1] == 100
    assert len(pages(ssm)) <= 100 / 20 + 1


def test_pages_never_outgrow_a_parameter(ssm: Any) -> None:
    register = open_register(ssm)
    names = [f"{'c' * 59}{number:04}" for number in range(200)]
    register.add({name: certificate(int(LAST) - number) for number, name in enumerate(names)})
    before = pages(ssm)
    register.revoke_all_but((), NOW)
    after = pages(ssm)
    assert before.keys() == after.keys()
    assert max(map(len, after.values())) <= PARAMETER_LIMIT
    assert 200 / len(after) > 15, "names as long as names may be still share a page"
    assert set(register.revoked) == set(open_register(ssm).revoked)


def test_one_certificate_more_and_one_less_write_one_page(ssm: Any, record: Callable[[], list[str]]) -> None:
    open_register(ssm).add({f"client{number:04}": certificate(10**47 + number) for number in range(250)})
    register = open_register(ssm)
    calls = record()
    register.add({"one more": certificate(10**47 + 250)})
    assert calls == ["PutParameter"]
    register.revoke_all_but({10**47 + number for number in range(250)}, NOW)
    assert calls == ["PutParameter"] * 2


def test_a_batch_of_clients_takes_little_more_than_a_page(ssm: Any) -> None:
    register = open_register(ssm)
    for start in range(0, 500, BATCH):
        register.add({f"client{start + n:04}": certificate(10**47 + start + n) for n in range(BATCH)})
    assert len(pages(ssm)) <= 500 / BATCH


def test_entries_of_an_earlier_version_move_into_pages(ssm: Any) -> None:
    add_single(ssm, 1, "alice")
    add_single(ssm, 2, "bob", revoked=NOW.isoformat())
    add_single(ssm, 3, "carol")
    add_single(ssm, 4, "dave", days=-9)
    register = open_register(ssm)
    assert (set(register.entries), set(register.revoked)) == ({1, 2, 3, 4}, {2})
    register.revoke_all_but({1}, NOW)
    assert set(pages(ssm)) == {"page-1"}
    assert set(json.loads(pages(ssm)["page-1"])) == {"1", "2", "3"}
    assert set(open_register(ssm).revoked) == {2, 3}


@pytest.mark.fault("7.12")
def test_a_move_that_was_cut_off_is_finished(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    add_single(ssm, 1, "alice")
    add_single(ssm, 2, "bob")
    with monkeypatch.context() as patch:
        patch.setattr(ParameterStore, "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_register(ssm).revoke_all_but({1}, NOW)
    assert set(pages(ssm)) == {"1", "2", "page-1"}
    # The single entry of bob is not revoked, but the page's is.
    assert set(open_register(ssm).revoked) == {2}
    open_register(ssm).revoke_all_but({1}, NOW)
    assert set(pages(ssm)) == {"page-1"}
    assert set(open_register(ssm).revoked) == {2}


PROPS = order_certificates(dict.fromkeys(("alice", "bob"), "client\n"), client_days=10.0)


def test_a_revoked_serial_leaves_the_stack_when_its_certificate_has_ended(
    ssm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = Issuer().create(PROPS).outs
    assert outs is not None
    serial = outs["clients"]["bob"]["serial"]
    left = PROPS | {"profiles": {"alice": "client\n"}}
    outs = Issuer().update("", outs, left).outs
    assert outs is not None
    assert outs["revoked"].keys() == {serial}
    end = datetime.fromisoformat(outs["revoked"][serial]["notAfter"])
    monkeypatch.setattr(authority_provider, "_now", lambda: end + CLOCK_MARGIN + timedelta(hours=1))
    outs = Issuer().update("", outs, left).outs
    assert outs is not None
    assert outs["revoked"] == {}
    assert len(json.loads(pages(ssm)["page-1"])) == 1, "the client's new certificate alone"


def test_a_state_that_knows_no_end_of_a_revocation_gets_it(ssm: Any) -> None:
    outs = Issuer().create(PROPS).outs
    assert outs is not None
    assert Issuer().diff("", outs, PROPS).changes is False
    assert Issuer().diff("", outs | {"revoked": {"7": "carol"}}, PROPS).changes is True
