"""The command as a whole: what it imports, where it runs, how it names its version, what it makes of errors.

Does not prove how long a start takes, only what it leaves out.
"""

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from drawbridge.commands.lazy import LazyCommand, LazyGroup
from drawbridge.commands.root import LAB_REMEDIES, cli, installed_version
from drawbridge.errors import StackError
from drawbridge.operate import stack_files
from lab import errors as lab_errors

#: Libraries that take longer to import than a help text may take.
SLOW = {"boto3", "cryptography", "moto", "paramiko", "pulumi"}


def imported_by(*arguments: str) -> set[str]:
    """Return the top-level packages that a run of the command imports."""
    script = (
        "import sys, contextlib, os\n"
        "from drawbridge.__main__ import cli\n"
        "with contextlib.redirect_stdout(open(os.devnull, 'w')):\n"
        "    cli(sys.argv[1:], standalone_mode=False)\n"
        "print({name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


@pytest.mark.allow_subprocess
@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["--help"], set()), (["--version"], set()), (["lab", "--help"], set()), (["gateway", "--help"], SLOW - {"moto"})],
)
def test_help_imports_no_slow_library(arguments: list[str], allowed: set[str]) -> None:
    imported = imported_by(*arguments)
    assert "click" in imported
    assert imported & SLOW <= allowed


def lazy_commands(group: click.Group) -> Iterator[tuple[click.Group, str, LazyCommand]]:
    """Every entry of every lazy table."""
    context = click.Context(group)
    for name in group.list_commands(context):
        if isinstance(group, LazyGroup) and name in group.lazy:
            yield group, name, group.lazy[name]
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from lazy_commands(command)


LAZY = list(lazy_commands(cli))


@pytest.mark.parametrize(("group", "name", "lazy"), LAZY, ids=[name for _, name, _ in LAZY])
def test_a_summary_is_what_the_command_says_of_itself(group: click.Group, name: str, lazy: LazyCommand) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None and command.help is not None
    assert command.help.partition("\n")[0] == lazy.summary
    assert command.name == name


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(cli, ["nosuch"])
    assert result.exit_code == 2 and "nosuch" in result.stderr


