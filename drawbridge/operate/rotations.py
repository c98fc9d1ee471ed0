"""Note a rotation of keys in a stack file, and list the steps that carry it out."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from drawbridge import errors
from drawbridge.operate.stack_edits import Value, replace_file, set_value
from drawbridge.operate.stack_files import LAB, find_stack_file
from settings.model import Client, Settings
from settings.parse import parse
from settings.problems import NAMESPACE, SettingsError
from settings.stack_file import qualify, read_stack_file
from settings.stack_yaml import load_yaml

SECTION = f"{NAMESPACE}:rotations"

#: How a moment is written in a stack file.
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"

_END_MACHINE = (
    "if anybody else may have been root on the gateway, end its machine and the sessions of its role first, as "
    "docs/stolen.md says, because they could read the new keys, and deploy with --refresh"
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation of keys that the next deployment will carry out."""

    stack_file: Path
    keys: tuple[str, ...]
    """Keys below `drawbridge:rotations`: `gateway`, `stack`, or `clients` and a client's name."""
    moment: str
    """When it was ordered, ISO 8601."""
    steps: tuple[str, ...]
    """What the operator does, in this order."""
    clients: tuple[Client, ...]
    """Clients that need a new bundle."""
    kits: tuple[Client, ...]
    """Those of them whose kit fetches it."""

    def write(self) -> None:
        """Write the rotation into the stack file; raises `StackError` as `write_value`."""
        write_value(self.stack_file, self.keys, self.moment)


def write_value(stack_file: Path, keys: tuple[str, ...], value: Value) -> None:
    """Write a value below `drawbridge:rotations` into a stack file, and leave everything else in it as it is.

    Raises `StackError` if the file cannot be read or written, or has something else there.
    """
    try:
        text = stack_file.read_bytes().decode()
        replace_file(stack_file, set_value(text, ("config", _find_section(text), *keys), value))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise errors.StackError(
            f"{stack_file} cannot be changed: {reason}",
            f"write it by hand: {SECTION}, {', '.join(keys)}: {json.dumps(value)}",
        ) from error


def _find_section(text: str) -> str:
    """Return the key of the rotations as the document spells it, which may be without its namespace."""
    document = load_yaml(text)
    config = document.get("config") if isinstance(document, dict) else None
    spelled = (key for key in config if qualify(str(key)) == SECTION) if isinstance(config, dict) else ()
    return str(next(iter(spelled), SECTION))


def plan_client_rotation(stack: str, name: str, now: datetime) -> Rotation:
    """Return the rotation of a client's key; raises `StackError`."""
    settings = read_settings(stack)
    client = next((client for client in settings.clients if client.name == name), None)
    if client is None:
        names = ", ".join(client.name for client in settings.clients) or "none"
        raise errors.StackError(f"{find_stack_file(stack)} has no client {name}", f"its clients: {names}")
    steps = (
        f"{deploy_command(stack)}: within a minute, the gateway ends the session of {name} and refuses the former "
        "bundle; no other client notices",
    )
    return _plan(settings, ("clients", name), now, steps, (client,))


def plan_gateway_rotation(stack: str, now: datetime) -> Rotation:
    """Return the rotation of a gateway's keys; raises `StackError`."""
    settings = read_settings(stack)
    steps = (_END_MACHINE, f"{deploy_command(stack)}: {_restart_step(settings)}")
    return _plan(settings, ("gateway",), now, steps, settings.clients)


def plan_stack_rotation(stack: str, now: datetime) -> Rotation:
    """Return the rotation of the authority and all that it signs; raises `StackError`."""
    settings = read_settings(stack)
    steps = (_END_MACHINE, f"{deploy_command(stack)}: {_restart_step(settings)}; every former certificate is revoked")
    return _plan(settings, ("stack",), now, steps, settings.clients)


def _plan(
    settings: Settings, keys: tuple[str, ...], now: datetime, steps: tuple[str, ...], clients: tuple[Client, ...]
) -> Rotation:
    former: Any = settings.rotations.model_dump()
    for key in keys:
        former = former.get(key, "")
    kits = tuple(client for client in clients if client.needs_kit(settings.tunnel))
    return Rotation(find_stack_file(settings.stack), keys, next_moment(former, now), steps, clients, kits)


def next_moment(former: str, now: datetime) -> str:
    """Return the moment of a rotation: now, or one after the former rotation's, whose clock was ahead."""
    moment = now.astimezone(UTC)
    if former:
        moment = max(moment, datetime.fromisoformat(former) + timedelta(seconds=1))
    return moment.strftime(_MOMENT)


def read_settings(stack: str) -> Settings:
    """Return the settings in a stack's file; raises `StackError`."""
    path = find_stack_file(stack)
    try:
        return parse(read_stack_file(path), stack=stack, endpoint="http://127.0.0.1")
    except FileNotFoundError:
        raise errors.StackError(f"{path} does not exist", "name a stack that has a file: --stack NAME") from None
    except SettingsError as error:
        raise errors.StackError(str(error), f"correct {path}") from error


def deploy_command(stack: str) -> str:
    """Return the command that deploys a stack."""
    return "drawbridge lab up" if stack == LAB else f"pulumi up --stack {stack}"


def _restart_step(settings: Settings) -> str:
    if settings.pair:
        return "within a minute OpenVPN restarts on both gateways, which fetch each other's new keys by themselves"
    return "within a minute OpenVPN restarts, which cuts all clients, and no former bundle connects"
