"""The machines' image: Debian 13 as AWS's Debian image has it, built once into the user's cache.

Four directories come out of one build, named by the digest of their recipe, so that a changed recipe is a new image
and a build cut off half-way is never taken for one:

- ``base``    what an EC2 instance boots: systemd, cloud-init, ssh; no openvpn, no nftables
- ``host``    a layer on top with openvpn, nftables and tools, for hosts that are not instances (homes, cafés)
- ``ready``   a layer on top with what user data may install, for instances whose kernel would take minutes to do so
- ``mirror``  a package repository holding what user data may install, served by the lab's Internet

Sources: mmdebstrap(1), sources.list(5), deb822(5).
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CommandFailed, ImageError
from lab.linux import run
from lab.paths import PATHS

SUITE = "trixie"
_PACKAGES = tomllib.loads(Path(__file__).with_name("packages.toml").read_text())
_LAB = _PACKAGES["lab"]
#: Packages of an instance: those of Debian's image for EC2 that a container has a use for.
INSTANCE = sorted(
    {package for packages in _PACKAGES["ec2"].values() for package in packages} - {*_LAB["omitted"]}
    | {*_LAB["with_kernel"]}
)

MIRROR_NAME = "mirror.lab"
SOURCES = "deb [trusted=yes] http://{name}/debian ./\n"
#: Debian's image for EC2 has this file, which is for every Ethernet interface.
NETPLAN = {
    "/etc/netplan/90-default.yaml": """\
network:
  version: 2
  ethernets:
    all-en:
      match: {name: "en*"}
      dhcp4: true
      dhcp4-overrides: {use-domains: true}
      dhcp6: true
      dhcp6-overrides: {use-domains: true}
"""
}
_CLOUD = {
    # A container has no DMI table that shows EC2, so the datasource is named; netplan has the network.
    "/etc/cloud/cloud.cfg.d/90_lab.cfg": (
        "datasource_list: [Ec2, None]\n"
        "datasource: {Ec2: {strict_id: false, apply_full_imds_network_config: false, timeout: 5, max_wait: 30}}\n"
        "network: {config: disabled}\n"
        "system_info: {default_user: {name: admin}}\n"
    ),
    "/etc/cloud/ds-identify.cfg": "policy: enabled\n",
    "/etc/ec2-hypervisor-uuid": "ec2e1916-9099-7caf-fd21-012345abcdef\n",
    **NETPLAN,
}
#: A container has neither a DMI table nor a hypervisor in sysfs to tell EC2 by, and a cloud-init that does not know
#: it is on EC2 asks without a session token; so one path in it is another: (file, text, what the lab's image has).
_ON_EC2 = (
    "usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py",
    '"/sys/hypervisor/uuid"',
    '"/etc/ec2-hypervisor-uuid"',
)

#: A build ends with the process that asked for it, however that ends, and takes what it started and mounted along.
IN_OWN_PID_NAMESPACE = ("setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True, slots=True)
class Image:
    """Directories of the built image."""

    base: Path
    host: Path
    ready: Path
    mirror: Path

    @property
    def instance_layers(self) -> tuple[Path, ...]:
        """Overlay layers of an EC2 instance, topmost first."""
        return (self.base,)

    @property
    def ready_layers(self) -> tuple[Path, ...]:
        """Overlay layers of an EC2 instance on User-Mode Linux, topmost first."""
        return (self.ready, self.base)

    @property
    def host_layers(self) -> tuple[Path, ...]:
        """Overlay layers of a host outside of AWS, topmost first."""
        return (self.host, self.base)


def recipe_digest() -> str:
    """Twelve hex digits that change whenever the image would."""
    recipe = json.dumps([4, SUITE, INSTANCE, _LAB, MIRROR_NAME, SOURCES, _CLOUD, _ON_EC2])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def ensure(progress: Callable[[str], None]) -> Image:
    """The image, built first where the cache has none (about a minute, 150 MB of downloads).

    Args:
        progress: called with a short text as the build goes on.

    Raises:
        ImageError: the build failed; the text ends with what the failing tool said.
    """
    final = build_once(f"image-{recipe_digest()}", "the machines' image", _build, progress)
    return Image(base=final / "base", host=final / "host", ready=final / "ready", mirror=final / "mirror")


def build_once(
    name: str,
    noun: str,
    build: Callable[[Path, Callable[[str], None]], None],
    progress: Callable[[str], None],
) -> Path:
    """Return a directory of the cache; build it first where the cache has none.

    Args:
        name: of the directory.
        noun: what it holds, for errors.
        build: fills the directory that it gets, and is given `progress`.
        progress: called with a short text before each longer step.

    Raises:
        ImageError: the build failed; the text ends with what the failing tool printed.
    """
    cache = PATHS.cache
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / name
    with _lock_cache(cache, progress):
        if final.is_dir():
            return final
        for stale in cache.glob("building-*"):
            remove_tree(stale)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
        try:
            build(building, progress)
            building.chmod(0o755)
            building.rename(final)
        except CommandFailed as failed:
            raise ImageError(f"building {noun} failed, nothing was kept: {failed}") from failed
        finally:
            if building.exists():
                remove_tree(building)
    return final


@contextmanager
def _lock_cache(cache: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Build one image at a time in a cache."""
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build of the image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(target: Path, progress: Callable[[str], None]) -> None:
    base, host, mirror = target / "base", target / "host", target / "mirror"
    mirror.mkdir()
    progress("building the machines' image (Debian 13, once; about a minute)")
    # The hook runs apt with mmdebstrap's own configuration while the package lists are still there.
    fetch = (
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --no-install-recommends --download-only '
        f"-o Dir::Cache::archives={mirror} install {' '.join(_LAB['mirror'])}"
    )
    (mirror / "partial").mkdir()
    run(
        *IN_OWN_PID_NAMESPACE,
        # What it leaves when it is killed goes with the rest of a build that was not finished.
        "env",
        f"TMPDIR={target}",
        "mmdebstrap",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(INSTANCE)}",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--customize-hook={fetch}",
        SUITE,
        str(base),
        *find_debian_mirror(),
        timeout=1200,
    )
    progress("indexing the package mirror")
    shutil.rmtree(mirror / "partial", ignore_errors=True)
    (mirror / "lock").unlink(missing_ok=True)
    (mirror / "Packages").write_text(index_packages(mirror))
    for path, text in _CLOUD.items():
        file = base / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    _finish_root(base)
    progress("installing the layer of hosts outside of AWS")
    with _installed_layer(base, host, mirror, _LAB["hosts"]) as root:
        _turn_off_cloud_init(root)
        _leave_network(root)
    progress("installing the layer of instances on User-Mode Linux")
    with _installed_layer(base, target / "ready", mirror, _LAB["ready"]):
        pass


