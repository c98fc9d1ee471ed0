"""The documentation agrees with the project. Does not prove that its sentences are true."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from contract import StackOutput
from drawbridge.commands.root import cli
from tests.support.code_blocks import CodeBlock, find_faults, read_code_blocks, split_commands
from tests.support.sources import load_script

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")])
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join(("drawbridge", *path, name)), command


COMMANDS = dict(commands(cli))


def without_code(text: str) -> str:
    """A page without its code blocks, in which `#` and brackets mean something else."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as links spell them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in HEADING.findall(without_code(page.read_text()))
    }


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there."""
    found = []
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_is_in_the_docs(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    page = (ROOT / "docs" / "commands.md").read_text()
    assert f"## {name}" in page
    section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert f"`{max(parameter.opts, key=len)}`" in section, f"{name}: {parameter.opts}"


SETTINGS = (ROOT / "docs" / "settings.md").read_text()
settings_tables = load_script(ROOT / "tools" / "settings_tables.py")


def test_every_command_has_the_stack_and_the_region_that_the_docs_say() -> None:
    defaults: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.name == "stack" and isinstance(parameter, click.Option):
                assert parameter.envvar == "DRAWBRIDGE_STACK", name
                default = parameter.get_default(click.Context(command))
                defaults.setdefault(default if isinstance(default, str) else "none", []).append(name)
    assert defaults["none"] == ["drawbridge gateway probe"], "the one that docs/commands.md excepts"
    assert defaults.keys() == {"lab", "none"}
    text = " ".join((ROOT / "docs/commands.md").read_text().split())
    assert (
        "`--stack` is `lab` unless given or set in `DRAWBRIDGE_STACK`, except that `drawbridge gateway probe`" in text
    )


def test_the_tables_of_settings_are_rendered_from_the_model() -> None:
    assert settings_tables.render(SETTINGS) == SETTINGS


@pytest.mark.parametrize(
    ("written", "stale"),
    [
        ("| `zones` | 1 to 3 | `1` |", "| `zones` | 1 to 4 | `2` |"),
        ("| 17 to 24 | `24` |", "| |"),
        ("## drawbridge:network\n\n| key | value | default | meaning |", "## drawbridge:network\n\n| key | | | |"),
        ("| --- |\n| `instanceType` |", "| --- |\n| `former` | text | | a key that is gone |\n| `instanceType` |"),
    ],
)
def test_a_table_that_disagrees_with_the_model_is_rendered_again(written: str, stale: str) -> None:
    assert written in SETTINGS
    assert settings_tables.render(SETTINGS.replace(written, stale)) == SETTINGS


def test_words_after_a_default_stay() -> None:
    assert "| `10.8.0.0/24`, on a segment `192.168.255.0/24` |" in settings_tables.render(SETTINGS)


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ("## drawbridge:log\n", "## drawbridge:logs\n", "no heading for drawbridge:log"),
        ("## drawbridge:log\n", "## drawbridge:rest\n\n## drawbridge:log\n", "no section drawbridge:rest"),
        ("| its fixed tunnel address |", "| |", "drawbridge:clients: say what `address` means"),
        ("`zones`, `privatePrefix`", "`privatePrefix`", "drawbridge:pair: say what `zones` means"),
        ("| `verb` |", "| `verbosity` |", "drawbridge:tunnel: say what `verb` means"),
    ],
)
def test_what_no_model_knows_is_asked_for(written: str, instead: str, message: str) -> None:
    assert written in SETTINGS
    with pytest.raises(ValueError, match=message):
        settings_tables.render(SETTINGS.replace(written, instead))


def test_the_docs_know_no_command_that_is_not_there() -> None:
    told = re.findall(r"^## (drawbridge .+)$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# Two Words!\n```\n# no heading\n```\n")
    page.write_text(
        "[a](other.md) [b](other.md#two-words) [c](https://example.com) "
        "[d](gone.md) [e](other.md#no-heading) [f](#gone)"
    )
    assert broken_links(page) == ["gone.md", "other.md#no-heading", "#gone"]


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(without_code(page.read_text())))
        todo += [(page.parent / link).resolve() for link in links if link and not re.match(r"[a-z]+:", link)]
    assert seen >= set(PAGES), [str(page) for page in set(PAGES) - seen]


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_has_pulumi_delete_a_stack_file(page: Path) -> None:
    """`pulumi stack rm` removes the stack's configuration file unless it is told to preserve it."""
    commands = re.findall(r"^.*pulumi stack rm\b.*$", page.read_text(), re.MULTILINE)
    assert [
        command for command in commands if "--preserve-config" not in command and "`pulumi stack rm`" not in command
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_code_block_is_checked_or_says_why_not(page: Path) -> None:
    blocks = list(read_code_blocks(page))
    assert len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) == 2 * len(blocks)
    faults = {f"{page.relative_to(ROOT)}:{block.line}": faults for block in blocks if (faults := find_faults(block))}
    assert faults == {}


