"""The agent on a machine that loses power, and with AWS's API broken in each way that is not an answer of its own.

Does not prove that a real machine comes up: services are `gateway.ServicesStub`, and AWS is a server on loopback.
"""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.config
import pytest

from openvpn.listener import Listener
from openvpn.model import Tunnel
from tests.support import gateway
from tests.unit.userdata.test_agent_machine import (  # noqa: F401  # `world` is a fixture
    ENV,
    OPENVPN,
    World,
    restore,
    run_until_killed,
    world,
)
from userdata.files import agent

#: The agent's longest wait for an answer, seconds; here a fiftieth.
READ_TIMEOUT, SHORT = 10, 0.2


@contextmanager
def broken_api(status: int | None) -> Iterator[str]:
    """Yield the URL of a server that answers every request with an HTTP status, or never for None."""
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if status is None:
                end.wait(30)
            else:
                self.send_error(status)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        end.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the agent's wait for an answer, which is bounded."""
    create = botocore.config.Config

    def shorten(**options: Any) -> Any:
        assert options["read_timeout"] <= READ_TIMEOUT
        return create(**{**options, "read_timeout": SHORT})

    monkeypatch.setattr(botocore.config, "Config", shorten)


def check_survival(world: World, sha: str, reason: str) -> None:  # noqa: F811
    """Check that a run without AWS says why, repairs the tunnel, and that the next run with AWS is ready."""
    world.services.active.discard(OPENVPN)
    start = time.monotonic()
    report = agent.converge(world.machine, agent.Cloud(ENV), "agent")
    assert time.monotonic() - start < 30
    assert (report.state, report.running) == ("degraded", sha)
    assert reason in report.reason
    assert world.running() == sha, "the process that had died runs again, without AWS"


@pytest.mark.fault("4.1", "4.2")
@pytest.mark.parametrize(
    ("service", "status", "reason"),
    [
        ("SSM", 500, "Internal Server Error"),
        ("SSM", 403, "Forbidden"),
        ("SSM", 429, "Too Many Requests"),
        ("SSM", None, "Read timeout"),
    ],
)
def test_a_broken_parameter_store_leaves_the_tunnel_as_it_is(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
    service: str,
    status: int | None,
    reason: str,
) -> None:
    sha = world.publish(gateway.build_release())
    world.run()
    with broken_api(status) as url, monkeypatch.context() as patch:
        patch.setenv(f"AWS_ENDPOINT_URL_{service}", url)
        check_survival(world, sha, reason)
    assert world.run().state == "ready"


@pytest.mark.fault("4.3")
@pytest.mark.parametrize(("status", "reason"), [(503, "Service Unavailable"), (None, "Read timeout")])
def test_a_broken_bucket_leaves_the_last_good_release(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,
    status: int | None,
    reason: str,
) -> None:
    good = world.publish(gateway.build_release())
    world.run()
    new = world.publish(gateway.build_release(revoked=[7]))
    with broken_api(status) as url, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", url)
        check_survival(world, good, reason)
    assert (world.run().running, world.serials()) == (new, {"7"})


@pytest.mark.fault("4.4")
def test_without_the_metadata_service_there_are_no_credentials_and_the_tunnel_lives(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sha = world.publish(gateway.build_release())
    world.run()
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        check_survival(world, sha, "no credentials: the instance has no instance profile")
    assert world.run().state == "ready"


@pytest.mark.fault("4.5")
def test_without_names_the_tunnel_lives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    sha = world.publish(gateway.build_release())
    world.run()

    def fail(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with monkeypatch.context() as patch:
        # A name that moto does not answer for.
        patch.setenv("AWS_ENDPOINT_URL_SSM", "https://ssm.test")
        patch.setattr(socket, "getaddrinfo", fail)
        check_survival(world, sha, "Could not connect")
    assert world.run().state == "ready"


def lose_power(world: World) -> None:  # noqa: F811
    """Take away all that the kernel and its memory hold, and start what is enabled."""
    shutil.rmtree(world.root / "run", ignore_errors=True)
    shutil.rmtree(world.services.tables, ignore_errors=True)
    shutil.rmtree(world.root / "sys", ignore_errors=True)
    shutil.rmtree(world.root / "proc", ignore_errors=True)
    world.services.active = {agent.FIREWALL, OPENVPN}
    world.services.reboot()


#: Of about 150 effects of a swap, a few: all of them take a minute, and test_agent_machine.py stops the agent at each.
STEP = 23


@pytest.mark.fault("3.9")
def test_a_power_cut_at_any_point_of_a_swap_leaves_a_release_that_starts(
    world: World,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = world.publish(gateway.build_release())
    world.run()
    before = world.root.with_name(f"{world.root.name}-before")
    shutil.copytree(world.root, before, symlinks=True)
    moved = Tunnel(pool=gateway.TUNNEL.pool, listener=Listener("udp", (1195,)), clients=gateway.TUNNEL.clients)
    new = world.publish(gateway.build_release(moved, revoked=[9]))
    effects: list[tuple[Any, str]] = [(agent, "create_file"), (shutil, "rmtree")]
    effects += [(Path, name) for name in ("rename", "unlink", "symlink_to")]
    started = set[str]()
    for lives in range(0, 1_000, STEP):
        alive = run_until_killed(world, monkeypatch, lives, effects)
        lose_power(world)
        started.add(world.running())
        report = world.run()
        assert (report.state, report.running, world.serials()) == ("ready", new, {"9"}), f"after {lives} effects"
        if alive:
            break
        restore(world, before)
    assert started == {old, new}
    assert STEP < lives < 999
