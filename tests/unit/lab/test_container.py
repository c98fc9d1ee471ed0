"""What the end of a command says of its container; processes are the test's."""

import itertools
import subprocess

import pytest

from lab.errors import MachineDown
from lab.machines import container


@pytest.mark.parametrize("status", [-9, 137])
def test_a_command_that_is_killed_before_its_container_went_down_with_it(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut kills processes in no order."""
    done = subprocess.CompletedProcess(["sleep", "1"], status, "", "")
    monkeypatch.setattr(container, "find_memory_group", lambda leader: None)
    monkeypatch.setattr(container, "run_while", lambda *_: done)
    monkeypatch.setattr(container, "_POWER_CUT_SECONDS", 0.1)
    answers = itertools.chain([True, True], itertools.repeat(False))
    monkeypatch.setattr(container, "is_up", lambda leader: next(answers))
    with pytest.raises(MachineDown, match="went down before `sleep 1` had ended"):
        container.execute(1, ["sleep", "1"])
    monkeypatch.setattr(container, "is_up", lambda leader: True)
    assert container.execute(1, ["sleep", "1"]) is done, "the control: somebody else killed it"
