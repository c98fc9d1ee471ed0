"""Refusals of lifetimes of certificates, in their exact words. Does not prove that AWS and OpenVPN agree."""

from typing import Any

import pytest

from tests.support.refusals import find_problems


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"lifetimes": {"ca": 10, "server": 5, "client": 11}},
            "lifetimes.client: 11 is longer than drawbridge:lifetimes.ca 10; use 10 or less",
        ),
        (
            {"lifetimes": {"ca": 10, "server": 5, "client": 5}, "clients": [{"name": "alice", "days": 11}]},
            "clients[0].days: 11 is longer than drawbridge:lifetimes.ca 10; use 10 or less",
        ),
    ],
)
def test_refused_lifetimes(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]
