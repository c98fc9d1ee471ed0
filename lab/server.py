"""The region's process: the AWS API on loopback and in the lab's Internet, and the machines and packets that follow it.

moto's WSGI application answers; `lab.api.iam` judges each call before it; after each call that may have changed EC2 the
reconciler reads the state through the API and makes Linux match. Started by `lab.region`, as ``python -m lab.server
DIRECTORY``.
"""

import base64
import contextlib
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from lab.api import moto_patches, moto_state, tls
from lab.api.errors import ApiError
from lab.api.iam import ACCOUNT, Call, SignedRequest, authorize, parse_signature
from lab.api.validation.packets import check_packet_parameters
from lab.errors import LabError
from lab.linux import Process, allow_many_machines, delete_namespace, listen
from lab.machines import container, image
from lab.machines.container import Machine
from lab.machines.uml import OwnKernel
from lab.network import dns, fabric, metadata, plan
from lab.network import state as network_state
from lab.network.sites import InternetHost, Premises
from lab.region import MARK, PROCESSES

LOG = logging.getLogger("lab")
#: Tells whoever asks the address they come from (as AWS's service of this name does), and wants no signature.
CHECK_IP = "checkip.amazonaws.com"
_READ_ONLY = ("Describe", "Get", "List", "Head", "Lookup")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the process is started with (``settings.json`` in its directory)."""

    name: str
    port: int
    token: str = field(repr=False)
    """Of the control interface; only root can read it."""
    boots: bool = True
    """Whether machines boot; where not, an instance is its network namespace alone, and can send packets from there."""
    owner: dict[str, int] | None = None
    """The process (`Process`) that the lab is taken down after."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A host outside of AWS."""

    machine: Machine
    premises: str | None
    """None for one that is on the Internet itself."""
    address: str


