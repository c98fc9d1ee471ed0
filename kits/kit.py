"""A kit: all that a Debian host at the other end of a tunnel needs, in one archive that one command installs.

Layout, as `install` reads it: `kit.env`, the lists `packages`, `bundles` and `units` (one entry a line), `hints` for
whoever reads the end of the installation, two shell scripts that may be there (`hook` runs when files are in place and
before units start, `remove` before units and files go), and under `root/` the files that go to their places. It holds
no key: the host fetches its bundles.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from contract import Names
from userdata.release import pack

FILES = Path(__file__).with_name("files")

#: What every kit's host needs: the tunnel, its filter, and the way to its bundle.
PACKAGES = ("openvpn", "nftables", "python3-boto3", "ca-certificates")


def build(
    name: str,
    *,
    stack: str,
    region: str,
    files: Mapping[str, str],
    units: Sequence[str],
    bundles: Mapping[str, str] | None = None,
    packages: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    hints: str = "",
    hook: str = "",
    remove: str = "",
) -> bytes:
    """Return the kit `name`, tar and gzip; the same values always give the same bytes.

    `files` are texts by their path on the host, without the first slash. `bundles` says which client's bundle becomes
    /etc/openvpn/client/<key>.conf; without it, the kit's own name is the client's. `units` are enabled and started in
    their order, `packages` come on top of `PACKAGES`, and `variables` are added to /etc/drawbridge/kit.env, which has
    STACK, REGION and KIT; their values are plain words, because shells, systemd and Python read that file.
    """
    names = Names(stack)
    environment = {"STACK": stack, "REGION": region, "KIT": name, **(variables or {})}
    env = "".join(f"{key}={value}\n" for key, value in environment.items())
    wanted = {name: name} if bundles is None else bundles
    contents = {
        **{path.name: path.read_text() for path in sorted((FILES / "common").iterdir()) if path.is_file()},
        "kit.env": env,
        "packages": _lines((*PACKAGES, *packages)),
        "bundles": _lines(f"{conf} {names.bundle(client)}" for conf, client in wanted.items()),
        "units": _lines(units),
        "hints": hints,
        "root/etc/drawbridge/kit.env": env,
        **{f"root/{path}": content for path, content in files.items()},
        **({"hook": hook} if hook else {}),
        **({"remove": remove} if remove else {}),
    }
    return pack({path: content.encode() for path, content in contents.items()})


def static(kit: str) -> dict[str, str]:
    """Return the files of `kits/files/<kit>`, by their path on the host."""
    top = FILES / kit
    return {str(path.relative_to(top)): path.read_text() for path in sorted(top.rglob("*")) if path.is_file()}


def _lines(entries: Iterable[str]) -> str:
    return "".join(f"{entry}\n" for entry in entries)
