"""Offer a machine of the lab a newer version of one of its packages, as Debian offers a fix."""

import base64
import shutil
import subprocess
from pathlib import Path

from drawbridge.trial.hosts import run_checked
from lab.machines import image
from lab.region import Host

_RELEASE = "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: trixie\n"


def offer_newer(host: Host, package: str, directory: Path) -> None:
    """Give a machine a source of packages with a newer version, and have it read the lists; `directory` is empty."""
    newer = build_newer(package, directory)
    contents = (
        (newer.name, newer.read_bytes()),
        ("Packages", image.index_packages(directory).encode()),
        ("Release", _RELEASE.encode()),
    )
    run_checked(host, "mkdir", "-p", "/srv/newer")
    for name, content in contents:
        encoded = base64.b64encode(content).decode()
        run_checked(host, "sh", "-c", f"base64 -d >/srv/newer/{name}", stdin=encoded, timeout=120)
    run_checked(host, "tee", "/etc/apt/sources.list.d/newer.list", stdin="deb [trusted=yes] file:/srv/newer ./\n")
    run_checked(host, "apt-get", "-q", "update", timeout=600)


def build_newer(package: str, directory: Path) -> Path:
    """Return a package of the lab's mirror built again, with a newer version."""
    (original,) = image.ensure(_ignore).mirror.glob(f"{package}_*.deb")
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", original, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = [f"{line}+newer" if line.startswith("Version:") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")
    newer = directory / f"{package}_newer.deb"
    subprocess.run(["dpkg-deb", "--build", "-Zxz", tree, newer], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return newer


def install_upgrades(host: Host, seconds: float) -> None:
    """Run the unit that installs upgrades every day."""
    run_checked(host, "sh", "-c", "rm -f /var/lib/apt/periodic/*upgrade*")
    run_checked(host, "systemctl", "start", "apt-daily-upgrade.service", timeout=seconds)


def installed_version(host: Host, package: str) -> str:
    """Return the version of a package on a machine."""
    return run_checked(host, "dpkg-query", "-W", "-f", "${Version}", package)


def _ignore(_: str) -> None:
    """Show no progress."""
