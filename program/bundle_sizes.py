"""Refuse a client whose bundle is too long for an SSM parameter, before anything is created."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network

import pulumi

import contract
from components.parameter_quotas import BUNDLES_TO_S3
from components.register import ADVANCED_LIMIT, PARAMETER_LIMIT
from openvpn.bundle import render_bundle, render_key_file
from openvpn.profile import PROFILE_LIMIT, render_profile
from pki import tls_crypt
from pki.authority import Certificate, CertificateAuthority
from program.tunnel import tunnel_from_settings, with_ipv6, with_vpc_routes
from settings.model import Settings

#: As many characters as the values that AWS chooses can have: the gateway's address, and IPv6 ranges.
_ADDRESS, _PREFIX6, _VPC6 = "255.255.255.255", "ffff:ffff:ffff:ffff:ffff::/80", "ffff:ffff:ffff:ff00::/56"

#: Characters by which the certificates of two bundles with the same names differ at most: the lengths of serials and
#: signatures vary by a few bytes.
_VARIATION = 16


def check_bundle_sizes(
    settings: Settings, names: contract.Names, vpc: tuple[IPv4Network, ...], requests: Mapping[str, str]
) -> None:
    """Raise `pulumi.RunError` if a client's bundle does not fit a parameter.

    `vpc` has the VPC's ranges, `requests` the signing requests of clients, by name.
    """
    if settings.secrets.bundles == "s3":
        return
    tunnel = with_vpc_routes(tunnel_from_settings(settings), settings, vpc)
    if settings.tunnel.has_ipv6:
        tunnel = with_ipv6(tunnel, settings, _PREFIX6, _VPC6)
    is_intelligent = settings.secrets.tier == "intelligent"
    limit = ADVANCED_LIMIT if is_intelligent else PARAMETER_LIMIT
    for number, client in enumerate(settings.clients):
        hostname = settings.gateway.hostname
        fallback = _ADDRESS if hostname else None
        profile = render_profile(tunnel, hostname or _ADDRESS, names.server, client.name, fallback=fallback)
        request = requests.get(client.name)
        # The key of a request may be longer than those that are issued.
        if len(profile) <= PROFILE_LIMIT and request is None:
            continue
        length = len(profile) + _measure_keys(names, client.name, request)
        if length > limit:
            also = ", drawbridge:gateway.hostname" if hostname else ""
            remedy = f"shorten the client's name{also} or drawbridge:network.domain"
            if not is_intelligent:
                remedy += ", have SSM take longer ones: drawbridge:secrets.tier: intelligent"
            raise pulumi.RunError(
                f"drawbridge:clients[{number}]: the bundle of {client.name} would have {length} characters, but an SSM "
                f"parameter takes {limit}; {remedy}, {BUNDLES_TO_S3}"
            )


def _measure_keys(names: contract.Names, client: str, request: str | None) -> int:
    """Return the most characters of the certificates and keys in a client's bundle."""
    now, lifetime = datetime.now(UTC), timedelta(days=1)
    authority = CertificateAuthority.create(names.authority_name, lifetime, now)
    certificate: Certificate
    key: str | None
    if request is None:
        leaf = authority.issue_client(client, lifetime, now)
        certificate, key, profile = leaf, leaf.key, ""
    else:
        certificate, key = authority.sign_request(request, client, lifetime, now), None
        profile = render_key_file(client)
    wrapped = tls_crypt.client_key(tls_crypt.server_key(), str(certificate.serial).encode())
    return len(render_bundle(profile, authority.certificate, certificate.certificate, key, wrapped)) + _VARIATION
