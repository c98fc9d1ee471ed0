"""What the authority signs: every extension and its criticality, lifetimes, refusals, and what `openssl verify` says.

Does not prove: that OpenVPN accepts them (unit/openvpn/test_real_openvpn.py does).
"""

import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pki.authority import (
    BACKDATE,
    SAFE_NAME,
    Certificate,
    CertificateAuthority,
    Leaf,
    PkiError,
    is_same_authority,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("Test CA", 10 * YEAR, NOW)


def load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def extensions(pem: str) -> dict[type[x509.ExtensionType], tuple[bool, x509.ExtensionType]]:
    return {type(e.value): (e.critical, e.value) for e in load(pem).extensions}


def usages(pem: str) -> set[str]:
    critical, value = extensions(pem)[x509.KeyUsage]
    assert critical
    assert isinstance(value, x509.KeyUsage)
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(value, name)}


def request(
    common_name: str = "alice", key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | None = None
) -> tuple[str, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey]:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    hash_ = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    csr = x509.CertificateSigningRequestBuilder().subject_name(name)
    csr = csr.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return csr.sign(key, hash_).public_bytes(serialization.Encoding.PEM).decode(), key


def test_authority_may_sign_leaves_only(authority: CertificateAuthority) -> None:
    found = extensions(authority.certificate)
    assert found.keys() == {x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier}
    assert found[x509.BasicConstraints] == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert usages(authority.certificate) == {"key_cert_sign", "crl_sign"}
    assert not found[x509.SubjectKeyIdentifier][0]


@pytest.mark.parametrize("purpose", ["server", "client"])
def test_leaf_serves_one_purpose(authority: CertificateAuthority, purpose: str) -> None:
    issue = {"server": authority.issue_server, "client": authority.issue_client}[purpose]
    usage = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}[purpose]
    pem = issue("alice", YEAR, NOW).certificate
    found = extensions(pem)
    assert found.keys() == {
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectKeyIdentifier,
        x509.AuthorityKeyIdentifier,
    }
    assert found[x509.BasicConstraints] == (True, x509.BasicConstraints(ca=False, path_length=None))
    assert usages(pem) == {"digital_signature"}
    assert found[x509.ExtendedKeyUsage] == (False, x509.ExtendedKeyUsage([usage]))
    assert not found[x509.SubjectKeyIdentifier][0]
    assert not found[x509.AuthorityKeyIdentifier][0]


@pytest.mark.allow_subprocess
@pytest.mark.parametrize(
    ("issued", "purpose", "accepted"),
    [
        ("server", "sslserver", True),
        ("server", "sslclient", False),
        ("client", "sslclient", True),
        ("client", "sslserver", False),
    ],
)
def test_openssl_verifies_for_the_purpose(tmp_path: Path, issued: str, purpose: str, accepted: bool) -> None:
    now = datetime.now(UTC)
    authority = CertificateAuthority.create("Test CA", YEAR, now)
    leaf = {"server": authority.issue_server, "client": authority.issue_client}[issued]("alice", YEAR, now)
    (tmp_path / "ca").write_text(authority.certificate)
    (tmp_path / "leaf").write_text(leaf.certificate)
    argv = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca", "leaf"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (done.returncode == 0) == accepted, done.stdout + done.stderr
    assert accepted or "unsuitable certificate purpose" in done.stderr


