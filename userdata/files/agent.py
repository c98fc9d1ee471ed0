"""The gateway's agent: makes this machine run the release and the secrets that AWS names, or keeps the last good ones.

It looks once and ends; a timer starts the next run. It may be killed anywhere: what is new is written beside what is in
use and then swapped in by one rename, what runs is asked of the machine, and that a release is good is written down
last. Until then the next run does it all again, and each step does nothing where nothing is left to do.

A release is refused, and the one before it runs on, if its digest, its packet filter or its keys are wrong or OpenVPN
does not come up on it. Revocations alone hold at once, whatever becomes of the release that brings them, and none is
ever taken back.

Only Python's own library and boto3: this file runs on the gateway, by itself.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

#: Shape of `manifest.json`; a release of another one is refused.
FORMAT = 1
USER = "openvpn"
SSH_KEY = "ssh_host_ed25519_key"
FIREWALL = "drawbridge-nftables.service"
#: Makes the devices of a release that has it.
MAKE_BOND = "etc/drawbridge/make-bond"

MAX_ARCHIVE = 4 << 20
"""Bytes of a release, packed."""
MAX_UNPACKED = 16 << 20
MAX_FILES = 5_000
MAX_REASON = 500
"""Characters; escaped, a report still fits a parameter of 4,096."""

#: Seconds.
COMMAND_TIMEOUT = 60.0
START_TIMEOUT = 20.0
#: OpenVPN writes its status every 10 seconds.
STATUS_MAX_AGE = 60.0
MANAGEMENT_TIMEOUT = 5.0


class AgentError(Exception):
    """Something kept this run from its end.

    RefusedError   the release or the secrets are at fault: the same would fail again
    FailedError    the machine or AWS is: the next run may succeed
    """


class RefusedError(AgentError):
    """The release or the secrets are at fault."""


class FailedError(AgentError):
    """The circumstances are at fault."""


# Values


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which release the gateway should run, and where it is."""

    bucket: str
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What a gateway runs: a release, by its digest, and a state of the secrets, by `identity`."""

    release: str
    secrets: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a release says of itself."""

    instances: tuple[str, ...]
    """OpenVPN processes, `openvpn-server@<instance>`."""
    secrets: tuple[str, ...]
    """Files it needs that it does not hold; last parts of the parameters' names."""
    unit: str = "openvpn-server"
    """The unit that each of them is an instance of."""
    configs: str = "etc/openvpn/server"
    """Where their configurations are, below the root."""
    beside: tuple[str, ...] = ()
    """Units that run beside them."""
    bundles: tuple[tuple[str, str], ...] = ()
    """More files it needs: configurations with keys, each with the name of its parameter."""

    @property
    def units(self) -> tuple[str, ...]:
        """The processes' units."""
        return tuple(f"{self.unit}@{instance}.service" for instance in self.instances)

    @property
    def files(self) -> dict[str, str]:
        """Each file that it needs, with its parameter as `Cloud` is asked for it."""
        return {**{name: name for name in self.secrets}, **dict(self.bundles)}


@dataclass(frozen=True, slots=True)
class Secret:
    """A parameter's value; only its name is ever shown."""

    name: str
    value: str

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"


@dataclass(frozen=True, slots=True)
class AgentState:
    """What must outlive a reboot."""

    applied: Generation | None = None
    """The last good one."""
    agent: str = ""
    """Digest of the agent that applied it: another one may have more to do."""
    refused: Generation | None = None
    reason: str = ""
    """Why `refused` was."""
    reported: str = ""
    """What the last report said, but for its time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the operator reads; `state` is ready, refused or failed."""

    state: str
    release: str
    """The one AWS names."""
    running: str
    """The one the gateway runs; another one if that was refused."""
    reason: str
    instance: str
    units: tuple[str, ...] = ()
    """OpenVPN's systemd units in the release that the gateway runs, one a process."""

    def said(self) -> str:
        """The report without its time: what decides whether there is news."""
        return json.dumps(asdict(self), sort_keys=True)

    def text(self, now: datetime) -> str:
        """The report as it is written: JSON with the time, ISO 8601 in UTC."""
        return json.dumps({**asdict(self), "time": now.isoformat(timespec="seconds")}, sort_keys=True)


