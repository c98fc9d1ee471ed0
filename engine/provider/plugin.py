"""Serve the provider to Pulumi's own engine, as the executable `pulumi-resource-aws`.

An unknown value of a preview and a secret are tagged in the SDK's `PropertyValue`; here they become the wire values the
provider takes, and back. What the engine keeps for a resource includes its inputs under `__inputs`, so that a diff
compares inputs with inputs.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from pulumi.provider.experimental import provider as protocol
from pulumi.provider.experimental.property_value import PropertyValue, PropertyValueType

from engine.provider.catalog import Provider
from engine.provider.resource_type import Aws, ProviderError
from engine.provider.values import (
    UNKNOWN,
    Props,
    fingerprint,
    from_sdk,
    has_secret,
    is_secret,
    plain,
    secret,
    without_unknown,
)

INPUTS = "__inputs"
VERSION = "7.51.1"
"""The SDK's version whose wire names the provider speaks; the engine asks for a plugin of that one."""


def to_wire(value: PropertyValue) -> Any:
    """Return the SDK's value as a wire value."""
    inner: Any
    match value.type:
        case PropertyValueType.COMPUTED:
            inner = UNKNOWN
        case PropertyValueType.ARRAY:
            inner = [to_wire(item) for item in value.value]  # type: ignore[union-attr, arg-type]
        case PropertyValueType.MAP:
            inner = wire_map(value.value)  # type: ignore[arg-type]
        case PropertyValueType.RESOURCE:
            raise ProviderError("a resource was given; give its id")
        case _:
            inner = from_sdk(value.value)
    return secret(inner) if value.is_secret else inner


def wire_map(values: Mapping[str, PropertyValue]) -> Props:
    """Return a map of the SDK's values as wire values, without nulls."""
    return {key: to_wire(value) for key, value in values.items() if value.type is not PropertyValueType.NULL}


