"""Answer a region's control interface: what the lab's commands and tests ask for beside the AWS API."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from werkzeug.wrappers import Request, Response

from lab.alarms import Alarms
from lab.errors import LabError
from lab.hosts import Hosts
from lab.instances import Instances
from lab.machines.factory import Kernel
from lab.machines.uml import OwnKernelMachine
from lab.network.fabric import Fabric, interfaces_of
from lab.network.sites import Site
from lab.network.state import Instance, State
from lab.reconciler import Reconciler
from lab.verbs import PATH, TOKEN_HEADER, Verb

Arguments = Mapping[str, Any]


class Control:
    """WSGI application of the control interface; only root can read its token.

    Args:
        name: of the lab.
        boots: whether its machines boot.
        change_rules: changes the refusals that the API makes; raises TypeError for a name it does not know.
        publish_images: publishes newer images by AWS region and Debian's release; returns their IDs by architecture.
        withdraw_image: deregisters an image by AWS region and ID; returns whether it existed.
    """

    def __init__(
        self,
        *,
        name: str,
        token: str,
        boots: bool,
        fabric: Fabric,
        hosts: Hosts,
        instances: Instances,
        reconciler: Reconciler,
        alarms: Alarms,
        change_rules: Callable[[Mapping[str, Any]], None],
        publish_images: Callable[[str, str], dict[str, str]],
        withdraw_image: Callable[[str, str], bool],
    ) -> None:
        self._name = name
        self._token = token
        self._boots = boots
        self._fabric = fabric
        self._hosts = hosts
        self._instances = instances
        self._reconciler = reconciler
        self._alarms = alarms
        self._change_rules = change_rules
        self._publish_images_of = publish_images
        self._withdraw = withdraw_image
        self._lock = threading.RLock()
        self._handlers: dict[Verb, Callable[[Arguments], dict[str, Any]]] = {
            Verb.STATUS: lambda _: self.status(),
            Verb.WAIT_RECONCILED: self._wait_reconciled,
            Verb.ADD_SITE: self._add_site,
            Verb.REMOVE_SITE: self._remove_site,
            Verb.MOVE_SITE: self._move_site,
            Verb.ADD_ROUTE: self._add_route,
            Verb.FORWARD_PORT: self._forward_port,
            Verb.ADD_HOST: self._add_host,
            Verb.REMOVE_HOST: self._remove_host,
            Verb.REBOOT_HOST: self._reboot_host,
            Verb.CUT_POWER: self._cut_power,
            Verb.POWER_ON: self._power_on,
            Verb.USE_KERNEL: self._use_kernel,
            Verb.SET_RULES: self._set_rules,
            Verb.PUBLISH_IMAGES: self._publish_images,
            Verb.WITHDRAW_IMAGE: self._withdraw_image,
            Verb.SET_CLOCK_FORWARD: self._set_clock_forward,
            Verb.FAIL_CHECK: self._fail_check,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request: a verb in the path, its arguments as a JSON object."""
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.headers.get(TOKEN_HEADER) != self._token:
            return Response("", 403)
        name = request.path.removeprefix(PATH)
        try:
            if name not in [*Verb]:
                raise LabError(f"the control interface has no verb {name}")
            with self._lock:
                answer = self._handlers[Verb(name)](request.get_json(silent=True) or {})
        except (LabError, ValueError, KeyError) as error:
            return Response(json.dumps({"error": str(error)}), 400, mimetype="application/json")
        return Response(json.dumps(answer), mimetype="application/json")

    # --- verbs --------------------------------------------------------------------------------------------------------

    def _set_rules(self, arguments: Arguments) -> dict[str, Any]:
        try:
            self._change_rules(arguments)
        except TypeError as unknown:
            raise LabError(f"no such rule: {unknown}") from unknown
        return {}

    def _publish_images(self, arguments: Arguments) -> dict[str, Any]:
        return {"images": self._publish_images_of(arguments["region"], arguments["release"])}

    def _withdraw_image(self, arguments: Arguments) -> dict[str, Any]:
        if not self._withdraw(arguments["region"], arguments["image"]):
            raise LabError(f"Debian has no image {arguments['image']} in {arguments['region']}")
        return {}

    def _set_clock_forward(self, arguments: Arguments) -> dict[str, Any]:
        self._alarms.set_forward(timedelta(seconds=float(arguments["seconds"])))
        return {}

    def _fail_check(self, arguments: Arguments) -> dict[str, Any]:
        self._alarms.fail_check(arguments["instance"], arguments["check"])
        return {}

    def _wait_reconciled(self, arguments: Arguments) -> dict[str, Any]:
        return {"reconciled": self._reconciler.wait(float(arguments["timeout"]))}

    def _add_site(self, arguments: Arguments) -> dict[str, Any]:
        site = Site(
            name=arguments["name"],
            public=IPv4Address(arguments["public"]),
            lan=IPv4Network(arguments["lan"]),
            mtu=int(arguments.get("mtu") or 1500),
            rate=arguments.get("rate"),
        )
        self._hosts.add_site(site)
        return {}

    def _remove_site(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.remove_site(arguments["name"])
        return {}

    def _move_site(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.site(arguments["name"]).move(self._fabric, IPv4Address(arguments["public"]))
        return {}

    def _add_route(self, arguments: Arguments) -> dict[str, Any]:
        network, gateway = IPv4Network(arguments["network"]), IPv4Address(arguments["via"])
        self._hosts.site(arguments["site"]).add_route(self._fabric, network, gateway)
        return {}

    def _forward_port(self, arguments: Arguments) -> dict[str, Any]:
        site = self._hosts.site(arguments["site"])
        site.forward_port(self._fabric, int(arguments["port"]), arguments["host"])
        return {}

    def _add_host(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.add_host(
            arguments["name"],
            site=arguments.get("site"),
            second_site=arguments.get("second_site"),
            address=IPv4Address(arguments["address"]) if arguments.get("address") else None,
            address6=IPv6Address(arguments["address6"]) if arguments.get("address6") else None,
            own_kernel=bool(arguments.get("own_kernel")),
            files=arguments.get("files", {}),
        )
        return {}

    def _remove_host(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.remove_host(arguments["name"])
        return {}

    def _reboot_host(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.host(arguments["name"]).machine.reboot()
        return {}

    def _cut_power(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.host(arguments["name"]).machine.stop(orderly=False)
        return {}

    def _power_on(self, arguments: Arguments) -> dict[str, Any]:
        self._hosts.host(arguments["name"]).machine.start()
        return {}

    def _use_kernel(self, arguments: Arguments) -> dict[str, Any]:
        self._instances.kernel = Kernel(arguments["kernel"])
        return {}

    # --- status -------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return all that runs, for people and for `lab.region.Region`."""
        return {
            "name": self._name,
            "boots": self._boots,
            "instances": [
                self._describe_instance(state, instance)
                for state in list(self._reconciler.states.values())
                for instance in state.instances.values()
            ],
            "hosts": [
                {
                    "name": name,
                    "site": host.site,
                    "address": host.address,
                    "leader": host.machine.leader,
                    "namespace": host.machine.namespace,
                    "own_kernel": isinstance(host.machine, OwnKernelMachine),
                }
                for name, host in self._hosts.hosts.items()
            ],
            "sites": [
                {
                    "name": site.name,
                    "public": str(site.public),
                    "lan": str(site.lan),
                    "router": site.router(self._fabric),
                }
                for site in self._hosts.sites.values()
            ],
            "internet": self._fabric.internet,
            "routers": {vpc: self._fabric.router(vpc) for vpc in self._fabric.routers()},
        }

    def _describe_instance(self, state: State, instance: Instance) -> dict[str, Any]:
        interfaces = list(interfaces_of(state, instance.id))
        machine = self._instances.machine(instance.id)
        return {
            "id": instance.id,
            "name": dict(instance.tags).get("Name", instance.id),
            "state": instance.state,
            "type": instance.type,
            "address": str(interfaces[0].primary) if interfaces else None,
            "public": str(interfaces[0].public[0][1]) if interfaces and interfaces[0].public else None,
            "vpc": interfaces[0].vpc if interfaces else None,
            "leader": machine.leader if machine else None,
            "namespace": self._fabric.machine(instance.id) if instance.on else None,
            "own_kernel": isinstance(machine, OwnKernelMachine),
        }
