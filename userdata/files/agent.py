"""The gateway's agent: makes this machine run the release and the secrets that AWS names, or keeps the last good ones.

It makes one pass and exits; a timer starts the next run. It may be killed at any point: new files are written beside
those in use and swapped in by one rename, the machine itself is asked what runs, and the state file records a good
release last. Until then the next run repeats all steps, and a step with nothing left to do does nothing.

Each run asks the kernel and OpenVPN itself, not systemd's word, whether the release is in force: the packet filter,
the kernel's settings, devices, routes, status file and management socket. It puts back what deviates and reports it.

A release is refused, and the previous one keeps running, if its digest, its packet filter or its keys are wrong. If it
does not come up, that may be the machine's fault, so it is tried again after growing pauses. Revocations take effect at
once and first, whatever happens to the release that brings them, and none is ever undone.

Only Python's standard library and boto3: this file runs on the gateway, by itself.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePosixPath
from typing import Any

#: Format of `manifest.json`; a release of another format is refused.
FORMAT = 1
USER = "openvpn"
SSH_KEY = "ssh_host_ed25519_key"
FIREWALL = "drawbridge-nftables.service"
SYSCTL = "etc/sysctl.d/90-drawbridge.conf"
#: Script that creates the devices of a release; only the links of a pair have it.
MAKE_BOND = "etc/drawbridge/make-bond"
#: Settings that the machine's resolver reads only when it starts.
RESOLVER_SETTINGS = "etc/systemd/resolved.conf.d/drawbridge.conf"

MAX_ARCHIVE = 4 << 20
"""Bytes of a release's archive."""
MAX_UNPACKED = 16 << 20
MAX_FILES = 20_000
MAX_REASON = 400
MAX_REPAIRS, MAX_REPAIR = 3, 60
"""Characters, and repairs that a report lists with so many characters each; it still fits a parameter of 4,096."""

#: Time after a revoked certificate's end for which its serial stays on the gateway: the clock may be ahead.
CLOCK_MARGIN = timedelta(days=1)

#: Seconds.
COMMAND_TIMEOUT = 60.0
#: OpenVPN writes its status every 10 seconds; an instance without CPU credits takes longer to start it.
START_TIMEOUT = 60.0
STATUS_MAX_AGE = 60.0
#: A status file that looks old because the clock was set is new again by then.
STATUS_PATIENCE = 15.0
#: An unchanged report is sent again as a sign of life.
HEARTBEAT = 600.0
#: Last word of an agent's dry run, after which comes the release that it belongs to.
CHECKED = "checked"
#: First word of a dry run that did not get to its end for want of AWS or of the machine.
INCOMPLETE = "incomplete:"
#: Pauses before a release that did not come up is tried again; the last one repeats. Each attempt costs the clients
#: their connection.
RETRY_PAUSES = (60.0, 300.0, 1800.0, 7200.0)
MANAGEMENT_TIMEOUT = 5.0
#: Time without an answer at its management socket after which a process is restarted, and then again; the last one
#: repeats. Whoever holds the socket may come back, and each restart costs the clients their connection.
SILENCE_PAUSES = (600.0, 3600.0, 21600.0)
#: The same for a process that does not end the session of a revoked client.
UNENDED_PAUSE = 60.0


class AgentError(Exception):
    """A run could not complete.

    RefusedError   because of the release or the secrets: the next run would fail again
    FailedError    because of the machine or AWS: the next run may succeed
    """


class RefusedError(AgentError):
    """The release or the secrets are wrong."""


class FailedError(AgentError):
    """The machine or AWS failed."""


# Values


@dataclass(frozen=True, slots=True)
class Pointer:
    """The release that the gateway should run: its place in S3 and its digest."""

    bucket: str
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Generation:
    """A release, by its digest, and secrets, by `identify_secrets`, that a gateway runs together."""

    release: str
    secrets: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description that a release carries of itself."""

    instances: tuple[str, ...]
    """OpenVPN processes, `<unit>@<instance>`."""
    secrets: tuple[str, ...]
    """Names of the secret files that the release needs: the last parts of their parameters' names."""
    unit: str = "openvpn-server"
    """Template unit of the processes."""
    configs: str = "etc/openvpn/server"
    """Directory of the processes' configurations, below the root."""
    beside: tuple[str, ...] = ()
    """Other units that run with the processes."""
    bundles: tuple[tuple[str, str], ...] = ()
    """Configurations with keys that the release needs: pairs of a file name and its parameter's name."""
    check: str = ""
    """The word that the release's agent prints at the end of a dry run; empty for one whose check prints nothing."""

    @property
    def units(self) -> tuple[str, ...]:
        """The processes' units."""
        return tuple(f"{self.unit}@{instance}.service" for instance in self.instances)

    @property
    def files(self) -> dict[str, str]:
        """Name of each secret file that the release needs, with the name of its parameter."""
        return {**{name: name for name in self.secrets}, **dict(self.bundles)}


@dataclass(frozen=True, slots=True)
class Secret:
    """A parameter's value; its representation shows only the name."""

    name: str
    value: str

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"


@dataclass(frozen=True, slots=True)
class AgentState:
    """The agent's memory, which outlives a reboot."""

    applied: Generation | None = None
    """The last good generation."""
    agent: str = ""
    """Digest of the agent that applied it: another agent may have more to do."""
    refused: Generation | None = None
    reason: str = ""
    """Why `refused` was refused."""
    reported: str = ""
    """Content of the last report."""
    repairs: tuple[str, ...] = ()
    """The last repairs, oldest first, each after its time."""
    reported_at: float = 0.0
    """Time of the last report to AWS, in seconds since 1970."""
    failed: Generation | None = None
    """A generation that did not come up."""
    attempts: int = 0
    """How often `failed` was tried."""
    retry_at: float = 0.0
    """When `failed` is tried again, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Report:
    """Message to the operator; `state` is ready, refused, degraded or failed (docs/gateway.md)."""

    state: str
    release: str
    """The release that AWS names."""
    running: str
    """The release that the gateway runs; not the one that AWS names if that was refused."""
    reason: str
    instance: str
    units: tuple[str, ...] = ()
    """OpenVPN's systemd units in the release that the gateway runs, one a process."""
    repaired: tuple[str, ...] = ()
    """Deviations of the machine from its release that were put back."""
    software: dict[str, Any] = field(default_factory=dict)
    """Versions that run and are installed, and the fixes that wait, as patches.py has noted them."""
    offloaded: tuple[str, ...] | None = None
    """Instances whose data the kernel carries (data channel offload); none if the release asks for no offload."""

    def content(self) -> str:
        """Return the report without its time; a report is sent only if this has changed."""
        return json.dumps(asdict(self), sort_keys=True)

    def text(self, now: datetime) -> str:
        """Return the report as JSON with the time, ISO 8601 in UTC."""
        return json.dumps({**asdict(self), "time": now.isoformat(timespec="seconds")}, sort_keys=True)


