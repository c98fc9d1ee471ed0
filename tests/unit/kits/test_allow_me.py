"""The site's script that keeps its ingress rule at its public address: when it calls EC2, and when it need not."""

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.sources import load_script

SCRIPT = Path(__file__).parents[3] / "kits/files/site/usr/local/lib/drawbridge/allow_me.py"
KIT = {
    "RULE": "sgr-1",
    "GROUP": "sg-1",
    "REGION": "eu-west-1",
    "FOLLOWS": "home",
    "PROTOCOL": "udp",
    "FROM_PORT": "1194",
    "TO_PORT": "1194",
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with its kit and state below a temporary directory."""
    module = load_script(SCRIPT)
    monkeypatch.setattr(module, "KIT", tmp_path / "kit.env")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    return module


class Ec2:
    """Keeps the rules that it was called with."""

    def __init__(self) -> None:
        self.rules: list[dict[str, Any]] = []

    def modify_security_group_rules(self, **arguments: Any) -> None:
        self.rules.append(arguments["SecurityGroupRules"][0]["SecurityGroupRule"])


def test_a_new_port_or_protocol_is_a_reason_to_set_the_rule_again(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = Ec2()
    monkeypatch.setattr(script.boto3, "client", lambda *_, **__: ec2)
    monkeypatch.setattr(script.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"203.0.113.9\n"))

    def run(**change: str) -> None:
        script.KIT.write_text("".join(f"{key}={value}\n" for key, value in {**KIT, **change}.items()))
        assert script.main() == 0

    run()
    run()
    assert [rule["CidrIpv4"] for rule in ec2.rules] == ["203.0.113.9/32"]
    # `pulumi up` with another port puts the stack file's address into the rule, whose id stays.
    run(FROM_PORT="1300", TO_PORT="1300")
    assert (ec2.rules[-1]["FromPort"], ec2.rules[-1]["CidrIpv4"]) == (1300, "203.0.113.9/32")
    run(FROM_PORT="1300", TO_PORT="1300", PROTOCOL="tcp")
    assert [rule["IpProtocol"] for rule in ec2.rules] == ["udp", "udp", "tcp"]


def test_an_address_that_another_rule_lets_in_is_tried_again(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sites behind one address: EC2 takes one rule, until the other site moves away."""
    ec2 = Ec2()
    refusal: Any = {"Error": {"Code": "InvalidPermission.Duplicate", "Message": "the specified rule already exists"}}
    answers = [ClientError(refusal, "ModifySecurityGroupRules"), None]

    def modify(**arguments: Any) -> None:
        if answer := answers.pop(0):
            raise answer
        Ec2.modify_security_group_rules(ec2, **arguments)

    monkeypatch.setattr(ec2, "modify_security_group_rules", modify)
    monkeypatch.setattr(script.boto3, "client", lambda *_, **__: ec2)
    monkeypatch.setattr(script.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"203.0.113.9\n"))
    script.KIT.write_text("".join(f"{key}={value}\n" for key, value in KIT.items()))
    assert script.main() == 0
    assert ec2.rules == []
    assert script.main() == 0
    assert [rule["CidrIpv4"] for rule in ec2.rules] == ["203.0.113.9/32"]