def read_env(text: str) -> dict[str, str]:
    """Read lines KEY=VALUE, as in an EnvironmentFile."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_pointer(text: str) -> Pointer:
    """Read the release parameter; raises `RefusedError` if it is none."""
    try:
        raw = json.loads(text)
        pointer = Pointer(bucket=str(raw["bucket"]), key=str(raw["key"]), sha256=str(raw["sha256"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"the release parameter is no pointer to a release: {error!r}") from error
    # It becomes the name of a directory.
    if len(pointer.sha256) != 64 or not set(pointer.sha256) <= set("0123456789abcdef"):
        raise RefusedError("the release parameter names no SHA-256")
    return pointer


def read_manifest(text: str) -> Manifest:
    """Read `manifest.json`; raises `RefusedError` if this agent does not understand it."""
    try:
        raw = json.loads(text)
        found = raw["format"]
        more = {key: raw[key] for key in ("unit", "configs") if key in raw}
        manifest = Manifest(
            instances=tuple(raw["instances"]),
            secrets=tuple(raw["secrets"]),
            beside=tuple(raw.get("beside", ())),
            bundles=tuple(raw.get("bundles", {}).items()),
            **more,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"the release's manifest is unreadable: {error!r}") from error
    if found != FORMAT:
        raise RefusedError(f"the release has format {found}, this agent reads {FORMAT}: replace the instance")
    parts = PurePosixPath(manifest.configs).parts
    for name in (*manifest.instances, *manifest.files, manifest.unit, *manifest.beside, *parts):
        if not isinstance(name, str) or not is_plain(name):
            raise RefusedError(f"the release's manifest has the name {name!r}")
    return manifest


def read_state(text: str) -> AgentState:
    """Read the state file. One that makes no sense counts as none: then a run does all anew."""
    try:
        raw = json.loads(text)
        for key in ("applied", "refused"):
            raw[key] = raw[key] and Generation(**raw[key])
        return AgentState(**raw)
    except (ValueError, KeyError, TypeError):
        return AgentState()


def is_plain(name: str) -> bool:
    """Whether a name stays in its directory and hides nothing."""
    return bool(name) and name[0] != "." and all(c.isascii() and (c.isalnum() or c in "._-@") for c in name)


def identify_secrets(parameters: Iterable[dict[str, Any]]) -> str:
    """What tells one state of the secrets from another, out of SSM's answer and without their values.

    The time is in it, because a parameter that was deleted and made again starts over at version 1.
    """
    lines = sorted(f"{p['Name']} {p['Version']} {p['LastModifiedDate'].timestamp():.3f}" for p in parameters)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_archive(archive: bytes) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    """Yield an archive's files with their content, and its directories with None.

    Raises `RefusedError` for anything that is not plainly inside it: links, devices, absolute or climbing paths, too
    much of it, or an archive that is cut off.
    """
    total = count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or not all(is_plain(part) for part in path.parts) or not path.parts:
                    raise RefusedError(f"the archive has the path {member.name!r}")
                if not (member.isreg() or member.isdir()):
                    raise RefusedError(f"the archive's {member.name!r} is neither a file nor a directory")
                total, count = total + member.size, count + 1
                if total > MAX_UNPACKED or count > MAX_FILES:
                    raise RefusedError(f"the archive holds more than {MAX_UNPACKED >> 20} MiB or {MAX_FILES} files")
                content = tar.extractfile(member) if member.isreg() else None
                yield path, content.read() if content else None
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise RefusedError(f"the archive is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Session:
    """A client that is connected."""

    name: str
    cid: int


def read_sessions(status: Iterable[str]) -> list[Session]:
    """Read the answer to `status 3`: fields are separated by tabs, the client's id is the eleventh."""
    rows = (line.split("\t") for line in status)
    clients = (row for row in rows if row[0] == "CLIENT_LIST" and len(row) > 10)
    return [Session(row[1], int(row[10])) for row in clients if row[10].isdigit()]