def read_env(text: str) -> dict[str, str]:
    """Read lines KEY=VALUE, as in an EnvironmentFile."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_pointer(text: str) -> Pointer:
    """Read the release parameter; raises `RefusedError` if it is not a pointer to a release."""
    try:
        raw = json.loads(text)
        pointer = Pointer(bucket=str(raw["bucket"]), key=str(raw["key"]), sha256=str(raw["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(f"the release parameter is not a pointer to a release: {error!r}") from error
    # The digest becomes the name of a directory.
    if len(pointer.sha256) != 64 or not set(pointer.sha256) <= set("0123456789abcdef"):
        raise RefusedError("the release parameter's sha256 is not a SHA-256 in hexadecimal")
    return pointer


def read_manifest(text: str) -> Manifest:
    """Read `manifest.json`; raises `RefusedError` if this agent does not understand it."""
    try:
        raw = json.loads(text)
        format_number = raw["format"]
        optional = {key: raw[key] for key in ("unit", "configs", "check") if key in raw}
        manifest = Manifest(
            instances=_read_list(raw["instances"]),
            secrets=_read_list(raw["secrets"]),
            beside=_read_list(raw.get("beside", [])),
            bundles=tuple(raw.get("bundles", {}).items()),
            **optional,
        )
        parts = PurePosixPath(manifest.configs).parts
        names = (
            *manifest.instances,
            *manifest.files,
            manifest.unit,
            *manifest.beside,
            *parts,
            manifest.check or "none",
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"the release's manifest is unreadable: {error!r}") from error
    if format_number != FORMAT:
        raise RefusedError(f"the release has format {format_number}, this agent reads {FORMAT}: replace the instance")
    for name in names:
        if not isinstance(name, str) or not is_plain(name):
            raise RefusedError(f"the release's manifest has the name {name!r}, which is not a plain file name")
    return manifest


def _read_list(value: Any) -> tuple[Any, ...]:
    # A string would otherwise be read as a list of its letters.
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return tuple(value)


def read_state(text: str) -> AgentState:
    """Read the state file. An unreadable one counts as empty: then a run repeats every step."""
    try:
        raw = json.loads(text)
        for key in ("applied", "refused", "failed"):
            raw[key] = raw.get(key) and Generation(**raw[key])
        return AgentState(**{**raw, "repairs": tuple(raw.get("repairs", ()))})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return AgentState()


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference between the machine and its release."""

    text: str
    put_back: Callable[[], object] | None = None
    """Ends the difference; None if the agent cannot."""


def read_options(config: str, option: str) -> list[list[str]]:
    """Return the arguments of each line of an OpenVPN configuration that has this option.

    >>> read_options("dev tun0\\npush \"route 10.1.0.0 255.255.0.0\"\\nroute 10.2.0.0 255.255.0.0\\n", "route")
    [['10.2.0.0', '255.255.0.0']]
    """
    lines = (line.split() for line in config.splitlines())
    return [words[1:] for words in lines if words[:1] == [option]]


def read_sysctl(text: str) -> dict[str, str]:
    """Return the keys and values of a file for sysctl.d(5), without globs and keys that may be missing."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith(("#", "-")))
    return {key.strip(): value.strip() for key, _, value in lines if "*" not in key}


def read_destinations(network: str) -> dict[IPv4Network, str]:
    """Return the destinations of the routes in a systemd.network(5) file, each with its gateway, empty if it has none.

    >>> read_destinations("[Address]\\nAddress=10.8.0.1/24\\n[Route]\\nDestination=192.168.7.0/24\\n")
    {IPv4Network('192.168.7.0/24'): ''}
    """
    sections = (dict(line.partition("=")[::2] for line in text.splitlines()) for text in network.split("[Route]"))
    return {
        IPv4Network(section["Destination"]): section.get("Gateway", "")
        for section in sections
        if "Destination" in section
    }


def read_routes(table: str, device: str) -> set[IPv4Network]:
    """Return the destinations of a device in /proc/net/route, whose numbers are hexadecimal and little-endian."""
    rows = (line.split() for line in table.splitlines())
    pairs = ((row[1], row[7]) for row in rows if len(row) > 7 and row[0] == device)
    numbers = ((bytes.fromhex(address)[::-1], bytes.fromhex(mask)[::-1]) for address, mask in pairs)
    return {IPv4Network((address, str(IPv4Address(mask)))) for address, mask in numbers}


def without_dynamic_elements(listing: str) -> str:
    """Return nft's listing without the elements that come and go: addresses that send now, and clients' paths."""
    return re.sub(r"(flags (?:dynamic|interval,timeout)[^}]*?)\s*elements = \{[^}]*\}", r"\1", listing)


def is_plain(name: str) -> bool:
    """Return whether a name is that of a visible file, without any part that leads out of its directory."""
    return bool(name) and name[0] != "." and all(c.isascii() and (c.isalnum() or c in "._-@") for c in name)


def identify_secrets(parameters: Iterable[dict[str, Any]]) -> str:
    """Return a digest that changes whenever a secret changes, from SSM's answer and without the values.

    It includes the time, because a parameter that was deleted and created again starts over at version 1.
    """
    lines = sorted(f"{p['Name']} {p['Version']} {p['LastModifiedDate'].timestamp():.3f}" for p in parameters)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_archive(archive: bytes) -> Iterator[tuple[PurePosixPath, bytes | None]]:
    """Yield an archive's files with their content, and its directories with None.

    Raises `RefusedError` for links, devices, absolute paths, paths that lead out of the archive, too much content, or
    an archive that is cut off.
    """
    total = count = 0
    paths = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or not all(is_plain(part) for part in path.parts) or not path.parts:
                    raise RefusedError(f"the archive has the path {member.name!r}")
                if not (member.isreg() or member.isdir()):
                    raise RefusedError(f"the archive's {member.name!r} is neither a file nor a directory")
                if path in paths:
                    raise RefusedError(f"the archive has the path {member.name!r} twice")
                paths.add(path)
                total, count = total + member.size, count + 1
                if total > MAX_UNPACKED or count > MAX_FILES:
                    raise RefusedError(f"the archive holds more than {MAX_UNPACKED >> 20} MiB or {MAX_FILES} files")
                content = tar.extractfile(member) if member.isreg() else None
                yield path, content.read() if content else None
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise RefusedError(f"the archive is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Revocations:
    """The certificates that a release revokes, and the clients that may be connected."""

    serials: dict[str, str]
    """Revoked serials, in decimal, each with its client's name, which may be empty."""
    allowed: set[str] | None
    """Names of the clients that may be connected; None if they cannot all be read."""


def read_revocation(text: str) -> tuple[str, str]:
    """Return the client's name and the end of its certificate (ISO 8601) in a release's file; each may be empty."""
    name, _, end = text.partition("\n")
    return name.strip(), end.strip()


def has_ended(not_after: str, now: datetime) -> bool:
    """Return whether a certificate has surely ended; one whose end is unknown has not."""
    try:
        return datetime.fromisoformat(not_after) + CLOCK_MARGIN < now
    except (ValueError, TypeError):
        return False


def read_revocations(archive: bytes) -> Revocations:
    """Return an archive's revocations, also if the archive is too large or damaged: the serials up to the damage."""
    serials: dict[str, str] = {}
    allowed: set[str] = set()
    is_complete, total = False, 0
    with (
        contextlib.suppress(tarfile.TarError, zlib.error, EOFError, OSError, ValueError),
        tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as tar,
    ):
        for member in tar:
            total += member.size
            directory, _, name = member.name.partition("/")
            if total > 4 * MAX_UNPACKED:
                break
            if not member.isreg() or not is_plain(name):
                continue
            if directory == "revoked" and name.isdigit():
                content = tar.extractfile(member)
                text = content.read(100).decode(errors="replace") if content else ""
                serials[name] = read_revocation(text)[0]
            elif directory == "ccd":
                allowed.add(name)
        else:
            is_complete = True
    return Revocations(serials, allowed if is_complete else None)


@dataclass(frozen=True, slots=True)
class Session:
    """A client that is connected."""

    name: str
    cid: int


def read_sessions(status: Iterable[str]) -> list[Session]:
    """Read the answer to `status 3`: fields are separated by tabs, the eleventh is the client's id."""
    rows = (line.split("\t") for line in status)
    clients = (row for row in rows if row[0] == "CLIENT_LIST" and len(row) > 10)
    return [Session(row[1], int(row[10])) for row in clients if row[10].isascii() and row[10].isdigit()]


def kill_commands(sessions: Iterable[Session], allowed: set[str] | None, rekeyed: set[str]) -> list[str]:
    """Return the management commands that end the sessions of revoked certificates.

    A client that is no longer `allowed` must stop (HALT); if that is None, none must. A client that was `rekeyed` must
    reconnect, which only works with the new certificate.
    """
    commands = []
    for session in sessions:
        if allowed is not None and session.name not in allowed:
            commands.append(f"client-kill {session.cid} HALT")
        elif session.name in rekeyed:
            commands.append(f"client-kill {session.cid}")
    return commands