def find_debian_mirror() -> list[str]:
    """The mirror this machine's own apt uses, where it is a Debian machine; else mmdebstrap knows one."""
    try:
        listed = run("apt-get", "indextargets", "--format", "$(SITE)|$(REPO_URI)|$(LABEL)", "Created-By: Packages")
    except CommandFailed:
        return []
    for line in listed.splitlines():
        _, uri, label = line.split("|")
        if label == "Debian":
            return [uri]
    return []


def index_packages(mirror: Path) -> str:
    """A repository's index (deb822) of all .deb files in a directory."""
    stanzas = []
    for package in sorted(mirror.glob("*.deb")):
        control = run("dpkg-deb", "--field", str(package)).rstrip()
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        stanzas.append(f"{control}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n")
    return "\n".join(stanzas)


def _finish_root(base: Path) -> None:
    """Make the tree an image: no identity of its own, the mirror as its only source, no needless work at boot."""
    strip_identity(base)
    use_networkd(base)
    (base / "etc/apt/sources.list").write_text(SOURCES.format(name=MIRROR_NAME))
    _know_ec2(base)
    for unit in (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "systemd-udev-settle.service",
        "unattended-upgrades.service",  # delays a shutdown during an upgrade, and no timer starts one here
    ):
        mask = base / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")


def strip_identity(root: Path) -> None:
    """Remove from a tree what each machine has of its own, and its package sources."""
    for source in (root / "etc/apt/sources.list.d").glob("*"):
        source.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)


def use_networkd(root: Path) -> None:
    """Have systemd-networkd ask for addresses and systemd-resolved answer for names, as in Debian's image for EC2."""
    for path in NETPLAN:
        (root / path.lstrip("/")).chmod(0o600)  # netplan warns of others that may read it
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


def _know_ec2(base: Path) -> None:
    path, text, ours = _ON_EC2
    source = (base / path).read_text()
    if text not in source:
        raise ImageError(f"this cloud-init reads no {text}; lab/machines/image.py must be adapted")
    (base / path).write_text(source.replace(text, ours))


@contextmanager
def _installed_layer(base: Path, layer: Path, mirror: Path, packages: list[str]) -> Iterator[Path]:
    """Install packages into an overlay on `base`, keeping only what it adds; yield its root for further changes."""
    layer.mkdir()
    work, merged = layer.with_name("work"), layer.with_name("merged")
    work.mkdir()
    merged.mkdir()
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={base},upperdir={layer},workdir={work}", str(merged))
    try:
        (merged / "mirror").mkdir()
        run("mount", "--bind", str(mirror), str(merged / "mirror"))
        try:
            sources = "deb [trusted=yes] file:/mirror ./\n"
            (merged / "etc/apt/sources.list").write_text(sources)
            policy = merged / "usr/sbin/policy-rc.d"
            policy.write_text("#!/bin/sh\nexit 101\n")  # no service may start while the layer is made
            policy.chmod(0o755)
            install = ["apt-get", "--yes", "--no-install-recommends", "install", *packages]
            for command in (["apt-get", "update"], install, ["apt-get", "clean"]):
                run("chroot", str(merged), "env", "DEBIAN_FRONTEND=noninteractive", *command, timeout=300)
            policy.unlink()
            (merged / "etc/apt/sources.list").write_text(SOURCES.format(name=MIRROR_NAME))
            yield merged
        finally:
            run("umount", str(merged / "mirror"))
        (merged / "mirror").rmdir()
    finally:
        run("umount", str(merged))
        shutil.rmtree(work, ignore_errors=True)
        merged.rmdir()


def _turn_off_cloud_init(root: Path) -> None:
    """Keep a host outside of AWS from asking a metadata service."""
    (root / "etc/cloud/cloud-init.disabled").write_text("")


def _leave_network(root: Path) -> None:
    """Leave a host outside of AWS the addresses and the resolver of its site."""
    for path in NETPLAN:
        (root / path.lstrip("/")).unlink()
    (root / "etc/systemd/system/systemd-resolved.service").symlink_to("/dev/null")
    (root / "etc/resolv.conf").unlink()


def remove_tree(tree: Path) -> None:
    """Remove a build tree, first whatever a cut-off build left mounted in it."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((point for point in mounts if point.startswith(f"{tree}/")), reverse=True):
        run("umount", mount)
    shutil.rmtree(tree, ignore_errors=True)
