"""Signing requests that a stack file names. Does not prove that OpenVPN takes the certificates: see test_issuer.py."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from program import certificate_requests
from program.certificate_requests import read_requests
from settings.model import Settings
from settings.parse import parse
from settings.problems import SettingsError
from tests.support.requests import create_request


def settings_with(*clients: dict[str, Any]) -> Settings:
    return parse({"aws:region": "eu-west-1", "drawbridge:clients": [*clients]}, stack="dev", endpoint=None)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's directory."""
    monkeypatch.setattr(certificate_requests, "ROOT", tmp_path)
    return tmp_path


def test_requests_are_read_by_relative_and_absolute_paths(directory: Path) -> None:
    (directory / "requests").mkdir()
    texts = {name: create_request(name)[0] for name in ("alice", "bob")}
    for name, text in texts.items():
        (directory / "requests" / f"{name}.csr").write_text(text)
    settings = settings_with(
        {"name": "alice", "csr": "requests/alice.csr"},
        {"name": "bob", "csr": str(directory / "requests" / "bob.csr")},
        {"name": "carol"},
    )
    assert read_requests(settings) == texts


def flip_signature(text: str) -> str:
    """Return a request with another bit in its signature."""
    lines = text.splitlines()
    lines[-2] = ("A" if lines[-2][0] != "A" else "B") + lines[-2][1:]
    return "\n".join(lines) + "\n"


GOOD = create_request("alice")[0]

BAD = {
    "cut": (GOOD[:200].encode(), "cannot be read; it must be PEM, PKCS #10"),
    "empty": (b"", "cannot be read; it must be PEM, PKCS #10"),
    "a key": (b"-----BEGIN " + b"PRIVATE KEY-----\nSECRETAAAA\n", "cannot be read; it must be PEM, PKCS #10"),
    "DER": (b"0\x82\x01\xff", "is not a signing request in PEM"),
    "name": (create_request("mallory")[0].encode(), "is for 'CN=mallory'; it must be CN=alice"),
    "curve": (create_request("alice", ec.generate_private_key(ec.SECP256K1()))[0].encode(), "of an unknown kind"),
    "weak": (
        create_request("alice", rsa.generate_private_key(public_exponent=65537, key_size=1024))[0].encode(),
        "too weak",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_request_that_cannot_be_signed_is_refused_with_what_creates_one(directory: Path, kind: str) -> None:
    content, reason = BAD[kind]
    (directory / "alice.csr").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_requests(settings_with({"name": "alice", "csr": "alice.csr"}))
    assert str(caught.value).startswith("drawbridge:clients[0].csr: alice.csr ")
    assert reason in str(caught.value) and "openssl req -new" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_wrong_signature_is_refused(directory: Path) -> None:
    (directory / "alice.csr").write_text(flip_signature(GOOD))
    with pytest.raises(SettingsError, match=r"is not signed by its own key|cannot be read"):
        read_requests(settings_with({"name": "alice", "csr": "alice.csr"}))


def test_all_files_that_are_missing_are_named_at_once(directory: Path) -> None:
    (directory / "folder").mkdir()
    settings = settings_with({"name": "alice", "csr": "gone.csr"}, {"name": "bob", "csr": "folder"})
    with pytest.raises(SettingsError) as caught:
        read_requests(settings)
    first, second = caught.value.problems
    assert (first.key, first.reason) == ("drawbridge:clients[0].csr", "cannot be read: No such file or directory")
    assert (second.key, second.reason) == ("drawbridge:clients[1].csr", "cannot be read: Is a directory")
