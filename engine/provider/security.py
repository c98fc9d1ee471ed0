"""Manage security groups and their rules, and network ACLs."""

from collections.abc import Callable
from typing import Any

from engine.provider.resource_type import (
    ClientError,
    Ec2ResourceType,
    ProviderError,
    ResourceType,
    already_exists,
    differs,
    none_if_not_found,
    register,
    tag_outputs,
    without_none,
)
from engine.provider.values import Props

ANYWHERE = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
ANYWHERE6 = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}


@register
class SecurityGroup(Ec2ResourceType):
    """A security group, created without AWS's default egress rule, as Pulumi does."""

    token = "aws:ec2/securityGroup:SecurityGroup"
    replace_on_change = frozenset({"name", "description", "vpcId"})
    updatable = frozenset({"ingress", "egress", "tags", "revokeRulesOnDelete"})
    autoname = "name"
    defaults = {"description": "Managed by Pulumi"}  # noqa: RUF012 - ClassVar[Mapping] in the base
    resource, describe, items, id_key = "security-group", "describe_security_groups", "SecurityGroups", "GroupId"

    def create(self, inputs: Props) -> str:
        response = self.ec2.create_security_group(
            **without_none(GroupName=inputs["name"], Description=inputs["description"], VpcId=inputs.get("vpcId")),
            **self.tagging(inputs),
        )
        id = str(response["GroupId"])
        self._revoke_default_egress(id)
        self.update(id, {"tags": inputs.get("tags")}, inputs)
        return id

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        if not olds:
            self._revoke_default_egress(id)
        for key, authorize, revoke in (
            ("ingress", self.ec2.authorize_security_group_ingress, self.ec2.revoke_security_group_ingress),
            ("egress", self.ec2.authorize_security_group_egress, self.ec2.revoke_security_group_egress),
        ):
            before, after = olds.get(key) or [], news.get(key) or []
            removed = [permission(rule, id) for rule in before if rule not in after]
            added = [permission(rule, id) for rule in after if rule not in before]
            if removed:
                revoke(GroupId=id, IpPermissions=removed)
            for rule in added:
                self._authorize(authorize, id, rule)

    @staticmethod
    def _authorize(authorize: Callable[..., Any], id: str, rule: dict[str, Any]) -> None:
        try:
            authorize(GroupId=id, IpPermissions=[rule])
        except ClientError as error:
            if not already_exists(error):  # a creation that was cut off may have got this far
                raise

    def _revoke_default_egress(self, id: str) -> None:
        """Revoke the egress rules that AWS puts into a new group."""
        for rule in (ANYWHERE, ANYWHERE6):
            # Only a VPC with IPv6 has the second rule, and an adopted group may have neither.
            none_if_not_found(self.ec2.revoke_security_group_egress, GroupId=id, IpPermissions=[rule])

    def outputs(self, item: dict[str, Any]) -> Props:
        return {
            "arn": self.aws.arn("ec2", f"security-group/{item['GroupId']}"),
            "name": item["GroupName"],
            "description": item["Description"],
            "vpcId": item.get("VpcId", ""),
            "ownerId": item.get("OwnerId", self.aws.account),
        }

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_security_group(GroupId=id)


def permission(rule: Props, group: str) -> dict[str, Any]:
    """Return an inline rule as EC2's IpPermission."""
    described = without_none(Description=rule.get("description") or None)
    groups = [*(rule.get("securityGroups") or ()), *([group] if rule.get("self") else ())]
    protocol = str(rule["protocol"])
    ports = {} if protocol in ("-1", "all") else {"FromPort": rule["fromPort"], "ToPort": rule["toPort"]}
    return {
        "IpProtocol": "-1" if protocol == "all" else protocol,
        **ports,
        "IpRanges": [{"CidrIp": cidr} | described for cidr in rule.get("cidrBlocks") or ()],
        "Ipv6Ranges": [{"CidrIpv6": cidr} | described for cidr in rule.get("ipv6CidrBlocks") or ()],
        "PrefixListIds": [{"PrefixListId": id} | described for id in rule.get("prefixListIds") or ()],
        "UserIdGroupPairs": [{"GroupId": id} | described for id in groups],
    }