def kill_commands(sessions: Iterable[Session], allowed: set[str], rekeyed: set[str]) -> list[str]:
    """Return the management commands that end the sessions of revoked certificates.

    A client that is no longer `allowed` has to stop. One that was `rekeyed` has to come again: whoever holds the new
    certificate gets in.
    """
    commands = []
    for session in sessions:
        if session.name not in allowed:
            commands.append(f"client-kill {session.cid} HALT")
        elif session.name in rekeyed:
            commands.append(f"client-kill {session.cid}")
    return commands


# Effects


def run_command(argv: Sequence[str], seconds: float = COMMAND_TIMEOUT) -> "subprocess.CompletedProcess[str]":
    """Run a command; its exit status is the caller's affair. Raises `FailedError` if it cannot run or does not end."""
    try:
        quiet = subprocess.DEVNULL
        return subprocess.run(argv, stdin=quiet, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{argv[0]} did not end within {seconds:.0f} s") from error
    except OSError as error:
        raise FailedError(f"{argv[0]} does not start: {error}") from error


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds, for at most `seconds`; the clock on the wall may jump meanwhile."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return holds


def create_file(path: Path, content: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Create a file that is not there yet, with its mode and owner from the first moment on, down to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        if owner:
            os.fchown(descriptor, *owner)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step: it has the old content or the new, also after a cut."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        create_file(temporary, content, mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_link(path: Path, target: str) -> bool:
    """Make `path` a symlink to `target`, in one step and whatever was there; return whether that changed anything."""
    if path.is_symlink() and str(path.readlink()) == target:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)
    return True


def sync_directory(directory: Path) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def send_management_commands(path: Path, commands: Iterable[str]) -> list[str]:
    """Send commands to OpenVPN's management socket, one after the other, and return all lines of the answers.

    Raises OSError (TimeoutError among them) if nobody answers within `MANAGEMENT` seconds.
    """
    answer: list[str] = []
    end = time.monotonic() + MANAGEMENT_TIMEOUT
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(MANAGEMENT_TIMEOUT)
        connection.connect(str(path))
        with connection.makefile("rw", encoding="utf-8", errors="replace", newline="\n") as stream:
            for command in commands:
                stream.write(f"{command}\n")
                stream.flush()
                while True:
                    if time.monotonic() > end or not (line := stream.readline()):
                        raise TimeoutError(f"no answer to {command.split()[0]!r}")
                    line = line.rstrip("\r\n")
                    # Lines with > are news that nobody asked for.
                    if not line.startswith(">"):
                        answer.append(line)
                    if line == "END" or line.startswith(("SUCCESS:", "ERROR:")):
                        break
    return answer


class Cloud:
    """The calls to AWS, with the instance's role; each is bounded, and each error is an `AgentError`."""

    def __init__(self, env: dict[str, str]) -> None:
        import boto3  # Takes most of a run's time: only for those that get here.
        import botocore.config

        self._settings = botocore.config.Config(
            connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}
        )
        self._session = boto3.Session(region_name=env["REGION"])
        self._ssm: Any = self._session.client("ssm", config=self._settings)
        self._env = env

    def look(self, secrets: Iterable[str]) -> tuple[Pointer, str]:
        """Return which release AWS names, and the `identity` of the secrets: one call, and nothing is decrypted."""
        name = self._env["RELEASE"]
        found = self._parameters([name, *map(self._path, secrets)], decrypt=False)
        pointer = [p for p in found if p["Name"] == name]
        if not pointer:
            raise FailedError(f"AWS has no parameter {name}")
        return read_pointer(pointer[0]["Value"]), identify_secrets(p for p in found if p["Name"] != name)

    def secrets(self, files: dict[str, str]) -> tuple[list[Secret], str]:
        """Return the secrets, decrypted, and their `identity`; `files` are `Manifest.files`."""
        wanted = {self._path(name): file for file, name in files.items()}
        found = self._parameters(list(wanted), decrypt=True)
        secrets = [Secret(wanted[p["Name"]], p["Value"]) for p in found]
        if missing := sorted(set(wanted) - {p["Name"] for p in found}):
            raise FailedError(f"AWS has no parameter {', '.join(missing)}")
        return secrets, identify_secrets(found)

    def archive(self, pointer: Pointer) -> bytes:
        """Return the release's archive, its digest checked."""
        s3: Any = self._session.client("s3", config=self._settings)

        def get() -> bytes:
            body = s3.get_object(Bucket=pointer.bucket, Key=pointer.key)["Body"]
            return bytes(body.read(MAX_ARCHIVE + 1))

        archive: bytes = self._call(f"s3://{pointer.bucket}/{pointer.key}", get)
        if len(archive) > MAX_ARCHIVE:
            raise RefusedError(f"the archive is larger than {MAX_ARCHIVE >> 20} MiB")
        digest = hashlib.sha256(archive).hexdigest()
        if digest != pointer.sha256:
            raise RefusedError(f"the archive's SHA-256 is {digest}, not {pointer.sha256}")
        return archive

    def report(self, text: str) -> None:
        """Tell the operator."""
        name = self._env["REPORT"]
        self._call(name, lambda: self._ssm.put_parameter(Name=name, Value=text, Type="String", Overwrite=True))

    def _path(self, name: str) -> str:
        """A parameter's whole name; those that have no path of their own are this gateway's."""
        return name if name.startswith("/") else f"{self._env['SECRETS']}/{name}"

    def _parameters(self, names: list[str], *, decrypt: bool) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for start in range(0, len(names), 10):  # The API takes ten at a time.
            ask = functools.partial(self._ssm.get_parameters, Names=names[start : start + 10], WithDecryption=decrypt)
            found += self._call(names[start], ask)["Parameters"]
        return found

    @staticmethod
    def _call(what: str, action: Callable[[], Any]) -> Any:
        import botocore.exceptions as aws
        import urllib3.exceptions

        try:
            return action()
        except (aws.BotoCoreError, aws.ClientError, urllib3.exceptions.HTTPError, OSError) as error:
            raise FailedError(f"{what}: {error}") from error