# Effects


def run_command(argv: Sequence[str], seconds: float = COMMAND_TIMEOUT) -> "subprocess.CompletedProcess[str]":
    """Run a command and return its result with any exit status; raises `FailedError` if it does not start or end."""
    try:
        quiet = subprocess.DEVNULL
        return subprocess.run(argv, stdin=quiet, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{argv[0]} did not end within {seconds:.0f} s") from error
    except OSError as error:
        raise FailedError(f"{argv[0]} does not start: {error}") from error


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds, for at most `seconds` of a steady clock; return whether it does."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return holds


def create_file(
    path: Path, content: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None, *, sync: bool = True
) -> None:
    """Create a file that must not exist yet, with its mode and owner from the start, and flush it if `sync` is set."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        if owner:
            os.fchown(descriptor, *owner)
        file.write(content)
        file.flush()
        if sync:
            os.fsync(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step: it has the old content or the new, also after a power failure."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        create_file(temporary, content, mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_link(path: Path, target: str) -> bool:
    """Replace `path` in one step by a symlink to `target`; return whether that changed anything."""
    if path.is_symlink() and str(path.readlink()) == target:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)
    return True


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to the disk."""
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
                    # Lines that start with > are notifications, not answers.
                    if not line.startswith(">"):
                        answer.append(line)
                    if line == "END" or line.startswith(("SUCCESS:", "ERROR:")):
                        break
    return answer


class Cloud:
    """The calls to AWS, with the instance's role; each is bounded, and each error is an `AgentError`."""

    def __init__(self, env: dict[str, str]) -> None:
        import boto3  # Takes most of a run's time, so nothing that can do without it has it.
        import botocore.config

        self._settings = botocore.config.Config(
            connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}
        )
        self._session = boto3.Session(region_name=env["REGION"])
        self._ssm: Any = self._session.client("ssm", config=self._settings)
        self._env = env

    def look_up(self, secrets: Iterable[str]) -> tuple[Pointer, str]:
        """Return the release that AWS names, and the identity of the secrets: one call, and nothing is decrypted."""
        name = self._env["RELEASE"]
        parameters = self._get_parameters([name, *map(self._parameter_name, secrets)], decrypt=False)
        pointer = [p for p in parameters if p["Name"] == name]
        if not pointer:
            raise FailedError(f"AWS has no parameter {name}")
        return read_pointer(pointer[0]["Value"]), identify_secrets(p for p in parameters if p["Name"] != name)

    def fetch_secrets(self, files: dict[str, str]) -> tuple[list[Secret], str]:
        """Return the secrets of `Manifest.files`, decrypted, and their identity."""
        files_by_parameter = {self._parameter_name(name): file for file, name in files.items()}
        parameters = self._get_parameters(list(files_by_parameter), decrypt=True)
        secrets = [Secret(files_by_parameter[p["Name"]], p["Value"]) for p in parameters]
        if missing := sorted(set(files_by_parameter) - {p["Name"] for p in parameters}):
            raise FailedError(f"AWS has no parameter {', '.join(missing)}")
        return secrets, identify_secrets(parameters)

    def fetch_archive(self, pointer: Pointer) -> bytes:
        """Return the release's archive; raises `RefusedError` if its digest is wrong."""
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

    def put_report(self, text: str) -> None:
        """Write the report's parameter, which the operator reads."""
        name = self._env["REPORT"]
        self._call(name, lambda: self._ssm.put_parameter(Name=name, Value=text, Type="String", Overwrite=True))

    def _parameter_name(self, name: str) -> str:
        """Return a parameter's full name; a name without a path is one of this gateway's secrets."""
        return name if name.startswith("/") else f"{self._env['SECRETS']}/{name}"

    def _get_parameters(self, names: list[str], *, decrypt: bool) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = []
        for start in range(0, len(names), 10):  # GetParameters accepts ten names.
            get = functools.partial(self._ssm.get_parameters, Names=names[start : start + 10], WithDecryption=decrypt)
            parameters += self._call(names[start], get)["Parameters"]
        return parameters

    @staticmethod
    def _call(resource: str, action: Callable[[], Any]) -> Any:
        import botocore.exceptions as aws
        import urllib3.exceptions

        try:
            return action()
        except aws.NoCredentialsError as error:
            reason = "no credentials: the instance has no instance profile, or its metadata service does not answer"
            raise FailedError(reason) from error
        except (aws.BotoCoreError, aws.ClientError, urllib3.exceptions.HTTPError, OSError) as error:
            # botocore's own text does not say whether the name, the route or the host is the fault.
            cause = str(getattr(error, "kwargs", {}).get("error", "")).rpartition(">: ")[2]
            raise FailedError(f"{resource}: {error} {cause}".strip()) from error


