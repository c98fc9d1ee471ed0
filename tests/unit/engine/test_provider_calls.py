"""The provider makes the calls that Pulumi's AWS provider makes: `provider_calls.toml` has them, per type and phase.

Does not prove that AWS accepts them, nor anything of reads and of tags, which are left out.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from engine.provider.catalog import Provider
from engine.provider.resource_type import Aws
from engine.provider.values import Props
from lab.api import moto_patches
from tests.support.aws_calls import Call, record_client
from tests.unit.engine.stack_resources import CHANGES, REGION, RESOURCES

_DATA = tomllib.loads(Path(__file__).with_name("provider_calls.toml").read_text())
RECORDED: dict[str, dict[str, list[str]]] = _DATA["calls"]
READS: list[str] = _DATA["reads"]


class RecordingAws(Aws):
    """Clients whose writing calls are kept."""

    def __init__(self, region: str) -> None:
        super().__init__(region)
        self.calls: list[Call] = []

    def client(self, service: str) -> Any:
        is_new = service not in self._clients
        client = super().client(service)
        if is_new:
            record_client(client, self.calls)
        return client


class Stack:
    """Creates, changes and deletes the resources, and keeps the calls of each phase by resource."""

    def __init__(self, aws: RecordingAws) -> None:
        self.aws = aws
        self.provider = Provider(aws)
        self.ids: dict[str, str] = {}
        self.inputs: dict[str, Props] = {}
        self.outputs: dict[str, Props] = {}

    def create(self, name: str) -> list[str]:
        token, inputs = f"aws:{RESOURCES[name][0]}", self._resolved(RESOURCES[name][1])
        self.inputs[name] = self.provider.check(token, name, {}, inputs)
        self.aws.calls.clear()
        self.ids[name], self.outputs[name] = self.provider.create(token, name, self.inputs[name])
        return [str(call) for call in self.aws.calls]

    def change(self, name: str, change: Props) -> list[str]:
        token, news = f"aws:{RESOURCES[name][0]}", {**self.inputs[name], **change}
        olds, news = self.provider.plan(token, self.inputs[name], self.outputs[name], news)
        diff = self.provider.diff(token, olds, news)
        self.aws.calls.clear()
        if diff.replaces:
            self.provider.delete(token, name, self.ids[name], self.outputs[name])
            self.ids[name], self.outputs[name] = self.provider.create(token, name, news)
        else:
            self.outputs[name] = self.provider.update(token, name, self.ids[name], olds, news)
        self.inputs[name] = news
        return [str(call) for call in self.aws.calls]

    def delete(self, name: str) -> list[str]:
        self.aws.calls.clear()
        self.provider.delete(f"aws:{RESOURCES[name][0]}", name, self.ids[name], self.outputs[name])
        return [str(call) for call in self.aws.calls]

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        if isinstance(value, str) and value.startswith("="):
            name, _, key = value[1:].partition(".")
            return self.outputs[name][key] if key else self.ids[name]
        return value


@pytest.fixture(scope="module")
def made_calls() -> Iterator[dict[str, dict[str, list[str]]]]:
    """The calls of each resource by phase."""
    with pytest.MonkeyPatch.context() as patch, mock_aws(), moto_patches.patched():
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        stack = Stack(RecordingAws(REGION))
        calls: dict[str, dict[str, list[str]]] = {name: {"create": stack.create(name)} for name in RESOURCES}
        for name, change in CHANGES:
            calls[name]["update"] = stack.change(name, change)
        for name in reversed(RESOURCES):
            calls[name]["delete"] = stack.delete(name)
        yield calls


@pytest.mark.parametrize("name", RESOURCES)
def test_the_calls_are_those_of_the_recorded_provider(made_calls: dict[str, dict[str, list[str]]], name: str) -> None:
    assert made_calls[name] == RECORDED[name]
