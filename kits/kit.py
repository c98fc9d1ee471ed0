"""Build a kit: everything that a client's Debian host needs for a tunnel, in one archive that one command installs.

`install` reads this layout: `kit.env`; the lists `packages`, `bundles` and `units` (one entry a line); `hints`, printed
at the end of the installation; two optional shell scripts, `hook` (run after files are in place and before units start)
and `remove` (run before units and files are removed); and under `root/` the files to install. A kit holds no keys: the
host fetches its bundles.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract import Names
from openvpn.listener import Listener
from userdata.release import pack

FILES = Path(__file__).with_name("files")

#: Packages for every kit: the tunnel, its filter, and what fetches the bundle.
PACKAGES = ("openvpn", "nftables", "python3-boto3", "ca-certificates")


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicRule:
    """The security group rule that lets a client in, and whose address its kit keeps up to date."""

    group_id: str
    rule_id: str
    listener: Listener
    """Protocol and ports of the tunnel, which the rule opens."""
    follows: str
    """Value of the rule's tag, see `contract.rule_for`."""

    @property
    def variables(self) -> Mapping[str, str]:
        """The rule as variables in kit.env, for `allow_me.py`."""
        first_port, last_port = self.listener.port_range
        return {
            "GROUP": self.group_id,
            "RULE": self.rule_id,
            "PROTOCOL": self.listener.protocol,
            "FROM_PORT": str(first_port),
            "TO_PORT": str(last_port),
            "FOLLOWS": self.follows,
        }


def build(
    name: str,
    *,
    names: Names,
    region: str,
    files: Mapping[str, str],
    units: Sequence[str],
    bundles: Mapping[str, str] | None = None,
    bucket: str | None = None,
    packages: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    hints: str = "",
    hook: str = "",
    remove: str = "",
) -> bytes:
    """Return the kit `name`, tar and gzip; the same values always give the same bytes.

    `files` are texts by their path on the host, without the first slash. `bundles` maps each file name
    /etc/openvpn/client/<key>.conf to the client whose bundle it holds; by default that is the client `name`. Bundles
    are in S3's `bucket`, without it in SSM. `units` are enabled and started in this order, `packages` are installed
    besides `PACKAGES`, and `variables` are added to STACK, REGION and KIT in /etc/drawbridge/kit.env. Shells, systemd
    and Python read that file, so values are plain words.
    """
    environment = {"STACK": names.stack, "REGION": region, "KIT": name, **(variables or {})}
    env = "".join(f"{key}={value}\n" for key, value in environment.items())
    client_by_conf = {name: name} if bundles is None else bundles
    contents = {
        **{path.name: path.read_text() for path in sorted((FILES / "common").iterdir()) if path.is_file()},
        "kit.env": env,
        "packages": _lines((*PACKAGES, *packages)),
        "bundles": _lines(f"{conf} {names.bundle_address(client, bucket)}" for conf, client in client_by_conf.items()),
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
