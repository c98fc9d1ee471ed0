"""Deploying a stack into a region of this machine, the way `pulumi up` would."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pulumi

import contract
from drawbridge import errors
from drawbridge.operate.account import Account
from drawbridge.operate.lab_account import operator_key
from drawbridge.operate.stack_files import CHECKOUT
from drawbridge.operate.stack_records import (
    SharedMachine,
    StackRecord,
    list_records,
    load_record,
    name_machine,
    save_record,
)
from engine.engine import Engine, EngineError, Event
from lab import region as labs
from lab.api.iam import ACCOUNT
from settings.model import Client, Settings
from settings.parse import parse

#: Told what is being done, for people.
Progress = Callable[[str], None]

_QUOTA_REMEDY = "the lab has AWS's quotas; make room: drawbridge lab status, drawbridge lab destroy STACK"

#: Clients of a stack that get machines unless the command says otherwise.
DEFAULT_CLIENTS = 12


@dataclass(frozen=True)
class Deployment:
    """One stack, deployed into a region of this machine."""

    region: labs.Region
    settings: Settings
    outputs: Mapping[str, Any]
    changes: Mapping[str, int]
    letter: str = contract.GATEWAYS[0]
    """Letter of the gateway that `outputs` are about."""
    record: StackRecord = field(default_factory=lambda: StackRecord(stack=""), compare=False)
    """What the region remembers of the stack; a test's deployment may have none."""

    client_limit: int = DEFAULT_CLIENTS
    """Number of clients that get machines, at most."""
    failed: set[str] = field(default_factory=set, compare=False)
    """Names of clients that did not start."""
    ended: float = field(default_factory=time.monotonic, compare=False)
    """When the deployment ended, on the monotonic clock."""

    @property
    def clients(self) -> tuple[Client, ...]:
        """The clients that get machines: one of each kind first, without those that failed to start."""
        chosen = choose_clients(self.settings.clients, self.client_limit)
        return tuple(client for client in chosen if client.name not in self.failed)

    @property
    def names(self) -> contract.Names:
        """Names of the gateway's parameters and resources."""
        return contract.Names(self.settings.stack, self.letter)

    @property
    def second(self) -> "Deployment":
        """The same, of a pair's second gateway."""
        return replace(self, outputs=self.outputs[contract.StackOutput.PAIR], letter=contract.GATEWAYS[1])

    def client(self, service: str) -> Any:
        """A boto3 client of the lab's operator, in the stack's AWS region."""
        return create_client(self.region, service, self.settings.region)

    @property
    def private_subnet(self) -> str:
        """Return the subnet of private hosts; of an existing VPC that the lab did not make, it is the gateway's."""
        section = "network" if self.letter == contract.GATEWAYS[0] else "pair"
        adopted, key = self.record.adopted.get(section, {}), contract.StackOutput.PRIVATE_SUBNET_ID
        return str(self.outputs.get(key) or adopted.get(key) or self.outputs[contract.StackOutput.PUBLIC_SUBNET_ID])

    @property
    def account(self) -> Account:
        """The stack's account, as the command sees it."""
        keys = self.region.environment
        session = boto3.Session(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            region_name=self.settings.region,
        )
        return Account(stack=self.settings.stack, session=session, endpoint=self.region.endpoint, gateway=self.letter)

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Point the SDKs of this process at the stack's place in the lab for the length of a block."""
        with _patched_environment({**self.region.environment, "AWS_REGION": self.settings.region}):
            yield

    def host(self, name: str) -> labs.Host:
        """Return a machine by its name in the stack: a client's, `private-host`, that of a host in a client's LAN."""
        return self.region.host(self.record.machine(name))

    def name_machine(self, name: str) -> str:
        """Return the lab's name for a machine that is to be started, by its name in the stack."""
        return name_machine(self.region, self.record, name)

    def share_machine(self, name: SharedMachine) -> str:
        """Return the name of a machine of the region that stacks share, and record that this one uses it."""
        self.record.machines[name_own_machine(self.settings, name)] = name
        save_record(self.region, self.record)
        return name

    @property
    def gateway(self) -> labs.Host:
        """The gateway's machine as it is now (its instance may have been replaced)."""
        return self.region.host(self.outputs["gatewayInstanceId"])


def name_own_machine(settings: Settings, name: str) -> str:
    """Return the stack's name for a machine that the lab adds to it: `NAME-lab` if a client has that name."""
    clients = {client.name for client in settings.clients}
    while name in clients:
        name += "-lab"
    return name


def create_client(region: labs.Region, service: str, aws_region: str) -> Any:
    """Return a boto3 client of a lab's operator in an AWS region."""
    return boto3.client(  # type: ignore[call-overload]  # the service is a name here
        service,
        region_name=aws_region,
        endpoint_url=region.endpoint,
        aws_access_key_id=region.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=region.environment["AWS_SECRET_ACCESS_KEY"],
    )


