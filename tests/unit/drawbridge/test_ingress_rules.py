"""Rules that follow an address, on moto. Whether a packet then passes is shown in tests/lab/worlds/test_site.py."""

import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import pytest
from click.testing import CliRunner, Result

import contract
from drawbridge import errors
from drawbridge.commands.root import cli
from drawbridge.operate import ingress_rules
from drawbridge.operate.account import Account
from lab.api.moto_patches import modify_whole_rules, patched
from tests.unit.drawbridge.conftest import REGION, STACK

NEW = IPv4Address("198.51.100.7")


@dataclass
class Group:
    """A security group with rules that follow."""

    ec2: Any
    id: str

    def rule(self, follows: str, address: str, port: int, stack: str = STACK) -> str:
        """Add one; its id."""
        tags = {**contract.tags(stack), contract.FOLLOWS_TAG: follows}
        range_ = {"CidrIp": f"{address}/32", "Description": follows}
        made = self.ec2.authorize_security_group_ingress(
            GroupId=self.id,
            IpPermissions=[{"IpProtocol": "udp", "FromPort": port, "ToPort": port, "IpRanges": [range_]}],
            TagSpecifications=[
                {"ResourceType": "security-group-rule", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
            ],
        )
        return str(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def rules(self) -> dict[str, tuple[str, int, str]]:
        """Source, port and description of each rule, by id."""
        found = self.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [self.id]}])
        return {
            rule["SecurityGroupRuleId"]: (rule["CidrIpv4"], rule["FromPort"], rule.get("Description", ""))
            for rule in found["SecurityGroupRules"]
            if not rule["IsEgress"]
        }


@pytest.fixture
def group(account: Account) -> Group:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_security_group(GroupName="gateway", Description="gateway", VpcId=vpc)
    return Group(ec2, made["GroupId"])


def allow_me(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["access", "allow-me", *arguments, "--stack", STACK, "--region", REGION])


def test_a_clients_rule_moves_and_no_other(account: Account, group: Group) -> None:
    home = group.rule("tunnel/home", "203.0.113.10", 1194)
    group.rule("tunnel/office", "203.0.113.11", 1194)
    group.rule("ssh", "203.0.113.12", 22)
    group.rule("tunnel/home", "203.0.113.13", 1194, stack="other")
    before = group.rules()

    moved = ingress_rules.allow_me(account, "home", NEW)

    assert moved == ingress_rules.RuleChange(home, "tunnel/home", "203.0.113.10/32", "198.51.100.7/32")
    assert group.rules() == {**before, home: ("198.51.100.7/32", 1194, "tunnel/home")}


def test_without_a_client_it_is_the_admins_way_to_ssh(account: Account, group: Group) -> None:
    tunnel, ssh = group.rule("tunnel/ssh", "203.0.113.10", 1194), group.rule("ssh", "203.0.113.12", 22)

    ingress_rules.allow_me(account, None, NEW)

    assert group.rules()[ssh][0] == "198.51.100.7/32"
    assert group.rules()[tunnel][0] == "203.0.113.10/32"


def test_what_is_let_in_already_is_left_alone(account: Account, group: Group) -> None:
    rule = group.rule("tunnel/home", str(NEW), 1194)
    before = group.rules()

    moved = ingress_rules.allow_me(account, "home", NEW)

    assert (moved.rule, moved.before, moved.after) == (rule, f"{NEW}/32", f"{NEW}/32")
    assert group.rules() == before


def test_an_address_that_another_rule_lets_in_is_no_error(account: Account, group: Group) -> None:
    rule = group.rule("tunnel/home", "203.0.113.10", 1194)
    group.rule("tunnel/office", str(NEW), 1194)
    before = group.rules()

    with patched(modify_whole_rules):  # moto takes any rule
        answer = allow_me("--client", "home", "--address", str(NEW))

    assert answer.exit_code == 0, answer.output
    assert answer.output == "tunnel/home: another rule lets this address in already; 203.0.113.10/32 stays let in\n"
    assert group.rules() == before
    assert rule in before


@pytest.mark.parametrize(
    ("client", "hint"),
    [("home", f"clients: [{{name: home, at: {NEW}}}]"), (None, f"gateway: {{adminAt: {NEW}}}")],
)
def test_where_no_rule_follows_the_stack_file_is_named(
    account: Account, group: Group, client: str | None, hint: str
) -> None:
    group.rule("tunnel/office", "203.0.113.11", 1194)

    with pytest.raises(errors.NotDeployedError, match="no rule that follows") as refused:
        ingress_rules.allow_me(account, client, NEW)
    assert hint in str(refused.value.remedy)


def test_the_address_is_the_one_that_amazon_sees(
    account: Account, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = group.rule("tunnel/home", "203.0.113.10", 1194)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(f"{NEW}\n".encode()))

    ingress_rules.allow_me(account, "home")

    assert group.rules()[rule][0] == f"{NEW}/32"


@pytest.mark.parametrize("answer", [b"<html>", b"", b"2001:db8::1\n", urllib.error.URLError("no route")])
def test_an_answer_that_is_no_address_changes_nothing(
    account: Account, group: Group, monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception
) -> None:
    def m_urlopen(url: str, timeout: float) -> io.BytesIO:
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    group.rule("tunnel/home", "203.0.113.10", 1194)
    before = group.rules()
    monkeypatch.setattr(urllib.request, "urlopen", m_urlopen)

    with pytest.raises(errors.AwsError) as refused:
        ingress_rules.allow_me(account, "home")
    assert "--address" in str(refused.value.remedy)
    assert group.rules() == before


def test_the_command_tells_what_it_did(account: Account, group: Group) -> None:
    group.rule("tunnel/home", "203.0.113.10", 1194)

    done = allow_me("--client", "home", "--address", str(NEW))
    assert done.output == "tunnel/home: 198.51.100.7/32 is let in, 203.0.113.10/32 no longer\n"
    assert allow_me("--client", "home", "--address", str(NEW)).output.endswith("was already let in\n")
    told = json.loads(allow_me("--client", "home", "--address", str(NEW), "--json").output)
    assert (told["follows"], told["before"], told["after"]) == ("tunnel/home", f"{NEW}/32", f"{NEW}/32")


def test_the_command_refuses_what_is_no_address_and_who_is_not_there(account: Account, group: Group) -> None:
    group.rule("tunnel/home", "203.0.113.10", 1194)
    before = group.rules()

    wrong = allow_me("--client", "home", "--address", "198.51.100.0/24")
    assert (wrong.exit_code, "is not a valid IPv4 address" in wrong.output) == (2, True)
    assert allow_me("--client", "nobody", "--address", str(NEW)).exit_code == 1
    assert group.rules() == before
