"""The endpoint that the environment names, on this machine or elsewhere.

Does not prove what a host name resolves to: only `localhost` is trusted by name.
"""

import json

import pytest

from endpoint import Endpoint, endpoint_of, is_loopback, remote_endpoint

LOOPBACK, AWS = "http://127.0.0.1:5000", "https://ssm.eu-west-1.amazonaws.com"


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


@pytest.mark.parametrize(
    ("environ", "raw", "expected"),
    [
        ({}, {}, None),
        ({"AWS_ENDPOINT_URL": LOOPBACK}, {}, LOOPBACK),
        ({"AWS_ENDPOINT_URL": ""}, {}, None),
        ({"AWS_ENDPOINT_URL": LOOPBACK, "AWS_ENDPOINT_URL_SSM": AWS}, {}, AWS),
        ({"AWS_ENDPOINT_URL": LOOPBACK, "AWS_ENDPOINT_URL_SSM": LOOPBACK}, {}, LOOPBACK),
        ({"AWS_ENDPOINT_URL": LOOPBACK, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, {}, None),
        ({"AWS_ENDPOINT_URL": LOOPBACK}, {"aws:endpoints": [{"ec2": LOOPBACK, "ssm": AWS}]}, AWS),
        ({"AWS_ENDPOINT_URL": LOOPBACK}, {"aws:endpoints": json.dumps([{"ec2": AWS}])}, AWS),
        ({"AWS_ENDPOINT_URL": LOOPBACK}, {"aws:endpoints": [{"ec2": LOOPBACK}]}, LOOPBACK),
        # Dynamic resources do not see this one.
        ({}, {"aws:endpoints": [{"ec2": LOOPBACK}]}, None),
    ],
)
def test_the_endpoint_that_calls_reach(environ: dict[str, str], raw: dict[str, object], expected: str | None) -> None:
    assert endpoint_of(environ, raw) == expected


@pytest.mark.parametrize(
    ("environ", "raw", "expected"),
    [
        ({}, {}, None),
        ({"AWS_ENDPOINT_URL": LOOPBACK, "AWS_ENDPOINT_URL_SSM": LOOPBACK}, {}, None),
        ({"AWS_ENDPOINT_URL": AWS}, {}, Endpoint("AWS_ENDPOINT_URL", AWS)),
        ({"AWS_ENDPOINT_URL": LOOPBACK, "AWS_ENDPOINT_URL_SSM": AWS}, {}, Endpoint("AWS_ENDPOINT_URL_SSM", AWS)),
        ({"AWS_ENDPOINT_URL": LOOPBACK}, {"aws:endpoints": [{"ssm": AWS}]}, Endpoint("aws:endpoints", AWS)),
        ({"AWS_ENDPOINT_URL": AWS, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"}, {}, None),
    ],
)
def test_a_remote_endpoint_is_named(environ: dict[str, str], raw: dict[str, object], expected: Endpoint | None) -> None:
    assert remote_endpoint(environ, raw) == expected