@pytest.mark.parametrize(
    ("language", "text", "fault"),
    [
        ("sh", "drawbridge client fetch\n", "drawbridge client fetch: NAME is missing"),
        ("sh", "drawbridge nosuch\n", "drawbridge nosuch: no command 'nosuch'"),
        ("sh", "drawbridge client list --nosuch\n", "drawbridge client list --nosuch: No such option"),
        ("sh", "drawbridge lab down now\n", "drawbridge lab down now: takes no now"),
        ("sh", "make nosuch   # and say why\n", "make nosuch: no target nosuch"),
        ("sh", "tools/setup nosuch\n", "tools/setup nosuch: no part nosuch"),
        ("sh", "pulumi up --nosuch\n", "pulumi up --nosuch: no option --nosuch"),
        ("sh", "cat docs/nosuch.md x\n", "cat docs/nosuch.md x: docs/nosuch.md does not exist"),
        ("sh", 'echo "$(aws ssm nosuch)"\n', "aws ssm nosuch: no command nosuch"),
        ("sh", "aws ssm get-parameter --nosuch x\n", "aws ssm get-parameter --nosuch x: no option --nosuch"),
        ("sh", "nosuch\n", "nosuch: nosuch is not a known program"),
        ("yaml", "drawbridge:tunnel: {port: 0}\n", "drawbridge:tunnel.port: 0 is too small; use 1 or more"),
        ("yaml", "jobs: {}\n", "not a part of a stack file: write <!-- not run: the reason --> before it"),
        ("python", "def\n", "invalid syntax (<unknown>, line 1)"),
        ("text", "output\n", "nothing runs a block of `text`: write <!-- not run: the reason --> before it"),
    ],
)
def test_a_fault_in_a_code_block_is_found(language: str, text: str, fault: str) -> None:
    block = CodeBlock(ROOT / "README.md", 1, language, text, None)
    (found,) = find_faults(block)
    assert found.startswith(fault)


def test_a_block_that_nothing_runs_needs_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: it takes an hour -->\n```text\na\n```\n\n- x\n\n  <!-- not run: no -->\n  ```sh\n  b\n  ```\n"
    )
    first, second = read_code_blocks(page)
    assert (first.reason, find_faults(first)) == ("it takes an hour", [])
    assert (second.text, find_faults(second)) == ("b\n", ["the reason why nothing runs the block is missing"])


def test_commands_of_a_script_are_told_apart() -> None:
    script = "a --b 'c d' | e > f 2>/dev/null && g  # h\nX=1 i \\\n  j \"$(k l)\"\n"
    assert list(split_commands(script)) == [
        ["k", "l"],
        ["a", "--b", "c d"],
        ["e"],
        ["g"],
        ["X=1", "i", "j", "SUBSTITUTED"],
    ]


#: Pages of the guide: each says which test shows what it claims.
GUIDE = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/systems/*.md")])


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_page_says_what_shows_it(page: Path) -> None:
    last = page.read_text().rstrip("\n").splitlines()[-1]
    match = re.fullmatch(r"Shown by \[(tests/[\w/]+\.py)\]\(((?:\.\./)+\1)\)(, .+)?\.", last)
    assert match, f"{page.name} must end with: Shown by [tests/…](../tests/…)."
    text = (page.parent / match[2]).read_text()
    assert "def test_" in text
    if match[1].startswith(("tests/lab/worlds/", "tests/attacks/")):
        assert re.search(r"pytest\.mark\.(seed|attack|fault)\(", text), f"{match[1]} shows no numbered behaviour"


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = re.findall(r"[\w./-]+\.md$", (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2], re.MULTILINE)
    decisions = set(ROOT.glob("docs/adr/0*.md"))
    assert sorted(listed) == sorted(page.relative_to(ROOT).as_posix() for page in set(PAGES) - decisions)


def test_every_output_is_in_the_docs_and_no_other() -> None:
    section = (ROOT / "docs" / "hosts.md").read_text().partition("## Outputs of a stack\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [str(output) for output in StackOutput]
