"""Parse a signed HTTP request into the operation and the parameters of botocore's service model."""

import functools
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import determine_request_protocol
from moto.core.utils import get_service_model
from werkzeug.datastructures import Headers, MultiDict

from lab.api.errors import ApiError
from lab.api.iam import Signature, SignedRequest
from lab.api.routing import match_route

#: botocore's name of a service, where it is not the one that requests are signed for.
_SERVICE_NAMES = {"monitoring": "cloudwatch", "servicequotas": "service-quotas"}
#: Services whose requests are parsed and judged. S3's are not: their bodies are objects.
SERVICES = frozenset({"ec2", "iam", "ssm", "cloudwatch", "route53", "kms", "sts", "logs", "service-quotas", "sns"})


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One call of an AWS API, with its parameters as boto3 names them."""

    service: str
    """botocore's name: ``cloudwatch``, where policies and signatures have others."""
    action: str
    region: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def operation(self) -> OperationModel | None:
        """The operation in botocore's model, or None if the installed one does not have it."""
        return _find_operation(self.service, self.action)


@functools.cache
def _find_operation(service: str, action: str) -> OperationModel | None:
    model = get_service_model(service)
    return model.operation_model(action) if action in model.operation_names else None


def parse_request(request: SignedRequest, signature: Signature) -> ApiRequest | None:
    """Return the call that a request makes; None for services that are not in `SERVICES`, and unknown operations.

    Raises:
        ApiError: the body cannot be parsed, or a number or boolean is none.
    """
    service = _SERVICE_NAMES.get(signature.service, signature.service)
    if service not in SERVICES:
        return None
    content_type = request.headers.get("content-type", "").partition(";")[0]
    form = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
    if content_type == "application/x-www-form-urlencoded":
        form |= dict(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True))
    labels: dict[str, Any] = {}
    if target := request.headers.get("x-amz-target"):
        action = target.rpartition(".")[2]
    elif "Action" in form:
        action = form["Action"]
    else:
        action, labels = match_route(
            service,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
        )
    operation = _find_operation(service, action)
    if operation is None:
        return None
    protocol = determine_request_protocol(get_service_model(service), content_type)
    try:
        parameters = PROTOCOL_PARSERS[protocol](operation).parse(
            {
                "method": request.method,
                "values": MultiDict(form),
                "headers": Headers(list(request.headers.items())),
                "body": request.body,
                "url_path": request.path,
                "url_params": labels,
            }
        )
    except Exception as unreadable:
        # The parsers raise whatever int(), json and ElementTree raise.
        code = "SerializationException" if protocol == "json" else "MalformedInput"
        raise ApiError(code, f"The request cannot be read: {unreadable}") from unreadable
    return ApiRequest(service, action, signature.region, parameters or {})
