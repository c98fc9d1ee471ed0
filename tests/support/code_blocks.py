"""Read the code blocks of a page, and find what in them the project, or the tool that they name, does not have.

A block is checked by its language, unless a comment on the line before it says why not: `<!-- not run: reason -->`.
"""

import ast
import json
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import click
from botocore import xform_name

from drawbridge.commands.root import cli
from settings.parse import parse
from settings.problems import SettingsError
from settings.stack_file import qualify
from settings.stack_yaml import StackYamlError, load_yaml
from tests.support.sources import ROOT

_BLOCK = re.compile(
    r"^(?:(?P<mark_indent> *)<!-- not run: (?P<reason>.*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)

#: Programs of the system, of which only the shell's syntax is checked.
SYSTEM_PROGRAMS = frozenset(
    """
    cat cp curl cd date echo eval exit export git grep ifconfig install ip mkdir netstat openssl ping ps resolvectl
    scutil sleep ssh systemctl test trap
    """.split()  # noqa: SIM905 -- a list of words, as one reads it
)

#: Words of the shell before a command.
_KEYWORDS = frozenset({"!", "{", "do", "else", "if", "sudo", "then", "until", "while"})

#: Options that commands in the pages give to OpenVPN (openvpn(8)).
OPENVPN_OPTIONS = frozenset({"--config", "--daemon", "--down", "--script-security", "--up", "--verb", "--writepid"})

#: Commands and options of Pulumi's CLI (its reference, "Pulumi CLI").
PULUMI_COMMANDS: Mapping[str, frozenset[str]] = {
    "destroy": frozenset({"--config-file", "--cwd", "--skip-preview", "--stack", "--yes"}),
    "login": frozenset({"--local"}),
    "preview": frozenset({"--config-file", "--cwd", "--diff", "--stack"}),
    "refresh": frozenset({"--stack", "--yes"}),
    "stack": frozenset({"--show-urns", "--stack"}),
    "stack init": frozenset({"--cwd"}),
    "stack output": frozenset({"--json", "--stack"}),
    "stack rm": frozenset({"--preserve-config", "--stack", "--yes"}),
    "up": frozenset({"--config-file", "--cwd", "--replace", "--skip-preview", "--stack", "--yes"}),
}

#: Options that every command of AWS's CLI has (its reference, "Global options").
AWS_OPTIONS = frozenset({"output", "profile", "query", "region"})

#: What ends a command of the shell.
_SEPARATORS = frozenset({";", "&&", "||", "|", "(", ")", "&", ";;"})


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None
    """Why nothing runs it, as its comment says; None without a comment."""


def read_code_blocks(page: Path) -> Iterator[CodeBlock]:
    """Yield the fenced blocks of a page."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        content = textwrap.dedent(match["text"])
        yield CodeBlock(page, line, match["language"], content, match["reason"])


def find_faults(block: CodeBlock) -> list[str]:
    """Return what a reader could not use of a block, each with the line that it is in or after."""
    if block.reason is not None:
        return [] if len(block.reason.split()) > 2 else ["the reason why nothing runs the block is missing"]
    check = CHECKS.get(block.language)
    if check is None:
        return [f"nothing runs a block of `{block.language}`: write <!-- not run: the reason --> before it"]
    return list(check(block.text))


def check_stack_yaml(text: str) -> Iterator[str]:
    """Yield what the settings refuse of a part of a stack file."""
    try:
        config = load_yaml(text)
    except StackYamlError as error:
        yield f"line {error.problem.line} {error.problem.reason}"
        return
    config = config.get("config", config) if isinstance(config, dict) else config
    if not isinstance(config, dict) or not all(":" in str(key) for key in config):
        yield "not a part of a stack file: write <!-- not run: the reason --> before it"
        return
    try:
        parse(
            {"aws:region": "eu-west-1"} | {qualify(str(k)): v for k, v in config.items()}, stack="prod", endpoint=None
        )
    except SettingsError as error:
        yield from (str(problem) for problem in error.problems)


def check_json(text: str) -> Iterator[str]:
    """Yield why a text is not JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        yield str(error)


def check_python(text: str) -> Iterator[str]:
    """Yield why a text is not Python."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        yield str(error)


def check_shell(text: str) -> Iterator[str]:
    """Yield what the commands of a script name and do not have."""
    for command in split_commands(text):
        yield from (f"{' '.join(command)}: {fault}" for fault in check_command(command))


def split_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a script, those of command substitutions too."""
    text = text.replace("\\\n", " ")
    while match := re.search(r"\$\(([^()]*)\)", text):
        yield from split_commands(match[1])
        text = f"{text[: match.start()]}SUBSTITUTED{text[match.end() :]}"
    lexer = shlex.shlex(text.replace("\n", "\n; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    words = iter(lexer)
    for word in words:
        if word in _SEPARATORS:
            if command:
                yield command
            command = []
        elif set(word) <= set("<>&"):
            next(words, None)
            command = command[:-1] if command and command[-1].isdigit() else command
        else:
            command.append(word)
    if command:
        yield command


def check_command(command: Sequence[str]) -> Iterator[str]:
    """Yield what a command names and its program does not have."""
    words = list(command)
    while words and (words[0] in _KEYWORDS or re.match(r"[A-Za-z_]\w*=", words[0])):
        words.pop(0)
    if not words or words[0] in ("}", "done", "esac", "fi", "for"):
        return
    match words[0]:
        case "drawbridge":
            yield from check_drawbridge(words[1:])
        case "make":
            targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            yield from (f"no target {word}" for word in words[1:] if "=" not in word and word not in targets)
        case "tools/setup":
            parts = re.findall(r"^(\w+)\)", (ROOT / "tools" / "setup").read_text(), re.MULTILINE)
            yield from (f"no part {word}" for word in words[1:] if word not in parts)
        case "pulumi":
            yield from check_pulumi(words[1:])
        case "aws":
            yield from check_aws(words[1:])
        case "openvpn":
            yield from (f"no option {w}" for w in words if w.startswith("--") and w not in OPENVPN_OPTIONS)
        case program if program not in SYSTEM_PROGRAMS:
            yield f"{program} is not a known program"
    files = [word.removeprefix("file://") for word in words[1:-1] if re.match(r"(file://)?(docs|stacks|tools)/", word)]
    yield from (f"{file} does not exist" for file in files if not (ROOT / file).exists())


def check_drawbridge(arguments: Sequence[str]) -> Iterator[str]:
    """Yield why the command does not take these arguments. Nothing runs, and files need not exist."""
    command: click.Command = cli
    words = list(arguments)
    while isinstance(command, click.Group):
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] in ("-C", "--cwd") else words[1:]
        name = words.pop(0) if words else ""
        subcommand = command.get_command(click.Context(command), name)
        if subcommand is None:
            yield f"no command {name!r}" if name else "the subcommand is missing"
            return
        command = subcommand
    context = click.Context(command, info_name=command.name)
    try:
        values, rest, _ = command.make_parser(context).parse_args(words)
        for parameter in command.params:
            value = values.get(parameter.name or "")
            if parameter.required and parameter.value_is_missing(value):
                yield f"{parameter.human_readable_name} is missing"
            elif isinstance(value, str) and isinstance(parameter.type, click.Choice):
                parameter.type.convert(value, parameter, context)
        if rest and not command.allow_extra_args:
            yield f"takes no {' '.join(rest)}"
    except click.UsageError as error:
        yield error.format_message()


def check_pulumi(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what Pulumi's CLI does not have."""
    name = " ".join(arguments[:2])
    name = name if name in PULUMI_COMMANDS else "".join(arguments[:1])
    if name not in PULUMI_COMMANDS:
        yield f"no command {name}"
        return
    options = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    yield from (f"no option {option}" for option in sorted(options - PULUMI_COMMANDS[name]))


def check_aws(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what AWS's CLI does not have: its commands and options are operations and members of botocore's models."""
    service, command, *rest = arguments
    model = botocore.session.get_session().get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if command not in operations:
        yield f"no command {command}"
        return
    shape = model.operation_model(operations[command]).input_shape
    members = {xform_name(name, "-") for name in (shape.members if shape else ())} | AWS_OPTIONS
    options = [word.removeprefix("--").partition("=")[0] for word in rest if word.startswith("--")]
    yield from (f"no option --{option}" for option in options if option not in members)


#: Check of a block by its language.
CHECKS: Mapping[str, Callable[[str], Iterator[str]]] = {
    "json": check_json,
    "python": check_python,
    "sh": check_shell,
    "yaml": check_stack_yaml,
}