def deploy(
    running: labs.Region, stack: str, raw: Mapping[str, Any], progress: Progress, *, file: Path | None = None
) -> Deployment:
    """Run the program against the lab with the embedded engine; the operator's SSH key is the lab's own.

    Args:
        file: the stack file that `raw` was read from, if it was.

    Raises:
        StackError: the settings, or what the program said of them.
        LabError: what the engine said.
    """
    record = load_record(running, stack) or StackRecord(stack=stack)
    raw = adapt_to_lab(raw)
    config = {**raw, "drawbridge:gateway": {"sshKey": _ssh_key(running), **(raw.get("drawbridge:gateway") or {})}}
    secrets = raw.get("drawbridge:secrets") or {}
    if secrets.get("key", "stack") == "stack":
        # Clients fetch their bundles themselves, as the users that `drawbridge.trial.hosts` creates.
        clients = [client_user(stack, client["name"]) for client in raw.get("drawbridge:clients") or ()]
        users = [f"arn:aws:iam::{ACCOUNT}:user/{user}" for user in clients]
        config["drawbridge:secrets"] = {**secrets, "users": [*secrets.get("users", ()), *users]}
    record.file, record.aws_region, record.config = str(file or ""), str(config["aws:region"]), config
    save_record(running, record)
    progress(f"deploying stack {stack}")
    return _run_program(running, record, progress)


def redeploy(running: labs.Region, stack: str, progress: Progress, *, replacing: str) -> Deployment:
    """Deploy a stack of the region again as it is, and replace the resources whose URNs match a pattern.

    Raises:
        As `load_deployment` and `deploy`.
    """
    return _run_program(running, load_deployment(running, stack).record, progress, replacing)


def _run_program(
    running: labs.Region, record: StackRecord, progress: Progress, replacing: str | None = None
) -> Deployment:
    """Run the program with the configuration of a stack's record."""
    stack, config = record.stack, record.config
    with _patched_environment({**running.environment, "AWS_REGION": str(config["aws:region"])}):
        try:
            settings = parse(config, stack=stack, endpoint=running.endpoint)
            result = create_engine(running, stack, config, progress).up(replacing=replacing)
        except pulumi.RunError as error:
            raise errors.StackError(str(error), _QUOTA_REMEDY if "quota" in str(error) else "") from error
        except EngineError as error:
            raise errors.DeploymentError(
                str(error), f"see {running.directory}/log; start anew: drawbridge lab down"
            ) from error
    running.wait_reconciled()
    changes = ", ".join(f"{count} {verb}" for verb, count in result.changes.items() if count)
    progress(f"deployed: {changes}")
    return Deployment(running, settings, result.outputs, result.changes, record=record)


def load_deployment(running: labs.Region, stack: str) -> Deployment:
    """Return a stack that a region has, as it was last deployed; outputs are missing if that failed.

    Raises:
        StackError: the region has no such stack.
    """
    record = load_record(running, stack)
    if record is None:
        names = ", ".join(stored.stack for stored in list_records(running)) or "none"
        raise errors.StackError(
            f"the lab has no stack {stack}; it has {names}", f"deploy it: drawbridge lab up {stack}"
        )
    settings = parse(record.config, stack=stack, endpoint=running.endpoint)
    outputs = create_engine(running, stack, record.config).outputs()
    return Deployment(running, settings, outputs, {}, record=record)


def choose_clients(clients: Sequence[Client], limit: int) -> tuple[Client, ...]:
    """Return at most `limit` clients in their order: the first of each kind, then those that come first."""
    kinds = {_find_kind(client): number for number, client in reversed(list(enumerate(clients)))}
    first = sorted(kinds.values())
    others = [number for number in range(len(clients)) if number not in kinds.values()]
    return tuple(clients[number] for number in sorted([*first, *others][:limit]))


def _find_kind(client: Client) -> tuple[object, ...]:
    """Return what makes clients alike for a trial."""
    features = (client.lan, client.reachable, client.bridge, client.at, client.address6, client.mac)
    return client.system, *(bool(feature) for feature in features)


def adapt_to_lab(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stack's settings without what exists outside of the lab only: keys of signing requests, hosted zones.

    The lab's clients get keys, and connect by the address behind the gateway's name.
    """
    config = dict(raw)
    if clients := raw.get("drawbridge:clients"):
        config["drawbridge:clients"] = [_without(client, "csr") for client in clients]
    if gateway := raw.get("drawbridge:gateway"):
        config["drawbridge:gateway"] = _without(gateway, "hostedZoneId")
    return config


def _without(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != name}


def client_user(stack: str, client: str) -> str:
    """Return the name of the IAM user as whom a client's machine without a kit fetches its bundle."""
    return f"{stack}-{client}"


def create_engine(
    running: labs.Region, stack: str, config: Mapping[str, Any], progress: Progress = lambda _: None
) -> Any:
    """The embedded engine for a stack of this lab; its state lies with the lab's."""

    def tell(event: Event) -> None:
        if event.kind in ("warning", "error", "info"):
            progress(f"warning: {event.text}" if event.kind == "warning" else event.text)

    state = running.stacks / f"{stack}.json"
    return Engine(CHECKOUT, project=contract.PROJECT, stack=stack, config=config, state=state, events=tell)


def _ssh_key(running: labs.Region) -> str:
    key = operator_key(running)
    if not key.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(key)], check=True, timeout=10
        )
    return key.with_suffix(".pub").read_text().strip()


@contextmanager
def _patched_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Point the SDKs of this process at the lab for the length of a block: they know no other door."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)