def test_version_is_the_projects() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"drawbridge {installed_version()}\n"
    text = (stack_files.CHECKOUT / "pyproject.toml").read_text()
    assert f'version = "{installed_version()}"' in text


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own repository: a Pulumi project with a stack file, and another directory to start from."""
    project = tmp_path / "infrastructure"
    (project / "stacks" / "deeper").mkdir(parents=True)
    (project / "Pulumi.yaml").write_text("name: mine\nruntime: python\nstackConfigDir: stacks\n")
    text = (stack_files.CHECKOUT / "stacks" / "Pulumi.site.yaml").read_text()
    (project / "stacks" / "Pulumi.mine.yaml").write_text(text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return project


@pytest.mark.parametrize("variable", [None, "DRAWBRIDGE_CWD", "PULUMI_OPTION_CWD"])
def test_a_stack_file_of_the_users_own_repository_is_found_by_name(repository: Path, variable: str | None) -> None:
    ask = ["stack", "cost", "mine"]
    assert CliRunner().invoke(cli, ask).exit_code == 2, "the control: it is not found from here"
    result = CliRunner().invoke(
        cli,
        ask if variable else ["-C", str(repository), *ask],
        env={variable: str(repository)} if variable else {},
    )
    assert result.exit_code == 0, result.output
    assert "stack mine" in result.stdout


def test_a_stack_file_is_found_by_its_path(repository: Path) -> None:
    result = CliRunner().invoke(cli, ["stack", "cost", str(repository / "stacks" / "Pulumi.mine.yaml")])
    assert result.exit_code == 0, result.output


def test_a_project_is_found_from_below_and_without_a_directory_of_its_own(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository / "stacks" / "deeper")
    assert stack_files.find_stack_file("mine") == repository / "stacks" / "Pulumi.mine.yaml"
    (repository / "Pulumi.yaml").write_text("name: mine\n")
    (repository / "Pulumi.own.yaml").write_text("config: {}\n")
    assert stack_files.find_stack_file("own") == repository / "Pulumi.own.yaml"
    assert stack_files.find_stack_file("lab") == stack_files.CHECKOUT / "stacks" / "Pulumi.lab.yaml"


def test_a_project_file_that_cannot_be_read(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    (repository / "Pulumi.yaml").write_text("name: [\n")
    with pytest.raises(StackError, match=r"Pulumi\.yaml cannot be read") as caught:
        stack_files.find_stack_file("mine")
    assert "-C DIR" in caught.value.remedy


@pytest.mark.allow_subprocess
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A full device, a closed output, and a working directory that was removed."""

    def run(script: str, *arguments: str) -> tuple[int, str]:
        arguments = arguments or ("stack", "cost", "lab", "--json")
        command = [str(Path(sys.executable).with_name("drawbridge")), *arguments]
        shell = ["bash", "-c", script, "bash", *command]
        done = subprocess.run(shell, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        return done.returncode, done.stderr

    assert run('"$@" >/dev/null') == (0, ""), "the control"
    full = "Error: the output cannot be written: No space left on device\n  -> write it to another place\n"
    assert run('"$@" >/dev/full') == (1, full)
    for arguments in (("--help",), ("--version",), ("map", "lab", "--output", "/dev/full")):
        assert run('"$@" >/dev/full', *arguments) == (1, full), arguments
    closed = "Error: the output cannot be written: standard output is closed\n  -> write it to another place\n"
    assert run('"$@" >&-') == (1, closed)
    assert run('"$@" >&-', "--help") == (1, closed)
    code, said = run('mkdir gone && cd gone && rmdir ../gone && "$@"')
    assert (code, said.splitlines()[0]) == (1, "Error: the working directory does not exist any more")


def test_a_stack_that_is_no_file_is_named_with_the_reason(tmp_path: Path) -> None:
    for name in ("fifo", "loop", "directory"):
        path = tmp_path / f"{name}.yaml"
        {"fifo": os.mkfifo, "loop": lambda path: path.symlink_to(path), "directory": Path.mkdir}[name](path)
    reasons = {
        "fifo.yaml": "fifo.yaml is not a regular file; name a stack file, or a stack",
        "directory.yaml": "directory.yaml is not a regular file",
        "loop.yaml": "cannot be read (Too many levels of symbolic links)",
        "a" * 300: "is not a valid stack name; use at most 63 of a-z 0-9 . _ -",
        "a\nb\x1b[2J": r"'a\nb\x1b[2J' is not a valid stack name",
        "a\nb.yaml": r"a\nb.yaml does not exist",
        "none.yaml": "none.yaml does not exist; stacks that have a file: ",
    }
    for name, reason in reasons.items():
        stack = str(tmp_path / name) if name.endswith(".yaml") else name
        result = CliRunner().invoke(cli, ["stack", "check", stack])
        assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr
        assert len(result.stderr) < 1000 and len(result.stderr.splitlines()) == 4


def test_a_group_without_a_command_shows_its_help_in_lines() -> None:
    assert "\n  cost " in CliRunner().invoke(cli, ["stack"]).stderr


def test_a_region_with_control_characters_is_shown_on_one_line() -> None:
    result = CliRunner().invoke(cli, ["stack", "list"], env={"AWS_REGION": "eu\nwest\x1b[2J"})
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 2)
    assert r"Error: eu\nwest\x1b[2J is not a valid AWS region" in result.stderr


def test_a_drawing_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none" / "x.svg", "No such file or directory"), (tmp_path, "Is a directory")):
        result = CliRunner().invoke(cli, ["map", "lab", "--output", str(path)])
        expected = f"Error: {path} cannot be written: {reason}\n  -> name a file in a directory that exists\n"
        assert (result.exit_code, result.stderr) == (1, expected)


@pytest.mark.parametrize("kind", ["fifo", "loop", "directory", "device", "socket", "none"])
@pytest.mark.parametrize(
    "command",
    [
        ("gateway", "probe"),
        ("gateway", "doctor", "alice", "--bundle"),
        ("gateway", "doctor", "alice", "--machine"),
        ("gateway", "logs", "--identity"),
        ("stack", "restore"),
    ],
    ids=" ".join,
)
def test_a_file_to_read_that_is_no_regular_file_is_refused(command: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
    reasons = {"loop": "cannot be read (Too many levels of symbolic links)", "none": "does not exist"}
    result = CliRunner().invoke(cli, [*command, str(path)])
    assert result.exit_code == 2
    assert f": {path} {reasons.get(kind, 'is not a regular file')}\n" in result.stderr


@pytest.mark.parametrize("kind", [kind for kind, _ in LAB_REMEDIES])
def test_each_error_of_the_lab_has_its_remedy(kind: type[lab_errors.LabError], monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fails() -> None:
        raise kind("it went wrong")

    monkeypatch.setitem(cli.commands, "fails", fails)
    result = CliRunner().invoke(cli, ["fails"])
    assert result.exit_code == 1
    assert result.stderr == f"Error: it went wrong\n  -> {dict(LAB_REMEDIES)[kind]}\n"
