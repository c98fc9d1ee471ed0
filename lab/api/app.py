"""Answer AWS API calls: check the signature and the policies, let moto answer, then do what EC2 does beside it."""

import io
import logging
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.wrappers import Response

from lab import wsgi
from lab.api import moto_state
from lab.api.error_response import render_error
from lab.api.errors import ApiError
from lab.api.iam import Call, Signature, SignedRequest, authorize, parse_signature
from lab.api.request import parse_request
from lab.api.validation.packets import check_packet_parameters
from lab.api.validation.validator import Validator, check_s3
from lab.instances import Instances
from lab.services import Services

LOG = logging.getLogger("lab")
#: Host that answers with the caller's address (as AWS's service of this name does), and wants no signature.
CHECK_IP = "checkip.amazonaws.com"
#: First words of actions that change nothing.
_READ_ONLY = ("Describe", "Get", "List", "Head", "Lookup", "BatchGet", "Query", "Scan", "Search", "Simulate")
_DEFAULT_REGION = "us-east-1"


class ApiRequestHandler(wsgi.QuietHandler, MotoRequestHandler):
    """Keeps the underscores in names of S3 metadata, as moto's own handler does."""


class AwsApi:
    """WSGI application of the AWS API.

    Args:
        keys: who an access key belongs to.
        moto_lock: held while moto's objects are read or changed.
        validator: refuses the calls that AWS refuses and moto takes.
        request_reconcile: called with an AWS region after each call that may have changed something in it.
    """

    def __init__(
        self,
        keys: moto_state.AccessKeys,
        moto_lock: threading.RLock,
        validator: Validator,
        *,
        instances: Instances,
        services: Services,
        request_reconcile: Callable[[str], None],
    ) -> None:
        self._keys = keys
        self._moto_lock = moto_lock
        self._validator = validator
        self._instances = instances
        self._services = services
        self._request_reconcile = request_reconcile
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._regions: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one call."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        request = _signed_request(environ, body)
        if request.headers.get("host") == CHECK_IP:
            return Response(f"{request.source}\n", mimetype="text/plain")(environ, start_response)
        signature = parse_signature(request)
        region = signature.region if signature else _DEFAULT_REGION
        service = signature.service if signature else ""
        speaks_json = "x-amz-target" in request.headers
        with self._moto_lock:
            self._set_up_region(region)
            try:
                call = self._judge(request, signature)
            except ApiError as refusal:
                LOG.info("refused: %s", refusal)
                return render_error(refusal, service, speaks_json=speaks_json)(environ, start_response)
            try:
                answer = list(self._moto(environ, start_response))
            except Exception:
                LOG.error("%s failed: %s", call.action if call else "a call", traceback.format_exc())
                failure = ApiError("InternalError", "An internal error has occurred; the lab's log has it")
                response = render_error(failure, service, speaks_json=speaks_json, status=500)
                return response(environ, start_response)
            changed = call is not None and self._may_change(request, call, signature)
            if call and changed:
                self._do_what_ec2_does(call, region)
        if changed:
            self._request_reconcile(region)
        return answer

    def _set_up_region(self, region: str) -> None:
        if region not in self._regions:
            moto_state.publish_images(region)
            self._regions.add(region)

    def _judge(self, request: SignedRequest, signature: Signature | None) -> Call | None:
        """Return the call that a request makes; raise `ApiError` where AWS refuses it."""
        call = authorize(
            request,
            self._keys.find_principal,
            moto_state.find_bucket_policy,
            moto_state.list_implied_calls,
            moto_state.find_key,
            moto_state.add_state,
        )
        if signature is None or signature.key == self._keys.lab_key:
            return call
        if call.service == "ec2":
            check_packet_parameters(_name_action(call), call.parameters, moto_state.reference_finder(signature.region))
        if parsed := parse_request(request, signature):
            self._validator.check(parsed)
        elif call.service == "s3":
            check_s3(call, request)
        return call

    def _may_change(self, request: SignedRequest, call: Call, signature: Signature | None) -> bool:
        """Return whether Linux may have to follow a call: any that writes, whatever service it is for.

        The lab's own calls change nothing for Linux; they are made while it reconciles.
        """
        if signature is not None and signature.key == self._keys.lab_key:
            return False
        if action := _name_action(call):
            return not action.startswith(_READ_ONLY)
        return request.method not in ("GET", "HEAD")

    def _do_what_ec2_does(self, call: Call, region: str) -> None:
        """Do what EC2 does on a call beside what moto notes; moto's lock is held."""
        # Other services terminate instances too.
        moto_state.detach_terminated_interfaces(region)
        instances = [arn.rsplit("/", 1)[-1] for arn in call.resources if ":instance/" in arn]
        match call.service, _name_action(call):
            case "ec2", "StopInstances":
                for instance in filter(self._instances.is_running, instances):
                    moto_state.mark_stopping(region, instance)
            case "ec2", "RebootInstances":
                for instance in instances:
                    self._instances.reboot(instance)
            case "ec2", "CreateImage":
                for image, instance in moto_state.start_images(region):
                    self._instances.save_image(region, instance, image)
            case "ec2", "CreateReplaceRootVolumeTask":
                for instance in instances:
                    self._instances.replace_root(region, instance)
            case (
                "ec2",
                "ModifyInstanceAttribute"
                | "AssociateIamInstanceProfile"
                | "DisassociateIamInstanceProfile"
                | "ReplaceIamInstanceProfileAssociation",
            ) | ("iam", "AddRoleToInstanceProfile" | "RemoveRoleFromInstanceProfile"):
                self._services.forget_launch_data()


def _name_action(call: Call) -> str:
    """Return a call's action without its service: ``CreateRoute``."""
    return call.action.partition(":")[2]


def _signed_request(environ: dict[str, Any], body: bytes) -> SignedRequest:
    raw = str(environ.get("RAW_URI") or environ["PATH_INFO"])
    headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = environ[key]
    source = environ.get("REMOTE_ADDR", "")
    return SignedRequest(
        method=environ["REQUEST_METHOD"],
        path=raw.partition("?")[0],
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        body=body,
        secure=environ.get("wsgi.url_scheme") == "https" or source == "127.0.0.1",
        source=source,
    )
