"""The limits of `tests/conftest.py`: each is broken here. Does not cover what C libraries do by themselves."""

import os
import signal
import socket
import subprocess
import sys

import boto3
import hypothesis
import pytest

from tests import conftest


def test_a_unit_test_starts_no_process(guard: conftest.Guard) -> None:
    for start in (
        lambda: subprocess.run(["true"], check=False),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.fork() or os._exit(0),
    ):
        with pytest.raises(BaseException, match="allow_subprocess") as caught:
            start()
        # No Exception, or code under test could swallow it.
        assert not isinstance(caught.value, Exception)
    # Control: the limit, and nothing else, stood in the way.
    guard.processes = True
    assert subprocess.run(["true"], check=False).returncode == 0


@pytest.mark.allow_subprocess
def test_a_marked_one_may() -> None:
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0


def test_nothing_beyond_loopback_is_reached() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for reach in (
            lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
            lambda: udp.connect(("192.0.2.1", 53)),
            lambda: udp.sendto(b"", ("192.0.2.1", 53)),
            lambda: socket.getaddrinfo("example.com", 443),
        ):
            with pytest.raises(BaseException, match="nothing but loopback"):
                reach()


def test_loopback_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].close()


def test_the_developers_aws_settings_stay_outside() -> None:
    assert not {name for name in os.environ if name.startswith(("AWS_", "PULUMI_"))} - {
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_EC2_METADATA_DISABLED",
    }
    assert boto3.Session().get_credentials() is None


def test_an_interrupt_arrives() -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.allow_subprocess
def test_an_interrupt_arrives_in_a_background_job_too() -> None:
    """A shell starts background jobs with SIGINT ignored."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_an_interrupt_arrives"]
    script = "trap '' INT; exec \"$@\""
    job = subprocess.run(
        ["sh", "-c", script, "sh", *argv], cwd=conftest.TESTS.parent, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stdout


def test_no_property_test_has_a_deadline() -> None:
    assert hypothesis.settings().deadline is None