class GatewayMachine:
    """The gateway's file system and services; tests replace `root` and `run`."""

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
        self.filter_file = root / "run/drawbridge/filter"
        self.retry_file = root / "run/drawbridge/retry"
        self.software_file = root / "var/lib/drawbridge-patches/status.json"
        self.fallback_file = root / "run/drawbridge/fallback"
        self.console_file = root / "run/drawbridge/console"
        self.openvpn = root / "etc/openvpn/server"
        self.ssh_key = root / "etc/ssh" / SSH_KEY

    # Reading the machine

    def instance_id(self) -> str:
        """Return the EC2 instance's id, which cloud-init has stored."""
        return read_or_empty(self.root / "var/lib/cloud/data/instance-id").strip()

    def load_state(self) -> AgentState:
        return read_state(read_or_empty(self.state_file))

    def load_software(self) -> dict[str, Any]:
        """Return what patches.py has noted; nothing if it has not run yet."""
        try:
            software = json.loads(read_or_empty(self.software_file))
        except ValueError:
            return {}
        return software if isinstance(software, dict) else {}

    def load_manifest(self, release: str) -> Manifest:
        return read_manifest(read_or_empty(self.releases / release / "manifest.json"))

    def linked_generation(self) -> Generation | None:
        """Return the generation whose files are in use."""
        try:
            return Generation(self.current.readlink().name, (self.openvpn / "secrets").readlink().name)
        except OSError:
            return None

    def has_release(self, sha256: str) -> bool:
        return (self.releases / sha256).is_dir()

    def has_generation(self, generation: Generation) -> bool:
        """Return whether a generation's release and secrets are both on this machine."""
        return (self.releases / generation.release).is_dir() and (self.vault / generation.secrets).is_dir()

    def runtime_directory(self, instance: str) -> Path:
        """Return the runtime directory of an OpenVPN process."""
        return self.root / f"run/openvpn-{instance}"

    def answered_file(self, instance: str) -> Path:
        """Return the file whose time is that of the last answer at a process's management socket."""
        return self.runtime_directory(instance) / "answered"

    def silence_file(self, instance: str) -> Path:
        """Return the file of `load_silence`, which outlives a restart of the process."""
        return self.root / f"run/drawbridge/silent-{instance}"

    def unended_file(self, instance: str) -> Path:
        """Return the file that exists while a process has sessions to end.

        It has the names of clients whose certificate was replaced, as JSON. Only root writes in its directory.
        """
        return self.root / f"run/drawbridge/unended-{instance}"

    def started_generation(self, instance: str) -> Generation | None:
        """Return the generation that a running OpenVPN was started with, which its unit records."""
        try:
            directory = self.runtime_directory(instance)
            return Generation((directory / "release").readlink().name, (directory / "secrets").readlink().name)
        except OSError:
            return None

    def startup_inputs(self, generation: Generation, instance: str) -> tuple[object, ...]:
        """Return everything that OpenVPN reads only when it starts; a change of it needs a restart."""
        manifest, root = self.load_manifest(generation.release), self.releases / generation.release / "root"
        units, name = root / "etc/systemd/system", f"{manifest.unit}@"
        drop_ins = [sorted((units / f"{name}{suffix}.service.d").glob("*.conf")) for suffix in ("", instance)]
        config = root / manifest.configs / f"{instance}.conf"
        paths = (config, units / f"{name}.service", *drop_ins[0], *drop_ins[1])
        return generation.secrets, *map(read_or_empty, paths)

    def find_fault(self, generation: Generation, seconds: float) -> str:
        """Return why a generation's units do not all run after at most `seconds`, or an empty text if they do."""
        manifest = self.load_manifest(generation.release)
        units = [FIREWALL, *manifest.units, *manifest.beside]
        argv = ["systemctl", "show", "--property=Id,ActiveState,SubState", *units]
        dead: list[str] = []

        def is_decided() -> bool:
            states = read_units(self.run(argv).stdout)
            dead[:] = [name for name in units if {*states.get(name, ())} & {"failed", "inactive", "auto-restart"}]
            up = all("active" in states.get(name, ()) for name in units)
            return bool(dead) or (up and all(map(self.is_fresh, manifest.instances)))

        if not wait_until(is_decided, seconds):
            return f"{', '.join(manifest.units)} not up within {seconds:.0f} s"
        return "; ".join(f"{name} is down: {self.journal_tail(name)}" for name in dead)

    def is_fresh(self, instance: str) -> bool:
        """Return whether OpenVPN has written its status file lately, which it does only while it serves."""
        try:
            status = (self.runtime_directory(instance) / "status").stat()
        except OSError:
            return False
        return status.st_size > 0 and abs(time.time() - status.st_mtime) < STATUS_MAX_AGE

    def hangs(self, instance: str) -> bool:
        """Return whether OpenVPN was started some time ago and does not write its status file (any more)."""
        for path in (self.runtime_directory(instance) / "status", self.runtime_directory(instance) / "release"):
            try:
                age = time.time() - path.lstat().st_mtime
            except OSError:
                continue
            return abs(age) >= STATUS_MAX_AGE and not wait_until(lambda: self.is_fresh(instance), STATUS_PATIENCE)
        return False

    def journal_tail(self, name: str) -> str:
        """Return the last lines that a unit's own processes have logged."""
        show = ["journalctl", f"_SYSTEMD_UNIT={name}", "--lines=4", "--output=cat", "--no-pager", "--quiet"]
        lines = self.run(show).stdout.replace("Use --help for more information.", "").splitlines()
        return " | ".join(filter(None, lines)) or "it has logged nothing"

    # Comparing the machine with its release

    def find_deviations(self, generation: Generation) -> list[Deviation]:
        """Return how the kernel and OpenVPN differ from a generation whose units all run."""
        release, deviations = generation.release, []
        if self.filter_digest(release) != read_or_empty(self.filter_file):
            deviations.append(Deviation("the packet filter was changed", lambda: self.load_filter(release)))
        if keys := self.changed_settings(release):
            deviations.append(Deviation(f"changed kernel settings: {', '.join(keys)}", self.apply_settings))
        devices = self.release_devices(release)
        if missing := [name for name in devices if not self.has_device(name, devices[name])]:
            text = f"missing or down: {', '.join(missing)}"
            deviations.append(Deviation(text, lambda: self.restore_devices(generation, missing)))
            return deviations  # What uses the devices differs as well until they are back.
        for device in devices:
            if networks := self.missing_routes(release, device):
                text = f"no route to {', '.join(map(str, networks))}"
                deviations.append(Deviation(text, functools.partial(self.add_routes, device, networks)))
        for instance, unit in self.processes(release):
            if self.unended_file(instance).exists():
                text = f"{unit} still serves revoked clients"
                put_back = functools.partial(self.end_sessions_or_restart, generation, instance, unit)
                deviations.append(Deviation(text, put_back))
            elif fault := self.find_management_fault(release, instance):
                restart = functools.partial(self.restart_silent, generation, instance, unit)
                is_due = self.must_restart_silent(instance)
                text = f"{unit} does not answer at its management socket: {fault}"
                deviations.append(Deviation(text, restart if is_due else None))
        return deviations

    def repair(self, generation: Generation) -> tuple[list[str], list[str]]:
        """Put back what deviates from a generation whose units all run; return what did, and what still does."""
        if not self.filter_file.exists():  # Since the machine started, nobody has looked.
            self.load_filter(generation.release)
        deviations = self.find_deviations(generation)
        for deviation in deviations:
            if deviation.put_back:
                deviation.put_back()
        texts = [deviation.text for deviation in deviations]
        if any(deviation.put_back for deviation in deviations):
            deviations = self.find_deviations(generation)
        rest = [deviation.text for deviation in deviations]
        return [text for text in texts if text not in rest], rest

    def processes(self, release: str) -> Iterator[tuple[str, str]]:
        """Yield the instance and the unit of each OpenVPN process of a release."""
        manifest = self.load_manifest(release)
        yield from zip(manifest.instances, manifest.units, strict=True)

    def instance_config(self, release: str, instance: str) -> str:
        """Return the configuration of an OpenVPN process."""
        return read_or_empty(
            self.releases / release / "root" / self.load_manifest(release).configs / f"{instance}.conf"
        )

    def filter_digest(self, release: str) -> str:
        """Return a digest of the release's tables as the kernel has them, without counters; empty without a table."""
        rules = read_or_empty(self.releases / release / "root/etc/drawbridge/nftables.conf")
        digest = hashlib.sha256()
        for family, name in dict.fromkeys(re.findall(r"^table (\w+) (\w+)", rules, re.MULTILINE)):
            result = self.run(["nft", "--stateless", "list", "table", family, name])
            if result.returncode:
                return ""
            digest.update(without_dynamic_elements(result.stdout).encode())
        return digest.hexdigest()

    def load_filter(self, release: str) -> None:
        """Load the packet filter and note what the kernel made of it, which is what later runs compare."""
        # Reload, do not restart: OpenVPN requires this unit and would restart too.
        self.run_checked("systemctl", "reload-or-restart", FIREWALL)
        self.filter_file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.filter_file, self.filter_digest(release).encode())

    def changed_settings(self, release: str) -> list[str]:
        """Return the kernel settings that have another value than the release's."""
        settings = read_sysctl(read_or_empty(self.releases / release / "root" / SYSCTL))
        directory = self.root / "proc/sys"
        return [
            key for key, value in settings.items() if read_or_empty(directory / key.replace(".", "/")).strip() != value
        ]

    def apply_settings(self) -> None:
        """Apply the kernel settings of the release that is in use."""
        self.run_checked("/usr/lib/systemd/systemd-sysctl", str(self.root / SYSCTL))

    def release_devices(self, release: str) -> dict[str, bool]:
        """Return the network devices that a release needs, each with whether it must be up by itself."""
        root, devices = self.releases / release / "root", {}
        for path in sorted((root / "etc/systemd/network").glob("*.netdev")):
            netdev = read_env(path.read_text())
            # The ports of a bridge or a bond may be down for a reason.
            if "Name" in netdev:
                devices[netdev["Name"]] = netdev.get("Kind") in ("bridge", "tun")
        for instance, _ in self.processes(release):
            config = self.instance_config(release, instance)
            for name, *_ in read_options(config, "dev"):
                devices.setdefault(name, False)
        return devices

    def find_offloaded(self, release: str) -> tuple[str, ...] | None:
        """Return which instances' data the kernel carries, by its own device; None if the release wants none.

        Only the devices of the tun driver have this file (Linux, tun.c).
        """
        configs = {instance: self.instance_config(release, instance) for instance, _ in self.processes(release)}
        devices = {
            instance: self.root / "sys/class/net" / name
            for instance, config in configs.items()
            if not read_options(config, "disable-dco")
            for name, *_ in read_options(config, "dev")
            if name.startswith("tun")
        }
        if not devices:
            return None
        return tuple(
            instance for instance, device in devices.items() if device.exists() and not (device / "tun_flags").exists()
        )

    def has_device(self, name: str, must_be_up: bool) -> bool:
        """Return whether the kernel has a network device, which is up if it must be (IFF_UP, netdevice(7))."""
        flags = read_or_empty(self.root / f"sys/class/net/{name}/flags").strip()
        return bool(flags) and (not must_be_up or bool(int(flags, 16) & 1))

    def restore_devices(self, generation: Generation, names: list[str]) -> None:
        """Bring devices up, create those that are missing, and restart the OpenVPN processes that use the latter."""
        missing = [name for name in names if not self.has_device(name, must_be_up=False)]
        self.create_devices(generation.release)
        if present := [name for name in names if self.has_device(name, must_be_up=False)]:
            self.run(["networkctl", "reconfigure", *present])
        for instance, unit in self.processes(generation.release):
            config = self.instance_config(generation.release, instance)
            if any(words[0] in missing for words in read_options(config, "dev")):
                self.run_checked("systemctl", "restart", unit)
        if fault := self.find_fault(generation, START_TIMEOUT):
            raise FailedError(fault)

    def missing_routes(self, release: str, device: str) -> dict[IPv4Network, str]:
        """Return the networks behind clients that the kernel has no route to by a tunnel's device, with gateways."""
        path = self.releases / release / f"root/etc/systemd/network/10-drawbridge-{device}.network"
        routes = read_destinations(read_or_empty(path))
        present = read_routes(read_or_empty(self.root / "proc/net/route"), device)
        return {network: gateway for network, gateway in routes.items() if network not in present}

    def add_routes(self, device: str, networks: Mapping[IPv4Network, str]) -> None:
        """Add routes to networks behind clients, each by its gateway if it has one."""
        for network, gateway in networks.items():
            via = ["via", gateway] if gateway else []
            self.run_checked("ip", "route", "replace", str(network), *via, "dev", device)

    def find_management_fault(self, release: str, instance: str) -> str:
        """Return why OpenVPN does not answer at its management socket; empty if it does, or has none.

        OpenVPN logs each question, so it is asked no more for `HEARTBEAT` seconds after an answer.
        """
        with contextlib.suppress(OSError):
            if abs(time.time() - self.answered_file(instance).stat().st_mtime) < HEARTBEAT:
                return ""
        for path, *_ in read_options(self.instance_config(release, instance), "management"):
            try:
                self.send_commands(instance, self.root / path.lstrip("/"), ["pid"])
            except OSError as error:
                return describe_error(error)
        return ""

    def send_commands(self, instance: str, path: Path, commands: Iterable[str]) -> list[str]:
        """Send commands to a process's management socket and return the answer; raises OSError.

        Note when it answered, or since when it has not.
        """
        answered, silence = self.answered_file(instance), self.load_silence(instance)
        try:
            answer = send_management_commands(path, commands)
        except OSError:
            with contextlib.suppress(OSError):
                answered.unlink(missing_ok=True)
                if silence is None:
                    self.save_silence(instance, 0)
            raise
        with contextlib.suppress(OSError):
            answered.touch()
            self.silence_file(instance).unlink(missing_ok=True)
        return answer

    def load_silence(self, instance: str) -> tuple[int, float] | None:
        """Return how often a silent process was restarted, and since when it has been silent, by the steady clock.

        None if it has answered the last question.
        """
        with contextlib.suppress(ValueError):
            restarts, since = read_or_empty(self.silence_file(instance)).split()
            return int(restarts), float(since)
        return None

    def save_silence(self, instance: str, restarts: int) -> None:
        """Note that a process is silent from now on."""
        path = self.silence_file(instance)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, f"{restarts} {time.monotonic()}".encode())

    def must_restart_silent(self, instance: str, pause: float | None = None) -> bool:
        """Return whether a process has been silent for `pause` seconds, or for the pause after its last restart."""
        restarts, since = self.load_silence(instance) or (0, time.monotonic())
        if pause is None:
            pause = SILENCE_PAUSES[min(restarts, len(SILENCE_PAUSES) - 1)]
        return time.monotonic() - since >= pause

    def restart_silent(self, generation: Generation, instance: str, unit: str) -> None:
        """Restart a process that does not answer at its management socket, which ends every connection to it."""
        restarts, _ = self.load_silence(instance) or (0, 0.0)
        self.save_silence(instance, restarts + 1)
        self.run_checked("systemctl", "restart", unit)
        if fault := self.find_fault(generation, START_TIMEOUT):
            raise FailedError(fault)
        self.unended_file(instance).unlink(missing_ok=True)  # The sessions ended with the process.

    # Adding files beside those in use

    def unpack_release(self, sha256: str, archive: bytes) -> None:
        """Put a release beside the others, completely or not at all."""
        with StagingDirectory(self.releases, sha256) as directory:
            for path, content in read_archive(archive):
                target = directory / path
                if content is None:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    create_file(target, content, sync=False)
            # One flush for thousands of files; on a small disk each one of its own takes milliseconds.
            os.sync()

    def store_secrets(self, secrets: Iterable[Secret], name: str) -> None:
        """Put secrets beside the others; OpenVPN's user owns its files, root owns the SSH host key."""
        entry = pwd.getpwnam(self.user)
        with StagingDirectory(self.vault, name) as directory:
            os.chown(directory, -1, entry.pw_gid)
            directory.chmod(0o750)
            for secret in secrets:
                # Not root:group 0640: OpenVPN warns about a key that anyone but its owner can read.
                owner = None if secret.name == SSH_KEY else (entry.pw_uid, entry.pw_gid)
                create_file(directory / secret.name, secret.value.encode(), 0o400, owner)

    def create_user(self, release: str) -> None:
        """Create OpenVPN's user unless it exists."""
        try:
            pwd.getpwnam(self.user)
        except KeyError:
            self.run_checked("systemd-sysusers", str(self.releases / release / "root/etc/sysusers.d/drawbridge.conf"))

    # Checking

    def validate(self, generation: Generation) -> None:
        """Raise `RefusedError` for faults that show before a generation is in use."""
        release, secrets = self.releases / generation.release, self.vault / generation.secrets
        manifest = self.load_manifest(generation.release)
        self.check_agent(generation.release, manifest)
        self.run_checked("nft", "--check", "--file", str(release / "root/etc/drawbridge/nftables.conf"))
        for instance in manifest.instances:
            # The last option makes OpenVPN print a list and exit after it has read all other options.
            config = str(release / "root" / manifest.configs / f"{instance}.conf")
            self.run_checked("openvpn", "--config", config, "--show-digests")
        for bundle, _ in manifest.bundles:
            self.run_checked("openvpn", "--config", str(secrets / bundle), "--show-digests")
        check_key(secrets)
        if SSH_KEY in manifest.secrets:
            self.public_key(secrets / SSH_KEY)

    def check_agent(self, release: str, manifest: Manifest) -> None:
        """Let a release's agent make a dry run; raises `RefusedError` unless it gets to its end.

        The manifest says whether the agent can: a release of an older version is accepted if its agent ends well.
        """
        output = self.run_checked(sys.executable, "-I", str(self.releases / release / "agent.py"), "check").stdout
        last = (output.strip().splitlines() or [""])[-1]
        if last.startswith(INCOMPLETE):
            raise FailedError(f"the new agent's dry run: {last}")
        if manifest.check and last != f"{manifest.check} {release}":
            raise RefusedError(f"the new agent's dry run did not get to its end: {last or 'it printed nothing'}")

    def public_key(self, key: Path) -> str:
        """Return the public half of an SSH key."""
        return str(self.run_checked("ssh-keygen", "-y", "-P", "", "-f", str(key)).stdout)

    # Changing what runs

    def revoke(self, serials: Iterable[str]) -> None:
        """Put revocations into force for good. The directory itself stays: without it everyone gets in.

        Raises OSError after it has tried each of them.
        """
        revoked = self.openvpn / "revoked"
        self.secure_directory(self.openvpn)
        revoked.mkdir(mode=0o755, exist_ok=True)
        failure: OSError | None = None
        missing = [serial for serial in serials if not (revoked / serial).exists()]
        for serial in missing:
            try:
                create_file(revoked / serial, b"", sync=False)
            except OSError as error:
                failure = error
        if missing:
            sync_directory(revoked)
        if failure:
            raise failure

    def secure_directory(self, path: Path) -> None:
        """Create a directory that only root writes and OpenVPN reads."""
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.chown(path, -1, pwd.getpwnam(self.user).pw_gid)
        path.chmod(0o750)

    def revocations(self, release: str) -> dict[str, str]:
        """Return a release's revoked serials, in decimal, each with its client's name, which may be empty."""
        directory = self.releases / release / "revoked"
        serials = sorted(path for path in directory.glob("*") if path.name.isdigit()) if directory.is_dir() else []
        return {path.name: read_revocation(read_or_empty(path))[0] for path in serials}

    def drop_ended(self, before: str, release: str, now: datetime) -> None:
        """Take back the revocations that `release` has no more, and whose certificates have ended as `before` says."""
        for serial in self.revocations(before).keys() - self.revocations(release).keys():
            if has_ended(read_revocation(read_or_empty(self.releases / before / "revoked" / serial))[1], now):
                (self.openvpn / "revoked" / serial).unlink(missing_ok=True)

    def read_release_revocations(self, release: str) -> Revocations:
        """Return the revocations of a release that is on this machine."""
        ccd = self.releases / release / "ccd"
        return Revocations(self.revocations(release), {path.name for path in ccd.iterdir()} if ccd.is_dir() else set())

    def end_revoked_sessions(self, applied: str, new: Revocations) -> None:
        """End the sessions of certificates that `new` revokes and the release `applied` did not; no others.

        Raises `FailedError` if a process does not answer, after all others have; `repair` then tries again.
        """
        previous = self.revocations(applied)
        revoked = {serial: name for serial, name in new.serials.items() if serial not in previous}
        failures = []
        for instance in self.load_manifest(applied).instances if revoked else ():
            socket_path = self.runtime_directory(instance) / "mgmt.sock"
            if not socket_path.exists():
                continue
            # Noted first: a run that is killed leaves it to the next one.
            rekeyed = self.load_unended(instance) | set(filter(None, revoked.values()))
            self.unended_file(instance).parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.unended_file(instance), json.dumps(sorted(rekeyed)).encode())
            try:
                self.end_sessions(instance, new.allowed)
            except OSError as error:
                failures.append(f"{socket_path}: {describe_error(error)}")
        if failures:
            raise FailedError("; ".join(failures))

    def load_unended(self, instance: str) -> set[str]:
        """Return the clients of `unended_file`; none if it does not exist."""
        with contextlib.suppress(ValueError):
            return set(json.loads(read_or_empty(self.unended_file(instance))))
        return set()

    def end_sessions(self, instance: str, allowed: set[str] | None) -> None:
        """End a process's sessions of clients that are not `allowed` or are noted; raises OSError without an answer."""
        path = self.runtime_directory(instance) / "mgmt.sock"
        sessions = read_sessions(self.send_commands(instance, path, ["status 3"]))
        if commands := kill_commands(sessions, allowed, self.load_unended(instance)):
            self.send_commands(instance, path, commands)
        self.unended_file(instance).unlink(missing_ok=True)

    def end_sessions_or_restart(self, generation: Generation, instance: str, unit: str) -> None:
        """End the sessions of revoked clients, by a restart if a process has not answered for `UNENDED_PAUSE`."""
        try:
            self.end_sessions(instance, self.read_release_revocations(generation.release).allowed)
        except OSError:
            if self.must_restart_silent(instance, UNENDED_PAUSE):
                self.restart_silent(generation, instance, unit)

    def activate(self, generation: Generation) -> list[str]:
        """Make the machine run a generation that is on its disk; raises `AgentError` if it does not come up.

        Return which processes hung and were therefore restarted.
        """
        manifest = self.load_manifest(generation.release)
        # No file is rewritten in place: all are links through `current`, which changes in one step.
        replace_link(self.openvpn / "secrets", str(Path("/") / self.vault.relative_to(self.root) / generation.secrets))
        replace_link(self.current, f"releases/{generation.release}")
        replace_link(self.openvpn / "ccd", "/opt/drawbridge/current/ccd")
        had_settings = (self.root / RESOLVER_SETTINGS).is_symlink()
        self.link_files(generation.release)
        if not had_settings:
            # Not every image has it.
            self.run(["systemctl", "try-restart", "systemd-resolved.service"])
        self.present_host_key(generation)

        self.run_checked("systemctl", "mask", "--quiet", "openvpn.service")  # It would start every *.conf.
        self.run_checked("systemctl", "enable", "--quiet", FIREWALL, *manifest.units, *manifest.beside)
        self.run_checked("systemctl", "daemon-reload")
        # Before the filter, which has their last words leave by the port that clients know.
        self.stop_former(generation.release)
        # Filter first, then forwarding.
        self.load_filter(generation.release)
        self.apply_settings()
        self.create_devices(generation.release)
        hung = []
        for instance, unit in zip(manifest.instances, manifest.units, strict=True):
            started, inputs = self.started_generation(instance), self.startup_inputs(generation, instance)
            restart = started is None or self.startup_inputs(started, instance) != inputs
            if not restart and self.hangs(instance):
                restart = True
                hung.append(f"{unit} hung")
            if self.run(["systemctl", "restart" if restart else "start", unit]).returncode:
                raise FailedError(f"{unit} does not start: {self.journal_tail(unit)}")
        for unit in manifest.beside:
            self.run_checked("systemctl", "restart", unit)
        if fault := self.find_fault(generation, START_TIMEOUT):
            raise FailedError(fault)
        return hung

    def stop_former(self, release: str) -> None:
        """Stop processes that a former release had and this one has not, and delete their devices."""
        units, former = {*self.load_manifest(release).units}, dict[str, set[str]]()
        for directory in self.releases.iterdir():
            with contextlib.suppress(RefusedError):  # One that was never in use may be malformed.
                for instance, unit in self.processes(directory.name):
                    config = self.instance_config(directory.name, instance)
                    former.setdefault(unit, set()).update(words[0] for words in read_options(config, "dev"))
        used = self.release_devices(release)
        for unit in sorted(former.keys() - units):
            self.run_checked("systemctl", "disable", "--now", "--quiet", unit)
            for device in sorted(former[unit] - used.keys()):
                if self.has_device(device, must_be_up=False):
                    self.run_checked("ip", "link", "delete", device)

    def link_files(self, release: str) -> None:
        """Link each file under the release's `root` to its place, and remove links of files in other releases only."""
        new = self.list_files(release)
        for path in sorted(new):
            replace_link(self.root / path, f"/opt/drawbridge/current/root/{path}")
        old = {path for directory in self.releases.iterdir() for path in self.list_files(directory.name)}
        for path in sorted(old - new):
            if (self.root / path).is_symlink():
                (self.root / path).unlink()

    def create_devices(self, release: str) -> None:
        """Let systemd-networkd create the devices that a release has files for; existing ones stay up."""
        files = self.list_files(release)
        if PurePosixPath(MAKE_BOND) in files:
            self.run_checked("sh", str(self.root / MAKE_BOND))
        elif any(path.is_relative_to("etc/systemd/network") for path in files):
            self.run_checked("systemctl", "start", "systemd-networkd.service")
            self.run_checked("networkctl", "reload")

    def list_files(self, release: str) -> set[PurePosixPath]:
        """Return the paths that a release's files have under the machine's root."""
        top = self.releases / release / "root"
        return {PurePosixPath(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}

    def present_host_key(self, generation: Generation) -> None:
        """Make sshd present the host key that the operator reads from AWS."""
        source = self.vault / generation.secrets / SSH_KEY
        if not source.exists() or not self.ssh_key.parent.is_dir():
            return
        key = source.read_bytes()
        if self.ssh_key.exists() and self.ssh_key.read_bytes() == key:
            return
        replace_file(self.ssh_key.with_suffix(".pub"), self.public_key(source).encode())
        replace_file(self.ssh_key, key, 0o600)
        # If a socket unit starts sshd at the first connection, there is nothing to reload.
        self.run(["systemctl", "try-reload-or-restart", "ssh.service"])

    def run_checked(self, *argv: str) -> Any:
        """Run a command; raises `RefusedError` with its output if it fails.

        One that does not end in time, or is killed, is `FailedError`: the machine is slow or has no memory left.
        """
        name = Path(argv[0]).name
        result = self.run(argv)
        if result.returncode < 0:  # As by the kernel, for want of memory.
            raise FailedError(f"{name} was killed by signal {-result.returncode}")
        if result.returncode:
            output = " | ".join((result.stderr.strip() or result.stdout.strip()).splitlines())
            raise RefusedError(f"{name}: {output or f'exit status {result.returncode}'}")
        return result

    def forget_failures(self, state: AgentState) -> AgentState:
        """Forget what failed before, as the operator has ordered; return the new memory."""
        state = replace(state, refused=None, failed=None, reason="")
        self.save_state(state)
        self.retry_file.unlink()
        return state

    def save_state(self, state: AgentState) -> None:
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.state_file, json.dumps(asdict(state)).encode())

    def delete_unused(self, generation: Generation) -> None:
        """Delete all releases and secrets but those of this generation and those that OpenVPN was started with."""
        started = map(self.started_generation, self.load_manifest(generation.release).instances)
        used = [generation, *filter(None, started)]
        for directory, names in ((self.releases, {g.release for g in used}), (self.vault, {g.secrets for g in used})):
            for path in directory.iterdir():
                if path.name not in names:
                    shutil.rmtree(path, ignore_errors=True)


