"""Decide which AWS endpoint the environment and the configuration name, and whether it is on this machine.

No SDK is loaded, and no name is looked up.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

BASE = "AWS_ENDPOINT_URL"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The URL of an AWS API, and the variable or configuration key that names it."""

    source: str
    url: str

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.url)


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine, by address or as `localhost`.

    >>> is_loopback("http://127.0.0.1:5000"), is_loopback("http://[::1]/"), is_loopback("https://ec2.amazonaws.com")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def remote_endpoint(environ: Mapping[str, str], raw: Mapping[str, object] | None = None) -> Endpoint | None:
    """Return the first configured endpoint that is not on this machine; None if there is none."""
    return next((endpoint for endpoint in _configured(environ, raw or {}) if not endpoint.is_loopback), None)


def endpoint_of(environ: Mapping[str, str], raw: Mapping[str, object] | None = None) -> str | None:
    """Return the URL of the AWS endpoint that the program's calls would reach; None is AWS itself.

    Both the SDK's environment (AWS SDKs and Tools Reference Guide, "Service-specific endpoints") and the provider's
    `aws:endpoints` in the configuration `raw` count: if any of them is not on this machine, it is the answer. Dynamic
    resources see only the environment, so `aws:endpoints` alone does not keep a program away from AWS.
    """
    if _ignored(environ):
        return None
    remote = remote_endpoint(environ, raw)
    return remote.url if remote else environ.get(BASE) or None


def decode(value: object) -> object:
    """Return a structured value that Pulumi hands over as JSON; any other value is returned as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _ignored(environ: Mapping[str, str]) -> bool:
    return environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"


def _configured(environ: Mapping[str, str], raw: Mapping[str, object]) -> Iterator[Endpoint]:
    """Yield the endpoints of the services, then that of all others."""
    if _ignored(environ):
        return
    for name, url in environ.items():
        if name.startswith(f"{BASE}_") and url:
            yield Endpoint(name, url)
    value = decode(raw.get("aws:endpoints"))
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, dict):
            yield from (Endpoint("aws:endpoints", str(url)) for url in entry.values() if url)
    if base := environ.get(BASE):
        yield Endpoint(BASE, base)
