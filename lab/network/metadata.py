"""The instance metadata service, version 2, of one VPC.

It knows an instance by the private address a request comes from, gives out nothing without a session token, and sends
a token with the instance's hop limit as IP TTL, so that what forwards packets (a container bridge, a tunnel) does not
get one.

Source: Amazon EC2 User Guide, "Use the Instance Metadata Service to access instance metadata", "Instance metadata
categories".
"""

import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

TOKEN_HEADER = "X-aws-ec2-metadata-token"
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
_MAX_TTL = 21600


@dataclass(frozen=True, slots=True)
class InstanceMetadata:
    """Metadata of one instance."""

    instance_id: str
    ami_id: str
    instance_type: str
    architecture: str
    """``x86_64`` or ``arm64``."""
    zone: str
    local_ipv4: str
    public_ipv4: str | None
    mac: str
    hostname: str
    subnet_id: str
    vpc_id: str
    interface_id: str
    security_groups: tuple[str, ...]
    account: str
    tokens_required: bool
    hop_limit: int
    enabled: bool
    user_data: bytes | None
    public_key: str | None
    profile_arn: str | None
    role: str | None
    tags: Mapping[str, str] = field(default_factory=dict)


#: Role credentials as the service gives them: AccessKeyId, SecretAccessKey, Token, Expiration (ISO 8601).
Credentials = Callable[[str, str], dict[str, str]]


class NoCredentials(Exception):
    """The role gives an instance none; the text says why, as the service itself does."""


class MetadataService:
    """WSGI application for the requests of one VPC.

    Args:
        find: the instance a private address belongs to, or None.
        credentials: fresh credentials for (instance id, role name).
        clock: seconds, for tokens' lifetimes.
    """

    def __init__(
        self,
        find: Callable[[str], InstanceMetadata | None],
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._credentials = credentials
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}  # token -> (instance id, when it ends)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        response = self._answer(Request(environ))
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        instance = self._find(request.remote_addr or "")
        if instance is None or not instance.enabled:
            return Response("", 403)
        if request.path == "/latest/api/token":
            return self._token(request, instance)
        presented = request.headers.get(TOKEN_HEADER)
        if presented is None and instance.tokens_required:
            return Response("", 401)
        if presented is not None and not self._valid(presented, instance):
            return Response("", 401)
        if request.method not in ("GET", "HEAD"):
            return Response("", 405)
        value = content(instance, request.path, self._credentials)
        return Response("", 404) if value is None else Response(value, mimetype="text/plain")

    def _token(self, request: Request, instance: InstanceMetadata) -> Response:
        if request.method != "PUT":
            return Response("", 405)
        if "X-Forwarded-For" in request.headers:
            return Response("", 403)  # a proxy that passes requests on must not get a token
        try:
            seconds = int(request.headers[TTL_HEADER])
        except (KeyError, ValueError):
            return Response("", 400)
        if not 1 <= seconds <= _MAX_TTL:
            return Response("", 400)
        limit_hops(request.environ.get("werkzeug.socket"), instance.hop_limit)
        now = self._clock()
        self._tokens = {token: session for token, session in self._tokens.items() if session[1] > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (instance.instance_id, now + seconds)
        return Response(token, headers={TTL_HEADER: str(seconds)}, mimetype="text/plain")

    def _valid(self, token: str, instance: InstanceMetadata) -> bool:
        owner, end = self._tokens.get(token, ("", 0.0))
        return owner == instance.instance_id and end > self._clock()


def limit_hops(connection: socket.socket | None, hops: int) -> None:
    """Send what follows on a connection with an IP TTL of `hops`; IPv6 likewise."""
    if connection is not None:
        if connection.family == socket.AF_INET6:
            connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        else:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def content(instance: InstanceMetadata, path: str, credentials: Credentials) -> str | bytes | None:
    """Return the answer for a path: a value, a directory's listing, or None where the path does not exist."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "latest"
    if len(parts) == 1:
        return "dynamic\nmeta-data\nuser-data" if instance.user_data is not None else "dynamic\nmeta-data"
    _, kind, *rest = parts  # the first is a version: `latest` or a date
    if kind == "user-data" and not rest:
        return instance.user_data
    if kind == "dynamic":
        return _walk_tree({"instance-identity": {"document": _identity_document(instance)}}, rest, path)
    if kind != "meta-data":
        return None
    if instance.role and rest[:3] == ["iam", "security-credentials", instance.role]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            issued = credentials(instance.instance_id, instance.role)
        except NoCredentials as refused:
            answer = {"Code": "AssumeRoleUnauthorizedAccess", "Message": str(refused), "LastUpdated": stamp}
            return json.dumps(answer, indent=2)
        return json.dumps({"Code": "Success", "LastUpdated": stamp, "Type": "AWS-HMAC", **issued}, indent=2)
    return _walk_tree(_build_tree(instance), rest, path)


def _build_tree(instance: InstanceMetadata) -> dict[str, Any]:
    interface: dict[str, Any] = {
        "device-number": "0",
        "interface-id": instance.interface_id,
        "local-hostname": instance.hostname,
        "local-ipv4s": instance.local_ipv4,
        "mac": instance.mac,
        "owner-id": instance.account,
        "security-groups": "\n".join(instance.security_groups),
        "subnet-id": instance.subnet_id,
        "vpc-id": instance.vpc_id,
    }
    tree: dict[str, Any] = {
        "ami-id": instance.ami_id,
        "ami-launch-index": "0",
        "hostname": instance.hostname,
        "instance-id": instance.instance_id,
        "instance-life-cycle": "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": instance.hostname,
        "local-ipv4": instance.local_ipv4,
        "mac": instance.mac,
        "network": {"interfaces": {"macs": {instance.mac: interface}}},
        "placement": {"availability-zone": instance.zone, "region": instance.zone[:-1]},
        "reservation-id": f"r-{instance.instance_id[2:]}",
        "security-groups": "\n".join(instance.security_groups),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if instance.public_ipv4:
        tree["public-ipv4"] = interface["public-ipv4s"] = instance.public_ipv4
    if instance.public_key:
        tree["public-keys"] = {"0": {"openssh-key": instance.public_key}}
    if instance.profile_arn:
        info = {"Code": "Success", "InstanceProfileArn": instance.profile_arn, "InstanceProfileId": "AIPALAB"}
        tree["iam"] = {"info": json.dumps(info), "security-credentials": {instance.role: ""} if instance.role else {}}
    if instance.tags:
        tree["tags"] = {"instance": dict(instance.tags)}
    return tree


def _walk_tree(tree: Mapping[str, Any], parts: list[str], path: str) -> str | None:
    node: Any = tree
    for part in parts:
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    if not isinstance(node, Mapping):
        return str(node)
    if parts[-1:] == ["public-keys"]:
        return "\n".join(f"{index}=key" for index in node)
    return "\n".join(f"{name}/" if isinstance(value, Mapping) else name for name, value in node.items())


def _identity_document(instance: InstanceMetadata) -> str:
    return json.dumps(
        {
            "accountId": instance.account,
            "architecture": instance.architecture,
            "availabilityZone": instance.zone,
            "imageId": instance.ami_id,
            "instanceId": instance.instance_id,
            "instanceType": instance.instance_type,
            "privateIp": instance.local_ipv4,
            "region": instance.zone[:-1],
            "version": "2017-09-30",
        },
        indent=2,
    )
