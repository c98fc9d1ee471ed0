"""Two states of one stack in one account: the second deployer's empty state takes nothing from the first."""

from pathlib import Path
from typing import Any

import pytest

import contract
from engine.engine import Engine
from tests.support.aws import REGION, Lab, endpoint, lab

__all__ = ["endpoint", "lab"]

NAMES = contract.Names("lab")
PROGRAM = """
    import contract
    from components.authority import Authority, AuthorityArgs

    config = pulumi.Config("demo")
    Authority(
        "authority",
        AuthorityArgs(
            names=contract.Names("lab"),
            region="eu-west-1",
            profiles=dict.fromkeys(config.require_object("clients"), "client\\n"),
            lifetimes={"ca": 3650, "server": 825, "client": 365},
        ),
    )
"""


def parameters(lab: Lab) -> dict[str, str]:
    pages = lab.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=NAMES.root, Recursive=True)
    return {parameter["Name"]: parameter["Value"] for page in pages for parameter in page["Parameters"]}


def deployer(lab: Lab, state: str, *clients: str) -> Engine:
    """Return the engine of a deployer who has a state of its own."""
    config: dict[str, Any] = {"aws:region": REGION, "clients": list(clients)}
    path: Path = lab.directory / state / "lab.json"
    return Engine(lab.directory, project="demo", stack="lab", config=config, state=path, events=lab.events.append)


@pytest.mark.fault("7.6")
def test_a_second_deployers_empty_state_takes_nothing_from_the_first(lab: Lab) -> None:
    lab.write(PROGRAM)
    first = deployer(lab, "first", "alice", "bob").up()
    before = parameters(lab)
    assert {NAMES.bundle("alice"), NAMES.bundle("bob"), NAMES.owner} <= before.keys()

    second = deployer(lab, "second", "carol")
    with pytest.raises(Exception, match=f"{NAMES.authority} belongs to another deployment of stack lab"):
        second.up()
    assert parameters(lab) == before
    second.destroy()
    assert parameters(lab) == before

    assert deployer(lab, "first", "alice", "bob").up().changes["same"] == first.changes["create"]
    deployer(lab, "first", "alice", "bob", "carol").up()
    assert parameters(lab).keys() > before.keys()
    deployer(lab, "first", "alice").destroy()
    assert parameters(lab) == {}
