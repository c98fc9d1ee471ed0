"""The command on systems that are not Linux: what it imports, and what it does there in other ways.

Does not prove that it runs on macOS or Windows: their Python is only made to lack here what it lacks there.
"""

import os
import subprocess
import sys
import tempfile
from ipaddress import IPv4Address
from pathlib import Path
from types import ModuleType

import pytest

from drawbridge import errors
from drawbridge.doctor import machine_reader
from drawbridge.doctor.machine_reader import measure_path, read_own_machine
from drawbridge.operate import stack_file_lock
from drawbridge.operate.stack_file_lock import lock_stack_file
from tests.support.sources import ROOT
from tests.unit.drawbridge.test_foreign_machines import TEXTS

#: Imports all modules, has the system be Windows, imports the project's own ones again, and runs commands.
PROGRAM = """
import contextlib, importlib, os, pathlib, pkgutil, signal, socket, sys, types
from click.testing import CliRunner
import drawbridge

ROOT = pathlib.Path(drawbridge.__file__).parents[1]
LAB = ("drawbridge.commands.lab", "drawbridge.trial")
names = [module.name for module in pkgutil.walk_packages(drawbridge.__path__, "drawbridge.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
for name in [*sys.modules]:
    if (ROOT / name.partition(".")[0]).is_dir() or (ROOT / f"{name}.py").is_file():
        del sys.modules[name]
sys.platform = "win32"
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
absent = {
    os: ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "chown", "fchmod", "fork", "getegid",
         "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "setsid", "uname"),
    signal: ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGRTMIN", "SIGUSR1"),
    socket: ("AF_NETLINK", "AF_PACKET", "AF_UNIX"),
}
for module, attributes in absent.items():
    for attribute in attributes:
        delattr(module, attribute)
for name in names:
    if not name.startswith(LAB):
        importlib.import_module(name)
foreign = [name for name in sys.modules if name.startswith("lab.") and name != "lab.errors"]
print("lab's modules:", *sorted(foreign))
from drawbridge.commands.root import cli
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(cli, line.split())
    print("$", line, result.exit_code, result.output.splitlines()[0])
"""


@pytest.mark.allow_subprocess
def test_on_windows_every_command_but_the_lab_s_is_there() -> None:
    lines = [
        "gateway doctor --help",
        "gateway probe --help",
        "client fetch --help",
        "client rotate --help",
        "stack new --help",
        "image build --help",
        "lab up",
        "lab status",
        "client list --stack lab",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="\n".join(lines), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    modules, *results = done.stdout.splitlines()
    assert modules == "lab's modules: lab.paths lab.system"
    usages = [f"$ {line} 0 Usage: cli {line.removesuffix(' --help')} [OPTIONS]" for line in lines[:6]]
    assert [result[: len(usage)] for result, usage in zip(results, usages, strict=False)] == usages
    assert results[6:] == [f"$ {line} 1 Error: a lab needs Linux" for line in lines[6:]]


def test_on_windows_a_file_beside_the_stack_file_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows replaces no file that is open, and locks bytes of a file for one descriptor."""
    locked = set[tuple[int, int]]()

    def lock(descriptor: int, mode: int, size: int) -> None:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) in locked:
            raise PermissionError(13, "Permission denied")
        locked.add((status.st_dev, status.st_ino))

    runtime = ModuleType("msvcrt")
    vars(runtime).update(locking=lock, LK_NBLCK=2)
    monkeypatch.setattr(stack_file_lock, "msvcrt", runtime, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(sys, "platform", "win32")
    stack_file = tmp_path / "Pulumi.team.yaml"
    with lock_stack_file(stack_file, wait=0):
        assert not locked, "no lock for a file that does not exist"
    stack_file.touch()
    with lock_stack_file(stack_file, wait=0):
        status = stack_file.stat()
        assert locked and (status.st_dev, status.st_ino) not in locked
        with pytest.raises(errors.StackError, match="another drawbridge command"), lock_stack_file(stack_file, wait=0):
            pass


#: Prints what Windows' ping does: it ends with 1 for any packet that is lost, and sorts out nothing by its status.
PING = """\
#!/bin/sh
while [ "$1" != -l ]; do shift; done
case $2 in
    1252) echo "Reply from 192.0.2.1: bytes=1252 time=1ms TTL=57" ;;
    1472) echo "Paket müsste fragmentiert werden, DF-Flag ist jedoch gesetzt."; exit 1 ;;
    *) echo "Request timed out."; exit 1 ;;
esac
"""


@pytest.mark.allow_subprocess
def test_on_windows_a_path_is_measured_with_its_ping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ping = tmp_path / "ping"
    ping.write_text(PING)
    ping.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "platform", "win32")
    assert measure_path(IPv4Address("192.0.2.1"), (1280, 1400, 1500)) == {1280: True, 1400: False, 1500: True}


@pytest.mark.parametrize(("system", "platform"), [("Windows", "win32"), ("macOS", "darwin")])
def test_the_machine_is_read_with_its_own_tools(system: str, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str] | str, **_: object) -> "subprocess.CompletedProcess[bytes]":
        commands.append(command if isinstance(command, str) else command[-1])
        return subprocess.CompletedProcess(command, 0, TEXTS[system].encode())

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(subprocess, "run", run)
    assert read_own_machine().routes
    assert [command.removeprefix("cmd /c ") for command in commands] == [machine_reader.READ_COMMANDS[system]]
