"""Write requirements.txt and requirements-dev.txt from the versions this environment has installed.

Run it with .venv/bin/python after installing a newer version of a package. pyproject.toml lists what the code
imports; the requirements files pin those packages, and all that they need on any supported Python, to one version each.
`build/docs/venv/bin/python tools/pin.py docs` writes requirements-docs.txt, for the environment that builds the site.
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
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """Return whether a dependency is needed on any of `PYTHONS`, with any of these extras."""
    if requirement.marker is None:
        return True
    return any(
        requirement.marker.evaluate({"extra": extra, "python_version": python, "python_full_version": f"{python}.0"})
        for extra in extras | {""}
        for python in PYTHONS
    )


def closure(requirements: list[str]) -> dict[str, str]:
    """Return name -> version of these requirements and all that they need.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    versions: dict[str, str] = {}
    todo = [Requirement(line) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = (canonical(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        installed = distribution(requirement.name)
        versions[key[0]] = installed.version
        todo += [need for line in installed.requires or [] if applies(need := Requirement(line), requirement.extras)]
    return versions


def files(*, docs: bool) -> dict[str, str]:
    """Return the text of each file, by its name: of the file for the documentation's site, or of the others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if docs:
        site = closure(project["dependency-groups"]["docs"])
        return {"requirements-docs.txt": text("What builds the documentation's site", site)}
    runtime = closure(project["project"]["dependencies"])
    dev = closure(project["dependency-groups"]["dev"])
    return {
        "requirements.txt": text("What Drawbridge runs on", runtime),
        "requirements-dev.txt": text(
            "What checks and tests need besides", {name: dev[name] for name in dev.keys() - runtime.keys()}
        ),
    }


def text(title: str, versions: dict[str, str]) -> str:
    """Return the text of one requirements file."""
    return (
        "\n".join([f"# {title}. Written by tools/pin.py.", *(f"{n}=={v}" for n, v in sorted(versions.items()))]) + "\n"
    )


def main() -> int:
    """Write the files; with --check, writes nothing and exits 1 if they would change."""
    contents = files(docs="docs" in sys.argv[1:])
    stale = [
        name for name, content in contents.items() if not (path := ROOT / name).exists() or path.read_text() != content
    ]
    if "--check" in sys.argv[1:]:
        if stale:
            print(f"{' and '.join(stale)}: not what is installed; run .venv/bin/python tools/pin.py", file=sys.stderr)
        return bool(stale)
    for name, content in contents.items():
        (ROOT / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
