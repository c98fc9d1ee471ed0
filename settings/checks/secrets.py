"""Check that the key of the secrets is in the stack's region, and that it is the stack's own where users are named."""

from collections.abc import Iterator

from settings.draft import Draft
from settings.problems import Problem, problem_at


def check_key_region(draft: Draft) -> Iterator[Problem]:
    """Check that an existing key is in the stack's region, as SSM requires."""
    if draft.secrets is None or not draft.secrets.key.startswith("arn:"):
        return
    region = draft.secrets.key.split(":")[3]
    if region != draft.region:
        reason = f"is in {region}, and SSM uses keys of its own region only"
        yield problem_at("secrets.key", draft.secrets.key, reason, f"use a key in {draft.region}, or key: stack")


def check_users(draft: Draft) -> Iterator[Problem]:
    """Check that users are named for the stack's own key only: no other key's policy is the program's."""
    secrets = draft.secrets
    if secrets is None or not secrets.users or secrets.key == "stack":
        return
    reason = f"has no effect, because secrets.key is {secrets.key}, whose policy is not changed"
    yield problem_at("secrets.users", secrets.users, reason, "leave users out, or use key: stack")


CHECKS = (check_key_region, check_users)
