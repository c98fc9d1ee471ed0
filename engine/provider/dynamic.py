"""Run Python's dynamic resources in this process; the inputs contain the pickled provider."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import dill  # type: ignore[import-untyped]
from pulumi.dynamic import Config, ConfigureRequest, ResourceProvider
from pulumi.runtime._serialization import _deserialize

from engine.provider.catalog import Diff
from engine.provider.resource_type import ProviderError
from engine.provider.values import Props, comparable, has_unknown

PREFIX = "pulumi-python:dynamic"
PROVIDER_KEY = "__provider"


def is_dynamic(token: str) -> bool:
    """Return whether a type is a dynamic resource of Python."""
    return token.startswith(PREFIX)


class Dynamic:
    """Check, diff, create, read, update and delete dynamic resources. Errors of the provider's code pass through.

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
            raise ProviderError("the dynamic resource has no provider among its inputs")
        if text not in self._loaded:
            provider: ResourceProvider = _deserialize(lambda: dill.loads(base64.b64decode(text)))
            provider.configure(ConfigureRequest(Config(self._config, self._project)))
            self._loaded[text] = provider
        return self._loaded[text]

    def check(self, olds: Props, news: Props) -> Props:
        """Return the inputs after the provider has validated and completed them.

        Raises:
            ProviderError: the provider reported failures.
        """
        result = self._provider(news).check(olds, news)
        if result.failures:
            listed = "; ".join(f"{failure.property}: {failure.reason}" for failure in result.failures)
            raise ProviderError(listed)
        return {**result.inputs, PROVIDER_KEY: news[PROVIDER_KEY]}

    def diff(self, id: str, olds: Props, news: Props, old_inputs: Props) -> Diff:
        """Return the provider's diff; if the provider does not decide, compare the inputs.

        A change of the provider's code alone changes its pickled text, but not the resource.
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
        return Diff(changed=changed, replaces=replaces, delete_before_replace=bool(result.delete_before_replace))

    def create(self, inputs: Props) -> tuple[str, Props]:
        """Create the resource and return its id and outputs."""
        result = self._provider(inputs).create(inputs)
        return str(result.id), self._outs(result.outs, inputs)

    def read(self, id: str, props: Props) -> Props | None:
        """Return the resource's outputs, or None if it does not exist."""
        result = self._provider(props).read(id, props)
        return self._outs(result.outs, props) if result.id else None

    def update(self, id: str, olds: Props, news: Props) -> Props:
        """Update the resource and return its outputs."""
        result = self._provider(news).update(id, olds, news)
        return self._outs(result.outs, news)

    def delete(self, id: str, props: Props) -> None:
        """Delete the resource."""
        self._provider(props).delete(id, props)

    @staticmethod
    def _outs(outs: dict[str, Any] | None, props: Props) -> Props:
        return {**(outs or {}), PROVIDER_KEY: props[PROVIDER_KEY]}
