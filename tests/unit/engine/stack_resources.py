"""Resources as a stack of ours registers them, for tests that compare calls of two providers.

Inputs have Pulumi's names. A value "=name" is the id of another resource, "=name.key" one of its outputs.
"""

import json
import re
from typing import Any

from engine.provider.values import Props

REGION = "eu-west-1"
BOUNDARIES = ("arn:aws:iam::aws:policy/PowerUserAccess", "arn:aws:iam::aws:policy/ReadOnlyAccess")
AMI = "ami-12c6146b"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def read_policy(path: str) -> str:
    """Return a policy document that allows to read parameters below a path."""
    resource = f"arn:aws:ssm:{REGION}:123456789012:parameter/{path}"
    statement = {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


TLS_ONLY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": ["arn:aws:s3:::vault-of-a-stack", "arn:aws:s3:::vault-of-a-stack/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
)


def key_policy(*actions: str) -> str:
    """Return a KMS key's policy that lets the account do these actions."""
    statement = {
        "Sid": "Manage",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
        "Action": list(actions),
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def topic_policy(action: str) -> str:
    """Return an SNS topic's policy that lets CloudWatch do this action."""
    statement = {"Sid": "Alarms", "Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"}}
    return json.dumps({"Version": "2012-10-17", "Statement": [{**statement, "Action": action, "Resource": "*"}]})


