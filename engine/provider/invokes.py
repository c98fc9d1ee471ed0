"""Answer the provider's functions, which only look things up."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from engine.provider.resource_type import Aws, ProviderError, tag_map
from engine.provider.values import Props, secret

Invoke = Callable[[Aws, Props], Props]
INVOKES: dict[str, Invoke] = {}


def invoke(token: str, *argument_names: str) -> Callable[[Invoke], Invoke]:
    """Register the decorated function under its token, with the names of the arguments it accepts."""

    def enter(function: Invoke) -> Invoke:
        def checked(aws: Aws, arguments: Props) -> Props:
            unknown = sorted(set(arguments) - set(argument_names))
            if unknown:
                raise ProviderError(f"{token}: this provider does not know the argument {', '.join(unknown)}")
            return function(aws, arguments)

        INVOKES[token] = checked
        return function

    return enter


@invoke("aws:index/getCallerIdentity:getCallerIdentity")
def caller_identity(aws: Aws, arguments: Props) -> Props:
    """Return the caller's account, ARN and user id."""
    identity = aws.client("sts").get_caller_identity()
    return {
        "accountId": identity["Account"],
        "arn": identity["Arn"],
        "userId": identity["UserId"],
        "id": identity["Account"],
    }


@invoke("aws:index/getRegion:getRegion", "name", "region")
def region(aws: Aws, arguments: Props) -> Props:
    """Return the region's name."""
    name = arguments.get("region") or arguments.get("name") or aws.region
    return {"id": name, "name": name, "region": name, "endpoint": f"ec2.{name}.amazonaws.com", "description": name}


@invoke("aws:index/getPartition:getPartition")
def partition(aws: Aws, arguments: Props) -> Props:
    """Return the partition, which is always `aws`."""
    return {"id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws"}


@invoke("aws:index/getAvailabilityZones:getAvailabilityZones", "state")
def availability_zones(aws: Aws, arguments: Props) -> Props:
    """Return the region's zones, optionally those in one state."""
    zones = aws.client("ec2").describe_availability_zones()["AvailabilityZones"]
    zones = [zone for zone in zones if arguments.get("state") in (None, zone["State"])]
    return {
        "id": aws.region,
        "names": [zone["ZoneName"] for zone in zones],
        "zoneIds": [zone["ZoneId"] for zone in zones],
        "groupNames": [zone.get("GroupName", aws.region) for zone in zones],
        **arguments,
    }


@invoke("aws:ssm/getParameter:getParameter", "name", "withDecryption")
def parameter(aws: Aws, arguments: Props) -> Props:
    """Return one parameter; the value of a SecureString is a secret."""
    decrypt = arguments.get("withDecryption", True)
    response = aws.client("ssm").get_parameter(Name=arguments["name"], WithDecryption=decrypt)["Parameter"]
    secure = response["Type"] == "SecureString"
    return {
        "id": arguments["name"],
        "name": arguments["name"],
        "arn": response.get("ARN", ""),
        "type": response["Type"],
        "value": secret(response["Value"]) if secure else response["Value"],
        "insecureValue": "" if secure else response["Value"],
        "version": response["Version"],
        "withDecryption": decrypt,
    }


def _build_filters(arguments: Props, **names: str) -> list[dict[str, Any]]:
    filters = [{"Name": row["name"], "Values": row["values"]} for row in arguments.get("filters") or ()]
    filters += [{"Name": f"tag:{key}", "Values": [value]} for key, value in (arguments.get("tags") or {}).items()]
    return filters + [
        {"Name": name, "Values": [str(arguments[key])]} for key, name in names.items() if key in arguments
    ]


def _only_match(items: list[dict[str, Any]], noun: str) -> dict[str, Any]:
    if len(items) != 1:
        raise ProviderError(f"{len(items)} {noun}s match, but exactly one must match")
    return items[0]


