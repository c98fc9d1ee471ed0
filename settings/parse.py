"""Parse a stack's configuration into the typed, frozen and validated `Settings`.

`parse` either returns `Settings` or raises `SettingsError` with every problem, so that users can correct a stack file
in one go. It reads only its arguments: no file, no network, no AWS.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import ValidationError

from endpoint import decode, is_loopback
from settings.checks.topics import find_problems
from settings.default_tags import KEY as DEFAULT_TAGS
from settings.default_tags import check_default_tags
from settings.draft import Draft
from settings.model import (
    LAB,
    SAFE_STACK,
    Alerts,
    Client,
    Gateway,
    Iam,
    Lifetimes,
    Log,
    Network,
    Pair,
    Rotations,
    Secrets,
    Section,
    Settings,
    Tunnel,
)
from settings.problems import NAMESPACE, Problem, SettingsError, explain, not_a_list, show, suggest
from settings.regions import is_region_name, suggest_region

#: Keys of the namespace.
SECTIONS = (
    "network",
    "gateway",
    "pair",
    "tunnel",
    "clients",
    "lifetimes",
    "rotations",
    "iam",
    "secrets",
    "alerts",
    "log",
)


#: Namespaces of keys: the program's, the provider's and Pulumi's own.
NAMESPACES = (NAMESPACE, "aws", "pulumi")


def parse(raw: Mapping[str, object], *, stack: str, endpoint: str | None) -> Settings:
    """Return the settings of `stack`; raises `SettingsError` with all problems.

    `raw` has the configuration's keys with their namespace (`drawbridge:network`, `aws:region`), values as in a stack
    file or as the JSON that Pulumi makes of them. `endpoint` is the URL of the AWS API, None for AWS itself.
    """
    problems = [*_check_stack(stack, endpoint), *_check_keys(raw), *_check_region(raw)]
    problems += check_default_tags(raw.get(DEFAULT_TAGS))
    draft = _parse_sections(raw, stack, problems)
    problems += find_problems(draft)
    network, gateway, tunnel = draft.network, draft.gateway, draft.effective_tunnel
    lifetimes, rotations, iam, secrets = draft.lifetimes, draft.rotations, draft.iam, draft.secrets
    log = draft.log
    if problems or not (network and gateway and tunnel and lifetimes and rotations and iam and secrets and log):
        raise SettingsError(problems)
    return Settings.model_construct(
        stack=stack,
        region=str(raw["aws:region"]),
        network=network,
        gateway=gateway,
        tunnel=tunnel,
        clients=tuple(draft.clients.values()),
        lifetimes=lifetimes,
        rotations=rotations,
        iam=iam,
        secrets=secrets,
        log=log,
        pair=draft.pair,
        alerts=draft.alerts,
    )


def _check_stack(stack: str, endpoint: str | None) -> Iterator[Problem]:
    if not SAFE_STACK.fullmatch(stack):
        remedy = "use 1 to 20 of a-z, 0-9 and '-', starting with a letter and not ending in '-'"
        yield Problem("stack", stack, "is not a valid stack name, which becomes part of a bucket's name", remedy)
    if stack == LAB and not (endpoint and is_loopback(endpoint)):
        remedy = "deploy it with `drawbridge lab up`, or choose another stack for AWS"
        yield Problem("stack", LAB, f"would be deployed to {endpoint or 'AWS itself'}", remedy)


def _check_keys(raw: Mapping[str, object]) -> Iterator[Problem]:
    for key, value in raw.items():
        namespace, _, name = key.rpartition(":")
        if namespace not in NAMESPACES:
            near = difflib.get_close_matches(namespace.lower(), NAMESPACES, n=1)
            remedy = f"did you mean {near[0]}:{name}?" if near else f"known ones are {', '.join(sorted(NAMESPACES))}"
            yield Problem(key, show(value), "has an unknown namespace", remedy)
        elif namespace == NAMESPACE and name not in SECTIONS:
            nested = "write each of its keys by itself, such as `drawbridge:tunnel: {…}`"
            remedy = nested if name == NAMESPACE else suggest(name, SECTIONS)
            yield Problem(namespace, name, "is not a known key", remedy)


def _check_region(raw: Mapping[str, object]) -> Iterator[Problem]:
    region = raw.get("aws:region")
    if not isinstance(region, str) or not is_region_name(region):
        remedy = f"run `pulumi config set aws:region {suggest_region(str(region))}`"
        yield Problem("aws:region", show(region), "is not a valid AWS region", remedy)


def _parse_sections(raw: Mapping[str, object], stack: str, problems: list[Problem]) -> Draft:
    """Return the sections that are valid by themselves; the problems of the others are added to `problems`."""
    values = {key: decode(raw.get(f"{NAMESPACE}:{key}")) for key in SECTIONS}
    has_pair = f"{NAMESPACE}:pair" in raw
    entries = values["clients"]
    return Draft(
        stack=stack,
        region=str(raw.get("aws:region")),
        network=_parse_section(Network, "network", values["network"], problems),
        gateway=_parse_section(Gateway, "gateway", values["gateway"], problems),
        tunnel=_parse_section(Tunnel, "tunnel", values["tunnel"], problems),
        lifetimes=_parse_section(Lifetimes, "lifetimes", values["lifetimes"], problems),
        rotations=_parse_section(Rotations, "rotations", values["rotations"], problems),
        iam=_parse_section(Iam, "iam", values["iam"], problems),
        secrets=_parse_section(Secrets, "secrets", values["secrets"], problems),
        log=_parse_section(Log, "log", values["log"], problems),
        clients=_parse_clients(entries, problems),
        entries=len(entries) if isinstance(entries, list) else 0,
        pair=_parse_section(Pair, "pair", values["pair"], problems) if has_pair else None,
        has_pair=has_pair,
        alerts=_parse_section(Alerts, "alerts", values["alerts"], problems) if f"{NAMESPACE}:alerts" in raw else None,
    )


_S = TypeVar("_S", bound=Section)

#: A default that follows from another key is missing only because that key is wrong, which has its own error.
_NO_DEFAULT = "default_factory_not_called"


def _parse_section(model: type[_S], key: str, value: object, problems: list[Problem]) -> _S | None:
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as error:
        errors = [details for details in error.errors(include_url=False) if details["type"] != _NO_DEFAULT]
        problems += [explain(model, key, value, details) for details in errors]
        return None


def _parse_clients(value: object, problems: list[Problem]) -> dict[int, Client]:
    """Return the clients that are valid by themselves, by their position in the list."""
    if not isinstance(value, list | None):
        problems.append(not_a_list("clients", value))
        return {}
    clients = {i: _parse_section(Client, f"clients[{i}]", entry or {}, problems) for i, entry in enumerate(value or [])}
    return {i: client for i, client in clients.items() if client}
