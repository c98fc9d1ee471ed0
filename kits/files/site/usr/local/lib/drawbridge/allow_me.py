#!/usr/bin/env python3
"""Moves the one rule of the gateway's security group that lets this site in to its public address as it is now.

What it needs to know is in /etc/drawbridge/kit.env; its AWS credentials may change that rule and nothing else. It looks
once and ends; a timer starts it again.
"""

import ipaddress
import os
import sys
import urllib.request
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

#: Amazon's own answer to who is asking: one line, the address.
WHO_AM_I = "https://checkip.amazonaws.com"
KIT = Path("/etc/drawbridge/kit.env")


def main() -> int:
    """Return the exit status."""
    lines = (line.partition("=") for line in KIT.read_text().splitlines())
    env = {key: value for key, _, value in lines}
    memory = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/drawbridge-site")) / "address"
    try:
        with urllib.request.urlopen(WHO_AM_I, timeout=10) as answer:
            address = ipaddress.IPv4Address(answer.read(64).decode().strip())
        told = f"{env['RULE']} {address}"
        if memory.exists() and memory.read_text() == told:
            return 0
        ec2 = boto3.client("ec2", region_name=env["REGION"])
        port = int(env["PORT"])
        rule = {
            "IpProtocol": env["PROTOCOL"],
            "FromPort": port,
            "ToPort": port,
            "CidrIpv4": f"{address}/32",
            "Description": env["FOLLOWS"],
        }
        changed = [{"SecurityGroupRuleId": env["RULE"], "SecurityGroupRule": rule}]
        ec2.modify_security_group_rules(GroupId=env["GROUP"], SecurityGroupRules=changed)
        memory.write_text(told)
    except (OSError, ValueError, BotoCoreError, ClientError) as error:
        print(f"the gateway is not told: {error}", file=sys.stderr)
        return 1
    print(f"the gateway lets {address} in")
    return 0


if __name__ == "__main__":
    sys.exit(main())