class GatewayMachine:
    """The gateway's file system and services; `root` and `run` are others in tests."""

    def __init__(
        self, root: Path = Path("/"), run: Callable[[Sequence[str]], Any] = run_command, user: str = USER
    ) -> None:
        self.root = root
        self.run = run
        self.user = user
        self.current = root / "opt/drawbridge/current"
        self.releases = root / "opt/drawbridge/releases"
        self.vault = root / "var/lib/drawbridge/secrets"
        self.state_file = root / "var/lib/drawbridge/state.json"
        self.report_file = root / "run/drawbridge/report.json"
        self.openvpn = root / "etc/openvpn/server"
        self.ssh_key = root / "etc/ssh" / SSH_KEY

    # What is

    def instance(self) -> str:
        """The EC2 instance's id, as cloud-init noted it."""
        return read_or_empty(self.root / "var/lib/cloud/data/instance-id").strip()

    def state(self) -> AgentState:
        return read_state(read_or_empty(self.state_file))

    def manifest(self, release: str) -> Manifest:
        return read_manifest(read_or_empty(self.releases / release / "manifest.json"))

    def linked(self) -> Generation | None:
        """The generation whose files are in use."""
        try:
            return Generation(self.current.readlink().name, (self.openvpn / "secrets").readlink().name)
        except OSError:
            return None

    def has(self, generation: Generation) -> bool:
        """Whether all of a generation is on this machine."""
        return (self.releases / generation.release).is_dir() and (self.vault / generation.secrets).is_dir()

    def runtime(self, instance: str) -> Path:
        """Directory of a running OpenVPN."""
        return self.root / f"run/openvpn-{instance}"

    def started(self, instance: str) -> Generation | None:
        """The generation a running OpenVPN was started with; its unit notes it."""
        try:
            directory = self.runtime(instance)
            return Generation((directory / "release").readlink().name, (directory / "secrets").readlink().name)
        except OSError:
            return None

    def service(self, generation: Generation, instance: str) -> tuple[object, ...]:
        """All that OpenVPN reads only when it starts."""
        manifest, tree = self.manifest(generation.release), self.releases / generation.release / "root"
        units, name = tree / "etc/systemd/system", f"{manifest.unit}@"
        drop_ins = [sorted((units / f"{name}{of}.service.d").glob("*.conf")) for of in ("", instance)]
        config = tree / manifest.configs / f"{instance}.conf"
        paths = (config, units / f"{name}.service", *drop_ins[0], *drop_ins[1])
        return generation.secrets, *map(read_or_empty, paths)

    def trouble(self, generation: Generation, seconds: float) -> str:
        """Return what is wrong with the services within `seconds`, or nothing."""
        manifest = self.manifest(generation.release)
        units = [FIREWALL, *manifest.units, *manifest.beside]
        argv = ["systemctl", "show", "--property=Id,ActiveState,SubState", *units]
        dead: list[str] = []

        def settled() -> bool:
            states = read_units(self.run(argv).stdout)
            dead[:] = [name for name in units if {*states.get(name, ())} & {"failed", "inactive", "auto-restart"}]
            up = all("active" in states.get(name, ()) for name in units)
            return bool(dead) or (up and all(map(self.is_fresh, manifest.instances)))

        if not wait_until(settled, seconds):
            return f"{', '.join(manifest.units)} not up within {seconds:.0f} s"
        return "; ".join(f"{name} is down: {self.last_words(name)}" for name in dead)

    def is_fresh(self, instance: str) -> bool:
        """Whether OpenVPN has written its status lately, which it does once it serves."""
        try:
            status = (self.runtime(instance) / "status").stat()
        except OSError:
            return False
        return status.st_size > 0 and abs(time.time() - status.st_mtime) < STATUS_MAX_AGE

    def last_words(self, name: str) -> str:
        """What a unit's own processes said last."""
        show = ["journalctl", f"_SYSTEMD_UNIT={name}", "--lines=4", "--output=cat", "--no-pager", "--quiet"]
        said = self.run(show).stdout.replace("Use --help for more information.", "")
        return " | ".join(filter(None, said.splitlines())) or "it says nothing"

    # What comes beside

    def unpack(self, sha256: str, archive: bytes) -> None:
        """Put a release beside the others, whole or not at all."""
        with StagingDirectory(self.releases, sha256) as directory:
            for path, content in read_archive(archive):
                target = directory / path
                if content is None:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    create_file(target, content)

    def keep(self, secrets: Iterable[Secret], name: str) -> None:
        """Put secrets beside the others; OpenVPN's belong to its user, the SSH host key to root."""
        entry = pwd.getpwnam(self.user)
        with StagingDirectory(self.vault, name) as directory:
            os.chown(directory, -1, entry.pw_gid)
            directory.chmod(0o750)
            for secret in secrets:
                # Not root:group 0640: OpenVPN warns of a key that anyone but its owner can read.
                owner = None if secret.name == SSH_KEY else (entry.pw_uid, entry.pw_gid)
                create_file(directory / secret.name, secret.value.encode(), 0o400, owner)

    def make_user(self, release: str) -> None:
        """Make OpenVPN's user, if nobody did."""
        try:
            pwd.getpwnam(self.user)
        except KeyError:
            self.must("systemd-sysusers", str(self.releases / release / "root/etc/sysusers.d/drawbridge.conf"))

    # What is judged

    def validate(self, generation: Generation) -> None:
        """Raise `RefusedError` for what can be seen to be wrong before it is in use."""
        release, secrets = self.releases / generation.release, self.vault / generation.secrets
        manifest = self.manifest(generation.release)
        self.must(sys.executable, "-I", str(release / "agent.py"), "check")
        self.must("nft", "--check", "--file", str(release / "root/etc/drawbridge/nftables.conf"))
        for instance in manifest.instances:
            # The last option makes OpenVPN print and end once it has read all options.
            config = str(release / "root" / manifest.configs / f"{instance}.conf")
            self.must("openvpn", "--config", config, "--show-digests")
        for bundle, _ in manifest.bundles:
            self.must("openvpn", "--config", str(secrets / bundle), "--show-digests")
        check_key(secrets)
        if SSH_KEY in manifest.secrets:
            self.public_key(secrets / SSH_KEY)

    def public_key(self, key: Path) -> str:
        """The public half of an SSH key."""
        return str(self.must("ssh-keygen", "-y", "-P", "", "-f", str(key)).stdout)

    # What changes

    def revoke(self, release: str) -> None:
        """Make a release's revocations hold from now on. The directory itself stays: without it everyone gets in."""
        revoked = self.openvpn / "revoked"
        self.secure_directory(self.openvpn)
        revoked.mkdir(mode=0o755, exist_ok=True)
        wanted = self.revocations(release)
        if missing := [serial for serial in wanted if not (revoked / serial).exists()]:
            for serial in missing:
                create_file(revoked / serial, b"")
            sync_directory(revoked)

    def secure_directory(self, path: Path) -> None:
        """A directory that root writes and OpenVPN reads."""
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(path, -1, pwd.getpwnam(self.user).pw_gid)
        path.chmod(0o750)

    def revocations(self, release: str) -> dict[str, str]:
        """Revoked serials of a release, in decimal, with the client's name where it is known."""
        directory = self.releases / release / "revoked"
        serials = sorted(path for path in directory.glob("*") if path.name.isdigit()) if directory.is_dir() else []
        return {path.name: read_or_empty(path).strip() for path in serials}

    def cut(self, release: str, before: str | None) -> None:
        """End the sessions that a release's revocations are about; nobody else notices."""
        known = self.revocations(before) if before else {}
        rekeyed = {name for serial, name in self.revocations(release).items() if name and serial not in known}
        allowed = {path.name for path in (self.releases / release / "ccd").iterdir()}
        for instance in self.manifest(release).instances:
            path = self.runtime(instance) / "mgmt.sock"
            if not path.exists():
                continue
            try:
                if commands := kill_commands(
                    read_sessions(send_management_commands(path, ["status 3"])), allowed, rekeyed
                ):
                    send_management_commands(path, commands)
            except OSError as error:
                raise FailedError(f"{path}: {error}") from error

    def activate(self, generation: Generation) -> None:
        """Make the machine run a generation that is on its disk; raises `AgentError` if that does not come up."""
        manifest = self.manifest(generation.release)
        # Nothing is rewritten in place: all files of ours are links through `current`, which changes in one step.
        replace_link(self.openvpn / "secrets", str(Path("/") / self.vault.relative_to(self.root) / generation.secrets))
        replace_link(self.current, f"releases/{generation.release}")
        replace_link(self.openvpn / "ccd", "/opt/drawbridge/current/ccd")
        self.install(generation.release)
        self.present_host_key(generation)

        self.must("systemctl", "mask", "--quiet", "openvpn.service")  # Starts any *.conf it finds.
        self.must("systemctl", "enable", "--quiet", FIREWALL, *manifest.units, *manifest.beside)
        self.must("systemctl", "daemon-reload")
        # Filter first, then forwarding. A reload: a restart would take OpenVPN, which requires it, along.
        self.must("systemctl", "reload-or-restart", FIREWALL)
        self.must("/usr/lib/systemd/systemd-sysctl", str(self.root / "etc/sysctl.d/90-drawbridge.conf"))
        self.connect(generation.release)
        for instance, unit in zip(manifest.instances, manifest.units, strict=True):
            started = self.started(instance)
            same = started is not None and self.service(started, instance) == self.service(generation, instance)
            if self.run(["systemctl", "start" if same else "restart", unit]).returncode:
                raise RefusedError(f"{unit} does not start: {self.last_words(unit)}")
        for unit in manifest.beside:
            self.must("systemctl", "restart", unit)
        if trouble := self.trouble(generation, START_TIMEOUT):
            raise RefusedError(trouble)

    def install(self, release: str) -> None:
        """Link each file under the release's `root` to its place, and take away what only other releases have."""
        new = self.tree(release)
        for path in sorted(new):
            replace_link(self.root / path, f"/opt/drawbridge/current/root/{path}")
        old = {path for other in self.releases.iterdir() for path in self.tree(other.name)}
        for path in sorted(old - new):
            if (self.root / path).is_symlink():
                (self.root / path).unlink()

    def connect(self, release: str) -> None:
        """Have systemd-networkd make the devices that a release has files for; the ones that are there stay up."""
        tree = self.tree(release)
        if PurePosixPath(MAKE_BOND) in tree:
            self.must("sh", str(self.root / MAKE_BOND))
        elif any(path.is_relative_to("etc/systemd/network") for path in tree):
            self.must("systemctl", "start", "systemd-networkd.service")
            self.must("networkctl", "reload")

    def tree(self, release: str) -> set[PurePosixPath]:
        """Paths of a release's files as they are under the machine's root."""
        top = self.releases / release / "root"
        return {PurePosixPath(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}

    def present_host_key(self, generation: Generation) -> None:
        """Make sshd present the key that the operator knows."""
        source = self.vault / generation.secrets / SSH_KEY
        if not source.exists() or not self.ssh_key.parent.is_dir():
            return
        key = source.read_bytes()
        if self.ssh_key.exists() and self.ssh_key.read_bytes() == key:
            return
        replace_file(self.ssh_key.with_suffix(".pub"), self.public_key(source).encode())
        replace_file(self.ssh_key, key, 0o600)
        # Where sshd starts at its first connection, there is nothing to reload.
        self.run(["systemctl", "try-reload-or-restart", "ssh.service"])

    def must(self, *argv: str) -> Any:
        """Run a command; raises `RefusedError` with what it said if it fails or does not end."""
        name = Path(argv[0]).name
        try:
            result = self.run(argv)
        except FailedError as error:
            raise RefusedError(str(error)) from error
        if result.returncode:
            said = " | ".join((result.stderr.strip() or result.stdout.strip()).splitlines())
            raise RefusedError(f"{name}: {said or f'exit status {result.returncode}'}")
        return result

    def save(self, state: AgentState) -> None:
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.state_file, json.dumps(asdict(state)).encode())

    def tidy(self, generation: Generation) -> None:
        """Delete releases and secrets but those of this generation, and those OpenVPN was started with."""
        started = map(self.started, self.manifest(generation.release).instances)
        kept = [generation, *filter(None, started)]
        for directory, names in ((self.releases, {g.release for g in kept}), (self.vault, {g.secrets for g in kept})):
            for path in directory.iterdir():
                if path.name not in names:
                    shutil.rmtree(path, ignore_errors=True)