#: name -> (type token without the `aws:`, inputs), in an order in which they can be created.
RESOURCES: dict[str, tuple[str, Props]] = {
    "vpc": (
        "ec2/vpc:Vpc",
        {"cidrBlock": "10.1.0.0/16", "enableDnsSupport": True, "enableDnsHostnames": True, "tags": {"Name": "v"}},
    ),
    "internet": ("ec2/internetGateway:InternetGateway", {"vpcId": "=vpc", "tags": {"Name": "i"}}),
    "egress": ("ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway", {"vpcId": "=vpc"}),
    "table": ("ec2/routeTable:RouteTable", {"vpcId": "=vpc", "tags": {"Name": "t"}}),
    "public": (
        "ec2/subnet:Subnet",
        {
            "vpcId": "=vpc",
            "cidrBlock": "10.1.0.0/24",
            "availabilityZone": f"{REGION}a",
            "mapPublicIpOnLaunch": False,
            "tags": {"Name": "s"},
        },
    ),
    "subnet_table": (
        "ec2/routeTableAssociation:RouteTableAssociation",
        {"subnetId": "=public", "routeTableId": "=table"},
    ),
    "edge": ("ec2/routeTable:RouteTable", {"vpcId": "=vpc"}),
    "edge_table": (
        "ec2/routeTableAssociation:RouteTableAssociation",
        {"gatewayId": "=internet", "routeTableId": "=edge"},
    ),
    "default_route": (
        "ec2/route:Route",
        {"routeTableId": "=table", "destinationCidrBlock": "0.0.0.0/0", "gatewayId": "=internet"},
    ),
    "default_route6": (
        "ec2/route:Route",
        {"routeTableId": "=table", "destinationIpv6CidrBlock": "::/0", "egressOnlyGatewayId": "=egress"},
    ),
    "s3_endpoint": (
        "ec2/vpcEndpoint:VpcEndpoint",
        {
            "vpcId": "=vpc",
            "serviceName": f"com.amazonaws.{REGION}.s3",
            "vpcEndpointType": "Gateway",
            "routeTableIds": ["=table"],
        },
    ),
    "acl": ("ec2/networkAcl:NetworkAcl", {"vpcId": "=vpc", "tags": {"Name": "a"}}),
    "acl_udp": (
        "ec2/networkAclRule:NetworkAclRule",
        {
            "networkAclId": "=acl",
            "egress": False,
            "ruleNumber": 110,
            "ruleAction": "allow",
            "protocol": "17",
            "cidrBlock": "0.0.0.0/0",
            "fromPort": 1194,
            "toPort": 1194,
        },
    ),
    "acl_icmp": (
        "ec2/networkAclRule:NetworkAclRule",
        {
            "networkAclId": "=acl",
            "egress": False,
            "ruleNumber": 150,
            "ruleAction": "allow",
            "protocol": "1",
            "cidrBlock": "0.0.0.0/0",
            "icmpType": -1,
            "icmpCode": -1,
        },
    ),
    "acl_all6": (
        "ec2/networkAclRule:NetworkAclRule",
        {
            "networkAclId": "=acl",
            "egress": True,
            "ruleNumber": 200,
            "ruleAction": "allow",
            "protocol": "-1",
            "ipv6CidrBlock": "::/0",
        },
    ),
    "subnet_acl": ("ec2/networkAclAssociation:NetworkAclAssociation", {"networkAclId": "=acl", "subnetId": "=public"}),
    "group": (
        "ec2/securityGroup:SecurityGroup",
        {"name": "g", "description": "Drawbridge gateway", "vpcId": "=vpc", "tags": {"Name": "g"}},
    ),
    "tunnel_rule": (
        "vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        {
            "securityGroupId": "=group",
            "description": "tunnel",
            "ipProtocol": "udp",
            "fromPort": 1194,
            "toPort": 1194,
            "cidrIpv4": "203.0.113.7/32",
        },
    ),
    "rule6": (
        "vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        {"securityGroupId": "=group", "description": "opened", "ipProtocol": "-1", "cidrIpv6": "2001:db8::/32"},
    ),
    "out_rule": (
        "vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        {"securityGroupId": "=group", "description": "everything", "ipProtocol": "-1", "cidrIpv4": "0.0.0.0/0"},
    ),
    "interface": (
        "ec2/networkInterface:NetworkInterface",
        {
            "subnetId": "=public",
            "securityGroups": ["=group"],
            "sourceDestCheck": False,
            "description": "Drawbridge gateway",
            "tags": {"Name": "n"},
        },
    ),
    "route_behind": (
        "ec2/route:Route",
        {"routeTableId": "=table", "destinationCidrBlock": "10.8.0.0/24", "networkInterfaceId": "=interface"},
    ),
    "address": ("ec2/eip:Eip", {"domain": "vpc", "networkInterface": "=interface", "tags": {"Name": "e"}}),
    "role": (
        "iam/role:Role",
        {
            "name": "role",
            "description": "Drawbridge gateway",
            "assumeRolePolicy": json.dumps(TRUST),
            "permissionsBoundary": BOUNDARIES[0],
            "tags": {"Name": "r"},
        },
    ),
    "role_policy": ("iam/rolePolicy:RolePolicy", {"name": "gateway", "role": "=role.name", "policy": read_policy("a")}),
    "profile": ("iam/instanceProfile:InstanceProfile", {"name": "profile", "role": "=role.name"}),
    "user": (
        "iam/user:User",
        {"name": "user", "forceDestroy": True, "permissionsBoundary": BOUNDARIES[0], "tags": {"Name": "u"}},
    ),
    "user_policy": ("iam/userPolicy:UserPolicy", {"name": "kit", "user": "=user.name", "policy": read_policy("a")}),
    "bucket": ("s3/bucket:Bucket", {"bucket": "vault-of-a-stack", "forceDestroy": True, "tags": {"Name": "b"}}),
    "private": (
        "s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        {
            "bucket": "=bucket",
            "blockPublicAcls": True,
            "blockPublicPolicy": True,
            "ignorePublicAcls": True,
            "restrictPublicBuckets": True,
        },
    ),
    "encryption": (
        "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        {"bucket": "=bucket", "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]},
    ),
    "tls_only": ("s3/bucketPolicy:BucketPolicy", {"bucket": "=bucket", "policy": TLS_ONLY}),
    "release": (
        "s3/bucketObjectv2:BucketObjectv2",
        {"bucket": "=bucket", "key": "release", "contentBase64": "AAEC", "contentType": "application/gzip"},
    ),
    "key": (
        "kms/key:Key",
        {
            "description": "Secrets of a stack",
            "deletionWindowInDays": 7,
            "policy": key_policy("kms:*"),
            "tags": {"Name": "k"},
        },
    ),
    "key_alias": ("kms/alias:Alias", {"name": "alias/stack", "targetKeyId": "=key.keyId"}),
    "log": ("cloudwatch/logGroup:LogGroup", {"name": "/a/log", "retentionInDays": 30, "tags": {"Name": "l"}}),
    "pointer": ("ssm/parameter:Parameter", {"name": "/a/b", "type": "String", "value": "v", "tags": {"Name": "p"}}),
    "topic": ("sns/topic:Topic", {"name": "alerts", "displayName": "Alerts", "tags": {"Name": "t"}}),
    "topic_policy": ("sns/topicPolicy:TopicPolicy", {"arn": "=topic.arn", "policy": topic_policy("sns:Publish")}),
    "subscription": (
        "sns/topicSubscription:TopicSubscription",
        {"topic": "=topic.arn", "protocol": "email", "endpoint": "operator@example.com"},
    ),
    "alarm": (
        "cloudwatch/metricAlarm:MetricAlarm",
        {
            "name": "heartbeat",
            "alarmDescription": "Nothing for 15 minutes",
            "namespace": "Drawbridge/dev",
            "metricName": "Ready",
            "statistic": "SampleCount",
            "comparisonOperator": "LessThanThreshold",
            "threshold": 1,
            "period": 300,
            "evaluationPeriods": 3,
            "treatMissingData": "breaching",
            "alarmActions": ["=topic.arn"],
            "okActions": ["=topic.arn"],
            "tags": {"Name": "a"},
        },
    ),
    "check_alarm": (
        "cloudwatch/metricAlarm:MetricAlarm",
        {
            "name": "check",
            "namespace": "AWS/EC2",
            "metricName": "StatusCheckFailed_Instance",
            "dimensions": {"InstanceId": "i-0123456789abcdef0"},
            "statistic": "Maximum",
            "comparisonOperator": "GreaterThanOrEqualToThreshold",
            "threshold": 1,
            "period": 60,
            "evaluationPeriods": 3,
            "alarmActions": [f"arn:aws:automate:{REGION}:ec2:reboot"],
        },
    ),
    "instance": (
        "ec2/instance:Instance",
        {
            "ami": AMI,
            "instanceType": "t4g.nano",
            "iamInstanceProfile": "=profile.name",
            # The Terraform provider of this table's version has no primary_network_interface yet.
            "networkInterfaces": [{"networkInterfaceId": "=interface", "deviceIndex": 0}],
            "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1},
            "creditSpecification": {"cpuCredits": "standard"},
            "rootBlockDevice": {"volumeType": "gp3", "volumeSize": 8, "encrypted": True, "deleteOnTermination": True},
            "userData": "#cloud-config\n",
            "userDataReplaceOnChange": True,
            "tags": {"Name": "m"},
        },
    ),
    "zone": ("route53/zone:Zone", {"name": "example.internal", "comment": "c", "vpcs": [{"vpcId": "=vpc"}]}),
    "record": (
        "route53/record:Record",
        {"zoneId": "=zone", "name": "vpn.example.internal", "type": "A", "ttl": 60, "records": ["192.0.2.1"]},
    ),
}

