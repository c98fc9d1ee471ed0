"""IAM as AWS enforces it on every call: who signed, and whether their policies allow this action on this resource.

moto keeps users, roles and policies but looks neither at `Resource` nor at `Condition` of a statement; a gateway's
role must not read another's secrets, so both are judged here, in front of moto. What a request touches is known for
the services in `resources`; elsewhere the resource is ``*``, which a statement that names ARNs does not allow: a
missing case refuses, it never lets through.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

ACCOUNT = "123456789012"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who signs with an access key."""

    arn: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    policies: tuple[Mapping[str, Any], ...] = ()
    root: bool = False
    """Whether no policy is asked (the lab's own reading of its state)."""


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


class Denied(Exception):
    """The request is refused; `code` is the error AWS answers with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# --- policies ---------------------------------------------------------------------------------------------------------


def allowed(policies: Iterable[Mapping[str, Any]], call: Call) -> bool:
    """Whether identity policies allow a call on each of its resources: an explicit Deny wins, no Allow is a denial."""
    statements = [statement for policy in policies for statement in _listed(policy.get("Statement", []))]
    for resource in call.resources:
        matching = [s for s in statements if _covers(s, call, resource)]
        if any(s["Effect"] == "Deny" for s in matching) or not any(s["Effect"] == "Allow" for s in matching):
            return False
    return True


def denied_by(policy: Mapping[str, Any], call: Call) -> bool:
    """Whether a resource's own policy (a bucket's) denies a call."""
    return any(
        s["Effect"] == "Deny" and any(_covers(s, call, resource) for resource in call.resources)
        for s in _listed(policy.get("Statement", []))
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _covers(statement: Mapping[str, Any], call: Call, resource: str) -> bool:
    actions = _listed(statement.get("Action", []))
    if "NotAction" in statement:
        covered = not any(_like(call.action.lower(), a.lower()) for a in _listed(statement["NotAction"]))
    else:
        covered = any(_like(call.action.lower(), action.lower()) for action in actions)
    if not covered:
        return False
    if "NotResource" in statement:
        if any(_like(resource, _filled_in(pattern, call.context)) for pattern in _listed(statement["NotResource"])):
            return False
    elif not any(_like(resource, _filled_in(p, call.context)) for p in _listed(statement.get("Resource", []))):
        return False
    deny = statement["Effect"] == "Deny"
    return all(
        _condition(operator, key, _listed(values), call.context, unknown=deny)
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def _like(value: str, pattern: str) -> bool:
    """IAM's wildcards: ``*`` any text, ``?`` one character; nothing else is special."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _condition(operator: str, key: str, wanted: Sequence[Any], context: Mapping[str, str], *, unknown: bool) -> bool:
    """One condition. An operator not known here counts as `unknown`: it never makes an Allow apply nor a Deny not."""
    operator = operator.removeprefix("ForAnyValue:").removeprefix("ForAllValues:")
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    present = next((value for name, value in context.items() if name.lower() == key.lower()), None)
    if operator == "Null":
        return (present is None) == (str(wanted[0]).lower() == "true")
    negated = "Not" in operator
    if present is None:
        return if_exists or negated
    text = [_filled_in(str(value), context) for value in wanted]
    if ordered := _ORDERED.fullmatch(operator):
        return any(_compares(ordered["kind"], ordered["how"], present, value) for value in text)
    match operator:
        case "StringEquals" | "ArnEquals":
            return present in text if operator == "StringEquals" else any(_like(present, t) for t in text)
        case "StringNotEquals":
            return present not in text
        case "StringEqualsIgnoreCase" | "StringNotEqualsIgnoreCase":
            return (present.lower() in [value.lower() for value in text]) != negated
        case "StringLike" | "ArnLike":
            return any(_like(present, pattern) for pattern in text)
        case "StringNotLike" | "ArnNotLike":
            return not any(_like(present, pattern) for pattern in text)
        case "Bool":
            return present.lower() in [value.lower() for value in text]
        case "IpAddress" | "NotIpAddress":
            inside = any(ipaddress.ip_address(present) in ipaddress.ip_network(cidr, strict=False) for cidr in text)
            return inside == (operator == "IpAddress")
        case _:
            return unknown


_ORDERED = re.compile(r"(?P<kind>Numeric|Date)(?P<how>(Not)?Equals|(LessThan|GreaterThan)(Equals)?)")
_VARIABLE = re.compile(r"\$\{([A-Za-z0-9:/-]+|[*?$])\}")


