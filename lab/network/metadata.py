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
    """What the service says of one instance."""

    instance_id: str
    ami_id: str
    instance_type: str
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
        guest = self._find(request.remote_addr or "")
        if guest is None or not guest.enabled:
            return Response("", 403)
        if request.path == "/latest/api/token":
            return self._token(request, guest)
        presented = request.headers.get(TOKEN_HEADER)
        if presented is None and guest.tokens_required:
            return Response("", 401)
        if presented is not None and not self._valid(presented, guest):
            return Response("", 401)
        if request.method not in ("GET", "HEAD"):
            return Response("", 405)
        found = content(guest, request.path, self._credentials)
        return Response("", 404) if found is None else Response(found, mimetype="text/plain")

    def _token(self, request: Request, guest: InstanceMetadata) -> Response:
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
        limit_hops(request.environ.get("werkzeug.socket"), guest.hop_limit)
        now = self._clock()
        self._tokens = {token: held for token, held in self._tokens.items() if held[1] > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (guest.instance_id, now + seconds)
        return Response(token, headers={TTL_HEADER: str(seconds)}, mimetype="text/plain")

    def _valid(self, token: str, guest: InstanceMetadata) -> bool:
        owner, end = self._tokens.get(token, ("", 0.0))
        return owner == guest.instance_id and end > self._clock()


def limit_hops(connection: socket.socket | None, hops: int) -> None:
    """Send what follows on a connection with an IP TTL of `hops`; IPv6 likewise."""
    if connection is not None:
        if connection.family == socket.AF_INET6:
            connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        else:
            connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def content(guest: InstanceMetadata, path: str, credentials: Credentials) -> str | bytes | None:
    """What the service answers for a path: a value, a directory's listing, or None for what is not there."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "latest"
    if len(parts) == 1:
        return "dynamic\nmeta-data\nuser-data" if guest.user_data is not None else "dynamic\nmeta-data"
    _, kind, *rest = parts  # the first is a version: `latest` or a date
    if kind == "user-data" and not rest:
        return guest.user_data
    if kind == "dynamic":
        return _walk({"instance-identity": {"document": _identity_document(guest)}}, rest, path)
    if kind != "meta-data":
        return None
    if guest.role and rest[:3] == ["iam", "security-credentials", guest.role]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            issued = credentials(guest.instance_id, guest.role)
        except NoCredentials as refused:
            answer = {"Code": "AssumeRoleUnauthorizedAccess", "Message": str(refused), "LastUpdated": stamp}
            return json.dumps(answer, indent=2)
        return json.dumps({"Code": "Success", "LastUpdated": stamp, "Type": "AWS-HMAC", **issued}, indent=2)
    return _walk(_tree(guest), rest, path)


def _tree(guest: InstanceMetadata) -> dict[str, Any]:
    interface: dict[str, Any] = {
        "device-number": "0",
        "interface-id": guest.interface_id,
        "local-hostname": guest.hostname,
        "local-ipv4s": guest.local_ipv4,
        "mac": guest.mac,
        "owner-id": guest.account,
        "security-groups": "\n".join(guest.security_groups),
        "subnet-id": guest.subnet_id,
        "vpc-id": guest.vpc_id,
    }
    tree: dict[str, Any] = {
        "ami-id": guest.ami_id,
        "ami-launch-index": "0",
        "hostname": guest.hostname,
        "instance-id": guest.instance_id,
        "instance-life-cycle": "on-demand",
        "instance-type": guest.instance_type,
        "local-hostname": guest.hostname,
        "local-ipv4": guest.local_ipv4,
        "mac": guest.mac,
        "network": {"interfaces": {"macs": {guest.mac: interface}}},
        "placement": {"availability-zone": guest.zone, "region": guest.zone[:-1]},
        "reservation-id": f"r-{guest.instance_id[2:]}",
        "security-groups": "\n".join(guest.security_groups),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if guest.public_ipv4:
        tree["public-ipv4"] = interface["public-ipv4s"] = guest.public_ipv4
    if guest.public_key:
        tree["public-keys"] = {"0": {"openssh-key": guest.public_key}}
    if guest.profile_arn:
        info = {"Code": "Success", "InstanceProfileArn": guest.profile_arn, "InstanceProfileId": "AIPALAB"}
        tree["iam"] = {"info": json.dumps(info), "security-credentials": {guest.role: ""} if guest.role else {}}
    if guest.tags:
        tree["tags"] = {"instance": dict(guest.tags)}
    return tree


def _walk(tree: Mapping[str, Any], parts: list[str], path: str) -> str | None:
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


def _identity_document(guest: InstanceMetadata) -> str:
    return json.dumps(
        {
            "accountId": guest.account,
            "architecture": "x86_64",
            "availabilityZone": guest.zone,
            "imageId": guest.ami_id,
            "instanceId": guest.instance_id,
            "instanceType": guest.instance_type,
            "privateIp": guest.local_ipv4,
            "region": guest.zone[:-1],
            "version": "2017-09-30",
        },
        indent=2,
    )
