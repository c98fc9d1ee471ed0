"""Where an AWS API is: whether an endpoint is on this machine. No SDK is loaded for it, and nothing is looked up."""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, by address or as `localhost`.

    >>> is_loopback("http://127.0.0.1:5000"), is_loopback("http://[::1]/"), is_loopback("https://ec2.amazonaws.com")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def endpoint_of(environ: Mapping[str, str], raw: Mapping[str, object]) -> str | None:
    """Return the AWS endpoint that the program's calls would reach; None is AWS itself.

    There are two doors, the provider's `aws:endpoints` and the SDK's environment (AWS SDKs and Tools Reference Guide,
    "Service-specific endpoints"): if any of them leads elsewhere than to this machine, that one is the answer. Dynamic
    resources see only the environment, so `aws:endpoints` alone does not keep a program away from AWS.
    """
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    base = environ.get("AWS_ENDPOINT_URL") or None
    special = [url for name, url in environ.items() if name.startswith("AWS_ENDPOINT_URL_") and url]
    configured = decode(raw.get("aws:endpoints"))
    entries = configured if isinstance(configured, list) else [configured]
    special += [str(url) for entry in entries if isinstance(entry, dict) for url in entry.values() if url]
    return next((url for url in special if not is_loopback(url)), base)


def decode(value: object) -> object:
    """Pulumi hands structured values over as JSON; anything else stays what it is and is judged as that."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