def _filled_in(text: str, context: Mapping[str, str]) -> str:
    """A policy's text with its variables' values; one without a value matches nothing ("Policy variables")."""
    known = {name.lower(): value for name, value in context.items()}
    return _VARIABLE.sub(lambda found: known.get(found[1].lower(), found[1] if found[1] in "*?$" else "\0"), text)


def _compares(kind: str, how: str, present: str, wanted: str) -> bool:
    try:
        one, other = (_number(kind, text) for text in (present, wanted))
    except ValueError:
        return False
    return {
        "Equals": one == other,
        "NotEquals": one != other,
        "LessThan": one < other,
        "LessThanEquals": one <= other,
        "GreaterThan": one > other,
        "GreaterThanEquals": one >= other,
    }[how]


def _number(kind: str, text: str) -> float:
    if kind == "Numeric" or text.isdecimal():
        return float(text)
    return datetime.datetime.fromisoformat(text).timestamp()


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """An HTTP request with the parts of it that Signature Version 4 covers."""

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
    """Who signed what part of a request, for which service."""

    key: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    value: str
    presigned: bool


def signature_of(request: SignedRequest) -> Signature | None:
    """A request's signature, from its header or (presigned URLs) its query; None where it is anonymous."""
    query = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
    if found := _AUTHORIZATION.match(request.headers.get("authorization", "")):
        credential, headers, value = found.group("credential", "headers", "signature")
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


def verify(request: SignedRequest, signature: Signature, secret: str) -> bool:
    """Whether a request was signed with this secret key (Signature Version 4)."""
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


def authorize(
    request: SignedRequest,
    principal_of: Callable[[str], Principal | None],
    bucket_policy: Callable[[str], Mapping[str, Any] | None],
    implied: Callable[[Call], Iterable[Call]] = lambda _: (),
) -> Call | None:
    """Judge one request; the call it makes, or None for an anonymous request AWS would answer (presigned posts, STS
    web identity).

    Args:
        principal_of: who an access key belongs to.
        bucket_policy: a bucket's policy, parsed.
        implied: what else the principal must be allowed for a call, such as handing a role on.

    Raises:
        Denied: the key is unknown, the signature or token wrong, or a policy does not allow it.
    """
    signature = signature_of(request)
    if signature is None:
        raise Denied("MissingAuthenticationToken", "Request is missing Authentication Token")
    principal = principal_of(signature.key)
    if principal is None:
        raise Denied("InvalidClientTokenId", "The security token included in the request is invalid.")
    presented = request.headers.get("x-amz-security-token")
    if signature.presigned:
        presented = dict(urllib.parse.parse_qsl(request.query)).get("X-Amz-Security-Token", presented)
    if presented != principal.token:
        raise Denied("InvalidClientTokenId", "The security token included in the request is invalid.")
    if not verify(request, signature, principal.secret):
        raise Denied("SignatureDoesNotMatch", "The request signature does not match the secret key.")
    call = call_of(request, signature)
    if principal.root or call.action == "sts:GetCallerIdentity":
        return call
    who = {"aws:PrincipalArn": principal.arn, "aws:username": principal.arn.rsplit("/", 1)[-1]}
    for judged in (call, *implied(call)):
        message = (
            f"User: {principal.arn} is not authorized to perform: {judged.action} on resource: {judged.resources[0]}"
        )
        if not allowed(principal.policies, replace(judged, context={**who, **judged.context})):
            raise Denied("AccessDeniedException", message)
    if call.service == "s3" and call.resources[0] != "*":
        policy = bucket_policy(call.resources[0].removeprefix("arn:aws:s3:::").split("/")[0])
        if policy and denied_by(policy, call):
            raise Denied("AccessDeniedException", message)
    return call


def call_of(request: SignedRequest, signature: Signature) -> Call:
    """The action and resources of a request, for the services whose resources are told apart."""
    now = datetime.datetime.now(datetime.UTC)
    context = {
        "aws:SecureTransport": str(request.secure).lower(),
        "aws:SourceIp": request.source,
        "aws:RequestedRegion": signature.region,
        "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:EpochTime": str(int(now.timestamp())),
    }
    if signature.service == "s3":
        action, found = _s3(request)
        query = dict(urllib.parse.parse_qsl(request.query))
        if "prefix" in query:
            context["s3:prefix"] = query["prefix"]
        return Call("s3", f"s3:{action}", tuple(found), context)
    parameters = _parameters(request)
    action = parameters.pop("Action", "")
    found = resources(signature.service, action, parameters, signature.region)
    if signature.service == "monitoring":
        context["cloudwatch:namespace"] = str(parameters.get("Namespace", ""))
    prefix = {"monitoring": "cloudwatch"}.get(signature.service, signature.service)
    return Call(signature.service, f"{prefix}:{action}", tuple(found), context, parameters)


