"""`drawbridge … rotate`: what it writes into a stack file, and the steps that it prints.

Does not prove that a deployment replaces the keys (unit/components/test_issuer.py does).
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from drawbridge.commands.root import cli
from drawbridge.errors import StackError
from drawbridge.operate import rotations
from drawbridge.operate.stack_edits import set_value

NOW = datetime(2026, 11, 28, 8, 10, tzinfo=UTC)
MOMENT = "2026-11-28T08:10:00Z"
PATH = ("config", "drawbridge:rotations")

STACK = """\
# Ours.
config:
  aws:region: eu-west-1 # Ireland
  drawbridge:clients:
    - {name: alice}
    - {name: home, address: 10.8.0.10, lan: [192.168.1.0/24]}
"""


@pytest.fixture
def stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of stack `prod`, in the Pulumi project of the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: drawbridge\nruntime: python\n")
    path = tmp_path / "Pulumi.prod.yaml"
    path.write_text(STACK)
    return path


def rotate(*arguments: str) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--stack", "prod"])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_client_s_rotation_names_its_steps_and_leaves_the_rest_of_the_file(stack_file: Path) -> None:
    printed = rotate("client", "rotate", "alice").splitlines()
    moment = yaml.safe_load(stack_file.read_text())["config"]["drawbridge:rotations"]["clients"]["alice"]
    assert abs((datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()) < 60
    lines = stack_file.read_text().splitlines()
    added = ["  drawbridge:rotations:", "    clients:", f'      alice: "{moment}"']
    assert lines == [*STACK.splitlines()[:2], *added, *STACK.splitlines()[2:]]
    assert printed == [
        f"{stack_file} has drawbridge:rotations, clients, alice: {moment}",
        "nothing changes before the next deployment; the steps, in this order:",
        "1. pulumi up --stack prod: within a minute, the gateway ends the session of alice and refuses the former "
        "bundle; no other client notices",
        "2. these clients do not connect again before they have their new bundles:",
        "client  how it gets the new bundle",
        "alice   drawbridge client fetch alice --force --stack prod, and bring the file to alice",
        "3. drawbridge gateway status --stack prod: who is connected again",
    ]


@pytest.mark.parametrize("noun", ["gateway", "stack"])
def test_a_rotation_for_all_lists_every_client_and_how_it_gets_its_bundle(stack_file: Path, noun: str) -> None:
    printed = rotate(noun, "rotate")
    assert list(yaml.safe_load(stack_file.read_text())["config"]["drawbridge:rotations"]) == [noun]
    assert "1. if anybody else may have been root on the gateway, end its machine and the sessions of its" in printed
    assert "alice   drawbridge client fetch alice --force --stack prod, and bring the file to alice\n" in printed
    assert "home    run on home what this prints: drawbridge client kit home --stack prod\n" in printed


def test_a_preview_prints_the_steps_and_writes_nothing(stack_file: Path) -> None:
    printed = rotate("stack", "rotate", "--preview")
    assert f"{stack_file} would get drawbridge:rotations, stack: " in printed
    assert "alice   drawbridge client fetch alice" in printed
    assert stack_file.read_text() == STACK


def test_a_second_rotation_has_a_later_moment_whatever_the_clock_says(stack_file: Path) -> None:
    rotations.plan_gateway_rotation("prod", NOW).write()
    for earlier in (NOW, NOW.replace(year=2025)):
        assert rotations.plan_gateway_rotation("prod", earlier).moment == "2026-11-28T08:10:01Z"
    assert rotations.plan_stack_rotation("prod", NOW).moment == MOMENT
    assert rotations.plan_client_rotation("prod", "alice", NOW).moment == MOMENT


def test_a_pair_s_gateways_get_their_keys_by_themselves(stack_file: Path) -> None:
    stack_file.write_text("config:\n  aws:region: eu-west-1\n  drawbridge:pair: {cidr: 10.2.0.0/16}\n")
    printed = rotate("gateway", "rotate")
    assert (
        "within a minute OpenVPN restarts on both gateways, which fetch each other's new keys by themselves" in printed
    )
    assert "client" not in printed.partition("\n")[2]


def test_a_file_without_namespaces_keeps_its_spelling(stack_file: Path) -> None:
    stack_file.write_text(STACK.replace("drawbridge:", "") + "  rotations: {gateway: 2026-01-01T00:00:00Z}\n")
    rotations.plan_client_rotation("prod", "alice", NOW).write()
    assert "drawbridge:" not in stack_file.read_text()
    assert rotations.read_settings("prod").rotations.clients == {"alice": MOMENT}


def test_a_name_that_is_no_client_s_is_refused_before_the_file_changes(stack_file: Path) -> None:
    with pytest.raises(StackError) as refusal:
        rotations.plan_client_rotation("prod", "alcie", NOW)
    assert (str(refusal.value), refusal.value.remedy) == (
        f"{stack_file} has no client alcie",
        "its clients: alice, home",
    )
    assert stack_file.read_text() == STACK


def test_a_file_that_is_missing_or_wrong_is_refused(stack_file: Path) -> None:
    with pytest.raises(StackError, match=r"Pulumi\.other\.yaml does not exist"):
        rotations.plan_stack_rotation("other", NOW)
    stack_file.write_text(STACK.replace("eu-west-1", "nowhere"))
    with pytest.raises(StackError, match="aws:region: nowhere is not a valid AWS region"):
        rotations.plan_stack_rotation("prod", NOW)


def test_a_file_that_cannot_be_written_is_refused_with_what_to_write(stack_file: Path) -> None:
    rotation = rotations.plan_client_rotation("prod", "alice", NOW)
    stack_file.unlink()
    with pytest.raises(StackError) as refusal:
        rotation.write()
    assert str(refusal.value) == f"{stack_file} cannot be changed: No such file or directory"
    assert refusal.value.remedy == f'write it by hand: drawbridge:rotations, clients, alice: "{MOMENT}"'


def test_the_file_keeps_its_mode_and_stays_a_link(stack_file: Path) -> None:
    target = stack_file.rename(stack_file.with_name("shared.yaml"))
    target.chmod(0o640)
    stack_file.symlink_to(target)
    rotations.plan_stack_rotation("prod", NOW).write()
    assert stack_file.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in stack_file.parent.iterdir()) == [
        "Pulumi.prod.yaml",
        "Pulumi.yaml",
        "shared.yaml",
    ]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("  drawbridge:rotations: {}\n", f'  drawbridge:rotations: {{gateway: "{MOMENT}"}}\n'),
        (
            "  drawbridge:rotations: {stack: 2026-01-01} # why\n",
            f'  drawbridge:rotations: {{gateway: "{MOMENT}", stack: 2026-01-01}} # why\n',
        ),
        ("  drawbridge:rotations: {gateway: 2026-01-01}\n", f'  drawbridge:rotations: {{gateway: "{MOMENT}"}}\n'),
        (
            "  drawbridge:rotations:\n    # Stolen.\n    gateway: 2026-01-01 # in a café\n    stack: 2026-01-01\n",
            f'  drawbridge:rotations:\n    # Stolen.\n    gateway: "{MOMENT}" # in a café\n    stack: 2026-01-01\n',
        ),
        (
            "  drawbridge:rotations:\n      stack: 2026-01-01",
            f'  drawbridge:rotations:\n      gateway: "{MOMENT}"\n      stack: 2026-01-01',
        ),
    ],
)
def test_a_value_is_placed_in_the_layout_that_is_there(section: str, expected: str) -> None:
    for newline in ("\n", "\r\n"):
        before, after = (f"{STACK}{text}".replace("\n", newline) for text in (section, expected))
        assert set_value(before, (*PATH, "gateway"), MOMENT) == after


def test_a_client_s_name_that_yaml_would_read_as_another_value_is_quoted() -> None:
    for name in ("1", "null", "2026-01-01", "a.b-c_d"):
        edited = set_value(STACK, (*PATH, "clients", name), MOMENT)
        assert yaml.safe_load(edited)["config"]["drawbridge:rotations"] == {"clients": {name: MOMENT}}
        in_braces = set_value("config: {drawbridge:rotations: {}}\n", (*PATH, "clients", name), MOMENT)
        assert yaml.safe_load(in_braces)["config"]["drawbridge:rotations"] == {"clients": {name: MOMENT}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "config:\n",
        "config: 1\n",
        "config:\n  drawbridge:rotations:\n  aws:region: x\n",
        "config:\n  drawbridge:rotations: soon\n",
        "a: &a {gateway: 1}\nconfig:\n  drawbridge:rotations: *a\n",
        "config: {",
    ],
)
def test_a_layout_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        set_value(text, (*PATH, "gateway"), MOMENT)
