"""Limits of every test: what it may reach, and what it does not inherit.

Unit tests start no process unless marked `allow_subprocess`; unit and program tests reach nothing but loopback. Both
rules are one audit hook, which sees `subprocess`, `os.fork`, `os.exec*` and `socket`; it does not see what a C library
does by itself (gRPC's channels).
"""

import ipaddress
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from lab.botocore_cache import share_between_sessions
from lab.errors import NotPermitted
from lab.linux import require_privileges

pytest_plugins = ["tests.support.ledgers", "lab.pytest_plugin"]

TESTS = Path(__file__).parent

# moto reads it when it is imported. It makes its own 1,300 images anew for each empty AWS, which takes a second.
os.environ["MOTO_AMIS_PATH"] = str(TESTS / "support" / "amazon_images.json")

# moto has each test begin with a session of its own.
share_between_sessions()

PROCESS_EVENTS = frozenset(
    {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
)
SOCKET_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


class ForbiddenError(BaseException):
    """A test reached where it may not. No Exception, so that no `except Exception` of the code under test hides it."""


@dataclass
class Guard:
    """Permissions of the running test, which the audit hook asks for."""

    processes: bool = True
    network: bool = True

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        if event in PROCESS_EVENTS and not self.processes:
            raise ForbiddenError(f"{event} {args[:2]!r}: mark the test allow_subprocess if a program is what it tests")
        if not self.network:
            if event in SOCKET_EVENTS and not is_local(args[1]):
                raise ForbiddenError(f"{event} to {args[1]!r}: tests reach nothing but loopback")
            if event == "socket.getaddrinfo" and not is_local(args[:1]):
                raise ForbiddenError(f"look-up of {args[0]!r}: tests reach nothing but loopback")


def is_local(address: object) -> bool:
    """Return whether a socket address stays on this machine: loopback, its name, no IP at all (AF_UNIX, netlink)."""
    if not isinstance(address, tuple) or not address:
        return True
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if not isinstance(host, str) or host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


GUARD = Guard()
sys.addaudithook(GUARD.audit)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs root and /dev/net/tun; where they lack, it is skipped and says what lacks. Order the files."""
    try:
        require_privileges()
        lacking = None
    except NotPermitted as refused:
        lacking = str(refused)
    for item in items:
        if any(item.path.is_relative_to(TESTS / room) for room in ("attacks", "lab")):
            item.add_marker("lab")
            if lacking:
                item.add_marker(pytest.mark.skip(reason=lacking))
    items[:] = order_files(items)


def order_files(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which several processes run their files soonest.

    The first file of the lab builds the machines' image where the cache has none, which takes minutes on one processor:
    tests of the program need no image and use the other one. Units come last, because their files are the shortest.
    """
    builds = next((item.path for item in items if item.get_closest_marker("lab")), None)

    def rank(item: pytest.Item) -> int:
        if item.path == builds:
            return 0
        return {"program": 1, "unit": 3}.get(item.path.relative_to(TESTS).parts[0], 2)

    return sorted(items, key=rank)


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest) -> Iterator[Guard]:
    """Set the limits of this test. A session's fixture runs before they are set, so it may start a process."""
    node: pytest.Item = request.node
    unit = node.path.is_relative_to(TESTS / "unit")
    GUARD.processes = not unit or node.get_closest_marker("allow_subprocess") is not None
    GUARD.network = any(node.path.is_relative_to(TESTS / part) for part in ("lab", "vm"))
    yield GUARD
    GUARD.processes = GUARD.network = True


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt the test, and the programs it starts, in a run that was started as a background job too.

    A shell without job control has its background jobs ignore SIGINT, and Python then leaves it ignored.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the developer's AWS and Pulumi settings from the test, those of the environment and those of files."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "PULUMI_", "DRAWBRIDGE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    nowhere = str(TESTS / "no-such-file")
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def clean_pulumi_config() -> Iterator[None]:
    """Clear the configuration that Pulumi keeps in a module; it would leak into the next test."""
    yield
    if config := sys.modules.get("pulumi.runtime.config"):
        config.set_all_config({})
