"""Certificates by a moved clock: which are renewed when, and that the former ones stay valid. No engine calls it here.

Does not prove that OpenVPN accepts both certificates: its server looks at the authority, the end and the revocations.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import boto3
import pulumi
import pytest

import contract
from components import authority_provider, register
from components.authority_provider import Issuer
from openvpn import bundle as bundles
from pki.authority import Certificate, is_same_authority
from tests.support.issuing import create_certificates, order_certificates, read_parameters, update_certificates

NAMES = contract.Names("dev")
PROPS = order_certificates(dict.fromkeys(("alice", "bob"), "client\nremote 192.0.2.1\n"))


class Clock:
    """The provider's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.start = authority_provider._now().replace(microsecond=0)
        self.move(0)

    def move(self, days: float) -> datetime:
        """Set it to a number of days after the start of the test."""
        now = self.start + timedelta(days=days)
        self._monkeypatch.setattr(authority_provider, "_now", lambda: now)
        return now


@pytest.fixture(autouse=True)
def shared_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one session: each loads the models of AWS's services, which takes most of a deployment's time."""
    session = boto3.Session(region_name=PROPS["region"])
    monkeypatch.setattr(boto3, "Session", lambda **_: session)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", texts.append)
    return texts


def read_certificates(ssm: Any, client: str) -> tuple[Certificate, Certificate]:
    """Return the client's certificate in a bundle, and the authority's there."""
    bundle = read_parameters(ssm, NAMES)[NAMES.bundle(client)]
    return Certificate.read(bundles.certificate_of(bundle)), Certificate.read(bundles.ca_of(bundle))


def read_certificate(ssm: Any, client: str) -> Certificate:
    return read_certificates(ssm, client)[0]


def update(olds: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return update_certificates(NAMES.root, olds, PROPS | changes)


def is_planned(olds: dict[str, Any], **changes: Any) -> bool:
    return bool(Issuer().diff(NAMES.root, olds, PROPS | changes).changes)


def list_renewed(former: dict[str, Any], renewed: dict[str, Any]) -> set[str]:
    """Return whose certificates a deployment has replaced."""
    before, after = (
        {
            "authority": outs["caCertificate"],
            "server": outs["serverFingerprint"],
            "clients": [client["serial"] for client in outs["clients"].values()],
        }
        for outs in (former, renewed)
    )
    return {name for name in before if before[name] != after[name]}


def test_nothing_is_planned_outside_the_window_and_preview_and_deployment_agree(ssm: Any, clock: Clock) -> None:
    outs = create_certificates(PROPS)
    client, authority = read_certificates(ssm, "alice")
    planned = {}
    for day in range(0, 365 * 12, 5):
        now = clock.move(day)
        if is_planned(outs):
            former, outs = outs, update(outs)
            planned[day] = list_renewed(former, outs)
            assert not is_planned(outs) and outs["revoked"] == {}
            client, authority = read_certificates(ssm, "alice")
        assert now < client.not_after <= authority.not_after
        assert client.not_after - client.issued == timedelta(days=365)
    # Clients a month before each year; the server in the last month of its 825 days; the authority a year and a month
    # before its ten years are over, together with the server, whose certificate its end had cut short.
    assert planned.pop(3255) == {"authority", "server"}
    assert [day for day, renewed in planned.items() if renewed == {"server"}] == [795, 1590, 2385, 3180, 4050]
    assert [day for day, renewed in planned.items() if renewed == {"clients"}] == [*range(335, 365 * 12, 335)]
    assert len(planned) == 5 + 13


def test_a_renewed_authority_keeps_its_key_and_changes_no_bundle(ssm: Any, clock: Clock, warnings: list[str]) -> None:
    outs = create_certificates(PROPS)
    clock.move(3200)
    outs, before = update(outs), read_parameters(ssm, NAMES)
    clock.move(3254)
    warnings.clear()
    assert not is_planned(outs) and warnings == []
    now = clock.move(3255)
    assert is_planned(outs)
    end = f"{Certificate.read(outs['caCertificate']).not_after:%Y-%m-%d}"
    assert warnings == [
        f"/drawbridge/dev: certificates that end soon are renewed: the authority's certificate (until {end}), for "
        "which OpenVPN restarts once; its key stays, so no client needs another bundle for it"
    ]
    renewed, after = update(outs), read_parameters(ssm, NAMES)
    assert warnings[1:] == []
    assert list_renewed(outs, renewed) == {"authority", "server"}
    assert is_same_authority(outs["caCertificate"], renewed["caCertificate"])
    assert Certificate.read(renewed["caCertificate"]).not_after == now + timedelta(days=3650)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {NAMES.keys, *(NAMES.secret(name) for name in ("ca.crt", "server.crt", "server.key"))}
    # Whoever comes now gets a bundle with the new certificate.
    profiles = {"profiles": PROPS["profiles"] | {"carol": "client\nremote 192.0.2.1\n"}}
    assert update(renewed, **profiles)["clients"]["alice"] == outs["clients"]["alice"]
    authorities = {name: bundles.ca_of(read_parameters(ssm, NAMES)[NAMES.bundle(name)]) for name in ("alice", "carol")}
    assert authorities == {"alice": outs["caCertificate"], "carol": renewed["caCertificate"]}


@pytest.mark.parametrize(
    ("days", "ended", "renewed"),
    [
        (366, "alice (ended {client}), bob (ended {client})", {"clients"}),
        (826, "the gateway's certificate (ended {server})", {"server", "clients"}),
        (3651, "the authority's certificate (ended {authority})", {"authority", "server", "clients"}),
    ],
)
def test_one_day_after_an_end_a_deployment_makes_all_work_again(
    ssm: Any, clock: Clock, warnings: list[str], days: int, ended: str, renewed: set[str]
) -> None:
    outs = create_certificates(PROPS)
    ends = {
        "client": datetime.fromisoformat(outs["clients"]["alice"]["notAfter"]),
        "server": datetime.fromisoformat(outs["serverNotAfter"]),
        "authority": Certificate.read(outs["caCertificate"]).not_after,
    }
    now = clock.move(days)
    assert is_planned(outs)
    assert ended.format(**{name: f"{end:%Y-%m-%d}" for name, end in ends.items()}) in warnings[0]
    again = update(outs)
    assert list_renewed(outs, again) == renewed and not is_planned(again)
    assert is_same_authority(outs["caCertificate"], again["caCertificate"])
    assert read_certificate(ssm, "alice").not_after == now + timedelta(days=365)


def test_certificates_that_the_authority_s_end_cut_short_are_renewed_in_their_own_window(
    ssm: Any, clock: Clock
) -> None:
    """A validity of more than a third of the authority's has no room in its window."""
    lifetimes = {"lifetimes": {"ca": 600.0, "server": 500.0, "client": 500.0}}
    outs, planned = create_certificates(PROPS | lifetimes), {}
    client, authority = read_certificates(ssm, "alice")
    for day in range(0, 1200, 5):
        now = clock.move(day)
        if is_planned(outs, **lifetimes):
            former, outs = outs, update(outs, **lifetimes)
            planned[day] = list_renewed(former, outs)
            assert not is_planned(outs, **lifetimes)
            client, authority = read_certificates(ssm, "alice")
        assert now < client.not_after <= authority.not_after
    assert planned == {
        400: {"authority"},
        470: {"server", "clients"},
        800: {"authority"},
        940: {"server", "clients"},
    }