class DryMachine(GatewayMachine):
    """A machine on which a run changes nothing, and notes what it would do."""

    def __init__(self, root: Path = Path("/"), run: Callable[[Sequence[str]], Any] = run_command) -> None:
        super().__init__(root, run)
        self.plan: list[str] = []

    def save_state(self, state: AgentState) -> None:
        """Note nothing: the memory is the running agent's."""

    def forget_failures(self, state: AgentState) -> AgentState:
        """Return the memory as it is."""
        return state

    def unpack_release(self, sha256: str, archive: bytes) -> None:
        """Read the whole archive."""
        self.plan.append(f"unpack {sum(1 for _ in read_archive(archive))} files")

    def create_user(self, release: str) -> None:
        """Create nobody."""

    def store_secrets(self, secrets: Iterable[Secret], name: str) -> None:
        """Note which secrets there would be."""
        self.plan.append(f"store {len(list(secrets))} secrets")

    def validate(self, generation: Generation) -> None:
        """Check nothing: the running agent does."""

    def revoke(self, serials: Iterable[str]) -> None:
        """Note how many serials would be in force."""
        self.plan.append(f"revoke {len(list(serials))} serials")

    def end_revoked_sessions(self, applied: str, new: Revocations) -> None:
        """End no session."""

    def drop_ended(self, before: str, release: str, now: datetime) -> None:
        """Drop nothing."""

    def delete_unused(self, generation: Generation) -> None:
        """Delete nothing."""

    def activate(self, generation: Generation) -> list[str]:
        """Note which processes would restart."""
        self.plan.append(f"link {len(self.list_files(generation.release))} files")
        for instance, unit in self.processes(generation.release):
            started, inputs = self.started_generation(instance), self.startup_inputs(generation, instance)
            if started is None or self.startup_inputs(started, instance) != inputs:
                self.plan.append(f"restart {unit}")
        return []

    def repair(self, generation: Generation) -> tuple[list[str], list[str]]:
        """Note how the machine deviates."""
        self.plan += [deviation.text for deviation in self.find_deviations(generation)]
        return [], []


