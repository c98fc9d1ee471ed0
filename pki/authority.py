"""A certificate authority and what it signs: keys on P-256, PEM text in and out.

Source: RFC 5280 for extensions and their criticality; openvpn(8) `--remote-cert-tls` for the key usages it asks for.
Keys are left out of every repr and error.
"""

import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self, TypeGuard

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Certificates are valid from a day before they are signed: a machine whose clock is behind can use them at once.
BACKDATE = timedelta(days=1)

#: Names that are safe as a common name, as a file name and in a shell.
SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class PkiError(ValueError):
    """A name, key, certificate or request that cannot be used; the message never holds key material."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """A signed certificate and what is worth knowing of it."""

    certificate: str
    """PEM."""
    common_name: str
    serial: int
    """Positive, at most 20 bytes; OpenVPN names files of revoked serials by its decimal form."""
    fingerprint: str
    """SHA-256 of the DER form, lower-case hex."""
    not_before: datetime
    not_after: datetime

    @property
    def issued(self) -> datetime:
        """Return the time of its signature, by the clock of whoever signed it."""
        return self.not_before + BACKDATE

    @staticmethod
    def read(certificate: str) -> "Certificate":
        """Return what a PEM certificate says; raises `PkiError`."""
        return _describe(_load_certificate(certificate))


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf(Certificate):
    """A certificate together with its private key (PEM, PKCS #8, not encrypted)."""

    key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateAuthority:
    """A certificate that signs others, and its private key: both PEM, to be kept and made again from there."""

    certificate: str
    key: str = field(repr=False)

    @classmethod
    def create(cls, common_name: str, lifetime: timedelta, now: datetime) -> Self:
        """Return a new authority, valid until `now + lifetime`; it may sign leaves, and no other authority.

        `now` must know its time zone. Raises `PkiError` for a common name or lifetime that cannot be.
        """
        if not 1 <= len(common_name) <= 64:
            raise PkiError(f"the authority's common name has {len(common_name)} characters; give it 1 to 64")
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(certificate=_certify_authority(_name(common_name), key, lifetime, now), key=_key_pem(key))

    def renew(self, lifetime: timedelta, now: datetime) -> Self:
        """Return the authority with another certificate, valid until `now + lifetime`, for the same name and key.

        Either certificate verifies all that the authority has signed and will sign, until it ends itself: a chain is
        built by the name of the issuer and the identifier of its key (RFC 5280, 4.2.1.1). `now` must know its time
        zone. Raises `PkiError` for a lifetime that cannot be and for a key that is not the certificate's.
        """
        name, key = _load_certificate(self.certificate).subject, self._signing_key()
        return replace(self, certificate=_certify_authority(name, key, lifetime, now))

    def issue_server(self, common_name: str, lifetime: timedelta, now: datetime) -> Leaf:
        """Return a new key and a certificate for it that clients accept of a server; otherwise as `issue_client`."""
        return self._issue(common_name, ExtendedKeyUsageOID.SERVER_AUTH, lifetime, now)

    def issue_client(self, common_name: str, lifetime: timedelta, now: datetime) -> Leaf:
        """Return a new key and a certificate for it that servers accept of a client.

        It is valid until `now + lifetime`, and never longer than the authority. `common_name` is a `SAFE_NAME`; `now`
        knows its time zone. Raises `PkiError` for a name that is not safe, a lifetime that cannot be, an authority that
        has expired.
        """
        return self._issue(common_name, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime, now)

    def sign_request(self, csr_pem: str, common_name: str, lifetime: timedelta, now: datetime) -> Certificate:
        """Return a client's certificate for the key in its PEM signing request, of which nothing else is used.

        Raises `PkiError` as `issue_client` and `check_request` do.
        """
        public_key = _read_request(csr_pem, common_name)
        return _describe(self._sign(common_name, public_key, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime, now))

    def _issue(self, common_name: str, purpose: x509.ObjectIdentifier, lifetime: timedelta, now: datetime) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(common_name, key.public_key(), purpose, lifetime, now)
        return Leaf(**asdict(_describe(certificate)), key=_key_pem(key))

    def _sign(
        self,
        common_name: str,
        public_key: "_PublicKey",
        purpose: x509.ObjectIdentifier,
        lifetime: timedelta,
        now: datetime,
    ) -> x509.Certificate:
        _check_common_name(common_name)
        issuer = _load_certificate(self.certificate)
        start, end = _validity(lifetime, now)
        if now >= issuer.not_valid_after_utc:
            raise PkiError(f"the authority expired on {issuer.not_valid_after_utc:%Y-%m-%d}; make a new one")
        identity = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_name(common_name), issuer.subject, public_key, (start, min(end, issuer.not_valid_after_utc)))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
        )
        return builder.sign(self._signing_key(), hashes.SHA256())

    def _signing_key(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self.key.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Without the cause, which could quote the key.
            raise PkiError("the authority's key cannot be read; it must be PEM, not encrypted") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PkiError("the authority's key is on no elliptic curve")
        if key.public_key() != _load_certificate(self.certificate).public_key():
            raise PkiError("the authority's key does not belong to its certificate")
        return key


def is_same_authority(first: str, second: str) -> bool:
    """Return whether two certificates (PEM) are of one authority: for the same name and key; raises `PkiError`."""
    former, latter = _load_certificate(first), _load_certificate(second)
    return former.subject == latter.subject and former.public_key() == latter.public_key()


def check_request(csr_pem: str, common_name: str) -> None:
    """Raise `PkiError` for a PEM signing request that no certificate can be issued for.

    It is broken, not signed by its own key, made for another name, or has a key other than P-256, P-384, Ed25519 or RSA
    of at least 2,048 bits.
    """
    _read_request(csr_pem, common_name)


def certifies(certificate: str, csr_pem: str, common_name: str) -> bool:
    """Return whether a certificate is for the key of a signing request; raises `PkiError`."""
    return _load_certificate(certificate).public_key() == _read_request(csr_pem, common_name)


def _read_request(csr_pem: str, common_name: str) -> "_PublicKey":
    """Return the public key of a signing request; raises `PkiError`."""
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed = request.is_signature_valid
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        # Without the cause, for the text might be a key by mistake.
        raise PkiError(f"the signing request of {common_name} cannot be read; it must be PEM, PKCS #10") from None
    if not signed:
        raise PkiError(f"the signing request of {common_name} is not signed by its own key")
    if request.subject != _name(common_name):
        raise PkiError(f"the signing request is for {request.subject.rfc4514_string()!r}; it must be CN={common_name}")
    if not _acceptable(public_key):
        raise PkiError(f"the key of {common_name} is too weak or of an unknown kind; make one on P-256")
    return public_key


def self_signed(common_name: str, lifetime: timedelta, now: datetime) -> Leaf:
    """Return a key and a certificate that nobody vouches for, to be known by its fingerprint; raises `PkiError`."""
    _check_common_name(common_name)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    certificate = (
        _builder(name, name, key.public_key(), _validity(lifetime, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Leaf(**asdict(_describe(certificate)), key=_key_pem(key))


_PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def _acceptable(key: object) -> TypeGuard[_PublicKey]:
    match key:
        case ec.EllipticCurvePublicKey():
            return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        case rsa.RSAPublicKey():
            return key.key_size >= 2048
        case _:
            return isinstance(key, ed25519.Ed25519PublicKey)


def _certify_authority(name: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta, now: datetime) -> str:
    builder = (
        _builder(name, name, key.public_key(), _validity(lifetime, now))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False), critical=True)
    )
    return _pem(builder.sign(key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: _PublicKey, validity: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _validity(lifetime: timedelta, now: datetime) -> tuple[datetime, datetime]:
    if now.tzinfo is None:
        raise PkiError("the time of signing has no time zone; use datetime.now(UTC)")
    if lifetime <= timedelta(0):
        raise PkiError(f"a lifetime of {lifetime} is over before it starts; give it at least a day")
    now = now.astimezone(UTC).replace(microsecond=0)
    return now - BACKDATE, now + lifetime


def _check_common_name(common_name: str) -> None:
    if not SAFE_NAME.fullmatch(common_name):
        raise PkiError(
            f"{common_name!r} is not a valid common name; use at most 63 of a-z 0-9 . _ -, first a letter or digit"
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, sign: bool) -> x509.KeyUsage:
    """A leaf signs handshakes; an authority signs certificates and revocation lists."""
    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=not sign,
        crl_sign=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _describe(certificate: x509.Certificate) -> Certificate:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        certificate=_pem(certificate),
        common_name=str(names[0].value) if names else "",
        serial=certificate.serial_number,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _load_certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        # Without the cause, for the text might be a key by mistake.
        raise PkiError("the certificate cannot be read; it must be PEM") from None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
