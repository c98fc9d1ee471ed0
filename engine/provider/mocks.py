"""Offer the provider as the SDK's mocks: a program under test creates resources in an in-process or loopback AWS."""

import threading
from typing import Any

from pulumi.runtime import mocks

from engine.provider.catalog import Provider
from engine.provider.dynamic import PROVIDER_KEY, Dynamic, is_dynamic
from engine.provider.resource_type import Aws, ClientError, ProviderError
from engine.provider.values import Props, from_sdk, has_secret, is_secret, plain, secret, without_unknown


class ProviderMocks(mocks.Mocks):
    """Mocks that create through `engine.provider`; to be used inside `moto.mock_aws()`.

    `pulumi.runtime.set_mocks(ProviderMocks("eu-west-1", project="demo"), project="demo", stack="dev")`

    An unknown type, input or function raises `ProviderError`; a look-up that AWS refuses raises in the program. Dynamic
    resources run in-process. `created` lists the resources in order of creation, as (type, name, id, outputs without
    secret tags).

    Args:
        region: AWS region; None takes it from the environment.
        project: project name that dynamic providers see in their configuration.
        config: the stack's configuration that dynamic providers and `aws:defaultTags` see.
        preview: nothing is created; outputs are the inputs and the id is unknown.
    """

    def __init__(
        self,
        region: str | None = None,
        *,
        project: str,
        config: dict[str, str] | None = None,
        preview: bool = False,
    ) -> None:
        self.provider = Provider(Aws(region), (config or {}).get("aws:defaultTags"))
        self.created: list[tuple[str, str, str, Props]] = []
        self._dynamic = Dynamic(project, config or {})
        self._preview = preview
        # The SDK calls from several threads; one at a time makes the order of creation reproducible.
        self._lock = threading.Lock()

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs: Props = from_sdk(args.inputs)
        if not args.custom:
            return "", inputs
        if args.typ.startswith("pulumi:providers:"):
            return f"{args.name}-id", inputs
        with self._lock:
            bare: Props = plain(inputs)
            if is_dynamic(args.typ):
                checked = self._dynamic.check({}, bare)
                id, outputs = ("", without_unknown(checked)) if self._preview else self._dynamic.create(checked)
            elif args.typ.startswith("aws:"):
                checked = self.provider.check(args.typ, args.name, {}, bare)
                create = self.provider.create
                id, outputs = ("", without_unknown(checked)) if self._preview else create(args.typ, args.name, checked)
            else:
                raise ProviderError(f"{args.typ} {args.name}: neither an AWS type nor a dynamic resource")
            self.created.append((args.typ, args.name, id, plain(outputs)))
        outputs.pop(PROVIDER_KEY, None)
        return id, {
            key: secret(plain(value)) if has_secret(inputs.get(key)) or is_secret(value) else value
            for key, value in outputs.items()
        }

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        with self._lock:
            try:
                return self.provider.invoke(args.token, plain(from_sdk(args.args))), []
            except ProviderError as error:
                if not isinstance(error.__cause__, ClientError):
                    raise
                # The program may catch what AWS refuses, as it may with Pulumi's engine.
                return {}, [(args.token, str(error))]