#: (resource, inputs that change), one update after another.
CHANGES: list[tuple[str, Props]] = [
    ("tunnel_rule", {"fromPort": 1300, "toPort": 1300}),
    ("acl_udp", {"fromPort": 1300, "toPort": 1300}),
    ("role", {"permissionsBoundary": BOUNDARIES[1]}),
    ("role_policy", {"policy": read_policy("b")}),
    ("user", {"permissionsBoundary": None}),
    ("user_policy", {"policy": read_policy("b")}),
    ("key", {"policy": key_policy("kms:*", "kms:Decrypt")}),
    ("log", {"retentionInDays": 90}),
    ("pointer", {"value": "w"}),
    ("topic_policy", {"policy": topic_policy("sns:*")}),
    ("topic", {"displayName": "Alarms"}),
    ("alarm", {"threshold": 2}),
    ("check_alarm", {"dimensions": {"InstanceId": "i-0123456789abcdef1"}}),
    ("record", {"records": ["192.0.2.2"]}),
    ("release", {"contentBase64": "AAED"}),
    ("interface", {"sourceDestCheck": True}),
    ("instance", {"instanceType": "t4g.micro", "creditSpecification": {"cpuCredits": "unlimited"}}),
]


def references(value: Any) -> set[str]:
    """Return the names of the resources that a value refers to."""
    if isinstance(value, dict):
        return {name for item in value.values() for name in references(item)}
    if isinstance(value, list):
        return {name for item in value for name in references(item)}
    reference = re.fullmatch(r"=(\w+)(\.\w+)?", value) if isinstance(value, str) else None
    return {reference[1]} if reference else set()