class StagingDirectory:
    """A directory that appears under its name when all of it is on the disk; after an error nothing is left."""

    def __init__(self, parent: Path, name: str) -> None:
        self.final, self.directory = parent / name, parent / f".{name}.new"

    def __enter__(self) -> Path:
        self.final.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)  # Of a run that was killed.
        self.directory.mkdir()
        return self.directory

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            sync_directory(self.directory)
            self.directory.rename(self.final)
            sync_directory(self.final.parent)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)


def read_or_empty(path: Path) -> str:
    """A file's text, or nothing where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def read_units(shown: str) -> dict[str, tuple[str, str]]:
    """Read what `systemctl show` says of units, a block of lines for each: their active and their sub state."""
    blocks = (read_env(block) for block in shown.split("\n\n"))
    return {block["Id"]: (block["ActiveState"], block["SubState"]) for block in blocks if block}


def check_key(directory: Path) -> None:
    """Raise `RefusedError` unless the server's key and certificate belong together and the CA's is a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(directory / "server.crt", directory / "server.key")
        context.load_verify_locations(directory / "ca.crt")
    except (ssl.SSLError, OSError) as error:
        raise RefusedError(f"the server's key and certificates do not fit: {error}") from error


# A run


def converge(machine: GatewayMachine, cloud: Cloud, agent: str) -> Report:
    """Bring the machine to what AWS names, or keep it on its last good generation, and say which and why.

    `agent` is the digest of this agent. Raises nothing that was foreseen; the caller reports the rest.
    """
    state = machine.state()
    applied = state.applied if state.applied and machine.has(state.applied) else None
    report = Report("ready", "", "", "", machine.instance())
    try:
        files: dict[str, str] = {}
        if applied:
            manifest = machine.manifest(applied.release)
            report, files = replace(report, running=applied.release, units=manifest.units), manifest.files
        pointer, secrets = cloud.look(files.values())
        report = replace(report, release=pointer.sha256)
        seen = Generation(pointer.sha256, secrets)
        if applied and seen == state.refused:
            return keep_last_good(machine, applied, replace(report, state="refused", reason=state.reason))
        if applied and seen == applied and state.agent == agent:
            return keep_last_good(machine, applied, report)
        wanted = stage_generation(machine, cloud, pointer, applied)
    except (AgentError, OSError) as error:
        return keep_last_good(machine, applied, failed_report(report, error))
    try:
        machine.revoke(wanted.release)
        machine.cut(wanted.release, applied.release if applied else None)
        machine.validate(wanted)
        machine.activate(wanted)
    except (AgentError, OSError) as error:
        report = failed_report(report, error)
        if applied and isinstance(error, RefusedError):
            # Tried again only when something changes: each try costs the clients their connection.
            state = replace(state, refused=seen, reason=report.reason)
            with contextlib.suppress(OSError):
                machine.save(state)
        return keep_last_good(machine, applied, report)
    report = replace(report, running=wanted.release, units=machine.manifest(wanted.release).units)
    try:
        machine.save(replace(state, applied=wanted, agent=agent, refused=None, reason=""))
        machine.tidy(wanted)
    except OSError as error:
        return failed_report(report, error)
    return report