def test_a_renewal_leaves_the_former_certificate_valid_until_it_ends(
    ssm: Any, clock: Clock, warnings: list[str]
) -> None:
    outs = create_certificates(PROPS)
    former = {client: read_certificate(ssm, client) for client in ("alice", "bob")}
    clock.move(334)
    assert not is_planned(outs) and warnings == []
    clock.move(335)
    assert is_planned(outs)
    end = f"{former['alice'].not_after:%Y-%m-%d}"
    assert warnings == [
        "/drawbridge/dev: certificates that end soon are renewed: "
        f"alice (until {end}), bob (until {end}); the former ones work until then"
    ]
    renewed = update(outs)
    assert warnings[1:] == [
        f"/drawbridge/dev/clients: new certificates for clients whose former ones still work: alice (until {end}), bob "
        f"(until {end}); each needs its new bundle by then: drawbridge client fetch NAME --force --stack dev"
    ]
    new = read_certificate(ssm, "alice")
    assert new.serial != former["alice"].serial and bundles.key_of(read_parameters(ssm, NAMES)[NAMES.bundle("alice")])
    assert new.not_after - former["alice"].not_after == timedelta(days=335)
    assert renewed["revoked"] == {} and renewed["caCertificate"] == outs["caCertificate"]
    assert renewed["clients"]["alice"]["formerNotAfter"] == former["alice"].not_after.isoformat()
    # Another deployment changes nothing, and still knows both.
    before = read_parameters(ssm, NAMES)
    assert update(renewed) == renewed and read_parameters(ssm, NAMES) == before
    # A deployment in the last month of the former certificate reminds of those who have yet to fetch.
    warnings.clear()
    clock.move(350)
    assert not is_planned(renewed)
    assert warnings == [
        f"/drawbridge/dev: the certificates that alice (until {end}), bob (until {end}) had before their renewal end "
        "soon: a client that has not fetched its bundle since then needs it"
    ]
    warnings.clear()
    clock.move(366)
    assert not is_planned(renewed) and warnings == []