class StagingDirectory:
    """A directory that gets its name once it is complete on the disk; after an error nothing is left."""

    def __init__(self, parent: Path, name: str) -> None:
        self.final, self.directory = parent / name, parent / f".{name}.new"

    def __enter__(self) -> Path:
        self.final.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)  # Left by a run that was killed.
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
    """Return a file's text, or an empty one if the file does not exist."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def read_units(output: str) -> dict[str, tuple[str, str]]:
    """Read the output of `systemctl show`, a block of lines a unit: each unit's active state and sub state."""
    blocks = (read_env(block) for block in output.split("\n\n"))
    return {block["Id"]: (block["ActiveState"], block["SubState"]) for block in blocks if block}


def check_key(directory: Path) -> None:
    """Raise `RefusedError` unless the server's key and certificate match and the CA's certificate can be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(directory / "server.crt", directory / "server.key")
        context.load_verify_locations(directory / "ca.crt")
    except (ssl.SSLError, OSError) as error:
        raise RefusedError(f"the server's key and certificates do not match: {error}") from error


# A run


def converge(machine: GatewayMachine, cloud: Cloud, agent: str) -> Report:
    """Make the machine run what AWS names, or keep it on its last good generation; return a report of the outcome.

    `agent` is the digest of this agent. Expected errors go into the report; other exceptions are faults of the agent.
    """
    state = machine.load_state()
    if machine.retry_file.exists():
        state = machine.forget_failures(state)
    applied = state.applied if state.applied and machine.has_generation(state.applied) else None
    report = Report("ready", "", "", "", machine.instance_id())
    try:
        files: dict[str, str] = {}
        if applied:
            manifest = machine.load_manifest(applied.release)
            report, files = replace(report, running=applied.release, units=manifest.units), manifest.files
        pointer, secrets = cloud.look_up(files.values())
        report = replace(report, release=pointer.sha256)
        named = Generation(pointer.sha256, secrets)
        if applied and named == state.refused:
            return keep_last_good(machine, applied, replace(report, state="refused", reason=state.reason))
        if applied and named == applied and state.agent == agent:
            return keep_last_good(machine, applied, report)
        archive = None if machine.has_release(pointer.sha256) else cloud.fetch_archive(pointer)
    except (AgentError, OSError) as error:
        return keep_last_good(machine, applied, failed_report(report, error))
    # Revocations come first and by themselves: nothing that is wrong with their release holds them up.
    failures = revoke_first(machine, applied, pointer.sha256, archive) if applied else []
    if applied and named == state.failed and time.time() < state.retry_at <= time.time() + RETRY_PAUSES[-1]:
        return keep_last_good(machine, applied, waiting_report(report, state, failures))
    attempt = state
    try:
        staged = stage_generation(machine, cloud, pointer, archive)
        machine.revoke(machine.revocations(staged.release))
        machine.validate(staged)
        attempt = replace(state, failed=named, attempts=state.attempts + 1 if named == state.failed else 1)
        machine.activate(staged)
    except (AgentError, OSError) as error:
        report = failed_report(report, error)
        if applied and isinstance(error, RefusedError) and attempt is state:
            # Do not try again until something changes.
            state = replace(state, refused=named, reason=report.reason)
        elif applied and attempt is not state:
            pause = RETRY_PAUSES[min(attempt.attempts, len(RETRY_PAUSES)) - 1]
            state = replace(attempt, retry_at=time.time() + pause, reason=report.reason)
            report = waiting_report(replace(report, state="failed"), state, failures)
        with contextlib.suppress(OSError):
            machine.save_state(state)
        return keep_last_good(machine, applied, report)
    report = replace(report, running=staged.release, units=machine.load_manifest(staged.release).units)
    try:
        if applied:
            machine.drop_ended(applied.release, staged.release, datetime.now(UTC))
        machine.save_state(
            replace(state, applied=staged, agent=agent, refused=None, failed=None, attempts=0, reason="")
        )
        machine.delete_unused(staged)
    except (AgentError, OSError) as error:
        return replace(failed_report(report, error), state="degraded")
    if failures:
        # The release runs, and holds the revocations; the next run tries again to end the sessions.
        return replace(report, state="degraded", reason=join_reasons(*failures))
    return report


def revoke_first(machine: GatewayMachine, applied: Generation, release: str, archive: bytes | None) -> list[str]:
    """Put a release's revocations into force and end the sessions they concern; return what failed.

    They come out of the archive itself, or, if that is None, out of the release on this machine.
    """
    new = machine.read_release_revocations(release) if archive is None else read_revocations(archive)
    failures = []
    actions: list[Callable[[], None]] = [
        lambda: machine.revoke(new.serials),
        lambda: machine.end_revoked_sessions(applied.release, new),
    ]
    for action in actions:
        try:
            action()
        except (AgentError, OSError) as error:
            failures.append(f"revocation: {describe_error(error)}")
    return failures


def waiting_report(report: Report, state: AgentState, failures: Iterable[str]) -> Report:
    """Return the report on a release that did not come up and is tried again later."""
    retry = f"tried {state.attempts} times, next at {datetime.fromtimestamp(state.retry_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return replace(report, state="failed", reason=join_reasons(f"{state.reason} ({retry})", *failures))


def stage_generation(machine: GatewayMachine, cloud: Cloud, pointer: Pointer, archive: bytes | None) -> Generation:
    """Put a release and its secrets onto this machine, beside those in use; `archive` is None if it is there."""
    if archive is not None:
        machine.unpack_release(pointer.sha256, archive)
    manifest = machine.load_manifest(pointer.sha256)
    machine.create_user(pointer.sha256)
    secrets, name = cloud.fetch_secrets(manifest.files)
    if not (machine.vault / name).is_dir():
        machine.store_secrets(secrets, name)
    return Generation(pointer.sha256, name)


def keep_last_good(machine: GatewayMachine, applied: Generation | None, report: Report) -> Report:
    """Make sure that the last good generation is in force, also without AWS.

    Return `report` with what was put back and what failed; a gateway that runs in spite of a failure is degraded.
    """
    if applied is None:
        return replace(report, state="failed")
    try:
        repaired = []
        if machine.linked_generation() != applied:
            machine.activate(applied)
        elif fault := machine.find_fault(applied, 0):
            hung = machine.activate(applied)
            repaired = hung or ([fault] if " is down: " in fault else [])
        put_back, rest = machine.repair(applied)
    except (AgentError, OSError) as error:
        failure = f"the last good release does not come up: {describe_error(error)}"
        return replace(report, state="failed", reason=join_reasons(report.reason, failure))
    report = replace(report, repaired=(*repaired, *put_back))
    if report.state == "failed" or (report.state == "ready" and rest):
        report = replace(report, state="degraded")
    return replace(report, reason=join_reasons(report.reason, *rest))


def join_reasons(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))[:MAX_REASON]


def failed_report(report: Report, error: Exception) -> Report:
    """Return the report of a run that ended with an error."""
    state = "refused" if isinstance(error, RefusedError) else "failed"
    return replace(report, state=state, reason=describe_error(error))


def describe_error(error: Exception) -> str:
    return (str(error) or repr(error))[:MAX_REASON]


def crash_report(machine: GatewayMachine, error: Exception) -> Report:
    """Return the report of a run that a fault of the agent ended, and in which the last good release may run."""
    report = Report("failed", "", "", f"the agent crashed, see its journal: {error!r}", machine.instance_id())
    with contextlib.suppress(Exception):
        applied = machine.load_state().applied
        if applied and machine.has_generation(applied):
            report = replace(report, running=applied.release, units=machine.load_manifest(applied.release).units)
            if not machine.find_fault(applied, 0):
                report = replace(report, state="degraded")
    return report


def add_fallback(machine: GatewayMachine, report: Report) -> Report:
    """Return the report with why this agent runs in place of the current release's, if the bootstrap says so."""
    if not (reason := read_or_empty(machine.fallback_file).strip()):
        return report
    state = "degraded" if report.state == "ready" else report.state
    return replace(report, state=state, reason=join_reasons(reason, report.reason))


