"""Plan this program over stacks that an earlier version deployed: nothing may be replaced, deleted or orphaned.

`deployed/` has what the version of commit b31793c left in the engine's state: a resource a line, without archives, and
with certificates that do not expire. Does not prove that AWS accepts the plan.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.engine import Engine, Step
from engine.state import Entry, Snapshot, Store
from settings.stack_file import read_stack_file
from tests.program.conftest import ROOT

DEPLOYED = Path(__file__).with_name("deployed")

#: Resources that a new version may replace, with the inputs that make it do so: a release is stored under its digest,
#: and an instance applies its user data only when it is created. Stacks of that version also get the newest image,
#: because they have not pinned theirs.
REPLACEABLE = {"vault-release": {"key", "contentBase64"}, "gateway-instance": {"userData", "ami"}}

#: Resources that stacks of that version lack.
NEW = {
    "authority-owner",
    "connection-log-group",
    "firewall-fragmentation-0.0.0.0/0",
    "gateway-image-arm64",
    "secrets-key",
    "secrets-alias",
    "vault-kit-digest-home",
}

#: Updates of any such stack: the authority gets an owner, and its public host key is unknown until then.
UPDATED = {"access-policy", "authority-certificates", "authority-ssh-host-key", "vault-pointer"}

Plan = Callable[[str], list[Step]]


@pytest.fixture
def plan(endpoint: str, tmp_path: Path) -> Plan:
    """Return a function that plans a stack over its deployed state, with an AWS that answers look-ups only."""

    def preview(stack: str) -> list[Step]:
        state = tmp_path / f"{stack}.json"
        rows = json.loads((DEPLOYED / f"{stack}.json").read_text())
        Store(state).save(Snapshot([deployed_entry(row) for row in rows]))
        config = read_stack_file(ROOT / f"stacks/Pulumi.{stack}.yaml")
        engine = Engine(ROOT, project="drawbridge", stack=stack, config=config, state=state)
        return [step for step in engine.preview().steps if step.operation != "same"]

    return preview


def deployed_entry(row: dict[str, Any]) -> Entry:
    """Return a resource of the state; a row's outputs are those that are not inputs."""
    inputs = row.get("inputs", {})
    return Entry(
        urn=row["urn"],
        type=row["urn"].split("::")[2].rpartition("$")[2],
        custom=row["custom"],
        id=row.get("id", ""),
        inputs=inputs,
        outputs={**inputs, **row.get("outputs", {})},
        parent=row.get("parent", ""),
        dependencies=tuple(row.get("dependencies", ())),
    )


def updated(steps: list[Step]) -> dict[str, tuple[str, ...]]:
    """Return the changed inputs of each updated resource; fails on operations not in `REPLACEABLE` or `NEW`."""
    for step in steps:
        if step.operation == "replace":
            assert set(step.changed) <= REPLACEABLE[any_gateway(step)], step
        elif step.operation == "create":
            assert any_gateway(step) in NEW, step
        else:
            assert step.operation == "update", step
    return {any_gateway(step): step.changed for step in steps if step.operation == "update"}


def any_gateway(step: Step) -> str:
    """Return a resource's name without the letter of a pair's second gateway."""
    return step.name.replace("-b-", "-")


def test_a_deployed_gateway_stays(plan: Plan) -> None:
    assert set(updated(plan("lab"))) <= UPDATED


def test_a_deployed_site_gets_the_new_tag_and_keeps_its_rules(plan: Plan) -> None:
    changes = updated(plan("site"))
    rules = {name: changed for name, changed in changes.items() if name.startswith("firewall-")}
    assert rules == {"firewall-door-ssh": ("tags",), "firewall-door-tunnel/home": ("tags",)}
    assert set(changes) - set(rules) <= UPDATED | {"vault-kit-home", "member-home-policy"}


def test_a_deployed_pair_stays(plan: Plan) -> None:
    assert set(updated(plan("pair"))) <= UPDATED
