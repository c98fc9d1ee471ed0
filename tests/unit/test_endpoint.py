"""Which endpoints are on this machine. Does not prove what a name resolves to: none but `localhost` is believed."""

import pytest

from endpoint import is_loopback


@pytest.mark.parametrize("url", ["http://127.0.0.1:5000", "http://127.9.9.9", "https://[::1]:1/x", "http://localhost"])
def test_this_machine(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://ec2.eu-west-1.amazonaws.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "127.0.0.1:5000",
        "",
    ],
)
def test_elsewhere_or_no_url(url: str) -> None:
    assert not is_loopback(url)
