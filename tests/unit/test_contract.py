"""The names that program, gateway and operator share are what they are; that each uses them is not shown here."""

import doctest

import contract
from contract import Names


def test_examples() -> None:
    assert doctest.testmod(contract).failed == 0


def test_what_the_gateway_may_read_is_apart_from_what_it_may_not() -> None:
    names = Names("dev")
    readable = {names.release, *(names.secret(name) for name in contract.GATEWAY_SECRETS)}
    private = {names.keys, names.issued, names.authority, names.bundle("gateway"), names.clients}
    assert not any(path.startswith(f"{names.gateway}/") for path in private)
    assert all(path.startswith(f"{names.root}/") for path in readable | private)


def test_stacks_share_no_name() -> None:
    one, other = Names("dev"), Names("dev2")
    assert one.release_key("x") == other.release_key("x")  # in buckets of their own
    assert one.bucket("1", "r") != other.bucket("1", "r")
    assert not other.root.startswith(f"{one.root}/")


def test_the_longest_bucket_name_fits() -> None:
    assert len(Names("x" * 20).bucket("123456789012", "ap-southeast-1")) <= 63
