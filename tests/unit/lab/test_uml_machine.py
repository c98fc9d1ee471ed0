"""A machine of User-Mode Linux is down when its kernel says so, also when the kernel's process goes on."""

import subprocess
from pathlib import Path

import pytest

from lab.machines import uml
from lab.machines.uml import UmlMachine

pytestmark = pytest.mark.allow_subprocess


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "_LAST_LOOP_SECONDS", 0.3)


def wait_down(directory: Path, script: str) -> int:
    """Return what the machine's watcher gets for a kernel that is a shell script with its console as output."""
    machine = UmlMachine("lab", "lab-machine", directory, "none", ())
    machine.console.write_text("reboot: Restarting system\n")  # of the boot before
    with machine.console.open("ab") as console:
        process = subprocess.Popen(["sh", "-c", f"sleep 0.2; {script}"], stdout=console, start_new_session=True)
    try:
        return machine._wait_down(process)
    finally:
        process.kill()
        process.wait()


def test_a_kernel_that_does_not_end_after_its_last_words_is_killed(tmp_path: Path) -> None:
    assert wait_down(tmp_path, "echo 'reboot: Restarting system'; exec sleep 600") == -9


def test_a_kernel_that_ends_by_itself_is_not(tmp_path: Path) -> None:
    assert wait_down(tmp_path, "sleep 1; exit 3") == 3
    assert wait_down(tmp_path, "echo 'reboot: Power down'; exit 0") == 0