@invoke("aws:ec2/getVpc:getVpc", "id", "cidrBlock", "default", "filters", "tags", "state")
def vpc(aws: Aws, arguments: Props) -> Props:
    """Return the one VPC that matches."""
    ec2 = aws.client("ec2")
    ids = {"VpcIds": [arguments["id"]]} if "id" in arguments else {}
    filters = _build_filters(arguments, cidrBlock="cidr", state="state")
    if "default" in arguments:
        filters.append({"Name": "isDefault", "Values": [str(arguments["default"]).lower()]})
    item = _only_match(ec2.describe_vpcs(**ids, Filters=filters)["Vpcs"], "VPC")
    id = item["VpcId"]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [id]}])["RouteTables"]
    main_tables = [t["RouteTableId"] for t in tables if any(a.get("Main") for a in t["Associations"])]
    attribute = ec2.describe_vpc_attribute
    ipv6_range = _ipv6(item)
    return {
        "id": id,
        "arn": aws.arn("ec2", f"vpc/{id}"),
        "cidrBlock": item["CidrBlock"],
        "cidrBlockAssociations": [
            {
                "associationId": row["AssociationId"],
                "cidrBlock": row["CidrBlock"],
                "state": row["CidrBlockState"]["State"],
            }
            for row in item.get("CidrBlockAssociationSet") or ()
        ],
        "default": bool(item.get("IsDefault")),
        "dhcpOptionsId": item.get("DhcpOptionsId", ""),
        "instanceTenancy": item.get("InstanceTenancy", "default"),
        "ownerId": item.get("OwnerId", aws.account),
        "state": item["State"],
        "ipv6CidrBlockAssociations": [
            {
                "associationId": row["AssociationId"],
                "ipSource": row.get("IpSource", "amazon"),
                "ipv6AddressAttribute": row.get("Ipv6AddressAttribute", "public"),
                "ipv6CidrBlock": row["Ipv6CidrBlock"],
                "ipv6Pool": row.get("Ipv6Pool", "Amazon"),
                "networkBorderGroup": row.get("NetworkBorderGroup", ""),
                "state": row["Ipv6CidrBlockState"]["State"],
            }
            for row in item.get("Ipv6CidrBlockAssociationSet") or ()
        ],
        "ipv6CidrBlock": ipv6_range.get("Ipv6CidrBlock", ""),
        "ipv6AssociationId": ipv6_range.get("AssociationId", ""),
        "mainRouteTableId": main_tables[0] if main_tables else "",
        "enableDnsSupport": attribute(VpcId=id, Attribute="enableDnsSupport")["EnableDnsSupport"]["Value"],
        "enableDnsHostnames": attribute(VpcId=id, Attribute="enableDnsHostnames")["EnableDnsHostnames"]["Value"],
        "tags": tag_map(item.get("Tags")),
    }


