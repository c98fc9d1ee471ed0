"""Who imports whom, over syntax trees. Does not see what is imported by a name made at run time."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: For each part of the project, the parts it may use. Nobody uses the program, and `drawbridge` only who measures.
MAY_USE: dict[str, frozenset[str]] = {
    "contract": frozenset(),
    "endpoint": frozenset(),
    "settings": frozenset({"endpoint"}),
    "pki": frozenset(),
    "openvpn": frozenset({"pki"}),
    "userdata": frozenset({"openvpn", "contract"}),
    "kits": frozenset({"openvpn", "contract", "userdata"}),
    "components": frozenset({"userdata", "openvpn", "pki", "contract"}),
    "program": frozenset({"settings", "components", "contract", "userdata", "openvpn", "kits"}),
    "__main__": frozenset({"program", "settings", "userdata"}),
    "engine": frozenset({"endpoint"}),
    "lab": frozenset({"endpoint"}),
    "drawbridge": frozenset({"contract", "endpoint", "settings", "pki", "openvpn", "kits", "lab", "engine"}),
    "bench": frozenset({"drawbridge", "lab", "openvpn"}),
}

#: Libraries that belong to one part, so that the others stay free of what they bring.
ONLY_IN: dict[str, frozenset[str]] = {
    "pulumi_aws": frozenset({"components"}),
    "cryptography": frozenset({"pki", "lab", "engine"}),
    "paramiko": frozenset({"drawbridge"}),
    "click": frozenset({"drawbridge"}),
    "rich": frozenset({"drawbridge"}),
    "moto": frozenset({"lab"}),
}

#: Commands are thin: what is below them neither parses arguments nor prints.
COMMANDS = ("drawbridge/commands/", "drawbridge/__main__.py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and first name of every absolute import, wherever in the file it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, (node.module or "").partition(".")[0]


def is_python(path: Path) -> bool:
    """A module, or a script that says so in its first line."""
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as file:
        return b"python" in file.readline()


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Every Python file of the project's parts, with the part's name."""
    for part in MAY_USE:
        if (module := root / f"{part}.py").is_file():
            yield part, module
        for path in sorted((root / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and is_python(path):
                yield part, path


def violations(root: Path) -> list[str]:
    """`file:line: what` for every import that the rules forbid."""
    found = []
    for part, path in sources(root):
        where = path.relative_to(root).as_posix()
        for line, name in imported(ast.parse(path.read_text(), str(path))):
            if name in MAY_USE and name != part and name not in MAY_USE[part]:
                found.append(f"{where}:{line}: {part} may not use {name}")
            if name in ONLY_IN and part not in ONLY_IN[name]:
                found.append(f"{where}:{line}: {name} belongs to {', '.join(sorted(ONLY_IN[name]))}")
            if name in {"click", "rich"} and part == "drawbridge" and not where.startswith(COMMANDS):
                found.append(f"{where}:{line}: only commands use {name}")
        if path.name == "__init__.py" and code_of(path):
            found.append(f"{where}: has code; it may hold a docstring")
    return found


def code_of(path: Path) -> list[ast.stmt]:
    """Statements of a module beyond its docstring."""
    return [
        node
        for node in ast.parse(path.read_text()).body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def test_everybody_keeps_to_the_rules() -> None:
    assert violations(ROOT) == []


def test_every_part_is_looked_at() -> None:
    assert {part for part, _ in sources(ROOT)} == set(MAY_USE)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("pki/a.py", "import components", "pki/a.py:1: pki may not use components"),
        ("lab/a.py", "def f():\n    from drawbridge.x import y", "lab/a.py:2: lab may not use drawbridge"),
        ("lab/a.py", "import settings, contract", "lab/a.py:1: lab may not use contract"),
        ("contract.py", "import pki.authority", "contract.py:1: contract may not use pki"),
        ("lab/a.py", "import pulumi_aws.ec2 as ec2", "lab/a.py:1: pulumi_aws belongs to components"),
        ("userdata/files/run", "#!/usr/bin/python3\nimport lab", "userdata/files/run:2: userdata may not use lab"),
        ("drawbridge/a.py", "import click", "drawbridge/a.py:1: only commands use click"),
        ("pki/__init__.py", '"""Words."""\nX = 1', "pki/__init__.py: has code; it may hold a docstring"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, told: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert told in violations(tmp_path)


def test_what_is_allowed_is_not_reported(tmp_path: Path) -> None:
    for file, text in {
        "components/a.py": "import pulumi_aws\nfrom pki.authority import X\nfrom . import b",
        "drawbridge/commands/a.py": "import click\nfrom lab import region",
        "pki/__init__.py": '"""Words."""',
        "lab/data": "import pulumi_aws",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert violations(tmp_path) == []
