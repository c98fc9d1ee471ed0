"""Render an `ApiError` as the HTTP response of the service that refuses."""

import json
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from lab.api.errors import ApiError

#: Codes of `lab.api.iam` that a service spells otherwise.
_CODES = {
    "s3": {"AccessDeniedException": "AccessDenied", "InvalidClientTokenId": "InvalidAccessKeyId"},
    "ec2": {
        "AccessDeniedException": "UnauthorizedOperation",
        "InvalidClientTokenId": "AuthFailure",
        "SignatureDoesNotMatch": "AuthFailure",
        "MissingAuthenticationToken": "AuthFailure",
    },
    "iam": {"AccessDeniedException": "AccessDenied"},
    "sts": {"AccessDeniedException": "AccessDenied"},
    "sns": {"AccessDeniedException": "AuthorizationError"},
    "monitoring": {"AccessDeniedException": "AccessDenied"},
    "route53": {"AccessDeniedException": "AccessDenied"},
}
_FORBIDDEN = frozenset(
    {
        "AccessDenied",
        "AuthFailure",
        "AuthorizationError",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
    }
)


def render_error(error: ApiError, service: str, *, speaks_json: bool = False, status: int | None = None) -> Response:
    """Return the response of a service that refuses a request.

    Args:
        service: as the request is signed for: ``monitoring`` for CloudWatch.
        speaks_json: whether the request was in the JSON protocol, which CloudWatch has beside the query protocol.
        status: of HTTP, where it is not 400, or 403 for a request that is not permitted.
    """
    code, message = _CODES.get(service, {}).get(error.code, error.code), escape(str(error))
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    if speaks_json or service not in _CODES:
        body = json.dumps({"__type": code, "message": str(error)})
        return Response(body, status or 400, mimetype="application/x-amz-json-1.1")
    if service == "ec2":
        text = f"<Response><Errors>{text}</Errors></Response>"
    elif service != "s3":
        text = f"<ErrorResponse>{text}</ErrorResponse>"
    return Response(text, status or (403 if code in _FORBIDDEN else 400), mimetype="text/xml")
