"""Check the IAM users that a stack creates: their names, and what is not possible without them."""

from collections.abc import Iterator

from settings.draft import Draft, Topology
from settings.model import Client, Tunnel
from settings.problems import NAMESPACE, Problem, problem_at

#: Characters that the name of an IAM user may have (IAM API Reference, CreateUser).
USER_NAME_LIMIT = 64


def check_user_names(draft: Draft) -> Iterator[Problem]:
    """Check that IAM takes the user name of each client whose machine is set up by a kit."""
    if draft.iam is None or draft.iam.users == "none":
        return
    prefix = f"{NAMESPACE}-{draft.stack}-"
    longest = USER_NAME_LIMIT - len(prefix)
    for i, client in _list_kit_clients(draft):
        if len(client.name) > longest:
            length = len(prefix) + len(client.name)
            reason = f"is too long for the IAM user {prefix}…, whose name would have {length} characters"
            yield problem_at(f"clients[{i}].name", client.name, reason, f"use at most {longest} characters")


def check_without_users(draft: Draft) -> Iterator[Problem]:
    """Check that no client's machine needs an IAM user if the stack creates none."""
    if draft.iam is None or draft.iam.users != "none":
        return
    for i, client in _list_kit_clients(draft):
        # The kit of a bonded host does not update its address.
        if client.at and draft.topology is not Topology.BONDED:
            reason = f"is an address that the client's kit updates as an IAM user, but {NAMESPACE}:iam.users is none"
            remedy = (
                f"leave it out and let {client.at}/32 in with {NAMESPACE}:gateway.allowFrom, or use iam.users: kits"
            )
            yield problem_at(f"clients[{i}].at", client.at, reason, remedy)


def _list_kit_clients(draft: Draft) -> list[tuple[int, Client]]:
    """Return the clients whose machine is set up by a kit, with their position in the list."""
    tunnel = draft.tunnel or Tunnel()
    return [(i, client) for i, client in draft.clients.items() if client.needs_kit(tunnel)]


CHECKS = (check_user_names, check_without_users)