def test_leaf_says_what_it_is(authority: CertificateAuthority) -> None:
    leaf = authority.issue_client("alice", YEAR, NOW)
    certificate = load(leaf.certificate)
    key = serialization.load_pem_private_key(leaf.key.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == certificate.public_key()
    assert certificate.subject.rfc4514_string() == "CN=alice"
    assert (leaf.common_name, leaf.serial) == ("alice", certificate.serial_number)
    assert leaf.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert (leaf.not_before, leaf.not_after) == (NOW - BACKDATE, NOW + YEAR)
    read = Certificate.read(leaf.certificate)
    assert {name: getattr(leaf, name) for name in read.__dataclass_fields__} == {
        name: getattr(read, name) for name in read.__dataclass_fields__
    }


def test_every_leaf_has_its_own_key_and_serial(authority: CertificateAuthority) -> None:
    leaves = [authority.issue_client("alice", YEAR, NOW) for _ in range(8)]
    assert len({leaf.key for leaf in leaves}) == len({leaf.serial for leaf in leaves}) == 8
    assert all(0 < leaf.serial < 2**159 for leaf in leaves)


def test_lifetimes(authority: CertificateAuthority) -> None:
    assert Certificate.read(authority.certificate).not_after == NOW + 10 * YEAR
    assert authority.issue_server("gateway", timedelta(days=825), NOW).not_after == NOW + timedelta(days=825)
    berlin = timezone(timedelta(hours=2))
    assert authority.issue_client("alice", YEAR, NOW.astimezone(berlin)).not_after == NOW + YEAR


def test_leaf_never_outlives_its_authority(authority: CertificateAuthority) -> None:
    assert authority.issue_client("alice", YEAR, NOW + 10 * YEAR - BACKDATE).not_after == NOW + 10 * YEAR
    with pytest.raises(PkiError, match="expired on 2039-12-31; make a new one"):
        authority.issue_client("alice", YEAR, NOW + 10 * YEAR)


def verify(directory: Path, authority: str, leaf: str, when: datetime, chain: str = "") -> str:
    """Return why OpenSSL does not verify a server's certificate at a moment; nothing if it does."""
    for name, text in (("ca", authority), ("leaf", leaf), ("chain", chain)):
        (directory / name).write_text(text)
    untrusted = ["-untrusted", "chain"] if chain else []
    argv = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(when.timestamp()))]
    done = subprocess.run(
        [*argv, *untrusted, "-CAfile", "ca", "leaf"], cwd=directory, capture_output=True, text=True, timeout=20
    )
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.allow_subprocess
def test_a_renewed_authority_verifies_what_it_has_signed_and_the_former_one_what_it_will(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    renewal, end = NOW + 9 * YEAR, NOW + 10 * YEAR
    renewed = authority.renew(10 * YEAR, renewal)
    former_leaf, leaf = (ca.issue_server("gateway", 2 * YEAR, renewal) for ca in (authority, renewed))
    certificates = authority.certificate, renewed.certificate
    assert load(certificates[0]).serial_number != load(certificates[1]).serial_number
    assert Certificate.read(renewed.certificate).not_after == renewal + 10 * YEAR
    for certificate in certificates:
        for issued in (former_leaf, leaf):
            assert verify(tmp_path, certificate, issued.certificate, end - timedelta(days=1)) == ""
    assert verify(tmp_path, renewed.certificate, leaf.certificate, end + timedelta(days=1)) == ""
    refusal = verify(tmp_path, authority.certificate, leaf.certificate, end + timedelta(days=1))
    assert "certificate has expired" in refusal


@pytest.mark.allow_subprocess
def test_an_authority_with_another_key_verifies_neither_and_cannot_be_cross_signed(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    """Decision 19: so the authority is renewed for the same key."""
    other = CertificateAuthority.create("Test CA", 10 * YEAR, NOW)
    leaf = other.issue_server("gateway", YEAR, NOW)
    assert "unable to get local issuer certificate" in verify(tmp_path, authority.certificate, leaf.certificate, NOW)
    # A certificate for the other authority that this one has signed; its path length allows only leaves.
    subject = load(other.certificate)
    other_key, signing_key = (
        serialization.load_pem_private_key(key.encode(), password=None) for key in (other.key, authority.key)
    )
    assert isinstance(other_key, ec.EllipticCurvePrivateKey) and isinstance(signing_key, ec.EllipticCurvePrivateKey)
    cross = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cross")]))
    cross = cross.issuer_name(load(authority.certificate).subject).public_key(other_key.public_key())
    cross = cross.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + YEAR)
    for extension in subject.extensions:
        cross = cross.add_extension(extension.value, extension.critical)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    cross = cross.add_extension(identifier, critical=False)
    chain = cross.sign(signing_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    crossed = CertificateAuthority(certificate=chain, key=other.key).issue_server("gateway", YEAR, NOW)
    refusal = verify(tmp_path, authority.certificate, crossed.certificate, NOW, chain)
    assert "path length constraint exceeded" in refusal


def test_only_certificates_for_one_name_and_key_are_of_one_authority(authority: CertificateAuthority) -> None:
    renewed = authority.renew(YEAR, NOW)
    assert is_same_authority(authority.certificate, renewed.certificate)
    other = CertificateAuthority.create("Test CA", YEAR, NOW)
    assert not is_same_authority(authority.certificate, other.certificate)
    with pytest.raises(PkiError, match="must be PEM"):
        is_same_authority(authority.certificate, "nonsense")


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1)])
def test_lifetime_that_is_over_is_refused(authority: CertificateAuthority, lifetime: timedelta) -> None:
    with pytest.raises(PkiError, match="lifetime"):
        authority.issue_client("alice", lifetime, NOW)


def test_time_without_zone_is_refused(authority: CertificateAuthority) -> None:
    with pytest.raises(PkiError, match="time zone"):
        authority.issue_client("alice", YEAR, NOW.replace(tzinfo=None))