@pytest.mark.parametrize("end", ["removed", "rotated"])
def test_a_client_that_is_removed_or_rotated_loses_its_former_certificate_too(ssm: Any, clock: Clock, end: str) -> None:
    outs = create_certificates(PROPS)
    clock.move(340)
    renewed = update(outs)
    if end == "removed":
        changes: dict[str, Any] = {"profiles": {"bob": PROPS["profiles"]["bob"]}}
    else:
        changes = {"rotations": {"clients": {"alice": "2020-01-01T00:00:00Z"}}}
    revoked = update(renewed, **changes)["revoked"]
    assert revoked.keys() == {outs["clients"]["alice"]["serial"], renewed["clients"]["alice"]["serial"]}


class CutOffError(Exception):
    pass


def test_a_renewal_cut_off_anywhere_revokes_no_certificate_that_a_client_has(
    ssm: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = create_certificates(PROPS)
    clock.move(340)
    put, allowed, count = register.ParameterStore.put, 0, 0
    handed_out = {outs["clients"][client]["serial"] for client in ("alice", "bob")}

    def cut(self: register.ParameterStore, name: str, value: str, *, secret: bool) -> None:
        nonlocal count
        if not self.has(name, value, secret=secret):
            count += 1
            if count > allowed:
                raise CutOffError
        put(self, name, value, secret=secret)

    while True:
        count = 0
        with monkeypatch.context() as patch, suppress(CutOffError):
            patch.setattr(register.ParameterStore, "put", cut)
            outs = update(outs)
            break
        allowed += 1
        # An operator may have fetched whatever bundle is there.
        handed_out |= {str(read_certificate(ssm, client).serial) for client in ("alice", "bob")}
    assert allowed > 2
    assert handed_out & outs["revoked"].keys() == set()
    assert not is_planned(outs)


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"days": {"alice": 7.0}}, {"alice": 7, "bob": 365}),
        ({"lifetimes": {"ca": 3650.0, "server": 825.0, "client": 30.0}}, {"alice": 30, "bob": 30}),
        (
            {"lifetimes": {"ca": 3650.0, "server": 825.0, "client": 400.0}, "days": {"bob": 5.0}},
            {"alice": 400, "bob": 5},
        ),
    ],
)
def test_a_changed_lifetime_is_applied_and_said(
    ssm: Any, clock: Clock, warnings: list[str], changes: dict[str, Any], ends: dict[str, int]
) -> None:
    outs = create_certificates(PROPS)
    clock.move(3)
    assert is_planned(outs, **changes)
    changed = {client: days for client, days in ends.items() if days != 365}
    listed = ", ".join(f"{client} ({days} days)" for client, days in changed.items())
    assert warnings == [
        f"/drawbridge/dev: another lifetime is ordered for {listed}: they get new certificates, and the former ones "
        "work until they end"
    ]
    again = update(outs, **changes)
    for client, days in ends.items():
        end = read_certificate(ssm, client).not_after
        assert end - clock.start == timedelta(days=days + (3 if client in changed else 0))
    assert again["revoked"] == {}
    shorter = [client for client in changed if changed[client] < 365]
    assert ("drawbridge client rotate NAME --stack dev" in warnings[-1]) is bool(shorter)
    assert not is_planned(again, **changes)
    assert update(again, **changes) == again


