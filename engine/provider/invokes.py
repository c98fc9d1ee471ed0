"""Functions of the provider: look-ups that make nothing."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from engine.provider.kind import Aws, ProviderError, tag_map
from engine.provider.values import Props, secret

Invoke = Callable[[Aws, Props], Props]
INVOKES: dict[str, Invoke] = {}


def invoke(token: str, *arguments: str) -> Callable[[Invoke], Invoke]:
    """Decorator: enter a function under its token with the arguments it understands."""

    def enter(function: Invoke) -> Invoke:
        def checked(aws: Aws, given: Props) -> Props:
            unknown = sorted(set(given) - set(arguments))
            if unknown:
                raise ProviderError(f"{token}: the lab's provider does not know the argument {', '.join(unknown)}")
            return function(aws, given)

        INVOKES[token] = checked
        return function

    return enter


@invoke("aws:index/getCallerIdentity:getCallerIdentity")
def caller_identity(aws: Aws, given: Props) -> Props:
    """Say who calls."""
    who = aws.client("sts").get_caller_identity()
    return {"accountId": who["Account"], "arn": who["Arn"], "userId": who["UserId"], "id": who["Account"]}


@invoke("aws:index/getRegion:getRegion", "name", "region")
def region(aws: Aws, given: Props) -> Props:
    """Name the region."""
    name = given.get("region") or given.get("name") or aws.region
    return {"id": name, "name": name, "region": name, "endpoint": f"ec2.{name}.amazonaws.com", "description": name}


@invoke("aws:index/getPartition:getPartition")
def partition(aws: Aws, given: Props) -> Props:
    """Name the partition."""
    return {"id": "aws", "partition": "aws", "dnsSuffix": "amazonaws.com", "reverseDnsPrefix": "com.amazonaws"}


@invoke("aws:index/getAvailabilityZones:getAvailabilityZones", "state")
def availability_zones(aws: Aws, given: Props) -> Props:
    """List the zones of the region, those in a state where one is given."""
    zones = aws.client("ec2").describe_availability_zones()["AvailabilityZones"]
    zones = [zone for zone in zones if given.get("state") in (None, zone["State"])]
    return {
        "id": aws.region,
        "names": [zone["ZoneName"] for zone in zones],
        "zoneIds": [zone["ZoneId"] for zone in zones],
        "groupNames": [zone.get("GroupName", aws.region) for zone in zones],
        **given,
    }


@invoke("aws:ssm/getParameter:getParameter", "name", "withDecryption")
def parameter(aws: Aws, given: Props) -> Props:
    """Read one parameter; a SecureString's value comes as a secret."""
    decrypt = given.get("withDecryption", True)
    found = aws.client("ssm").get_parameter(Name=given["name"], WithDecryption=decrypt)["Parameter"]
    secure = found["Type"] == "SecureString"
    return {
        "id": given["name"],
        "name": given["name"],
        "arn": found.get("ARN", ""),
        "type": found["Type"],
        "value": secret(found["Value"]) if secure else found["Value"],
        "insecureValue": "" if secure else found["Value"],
        "version": found["Version"],
        "withDecryption": decrypt,
    }


def _filters(given: Props, **names: str) -> list[dict[str, Any]]:
    filters = [{"Name": row["name"], "Values": row["values"]} for row in given.get("filters") or ()]
    filters += [{"Name": f"tag:{key}", "Values": [value]} for key, value in (given.get("tags") or {}).items()]
    return filters + [{"Name": name, "Values": [str(given[key])]} for key, name in names.items() if key in given]


def _one(found: list[dict[str, Any]], noun: str) -> dict[str, Any]:
    if len(found) != 1:
        raise ProviderError(f"{len(found)} {noun}s match where one must")
    return found[0]


@invoke("aws:ec2/getVpc:getVpc", "id", "cidrBlock", "default", "filters", "tags", "state")
def vpc(aws: Aws, given: Props) -> Props:
    """Find one VPC."""
    ec2 = aws.client("ec2")
    ids = {"VpcIds": [given["id"]]} if "id" in given else {}
    filters = _filters(given, cidrBlock="cidr", state="state")
    if "default" in given:
        filters.append({"Name": "isDefault", "Values": [str(given["default"]).lower()]})
    found = _one(ec2.describe_vpcs(**ids, Filters=filters)["Vpcs"], "VPC")
    id = found["VpcId"]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [id]}])["RouteTables"]
    main = [t["RouteTableId"] for t in tables if any(a.get("Main") for a in t["Associations"])]
    attribute = ec2.describe_vpc_attribute
    six = _ipv6(found)
    return {
        "id": id,
        "arn": aws.arn("ec2", f"vpc/{id}"),
        "cidrBlock": found["CidrBlock"],
        "cidrBlockAssociations": [
            {
                "associationId": row["AssociationId"],
                "cidrBlock": row["CidrBlock"],
                "state": row["CidrBlockState"]["State"],
            }
            for row in found.get("CidrBlockAssociationSet") or ()
        ],
        "default": bool(found.get("IsDefault")),
        "dhcpOptionsId": found.get("DhcpOptionsId", ""),
        "instanceTenancy": found.get("InstanceTenancy", "default"),
        "ownerId": found.get("OwnerId", aws.account),
        "state": found["State"],
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
            for row in found.get("Ipv6CidrBlockAssociationSet") or ()
        ],
        "ipv6CidrBlock": six.get("Ipv6CidrBlock", ""),
        "ipv6AssociationId": six.get("AssociationId", ""),
        "mainRouteTableId": main[0] if main else "",
        "enableDnsSupport": attribute(VpcId=id, Attribute="enableDnsSupport")["EnableDnsSupport"]["Value"],
        "enableDnsHostnames": attribute(VpcId=id, Attribute="enableDnsHostnames")["EnableDnsHostnames"]["Value"],
        "tags": tag_map(found.get("Tags")),
    }


