"""Name the command that shows more about a check that failed."""

import re
import shlex

import contract
from drawbridge.trial.deployment import Deployment, name_own_machine
from drawbridge.trial.hosts import PRIVATE_HOST
from lab import region as labs
from lab.paths import DEFAULT_LAB

_LOG = ("journalctl", "--no-pager", "-n", "40", "-u", "openvpn*", "-u", "drawbridge*")

#: Names of a pair's gateways in checks, by letter.
_PAIR = {"gateway a": "a", "gateway b": "b"}


def suggest_command(deployed: Deployment, promise: str) -> str:
    """Return the command that shows what the machine that a promise begins with has logged, or how it is connected.

    A promise that names no client or private host is about the gateway.
    """
    private = name_own_machine(deployed.settings, PRIVATE_HOST)
    labels = {name: "private host" if name == private else name for name in deployed.record.machines}
    names = sorted(labels, key=len, reverse=True)
    subject = next((name for name in names if _begins_with(promise, labels[name])), None)
    if subject is None:
        letter = next((letter for name, letter in _PAIR.items() if name in promise), deployed.letter)
        machine = contract.Names(deployed.settings.stack, letter).display_name("gateway")
    else:
        machine = deployed.record.machine(subject)
    has_units = subject is None or subject in deployed.record.clients
    command = _LOG if has_units else ("ip", "route")
    return shlex.join(["drawbridge", "lab", "exec", *name_lab(deployed.region), machine, "--", *command])


def name_lab(region: labs.Region) -> tuple[str, ...]:
    """Return the option by which commands name a lab; nothing for the default one."""
    return () if region.name == DEFAULT_LAB else ("--lab", region.name)


def _begins_with(promise: str, name: str) -> bool:
    """Return whether a machine is the first one that a promise names, such as `alice -> …` or `ovn0 of left: …`."""
    return re.match(rf"(\S+ of )?{re.escape(name)}(?![\w.-])", promise) is not None