def print_error(machine: GatewayMachine, text: str) -> None:
    """Print a line to the console if it is not the last one there, else only to the journal."""
    is_new = read_or_empty(machine.console_file) != text
    print(text, file=sys.stderr if is_new else sys.stdout, flush=True)
    with contextlib.suppress(OSError):
        machine.console_file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(machine.console_file, text.encode())


def publish_report(machine: GatewayMachine, cloud: Cloud, report: Report) -> None:
    """Write a report to this machine's disk, and to AWS if its content is new or the last one is `HEARTBEAT` old."""
    now, state = datetime.now(UTC), machine.load_state()
    repairs = add_repairs(state.repairs, report.repaired, now)
    report = replace(report, repaired=repairs, software=machine.load_software())
    if report.running:
        report = replace(report, offloaded=machine.find_offloaded(report.running))
    machine.report_file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(machine.report_file, report.text(now).encode())
    if state.repairs != repairs:
        state = replace(state, repairs=repairs)
        machine.save_state(state)
    if state.reported != report.content() or abs(now.timestamp() - state.reported_at) >= HEARTBEAT:
        cloud.put_report(report.text(now))
        machine.save_state(replace(state, reported=report.content(), reported_at=now.timestamp()))


def add_repairs(repairs: tuple[str, ...], texts: Iterable[str], now: datetime) -> tuple[str, ...]:
    """Return the last repairs with those of this run, each after its time in UTC; the same one appears once."""
    new = {text[:MAX_REPAIR]: f"{now:%Y-%m-%dT%H:%M:%SZ} {text[:MAX_REPAIR]}" for text in texts}
    old = [repair for repair in repairs if repair.partition(" ")[2] not in new]
    return (*old, *new.values())[-MAX_REPAIRS:]