def _ipv6(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The IPv6 range of a VPC or subnet."""
    return next(iter(found.get("Ipv6CidrBlockAssociationSet") or ()), {})


@invoke(
    "aws:ec2/getSubnet:getSubnet",
    *("id", "vpcId", "cidrBlock", "availabilityZone", "defaultForAz", "filters", "tags", "state"),
)
def subnet(aws: Aws, given: Props) -> Props:
    """Find one subnet."""
    ids = {"SubnetIds": [given["id"]]} if "id" in given else {}
    filters = _filters(
        given, vpcId="vpc-id", cidrBlock="cidr-block", availabilityZone="availability-zone", state="state"
    )
    found = _one(aws.client("ec2").describe_subnets(**ids, Filters=filters)["Subnets"], "subnet")
    six = _ipv6(found)
    return {
        "id": found["SubnetId"],
        "arn": aws.arn("ec2", f"subnet/{found['SubnetId']}"),
        "vpcId": found["VpcId"],
        "cidrBlock": found["CidrBlock"],
        "availabilityZone": found["AvailabilityZone"],
        "availabilityZoneId": found.get("AvailabilityZoneId", ""),
        "ipv6CidrBlock": six.get("Ipv6CidrBlock", ""),
        "ipv6CidrBlockAssociationId": six.get("AssociationId", ""),
        "availableIpAddressCount": found.get("AvailableIpAddressCount", 0),
        "mapPublicIpOnLaunch": bool(found.get("MapPublicIpOnLaunch")),
        "defaultForAz": bool(found.get("DefaultForAz")),
        "ownerId": found.get("OwnerId", aws.account),
        "state": found["State"],
        "tags": tag_map(found.get("Tags")),
    }


@invoke("aws:ec2/getRouteTable:getRouteTable", "routeTableId", "subnetId", "vpcId", "filters", "tags")
def route_table(aws: Aws, given: Props) -> Props:
    """Find one route table."""
    names = {"routeTableId": "route-table-id", "subnetId": "association.subnet-id", "vpcId": "vpc-id"}
    found = _one(
        aws.client("ec2").describe_route_tables(Filters=_filters(given, **names))["RouteTables"], "route table"
    )
    return {
        "id": found["RouteTableId"],
        "routeTableId": found["RouteTableId"],
        "vpcId": found["VpcId"],
        "arn": aws.arn("ec2", f"route-table/{found['RouteTableId']}"),
        "ownerId": found.get("OwnerId", aws.account),
        "tags": tag_map(found.get("Tags")),
    }


def _values(value: Any) -> Any:
    """Spell a list of one as AWS's documents do: alone."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _principals(rows: list[Props]) -> Any:
    if any(row["type"] == "*" for row in rows):
        return "*"
    return {row["type"]: _values(sorted(row["identifiers"])) for row in rows}


@invoke("aws:iam/getPolicyDocument:getPolicyDocument", "statements", "version", "policyId")
def policy_document(aws: Aws, given: Props) -> Props:
    """Spell a policy document out of statements; nothing is asked of AWS."""
    statements = []
    for row in given.get("statements") or ():
        statement: Props = {"Effect": row.get("effect", "Allow")}
        for key, name in (("sid", "Sid"), ("actions", "Action"), ("notActions", "NotAction")):
            if row.get(key):
                statement[name] = _values(row[key])
        for key, name in (("resources", "Resource"), ("notResources", "NotResource")):
            if row.get(key):
                statement[name] = _values(row[key])
        for key, name in (("principals", "Principal"), ("notPrincipals", "NotPrincipal")):
            if row.get(key):
                statement[name] = _principals(row[key])
        for condition in row.get("conditions") or ():
            tests = statement.setdefault("Condition", {}).setdefault(condition["test"], {})
            tests[condition["variable"]] = _values(condition["values"])
        statements.append(statement)
    document = {"Version": given.get("version", "2012-10-17"), "Statement": statements}
    if given.get("policyId"):
        document["Id"] = given["policyId"]
    return {
        "id": "policy",
        "json": json.dumps(document, indent=2),
        "minifiedJson": json.dumps(document, separators=(",", ":")),
        "version": document["Version"],
        **{key: value for key, value in given.items() if key == "statements"},
    }
