"""Record the calls that reach an AWS API, by action and parameter names, as they are on the wire."""

import io
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

import botocore.session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

READS = ("Describe", "Get", "List", "Head", "DecodeAuthorizationMessage")
TAGS = re.compile(r"^([Tt]ags?|TagSpecifications?)\b")
"""Parameters that are left out: which tags a resource has is not what these tests compare."""


SAME_PATH = ("CopyObject", "UploadPartCopy")
"""Operations that only a header tells from another one of the same method and path; the provider uses neither."""


SIGNED_AS = {"monitoring": "cloudwatch"}
"""Services whose requests are signed for another name than their own."""

QUERY_SERVICES = ("cloudwatch", "ec2", "iam", "sns", "sts")
"""Services that the provider calls with AWS's query protocol."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call: its action, and the names of its parameters with list positions written N, sorted."""

    action: str
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.action}({', '.join(self.parameters)})"


def is_read(action: str) -> bool:
    """Return whether an action only reads."""
    return action.startswith(READS)


def query_call(body: str | Iterable[tuple[str, str]]) -> Call:
    """Return a call of AWS's query protocol from its form, encoded or as pairs."""
    pairs = dict(parse_qsl(body, keep_blank_values=True) if isinstance(body, str) else body)
    # A list is one parameter: some clients send it to the same service in another of AWS's protocols.
    names = {_numbered(key).partition(".member.")[0] for key in pairs if key not in ("Action", "Version")}
    # botocore fills idempotency tokens in; the provider sends some of its own.
    names = {name for name in names if not TAGS.match(name) and name != "ClientToken"}
    return Call(pairs["Action"], tuple(sorted(names)))


def json_call(action: str, body: bytes | str) -> Call:
    """Return a call of AWS's JSON protocol from its body."""
    return Call(action, tuple(sorted(name for name in json.loads(body) if not TAGS.match(name))))


def _numbered(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".N", name)


@cache
def _rest_operations(service: str) -> list[tuple[str, re.Pattern[str], frozenset[str], str]]:
    """Return method, path, query keys and name of each operation of a REST service, the most special ones first."""
    model = botocore.session.Session().get_service_model(service)
    operations = []
    for name in model.operation_names:
        if name in SAME_PATH:
            continue
        operation = model.operation_model(name)
        http, shape = operation.http, operation.input_shape
        path, _, query = http["requestUri"].partition("?")
        path = path.rstrip("/") or "/"
        pattern = re.sub(r"\\\{\w+\\\+\\\}", ".+", re.escape(path))
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
        keys = {key for key, _ in parse_qsl(query, keep_blank_values=True) if key != "x-id"}
        required = [shape.members[member].serialization for member in shape.required_members] if shape else []
        keys |= {at["name"] for at in required if at.get("location") == "querystring"}
        operations.append((http["method"], re.compile(pattern + "/?"), frozenset(keys), name))
    return sorted(operations, key=lambda operation: (-len(operation[2]), -len(operation[1].pattern)))


def rest_call(service: str, method: str, path: str, query: str) -> Call:
    """Return a call of a REST service; its parameters are not recorded."""
    keys = {key for key, _ in parse_qsl(query, keep_blank_values=True)}
    for verb, pattern, needed, name in _rest_operations(service):
        if verb == method and needed <= keys and pattern.fullmatch(path):
            return Call(name)
    return Call(f"{method} {path}?{query}")


@dataclass
class Recorder:
    """WSGI middleware that keeps the writing calls of an AWS API in `calls`, and the names of the others in `reads`."""

    application: Any
    calls: list[Call] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    """Service and action, such as ``ec2:DescribeVpcs``."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = _Body(body)
        service, call = self._call(environ, body)
        if call and not is_read(call.action):
            self.calls.append(call)
        elif call:
            self.reads.add(f"{service}:{call.action}")
        return self.application(environ, start_response)  # type: ignore[no-any-return]

    @staticmethod
    def _call(environ: WSGIEnvironment, body: bytes) -> tuple[str, Call | None]:
        scope = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        if not scope:
            return "", None
        service = SIGNED_AS.get(scope[1], scope[1])
        if target := environ.get("HTTP_X_AMZ_TARGET"):
            return service, json_call(target.rpartition(".")[2], body)
        if service in QUERY_SERVICES:
            return service, query_call(body.decode())
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        return service, rest_call(service, method, path, environ.get("QUERY_STRING", ""))


class _Body:
    """A request's body that can be read again."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def recording_server() -> Iterator[tuple[str, Recorder]]:
    """Serve moto on a free port of loopback; yield its URL and what records the calls that reach it."""
    recorder = Recorder(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, recorder, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", recorder
    finally:
        server.shutdown()
        thread.join()


def record_client(client: Any, calls: list[Call]) -> None:
    """Append every writing call of a botocore client to `calls`, with the same names as on the wire."""

    def before_call(model: Any, params: dict[str, Any], **_: Any) -> None:
        if is_read(model.name):
            return
        match model.service_model.resolved_protocol:
            case "ec2" | "query":
                calls.append(query_call(params["body"].items()))
            case "json":
                calls.append(json_call(model.name, params["body"]))
            case _:
                url = urlsplit(params["url_path"])
                calls.append(rest_call(model.service_model.service_name, params["method"], url.path, url.query))
                calls[-1] = Call(model.name)

    client.meta.events.register("before-call.*.*", before_call)


Record = Callable[[], list[Call]]