def dry_run(machine: DryMachine, cloud: Cloud, release: str, agent: str) -> Iterator[str]:
    """Yield the lines of a dry run; the last one proves that it got to its end, or says why it could not.

    An agent of an older version takes only the exit status, and remembers a failure: AWS's must not be one.
    """
    report = converge(machine, cloud, agent)
    report.text(datetime.now(UTC))
    yield from machine.plan
    is_complete = report.state == "ready"
    yield f"{CHECKED} {release}" if is_complete else f"{INCOMPLETE} {report.state} {report.reason}"


def check() -> int:
    """Print a dry run of this agent and return the exit status, which is 1 for a fault of the agent only."""
    path = Path(__file__).resolve()
    try:
        cloud = Cloud(read_env(Path("/etc/drawbridge/env").read_text()))
        lines = list(dry_run(DryMachine(), cloud, path.parent.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    except OSError as error:
        lines = [f"{INCOMPLETE} {describe_error(error)}"]
    print("\n".join(lines))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run once and return the exit status, 0 if the gateway is ready; `check` makes a dry run."""
    if list(arguments) == ["check"]:
        return check()
    machine = GatewayMachine()
    os.umask(0o022)
    lock = machine.root / "run/drawbridge.lock"
    with lock.open("w") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run of the agent is in progress")
            return 0
        env = read_env(Path("/etc/drawbridge/env").read_text())
        cloud = Cloud(env)
        try:
            report = converge(machine, cloud, hashlib.sha256(Path(__file__).read_bytes()).hexdigest())
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            report = crash_report(machine, error)
        report = add_fallback(machine, report)
        lines = [] if report.state == "ready" else [f"{report.state}: {report.reason}"]
        try:
            publish_report(machine, cloud, report)
        except (AgentError, OSError) as error:
            lines.append(f"the report could not be written: {describe_error(error)}")
        if lines:
            print_error(machine, "; ".join(lines))
        else:
            machine.console_file.unlink(missing_ok=True)
        return 0 if report.state == "ready" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
