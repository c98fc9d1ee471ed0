"""The load generator speaks OpenVPN's protocol: its messages, and a few of its clients at a real gateway.

Does not measure anything: `make bench` does.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.client_session import ProtocolError, decode_options, encode_keys, is_last_reply
from bench.clients import measure_rush
from tests.support.sources import ROOT

PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks-clients.json"


def test_the_client_s_keys_have_no_user_and_say_what_it_can_do() -> None:
    message = encode_keys(bytes(112))
    assert message.startswith(b"\x00\x00\x00\x00\x02" + bytes(112))
    options, user, password, info = [], b"", b"", b""
    rest = message[117:]
    for _ in range(4):
        length = int.from_bytes(rest[:2], "big")
        options.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    first, user, password, info = options
    assert first.startswith(b"V4,") and first.endswith(b"tls-client\x00")
    assert (user, password, rest) == (b"", b"", b"")
    assert b"IV_PROTO=6\n" in info and info.endswith(b"\x00")


def test_the_server_s_options_are_read() -> None:
    assert decode_options(b"\x00\x00\x00\x00\x02" + bytes(64) + b"\x00\x03V4\x00" + bytes(6)) == "V4"


@pytest.mark.parametrize("message", [b"", b"\x00\x00\x00\x00\x02" + bytes(66), b"\x00\x00\x00\x00\x01" + bytes(80)])
def test_another_message_is_not_taken_for_keys(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_options(message)


def test_a_reply_in_parts_is_complete_with_its_last_part() -> None:
    assert is_last_reply("PUSH_REPLY,topology subnet")
    assert not is_last_reply("PUSH_REPLY,topology subnet,push-continuation 2")
    assert is_last_reply("PUSH_REPLY,peer-id 0,push-continuation 1")
    assert not is_last_reply("AUTH_FAILED")


@pytest.mark.allow_subprocess
def test_the_report_of_clients_is_that_of_the_figures(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    argv = [sys.executable, "-m", "bench.clients", "--figures", str(FIGURES), "--page", str(page)]
    report = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert report.count("\n") > 8
    assert page.read_text() == PAGE.read_text()


@pytest.mark.allow_subprocess
@pytest.mark.parametrize("module", ["bench", "bench.clients", "bench.throughput"])
def test_a_missing_program_is_one_line_with_the_remedy(module: str, tmp_path: Path) -> None:
    argv, environment = [sys.executable, "-m", module], {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    remedy = "not installed: openvpn, nft, ip, nsenter, setpriv, ping; as root: tools/setup bench\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", remedy)


@pytest.mark.allow_subprocess
def test_a_few_clients_get_in_at_a_gateway_of_two_processes() -> None:
    missing = [tool for tool in ("openvpn", "nft", "ip", "nsenter", "setpriv") if not shutil.which(tool)]
    if os.geteuid() or missing or not Path("/dev/net/tun").exists():
        pytest.skip(f"needs root, /dev/net/tun and {', '.join(missing) or 'its programs'}")
    rush = measure_rush(processes=2, count=6)
    assert len(rush.times) == 6 and not rush.errors
    assert sum(rush.sessions) == 6 and len(rush.sessions) == 2
