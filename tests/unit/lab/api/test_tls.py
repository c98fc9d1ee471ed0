"""Certificates of the lab's endpoints, as clients verify them in a TLS handshake in memory."""

import ssl

import pytest

from lab.api.tls import EndpointAuthority


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Return the issuer of the certificate that the client accepted for a host name."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = client_side.getpeercert()
    assert certificate
    return str(certificate["issuer"])


@pytest.fixture(scope="module")
def authority() -> EndpointAuthority:
    return EndpointAuthority()


@pytest.mark.parametrize(
    "name",
    [
        "ssm.eu-west-1.amazonaws.com",
        "bucket-1.s3.eu-west-1.amazonaws.com",
        "a.bucket.with.dots.s3.eu-west-1.amazonaws.com",
        f"{'long-' * 12}bkt.s3.ap-southeast-1.amazonaws.com",
    ],
)
def test_each_host_name_gets_a_certificate_of_its_own(authority: EndpointAuthority, name: str) -> None:
    client = ssl.create_default_context(cadata=authority.certificate)
    issuer = shake_hands(authority.create_server_context(), client, name)
    assert "AWS lab" in issuer and "Drawbridge" not in issuer


def test_a_client_that_does_not_trust_the_authority_refuses() -> None:
    client = ssl.create_default_context(cadata=EndpointAuthority().certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(EndpointAuthority().create_server_context(), client, "sts.amazonaws.com")
