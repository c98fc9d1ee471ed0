"""User-Mode Linux runs from the cache, with the C library beside it. tests/lab/aws/test_uml.py boots it."""

from pathlib import Path

import pytest

from lab.errors import ImageError
from lab.machines import uml_kernel
from lab.paths import CACHE_VARIABLE

INTERPRETER = b"/lib64/ld-linux-x86-64.so.2\0"


def test_only_the_interpreter_of_the_program_becomes_the_one_beside_it() -> None:
    program = uml_kernel.use_interpreter_beside(b"ELF head" + INTERPRETER + b"code")
    assert program == b"ELF head" + b"./ld-linux-x86-64.so.2\0".ljust(len(INTERPRETER), b"\0") + b"code"


@pytest.mark.parametrize("program", [b"ELF of another processor", INTERPRETER * 2], ids=["none", "two"])
def test_a_program_of_another_kind_is_refused(program: bytes) -> None:
    with pytest.raises(ImageError, match=r"linux\.uml does not name /lib64/ld-linux-x86-64\.so\.2 once"):
        uml_kernel.use_interpreter_beside(program)


def test_a_kernel_that_was_not_fetched_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(ImageError, match="not in the cache"):
        uml_kernel.find()
    (tmp_path / f"uml-{uml_kernel.recipe_digest()}" / "modules" / "7.2.7").mkdir(parents=True)
    assert uml_kernel.find().modules.name == "7.2.7"
