"""Compare the pinned packages with what the code imports. Does not prove that they can be downloaded."""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.sources import PACKAGES, PYPROJECT, ROOT, imports, python_files, source_files

RUNTIME: list[str] = PYPROJECT["project"]["dependencies"]
DEV: list[str] = PYPROJECT["dependency-groups"]["dev"]

#: Needed without an import: the build of the editable install.
TOOLS = {"setuptools"}


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: Iterable[str]) -> set[str]:
    return {canonical(Requirement(line).name) for line in requirements}


def pinned(file: str) -> list[str]:
    return [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]


def distributions(paths: Iterable[Path]) -> set[str]:
    """Return the installed packages that files import from, by the names an index gives them."""
    providers = packages_distributions()
    modules = (
        {name for path in paths for _, name in imports(path)} - PACKAGES - {path.stem for path in ROOT.glob("*.py")}
    )
    # `google` is shared by several packages: any one of those that are required will do.
    return {canonical(name) for module in modules - {"google"} for name in providers.get(module, ())}


def test_every_line_is_one_exact_version() -> None:
    for file in ("requirements.txt", "requirements-dev.txt", "requirements-docs.txt"):
        for line in pinned(file):
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line), f"{file}: {line}"


def test_every_import_of_the_code_is_a_dependency() -> None:
    # urllib3 is the agent's: it runs on the gateway, where boto3 brings it. pytest is there where it loads its plugin.
    assert distributions(source_files()) - names(RUNTIME) - {"urllib3", "pytest"} == set()


def test_every_dependency_is_imported() -> None:
    assert names(RUNTIME) - distributions(source_files()) - TOOLS - {"protobuf"} == set()


def test_every_import_of_the_tests_is_a_dependency() -> None:
    assert distributions(python_files(ROOT / "tests")) - names([*RUNTIME, *DEV]) == set()


def test_every_dependency_is_pinned() -> None:
    assert names(RUNTIME) <= names(pinned("requirements.txt"))
    assert names(PYPROJECT["dependency-groups"]["docs"]) <= names(pinned("requirements-docs.txt"))
    assert names(DEV) <= names([*pinned("requirements.txt"), *pinned("requirements-dev.txt")])


def test_this_python_is_one_of_those_supported() -> None:
    assert sys.version_info >= (3, 11)
    assert PYPROJECT["project"]["requires-python"] == ">=3.11"
