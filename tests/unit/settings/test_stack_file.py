"""Stack files: those of the project are valid, and others are read from any path or refused."""

from pathlib import Path

import pytest
import yaml

from settings.model import Client, Gateway, Lifetimes, Network, Tunnel
from settings.parse import parse
from settings.problems import SettingsError
from settings.stack_file import read_stack_file, stack_name

STACKS = sorted(Path(__file__).parents[3].glob("stacks/Pulumi.*.yaml"))

LOOPBACK = "http://127.0.0.1:5000"


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_stack_files_are_right(path: Path) -> None:
    stack = path.name.split(".")[1]
    assert stack_name(path) == stack
    assert parse(read_stack_file(path), stack=stack, endpoint=LOOPBACK)


def test_the_lab_stack_file_names_every_key() -> None:
    (path,) = (path for path in STACKS if path.name == "Pulumi.lab.yaml")
    text = path.read_text()
    for model in (Network, Gateway, Tunnel, Client, Lifetimes):
        for field in model.model_fields.values():
            assert f"{field.alias}:" in text or f"{field.alias} " in text, f"{model.__name__}.{field.alias}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("config: {a: [", "Pulumi.x.yaml: line 1 has a [ or { without a value after it; close it"),
        ("config: \x01", "Pulumi.x.yaml: line 1 has a control character (U+0001); remove it"),
        ("a: 1", "Pulumi.x.yaml: `config` is missing or has no keys; start from a copy of stacks/Pulumi.lab.yaml"),
        ("", "Pulumi.x.yaml: `config` is missing or has no keys; start from a copy of stacks/Pulumi.lab.yaml"),
        (
            "config: [1]",
            "Pulumi.x.yaml: `config` is missing or has no keys; start from a copy of stacks/Pulumi.lab.yaml",
        ),
    ],
)
def test_files_that_are_no_stack_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError) as refusal:
        read_stack_file(path)
    assert str(refusal.value) == message


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_bytes(b"config: {a: \xff}")
    with pytest.raises(SettingsError, match=r"^Pulumi\.x\.yaml: it is not UTF-8 text; save it as UTF-8$"):
        read_stack_file(path)


def test_a_stack_file_is_read_as_it_is(tmp_path: Path) -> None:
    config = {"aws:region": "eu-west-1", "drawbridge:tunnel": {"port": 1195}}
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(yaml.safe_dump({"config": config}))
    assert read_stack_file(path) == config
    assert stack_name(path) == "x"