class Region:
    """One lab: its API, its network, its machines."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory
        self.settings = settings
        self.keys = moto_state.AccessKeys()
        self.image = image.ensure(LOG.info)
        self.fabric = fabric.Fabric(prefix=f"{settings.name}-")
        self.authority = tls.EndpointAuthority()
        self.machines: dict[str, Machine] = {}
        self.premises: dict[str, Premises] = {}
        self.hosts: dict[str, Placed] = {}
        self.states: dict[str, network_state.State] = {}
        self._home: dict[str, str] = {}  # instance -> AWS region
        self._guests: dict[tuple[str, str], metadata.Guest] = {}  # (vpc, private address) -> instance
        self._issued: dict[tuple[str, str], tuple[float, dict[str, str]]] = {}
        self._services: dict[str, list[Any]] = {}  # vpc -> what serves in its router
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._moto_lock = threading.RLock()
        self._seen: set[str] = set()
        self._changed = threading.Condition()
        self._asked = 0  # changes asked for, and of these
        self._done = 0  # the number that Linux follows
        self._control = threading.RLock()
        self._stopping = False
        self._workers = ThreadPoolExecutor(8, thread_name_prefix="machines")
        self._lives: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._launches: dict[str, tuple[bytes | None, str | None, str | None]] = {}
        self._kernel: type[Machine] = Machine  # what instances become that are launched from now on
        self._kernels: dict[str, type[Machine]] = {}
        moto_patches.apply()
        moto_patches.apply(moto_patches.defer_termination(self._runs))

    # --- the API ------------------------------------------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI: the control interface, or one AWS API call."""
        if environ["PATH_INFO"].startswith("/_lab/"):
            return self._control_call(Request(environ))(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        request = _signed_request(environ, body)
        if request.headers.get("host") == CHECK_IP:
            return Response(f"{request.source}\n", mimetype="text/plain")(environ, start_response)
        with self._moto_lock:
            signature = parse_signature(request)
            region = signature.region if signature else "us-east-1"
            if region not in self._seen:
                moto_state.publish_images(region)
                self._seen.add(region)
            try:
                call = authorize(
                    request, self.keys.find_principal, moto_state.find_bucket_policy, moto_state.list_passed_roles
                )
                if call.service == "ec2":
                    exists = moto_state.reference_finder(region)
                    check_packet_parameters(call.action.partition(":")[2], call.parameters, exists)
            except ApiError as denied:
                LOG.info("denied: %s", denied)
                return _refusal(denied, signature.service if signature else "")(environ, start_response)
            try:
                parts = list(self._moto(environ, start_response))
            except Exception:
                LOG.error("%s failed: %s", call.action if call else "a call", traceback.format_exc())
                failure = ApiError("InternalError", "An internal error has occurred; the lab's log has it")
                return _refusal(failure, signature.service if signature else "", 500)(environ, start_response)
            if call and call.service == "ec2":
                self._after(call, region)
        if call and _changes_packets(call):
            self.touch()
        return parts

    def _after(self, call: Call, region: str) -> None:
        """What EC2 does on a call besides what moto notes; moto's lock is held."""
        named = [arn.rsplit("/", 1)[-1] for arn in call.resources if ":instance/" in arn]
        on = [instance for instance in named if self._runs(instance)]
        match call.action.partition(":")[2]:
            case "TerminateInstances":
                moto_state.detach_terminated_interfaces(region)
            case "StopInstances":
                for instance in on:
                    moto_state.mark_stopping(region, instance)
            case "RebootInstances":
                for instance in on:
                    self.machines[instance].reboot()
            case "CreateReplaceRootVolumeTask":
                for instance in named:
                    self._workers.submit(self._replace_root, region, instance)
            case "ModifyInstanceAttribute" | "AssociateIamInstanceProfile" | "DisassociateIamInstanceProfile" \
                | "ReplaceIamInstanceProfileAssociation":  # fmt: skip
                self._launches.clear()

    def _runs(self, instance: str) -> bool:
        machine = self.machines.get(instance)
        return machine is not None and machine.running

    def touch(self) -> None:
        """Have Linux follow the API's state soon."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def settle(self, timeout: float) -> bool:
        """Wait until Linux follows everything asked for so far; whether it did within `timeout` seconds."""
        with self._changed:
            wanted = self._asked
            return self._changed.wait_for(lambda: self._done >= wanted, timeout)

    def client(self, service: str, region: str) -> Any:
        """A boto3 client of the region's own, whom no policy binds."""
        return boto3.client(  # type: ignore[call-overload]  # the service is a name here
            service,
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.settings.port}",
            aws_access_key_id=self.keys.lab_key,
            aws_secret_access_key=self.keys.lab_secret,
        )

    # --- Linux follows ------------------------------------------------------------------------------------------------

    def reconcile_for_ever(self) -> None:
        """Follow the API's state until the region stops."""
        clients: dict[str, Any] = {}
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._done or self._stopping)
                if self._stopping:
                    return
                wanted = self._asked
            for region in list(self._seen):
                self._follow_once_more(region, clients)
            with self._changed:
                self._done = wanted
                self._changed.notify_all()

    def _follow_once_more(self, region: str, clients: dict[str, Any]) -> None:
        """Read one AWS region and make Linux match; once more if a call changed things while they were read."""
        for left in (1, 0):
            try:
                clients.setdefault(region, self.client("ec2", region))
                self.states[region] = network_state.read(clients[region])
                self._follow(region, self.states[region])
                return
            except Exception:
                # One wrong thing in the account must not stop the others' packets; the log has it.
                if not left:
                    LOG.error("cannot follow %s: %s", region, traceback.format_exc())

    def _follow(self, region: str, state: network_state.State) -> None:
        on = {i.vpc for i in state.interfaces.values() if i.instance and state.instances[i.instance].on}
        for name in [n for n in self.fabric.routers() if n in state.vpcs and n not in on]:
            self._close_vpc(name)
        failed: list[str] = []
        for name in sorted(on):
            try:
                self.fabric.apply(state, plan.plan(state, name))
                self._serve(region, state.vpcs[name])
            except Exception:
                failed.append(traceback.format_exc())
        self._guests = {
            key: guest for key, guest in self._guests.items() if self._home.get(guest.instance_id) != region
        } | {
            (interface.vpc, str(address)): self._guest(region, state, instance)
            for instance in state.instances.values()
            if instance.on
            for interface in fabric.interfaces_of(state, instance.id)
            for address in (*interface.addresses, *(interface.addresses6 if instance.metadata_ipv6 else ()))
        }
        for instance in state.instances.values():
            if instance.on:
                self._home[instance.id] = region
                self._kernels.setdefault(instance.id, self._kernel)
        for name in [name for name, home in self._home.items() if home == region]:
            self._workers.submit(self._bring, region, name)
        if failed:
            raise LabError("; ".join(failed))

    def _bring(self, region: str, name: str) -> None:
        """Bring an instance's machine to the state that the API says. Idempotent; one at a time for each instance."""
        try:
            with self._lives[name]:
                instance = self.states[region].instances.get(name)
                machine = self.machines.get(name)
                if self._stopping:
                    return
                if instance is None or not (instance.on or instance.state == "stopped"):
                    self._remove(name)
                elif instance.goes_down:
                    if machine:
                        machine.stop()
                    with self._moto_lock:
                        moto_state.mark_powered_off(region, name)
                    self.touch()
                elif instance.boots and self.settings.boots and not (machine and machine.running):
                    self._power_on(self.states[region], instance)
        except Exception:
            LOG.error("cannot bring %s to its state: %s", name, traceback.format_exc())

    def _remove(self, name: str) -> None:
        if machine := self.machines.pop(name, None):
            machine.remove()
        self.fabric.close_machine(name)
        self._home.pop(name, None)
        self._launches.pop(name, None)
        self._kernels.pop(name, None)

    def _replace_root(self, region: str, name: str) -> None:
        """Boot an instance from a root volume as it was at launch."""
        with self._lives[name]:
            machine = self.machines.get(name)
            if machine is not None:
                machine.stop(orderly=False)
                machine.forget()
                self._power_on(self.states[region], self.states[region].instances[name])
        with self._moto_lock:
            moto_state.complete_root_volume_tasks(region, name)

    def _power_on(self, state: network_state.State, instance: network_state.Instance) -> None:
        interfaces = list(fabric.interfaces_of(state, instance.id))
        if not interfaces:
            return
        machine = self.machines.get(instance.id) or self._kernels[instance.id](
            name=f"{self.settings.name}-{instance.id[-12:]}",
            directory=self.directory / "machines" / instance.id,
            namespace=self.fabric.open_machine(instance.id),
            layers=self.image.instance_layers,
        )
        first_cidr = next(c for c in state.vpcs[interfaces[0].vpc].cidrs if isinstance(c, IPv4Network))
        machine.prepare(self._files(machine, str(first_cidr[2])))
        self.machines[instance.id] = machine
        machine.start(lambda: self._went_down(instance.id))

    def _files(self, machine: Machine, resolver: str) -> dict[str, str]:
        """What the lab writes on every machine: its resolver, and the authority that signs the lab's AWS endpoints."""
        bundle = machine.layers[-1] / "etc/ssl/certs/ca-certificates.crt"
        return {
            "/etc/resolv.conf": f"nameserver {resolver}\n",
            "/usr/local/share/ca-certificates/lab.crt": self.authority.certificate,
            "/etc/ssl/certs/ca-certificates.crt": bundle.read_text() + self.authority.certificate,
        }

    def _went_down(self, instance: str) -> None:
        """A machine that powers itself off is a stopped instance."""
        if not self._stopping:
            with self._moto_lock:
                moto_state.mark_powered_off(self._home[instance], instance)
            self.touch()

    def _close_vpc(self, name: str) -> None:
        for service in self._services.pop(name, []):
            # A server's loop looks up every few seconds; nobody waits for that.
            threading.Thread(target=_end, args=(service,), daemon=True).start()
        self.fabric.close(name)

    def _serve(self, region: str, found: network_state.Vpc) -> None:
        """Metadata and names in a VPC's router."""
        name = found.id
        if name in self._services:
            return
        # One socket an address: an answer from a wildcard socket would come from whatever address the route prefers.
        resolver_addresses = [str(cidr[2]) for cidr in found.cidrs if isinstance(cidr, IPv4Network)]
        router = self.fabric.router(name)
        service = metadata.MetadataService(lambda address: self._guests.get((name, address)), self._credentials)
        resolvers = [
            listen(router, address, 53, socket.SOCK_DGRAM) for address in (*resolver_addresses, str(plan.RESOLVER))
        ]

        def zones() -> list[dns.Zone]:
            with self._moto_lock:
                return moto_state.list_private_zones(region, name)

        def inside(address: str) -> bool:
            known = self.states[region].vpcs.get(name)
            return known is not None and any(IPv4Address(address) in cidr for cidr in known.cidrs)

        for bound in resolvers:
            dns.serve(bound, zones, inside)
        servers = [serve(service, listen(router, address, 80)) for address in (str(plan.METADATA), plan.METADATA6)]
        self._services[name] = [*resolvers, *servers]

    def _guest(self, region: str, state: network_state.State, instance: network_state.Instance) -> metadata.Guest:
        interface = next(iter(fabric.interfaces_of(state, instance.id)))
        if instance.id not in self._launches:
            self._launches[instance.id] = self._user_data(region, instance)
        user_data, public_key, role = self._launches[instance.id]
        return metadata.Guest(
            instance_id=instance.id,
            ami_id=instance.image,
            instance_type=instance.type,
            zone=instance.zone,
            local_ipv4=str(interface.primary),
            public_ipv4=str(interface.public[0][1]) if interface.public else None,
            mac=interface.mac,
            hostname=f"ip-{str(interface.primary).replace('.', '-')}.{region}.compute.internal",
            subnet_id=interface.subnet,
            vpc_id=interface.vpc,
            interface_id=interface.id,
            security_groups=interface.groups,
            account=ACCOUNT,
            tokens_required=instance.tokens_required,
            hop_limit=instance.hop_limit,
            enabled=instance.metadata_enabled,
            user_data=user_data,
            public_key=public_key,
            profile_arn=instance.profile,
            role=role,
            tags=dict(instance.tags) if instance.tags_in_metadata else {},
        )

    def _user_data(self, region: str, instance: network_state.Instance) -> tuple[bytes | None, str | None, str | None]:
        """User data, SSH key and role of an instance, which EC2's descriptions only name."""
        ec2 = self.client("ec2", region)
        found = ec2.describe_instance_attribute(InstanceId=instance.id, Attribute="userData")
        encoded = found.get("UserData", {}).get("Value")
        key = role = None
        if instance.key_name:
            pairs = ec2.describe_key_pairs(KeyNames=[instance.key_name], IncludePublicKey=True)["KeyPairs"]
            key = pairs[0].get("PublicKey")
        if instance.profile:
            name = instance.profile.rsplit("/", 1)[-1]
            profile = self.client("iam", region).get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
            role = next((r["RoleName"] for r in profile["Roles"]), None)
        return base64.b64decode(encoded) if encoded else None, key, role

    def _credentials(self, instance: str, role: str) -> dict[str, str]:
        """Credentials of a role for an instance, renewed an hour before they end."""
        ends, held = self._issued.get((instance, role), (0.0, {}))
        if ends - time.time() > 3600:
            return held
        if not moto_state.is_assumable_by_ec2(role):
            raise metadata.NoCredentials(f"EC2 cannot assume the role {role}: its trust policy does not name EC2")
        sts = self.client("sts", self._home[instance])
        issued = sts.assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName=instance, DurationSeconds=21600
        )["Credentials"]
        fresh = {
            "AccessKeyId": issued["AccessKeyId"],
            "SecretAccessKey": issued["SecretAccessKey"],
            "Token": issued["SessionToken"],
            "Expiration": issued["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._issued[instance, role] = (issued["Expiration"].timestamp(), fresh)
        return fresh

    # --- the control interface ----------------------------------------------------------------------------------------

    def _control_call(self, request: Request) -> Response:
        if request.headers.get("X-Lab-Token") != self.settings.token:
            return Response("", 403)
        try:
            with self._control:
                answer = self._control_answer(request.path.removeprefix("/_lab/"), request.get_json(silent=True) or {})
        except (LabError, ValueError, KeyError) as error:
            return Response(json.dumps({"error": str(error)}), 400, mimetype="application/json")
        return Response(json.dumps(answer), mimetype="application/json")

    def _control_answer(self, verb: str, asked: Mapping[str, Any]) -> Any:
        match verb:
            case "status":
                return self.status()
            case "settle":
                return {"settled": self.settle(float(asked["timeout"]))}
            case "premises":
                return self._add_premises(asked)
            case "move":
                self.premises[asked["name"]].move(self.fabric, IPv4Address(asked["public"]))
                return self.status()
            case "route":
                self.premises[asked["name"]].route(
                    self.fabric, IPv4Network(asked["network"]), IPv4Address(asked["via"])
                )
                return {}
            case "host":
                return self._add_host(asked)
            case "remove-host":
                self._remove_host(asked["name"])
                return {}
            case "forward":
                self.premises[asked["name"]].forward(self.fabric, int(asked["port"]), asked["host"])
                return {}
            case "own-kernels":
                self._kernel = OwnKernel if asked["wanted"] else Machine
                return {}
            case "cut-power":
                self.hosts[asked["name"]].machine.stop(orderly=False)
                return {}
            case "power-on":
                self.hosts[asked["name"]].machine.start()
                return {}
            case "reboot-host":
                self.hosts[asked["name"]].machine.reboot()
                return {}
            case "stop":
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGTERM)).start()
                return {}
        raise LabError(f"the lab has no verb {verb}")

    def _add_premises(self, asked: Mapping[str, Any]) -> Any:
        known = self.premises.get(asked["name"])
        if known is None:
            place = Premises(
                name=asked["name"],
                public=IPv4Address(asked["public"]),
                lan=IPv4Network(asked["lan"]),
                mtu=int(asked.get("mtu") or 1500),
                rate=asked.get("rate"),
            )
            place.open(self.fabric)
            self.premises[place.name] = place
        return {}

    def _add_host(self, asked: Mapping[str, Any]) -> Any:
        name = asked["name"]
        if name not in self.hosts:
            address = IPv4Address(asked["address"]) if asked.get("address") else None
            if asked.get("premises"):
                place = self.premises[asked["premises"]]
                namespace, at = place.add_host(self.fabric, name, address), place.hosts[name].ip
                if asked.get("second"):
                    self.premises[asked["second"]].add_host(self.fabric, name, line=1)
            elif address:
                server = InternetHost(name, address, IPv6Address(asked["address6"]) if asked.get("address6") else None)
                namespace, at = server.open(self.fabric), address
            else:
                raise LabError(f"{name} needs premises to be at, or a public address of its own")
            kind = OwnKernel if asked.get("own_kernel") else Machine
            self.hosts[name] = Placed(
                machine=kind(
                    name=f"{self.settings.name}-{name}",
                    directory=self.directory / "hosts" / name,
                    namespace=namespace,
                    layers=self.image.host_layers,
                ),
                premises=asked.get("premises"),
                address=str(at),
            )
            if self.settings.boots:
                machine = self.hosts[name].machine
                files = {**self._files(machine, fabric.RESOLVER), **asked.get("files", {})}
                machine.prepare(files, hostname=name.replace("_", "-"))
                machine.start()
        return {"leader": self.hosts[name].machine.leader, "address": self.hosts[name].address}

    def _remove_host(self, name: str) -> None:
        host = self.hosts.pop(name, None)
        if host is not None:
            host.machine.remove()
            for place in self.premises.values():
                place.hosts.pop(name, None)
            delete_namespace(f"{self.fabric.prefix}{name}")

    def status(self) -> dict[str, Any]:
        """Everything that runs, for people and for `lab.region.Region`."""
        instances = []
        for state in self.states.values():
            for instance in state.instances.values():
                interfaces = list(fabric.interfaces_of(state, instance.id))
                machine = self.machines.get(instance.id)
                instances.append(
                    {
                        "id": instance.id,
                        "name": dict(instance.tags).get("Name", instance.id),
                        "state": instance.state,
                        "type": instance.type,
                        "address": str(interfaces[0].primary) if interfaces else None,
                        "public": str(interfaces[0].public[0][1]) if interfaces and interfaces[0].public else None,
                        "vpc": interfaces[0].vpc if interfaces else None,
                        "leader": machine.leader if machine else None,
                        "namespace": self.fabric.machine(instance.id) if instance.on else None,
                        "own_kernel": isinstance(machine, OwnKernel),
                    }
                )
        hosts = [
            {
                "name": name,
                "premises": host.premises,
                "address": host.address,
                "leader": host.machine.leader,
                "namespace": host.machine.namespace,
                "own_kernel": isinstance(host.machine, OwnKernel),
            }
            for name, host in self.hosts.items()
        ]
        places = [
            {"name": p.name, "public": str(p.public), "lan": str(p.lan), "router": p.router(self.fabric)}
            for p in self.premises.values()
        ]
        return {
            "name": self.settings.name,
            "boots": self.settings.boots,
            "instances": instances,
            "hosts": hosts,
            "premises": places,
            "internet": self.fabric.internet,
            "routers": {name: self.fabric.router(name) for name in self.fabric.routers()},
        }

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bring up the Internet, its services and the API."""
        allow_many_machines()
        self.fabric.open_internet()
        internet = self.fabric.internet
        serve(self, listen(None, "127.0.0.1", self.settings.port))
        context = self.authority.create_server_context()
        for address in (fabric.API, fabric.S3):
            serve(self, listen(internet, address, 443), context)
        serve(files(self.image.mirror, "/debian/"), listen(internet, fabric.MIRROR, 80))
        dns.serve(listen(internet, fabric.RESOLVER, 53, socket.SOCK_DGRAM))
        threading.Thread(target=self.reconcile_for_ever, daemon=True, name="reconcile").start()

    def close(self) -> None:
        """Stop every machine and remove every namespace."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._workers.shutdown(wait=True, cancel_futures=True)
        machines = [*self.machines.values(), *(host.machine for host in self.hosts.values())]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda machine: machine.remove(), machines))
        self.fabric.delete_all()

    def administrator(self) -> dict[str, str]:
        """Make the operator's user and return its key."""
        iam = self.client("iam", "us-east-1")
        iam.create_user(UserName="operator")
        iam.put_user_policy(
            UserName="operator", PolicyName="administrator", PolicyDocument=json.dumps(moto_state.ADMINISTRATOR_POLICY)
        )
        key = iam.create_access_key(UserName="operator")["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


class _QuietHandler(MotoRequestHandler):
    """Speaks HTTP/1.1, logs nothing: requests can hold what must not be in a log."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def serve(application: Any, bound: socket.socket, context: Any = None) -> BaseWSGIServer:
    """Serve a WSGI application on a bound socket in threads of its own."""
    server = make_server(
        bound.getsockname()[0],
        bound.getsockname()[1],
        application,
        threaded=True,
        request_handler=_QuietHandler,
        ssl_context=context,
        fd=os.dup(bound.fileno()),
    )
    server.daemon_threads = True  # type: ignore[attr-defined]
    bound.close()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5}, daemon=True).start()
    return server


def _end(service: socket.socket | BaseWSGIServer) -> None:
    """Stop what serves on a socket, and close it."""
    if isinstance(service, socket.socket):
        with contextlib.suppress(OSError):
            service.shutdown(socket.SHUT_RDWR)  # wakes who waits in recvfrom; close alone does not
        service.close()
    else:
        service.shutdown()
        service.server_close()


def files(directory: Path, prefix: str) -> Any:
    """WSGI application that serves the files of one directory under a path."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        name = environ["PATH_INFO"].removeprefix(prefix).removeprefix("./")
        found = directory / name
        if "/" in name or not found.is_file():
            return Response("", 404)(environ, start_response)
        return Response(found.read_bytes(), mimetype="application/octet-stream")(environ, start_response)

    return application


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


def _changes_packets(call: Call) -> bool:
    return call.service == "ec2" and not call.action.partition(":")[2].startswith(_READ_ONLY)


def _refusal(denied: ApiError, service: str, status: int = 403) -> Response:
    """A refusal in the protocol of the service asked."""
    code, message = denied.code, escape(str(denied))
    if service == "s3":
        code = {"AccessDeniedException": "AccessDenied", "InvalidClientTokenId": "InvalidAccessKeyId"}.get(code, code)
        return Response(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", status, mimetype="text/xml")
    if service == "ec2":
        authentication = ("InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken")
        code = (
            "AuthFailure"
            if code in authentication
            else {"AccessDeniedException": "UnauthorizedOperation"}.get(code, code)
        )
        text = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
        return Response(text, status, mimetype="text/xml")
    if service in ("iam", "sts", "monitoring"):
        code = {"AccessDeniedException": "AccessDenied"}.get(code, code)
        text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        return Response(text, status, mimetype="text/xml")
    text = json.dumps({"__type": code, "message": str(denied)})
    return Response(text, 500 if status == 500 else 400, mimetype="application/x-amz-json-1.1")


def main(directory: Path) -> None:
    """Run a region until SIGTERM; write ``region.json`` once it answers."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings = Settings(**json.loads((directory / "settings.json").read_text()))
    _note(
        directory / PROCESSES, [asdict(process) for process in (Process.of(os.getpid()), container.gather()) if process]
    )
    region = Region(directory, settings)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        region.open()
        ready = {"pid": os.getpid(), "settings": asdict(settings), "credentials": region.administrator()}
        _note(directory / "region.json", ready)
        # Looked up now and then: a signal that the kernel hands to another thread does not wake this one.
        owner = Process(**settings.owner) if settings.owner else None
        while not stopped.wait(0.5):
            if owner and not owner.runs:
                _take_down(settings.name)
                owner = None
    finally:
        region.close()


def _take_down(name: str) -> None:
    """Have this region taken down, by a process that is no part of it."""
    without = {key: value for key, value in os.environ.items() if key != MARK}
    command = [sys.executable, "-m", "lab.region", name]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=without)


def _note(path: Path, what: Any) -> None:
    """Write a JSON file that nobody else can read, whole or not at all."""
    written = path.with_name(f"{path.name}.new")
    written.unlink(missing_ok=True)
    with os.fdopen(os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
        json.dump(what, out)
    written.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
