"""The lab's resolver, message by message. Does not prove that a VPC's packets come to it."""

import socket

import dns.message
import dns.rcode
import pytest

from lab import wsgi
from lab.network.dns import PrivateZone, Records, answer, lookup, serve_names


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


WIDE = PrivateZone(
    "example.internal",
    {
        ("a.example.internal", "A"): Records(60, ("10.0.0.1", "10.0.0.2")),
        ("deep.under.example.internal", "TXT"): Records(60, ('"x"',)),
        ("www.example.internal", "CNAME"): Records(30, ("a.example.internal.",)),
        ("out.example.internal", "CNAME"): Records(30, ("mirror.lab",)),
        ("loop.example.internal", "CNAME"): Records(30, ("loop.example.internal",)),
        ("*.wild.example.internal", "A"): Records(60, ("10.0.0.9",)),
        ("here.wild.example.internal", "TXT"): Records(60, ('"x"',)),
        ("bad.example.internal", "A"): Records(60, ("no address",)),
    },
)
NARROW = PrivateZone("n.example.internal", {("a.n.example.internal", "A"): Records(60, ("10.9.9.9",))})


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a.example.internal", "A", "10.0.0.1 10.0.0.2"),
        ("A.Example.Internal", "A", "10.0.0.1 10.0.0.2"),
        ("a.example.internal", "AAAA", ""),
        ("under.example.internal", "A", ""),  # nothing of its own, but there are names below it
        ("www.example.internal", "A", "a.example.internal. 10.0.0.1 10.0.0.2"),
        ("www.example.internal", "CNAME", "a.example.internal."),
        ("out.example.internal", "A", "mirror.lab. 192.0.2.20"),
        ("any.wild.example.internal", "A", "10.0.0.9"),
        ("more.any.wild.example.internal", "A", "10.0.0.9"),
        ("here.wild.example.internal", "A", ""),  # a name that is there hides the wildcard
        ("none.example.internal", "A", "NXDOMAIN"),
        ("a.n.example.internal", "A", "10.9.9.9"),
        ("b.n.example.internal", "A", "NXDOMAIN"),  # the narrower zone has the last word
        ("xexample.internal", "A", "NXDOMAIN"),
        ("mirror.lab", "A", "192.0.2.20"),
        ("bad.example.internal", "A", "SERVFAIL"),
    ],
)
def test_what_a_private_zone_answers(name: str, kind: str, expected: str) -> None:
    assert asked(name, kind, WIDE, NARROW) == expected


def test_a_name_that_leads_to_itself_is_answered_all_the_same() -> None:
    assert "loop.example.internal." in asked("loop.example.internal", "A", WIDE)


def asked(name: str, kind: str, *zones: PrivateZone) -> str:
    found = answer(dns.message.make_query(name, kind).to_wire(), zones)
    assert found
    reply = dns.message.from_wire(found)
    values = [value.to_text() for records in reply.answer for value in sorted(records)]
    return " ".join(values) if reply.rcode() == dns.rcode.NOERROR else dns.rcode.to_text(reply.rcode())


@pytest.mark.parametrize("noise", [b"", b"x", b"\xff" * 40])
def test_noise_is_not_answered(noise: bytes) -> None:
    assert answer(noise) is None


def test_who_is_not_welcome_is_not_answered() -> None:
    """A VPC's resolver serves the VPC's own addresses; here those are 127.0.0.1 and no other of this machine's."""
    question = dns.message.make_query("a.example.internal", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        serve_names(bound, lambda: [WIDE], lambda address: address == "127.0.0.1")
        answered = {}
        for source in ("127.0.0.2", "127.0.0.1"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
                caller.bind((source, 0))
                caller.settimeout(5 if source == "127.0.0.1" else 0.3)
                caller.sendto(question, bound.getsockname())
                try:
                    answered[source] = bool(dns.message.from_wire(caller.recv(4096)).answer)
                except TimeoutError:
                    answered[source] = False
    assert answered == {"127.0.0.2": False, "127.0.0.1": True}


def test_the_thread_ends_with_its_socket(recwarn: pytest.WarningsRecorder) -> None:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    thread = serve_names(bound)
    wsgi.close(bound)
    thread.join(10)
    assert not thread.is_alive()
    assert [str(warning.message) for warning in recwarn] == [], "pytest warns of a thread that raises"
