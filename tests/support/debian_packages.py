"""Packages of Debian, fetched and unpacked into a directory without installing them."""

import os
import subprocess
from pathlib import Path

import pytest


def unpack(directory: Path, *packages: str, suite: str | None = None) -> Path:
    """Return a directory with the files of `packages`, of this machine's release or of `suite`.

    Skips the test, with apt's reason, where no mirror is reached.
    """
    options = []
    if suite:
        for name in ("lists/partial", "cache"):
            (directory / name).mkdir(parents=True)
        source = directory / "sources.list"
        # A mirror may be some days behind what a testing release's index is valid for.
        source.write_text(f"deb [check-valid-until=no] {_mirror()} {suite} main\n")
        options = [
            f"-oDir::Etc::sourcelist={source}",
            "-oDir::Etc::sourceparts=/dev/null",
            f"-oDir::State::lists={directory}/lists",
            f"-oDir::Cache={directory}/cache",
        ]
        _apt(directory, *options, "update")
    archives = directory / "archives"
    archives.mkdir(parents=True)
    _apt(archives, *options, "download", *packages)
    root = directory / "root"
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", archive, root], check=True)
    return root


def _mirror() -> str:
    """Return the mirror that this machine's apt uses."""
    entries = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    fields = [entry.split() for entry in entries]
    # Updates and security fixes, which are a repository of their own, have a codename with a suffix.
    mirrors = [uri for origin, codename, uri in fields if origin == "Debian" and "-" not in codename]
    if not mirrors:
        pytest.skip("apt knows no mirror of Debian (apt-get update)")
    return mirrors[0]


def _apt(directory: Path, *arguments: str) -> None:
    command = ["apt-get", "-qq", "-oAPT::Sandbox::User=root", *arguments]
    done = subprocess.run(command, cwd=directory, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot fetch Debian packages: {done.stderr.strip().splitlines()[-1:]}")
