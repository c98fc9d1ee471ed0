"""The provider: every AWS type and function by its token, with Pulumi's rules around them."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

# Imported for their effect: each enters its types into KINDS.
from engine.provider import compute, iam, route53, s3, security, ssm, vpc  # noqa: F401
from engine.provider.invokes import INVOKES
from engine.provider.kind import KINDS, Aws, BotoCoreError, ClientError, Kind, ProviderError, absent, reason, taken
from engine.provider.values import Props, comparable, has_unknown

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Diff:
    """What a change of inputs means for a resource."""

    changed: tuple[str, ...] = ()
    """Inputs that differ."""
    replaces: tuple[str, ...] = ()
    """Those among them that need a new resource."""
    delete_first: bool = False
    """The old resource must go before the new one can be."""


class Provider:
    """AWS resources by type token.

    Inputs and outputs are wire values without secret tags (see `engine.provider.values`); outputs hold every input as
    it was given and what AWS adds. All methods raise `ProviderError` with the type, the resource's name and AWS's
    reason.
    """

    def __init__(self, aws: Aws | None = None) -> None:
        self.aws = aws or Aws()
        self._kinds: dict[str, Kind] = {}

    def kind(self, token: str) -> Kind:
        """Give the handler of a type."""
        if token not in KINDS:
            raise ProviderError(f"{token}: the lab's provider does not know this type")
        return self._kinds.setdefault(token, KINDS[token](self.aws))

    def check(self, token: str, name: str, olds: Props, news: Props) -> Props:
        """Validate inputs and complete them: defaults, and a name (kept from the old inputs) where none is given."""
        kind = self.kind(token)
        understood = {key.split(".")[0] for key in kind.fixed | kind.changeable}
        unknown = sorted(key for key in news if key not in understood and not key.startswith("__"))
        if unknown:
            raise ProviderError(f"{token} {name}: the lab's provider does not know the input {', '.join(unknown)}")
        inputs = {**kind.defaults, **news}
        if kind.auto_name and kind.auto_name not in inputs:
            inputs[kind.auto_name] = olds.get(kind.auto_name) or f"{name}-{secrets.token_hex(4)[:7]}"
        return inputs

    def diff(self, token: str, olds: Props, news: Props) -> Diff:
        """Compare two checked inputs. An unknown new value counts as changed."""
        kind = self.kind(token)
        keys = sorted(set(olds) | set(news))
        changed = tuple(
            k for k in keys if has_unknown(news.get(k)) or comparable(olds.get(k)) != comparable(news.get(k))
        )
        fixed = set(kind.fixed)
        if news.get("userDataReplaceOnChange"):
            fixed |= {"userData", "userDataBase64"}
        replaces = tuple(key for key in changed if key in fixed or _member_differs(key, fixed, olds, news))
        # A name that stays cannot be had twice at once.
        same_name = kind.auto_name is not None and kind.auto_name not in changed
        return Diff(
            changed=changed, replaces=replaces, delete_first=bool(replaces) and (kind.delete_first or same_name)
        )

    def create(self, token: str, name: str, inputs: Props) -> tuple[str, Props]:
        """Make a resource; return its id and outputs."""
        kind = self.kind(token)

        def make() -> tuple[str, Props]:
            id = kind.create(inputs)
            return id, self._outputs(kind, id, inputs)

        return self._told(token, name, make)

    def read(self, token: str, name: str, id: str, inputs: Props) -> Props | None:
        """Ask AWS for a resource's outputs; None where it is gone."""
        kind = self.kind(token)

        def look() -> Props | None:
            try:
                found = kind.read(id, inputs)
            except ClientError as error:
                if absent(error):
                    return None
                raise
            return None if found is None else {**found, **inputs}

        return self._told(token, name, look)

    def update(self, token: str, name: str, id: str, olds: Props, news: Props) -> Props:
        """Bring a resource from the old inputs to the new; return its outputs. No old inputs: apply everything."""
        kind = self.kind(token)

        def apply() -> Props:
            kind.update(id, olds, news)
            return self._outputs(kind, id, news)

        return self._told(token, name, apply)

    def delete(self, token: str, name: str, id: str, outputs: Props) -> None:
        """Remove a resource; one that is already gone is fine."""
        kind = self.kind(token)

        def remove() -> None:
            try:
                kind.delete(id, outputs)
            except ClientError as error:
                if not absent(error):
                    raise

        self._told(token, name, remove)

    def find(self, token: str, name: str, inputs: Props, known: Sequence[str] = ()) -> str | None:
        """Look for what a creation that was cut off may have left; `known` are ids that belong to somebody."""
        kind = self.kind(token)

        def look() -> str | None:
            try:
                found = [id for id in kind.find(inputs) if id not in known]
            except ClientError as error:
                if absent(error):
                    return None
                raise
            return found[0] if len(found) == 1 else None

        return self._told(token, name, look)

    def invoke(self, token: str, arguments: Mapping[str, Any]) -> Props:
        """Call a function of the provider."""
        if token not in INVOKES:
            raise ProviderError(f"{token}: the lab's provider does not know this function")
        return self._told(token, "", lambda: INVOKES[token](self.aws, dict(arguments)))

    @staticmethod
    def _outputs(kind: Kind, id: str, inputs: Props) -> Props:
        return {**(kind.read(id, inputs) or {}), **inputs}

    @staticmethod
    def _told(token: str, name: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except ProviderError as error:
            raise ProviderError(f"{token} {name}".rstrip() + f": {error}") from error
        except (ClientError, BotoCoreError) as error:
            told = ProviderError(f"{token} {name}".rstrip() + f": {reason(error)}")
            told.taken = taken(error)
            raise told from error
        except KeyError as error:
            raise ProviderError(f"{token} {name}".rstrip() + f": the input {error.args[0]} is missing") from error


def _member_differs(key: str, fixed: set[str], olds: Props, news: Props) -> bool:
    """Say whether a fixed member of a structured input differs."""
    before, after = olds.get(key) or {}, news.get(key) or {}
    members = [path.partition(".")[2] for path in fixed if path.startswith(f"{key}.")]
    return any(has_unknown(after) or before.get(member) != after.get(member) for member in members)
