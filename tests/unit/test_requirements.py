"""The pinned packages are those the code imports, and all they need. Does not prove that they can be downloaded."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

from tests.unit.test_imports import MAY_USE, imported, sources

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME: list[str] = PROJECT["project"]["dependencies"]
DEV: list[str] = PROJECT["dependency-groups"]["dev"]

#: Needed without being imported: the build of the editable install.
TOOLS = {"setuptools"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(wanted: Iterable[str]) -> set[str]:
    return {canonical(Requirement(line).name) for line in wanted}


def pinned(file: str) -> list[str]:
    return [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]


def distributions(paths: Iterable[Path]) -> set[str]:
    """Packages that files import from, as a package index calls them."""
    known = packages_distributions()
    tops = {name for path in paths for _, name in imported(ast.parse(path.read_text()))}
    # `google` is shared by several packages: any one of those asked for will do.
    return {canonical(name) for top in tops - {"google"} for name in known.get(top, ()) if top not in own()}


def own() -> set[str]:
    return {*MAY_USE, "tests"}


def test_every_line_is_one_exact_version() -> None:
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in pinned(file):
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line), f"{file}: {line}"


def test_what_the_code_imports_is_asked_for() -> None:
    found = distributions(path for _, path in sources(ROOT))
    assert found - names(RUNTIME) - {"urllib3"} == set()  # urllib3: the agent's, on the gateway, where boto3 brings it.


def test_what_is_asked_for_is_imported() -> None:
    found = distributions(path for _, path in sources(ROOT))
    assert names(RUNTIME) - found - TOOLS - {"protobuf"} == set()


def test_what_the_tests_import_is_asked_for() -> None:
    assert distributions((ROOT / "tests").rglob("*.py")) - names([*RUNTIME, *DEV]) == set()


def test_what_is_asked_for_is_pinned() -> None:
    assert names(RUNTIME) <= names(pinned("requirements.txt"))
    assert names(DEV) <= names([*pinned("requirements.txt"), *pinned("requirements-dev.txt")])


def test_this_python_is_one_of_those_supported() -> None:
    assert sys.version_info >= (3, 11)
    assert PROJECT["project"]["requires-python"] == ">=3.11"
