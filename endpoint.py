"""Where an AWS API is: whether an endpoint is on this machine. No SDK is loaded for it, and nothing is looked up."""

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
