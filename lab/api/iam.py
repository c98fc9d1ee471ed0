"""Judge each call as IAM does: its signature, and whether the principal's policies allow the action on the resources.

moto keeps users, roles and policies but reads neither `Resource` nor `Condition` of a statement, so both are judged
here, in front of moto. `list_resources` knows the resources of a call for some services; for the others the resource is
``*``, which a statement that names ARNs does not allow: a missing case refuses the call.

Sources: AWS IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements: Condition operators"; Service
Authorization Reference for actions and resource types; "Create a signed AWS API request" (Signature Version 4).
"""

import datetime
import fnmatch
import hashlib
import hmac
import ipaddress
import json
import re
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab.api import ec2_resources
from lab.api.errors import ApiError
from lab.api.routing import match_route
from lab.api.s3_actions import parse_s3

ACCOUNT = "123456789012"


@dataclass(frozen=True, slots=True)
class Principal:
    """The user, role or account that an access key belongs to."""

    arn: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    policies: tuple[Mapping[str, Any], ...] = ()
    boundary: Mapping[str, Any] | None = None
    """Its permissions boundary: what this policy does not allow, no policy allows."""
    root: bool = False
    """Whether no policy applies (the lab reads its own state so)."""
    role: str | None = None
    """ARN of the role, for a session of an assumed role."""


@dataclass(frozen=True, slots=True)
class KmsKey:
    """A KMS key with its policy."""

    arn: str
    policy: Mapping[str, Any]
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One AWS API request, as the policies see it."""

    service: str
    action: str
    """As policies spell it: ``ssm:GetParameter``."""
    resources: tuple[str, ...]
    context: Mapping[str, str]
    """Condition keys and their values."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """As the request has them; empty for S3."""
    resource_context: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Condition keys that differ between the call's resources, such as their tags, by ARN."""

    def about(self, resource: str) -> "Call":
        """Return the call on one of its resources, with the condition keys of that one."""
        context = {**self.context, **self.resource_context.get(resource, {})}
        return replace(self, resources=(resource,), context=context)


# --- policies ---------------------------------------------------------------------------------------------------------


def is_allowed(policies: Iterable[Mapping[str, Any]], call: Call) -> bool:
    """Return whether identity policies allow a call on each of its resources.

    An explicit Deny wins, and without an Allow the call is denied.
    """
    statements = [statement for policy in policies for statement in _as_list(policy.get("Statement", []))]
    for resource in call.resources:
        matching = [s for s in statements if _statement_applies(s, call.about(resource), resource)]
        if any(s["Effect"] == "Deny" for s in matching) or not any(s["Effect"] == "Allow" for s in matching):
            return False
    return True


def is_allowed_to(principal: Principal, call: Call) -> bool:
    """Return whether a principal's policies allow a call, and its permissions boundary as well.

    Source: AWS IAM User Guide, "Permissions boundaries for IAM entities".
    """
    bounded = principal.boundary is None or is_allowed([principal.boundary], call)
    return bounded and is_allowed(principal.policies, call)


def is_denied_by(policy: Mapping[str, Any], call: Call) -> bool:
    """Return whether a resource's own policy (a bucket's) denies a call."""
    return any(
        s["Effect"] == "Deny" and any(_statement_applies(s, call, resource) for resource in call.resources)
        for s in _as_list(policy.get("Statement", []))
    )


def is_allowed_by_resource(policy: Mapping[str, Any], principals: Collection[str], call: Call) -> bool:
    """Return whether a resource's own policy allows one of some principals a call, and denies it to none."""
    statements = [s for s in _as_list(policy.get("Statement", [])) if _statement_applies(s, call, call.resources[0])]
    effects = {s["Effect"] for s in statements if {*_list_principals(s), *_list_services(s)} & {*principals}}
    return effects == {"Allow"}