def _parameters(request: SignedRequest) -> dict[str, Any]:
    """Parameters of a query-protocol (EC2, IAM, STS) or JSON-protocol (SSM, logs) request, `Action` among them."""
    if target := request.headers.get("x-amz-target"):
        body = json.loads(request.body or b"{}")
        return {**body, "Action": target.rsplit(".", 1)[-1]}
    form = dict(urllib.parse.parse_qsl(request.query, keep_blank_values=True))
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form.update(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True))
    return dict(form)


def resources(service: str, action: str, parameters: Mapping[str, Any], region: str) -> list[str]:
    """ARNs a call touches; ``*`` where the service has none for the action, or it is not told apart here."""
    if service == "ssm":
        path = parameters.get("Path")
        named = [*_listed(parameters.get("Name") or []), *_listed(parameters.get("Names") or [])]
        names = [str(path).rstrip("/") or "/"] if path else [str(name).split(":")[0] for name in named]
        if names and action.endswith(("Parameter", "Parameters", "ParametersByPath", "ParameterHistory")):
            return [f"arn:aws:ssm:{region}:{ACCOUNT}:parameter/{name.lstrip('/')}" for name in names]
    elif service == "sts" and "RoleArn" in parameters:
        return [str(parameters["RoleArn"])]
    elif service == "iam":
        for kind, key in (("role", "RoleName"), ("user", "UserName"), ("instance-profile", "InstanceProfileName")):
            if key in parameters:
                return [f"arn:aws:iam::{ACCOUNT}:{kind}/{parameters[key]}"]
    elif service == "ec2" and not action.startswith("Describe"):
        kinds = (
            ("GroupId", "security-group"),
            ("InstanceId", "instance"),
            ("NetworkInterfaceId", "network-interface"),
            ("RouteTableId", "route-table"),
            ("AllocationId", "elastic-ip"),
        )
        found = [
            f"arn:aws:ec2:{region}:{ACCOUNT}:{kind}/{value}"
            for key, kind in kinds
            for name, value in parameters.items()
            if re.fullmatch(rf"{key}(\.\d+)?", name)
        ]
        if action == "ModifySecurityGroupRules":
            changed = [v for name, v in parameters.items() if name.endswith(".SecurityGroupRuleId")]
            found += [f"arn:aws:ec2:{region}:{ACCOUNT}:security-group-rule/{rule}" for rule in changed]
        if found:
            return found
    elif service == "logs" and "logGroupName" in parameters:
        return [f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{parameters['logGroupName']}"]
    return ["*"]


_S3_SUBRESOURCES = {
    "policy": "BucketPolicy",
    "acl": "BucketAcl",
    "versioning": "BucketVersioning",
    "encryption": "EncryptionConfiguration",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "ownershipControls": "BucketOwnershipControls",
    "lifecycle": "LifecycleConfiguration",
    "tagging": "BucketTagging",
    "location": "BucketLocation",
}


def _s3(request: SignedRequest) -> tuple[str, list[str]]:
    """Action and resource of an S3 request, by path or by virtual host."""
    host = request.headers.get("host", "").split(":")[0]
    path = urllib.parse.unquote(request.path).lstrip("/")
    hosted = re.fullmatch(r"(.+?)\.s3[.-].*", host)
    bucket, _, key = (hosted.group(1), "", path) if hosted else path.partition("/")
    if not bucket:
        return "ListAllMyBuckets", ["*"]
    verb = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Delete", "POST": "Put"}.get(request.method, "Other")
    if key:
        return f"{verb}Object", [f"arn:aws:s3:::{bucket}/{key}"]
    arn = f"arn:aws:s3:::{bucket}"
    names = [name for name, _ in urllib.parse.parse_qsl(request.query, keep_blank_values=True)]
    if "delete" in names:
        return "DeleteObject", [f"{arn}/*"]
    for name in names:
        if name in _S3_SUBRESOURCES:
            return f"{verb}{_S3_SUBRESOURCES[name]}", [arn]
    return {"Get": "ListBucket", "Put": "CreateBucket", "Delete": "DeleteBucket"}.get(verb, verb), [arn]
