"""Run a Pulumi program against an AWS API on this machine where no Pulumi CLI is installed.

The engine implements the SDK's resource monitor in this process and deploys through `engine.provider`. It refuses an
AWS endpoint that is not on loopback. Resources are deployed one at a time. Imports, transforms, hooks and remote
components are not supported; a program that uses them gets an error that names the option.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import json
import logging
import os
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import pulumi
import pulumi.runtime
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime import settings as sdk
from pulumi.runtime.proto import engine_pb2, provider_pb2, resource_pb2

from endpoint import endpoint_of, remote_endpoint
from engine.provider.catalog import Diff, Provider
from engine.provider.dynamic import PROVIDER_KEY, Dynamic, is_dynamic
from engine.provider.resource_type import Aws, ClientError, ProviderError
from engine.provider.values import (
    UNKNOWN,
    Props,
    comparable,
    fingerprint,
    from_struct,
    has_secret,
    has_unknown,
    is_secret,
    plain,
    secret,
    to_struct,
)
from engine.state import Entry, Snapshot, StateError, Store, deletion_order, mark_pending_delete

Operation = Literal["create", "update", "replace", "delete", "same"]
STACK = "pulumi:pulumi:Stack"


class EngineError(Exception):
    """A run failed. The text is for the user; the state holds everything that was done before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One resource's operation: done by `up` or `destroy`, planned by `preview`."""

    operation: Operation
    urn: str
    type: str
    name: str
    changed: tuple[str, ...] = ()
    """Inputs whose change caused the operation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Progress of a run: a step begins or ends, or there is a message for the user."""

    kind: Literal["begin", "end", "info", "warning", "error"]
    text: str
    step: Step | None = None
    seconds: float = 0.0
    """Duration of an ended step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of a run that succeeded."""

    outputs: Props
    """The stack's outputs: secrets in clear text, None for a value that a preview cannot know."""
    changes: dict[str, int]
    """Number of resources, without components, by operation: create, update, replace, delete, same."""
    steps: list[Step]
    secret_outputs: frozenset[str] = frozenset()
    """Names of the outputs that are secret."""


def _ignore_event(event: Event) -> None:
    """Discard an event."""


