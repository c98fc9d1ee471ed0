"""Read the project's own Python files: which there are, what they import, and scripts as modules."""

import ast
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

#: Every package of the project, tests too.
PACKAGES: frozenset[str] = frozenset(PYPROJECT["tool"]["importlinter"]["root_packages"])


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and top-level name of every absolute import of a file, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, (node.module or "").partition(".")[0]


def python_files(directory: Path) -> Iterator[Path]:
    """Yield every Python file below a directory, scripts without a suffix too."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and is_python(path):
            yield path


def is_python(path: Path) -> bool:
    """Return whether a file is a module, or a script whose first line names Python."""
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as file:
        return b"python" in file.readline()


def source_files() -> Iterator[Path]:
    """Yield every Python file of the project that is no test."""
    yield from sorted(ROOT.glob("*.py"))
    for package in sorted(PACKAGES - {"tests"}):
        yield from python_files(ROOT / package)


def load_script(path: Path) -> ModuleType:
    """Return a script as it is on the machine, a module of no package; each call runs it anew."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
