"""Refusals of alarms, in their exact words. Does not prove that somebody reads mail at an address."""

from typing import Any

import pytest

from settings.model import Gateway
from tests.support.refusals import find_problems

EXAMPLE = "use one such as operator@example.com"


@pytest.mark.parametrize("email", ["operator@example.com", "a.b+drawbridge@mail.example.co.uk"])
def test_accepted_addresses(email: str) -> None:
    assert find_problems(alerts={"email": email}) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"alerts": {"email": "operator"}}, f"email: operator is not a valid e-mail address; {EXAMPLE}"),
        ({"alerts": {"email": "a@b@example.com"}}, f"email: a@b@example.com is not a valid e-mail address; {EXAMPLE}"),
        ({"alerts": {"email": "a b@example.com"}}, f"email: a b@example.com is not a valid e-mail address; {EXAMPLE}"),
        (
            {"alerts": {"email": "operator@example.com"}, "gateway": {"metrics": "off"}},
            "metrics: off leaves the alarms of drawbridge:alerts without metrics; "
            "use basic or full, or remove drawbridge:alerts",
        ),
    ],
)
def test_a_refusal_is_one_error(sections: dict[str, Any], expected: str) -> None:
    (line,) = find_problems(**sections)
    assert line.endswith(expected)


@pytest.mark.parametrize("sections", [{"alerts": {}}, {"alerts": {"email": f"{'a' * 64}@{'b.' * 100}com"}}])
def test_a_missing_or_overlong_address_is_one_error(sections: dict[str, Any]) -> None:
    (line,) = find_problems(**sections)
    assert "drawbridge:alerts.email" in line


@pytest.mark.parametrize(
    ("instance_type", "recoverable"),
    [("t4g.nano", True), ("t3.micro", True), ("c7i-flex.large", True), ("m7gd.large", False), ("c5.metal", False)],
)
def test_which_instances_move_to_another_host(instance_type: str, recoverable: bool) -> None:
    assert Gateway.model_validate({"instanceType": instance_type}).is_recoverable is recoverable