def test_short_certificates_are_renewed_in_the_last_third_only(ssm: Any, clock: Clock) -> None:
    outs = create_certificates(PROPS | {"days": {"alice": 6.0}})
    days = {"days": {"alice": 6.0}}
    clock.move(3.9)
    assert not is_planned(outs, **days)
    clock.move(4.1)
    assert is_planned(outs, **days)
    again = update(outs, **days)
    assert again["clients"]["bob"] == outs["clients"]["bob"]
    assert not is_planned(again, **days)


def test_the_window_is_the_stack_s_own(ssm: Any, clock: Clock) -> None:
    lifetimes = {"lifetimes": {**PROPS["lifetimes"], "renewal": 60.0}}
    outs = create_certificates(PROPS)
    clock.move(310)
    assert not is_planned(outs)
    assert is_planned(outs, **lifetimes)
    again = update(outs, **lifetimes)
    assert again["clients"]["alice"]["serial"] != outs["clients"]["alice"]["serial"]
    assert not is_planned(again, **lifetimes)


def test_a_changed_lifetime_of_server_and_authority_is_applied_or_said(
    ssm: Any, clock: Clock, warnings: list[str]
) -> None:
    outs = create_certificates(PROPS)
    changes = {"lifetimes": {"ca": 7300.0, "server": 100.0, "client": 365.0}}
    assert is_planned(outs, **changes)
    assert warnings == [
        "/drawbridge/dev: drawbridge:lifetimes.ca is 7300 now, for the authority's next certificate; the present one "
        "stays",
        "/drawbridge/dev: drawbridge:lifetimes.server is 100 now: the gateway gets a new certificate, for which "
        "OpenVPN restarts once",
    ]
    again = update(outs, **changes)
    server = Certificate.read(read_parameters(ssm, NAMES)[NAMES.secret("server.crt")])
    assert server.not_after - server.issued == timedelta(days=100)
    assert (again["caCertificate"], again["clients"]) == (outs["caCertificate"], outs["clients"])
    assert not is_planned(again, **changes)


def test_an_ordered_renewal_is_carried_out_once_also_by_a_clock_that_is_behind(
    ssm: Any, clock: Clock, warnings: list[str]
) -> None:
    outs = create_certificates(PROPS)
    now = clock.move(100)
    moment = f"{now + timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}"
    changes = {"rotations": {"renewals": {"alice": moment}}}
    assert is_planned(outs, **changes)
    assert warnings == [
        "/drawbridge/dev: renewals are ordered: alice get new certificates, and the former ones work until they end"
    ]
    again = update(outs, **changes)
    assert again["clients"]["bob"] == outs["clients"]["bob"] and again["revoked"] == {}
    assert again["clients"]["alice"]["formerNotAfter"] == outs["clients"]["alice"]["notAfter"]
    assert not is_planned(again, **changes)
    assert update(again, **changes) == again