def stage_generation(machine: GatewayMachine, cloud: Cloud, pointer: Pointer, applied: Generation | None) -> Generation:
    """Bring a release and its secrets onto this machine, beside what is in use."""
    if not (machine.releases / pointer.sha256).is_dir():
        machine.unpack(pointer.sha256, cloud.archive(pointer))
    manifest = machine.manifest(pointer.sha256)
    machine.make_user(pointer.sha256)
    secrets, name = cloud.secrets(manifest.files)
    if not (machine.vault / name).is_dir():
        machine.keep(secrets, name)
    return Generation(pointer.sha256, name)


def keep_last_good(machine: GatewayMachine, applied: Generation | None, report: Report) -> Report:
    """See that the last good generation runs, also without AWS, and return `report` with what is to be said of that."""
    if applied is None:
        return report
    try:
        if machine.linked() != applied or machine.trouble(applied, 0):
            machine.activate(applied)
    except (AgentError, OSError) as error:
        last = f"the last good release does not come up: {describe_error(error)}"
        return replace(report, state="failed", reason="; ".join(filter(None, (report.reason, last)))[:MAX_REASON])
    return report


def failed_report(report: Report, error: Exception) -> Report:
    """The report of a run that an error ended."""
    state = "refused" if isinstance(error, RefusedError) else "failed"
    return replace(report, state=state, reason=describe_error(error))