class _GroupRule(Ec2ResourceType):
    """A rule of a security group, with its own id and tags."""

    replace_on_change = frozenset({"securityGroupId"})
    updatable = frozenset(
        {"cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId"}
        | {"ipProtocol", "fromPort", "toPort", "description", "tags"}
    )
    delete_before_replace = True  # a group has a rule once, whatever its description
    resource, describe = "security-group-rule", "describe_security_group_rules"
    items, id_key = "SecurityGroupRules", "SecurityGroupRuleId"
    egress: bool

    def create(self, inputs: Props) -> str:
        direction = "egress" if self.egress else "ingress"
        described = without_none(Description=inputs.get("description") or None)
        sources = {
            "cidrIpv4": ("IpRanges", "CidrIp"),
            "cidrIpv6": ("Ipv6Ranges", "CidrIpv6"),
            "prefixListId": ("PrefixListIds", "PrefixListId"),
            "referencedSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
        }
        sources_given = {name: [{key: inputs[k]} | described] for k, (name, key) in sources.items() if inputs.get(k)}
        if len(sources_given) != 1:
            raise ProviderError(f"a security group rule needs one of {', '.join(sources)}")
        response = getattr(self.ec2, f"authorize_security_group_{direction}")(
            GroupId=inputs["securityGroupId"],
            IpPermissions=[{**self._protocol(inputs), **sources_given}],
            **self.tagging(inputs),
        )
        return str(response["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    @staticmethod
    def _protocol(inputs: Props) -> dict[str, Any]:
        return without_none(
            IpProtocol=str(inputs["ipProtocol"]), FromPort=inputs.get("fromPort"), ToPort=inputs.get("toPort")
        )

    def update(self, id: str, olds: Props, news: Props) -> None:
        # An adopted rule was found by its values.
        if olds and differs(olds, news, *(self.updatable - {"tags"})):
            rule = without_none(
                Description=news.get("description") or None,
                CidrIpv4=news.get("cidrIpv4"),
                CidrIpv6=news.get("cidrIpv6"),
                PrefixListId=news.get("prefixListId"),
                ReferencedGroupId=news.get("referencedSecurityGroupId"),
            )
            self.ec2.modify_security_group_rules(
                GroupId=news["securityGroupId"],
                SecurityGroupRules=[{"SecurityGroupRuleId": id, "SecurityGroupRule": {**self._protocol(news), **rule}}],
            )
        self.retag(id, olds, news)

    def outputs(self, item: dict[str, Any]) -> Props:
        return {
            "arn": self.aws.arn("ec2", f"security-group-rule/{item['SecurityGroupRuleId']}"),
            "securityGroupRuleId": item["SecurityGroupRuleId"],
            "securityGroupId": item.get("GroupId"),
        }

    def find(self, inputs: Props) -> list[str]:
        rules = self.ec2.describe_security_group_rules()["SecurityGroupRules"]
        return [
            str(item["SecurityGroupRuleId"])
            for item in rules
            if item.get("GroupId") == inputs["securityGroupId"]
            and bool(item.get("IsEgress")) is self.egress
            and item.get("IpProtocol") == str(inputs["ipProtocol"])
            and item.get("CidrIpv4") == inputs.get("cidrIpv4")
            and item.get("CidrIpv6") == inputs.get("cidrIpv6")
            and item.get("FromPort", -1) == inputs.get("fromPort", -1)
        ]

    def delete(self, id: str, outputs: Props) -> None:
        direction = "egress" if self.egress else "ingress"
        revoke = getattr(self.ec2, f"revoke_security_group_{direction}")
        revoke(GroupId=outputs["securityGroupId"], SecurityGroupRuleIds=[id])


@register
class SecurityGroupIngressRule(_GroupRule):
    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    egress = False


@register
class SecurityGroupEgressRule(_GroupRule):
    token = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    egress = True


PROTOCOLS = {"all": "-1", "icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}


def acl_entry(rule: Props) -> dict[str, Any]:
    """Return an ACL rule as the arguments of CreateNetworkAclEntry.

    The keys are those of the rule resource; inline rules have other names for two of them (ruleNo, action).
    """
    protocol = str(rule["protocol"])
    number = PROTOCOLS.get(protocol, protocol)
    entry = without_none(
        RuleNumber=rule.get("ruleNumber", rule.get("ruleNo")),
        Protocol=number,
        RuleAction=rule.get("ruleAction", rule.get("action")),
        CidrBlock=rule.get("cidrBlock") or None,
        Ipv6CidrBlock=rule.get("ipv6CidrBlock") or None,
    )
    entry["PortRange"] = {"From": rule.get("fromPort", 0), "To": rule.get("toPort", 0)}
    if number in ("1", "58"):
        entry["IcmpTypeCode"] = {"Type": int(rule.get("icmpType", -1)), "Code": int(rule.get("icmpCode", -1))}
    return entry


@register
class NetworkAcl(Ec2ResourceType):
    token = "aws:ec2/networkAcl:NetworkAcl"
    replace_on_change = frozenset({"vpcId"})
    updatable = frozenset({"subnetIds", "ingress", "egress", "tags"})
    resource, describe, items, id_key = "network-acl", "describe_network_acls", "NetworkAcls", "NetworkAclId"

    def create(self, inputs: Props) -> str:
        id = str(
            self.ec2.create_network_acl(VpcId=inputs["vpcId"], **self.tagging(inputs))["NetworkAcl"]["NetworkAclId"]
        )
        self.update(id, {"tags": inputs.get("tags")}, inputs)
        return id

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        entries = (self.item(id) or {}).get("Entries") or ()
        present = {(bool(entry["Egress"]), int(entry["RuleNumber"])) for entry in entries}
        for egress, key in ((False, "ingress"), (True, "egress")):
            before = {rule["ruleNo"]: rule for rule in olds.get(key) or ()}
            after = {rule["ruleNo"]: rule for rule in news.get(key) or ()}
            for number in before.keys() - after.keys():
                self.ec2.delete_network_acl_entry(NetworkAclId=id, RuleNumber=number, Egress=egress)
            for number, rule in after.items():
                if before.get(number) != rule:
                    exists = (egress, int(number)) in present
                    write = self.ec2.replace_network_acl_entry if exists else self.ec2.create_network_acl_entry
                    write(NetworkAclId=id, Egress=egress, **acl_entry(rule))
        if differs(olds, news, "subnetIds"):
            before_subnets, after_subnets = set(olds.get("subnetIds") or ()), set(news.get("subnetIds") or ())
            for subnet in sorted(after_subnets - before_subnets):
                associate(self.ec2, subnet, id)
            for subnet in sorted(before_subnets - after_subnets):
                associate(self.ec2, subnet, None)

    def outputs(self, item: dict[str, Any]) -> Props:
        return {
            "arn": self.aws.arn("ec2", f"network-acl/{item['NetworkAclId']}"),
            "vpcId": item["VpcId"],
            "subnetIds": sorted(a["SubnetId"] for a in item.get("Associations") or ()),
            "ownerId": item.get("OwnerId", self.aws.account),
        }

    def read(self, id: str, inputs: Props) -> Props | None:
        item = self.item(id)
        return None if item is None else self.outputs(item) | tag_outputs(item.get("Tags"))

    def delete(self, id: str, outputs: Props) -> None:
        for association in (self.item(id) or {}).get("Associations") or []:
            associate(self.ec2, association["SubnetId"], None)
        self.ec2.delete_network_acl(NetworkAclId=id)


def associate(ec2: Any, subnet: str, acl: str | None) -> str:
    """Associate a subnet with an ACL (None: the VPC's default ACL) and return the association's id."""
    acls = ec2.describe_network_acls()["NetworkAcls"]
    for current in acls:
        for row in current.get("Associations") or []:
            if row["SubnetId"] != subnet:
                continue
            target = acl or next(
                a["NetworkAclId"] for a in acls if a.get("IsDefault") and a["VpcId"] == current["VpcId"]
            )
            if current["NetworkAclId"] == target:
                return str(row["NetworkAclAssociationId"])
            moved = ec2.replace_network_acl_association(
                AssociationId=row["NetworkAclAssociationId"], NetworkAclId=target
            )
            return str(moved["NewAssociationId"])
    raise ProviderError(f"{subnet} has no network ACL; does the subnet exist?")


@register
class NetworkAclRule(ResourceType):
    token = "aws:ec2/networkAclRule:NetworkAclRule"
    replace_on_change = frozenset(
        {"networkAclId", "ruleNumber", "egress", "protocol", "ruleAction", "cidrBlock", "ipv6CidrBlock"}
        | {"fromPort", "toPort", "icmpType", "icmpCode"}
    )
    defaults = {"egress": False}  # noqa: RUF012 - ClassVar[Mapping] in the base
    # Pulumi's provider creates the new entry first, and fails if its number is taken (pulumi-aws, issue 3244).
    delete_before_replace = False
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        self.aws.client("ec2").create_network_acl_entry(
            NetworkAclId=inputs["networkAclId"], Egress=inputs["egress"], **acl_entry(inputs)
        )
        return self._id(inputs)

    @staticmethod
    def _id(inputs: Props) -> str:
        return f"{inputs['networkAclId']}_{'egress' if inputs['egress'] else 'ingress'}_{inputs['ruleNumber']}"

    def read(self, id: str, inputs: Props) -> Props | None:
        acls = self.aws.client("ec2").describe_network_acls(NetworkAclIds=[inputs["networkAclId"]])["NetworkAcls"]
        entries = acls[0]["Entries"] if acls else []
        key = (int(inputs["ruleNumber"]), bool(inputs["egress"]))
        return {} if any((int(e["RuleNumber"]), bool(e["Egress"])) == key for e in entries) else None

    def delete(self, id: str, outputs: Props) -> None:
        self.aws.client("ec2").delete_network_acl_entry(
            NetworkAclId=outputs["networkAclId"], RuleNumber=outputs["ruleNumber"], Egress=outputs["egress"]
        )

    def find(self, inputs: Props) -> list[str]:
        return [self._id(inputs)] if self.read("", inputs) is not None else []


@register
class NetworkAclAssociation(ResourceType):
    token = "aws:ec2/networkAclAssociation:NetworkAclAssociation"
    replace_on_change = frozenset({"networkAclId", "subnetId"})
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        return associate(self.aws.client("ec2"), inputs["subnetId"], inputs["networkAclId"])

    def read(self, id: str, inputs: Props) -> Props | None:
        acls = self.aws.client("ec2").describe_network_acls(NetworkAclIds=[inputs["networkAclId"]])["NetworkAcls"]
        rows = acls[0].get("Associations") or [] if acls else []
        return {} if any(row["SubnetId"] == inputs["subnetId"] for row in rows) else None

    def delete(self, id: str, outputs: Props) -> None:
        if self.read(id, outputs) is not None:
            associate(self.aws.client("ec2"), outputs["subnetId"], None)

    def find(self, inputs: Props) -> list[str]:
        if self.read("", inputs) is None:
            return []
        return [associate(self.aws.client("ec2"), inputs["subnetId"], inputs["networkAclId"])]
