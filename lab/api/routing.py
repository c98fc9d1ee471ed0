"""Find the operation of a REST request in botocore's service model."""

from collections.abc import Mapping
from typing import Any

from moto.core.request import Request
from moto.core.routing import get_service_router
from werkzeug.exceptions import HTTPException


def match_route(
    service: str, *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> tuple[str, dict[str, Any]]:
    """Return the operation of a REST request and the parameters in its path; "" for an unknown one."""
    url = f"http://localhost{path}" + (f"?{query}" if query else "")
    try:
        operation, labels = get_service_router(service).match(Request.from_primitives(method, url, dict(headers), body))
    except (HTTPException, NotImplementedError):
        return "", {}
    return operation.name, dict(labels)