class Engine:
    """Runs one stack of a Pulumi program.

    Args:
        program: directory that contains `__main__.py`, or that file.
        project: project name.
        stack: stack name.
        config: the stack's configuration, `namespace:key` to value. Structured values reach the program as JSON, as
            with Pulumi. A key without a namespace gets the project's.
        state: the state file; its directory is created if needed.
        events: receives progress, from several threads but never from two at once.

    A run that fails raises `EngineError`; a `pulumi.RunError` of the program passes through unchanged.
    """

    def __init__(
        self,
        program: Path,
        *,
        project: str,
        stack: str,
        config: Mapping[str, object],
        state: Path,
        events: Callable[[Event], None] = _ignore_event,
    ) -> None:
        self.program = program / "__main__.py" if program.is_dir() else program
        self.project = project
        self.stack = stack
        self.config = {
            key if ":" in key else f"{project}:{key}": _format_value(key, value) for key, value in config.items()
        }
        self.store = Store(state)
        self.events = events

    def up(self, *, refresh: bool = False, replacing: str | None = None) -> Result:
        """Deploy the program.

        Args:
            refresh: first drop resources from the state that AWS no longer has.
            replacing: pattern of URNs whose resources are replaced even if nothing changed, as `pulumi up --replace`
                takes it: ``**`` stands for any text.
        """
        return self._run(preview=False, refresh=refresh, replacing=replacing)

    def preview(self) -> Result:
        """Return what `up` would do, and change nothing."""
        return self._run(preview=True, refresh=False)

    def destroy(self) -> Result:
        """Delete every resource of the state, then the state itself."""
        with self._prepared() as (snapshot, provider, dynamic):
            run = _Run(self, snapshot, provider, dynamic, preview=False)
            run.recover()
            run.delete(snapshot.entries)
            self.store.remove()
            return run.result({})

    def outputs(self) -> Props:
        """Return the stack's outputs after the last `up`, secrets in clear text."""
        try:
            return dict(plain(self.store.load().outputs))
        except StateError as error:
            raise EngineError(str(error)) from error

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[tuple[Snapshot, Provider, Dynamic]]:
        endpoint = loopback_endpoint(os.environ)
        region = self.config.get("aws:region")
        try:
            with self.store.locked(), _importable_program(self.program.parent):
                dynamic = Dynamic(self.project, self.config)
                yield self.store.load(), Provider(Aws(region, endpoint), self.config.get("aws:defaultTags")), dynamic
        except (StateError, ProviderError) as error:
            raise EngineError(str(error)) from error

    def _run(self, *, preview: bool, refresh: bool, replacing: str | None = None) -> Result:
        if not self.program.is_file():
            raise EngineError(f"program {self.program} does not exist")
        with self._prepared() as (snapshot, provider, dynamic):
            run = _Run(self, snapshot, provider, dynamic, preview=preview, replacing=replacing)
            if not preview:
                run.recover()
            if refresh:
                run.refresh()
            outputs = self._execute(run)
            run.delete(run.orphans())
            if not preview:
                snapshot.outputs = outputs
                self.store.save(snapshot)
            return run.result(outputs)

    def _execute(self, run: _Run) -> Props:
        """Run the program in its own thread, so that the SDK's context variables end with it."""
        failure: list[BaseException] = []

        def body() -> None:
            try:
                self._program(run)
            except BaseException as error:
                failure.append(error)
            finally:
                ended.set()

        # Not Thread.join: after an interruption it would report the thread as ended.
        ended = threading.Event()
        threading.Thread(target=body, name="pulumi-program").start()
        try:
            ended.wait()
        except BaseException as interruption:
            # The current call finishes and is saved; no other call starts.
            run.failure = interruption
            ended.wait()
            raise
        if run.failure is not None:
            raise _as_engine_error(run.failure)
        if failure:
            if isinstance(failure[0], pulumi.RunError | EngineError):
                raise failure[0]
            raise _as_engine_error(failure[0])
        if run.errors:
            raise EngineError("\n".join(run.errors))
        return run.stack_outputs

    def _program(self, run: _Run) -> None:
        # A failed program leaves futures unawaited; asyncio's log of them is of no use to the user.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        pulumi.runtime.set_all_config(self.config)
        sdk.configure(
            sdk.Settings(
                project=self.project,
                stack=self.stack,
                monitor=run,
                engine=run,
                dry_run=run.preview,
                organization="organization",
                root_directory=str(self.program.parent),
            )
        )
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with ThreadPoolExecutor(max_workers=16) as executor:
            loop.set_default_executor(executor)
            try:
                program = str(self.program)
                # The SDK accepts any callable, but its annotation expects an awaitable or None.
                body = cast(Callable[[], None], lambda: runpy.run_path(program, run_name="__main__"))
                loop.run_until_complete(pulumi.runtime.run_in_stack(body))
            finally:
                asyncio.set_event_loop(None)
                loop.close()