def _ipv6(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first IPv6 range of a VPC or subnet."""
    return next(iter(item.get("Ipv6CidrBlockAssociationSet") or ()), {})


@invoke(
    "aws:ec2/getSubnet:getSubnet",
    *("id", "vpcId", "cidrBlock", "availabilityZone", "defaultForAz", "filters", "tags", "state"),
)
def subnet(aws: Aws, arguments: Props) -> Props:
    """Return the one subnet that matches."""
    ids = {"SubnetIds": [arguments["id"]]} if "id" in arguments else {}
    filters = _build_filters(
        arguments, vpcId="vpc-id", cidrBlock="cidr-block", availabilityZone="availability-zone", state="state"
    )
    item = _only_match(aws.client("ec2").describe_subnets(**ids, Filters=filters)["Subnets"], "subnet")
    ipv6_range = _ipv6(item)
    return {
        "id": item["SubnetId"],
        "arn": aws.arn("ec2", f"subnet/{item['SubnetId']}"),
        "vpcId": item["VpcId"],
        "cidrBlock": item["CidrBlock"],
        "availabilityZone": item["AvailabilityZone"],
        "availabilityZoneId": item.get("AvailabilityZoneId", ""),
        "ipv6CidrBlock": ipv6_range.get("Ipv6CidrBlock", ""),
        "ipv6CidrBlockAssociationId": ipv6_range.get("AssociationId", ""),
        "availableIpAddressCount": item.get("AvailableIpAddressCount", 0),
        "mapPublicIpOnLaunch": bool(item.get("MapPublicIpOnLaunch")),
        "defaultForAz": bool(item.get("DefaultForAz")),
        "ownerId": item.get("OwnerId", aws.account),
        "state": item["State"],
        "tags": tag_map(item.get("Tags")),
    }


@invoke("aws:ec2/getVpcs:getVpcs", "filters", "tags")
def vpcs(aws: Aws, arguments: Props) -> Props:
    """Return the ids of all VPCs that match."""
    items = aws.client("ec2").describe_vpcs(Filters=_build_filters(arguments))["Vpcs"]
    return {"id": aws.region, "ids": [item["VpcId"] for item in items], **arguments}


@invoke("aws:ec2/getSubnets:getSubnets", "filters", "tags")
def subnets(aws: Aws, arguments: Props) -> Props:
    """Return the ids of all subnets that match."""
    items = aws.client("ec2").describe_subnets(Filters=_build_filters(arguments))["Subnets"]
    return {"id": aws.region, "ids": [item["SubnetId"] for item in items], **arguments}


@invoke("aws:ec2/getEips:getEips", "filters", "tags")
def elastic_ips(aws: Aws, arguments: Props) -> Props:
    """Return all Elastic IPs that match."""
    items = aws.client("ec2").describe_addresses(Filters=_build_filters(arguments))["Addresses"]
    return {
        "id": aws.region,
        "allocationIds": [item["AllocationId"] for item in items],
        "publicIps": [item["PublicIp"] for item in items],
        **arguments,
    }


@invoke("aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings", "filters", "locationType")
def instance_type_offerings(aws: Aws, arguments: Props) -> Props:
    """Return which instance types are offered where; the three lists go together."""
    response = aws.client("ec2").describe_instance_type_offerings(
        LocationType=arguments.get("locationType", "region"), Filters=_build_filters(arguments)
    )
    offerings = response["InstanceTypeOfferings"]
    return {
        "id": aws.region,
        "instanceTypes": [offering["InstanceType"] for offering in offerings],
        "locations": [offering["Location"] for offering in offerings],
        "locationTypes": [offering["LocationType"] for offering in offerings],
        **arguments,
    }


@invoke("aws:ec2/getInstanceType:getInstanceType", "instanceType")
def instance_type(aws: Aws, arguments: Props) -> Props:
    """Return an instance type's vCPUs."""
    response = aws.client("ec2").describe_instance_types(InstanceTypes=[arguments["instanceType"]])
    (row,) = response["InstanceTypes"]
    return {"id": row["InstanceType"], "defaultVcpus": row["VCpuInfo"]["DefaultVCpus"], **arguments}


@invoke("aws:servicequotas/getServiceQuota:getServiceQuota", "serviceCode", "quotaCode")
def service_quota(aws: Aws, arguments: Props) -> Props:
    """Return the quota that is in force."""
    quota = aws.client("service-quotas").get_service_quota(
        ServiceCode=arguments["serviceCode"], QuotaCode=arguments["quotaCode"]
    )["Quota"]
    return {
        "id": quota.get("QuotaArn", arguments["quotaCode"]),
        "arn": quota.get("QuotaArn", ""),
        "adjustable": quota.get("Adjustable", False),
        "globalQuota": quota.get("GlobalQuota", False),
        "quotaName": quota.get("QuotaName", ""),
        "serviceName": quota.get("ServiceName", ""),
        "value": quota["Value"],
        "defaultValue": quota["Value"],
        **arguments,
    }


@invoke("aws:ec2/getRouteTables:getRouteTables", "vpcId", "filters", "tags")
def route_tables(aws: Aws, arguments: Props) -> Props:
    """Return the ids of all route tables that match."""
    filters = _build_filters(arguments, vpcId="vpc-id")
    items = aws.client("ec2").describe_route_tables(Filters=filters)["RouteTables"]
    return {"id": aws.region, "ids": [item["RouteTableId"] for item in items], **arguments}


@invoke("aws:vpc/getSecurityGroupRules:getSecurityGroupRules", "filters", "tags")
def security_group_rules(aws: Aws, arguments: Props) -> Props:
    """Return the ids of all rules of security groups that match."""
    pages = aws.client("ec2").get_paginator("describe_security_group_rules").paginate(Filters=_build_filters(arguments))
    ids = [item["SecurityGroupRuleId"] for page in pages for item in page["SecurityGroupRules"]]
    return {"id": aws.region, "ids": ids, **arguments}


@invoke("aws:vpc/getSecurityGroupRule:getSecurityGroupRule", "securityGroupRuleId", "filters")
def security_group_rule(aws: Aws, arguments: Props) -> Props:
    """Return the one rule of a security group that matches."""
    filters = _build_filters(arguments, securityGroupRuleId="security-group-rule-id")
    item = _only_match(
        aws.client("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"], "security group rule"
    )
    id = item["SecurityGroupRuleId"]
    return {
        "id": id,
        "securityGroupRuleId": id,
        "arn": aws.arn("ec2", f"security-group-rule/{id}"),
        "securityGroupId": item["GroupId"],
        "isEgress": item["IsEgress"],
        "description": item.get("Description", ""),
        "ipProtocol": item["IpProtocol"],
        "fromPort": item["FromPort"],
        "toPort": item["ToPort"],
        "cidrIpv4": item.get("CidrIpv4", ""),
        "cidrIpv6": item.get("CidrIpv6", ""),
        "prefixListId": item.get("PrefixListId", ""),
        "referencedSecurityGroupId": item.get("ReferencedGroupInfo", {}).get("GroupId", ""),
        "tags": tag_map(item.get("Tags")),
    }


#: Members of a route, by the provider's names.
_ROUTE_MEMBERS = {
    "cidrBlock": "DestinationCidrBlock",
    "ipv6CidrBlock": "DestinationIpv6CidrBlock",
    "destinationPrefixListId": "DestinationPrefixListId",
    "carrierGatewayId": "CarrierGatewayId",
    "coreNetworkArn": "CoreNetworkArn",
    "egressOnlyGatewayId": "EgressOnlyInternetGatewayId",
    "gatewayId": "GatewayId",
    "instanceId": "InstanceId",
    "localGatewayId": "LocalGatewayId",
    "natGatewayId": "NatGatewayId",
    "networkInterfaceId": "NetworkInterfaceId",
    "transitGatewayId": "TransitGatewayId",
    "vpcEndpointId": "VpcEndpointId",
    "vpcPeeringConnectionId": "VpcPeeringConnectionId",
}


@invoke("aws:ec2/getRouteTable:getRouteTable", "routeTableId", "subnetId", "vpcId", "filters", "tags")
def route_table(aws: Aws, arguments: Props) -> Props:
    """Return the one route table that matches; its routes are those that somebody created."""
    names = {"routeTableId": "route-table-id", "subnetId": "association.subnet-id", "vpcId": "vpc-id"}
    item = _only_match(
        aws.client("ec2").describe_route_tables(Filters=_build_filters(arguments, **names))["RouteTables"],
        "route table",
    )
    # The provider leaves out the VPC's own routes and those to gateway endpoints.
    routes = [
        row
        for row in item["Routes"]
        if row.get("GatewayId") != "local" and not str(row.get("GatewayId", "")).startswith("vpce-")
    ]
    return {
        "id": item["RouteTableId"],
        "routeTableId": item["RouteTableId"],
        "vpcId": item["VpcId"],
        "arn": aws.arn("ec2", f"route-table/{item['RouteTableId']}"),
        "ownerId": item.get("OwnerId", aws.account),
        "routes": [{key: row.get(name) or "" for key, name in _ROUTE_MEMBERS.items()} for row in routes],
        "associations": [
            {
                "routeTableAssociationId": row["RouteTableAssociationId"],
                "routeTableId": item["RouteTableId"],
                "subnetId": row.get("SubnetId") or "",
                "gatewayId": row.get("GatewayId") or "",
                "main": bool(row.get("Main")),
            }
            for row in item.get("Associations") or ()
        ],
        "tags": tag_map(item.get("Tags")),
    }


@invoke("aws:route53/getZone:getZone", "zoneId")
def zone(aws: Aws, arguments: Props) -> Props:
    """Return the hosted zone with an ID."""
    route53, id = aws.client("route53"), arguments["zoneId"]
    answer = route53.get_hosted_zone(Id=id)
    tags = route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=id)["ResourceTagSet"]["Tags"]
    config = answer["HostedZone"]["Config"]
    return {
        "id": id,
        "zoneId": id,
        "arn": f"arn:aws:route53:::hostedzone/{id}",
        "name": answer["HostedZone"]["Name"].rstrip("."),
        "privateZone": bool(config.get("PrivateZone")),
        "comment": config.get("Comment") or "",
        "callerReference": answer["HostedZone"]["CallerReference"],
        "resourceRecordSetCount": answer["HostedZone"].get("ResourceRecordSetCount", 0),
        "nameServers": answer.get("DelegationSet", {}).get("NameServers", []),
        "tags": tag_map(tags),
    }


