"""Refusals of the section `iam`, in their exact words. Does not prove that AWS agrees."""

from typing import Any

import pytest

from contract import Names
from tests.support.refusals import BONDED, find_problems

SITE = {"name": "home", "lan": ["192.168.1.0/24"], "at": "203.0.113.7"}
NO_POLICY = (
    "is not a valid ARN of a managed policy; use one such as arn:aws:iam::123456789012:policy/drawbridge-boundary"
)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"clients": [{"name": "a" * 50, "lan": ["192.168.1.0/24"]}]},
            f"clients[0].name: {'a' * 50} is too long for the IAM user drawbridge-dev-…, whose name would have "
            "65 characters; use at most 49 characters",
        ),
        (
            {"iam": {"users": "none"}, "clients": [SITE]},
            "clients[0].at: 203.0.113.7 is an address that the client's kit updates as an IAM user, but "
            "drawbridge:iam.users is none; leave it out and let 203.0.113.7/32 in with drawbridge:gateway.allowFrom, "
            "or use iam.users: kits",
        ),
        ({"iam": {"users": "some"}}, "iam.users: some is not a valid value; use kits or none"),
        ({"iam": {"users": False}}, "iam.users: false is not a valid value; use kits or none"),
        ({"iam": "none"}, "iam: none must be keys with values; write them like {users: none}"),
        ({"iam": {"user": "none"}}, "iam: user is not a known key; did you mean users?"),
        *(
            ({"iam": {"permissionsBoundary": arn}}, f"iam.permissionsBoundary: {arn} {NO_POLICY}")
            for arn in (
                "drawbridge-boundary",
                "arn:aws:iam::123456789012:role/drawbridge-boundary",
                "arn:aws:iam::12345:policy/drawbridge-boundary",
                "arn:aws:iam::123456789012:policy/",
                "arn:aws:iam:eu-west-1:123456789012:policy/x",
                f"arn:aws:iam::123456789012:policy/{'x' * 129}",
            )
        ),
    ],
)
def test_the_words_of_a_refusal(sections: dict[str, Any], expected: str) -> None:
    assert find_problems(**sections) == [f"drawbridge:{expected}"]


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::123456789012:policy/drawbridge-boundary",
        "arn:aws:iam::123456789012:policy/platform/eu/Boundary+1",
        "arn:aws:iam::aws:policy/PowerUserAccess",
        "arn:aws-us-gov:iam::123456789012:policy/x",
    ],
)
def test_a_managed_policy_is_a_boundary(arn: str) -> None:
    assert find_problems(iam={"permissionsBoundary": arn}) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"clients": [{"name": "home", "lan": ["192.168.1.0/24"]}]},
        {"clients": [{"name": "home", "lan": ["192.168.1.0/24"], "system": "linux"}, {"name": "a" * 63}]},
        # `drawbridge access allow-me` updates these addresses, with its operator's permissions.
        {"gateway": {"adminAt": "203.0.113.7"}},
        {"clients": [{"name": "pc", "system": "windows", "at": "203.0.113.7"}]},
        {"tunnel": BONDED, "clients": [{"name": "a" * 63}]},
    ],
)
def test_what_needs_no_user_is_possible_without(sections: dict[str, Any]) -> None:
    assert find_problems(iam={"users": "none"}, **sections) == []


@pytest.mark.parametrize(
    ("stack", "longest", "extra"),
    [
        ("production-eu", 39, {"tunnel": BONDED}),
        ("production-eu", 39, {"clients": {"at": "203.0.113.7"}}),
        ("dev", 49, {"clients": {"lan": ["192.168.1.0/24"]}}),
    ],
)
def test_a_client_with_a_kit_has_a_name_that_iam_takes(stack: str, longest: int, extra: dict[str, Any]) -> None:
    def find(length: int) -> list[str]:
        client = {"name": "r" * length, **extra.get("clients", {})}
        return find_problems(stack, clients=[client], **{"tunnel": extra["tunnel"]} if "tunnel" in extra else {})

    assert find(longest) == []
    assert len(Names(stack).kit_user("r" * longest)) == 64
    (line,) = find(54)
    assert line == (
        f"drawbridge:clients[0].name: {'r' * 54} is too long for the IAM user drawbridge-{stack}-…, whose name would "
        f"have {len(Names(stack).kit_user('r' * 54))} characters; use at most {longest} characters"
    )


def test_a_client_without_a_kit_may_have_a_long_name() -> None:
    assert find_problems("production-eu", clients=[{"name": "r" * 63}]) == []
