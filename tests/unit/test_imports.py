"""Check the import rules: those of pyproject.toml by import-linter, and what it cannot see here, over syntax trees.

import-linter reads the modules of packages. It does not read single modules at the root, scripts that are copied to
machines, or whether an `__init__.py` holds code. Neither sees a module imported by a name computed at run time.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import PACKAGES, PYPROJECT, ROOT, imports, python_files

#: For each single module at the root, the packages it may import.
ROOT_MODULES: dict[str, frozenset[str]] = {
    "contract": frozenset(),
    "endpoint": frozenset(),
    "images": frozenset(),
    "subnets": frozenset(),
    "__main__": frozenset({"program", "settings", "userdata"}),
    "setup": frozenset(),
}

#: Directories whose files run on a gateway or on a client's machine, where the project is not installed.
SCRIPTS = ("userdata/files", "kits/files")


def holds_code(path: Path) -> bool:
    """Return whether a module has a statement besides its docstring."""
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.parse(path.read_text()).body
    )


def violations(root: Path) -> list[str]:
    """Return `file:line: reason` for every import that breaks a rule, and `file: reason` for code in `__init__.py`."""
    problems = []
    project = PACKAGES | set(ROOT_MODULES)
    for module, allowed in ROOT_MODULES.items():
        path = root / f"{module}.py"
        if path.is_file():
            problems += [
                f"{path.name}:{line}: {module} may not import {name}"
                for line, name in imports(path)
                if name in project - allowed
            ]
    for scripts in SCRIPTS:
        for path in python_files(root / scripts):
            problems += [
                f"{path.relative_to(root)}:{line}: {name} is not installed where this script runs"
                for line, name in imports(path)
                if name in project
            ]
    for package in sorted(PACKAGES):
        problems += [
            f"{path.relative_to(root)}: only a docstring may stand in __init__.py"
            for path in sorted((root / package).rglob("__init__.py"))
            if holds_code(path)
        ]
    return problems


def write(root: Path, file: str, text: str) -> None:
    """Write a file below a directory, with the directories it lies in."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_project_keeps_the_rules_that_import_linter_cannot_see() -> None:
    assert violations(ROOT) == []


def test_every_package_and_root_module_has_a_rule() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests"}
    assert packages == PACKAGES
    assert {path.stem for path in ROOT.glob("*.py")} <= set(ROOT_MODULES)
    assert all((ROOT / scripts).is_dir() for scripts in SCRIPTS)


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("contract.py", "import pki.authority", "contract.py:1: contract may not import pki"),
        ("__main__.py", "import os\nfrom lab import region", "__main__.py:2: __main__ may not import lab"),
        ("userdata/files/a.py", "import contract", "userdata/files/a.py:1: contract is not installed"),
        ("userdata/files/run", "#!/usr/bin/python3\nimport lab", "userdata/files/run:2: lab is not installed"),
        ("kits/files/x/a.py", "def f():\n    from openvpn import y", "kits/files/x/a.py:2: openvpn is not installed"),
        ("pki/__init__.py", '"""Words."""\nX = 1', "pki/__init__.py: only a docstring"),
        ("lab/api/__init__.py", "from lab.api import iam", "lab/api/__init__.py: only a docstring"),
    ],
)
def test_a_planted_violation_is_reported(tmp_path: Path, file: str, text: str, problem: str) -> None:
    write(tmp_path, file, text)
    assert [report for report in violations(tmp_path) if report.startswith(problem)]


def test_what_is_allowed_is_not_reported(tmp_path: Path) -> None:
    for file, text in {
        "contract.py": "from dataclasses import dataclass",
        "userdata/files/a.py": "import boto3",
        "userdata/files/data": "import lab",
        "pki/__init__.py": '"""Words."""',
    }.items():
        write(tmp_path, file, text)
    assert violations(tmp_path) == []


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the packages of a directory, by the contracts in its pyproject.toml."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)


#: For each contract, a file with an import that breaks it.
PLANTED = [
    ("pki/planted.py", "import components.vault", "Packages import downwards"),
    ("kits/planted.py", "from lab import linux", "The program and its parts know neither the lab nor the engine"),
    ("lab/planted.py", "def f():\n    from drawbridge import errors", "Only bench and tests import drawbridge"),
    ("kits/planted.py", "from settings import model", "Only the program and the command import settings"),
    ("drawbridge/operate/planted.py", "import components.vault", "Only the program imports components"),
    ("engine/planted.py", "import contract", "The lab, the engine and what computes do not know the contract"),
    ("kits/planted.py", "import endpoint", "Who asks where an AWS endpoint is"),
    ("engine/planted.py", "import pulumi_aws.ec2 as ec2", "Only components import pulumi_aws"),
    ("settings/planted.py", "import pulumi", "Settings import Pulumi only where they are read from it"),
    ("openvpn/planted.py", "import cryptography", "Only pki, the engine's state and the lab's API import cryptography"),
    ("lab/planted.py", "import paramiko", "Only the command imports paramiko"),
    ("drawbridge/operate/planted.py", "import click", "Only commands parse arguments and print"),
    ("engine/planted.py", "import moto", "Only the lab's API imports moto"),
    ("lab/machines/planted.py", "import lab.api.iam", "Floors of the lab"),
    ("drawbridge/operate/planted.py", "import drawbridge.commands.output", "Floors of the command"),
    ("tests/support/planted.py", "import tests.conftest", "Floors of the tests"),
    ("tests/lab/aws/planted.py", "import tests.lab.aws.test_uml", "No test module of the lab imports another"),
    ("pki/planted.py", "from pki import ssh, planted2", "No circles"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the packages and the contracts to a directory of their own."""
    root = tmp_path_factory.mktemp("project")
    for package in sorted(PACKAGES):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for module in [*ROOT.glob("*.py"), ROOT / "pyproject.toml"]:
        shutil.copy(module, root)
    return root


@pytest.mark.allow_subprocess  # import-linter reads a project from its working directory.
def test_the_project_keeps_the_contracts(copy: Path) -> None:
    lint = lint_imports(copy)
    assert lint.returncode == 0, lint.stdout


@pytest.mark.allow_subprocess
@pytest.mark.parametrize(("file", "text", "contract"), PLANTED)
def test_a_planted_import_breaks_its_contract(copy: Path, file: str, text: str, contract: str) -> None:
    write(copy, file, text)
    second = copy / "pki" / "planted2.py"
    if "planted2" in text:
        second.write_text("from pki import planted")
    try:
        lint = lint_imports(copy)
    finally:
        (copy / file).unlink()
        second.unlink(missing_ok=True)
    assert lint.returncode == 1
    assert f"{contract} BROKEN" in " ".join(lint.stdout.split())


def test_every_contract_is_broken_by_a_planted_import() -> None:
    assert {contract for *_, contract in PLANTED} == {
        contract["name"] for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
    }
