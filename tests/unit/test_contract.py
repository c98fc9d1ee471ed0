"""The names that program, gateway and operator share are what they are; that each uses them is not shown here."""

import doctest

import pytest

import contract
from contract import Names


def test_examples() -> None:
    assert doctest.testmod(contract).failed == 0


def test_what_the_gateway_may_read_is_apart_from_what_it_may_not() -> None:
    names = Names("dev")
    readable = {names.release, *(names.secret(name) for name in contract.GATEWAY_SECRETS)}
    private = {names.keys, names.issued, names.authority, names.bundle("gateway"), names.clients}
    assert not any(path.startswith(f"{names.secrets}/") for path in private)
    assert all(path.startswith(f"{names.root}/") for path in readable | private)


def test_stacks_share_no_name() -> None:
    one, other = Names("dev"), Names("dev2")
    assert one.release_key("x") == other.release_key("x")  # in buckets of their own
    assert one.bucket("1", "r") != other.bucket("1", "r")
    assert not other.root.startswith(f"{one.root}/")


def test_the_longest_bucket_name_fits() -> None:
    assert len(Names("x" * 20).bucket("123456789012", "ap-southeast-1")) <= 63


@pytest.mark.parametrize("letter", ["b", "c", "z"])
def test_gateway_a_has_the_stacks_own_names_and_any_other_names_apart_from_them(letter: str) -> None:
    first, further = Names("duo"), Names("duo", letter)
    assert first == Names("duo", contract.GATEWAYS[0])
    assert (first.root, first.resource("network"), first.server) == ("/drawbridge/duo", "network", "duo.drawbridge")
    assert further.root == f"{first.root}/{letter}"
    assert further.resource("network") == f"network-{letter}"
    assert further.server == f"{letter}.{first.server}"
    assert further.releases == f"{letter}/{first.releases}"
    assert further.metrics == f"{first.metrics}/{letter}"
    assert further.tags("gateway") == {**first.tags("gateway"), "Name": f"drawbridge-duo-gateway-{letter}"}
    # The stack's bucket is shared.
    assert further.bucket("1", "r") == first.bucket("1", "r")