@dataclass(eq=False)
class _Run:
    """One run: implements the SDK's resource monitor and engine services."""

    engine: Engine
    snapshot: Snapshot
    provider: Provider
    dynamic: Dynamic
    preview: bool
    replacing: str | None = None
    """Pattern of the URNs to replace in any case."""
    steps: list[Step] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stack_outputs: Props = field(default_factory=dict)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._registered: set[str] = set()
        self._deleted_early: set[str] = set()  # URNs deleted early for a replacement
        self._index()

    def _index(self) -> None:
        self._entries_by_urn = {entry.urn: entry for entry in self.snapshot.entries if not entry.pending_delete}

    # Called by the SDK; names and messages are those of Pulumi's gRPC protocol.

    def GetDeploymentInfo(self, request: empty_pb2.Empty) -> resource_pb2.DeploymentInfo:
        return resource_pb2.DeploymentInfo(
            supportedFeatures=[
                resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
                resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
            ]
        )

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        with self._guarded():
            return self._register(request)

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:
        with self._guarded():
            outputs = from_struct(request.outputs)
            if request.urn == self._urn(STACK, f"{self.engine.project}-{self.engine.stack}", ""):
                self.stack_outputs = outputs
            elif not self.preview:
                entry = self._entries_by_urn[request.urn]
                if entry.outputs != outputs:
                    self._replace(entry, replace(entry, outputs=outputs))
            return empty_pb2.Empty()

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        with self._guarded():
            try:
                answer = self.provider.invoke(request.tok, plain(from_struct(request.args)))
            except ProviderError as error:
                if not isinstance(error.__cause__, ClientError):
                    raise
                # The program may catch what AWS refuses.
                failure = provider_pb2.CheckFailure(property=request.tok, reason=str(error))
                return resource_pb2.ResourceInvokeResponse(failures=[failure])
            return resource_pb2.ResourceInvokeResponse(**{"return": to_struct(answer)})

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> resource_pb2.ReadResourceResponse:
        with self._guarded():
            urn = self._urn(request.type, request.name, request.parent)
            if request.id == UNKNOWN:
                return resource_pb2.ReadResourceResponse(urn=urn)
            outputs = self.provider.read(request.type, request.name, request.id, plain(from_struct(request.properties)))
            if outputs is None:
                raise EngineError(f"{request.type} {request.name}: {request.id} does not exist")
            return resource_pb2.ReadResourceResponse(urn=urn, properties=to_struct(outputs))

    def RegisterPackage(self, request: resource_pb2.RegisterPackageRequest) -> resource_pb2.RegisterPackageResponse:
        raise EngineError(f"the embedded engine runs no parameterized package ({request.name})")

    def SignalAndWaitForShutdown(self, request: empty_pb2.Empty) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def Log(self, request: engine_pb2.LogRequest) -> empty_pb2.Empty:
        match request.severity:
            case engine_pb2.INFO:
                self._emit(Event(kind="info", text=request.message))
            case engine_pb2.WARNING:
                self._emit(Event(kind="warning", text=request.message))
            case engine_pb2.ERROR:
                # Pulumi lets a run fail that logged an error.
                self.errors.append(request.message)
                self._emit(Event(kind="error", text=request.message))
        return empty_pb2.Empty()

    def RequirePulumiVersion(self, request: engine_pb2.RequirePulumiVersionRequest) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    # Before and after the program.

    def recover(self) -> None:
        """Adopt the resources of interrupted creations."""
        for entry in list(self.snapshot.pending_operations):
            owned_ids = [owned.id for owned in self.snapshot.entries if owned.type == entry.type]
            found_id = None
            if not is_dynamic(entry.type):
                found_id = self.provider.find(entry.type, entry.name, plain(entry.inputs), owned_ids)
            self.snapshot.pending_operations.remove(entry)
            if found_id is not None:
                self.snapshot.entries.append(replace(entry, id=found_id, outputs=dict(entry.inputs), needs_update=True))
                self._emit(
                    Event(kind="info", text=f"adopted {entry.type} {entry.name} ({found_id}) of an interrupted run")
                )
            elif is_dynamic(entry.type):
                text = f"{entry.type} {entry.name}: the creation was interrupted; its provider must find what it left"
                self._emit(Event(kind="warning", text=text))
            self._save()
        self._index()

    def refresh(self) -> None:
        """Drop entries that AWS no longer has, and update the outputs of the others."""
        for entry in [e for e in self.snapshot.entries if e.custom and not e.pending_delete and e.id]:
            if entry.type.startswith("pulumi:"):
                continue
            if is_dynamic(entry.type):
                outputs = self.dynamic.read(entry.id, plain(entry.outputs))
            else:
                outputs = self.provider.read(entry.type, entry.name, entry.id, plain(entry.inputs))
            if outputs is None:
                self._emit(Event(kind="info", text=f"{entry.type} {entry.name} ({entry.id}) no longer exists"))
                self.snapshot.entries.remove(entry)
                self._entries_by_urn.pop(entry.urn)
            else:
                secret_keys = {key for key, value in entry.outputs.items() if has_secret(value)}
                new_outputs = {key: secret(value) if key in secret_keys else value for key, value in outputs.items()}
                self._replace(entry, replace(entry, outputs={**entry.outputs, **new_outputs}))
        self._save()

    def orphans(self) -> list[Entry]:
        """Return the entries that are in the state but no longer in the program."""
        return [e for e in self.snapshot.entries if e.pending_delete or e.urn not in self._registered]

    def delete(self, entries: list[Entry]) -> None:
        """Delete resources, each before those it depends on."""
        for entry in deletion_order(entries):
            self._delete(entry)

    def result(self, outputs: Props) -> Result:
        """Return the run's result."""
        names: tuple[Operation, ...] = ("create", "update", "replace", "delete", "same")
        changes: dict[str, int] = {name: sum(step.operation == name for step in self.steps) for name in names}
        shown = {key: None if has_unknown(value) else plain(value) for key, value in outputs.items()}
        secret_names = frozenset(key for key, value in outputs.items() if has_secret(value))
        return Result(outputs=shown, changes=changes, steps=list(self.steps), secret_outputs=secret_names)

    # One resource.

    def _register(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        urn = self._urn(request.type, request.name, request.parent)
        if urn in self._registered:
            raise EngineError(f"two resources are named {request.name} ({urn})")
        for option in ("importId", "remote", "transforms", "deletedWith", "replace_with"):
            if getattr(request, option, None):
                raise EngineError(
                    f"{request.type} {request.name}: the embedded engine does not support the option {option}"
                )
        old = self._entries_by_urn.pop(urn, None)
        for alias in () if old else self._aliases(request):
            old = old or self._entries_by_urn.pop(alias, None)
        if old is not None and old.urn != urn:
            renamed = replace(old, urn=urn)
            self.snapshot.entries[self.snapshot.entries.index(old)] = old = renamed
        self._registered.add(urn)
        wire = fingerprint(from_struct(request.object))
        entry = Entry(
            urn=urn,
            type=request.type,
            custom=request.custom,
            inputs=wire,
            parent=request.parent,
            dependencies=tuple(sorted({*request.dependencies, *_provider_urns(request)})),
            property_dependencies={k: tuple(v.urns) for k, v in request.propertyDependencies.items() if v.urns},
            protect=request.protect,
            retain=request.retainOnDelete,
        )
        if not request.custom:
            self._put(old, replace(entry, outputs=old.outputs if old else {}))
            return self._answer(entry)
        self._ignore(request, old, wire)
        return self._answer(self._custom(request, entry, old, wire))

    def _custom(
        self, request: resource_pb2.RegisterResourceRequest, entry: Entry, old: Entry | None, wire: Props
    ) -> Entry:
        news = self._check(entry, plain(old.inputs) if old else {}, plain(wire))
        secret_keys = {key for key, value in wire.items() if has_secret(value)}
        entry = replace(entry, inputs=_mark_secrets(news, secret_keys))
        secret_keys |= set(request.additionalSecretOutputs)
        if old is None:
            was_deleted = entry.urn in self._deleted_early
            return self._create(entry, news, secret_keys, "replace" if was_deleted else "create", None)
        diff = self._diff(entry, old, news, request.ignoreChanges)
        forced = _match_paths(request.replaceOnChanges, diff.changed)
        replaces = tuple(sorted({*diff.replaces, *forced}))
        if replaces or (self.replacing and fnmatch.fnmatchcase(entry.urn, self.replacing)):
            delete_first = (
                request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else diff.delete_before_replace
            )
            if old.protect:
                raise EngineError(
                    f"{old.type} {old.name} is protected, and {', '.join(replaces)} cannot change in place"
                )
            if delete_first:
                self._delete_with_dependents(old)
                return self._create(entry, news, secret_keys, "replace", None, replaces)
            return self._create(entry, news, secret_keys, "replace", old, replaces)
        if diff.changed or old.needs_update:
            return self._update(entry, old, news, secret_keys, diff.changed, request.ignoreChanges)
        step = self._step("same", entry)
        unchanged = replace(entry, id=old.id, outputs=old.outputs)
        self._put(old, unchanged)
        self.steps.append(step)
        return unchanged

    def _check(self, entry: Entry, olds: Props, news: Props) -> Props:
        if entry.type.startswith("pulumi:providers:"):
            return news
        if is_dynamic(entry.type):
            with self._naming(entry):
                return news if has_unknown(news) else self.dynamic.check(olds, news)
        return self.provider.check(entry.type, entry.name, olds, news)

    def _diff(self, entry: Entry, old: Entry, news: Props, ignored: Sequence[str]) -> Diff:
        olds = plain(old.inputs)
        if entry.type.startswith("pulumi:providers:"):
            changed = tuple(k for k in {**olds, **news} if comparable(olds.get(k)) != comparable(news.get(k)))
            return Diff(changed=changed)
        if is_dynamic(entry.type):
            with self._naming(entry):
                return self.dynamic.diff(old.id, plain(old.outputs), news, olds)
        planned = self.provider.plan(entry.type, olds, plain(old.outputs), news, ignored)
        return self.provider.diff(entry.type, *planned)

    def _create(
        self,
        entry: Entry,
        news: Props,
        secret_keys: set[str],
        operation: Operation,
        replaced: Entry | None,
        changed: tuple[str, ...] = (),
    ) -> Entry:
        with self._reporting(operation, entry, changed):
            if self.preview:
                if replaced is not None:
                    self.snapshot.entries.remove(replaced)
                created = replace(entry, outputs=_mark_secrets(news, secret_keys))
                self.snapshot.entries.append(created)
                return created
            self.snapshot.pending_operations.append(entry)
            self._save()
            try:
                if entry.type.startswith("pulumi:providers:"):
                    id, outputs = f"{entry.name}-id", dict(news)
                elif is_dynamic(entry.type):
                    with self._naming(entry):
                        id, outputs = self.dynamic.create(news)
                else:
                    id, outputs = self.provider.create(entry.type, entry.name, news)
            except ProviderError as error:
                # After any other error the record stays: AWS may have created the resource and refused a later call.
                if error.already_exists:
                    self.snapshot.pending_operations.remove(entry)
                    self._save()
                raise
            created = replace(entry, id=id, outputs=_mark_secrets(outputs, secret_keys))
            self.snapshot.pending_operations.remove(entry)
            if replaced is not None:
                self.snapshot.entries[self.snapshot.entries.index(replaced)] = mark_pending_delete(replaced)
            self.snapshot.entries.append(created)
            self._save()
            return created

    def _update(
        self,
        entry: Entry,
        old: Entry,
        news: Props,
        secret_keys: set[str],
        changed: tuple[str, ...],
        ignored: Sequence[str],
    ) -> Entry:
        with self._reporting("update", entry, changed):
            if self.preview:
                # A dynamic provider's outputs are unknown; an AWS resource mostly keeps its outputs.
                old_outputs = {} if is_dynamic(entry.type) else plain(old.outputs)
                updated = replace(entry, id=old.id, outputs=_mark_secrets({**old_outputs, **news}, secret_keys))
            elif is_dynamic(entry.type):
                with self._naming(entry):
                    outputs = self.dynamic.update(old.id, plain(old.outputs), news)
                updated = replace(entry, id=old.id, outputs=_mark_secrets(outputs, secret_keys))
            elif entry.type.startswith("pulumi:providers:"):
                updated = replace(entry, id=old.id, outputs=_mark_secrets(news, secret_keys))
            else:
                olds: Props = {}
                if not old.needs_update:
                    olds, news = self.provider.plan(entry.type, plain(old.inputs), plain(old.outputs), news, ignored)
                outputs = self.provider.update(entry.type, entry.name, old.id, olds, news)
                creation_only = {
                    k: v for k, v in old.outputs.items() if k not in outputs and has_secret(v)
                }  # AWS returns these at creation only
                updated = replace(entry, id=old.id, outputs={**creation_only, **_mark_secrets(outputs, secret_keys)})
            self._put(old, updated)
            self._save()
            return updated

    def _delete(self, entry: Entry, operation: Operation = "delete") -> None:
        if entry.protect and not entry.pending_delete:
            raise EngineError(f"{entry.type} {entry.name} is protected; remove the protection before you delete it")
        if not entry.custom or entry.retain or entry.type.startswith("pulumi:providers:"):
            self.snapshot.entries.remove(entry)
            self._save()
            return
        # Deleting the old half of a replacement belongs to the replacement's step.
        silent = entry.pending_delete or operation == "replace"
        with contextlib.nullcontext() if silent else self._reporting("delete", entry):
            if not self.preview:
                if is_dynamic(entry.type):
                    with self._naming(entry):
                        self.dynamic.delete(entry.id, plain(entry.outputs))
                else:
                    # Inputs win over outputs, which an update that failed half-way has not reached.
                    self.provider.delete(entry.type, entry.name, entry.id, plain({**entry.outputs, **entry.inputs}))
            self.snapshot.entries.remove(entry)
            self._save()

    def _delete_with_dependents(self, old: Entry) -> None:
        """Delete a resource before its replacement, and first the dependents that must be replaced with it."""
        to_delete, queue = [old], [old.urn]
        while queue:
            urn = queue.pop()
            for entry in self.snapshot.entries:
                if entry in to_delete or not entry.custom or entry.pending_delete:
                    continue
                keys = [key for key, urns in entry.property_dependencies.items() if urn in urns]
                if keys and self._would_replace(entry, keys):
                    to_delete.append(entry)
                    queue.append(entry.urn)
        for entry in deletion_order(to_delete):
            if entry.urn in self._registered and entry is not old:
                raise EngineError(
                    f"{entry.type} {entry.name} must be deleted before {old.name}, but is already deployed"
                )
            self._delete(entry, "replace")
            self._entries_by_urn.pop(entry.urn, None)
            self._deleted_early.add(entry.urn)

    def _would_replace(self, entry: Entry, keys: list[str]) -> bool:
        if entry.type.startswith("pulumi:providers:"):
            return False
        olds = plain(entry.inputs)
        news = {**olds, **dict.fromkeys(keys, UNKNOWN)}
        if is_dynamic(entry.type):
            return bool(self.dynamic.diff(entry.id, plain(entry.outputs), news, olds).replaces)
        return bool(self.provider.diff(entry.type, olds, news).replaces)

    # Helpers.

    def _urn(self, type: str, name: str, parent: str) -> str:
        chain = parent.split("::")[2] if parent else ""
        qualified = type if chain in ("", STACK) else f"{chain}${type}"
        return f"urn:pulumi:{self.engine.stack}::{self.engine.project}::{qualified}::{name}"

    def _aliases(self, request: resource_pb2.RegisterResourceRequest) -> Iterator[str]:
        yield from request.aliasURNs
        for alias in request.aliases:
            if alias.urn:
                yield alias.urn
                continue
            spec = alias.spec
            parent = "" if spec.noParent else spec.parentUrn or request.parent
            yield self._urn(spec.type or request.type, spec.name or request.name, parent)

    @staticmethod
    def _ignore(request: resource_pb2.RegisterResourceRequest, old: Entry | None, wire: Props) -> None:
        for path in request.ignoreChanges:
            if "." in path or "[" in path:
                raise EngineError(
                    f"{request.name}: the embedded engine can ignore changes of a whole input only, not of {path}"
                )
            if old is not None:
                wire.pop(path, None)
                if path in old.inputs:
                    wire[path] = old.inputs[path]

    def _answer(self, entry: Entry) -> resource_pb2.RegisterResourceResponse:
        shown = {key: value for key, value in entry.outputs.items() if key != PROVIDER_KEY}
        return resource_pb2.RegisterResourceResponse(urn=entry.urn, id=entry.id, object=to_struct(shown))

    def _put(self, old: Entry | None, new: Entry) -> None:
        """Append an entry, so that it comes after everything it depends on."""
        if old is not None:
            self.snapshot.entries.remove(old)
        self.snapshot.entries.append(new)
        if not new.custom:
            self._entries_by_urn[new.urn] = new  # RegisterResourceOutputs comes later

    def _replace(self, old: Entry, new: Entry) -> None:
        self.snapshot.entries[self.snapshot.entries.index(old)] = new
        self._entries_by_urn[new.urn] = new

    def _save(self) -> None:
        if not self.preview:
            self.engine.store.save(self.snapshot)

    def _emit(self, event: Event) -> None:
        with self._lock:
            self.engine.events(event)

    @staticmethod
    def _step(operation: Operation, entry: Entry, changed: tuple[str, ...] = ()) -> Step:
        return Step(operation=operation, urn=entry.urn, type=entry.type, name=entry.name, changed=changed)

    @contextlib.contextmanager
    def _reporting(self, operation: Operation, entry: Entry, changed: tuple[str, ...] = ()) -> Iterator[None]:
        step = self._step(operation, entry, changed)
        text = f"{operation} {entry.type} {entry.name}"
        self._emit(Event(kind="begin", text=text, step=step))
        begun = time.monotonic()
        yield
        self.steps.append(step)
        self._emit(Event(kind="end", text=text, step=step, seconds=time.monotonic() - begun))

    @contextlib.contextmanager
    def _naming(self, entry: Entry) -> Iterator[None]:
        """Prefix an error of a dynamic provider's code with the resource's name."""
        try:
            yield
        except Exception as error:
            raise EngineError(f"{entry.type} {entry.name}: {error}") from error

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Serialize calls, and refuse every call after a failure."""
        with self._lock:
            if self.failure is not None:
                raise EngineError("the run has failed")
            try:
                yield
            except BaseException as error:
                self.failure = error
                raise


def loopback_endpoint(environment: Mapping[str, str]) -> str:
    """Return the AWS endpoint that the environment names.

    Raises:
        EngineError: no endpoint is set, or one of them is not on loopback.
    """
    if remote := remote_endpoint(environment):
        host = urlsplit(remote.url).hostname or remote.url
        raise EngineError(
            f"{remote.source} names {host}, which is not loopback; the embedded engine never deploys to AWS"
        )
    endpoint = endpoint_of(environment)
    if endpoint is None:
        raise EngineError("AWS_ENDPOINT_URL is not set, or is ignored; the embedded engine never deploys to AWS itself")
    return endpoint


def _format_value(key: str, value: object) -> str:
    if isinstance(value, Mapping) and set(value) == {"secure"}:
        raise EngineError(f"{key}: encrypted configuration needs the Pulumi CLI")
    return value if isinstance(value, str) else json.dumps(value)


def _mark_secrets(props: Props, secret_keys: set[str]) -> Props:
    return {k: secret(plain(v)) if k in secret_keys and not is_secret(v) else v for k, v in props.items()}


def _match_paths(paths: Any, changed: tuple[str, ...]) -> tuple[str, ...]:
    heads = {path.replace("[", ".").split(".")[0] for path in paths}
    return tuple(key for key in changed if "*" in heads or key in heads)


def _provider_urns(request: resource_pb2.RegisterResourceRequest) -> list[str]:
    return [request.provider.rsplit("::", 1)[0]] if request.provider else []


def _as_engine_error(error: BaseException) -> EngineError:
    """Return the failure as an EngineError; an error of the program gets its file and line."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, ProviderError | StateError):
        wrapped = EngineError(str(error))
    elif isinstance(error, SystemExit):
        wrapped = EngineError(f"the program ended with exit code {error.code}")
    else:
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1] if frames else None
        place = f" ({last.filename}:{last.lineno})" if last else ""
        wrapped = EngineError(f"the program failed: {type(error).__name__}: {error}{place}")
    wrapped.__cause__ = error
    return wrapped


@contextlib.contextmanager
def _importable_program(directory: Path) -> Iterator[None]:
    """Set sys.path and the working directory to the program's directory, as the Pulumi CLI does."""
    entry = str(directory.resolve())
    sys.path.insert(0, entry)
    try:
        with contextlib.chdir(directory):
            yield
    finally:
        sys.path.remove(entry)
