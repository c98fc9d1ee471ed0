"""Writes requirements.txt and requirements-dev.txt from what this environment has installed.

Run it with .venv/bin/python after installing a newer version of something. What the code asks for stands in
pyproject.toml; here every package that those need, on any Python we support, gets its exact version.
"""

import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")


def canonical(name: str) -> str:
    """A project's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """Whether a dependency is needed, on any of `PYTHONS`, with any of the extras asked for."""
    if requirement.marker is None:
        return True
    return any(
        requirement.marker.evaluate({"extra": extra, "python_version": python, "python_full_version": f"{python}.0"})
        for extra in extras | {""}
        for python in PYTHONS
    )


def closure(wanted: list[str]) -> dict[str, str]:
    """Name -> version of all that `wanted` needs, itself included. Raises PackageNotFoundError for what is missing."""
    versions: dict[str, str] = {}
    todo = [Requirement(line) for line in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = (canonical(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found = distribution(requirement.name)
        versions[key[0]] = found.version
        todo += [need for line in found.requires or [] if applies(need := Requirement(line), requirement.extras)]
    return versions


def files() -> dict[str, str]:
    """The two files' texts by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = closure(project["project"]["dependencies"])
    dev = closure(project["dependency-groups"]["dev"])
    return {
        "requirements.txt": text("What Drawbridge runs on", runtime),
        "requirements-dev.txt": text(
            "What checks and tests need besides", {name: dev[name] for name in dev.keys() - runtime.keys()}
        ),
    }


def text(title: str, versions: dict[str, str]) -> str:
    """One requirements file."""
    return (
        "\n".join([f"# {title}. Written by tools/pin.py.", *(f"{n}=={v}" for n, v in sorted(versions.items()))]) + "\n"
    )


def main() -> int:
    """Writes the files; with --check, writes nothing and exits 1 if they would change."""
    stale = [
        name for name, content in files().items() if not (path := ROOT / name).exists() or path.read_text() != content
    ]
    if sys.argv[1:] == ["--check"]:
        if stale:
            print(f"{' and '.join(stale)}: not what is installed; run .venv/bin/python tools/pin.py", file=sys.stderr)
        return bool(stale)
    for name, content in files().items():
        (ROOT / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
