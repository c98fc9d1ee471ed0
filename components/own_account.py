"""Check that IAM resources which the settings name are in the stack's account, before AWS refuses them.

Sources: IAM API Reference, "PutRolePermissionsBoundary"; AWS KMS Developer Guide, "Key policies in AWS KMS".
"""

from collections.abc import Iterable

import pulumi
import pulumi_aws as aws


def check_own_account(key: str, arns: Iterable[str], remedy: str) -> None:
    """Raise `pulumi.RunError` for an ARN of another account than the stack's; `key` of the settings names the ARNs."""
    accounts = {arn: arn.split(":")[4] for arn in arns}
    # AWS's own policies have no account.
    accounts = {arn: account for arn, account in accounts.items() if account != "aws"}
    if not accounts:
        return
    stack_account = aws.get_caller_identity().account_id
    for arn, account in accounts.items():
        if account != stack_account:
            raise pulumi.RunError(
                f"drawbridge:{key}: {arn} is in another account than the stack, {stack_account}; {remedy}"
            )
