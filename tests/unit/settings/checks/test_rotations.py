"""Refusals of rotations of keys, in their exact words. Does not prove that a rotation replaces them."""

from typing import Any

import pytest

from tests.support.refusals import find_problems

REMEDY = "use one such as 2026-11-28T08:10:00Z"


@pytest.mark.parametrize(
    ("rotations", "expected"),
    [
        ("now", ": now must be keys with values; write them like {gateway: 2026-11-28T08:10:00Z}"),
        ({"gateway": "now"}, f".gateway: now is not a valid moment; {REMEDY}"),
        ({"stack": 2}, f".stack: 2 is not a valid moment; {REMEDY}"),
        ({"clients": {"alice": "now"}}, f".clients.alice: now is not a valid moment; {REMEDY}"),
        (
            {"clients": ["alice"]},
            ".clients: [alice] must be keys with values; write them like {alice: 2026-11-28T08:10:00Z}",
        ),
        (
            {"clients": {"alcie": "2026-11-28T08:10:00Z"}},
            ".clients.alcie: 2026-11-28T08:10:00Z is for a client that does not exist; "
            "use a name of drawbridge:clients, or leave it out",
        ),
        (
            {"renewals": ["alice"]},
            ".renewals: [alice] must be keys with values; write them like {alice: 2026-11-28T08:10:00Z}",
        ),
        (
            {"renewals": {"alcie": "2026-11-28T08:10:00Z"}},
            ".renewals.alcie: 2026-11-28T08:10:00Z is for a client that does not exist; "
            "use a name of drawbridge:clients, or leave it out",
        ),
        ({"gatway": "2026-11-28"}, ": gatway is not a known key; did you mean gateway?"),
    ],
)
def test_refused_rotations(rotations: Any, expected: str) -> None:
    assert find_problems(rotations=rotations, clients=[{"name": "alice"}]) == [f"drawbridge:rotations{expected}"]