def describe_error(error: Exception) -> str:
    return (str(error) or repr(error))[:MAX_REASON]


def publish_report(machine: GatewayMachine, cloud: Cloud, report: Report) -> None:
    """Write a report down, and send it if it says anything new."""
    text = report.text(datetime.now(UTC))
    machine.report_file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(machine.report_file, text.encode())
    state = machine.state()
    if state.reported != report.said():
        cloud.report(text)
        machine.save(replace(state, reported=report.said()))


def main(arguments: Sequence[str]) -> int:
    """Run once; `check` only shows that this file is whole. Returns the exit status: 0 if the gateway is ready."""
    if list(arguments) == ["check"]:
        return 0
    machine = GatewayMachine()
    os.umask(0o022)
    lock = machine.root / "run/drawbridge.lock"
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run is under way")
            return 0
        env = read_env(Path("/etc/drawbridge/env").read_text())
        cloud = Cloud(env)
        try:
            report = converge(machine, cloud, hashlib.sha256(Path(__file__).read_bytes()).hexdigest())
        except Exception as error:
            traceback.print_exc()
            report = Report("failed", "", "", f"a fault of the agent, see its journal: {error!r}", machine.instance())
        if report.state != "ready":
            print(f"{report.state}: {report.reason}", file=sys.stderr)
        try:
            publish_report(machine, cloud, report)
        except (AgentError, OSError) as error:
            print(f"no report: {describe_error(error)}", file=sys.stderr)
        return 0 if report.state == "ready" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
