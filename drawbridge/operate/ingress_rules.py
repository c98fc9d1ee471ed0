"""Change the gateway's security group rules that follow an address.

Such a rule is tagged `contract.FOLLOWS_TAG`. `allow-me` and clients' kits change its address; a deployment does not.
"""

import urllib.request
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from botocore.exceptions import ClientError

import contract
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors

#: AWS's service that answers with the caller's public address, one line.
ADDRESS_SERVICE = "https://checkip.amazonaws.com"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """The source address of a rule before and after a change."""

    rule: str
    follows: str
    """What it lets in: `ssh`, or `tunnel/<client>`."""
    before: str
    after: str
    """The rule's own; unchanged where another rule lets the address in."""
    duplicate: bool = False
    """Another rule lets the address in already, and AWS takes no second one."""


def allow_me(account: Account, client: str | None, address: IPv4Address | None = None) -> RuleChange:
    """Move a rule to `address`, by default this machine's public address, and return the change.

    The rule opens the tunnel to `client`, or SSH to the admin if that is None. Raises `NotDeployedError` if the stack
    has no such rule, and `AwsError`.
    """
    follows, address = contract.rule_for(client), address or find_public_address()
    ec2 = account.client("ec2")
    with translate_aws_errors(account.stack):
        filters = [{"Name": "tag:Stack", "Values": [account.stack]}]
        pages = ec2.get_paginator("describe_security_group_rules").paginate(Filters=filters)
        rules = [rule for page in pages for rule in page["SecurityGroupRules"]]
    tags = {**contract.tags(account.stack), contract.FOLLOWS_TAG: follows}
    matching = [rule for rule in rules if tags.items() <= {t["Key"]: t["Value"] for t in rule.get("Tags", [])}.items()]
    if not matching:
        key = f"clients: [{{name: {client}, at: {address}}}]" if client else f"gateway: {{adminAt: {address}}}"
        raise errors.NotDeployedError(
            f"stack {account.stack} has no rule that follows an address for {follows}",
            f"add drawbridge:{key} to the stack file, and deploy",
        )
    rule = matching[0]
    before = str(rule["CidrIpv4"])
    if before != (after := f"{address}/32"):
        changed = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort", "Description") if key in rule}
        update = {
            "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
            "SecurityGroupRule": {**changed, "CidrIpv4": after},
        }
        with translate_aws_errors(account.stack):
            try:
                ec2.modify_security_group_rules(GroupId=rule["GroupId"], SecurityGroupRules=[update])
            except ClientError as error:
                if error.response["Error"]["Code"] != "InvalidPermission.Duplicate":
                    raise
                return RuleChange(rule["SecurityGroupRuleId"], follows, before, before, duplicate=True)
    return RuleChange(rule["SecurityGroupRuleId"], follows, before, after)


def find_public_address() -> IPv4Address:
    """Return this machine's address on the Internet; raises `AwsError` if the service does not answer."""
    try:
        with urllib.request.urlopen(ADDRESS_SERVICE, timeout=10) as answer:
            return IPv4Address(answer.read(64).decode().strip())
    except (OSError, AddressValueError) as error:
        raise errors.AwsError(
            f"{ADDRESS_SERVICE} does not answer with this machine's address: {error}", "give it: --address"
        ) from error
