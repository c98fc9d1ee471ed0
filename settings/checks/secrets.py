"""Check that the key of the secrets is in the stack's region, and that it fits the users and the place of bundles.

Source: AWS KMS API Reference, "PutKeyPolicy", for the size of a key's policy.
"""

from collections.abc import Iterator

from settings.draft import Draft
from settings.problems import Problem, problem_at

#: Characters of a key's policy, and those that it needs for all but `users`.
KEY_POLICY_LIMIT, KEY_POLICY_RESERVE = 32_768, 6_144


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


def check_users_fit(draft: Draft) -> Iterator[Problem]:
    """Check that the users fit the policy of the stack's own key."""
    secrets = draft.secrets
    if secrets is None or secrets.key != "stack":
        return
    # They are in two statements: for parameters, and for objects.
    size, room = 2 * sum(len(f'"{user}", ') for user in secrets.users), KEY_POLICY_LIMIT - KEY_POLICY_RESERVE
    if size > room:
        reason = f"take {size} characters, but a KMS key policy has room for {room} of {KEY_POLICY_LIMIT}"
        remedy = "name a role that these users may assume, or set secrets.key to a key whose policy you write"
        yield problem_at("secrets.users", f"{len(secrets.users)} users", reason, remedy)


def check_bundles(draft: Draft) -> Iterator[Problem]:
    """Check that bundles in S3 have a key that S3 can use, and are of a stack with one gateway."""
    secrets = draft.secrets
    if secrets is None or secrets.bundles != "s3":
        return
    if secrets.key == "aws/ssm":
        reason = "needs a key that S3 can use, and secrets.key is aws/ssm"
        yield problem_at("secrets.bundles", secrets.bundles, reason, "use key: stack, or bundles: ssm")
    if draft.has_pair:
        reason = "is not possible in a pair, whose two gateways read their bundles in SSM"
        yield problem_at("secrets.bundles", secrets.bundles, reason, "use bundles: ssm")


CHECKS = (check_key_region, check_users, check_users_fit, check_bundles)