def is_allowed_by_key(principal: Principal, key: KmsKey, call: Call) -> bool:
    """Return whether a principal may use a KMS key: its policy decides, alone or together with the principal's.

    Source: AWS KMS Developer Guide, "Key policies" and "Troubleshooting AWS KMS permissions".
    """
    statements = [s for s in _as_list(key.policy.get("Statement", [])) if _statement_applies(s, call, key.arn)]
    names = {"*", principal.arn, principal.role}
    direct = [s for s in statements if names & {*_list_principals(s)}]
    if any(s["Effect"] == "Deny" for s in direct):
        return False
    call = replace(call, resources=(key.arn,))
    policies = [*principal.policies, *([principal.boundary] if principal.boundary else [])]
    identity = [s for policy in policies for s in _as_list(policy.get("Statement", []))]
    if any(s["Effect"] == "Deny" and _statement_applies(s, call, key.arn) for s in identity):
        return False
    if any(s["Effect"] == "Allow" for s in direct):
        # A boundary restricts what a key's policy grants to a role, but not what it grants to a user.
        return not (principal.role and principal.boundary) or is_allowed([principal.boundary], call)
    account = {ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"}
    delegated = any(s["Effect"] == "Allow" and account & {*_list_principals(s)} for s in statements)
    return delegated and is_allowed_to(principal, call)


def _list_principals(statement: Mapping[str, Any]) -> list[str]:
    """Return the AWS principals that a statement of a resource's policy names."""
    principal = statement.get("Principal", {})
    return _as_list(principal.get("AWS", [])) if isinstance(principal, Mapping) else [principal]


def _list_services(statement: Mapping[str, Any]) -> list[str]:
    """Return the services that a statement of a resource's policy names as principals."""
    principal = statement.get("Principal", {})
    return _as_list(principal.get("Service", [])) if isinstance(principal, Mapping) else []


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _statement_applies(statement: Mapping[str, Any], call: Call, resource: str) -> bool:
    actions = _as_list(statement.get("Action", []))
    if "NotAction" in statement:
        covered = not any(_matches_wildcards(call.action.lower(), a.lower()) for a in _as_list(statement["NotAction"]))
    else:
        covered = any(_matches_wildcards(call.action.lower(), action.lower()) for action in actions)
    if not covered:
        return False
    if "NotResource" in statement:
        if _matches_any(resource, statement["NotResource"], call.context):
            return False
    elif not _matches_any(resource, statement.get("Resource", []), call.context):
        return False
    deny = statement["Effect"] == "Deny"
    return all(
        _condition_holds(operator, key, _as_list(values), call.context, unknown=deny)
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def _matches_any(resource: str, patterns: Any, context: Mapping[str, str]) -> bool:
    return any(_matches_wildcards(resource, _substitute_variables(pattern, context)) for pattern in _as_list(patterns))


def _matches_wildcards(value: str, pattern: str) -> bool:
    """Match IAM's wildcards: ``*`` any text, ``?`` one character; nothing else is special."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _condition_holds(
    operator: str, key: str, expected: Sequence[Any], context: Mapping[str, str], *, unknown: bool
) -> bool:
    """Return whether a condition holds; `unknown` for an operator that this module does not know.

    So an unknown operator neither makes an Allow apply nor keeps a Deny from applying.
    """
    operator = operator.removeprefix("ForAnyValue:").removeprefix("ForAllValues:")
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    present = next((value for name, value in context.items() if name.lower() == key.lower()), None)
    if operator == "Null":
        return (present is None) == (str(expected[0]).lower() == "true")
    negated = "Not" in operator
    if present is None:
        return if_exists or negated
    texts = [_substitute_variables(str(value), context) for value in expected]
    if ordered := _ORDERED.fullmatch(operator):
        return any(_compare_values(ordered["kind"], ordered["how"], present, value) for value in texts)
    match operator:
        case "StringEquals" | "ArnEquals":
            return (
                present in texts if operator == "StringEquals" else any(_matches_wildcards(present, t) for t in texts)
            )
        case "StringNotEquals":
            return present not in texts
        case "StringEqualsIgnoreCase" | "StringNotEqualsIgnoreCase":
            return (present.lower() in [value.lower() for value in texts]) != negated
        case "StringLike" | "ArnLike":
            return any(_matches_wildcards(present, pattern) for pattern in texts)
        case "StringNotLike" | "ArnNotLike":
            return not any(_matches_wildcards(present, pattern) for pattern in texts)
        case "Bool":
            return present.lower() in [value.lower() for value in texts]
        case "IpAddress" | "NotIpAddress":
            networks = [ipaddress.ip_network(cidr, strict=False) for cidr in texts]
            return any(ipaddress.ip_address(present) in network for network in networks) == (operator == "IpAddress")
        case _:
            return unknown


_ORDERED = re.compile(r"(?P<kind>Numeric|Date)(?P<how>(Not)?Equals|(LessThan|GreaterThan)(Equals)?)")
_VARIABLE = re.compile(r"\$\{([A-Za-z0-9:/-]+|[*?$])\}")


def _substitute_variables(text: str, context: Mapping[str, str]) -> str:
    """Return a policy's text with its variables replaced; one without a value matches nothing."""
    values = {name.lower(): value for name, value in context.items()}
    return _VARIABLE.sub(lambda match: values.get(match[1].lower(), match[1] if match[1] in "*?$" else "\0"), text)


def _compare_values(kind: str, how: str, present: str, expected: str) -> bool:
    try:
        left, right = (_parse_ordered(kind, text) for text in (present, expected))
    except ValueError:
        return False
    return {
        "Equals": left == right,
        "NotEquals": left != right,
        "LessThan": left < right,
        "LessThanEquals": left <= right,
        "GreaterThan": left > right,
        "GreaterThanEquals": left >= right,
    }[how]


def _parse_ordered(kind: str, text: str) -> float:
    if kind == "Numeric" or text.isdecimal():
        return float(text)
    return datetime.datetime.fromisoformat(text).timestamp()


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of an HTTP request that Signature Version 4 covers."""

    method: str
    path: str
    """As sent, still percent-encoded."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    secure: bool
    source: str


_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<headers>[^,\s]+),\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """A request's signature: the key, the service and the headers that it covers."""

    key: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    value: str
    presigned: bool


def parse_signature(request: SignedRequest) -> Signature | None:
    """Return a request's signature, from its header or (presigned URLs) its query; None if it is anonymous."""
    query = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
    if match := _AUTHORIZATION.match(request.headers.get("authorization", "")):
        credential, headers, value = match.group("credential", "headers", "signature")
        presigned = False
    elif query.get("X-Amz-Algorithm") == "AWS4-HMAC-SHA256":
        credential, headers, value = query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Signature"]
        presigned = True
    else:
        return None
    parts = credential.split("/")
    if len(parts) != 5:
        return None
    key, date, region, service, _ = parts
    return Signature(key, date, region, service, tuple(headers.split(";")), value, presigned)


def verify_signature(request: SignedRequest, signature: Signature, secret: str) -> bool:
    """Return whether a request was signed with this secret key (Signature Version 4)."""
    query = urllib.parse.parse_qsl(request.query, keep_blank_values=True)
    if signature.presigned:
        query = [(name, value) for name, value in query if name != "X-Amz-Signature"]
        stamp = dict(query)["X-Amz-Date"]
        payload = "UNSIGNED-PAYLOAD"
    else:
        stamp = request.headers.get("x-amz-date", "")
        payload = request.headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()
        if re.fullmatch(r"[0-9a-f]{64}", payload) and payload != hashlib.sha256(request.body).hexdigest():
            return False
    quote = urllib.parse.quote
    path = request.path if signature.service == "s3" else quote(request.path, safe="/-_.~")
    canonical = "\n".join(
        [
            request.method,
            path or "/",
            "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query)),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in signature.headers),
            "",
            ";".join(signature.headers),
            payload,
        ]
    )
    scope = f"{signature.date}/{signature.region}/{signature.service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (signature.date, signature.region, signature.service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signature.value)


#: Time by which a signature may differ from AWS's clock, and the longest life of a presigned URL.
_MAX_SKEW, _MAX_EXPIRES = datetime.timedelta(minutes=15), 604_800


def check_signature_age(request: SignedRequest, signature: Signature, now: datetime.datetime) -> None:
    """Raise `ApiError` for a presigned URL that has expired, or a signature that is too old or from the future.

    Source: Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" and
    "Error responses"; IAM User Guide, "Troubleshoot AWS Signature Version 4".
    """
    query = dict(urllib.parse.parse_qsl(request.query)) if signature.presigned else {}
    stamp = query.get("X-Amz-Date") if signature.presigned else request.headers.get("x-amz-date", "")
    try:
        signed = datetime.datetime.strptime(stamp or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise ApiError("IncompleteSignature", "Date must be in ISO-8601 'basic format'") from None
    if signature.presigned:
        expires = query.get("X-Amz-Expires", "")
        if not (expires.isascii() and expires.isdigit() and 0 < int(expires) <= _MAX_EXPIRES):
            raise ApiError("AuthorizationQueryParametersError", f"X-Amz-Expires must be between 1 and {_MAX_EXPIRES}")
        if now > signed + datetime.timedelta(seconds=int(expires)):
            raise ApiError("AccessDenied", "Request has expired")
    elif abs(now - signed) > _MAX_SKEW:
        if signature.service == "s3":
            text = "The difference between the request time and the current time is too large."
            raise ApiError("RequestTimeTooSkewed", text)
        raise ApiError("SignatureDoesNotMatch", f"Signature expired: {stamp} is not within 15 min of now")


def authorize(
    request: SignedRequest,
    find_principal: Callable[[str], Principal | None],
    find_bucket_policy: Callable[[str], Mapping[str, Any] | None],
    list_implied: Callable[[Call], Iterable[Call]] = lambda _: (),
    find_key: Callable[[str, str], KmsKey | None] = lambda _region, _key: None,
    add_state: Callable[[Call], Call] = lambda call: call,
) -> Call:
    """Check a request's signature and its principal's policies, and return the call it makes.

    Args:
        find_principal: returns the principal of an access key.
        find_bucket_policy: returns a bucket's policy.
        list_implied: returns further calls that the principal must be allowed to make, such as iam:PassRole.
        find_key: returns the KMS key of a region by its id, alias or ARN.
        add_state: returns a call with what only the account's state tells: its resources' tags and boundaries.

    Raises:
        ApiError: the key is unknown, the signature or token wrong, or a policy does not allow it.
    """
    signature = parse_signature(request)
    if signature is None:
        raise ApiError("MissingAuthenticationToken", "Request is missing Authentication Token")
    principal = find_principal(signature.key)
    if principal is None:
        raise ApiError("InvalidClientTokenId", "The security token included in the request is invalid.")
    presented = request.headers.get("x-amz-security-token")
    if signature.presigned:
        presented = dict(urllib.parse.parse_qsl(request.query)).get("X-Amz-Security-Token", presented)
    if presented != principal.token:
        raise ApiError("InvalidClientTokenId", "The security token included in the request is invalid.")
    if not verify_signature(request, signature, principal.secret):
        raise ApiError("SignatureDoesNotMatch", "The request signature does not match the secret key.")
    check_signature_age(request, signature, datetime.datetime.now(datetime.UTC))
    call = add_state(parse_call(request, signature))
    if principal.root or call.action == "sts:GetCallerIdentity":
        return call
    identity = {"aws:PrincipalArn": principal.role or principal.arn, "aws:username": principal.arn.rsplit("/", 1)[-1]}
    for judged in (call, *list_tagging_calls(call), *map(add_state, list_implied(call))):
        for resource in judged.resources:
            subject = replace(judged.about(resource), context={**identity, **judged.about(resource).context})
            message = f"User: {principal.arn} is not authorized to perform: {judged.action} on resource: {resource}"
            key = find_key(signature.region, resource) if judged.service == "kms" else None
            if not (is_allowed_by_key(principal, key, subject) if key else is_allowed_to(principal, subject)):
                raise ApiError("AccessDeniedException", message)
    if call.service == "s3" and call.resources[0] != "*":
        policy = find_bucket_policy(call.resources[0].removeprefix("arn:aws:s3:::").split("/")[0])
        if policy and is_denied_by(policy, call):
            refused = f"perform: {call.action} on resource: {call.resources[0]}"
            raise ApiError("AccessDeniedException", f"User: {principal.arn} is not authorized to {refused}")
    return call


#: Parameters of S3's calls that IAM or KMS needs, by the headers that have them.
_S3_PARAMETERS = {
    "Tagging": "x-amz-tagging",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}


def parse_call(request: SignedRequest, signature: Signature) -> Call:
    """Return the call that a request makes, with its resources for the services that `list_resources` knows."""
    now = datetime.datetime.now(datetime.UTC)
    context = {
        "aws:SecureTransport": str(request.secure).lower(),
        "aws:SourceIp": request.source,
        "aws:RequestedRegion": signature.region,
        "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:EpochTime": str(int(now.timestamp())),
    }
    if signature.service == "s3":
        host = request.headers.get("host", "").split(":")[0]
        action, arns = parse_s3(request.method, host, request.path, request.query, request.body)
        query = dict(urllib.parse.parse_qsl(request.query))
        if "prefix" in query:
            context["s3:prefix"] = query["prefix"]
        headers = {name: request.headers[key] for name, key in _S3_PARAMETERS.items() if key in request.headers}
        for name in ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"):
            if name in request.headers:
                context[f"s3:{name}"] = request.headers[name]
        return Call("s3", f"s3:{action}", tuple(arns), context, headers)
    parameters = _parse_parameters(request)
    action = parameters.pop("Action", "")
    if signature.service == "route53":
        action, parameters = match_route(
            "route53",
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
        )
    arns = list_resources(signature.service, action, parameters, signature.region)
    if signature.service == "kms":
        context |= kms_context(parameters.get("EncryptionContext") or {})
        tags = {str(tag["TagKey"]): str(tag["TagValue"]) for tag in parameters.get("Tags") or ()}
        context |= tag_context("aws:RequestTag", tags)
    if action == "PutParameter":
        # Systems Manager User Guide, "Preventing access to Parameter Store API operations".
        context["ssm:Overwrite"] = str(bool(parameters.get("Overwrite"))).lower()
        context["ssm:Policies"] = str(bool(parameters.get("Policies"))).lower()
    if signature.service == "monitoring":
        context["cloudwatch:namespace"] = str(parameters.get("Namespace", ""))
    resource_context = {}
    if signature.service == "ec2":
        prefix = f"arn:aws:ec2:{signature.region}:{ACCOUNT}:"
        requested = ec2_resources.list_requested_tags(action, parameters, prefix)
        resource_context = {arn: tag_context("aws:RequestTag", values) for arn, values in requested.items()}
    if signature.service == "iam" and "PermissionsBoundary" in parameters:
        context["iam:PermissionsBoundary"] = str(parameters["PermissionsBoundary"])
    namespace = {"monitoring": "cloudwatch"}.get(signature.service, signature.service)
    return Call(signature.service, f"{namespace}:{action}", tuple(arns), context, parameters, resource_context)


def tag_context(key: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags as condition keys, such as ``aws:ResourceTag/Stack`` with the `key` ``aws:ResourceTag``."""
    return {f"{key}/{name}": value for name, value in tags.items()}


def list_tagging_calls(call: Call) -> list[Call]:
    """Return the tagging that a call does beside its own action, which must be allowed as well.

    Sources: Amazon EC2 User Guide, "Grant permission to tag Amazon EC2 resources during creation"; Service
    Authorization Reference, the dependent actions of IAM, S3 and Systems Manager.
    """
    action = call.action.partition(":")[2]
    if call.service == "ec2":
        if action in ("CreateTags", "DeleteTags"):
            return []
        arns = tuple(arn for arn in call.resources if _has_request_tags(call, arn))
        context = {**call.context, "ec2:CreateAction": action}
        return [replace(call, action="ec2:CreateTags", resources=arns, context=context)] if arns else []
    tagging = {
        "iam:CreateRole": "iam:TagRole",
        "iam:CreateUser": "iam:TagUser",
        "iam:CreateInstanceProfile": "iam:TagInstanceProfile",
        "kms:CreateKey": "kms:TagResource",
        "ssm:PutParameter": "ssm:AddTagsToResource",
        "s3:PutObject": "s3:PutObjectTagging",
    }.get(call.action)
    has_tags = any(name.startswith("Tag") for name in call.parameters)
    return [replace(call, action=tagging)] if tagging and has_tags else []


def _has_request_tags(call: Call, arn: str) -> bool:
    return any(name.startswith("aws:RequestTag/") for name in call.resource_context.get(arn, {}))


def kms_context(encryption_context: Mapping[str, str], via: str | None = None) -> dict[str, str]:
    """Return KMS's condition keys of a call, made by the principal itself or through a service (`via`)."""
    context = {f"kms:EncryptionContext:{name}": str(value) for name, value in encryption_context.items()}
    return {**context, "kms:CallerAccount": ACCOUNT, **({"kms:ViaService": via} if via else {})}


def _parse_parameters(request: SignedRequest) -> dict[str, Any]:
    """Return the parameters of a query (EC2, IAM, STS) or JSON (SSM, logs) request, `Action` among them."""
    if target := request.headers.get("x-amz-target"):
        body = json.loads(request.body or b"{}")
        return {**body, "Action": target.rsplit(".", 1)[-1]}
    form = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form.update(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True))
    return dict(form)


_ACTIONS_ON_PARAMETERS = (
    "Parameter",
    "Parameters",
    "ParametersByPath",
    "ParameterHistory",
    "TagsToResource",
    "TagsFromResource",
    "TagsForResource",
)


def _list_members(parameters: Mapping[str, Any], name: str) -> list[str]:
    """Return a list parameter of a JSON request, or of a query with ``name.member.1``."""
    if name in parameters:
        return [str(value) for value in _as_list(parameters[name])]
    return [str(value) for key, value in parameters.items() if key.startswith(f"{name}.member.")]


def parameter_arn(name: str, region: str) -> str:
    """Return the ARN of an SSM parameter; AWS's public ones belong to no account."""
    path = name.lstrip("/")
    return f"arn:aws:ssm:{region}:{'' if path.startswith('aws/') else ACCOUNT}:parameter/{path}"


def _log_arn(parameters: Mapping[str, Any], prefix: str) -> str:
    """Return the ARN that a call of CloudWatch Logs is judged on.

    A group that a call names has its stream in the ARN, or an empty one, so that policies name it as `group:*`; a call
    on tags has the group's ARN alone. Source: Amazon CloudWatch Logs User Guide, "Overview of managing access
    permissions to your CloudWatch Logs resources".
    """
    named = parameters.get("logGroupName") or parameters.get("logGroupIdentifier") or parameters.get("resourceArn", "")
    if "resourceArn" in parameters:
        return str(named)
    group = str(named).removeprefix(prefix)
    return f"{prefix}{group}:log-stream:{parameters.get('logStreamName', '')}"


def list_resources(service: str, action: str, parameters: Mapping[str, Any], region: str) -> list[str]:
    """Return the ARNs that a call touches; ``*`` where the action has none or this module does not know them."""
    if service == "ssm":
        path = parameters.get("Path")
        named = [value for key in ("Name", "Names", "ResourceId") for value in _as_list(parameters.get(key) or [])]
        names = [str(path).rstrip("/") or "/"] if path else [str(name).split(":")[0] for name in named]
        if names and action.endswith(_ACTIONS_ON_PARAMETERS):
            return [parameter_arn(name, region) for name in names]
    elif service == "sts" and "RoleArn" in parameters:
        return [str(parameters["RoleArn"])]
    elif service == "iam":
        # AddRoleToInstanceProfile is judged on the profile, and passes the role.
        for kind, key in (("instance-profile", "InstanceProfileName"), ("role", "RoleName"), ("user", "UserName")):
            if key in parameters:
                return [f"arn:aws:iam::{ACCOUNT}:{kind}/{parameters[key]}"]
    elif service == "ec2":
        return ec2_resources.list_arns(action, parameters, f"arn:aws:ec2:{region}:{ACCOUNT}:")
    elif service == "route53":
        kind = "change" if action == "GetChange" else str(parameters.get("ResourceType", "hostedzone"))
        for key in ("HostedZoneId", "ResourceId", "Id"):
            if key in parameters:
                return [f"arn:aws:route53:::{kind}/{parameters[key]}"]
    elif service == "kms" and action in ("CreateAlias", "DeleteAlias", "UpdateAlias"):
        alias = f"arn:aws:kms:{region}:{ACCOUNT}:{parameters.get('AliasName')}"
        target = parameters.get("TargetKeyId")
        return [alias, *(list_resources("kms", "", {"KeyId": target}, region) if target else [])]
    elif service == "kms" and "KeyId" in parameters:
        key = str(parameters["KeyId"])
        if key.startswith("arn:"):
            return [key]
        return [f"arn:aws:kms:{region}:{ACCOUNT}:{key if key.startswith('alias/') else f'key/{key}'}"]
    elif service == "sns":
        topic = parameters.get("TopicArn") or parameters.get("ResourceArn")
        if name := parameters.get("Name"):
            return [f"arn:aws:sns:{region}:{ACCOUNT}:{name}"]
        if topic:
            return [str(topic)]
    elif service == "monitoring":
        prefix = f"arn:aws:cloudwatch:{region}:{ACCOUNT}:alarm:"
        names = [str(parameters["AlarmName"])] if "AlarmName" in parameters else _list_members(parameters, "AlarmNames")
        if arn := parameters.get("ResourceARN"):
            return [str(arn)]
        if names:
            return [f"{prefix}{name}" for name in names]
    elif service == "logs":
        return [_log_arn(parameters, f"arn:aws:logs:{region}:{ACCOUNT}:log-group:")]
    return ["*"]