@invoke("aws:route53/getRecords:getRecords", "zoneId", "nameRegex")
def records(aws: Aws, arguments: Props) -> Props:
    """Return the records of a hosted zone whose names, with a final dot, match a regular expression."""
    pages = aws.client("route53").get_paginator("list_resource_record_sets")
    matching = [
        record
        for page in pages.paginate(HostedZoneId=arguments["zoneId"])
        for record in page["ResourceRecordSets"]
        if re.search(arguments.get("nameRegex") or "", record["Name"])
    ]
    sets = [
        {
            "name": record["Name"],
            "type": record["Type"],
            "ttl": record.get("TTL", 0),
            "setIdentifier": record.get("SetIdentifier", ""),
            "resourceRecords": [{"value": value["Value"]} for value in record.get("ResourceRecords", ())],
        }
        for record in matching
    ]
    return {**arguments, "resourceRecordSets": sets}


def _unwrap_values(value: Any) -> Any:
    """Return the item of a list of one, as AWS writes policy documents."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _write_principals(rows: list[Props]) -> Any:
    if any(row["type"] == "*" for row in rows):
        return "*"
    return {row["type"]: _unwrap_values(sorted(row["identifiers"])) for row in rows}


@invoke("aws:iam/getPolicyDocument:getPolicyDocument", "statements", "version", "policyId")
def policy_document(aws: Aws, arguments: Props) -> Props:
    """Return a policy document made of the statements; no AWS call is made."""
    statements = []
    for row in arguments.get("statements") or ():
        statement: Props = {"Effect": row.get("effect", "Allow")}
        for key, name in (("sid", "Sid"), ("actions", "Action"), ("notActions", "NotAction")):
            if row.get(key):
                statement[name] = _unwrap_values(row[key])
        for key, name in (("resources", "Resource"), ("notResources", "NotResource")):
            if row.get(key):
                statement[name] = _unwrap_values(row[key])
        for key, name in (("principals", "Principal"), ("notPrincipals", "NotPrincipal")):
            if row.get(key):
                statement[name] = _write_principals(row[key])
        for condition in row.get("conditions") or ():
            tests = statement.setdefault("Condition", {}).setdefault(condition["test"], {})
            tests[condition["variable"]] = _unwrap_values(condition["values"])
        statements.append(statement)
    document = {"Version": arguments.get("version", "2012-10-17"), "Statement": statements}
    if arguments.get("policyId"):
        document["Id"] = arguments["policyId"]
    return {
        "id": "policy",
        "json": json.dumps(document, indent=2),
        "minifiedJson": json.dumps(document, separators=(",", ":")),
        "version": document["Version"],
        **{key: value for key, value in arguments.items() if key == "statements"},
    }
