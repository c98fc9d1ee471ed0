"""The lab's resolver, message by message. Does not prove who can ask it."""

import dns.message
import dns.rcode
import pytest

from lab.dns import answer, lookup


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("ssm.eu-west-1.amazonaws.com", "192.0.2.10"),
        ("SSM.eu-west-1.AMAZONAWS.com.", "192.0.2.10"),
        ("s3.eu-west-1.amazonaws.com", "52.216.0.10"),
        ("bucket.of.mine.s3.eu-west-1.amazonaws.com", "52.216.0.10"),
        ("mirror.lab", "192.0.2.20"),
        ("example.org", None),
        ("amazonaws.com.example.org", None),
    ],
)
def test_which_names_there_are(name: str, address: str | None) -> None:
    assert lookup(name) == address


def test_a_question_is_answered_by_kind() -> None:
    def ask(name: str, kind: str) -> dns.message.Message:
        found = answer(dns.message.make_query(name, kind).to_wire())
        assert found
        return dns.message.from_wire(found)

    assert ask("mirror.lab", "A").answer[0][0].to_text() == "192.0.2.20"
    assert ask("mirror.lab", "AAAA").answer == []
    assert ask("mirror.lab", "AAAA").rcode() == dns.rcode.NOERROR
    assert ask("example.org", "A").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("noise", [b"", b"x", b"\xff" * 40])
def test_noise_is_not_answered(noise: bytes) -> None:
    assert answer(noise) is None
