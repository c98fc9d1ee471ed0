"""Who may come in, as it changes: rules of the gateway's security group that follow an address.

Such a rule is tagged `contract.FOLLOWS_TAG`. `allow-me` and clients' kits change its address; a deployment does not.
"""

import urllib.request
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

import contract
from drawbridge import errors
from drawbridge.operate.account import Account, translate_aws_errors

#: Amazon's own answer to who is asking: one line, the address.
ADDRESS_SERVICE = "https://checkip.amazonaws.com"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What became of a rule."""

    rule: str
    follows: str
    """What it lets in: `ssh`, or `tunnel/<client>`."""
    before: str
    after: str


def allow_me(account: Account, client: str | None, address: IPv4Address | None = None) -> RuleChange:
    """Let an address in, and no longer the one before; it is this machine's own public one unless given.

    For a client that is its way to the tunnel, otherwise the admin's to SSH. Raises `NotDeployedError` where the stack
    has no rule that follows, and `AwsError`.
    """
    follows, found = contract.rule_for(client), address or find_public_address()
    ec2 = account.client("ec2")
    with translate_aws_errors(account.stack):
        mine = [{"Name": "tag:Stack", "Values": [account.stack]}]
        pages = ec2.get_paginator("describe_security_group_rules").paginate(Filters=mine)
        rules = [rule for page in pages for rule in page["SecurityGroupRules"]]
    wanted = {**contract.tags(account.stack), contract.FOLLOWS_TAG: follows}
    matching = [
        rule for rule in rules if wanted.items() <= {t["Key"]: t["Value"] for t in rule.get("Tags", [])}.items()
    ]
    if not matching:
        key = f"clients: [{{name: {client}, at: {found}}}]" if client else f"gateway: {{adminAt: {found}}}"
        raise errors.NotDeployedError(
            f"stack {account.stack} has no rule that follows an address for {follows}",
            f"say so in the stack file, drawbridge:{key}, and deploy",
        )
    rule = matching[0]
    before = str(rule["CidrIpv4"])
    if before != (after := f"{found}/32"):
        changed = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort", "Description") if key in rule}
        update = {
            "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
            "SecurityGroupRule": {**changed, "CidrIpv4": after},
        }
        with translate_aws_errors(account.stack):
            ec2.modify_security_group_rules(GroupId=rule["GroupId"], SecurityGroupRules=[update])
    return RuleChange(rule["SecurityGroupRuleId"], follows, before, after)


def find_public_address() -> IPv4Address:
    """The address this machine has on the Internet; raises `AwsError` where nobody tells it."""
    try:
        with urllib.request.urlopen(ADDRESS_SERVICE, timeout=10) as answer:
            return IPv4Address(answer.read(64).decode().strip())
    except (OSError, AddressValueError) as error:
        raise errors.AwsError(
            f"{ADDRESS_SERVICE} does not tell this machine's address: {error}", "give it: --address"
        ) from error
