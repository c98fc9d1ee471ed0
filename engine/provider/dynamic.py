"""Dynamic resources, run in this process: the provider rides pickled among the resource's inputs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dill  # type: ignore[import-untyped]
from pulumi.dynamic import Config, ConfigureRequest, ResourceProvider
from pulumi.runtime._serialization import _deserialize

from engine.provider.catalog import Diff
from engine.provider.kind import ProviderError
from engine.provider.values import Props, comparable, has_unknown

PREFIX = "pulumi-python:dynamic"
PROVIDER_KEY = "__provider"


def is_dynamic(token: str) -> bool:
    """Say whether a type is a dynamic resource of Python."""
    return token.startswith(PREFIX)


class Dynamic:
    """The five verbs on dynamic resources, with the SDK's meaning. Errors of the provider's own code pass through.

    Args:
        project: name of the project, for the configuration a provider sees.
        config: the stack's configuration, as a provider's `configure` gets it.
    """

    def __init__(self, project: str, config: Mapping[str, str]) -> None:
        self._project = project
        self._config = dict(config)
        self._loaded: dict[str, ResourceProvider] = {}

    def _provider(self, props: Props) -> ResourceProvider:
        text = props.get(PROVIDER_KEY)
        if not isinstance(text, str):
            raise ProviderError("a dynamic resource came without its provider")
        if text not in self._loaded:
            provider: ResourceProvider = _deserialize(lambda: dill.loads(base64.b64decode(text)))
            provider.configure(ConfigureRequest(Config(self._config, self._project)))
            self._loaded[text] = provider
        return self._loaded[text]

    def check(self, olds: Props, news: Props) -> Props:
        """Let the provider validate and complete the inputs.

        Raises:
            ProviderError: it named failures.
        """
        result = self._provider(news).check(olds, news)
        if result.failures:
            listed = "; ".join(f"{failure.property}: {failure.reason}" for failure in result.failures)
            raise ProviderError(listed)
        return {**result.inputs, PROVIDER_KEY: news[PROVIDER_KEY]}

    def diff(self, id: str, olds: Props, news: Props, old_inputs: Props) -> Diff:
        """Ask the provider what the change means; where it does not say, compare the inputs.

        The provider's own code changes its pickled text without changing the resource, so that text alone is no change.
        """
        result = self._provider(news).diff(id, olds, news)
        replaces = tuple(result.replaces or ())
        keys = sorted((set(old_inputs) | set(news)) - {PROVIDER_KEY})
        changed = tuple(
            k for k in keys if comparable(old_inputs.get(k)) != comparable(news.get(k)) or has_unknown(news.get(k))
        )
        if result.changes is False:
            changed = ()
        elif result.changes:
            changed = changed or replaces or ("*",)
        changed = changed if not replaces else tuple(sorted({*changed, *replaces}))
        return Diff(changed=changed, replaces=replaces, delete_first=bool(result.delete_before_replace))

    def create(self, inputs: Props) -> tuple[str, Props]:
        """Make it; return id and outputs."""
        result = self._provider(inputs).create(inputs)
        return str(result.id), self._outs(result.outs, inputs)

    def read(self, id: str, props: Props) -> Props | None:
        """Ask for its outputs; None where it is gone."""
        result = self._provider(props).read(id, props)
        return self._outs(result.outs, props) if result.id else None

    def update(self, id: str, olds: Props, news: Props) -> Props:
        """Change it; return outputs."""
        result = self._provider(news).update(id, olds, news)
        return self._outs(result.outs, news)

    def delete(self, id: str, props: Props) -> None:
        """Remove it."""
        self._provider(props).delete(id, props)

    @staticmethod
    def _outs(outs: dict[str, Any] | None, props: Props) -> Props:
        return {**(outs or {}), PROVIDER_KEY: props[PROVIDER_KEY]}
