"""Certificates for signing requests: a client that has created its key keeps it. No engine calls the provider here."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

import contract
from components.register import IssuerError
from openvpn import bundle as bundles
from openvpn.bundle import BundleError
from pki.authority import Certificate, certifies
from tests.support.issuing import create_certificates, order_certificates, update_certificates
from tests.support.requests import create_request

NAMES = contract.Names("dev")
PROPS = order_certificates(dict.fromkeys(("alice", "bob"), "client\nremote 192.0.2.1\n"))


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("ssm", region_name="eu-west-1")


def stored(ssm: Any, client: str) -> str:
    return str(ssm.get_parameter(Name=NAMES.bundle(client), WithDecryption=True)["Parameter"]["Value"])


def update(outs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return update_certificates(NAMES.root, outs, PROPS | changes)


def revoked(outs: dict[str, Any]) -> list[str]:
    return sorted(entry["client"] for entry in outs["revoked"].values())


def test_a_bundle_for_a_request_has_no_key_and_names_its_file(ssm: Any) -> None:
    request, _ = create_request("alice")
    outs = create_certificates(PROPS | {"requests": {"alice": request}})
    bundle = stored(ssm, "alice")
    assert "PRIVATE KEY" not in bundle and "<key>" not in bundle.partition("\n<ca>")[2]
    assert "\nkey alice.key\n<ca>\n" in bundle
    assert certifies(bundles.certificate_of(bundle), request, "alice")
    assert bundles.tls_crypt_of(bundle)
    with pytest.raises(BundleError, match="names its key's file"):
        bundles.key_of(bundle)
    assert bundles.key_of(stored(ssm, "bob"))
    # Again, nothing changes; another profile keeps the certificate.
    assert update(outs, requests={"alice": request}) == outs
    assert stored(ssm, "alice") == bundle
    profiles = {**PROPS["profiles"], "alice": "client\nremote 192.0.2.2\n"}
    assert update(outs, requests={"alice": request}, profiles=profiles)["clients"] == outs["clients"]
    assert stored(ssm, "alice") == bundle.replace("192.0.2.1", "192.0.2.2")


def test_another_key_or_none_replaces_the_certificate(ssm: Any) -> None:
    outs = create_certificates(PROPS)
    first, second = create_request("alice")[0], create_request("alice")[0]
    for number, request in enumerate((first, second), 1):
        outs = update(outs, requests={"alice": request})
        assert certifies(bundles.certificate_of(stored(ssm, "alice")), request, "alice")
        assert revoked(outs) == ["alice"] * number
    # A new request of the same key is not a new key.
    outs = update(outs)
    assert revoked(outs) == ["alice"] * 3 and bundles.key_of(stored(ssm, "alice"))


def test_a_rotation_gives_the_same_key_a_new_certificate(ssm: Any) -> None:
    request, _ = create_request("alice")
    outs = create_certificates(PROPS | {"requests": {"alice": request}})
    rotated = update(outs, requests={"alice": request}, rotations={"clients": {"alice": "2026-01-01T00:00:00Z"}})
    assert rotated["clients"]["alice"]["serial"] != outs["clients"]["alice"]["serial"]
    assert revoked(rotated) == ["alice"]
    assert Certificate.read(bundles.certificate_of(stored(ssm, "alice"))).common_name == "alice"


def test_a_request_that_cannot_be_signed_revokes_nobody(ssm: Any) -> None:
    outs = create_certificates(PROPS)
    before = stored(ssm, "alice")
    with pytest.raises(IssuerError, match=r"cannot issue a certificate for alice: .* must be CN=alice"):
        update(outs, requests={"alice": create_request("mallory")[0]})
    assert stored(ssm, "alice") == before
    assert update(outs) == outs
