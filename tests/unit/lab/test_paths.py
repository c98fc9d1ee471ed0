"""Labs that begin and end at once share the directories above their own."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.paths import create_in_private


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
