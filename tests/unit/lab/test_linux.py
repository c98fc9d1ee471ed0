"""Commands that run while something holds."""

from pathlib import Path

import pytest

from lab.linux import run_while

pytestmark = pytest.mark.allow_subprocess


def test_a_command_that_begins_to_read_late_gets_all_of_its_input(tmp_path: Path) -> None:
    """The input is larger than a pipe, and the command reads it only after the condition was checked twice."""
    checked_twice = tmp_path / "checked-twice"
    checks = 0

    def count_check() -> bool:
        nonlocal checks
        checks += 1
        if checks > 1:
            checked_twice.touch()
        return True

    command = ["sh", "-c", 'until [ -e "$0" ]; do sleep 0.05; done; wc -c', str(checked_twice)]
    done = run_while(count_check, command, 30, "x" * 1_000_000)
    assert done is not None and done.stdout == "1000000\n"


@pytest.mark.parametrize(("stdin", "stdout"), [("some text", "some text"), ("", "")])
def test_a_command_that_ends_returns_what_it_wrote(stdin: str, stdout: str) -> None:
    done = run_while(lambda: True, ["cat"], 30, stdin)
    assert done is not None and (done.stdout, done.returncode) == (stdout, 0)


def test_a_command_is_killed_when_the_condition_no_longer_holds() -> None:
    checks = iter([True, False])
    assert run_while(lambda: next(checks), ["sleep", "1000"], 30, None) is None
