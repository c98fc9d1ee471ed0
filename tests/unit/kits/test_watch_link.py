"""The restarts that a tunnel's watcher asks for.

Does not prove that it receives answers: tests/lab/worlds/test_links_pair.py does.
"""

import importlib.machinery
import importlib.util
import struct
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "kits/files/links/etc/drawbridge/watch-link"
MAC, BOND = bytes.fromhex("02aabbccddee"), bytes.fromhex("021122334455")


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("watch_link", str(SCRIPT))
    spec = importlib.util.spec_from_loader("watch_link", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["watch_link"] = module
    loader.exec_module(module)
    return module


watch = load()


def restarts(policy: object, seconds: range, *, carrier: bool = True, heard: range = range(0)) -> list[int]:
    """The seconds at which the policy asks for a restart; `heard` are those in which the far end answers."""
    times = []
    for now in seconds:
        if policy.record_beat(float(now), carrier=carrier):  # type: ignore[attr-defined]
            times.append(now)
        if now in heard:
            policy.record_answer()  # type: ignore[attr-defined]
    return times


@pytest.mark.seed("1.12")
def test_five_beats_without_an_answer_start_the_tunnel_again() -> None:
    assert restarts(watch.RestartPolicy(), range(40), heard=range(30)) == [34]


def test_a_tunnel_that_has_just_come_up_gets_fifteen_seconds() -> None:
    assert restarts(watch.RestartPolicy(), range(16)) == [15]


def test_while_it_answers_it_is_left_alone_and_one_answer_forgives_all() -> None:
    assert restarts(watch.RestartPolicy(), range(1000), heard=range(0, 1000, 4)) == []


def test_a_tunnel_that_is_down_is_not_policyd() -> None:
    assert restarts(watch.RestartPolicy(), range(1000), carrier=False) == []


def test_where_it_does_not_help_it_waits_ever_longer_but_never_gives_up() -> None:
    times = restarts(watch.RestartPolicy(), range(2000))
    pauses = [b - a for a, b in pairwise(times)]

    assert pauses[:5] == [15, 30, 60, 120, 240] and set(pauses[5:]) == {300}


def test_frames_of_a_probe_come_from_an_address_that_no_device_has() -> None:
    assert watch.probe_mac(MAC) not in (MAC, BOND) and watch.probe_mac(MAC)[0] & 3 == 2
    assert watch.is_answer(watch.heartbeat(MAC, BOND), MAC, "")


def test_an_arp_probe_is_one_and_only_its_own_answer_counts() -> None:
    sender, gateway = watch.probe_mac(MAC), bytes([10, 0, 0, 254])
    probe = watch.arp_probe(MAC, "10.0.0.254")
    reply = sender + BOND + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 2) + BOND + gateway + sender + b"\0" * 4

    assert len(probe) == 42 and probe[28:32] == b"\0" * 4 and probe[38:] == gateway
    assert watch.is_answer(reply, MAC, "10.0.0.254")
    assert not watch.is_answer(reply, BOND, "10.0.0.254")
    assert not watch.is_answer(probe, MAC, "10.0.0.254")
