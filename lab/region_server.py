"""Run a lab's region: one process with the AWS API (on loopback and in the lab's Internet), the network and machines.

It builds the parts and hands each what it needs; no part knows the one that uses it::

    AwsApi, Control -> Reconciler -> Instances, Services, Fabric
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3

from lab import verbs, wsgi
from lab.alarms import Alarms
from lab.api import moto_patches, moto_state, tls
from lab.api.app import ApiRequestHandler, AwsApi
from lab.api.iam import ACCOUNT
from lab.api.moto_alarms import MotoAlarmStore
from lab.api.moto_inventory import find_memory
from lab.api.validation.validator import Validator
from lab.clock import Clock
from lab.control import Control
from lab.hosts import Hosts
from lab.instances import Instances
from lab.linux import Process, allow_many_machines, listen
from lab.machines import container, image
from lab.machines.factory import MachineFactory
from lab.namespaces import REGION_VARIABLE
from lab.network import dns, fabric
from lab.reconciler import Reconciler
from lab.region import PROCESSES
from lab.services import Services

LOG = logging.getLogger("lab")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings that the process is started with (``settings.json`` in its directory)."""

    name: str
    port: int
    token: str = field(repr=False)
    """Of the control interface; only root can read it."""
    boots: bool = True
    """Whether machines boot; where not, an instance is its network namespace alone, and can send packets from there."""
    owner: dict[str, int] | None = None
    """The process (`Process`) that the lab is taken down after."""