def from_wire(value: Any) -> PropertyValue:
    """Return a wire value as the SDK's. An unknown stays a string: the SDK cannot marshal its own `Computed`."""
    if is_secret(value):
        return from_wire(value["value"]).with_secret(True)
    if isinstance(value, dict):
        return PropertyValue({key: from_wire(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return PropertyValue([from_wire(item) for item in value])
    number = isinstance(value, int) and not isinstance(value, bool)
    return PropertyValue(float(value) if number else value)


def sdk_map(props: Mapping[str, Any]) -> dict[str, PropertyValue]:
    """Return wire values as a map of the SDK's."""
    return {key: from_wire(value) for key, value in props.items()}


class AwsPlugin(protocol.Provider):
    """Pulumi's provider protocol on `engine.provider`. The region comes from `aws:region`.

    Args:
        endpoint: URL of the AWS API.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._provider = Provider(Aws(None, endpoint))
        # Pulumi's engine calls in parallel; one call at a time runs, as in the embedded engine.
        self._turn = asyncio.Lock()

    async def _do(self, function: Any, *arguments: Any) -> Any:
        async with self._turn:
            return await asyncio.to_thread(function, *arguments)

    async def get_schema(self, request: protocol.GetSchemaRequest) -> protocol.GetSchemaResponse:
        return protocol.GetSchemaResponse(schema='{"name": "aws"}')

    async def configure(self, request: protocol.ConfigureRequest) -> protocol.ConfigureResponse:
        config = plain(wire_map(request.args))
        region = config.get("region") or os.environ.get("AWS_REGION")
        self._provider = Provider(Aws(region, self._endpoint), config.get("defaultTags"))
        return protocol.ConfigureResponse(accept_secrets=True, supports_preview=True)

    async def check(self, request: protocol.CheckRequest) -> protocol.CheckResponse:
        news = wire_map(request.new_inputs)
        olds = plain(wire_map(request.old_inputs))
        try:
            checked = self._provider.check(_parse_type(request.urn), request.name, olds, news)
        except ProviderError as error:
            return protocol.CheckResponse(request.new_inputs, [protocol.CheckFailure("", str(error))])
        return protocol.CheckResponse(inputs=sdk_map(checked))

    async def diff(self, request: protocol.DiffRequest) -> protocol.DiffResponse:
        state = plain(wire_map(request.old_state))
        olds = state.get(INPUTS, {})
        news = fingerprint(plain(wire_map(request.new_inputs)))
        for key in request.ignore_changes:
            news.pop(key, None)
            if key in olds:
                news[key] = olds[key]
        olds, news = self._provider.plan(_parse_type(request.urn), olds, state, news, request.ignore_changes)
        diff = self._provider.diff(_parse_type(request.urn), olds, news)
        return protocol.DiffResponse(
            changes=bool(diff.changed),
            diffs=list(diff.changed),
            replaces=list(diff.replaces),
            delete_before_replace=diff.delete_before_replace,
            detailed_diff={key: _describe_change(key, olds, news, key in diff.replaces) for key in diff.changed},
        )

    async def create(self, request: protocol.CreateRequest) -> protocol.CreateResponse:
        wire = fingerprint(wire_map(request.properties))
        if request.preview:
            return protocol.CreateResponse("", sdk_map(wire))
        id, outputs = await self._do(self._provider.create, _parse_type(request.urn), request.name, plain(wire))
        return protocol.CreateResponse(id, _state(outputs, wire))

    async def read(self, request: protocol.ReadRequest) -> protocol.ReadResponse:
        state = wire_map(request.properties)
        inputs = plain(state).get(INPUTS) or plain(wire_map(request.inputs)) or plain(state)
        outputs = await self._do(
            self._provider.read, _parse_type(request.urn), request.name, request.resource_id, inputs
        )
        if outputs is None:
            return protocol.ReadResponse(resource_id="")
        marked = state.get(INPUTS, inputs)
        return protocol.ReadResponse(request.resource_id, _state(outputs, plain(marked)), request.inputs)

    async def update(self, request: protocol.UpdateRequest) -> protocol.UpdateResponse:
        state = wire_map(request.olds)
        wire = fingerprint(wire_map(request.news))
        olds = plain(state).get(INPUTS, {})
        if request.preview:
            outputs = {key: value for key, value in state.items() if key != INPUTS}
            return protocol.UpdateResponse(sdk_map({**outputs, **wire}))
        olds, news = self._provider.plan(
            _parse_type(request.urn), olds, plain(state), plain(wire), request.ignore_changes
        )
        outputs = await self._do(
            self._provider.update, _parse_type(request.urn), request.name, request.resource_id, olds, news
        )
        once = {key: value for key, value in state.items() if key not in outputs and is_secret(value) and key != INPUTS}
        return protocol.UpdateResponse(_state({**once, **outputs}, wire))

    async def delete(self, request: protocol.DeleteRequest) -> None:
        state = plain(wire_map(request.properties))
        props = {**state, **state.get(INPUTS, {})}
        await self._do(self._provider.delete, _parse_type(request.urn), request.name, request.resource_id, props)

    async def invoke(self, request: protocol.InvokeRequest) -> protocol.InvokeResponse:
        answer = await self._do(self._provider.invoke, request.tok, plain(without_unknown(wire_map(request.args))))
        return protocol.InvokeResponse(sdk_map(answer))


def _parse_type(urn: str) -> str:
    """Return the resource's type from a URN, whose type part lists the parents' types too."""
    return urn.split("::")[2].split("$")[-1]


def _describe_change(key: str, olds: Props, news: Props, replaces: bool) -> protocol.PropertyDiff:
    verb = "UPDATE" if key in olds and key in news else "ADD" if key in news else "DELETE"
    return protocol.PropertyDiff(protocol.PropertyDiffKind[verb + ("_REPLACE" if replaces else "")], input_diff=True)


def _state(outputs: Props, wire: Props) -> dict[str, PropertyValue]:
    """Return what the engine saves: the outputs, secret where the input was secret, and the inputs."""
    marked = {k: secret(plain(v)) if has_secret(wire.get(k)) and not is_secret(v) else v for k, v in outputs.items()}
    return sdk_map({**marked, INPUTS: wire})
