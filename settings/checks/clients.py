"""Check clients: their names, what must be unique among them, and the networks behind them."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from settings.checks.overlaps import list_ranges
from settings.draft import Draft
from settings.problems import NAMESPACE, Problem, problem_at, show


def check_routing(draft: Draft) -> Iterator[Problem]:
    """Check that a client with a LAN can route for it."""
    for i, client in draft.clients.items():
        if client.lan and client.system != "linux" and not client.bridge:
            reason = "cannot route for a LAN: the kit is for Debian"
            yield problem_at(f"clients[{i}].system", client.system, reason, "use linux, or leave lan out")


def check_csr(draft: Draft) -> Iterator[Problem]:
    """Check that no client with a kit, which installs a whole bundle, has its key elsewhere."""
    if draft.client_tunnel is None:
        return
    for i, client in draft.clients.items():
        if client.csr is not None and client.needs_kit(draft.client_tunnel):
            reason = "cannot be used with a kit, which needs the key in the bundle"
            yield problem_at(f"clients[{i}].csr", client.csr, reason, "leave it out")


def check_unique(draft: Draft) -> Iterator[Problem]:
    """Check that no two clients have the same name or address."""
    remedies = {
        "name": "names must be unique",
        "address": "addresses must be unique",
        "mac": "hardware addresses must be unique",
    }
    first = dict[tuple[str, object], int]()
    for i, client in draft.clients.items():
        for key in (*remedies, "at"):
            value = getattr(client, key)
            if value is None or (j := first.setdefault((key, value), i)) == i:
                continue
            remedy = remedies.get(key) or _way_in_beside(value, draft)
            yield problem_at(f"clients[{i}].{key}", value, f"is already used by clients[{j}]", remedy)


def _way_in_beside(address: IPv4Address, draft: Draft) -> str:
    """Return how a client reaches the tunnel from an address that the rule of another one has, until that moves."""
    if draft.gateway is None or any(address in network for network in draft.gateway.allow_from):
        return f"leave it out here: {NAMESPACE}:gateway.allowFrom lets it in"
    return f"leave it out here, and add {address}/32 to {NAMESPACE}:gateway.allowFrom"


def check_reachable(draft: Draft) -> Iterator[Problem]:
    """Check that what the VPC may reach lies in the client's own networks."""
    ranges = list_ranges(draft.network, draft.pair, draft.effective_tunnel, {})
    for i, client in draft.clients.items():
        for n, network in enumerate(client.reachable):
            if any(network.subnet_of(lan) for lan in client.lan):
                continue
            reason = f"is outside {NAMESPACE}:clients[{i}].lan {show(client.lan)}"
            remedies = ["use a part of lan" if client.lan else "leave it out"]
            if not any(network.overlaps(used) for _, used in ranges):
                remedies.append("add it to lan")
            yield problem_at(f"clients[{i}].reachable[{n}]", network, reason, ", or ".join(remedies))


def check_rotations(draft: Draft) -> Iterator[Problem]:
    """Check that clients whose keys are rotated or renewed exist: a mistyped name would leave a stolen key in use."""
    names = {client.name for client in draft.clients.values()}
    # Without a client that has problems of its own, its name is not known.
    if draft.rotations and len(draft.clients) == draft.entries:
        for key, moments in (("clients", draft.rotations.clients), ("renewals", draft.rotations.renewals)):
            for name in sorted(moments.keys() - names):
                remedy = f"use a name of {NAMESPACE}:clients, or leave it out"
                path = f"rotations.{key}.{name}"
                yield problem_at(path, moments[name], "is for a client that does not exist", remedy)


CHECKS = (check_routing, check_csr, check_unique, check_reachable, check_rotations)
