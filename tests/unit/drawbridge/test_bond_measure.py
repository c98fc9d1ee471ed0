"""What is made of the output of pings. Does not prove that ping prints it so."""

import pytest

from drawbridge.trial.bond_measure import parse_loss
from lab.errors import LabError


def printed(*streams: set[int]) -> str:
    lines = [
        line
        for number, answered in enumerate(streams, 1)
        for line in (f"stream {number}", *(f"64 bytes from 10.0.0.2: icmp_seq={n} ttl=64 time=1 ms" for n in answered))
    ]
    return "\n".join(lines)


def test_what_is_lost_and_the_longest_gap_of_any_stream() -> None:
    found = parse_loss(printed({1, 2, 3, 4, 5}, {1, 5}), 5)
    assert (found.sent, found.lost, round(found.gap, 1)) == (10, 3, 0.3)


def test_answers_beyond_those_that_count_make_up_for_none() -> None:
    found = parse_loss(printed({1, 2, 4, 5, 6, 7, 8}), 5)
    assert (found.sent, found.lost, round(found.gap, 1)) == (5, 1, 0.1)


def test_no_pings_are_no_good_news() -> None:
    with pytest.raises(LabError, match="no ping was sent"):
        parse_loss("ping: not found", 5)
