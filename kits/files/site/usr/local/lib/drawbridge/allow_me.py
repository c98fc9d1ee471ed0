#!/usr/bin/env python3
"""Set the address of the security group rule that lets this site in to the site's current public address.

The rule is described in /etc/drawbridge/kit.env; the host's AWS credentials may change that rule and nothing else. The
script checks the address once; a timer starts it again.
"""

import ipaddress
import os
import sys
import urllib.request
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

#: Returns the caller's public address in one line.
CHECK_IP_URL = "https://checkip.amazonaws.com"
KIT = Path("/etc/drawbridge/kit.env")


def main() -> int:
    """Return the exit status."""
    lines = (line.partition("=") for line in KIT.read_text().splitlines())
    env = {key: value for key, _, value in lines}
    memory = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/drawbridge-site")) / "address"
    try:
        with urllib.request.urlopen(CHECK_IP_URL, timeout=10) as answer:
            address = ipaddress.IPv4Address(answer.read(64).decode().strip())
        # All that the call below sets: a change of port or protocol puts the stack file's address back into the rule.
        applied = " ".join([*(env[key] for key in ("RULE", "PROTOCOL", "FROM_PORT", "TO_PORT")), str(address)])
        if memory.exists() and memory.read_text() == applied:
            return 0
        ec2 = boto3.client("ec2", region_name=env["REGION"])
        rule = {
            "IpProtocol": env["PROTOCOL"],
            "FromPort": int(env["FROM_PORT"]),
            "ToPort": int(env["TO_PORT"]),
            "CidrIpv4": f"{address}/32",
            "Description": env["FOLLOWS"],
        }
        changed = [{"SecurityGroupRuleId": env["RULE"], "SecurityGroupRule": rule}]
        ec2.modify_security_group_rules(GroupId=env["GROUP"], SecurityGroupRules=changed)
        memory.write_text(applied)
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidPermission.Duplicate":
            # Not remembered: the other rule may move away, and this one must take the address then.
            print(f"the gateway accepts {address} by another rule")
            return 0
        return _report_failure(error)
    except (OSError, ValueError, BotoCoreError) as error:
        return _report_failure(error)
    print(f"the gateway now accepts {address}")
    return 0


def _report_failure(error: Exception) -> int:
    print(f"the gateway's rule was not updated: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