class RegionServer:
    """One lab: its API, its network, its machines."""

    def __init__(self, directory: Path, settings: ServerSettings) -> None:
        self._settings = settings
        self._keys = moto_state.AccessKeys()
        self._moto_lock = threading.RLock()
        self._image = image.ensure(LOG.info)
        self._authority = tls.EndpointAuthority()
        self._fabric = fabric.Fabric(prefix=f"{settings.name}-")
        factory = MachineFactory(settings.name, directory, self._image, self._authority.certificate)
        self._services = Services(
            self._fabric,
            account=ACCOUNT,
            client=self._client,
            private_zones=self._private_zones,
            trusts_ec2=moto_state.is_assumable_by_ec2,
        )
        self._instances = Instances(
            factory,
            self._fabric,
            boots=settings.boots,
            memory=find_memory,
            powered_off=self._note_power_off,
            root_replaced=self._note_replaced_root,
            image_saved=self._note_saved_image,
        )
        self._hosts = Hosts(factory, self._fabric, boots=settings.boots)
        self._reconciler = Reconciler(
            lambda region: self._client("ec2", region), self._fabric, self._services, self._instances
        )
        self._clock = Clock()
        self._alarms = Alarms(
            MotoAlarmStore(self._moto_lock), self._clock, recover=self._instances.recover, reboot=self._instances.reboot
        )
        self._validator = Validator()
        self._api = AwsApi(
            self._keys,
            self._moto_lock,
            self._validator,
            instances=self._instances,
            services=self._services,
            request_reconcile=self._reconciler.request,
        )
        self._control = Control(
            name=settings.name,
            token=settings.token,
            boots=settings.boots,
            fabric=self._fabric,
            hosts=self._hosts,
            instances=self._instances,
            reconciler=self._reconciler,
            alarms=self._alarms,
            change_rules=self._change_rules,
            publish_images=self._publish_images,
            withdraw_image=self._withdraw_image,
        )
        moto_patches.apply()
        moto_patches.apply(
            moto_patches.defer_termination(self._instances.is_running),
            moto_patches.serve_console_output(self._instances.read_console),
            moto_patches.stamp_metrics(self._clock.now),
        )

    def open(self) -> None:
        """Bring up the Internet, its services and the API."""
        allow_many_machines()
        self._fabric.open_internet()
        internet = self._fabric.internet
        wsgi.serve(self._application, listen(None, "127.0.0.1", self._settings.port), handler=ApiRequestHandler)
        context = self._authority.create_server_context()
        for address in (fabric.API, fabric.S3):
            wsgi.serve(self._application, listen(internet, address, 443), context, ApiRequestHandler)
        wsgi.serve(wsgi.serve_files(self._image.mirror, "/debian/"), listen(internet, fabric.MIRROR, 80))
        dns.serve_names(listen(internet, fabric.RESOLVER, 53, socket.SOCK_DGRAM))
        self._reconciler.start()
        self._alarms.start()

    def close(self) -> None:
        """Stop every machine and remove every namespace."""
        self._alarms.stop()
        self._reconciler.stop()
        self._instances.close()
        self._hosts.close()
        self._fabric.delete_all()

    def create_administrator(self) -> dict[str, str]:
        """Create the operator's user and return its access key, as environment variables."""
        iam = self._client("iam", "us-east-1")
        iam.create_user(UserName="operator")
        iam.put_user_policy(
            UserName="operator", PolicyName="administrator", PolicyDocument=json.dumps(moto_state.ADMINISTRATOR_POLICY)
        )
        key = iam.create_access_key(UserName="operator")["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def _application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Pass a request to the control interface or to the AWS API."""
        if environ["PATH_INFO"].startswith(verbs.PATH):
            return self._control(environ, start_response)
        return self._api(environ, start_response)

    def _client(self, service: str, region: str) -> Any:
        """Return a boto3 client with the region's own key, which no policy binds."""
        return boto3.client(  # type: ignore[call-overload]  # the service is a name here
            service,
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self._settings.port}",
            aws_access_key_id=self._keys.lab_key,
            aws_secret_access_key=self._keys.lab_secret,
        )

    def _change_rules(self, changes: Mapping[str, Any]) -> None:
        self._validator.rules = replace(self._validator.rules, **changes)

    def _publish_images(self, region: str, release: str) -> dict[str, str]:
        with self._moto_lock:
            return moto_state.publish_newer_images(region, release)

    def _note_saved_image(self, region: str, image_id: str, saved: bool) -> None:
        with self._moto_lock:
            moto_state.finish_image(region, image_id, saved=saved)

    def _withdraw_image(self, region: str, image_id: str) -> bool:
        with self._moto_lock:
            return moto_state.withdraw_image(region, image_id)

    def _private_zones(self, region: str, vpc: str) -> Sequence[dns.PrivateZone]:
        with self._moto_lock:
            return moto_state.list_private_zones(region, vpc)

    def _note_power_off(self, region: str, instance: str) -> None:
        with self._moto_lock:
            moto_state.mark_powered_off(region, instance)
        self._reconciler.request(region)

    def _note_replaced_root(self, region: str, instance: str) -> None:
        with self._moto_lock:
            moto_state.complete_root_volume_tasks(region, instance)


def main(directory: Path) -> None:
    """Run a region until SIGTERM; write ``region.json`` once it answers."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings = ServerSettings(**json.loads((directory / "settings.json").read_text()))
    processes = (Process.of(os.getpid()), container.start_pid_namespace())
    _write_json(directory / PROCESSES, [asdict(process) for process in processes if process])
    server = RegionServer(directory, settings)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    owner = Process(**settings.owner) if settings.owner else None
    try:
        server.open()
        ready = {"pid": os.getpid(), "settings": asdict(settings), "credentials": server.create_administrator()}
        _write_json(directory / "region.json", ready)
        # The owner is looked up now and then: a signal that the kernel hands to another thread does not wake this one.
        while not stopped.wait(0.5):
            if owner and not owner.runs:
                _take_down(settings.name)
                owner = None
    finally:
        server.close()
        # An owner that was killed while it took this region down has left the directory.
        if owner and not owner.runs:
            _take_down(settings.name)


def _take_down(name: str) -> None:
    """Have this region taken down by a process outside of it."""
    environment = {key: value for key, value in os.environ.items() if key != REGION_VARIABLE}
    command = [sys.executable, "-m", "lab.region", name]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)


def _write_json(path: Path, content: Any) -> None:
    """Write a JSON file that nobody else can read, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
        json.dump(content, out)
    new.rename(path)