@pytest.mark.parametrize("name", ["", "Alice", "../alice", "a b", "-a", ".a", "a/b", "a\n", "ä", "DEFAULT", "a" * 64])
def test_unsafe_names_are_refused(authority: CertificateAuthority, name: str) -> None:
    with pytest.raises(PkiError, match="not a valid common name"):
        authority.issue_client(name, YEAR, NOW)


@pytest.mark.parametrize("name", ["", "a" * 65])
def test_authority_s_name_has_a_length(name: str) -> None:
    with pytest.raises(PkiError, match="1 to 64"):
        CertificateAuthority.create(name, YEAR, NOW)


@given(st.from_regex(SAFE_NAME, fullmatch=True))
def test_safe_names_are_one_file_name_and_one_word(name: str) -> None:
    assert Path(name).name == name
    assert name.split() == [name]
    assert len(name.encode()) <= 63


def test_authority_is_the_same_made_again_from_its_text(authority: CertificateAuthority) -> None:
    again = CertificateAuthority(certificate=authority.certificate, key=authority.key)
    leaf = load(again.issue_client("alice", YEAR, NOW).certificate)
    leaf.verify_directly_issued_by(load(authority.certificate))


def test_keys_are_in_no_repr(authority: CertificateAuthority) -> None:
    leaf = authority.issue_client("alice", YEAR, NOW)
    for shown in (repr(authority), repr(leaf), str(leaf)):
        assert "PRIVATE" not in shown
    assert isinstance(leaf, Leaf)


@pytest.mark.parametrize("key", ["", "no key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"])
def test_broken_authority_is_refused_without_showing_its_key(authority: CertificateAuthority, key: str) -> None:
    with pytest.raises(PkiError) as caught:
        CertificateAuthority(certificate=authority.certificate, key=key).issue_client("alice", YEAR, NOW)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_authority_with_another_s_key_is_refused(authority: CertificateAuthority) -> None:
    other = CertificateAuthority.create("Other CA", YEAR, NOW)
    with pytest.raises(PkiError, match="does not belong"):
        CertificateAuthority(certificate=authority.certificate, key=other.key).issue_client("alice", YEAR, NOW)


def test_text_that_is_no_certificate_is_refused(authority: CertificateAuthority) -> None:
    with pytest.raises(PkiError, match="must be PEM") as caught:
        Certificate.read(authority.key)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("kind", [ec.SECP256R1(), ec.SECP384R1(), None], ids=["P-256", "P-384", "Ed25519"])
def test_request_is_signed_for_its_own_key(authority: CertificateAuthority, kind: ec.EllipticCurve | None) -> None:
    csr, key = request(key=ec.generate_private_key(kind) if kind else ed25519.Ed25519PrivateKey.generate())
    certificate = authority.sign_request(csr, "alice", YEAR, NOW)
    assert not isinstance(certificate, Leaf)
    assert load(certificate.certificate).public_key() == key.public_key()
    # What the request asked for beyond its key (here, to be an authority) is not granted.
    assert extensions(certificate.certificate)[x509.BasicConstraints][1] == x509.BasicConstraints(
        ca=False, path_length=None
    )
    assert extensions(certificate.certificate)[x509.ExtendedKeyUsage][1] == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH]
    )


def test_request_for_another_name_is_refused(authority: CertificateAuthority) -> None:
    with pytest.raises(PkiError, match="for 'CN=mallory'; it must be CN=alice"):
        authority.sign_request(request("mallory")[0], "alice", YEAR, NOW)


def test_request_that_is_not_signed_by_its_key_is_refused(authority: CertificateAuthority) -> None:
    csr = x509.load_pem_x509_csr(request()[0].encode()).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(csr.replace(b"alice", b"alicf"))
    with pytest.raises(PkiError, match="not signed by its own key"):
        authority.sign_request(forged.public_bytes(serialization.Encoding.PEM).decode(), "alicf", YEAR, NOW)


def test_weak_or_foreign_keys_are_refused(authority: CertificateAuthority) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    for key in (
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        dsa.generate_private_key(2048),
        ec.generate_private_key(ec.SECP256K1()),
    ):
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        with pytest.raises(PkiError, match="too weak or of an unknown kind"):
            authority.sign_request(csr.public_bytes(serialization.Encoding.PEM).decode(), "alice", YEAR, NOW)


@pytest.mark.parametrize("csr", ["", "no request", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_text_that_is_no_request_is_refused(authority: CertificateAuthority, csr: str) -> None:
    with pytest.raises(PkiError, match=r"cannot be read; it must be PEM"):
        authority.sign_request(csr, "alice", YEAR, NOW)
