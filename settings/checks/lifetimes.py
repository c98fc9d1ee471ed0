"""Check that no certificate is valid longer than the authority that signs it."""

from collections.abc import Iterator

from settings.draft import Draft
from settings.problems import NAMESPACE, Problem, problem_at


def check_lifetimes(draft: Draft) -> Iterator[Problem]:
    """Check the lifetimes of certificates against the authority's."""
    lifetimes = draft.lifetimes
    if lifetimes is None:
        return
    for key, days in (("server", lifetimes.server), ("client", lifetimes.client)):
        if days > lifetimes.ca:
            reason = f"is longer than {NAMESPACE}:lifetimes.ca {lifetimes.ca}"
            yield problem_at(f"lifetimes.{key}", days, reason, f"use {lifetimes.ca} or less")
    for i, client in draft.clients.items():
        if client.days and client.days > lifetimes.ca:
            reason = f"is longer than {NAMESPACE}:lifetimes.ca {lifetimes.ca}"
            yield problem_at(f"clients[{i}].days", client.days, reason, f"use {lifetimes.ca} or less")


CHECKS = (check_lifetimes,)
