"""Labs that begin and end at once share the directories above their own."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import region
from lab.errors import InvalidName, LabError
from lab.paths import LabPaths, create_in_private


@contextlib.contextmanager
def ending_labs(directory: Path) -> Iterator[None]:
    """Remove a directory again and again while it is empty, as a lab that ends does."""
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                directory.rmdir()

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lab_begins_while_others_end(tmp_path: Path) -> None:
    labs = tmp_path / "labs"
    with ending_labs(labs):
        for number in range(300):
            create_in_private(labs, (labs / str(number)).mkdir)
            assert (labs / str(number)).is_dir()
            (labs / str(number)).rmdir()


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs").chmod(0o777)
    with pytest.raises(LabError, match="must be a directory that belongs to root"):
        create_in_private(tmp_path / "labs", lambda: None)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "-x", "Lab", "läb", "a\n", "a" * 21])
@pytest.mark.parametrize("command", [region.connect, region.down, region.start])
def test_a_name_outside_of_a_labs_own_directory_is_refused(
    name: str, command: Callable[[str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lab's directory is removed with it: without a name it would be that of all labs."""
    paths = LabPaths(tmp_path / "labs", tmp_path / "run")
    monkeypatch.setattr(region, "PATHS", paths)
    # Whatever a command removes or starts, it does under this lock.
    monkeypatch.setattr(region, "_open_lock", lambda path: pytest.fail(f"creates {path}"))
    monkeypatch.setattr(region, "require_privileges", lambda: None)
    with pytest.raises(InvalidName, match="is not a valid name of a lab"):
        command(name)
    assert not paths.run.exists()
    assert paths.directory("try1a2b3c") == paths.root / "try1a2b3c", "while a name is taken"
