"""Manage VPCs, subnets, gateways, route tables, routes and endpoints."""

import json
from typing import Any

from engine.provider.resource_type import (
    ClientError,
    Ec2ResourceType,
    ProviderError,
    ResourceType,
    differs,
    not_found,
    register,
    tag_outputs,
    without_none,
)
from engine.provider.values import Props


@register
class Vpc(Ec2ResourceType):
    token = "aws:ec2/vpc:Vpc"
    replace_on_change = frozenset({"cidrBlock", "instanceTenancy"})
    updatable = frozenset({"enableDnsSupport", "enableDnsHostnames", "assignGeneratedIpv6CidrBlock", "tags"})
    resource, describe, items, id_key = "vpc", "describe_vpcs", "Vpcs", "VpcId"

    def create(self, inputs: Props) -> str:
        response = self.ec2.create_vpc(
            **without_none(
                CidrBlock=inputs.get("cidrBlock"),
                InstanceTenancy=inputs.get("instanceTenancy", "default"),
                AmazonProvidedIpv6CidrBlock=inputs.get("assignGeneratedIpv6CidrBlock", False),
            ),
            **self.tagging(inputs),
        )
        id = str(response["Vpc"]["VpcId"])
        applied = {key: inputs.get(key) for key in ("tags", "assignGeneratedIpv6CidrBlock")}
        self.update(id, applied, inputs)
        return id

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        # DNS support first: AWS refuses host names without it.
        for key, argument in (("enableDnsSupport", "EnableDnsSupport"), ("enableDnsHostnames", "EnableDnsHostnames")):
            if key in news and differs(olds, news, key):
                current = self.ec2.describe_vpc_attribute(VpcId=id, Attribute=key)[argument]["Value"]
                if current != news[key]:
                    self.ec2.modify_vpc_attribute(VpcId=id, **{argument: {"Value": news[key]}})
        if differs(olds, news, "assignGeneratedIpv6CidrBlock"):
            self._set_ipv6(id, enabled=bool(news.get("assignGeneratedIpv6CidrBlock")))

    def _set_ipv6(self, id: str, *, enabled: bool) -> None:
        """Give the VPC an IPv6 range of Amazon's, or take it away."""
        associations = (self.item(id) or {}).get("Ipv6CidrBlockAssociationSet") or ()
        current = [row for row in associations if row["Ipv6CidrBlockState"]["State"] == "associated"]
        if enabled and not current:
            self.ec2.associate_vpc_cidr_block(VpcId=id, AmazonProvidedIpv6CidrBlock=True)
        for row in () if enabled else current:
            self.ec2.disassociate_vpc_cidr_block(AssociationId=row["AssociationId"])

    def outputs(self, item: dict[str, Any]) -> Props:
        ipv6 = next(iter(item.get("Ipv6CidrBlockAssociationSet") or ()), None)
        return {
            "arn": self.aws.arn("ec2", f"vpc/{item['VpcId']}"),
            "cidrBlock": item["CidrBlock"],
            "instanceTenancy": item.get("InstanceTenancy", "default"),
            "dhcpOptionsId": item.get("DhcpOptionsId"),
            "ownerId": item.get("OwnerId", self.aws.account),
            "ipv6CidrBlock": ipv6["Ipv6CidrBlock"] if ipv6 else "",
            "ipv6AssociationId": ipv6["AssociationId"] if ipv6 else "",
        }

    def read(self, id: str, inputs: Props) -> Props | None:
        outputs = super().read(id, inputs)
        if outputs is None:
            return None
        filters = [{"Name": "vpc-id", "Values": [id]}]
        tables = self.ec2.describe_route_tables(Filters=filters)["RouteTables"]
        main = [t["RouteTableId"] for t in tables if any(a.get("Main") for a in t["Associations"])]
        groups = self.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        acls = self.ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
        attribute = self.ec2.describe_vpc_attribute
        return outputs | {
            "mainRouteTableId": main[0] if main else "",
            "defaultRouteTableId": main[0] if main else "",
            "defaultSecurityGroupId": next((g["GroupId"] for g in groups if g["GroupName"] == "default"), ""),
            "defaultNetworkAclId": next((a["NetworkAclId"] for a in acls if a.get("IsDefault")), ""),
            "enableDnsSupport": attribute(VpcId=id, Attribute="enableDnsSupport")["EnableDnsSupport"]["Value"],
            "enableDnsHostnames": attribute(VpcId=id, Attribute="enableDnsHostnames")["EnableDnsHostnames"]["Value"],
        }

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_vpc(VpcId=id)


@register
class Subnet(Ec2ResourceType):
    token = "aws:ec2/subnet:Subnet"
    replace_on_change = frozenset({"vpcId", "cidrBlock", "availabilityZone", "availabilityZoneId", "ipv6Native"})
    updatable = frozenset({"mapPublicIpOnLaunch", "assignIpv6AddressOnCreation", "ipv6CidrBlock", "tags"})
    resource, describe, items, id_key = "subnet", "describe_subnets", "Subnets", "SubnetId"

    def create(self, inputs: Props) -> str:
        response = self.ec2.create_subnet(
            **without_none(
                VpcId=inputs["vpcId"],
                CidrBlock=inputs.get("cidrBlock"),
                AvailabilityZone=inputs.get("availabilityZone"),
                AvailabilityZoneId=inputs.get("availabilityZoneId"),
                Ipv6CidrBlock=inputs.get("ipv6CidrBlock"),
                Ipv6Native=inputs.get("ipv6Native"),
            ),
            **self.tagging(inputs),
        )
        id = str(response["Subnet"]["SubnetId"])
        self.update(id, {key: inputs.get(key) for key in ("tags", "ipv6CidrBlock")}, inputs)
        return id

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        if differs(olds, news, "ipv6CidrBlock"):
            self._set_ipv6(id, news.get("ipv6CidrBlock"))
        for key, argument in (
            ("mapPublicIpOnLaunch", "MapPublicIpOnLaunch"),
            ("assignIpv6AddressOnCreation", "AssignIpv6AddressOnCreation"),
        ):
            # Both are false in a new subnet.
            if bool(olds.get(key)) != bool(news.get(key)):
                self.ec2.modify_subnet_attribute(SubnetId=id, **{argument: {"Value": bool(news.get(key))}})

    def _set_ipv6(self, id: str, block: str | None) -> None:
        """Make this the subnet's only IPv6 range; None takes it away."""
        associations = (self.item(id) or {}).get("Ipv6CidrBlockAssociationSet") or ()
        for row in associations:
            if row["Ipv6CidrBlock"] != block:
                self.ec2.disassociate_subnet_cidr_block(AssociationId=row["AssociationId"])
        if block and block not in [row["Ipv6CidrBlock"] for row in associations]:
            self.ec2.associate_subnet_cidr_block(SubnetId=id, Ipv6CidrBlock=block)

    def outputs(self, item: dict[str, Any]) -> Props:
        ipv6 = next(iter(item.get("Ipv6CidrBlockAssociationSet") or ()), None)
        return {
            "arn": self.aws.arn("ec2", f"subnet/{item['SubnetId']}"),
            "vpcId": item["VpcId"],
            # None for an IPv6-only subnet.
            "cidrBlock": item.get("CidrBlock") or None,
            "ipv6Native": bool(item.get("Ipv6Native")),
            "availabilityZone": item["AvailabilityZone"],
            "availabilityZoneId": item.get("AvailabilityZoneId"),
            "mapPublicIpOnLaunch": bool(item.get("MapPublicIpOnLaunch")),
            "assignIpv6AddressOnCreation": bool(item.get("AssignIpv6AddressOnCreation")),
            "ipv6CidrBlock": ipv6["Ipv6CidrBlock"] if ipv6 else None,
            "ipv6CidrBlockAssociationId": ipv6["AssociationId"] if ipv6 else "",
            "ownerId": item.get("OwnerId", self.aws.account),
        }

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_subnet(SubnetId=id)


@register
class InternetGateway(Ec2ResourceType):
    token = "aws:ec2/internetGateway:InternetGateway"
    updatable = frozenset({"vpcId", "tags"})
    resource, describe = "internet-gateway", "describe_internet_gateways"
    items, id_key = "InternetGateways", "InternetGatewayId"

    def create(self, inputs: Props) -> str:
        id = str(self.ec2.create_internet_gateway(**self.tagging(inputs))["InternetGateway"]["InternetGatewayId"])
        self.update(id, {"tags": inputs.get("tags")}, inputs)
        return id

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        if differs(olds, news, "vpcId"):
            self._detach(id)
            if news.get("vpcId"):
                self.ec2.attach_internet_gateway(InternetGatewayId=id, VpcId=news["vpcId"])

    def outputs(self, item: dict[str, Any]) -> Props:
        attached = item.get("Attachments") or []
        return {
            "arn": self.aws.arn("ec2", f"internet-gateway/{item['InternetGatewayId']}"),
            "vpcId": attached[0]["VpcId"] if attached else "",
            "ownerId": item.get("OwnerId", self.aws.account),
        }

    def delete(self, id: str, outputs: Props) -> None:
        self._detach(id)
        self.ec2.delete_internet_gateway(InternetGatewayId=id)

    def _detach(self, id: str) -> None:
        for attached in (self.item(id) or {}).get("Attachments") or []:
            self.ec2.detach_internet_gateway(InternetGatewayId=id, VpcId=attached["VpcId"])


@register
class EgressOnlyInternetGateway(Ec2ResourceType):
    token = "aws:ec2/egressOnlyInternetGateway:EgressOnlyInternetGateway"
    replace_on_change = frozenset({"vpcId"})
    updatable = frozenset({"tags"})
    resource, describe = "egress-only-internet-gateway", "describe_egress_only_internet_gateways"
    items, id_key = "EgressOnlyInternetGateways", "EgressOnlyInternetGatewayId"

    def create(self, inputs: Props) -> str:
        response = self.ec2.create_egress_only_internet_gateway(VpcId=inputs["vpcId"], **self.tagging(inputs))
        return str(response["EgressOnlyInternetGateway"]["EgressOnlyInternetGatewayId"])

    def outputs(self, item: dict[str, Any]) -> Props:
        return {"vpcId": next((a["VpcId"] for a in item.get("Attachments") or ()), "")}

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_egress_only_internet_gateway(EgressOnlyInternetGatewayId=id)


@register
class RouteTable(Ec2ResourceType):
    token = "aws:ec2/routeTable:RouteTable"
    replace_on_change = frozenset({"vpcId"})
    updatable = frozenset({"tags"})
    resource, describe, items, id_key = "route-table", "describe_route_tables", "RouteTables", "RouteTableId"

    def create(self, inputs: Props) -> str:
        response = self.ec2.create_route_table(VpcId=inputs["vpcId"], **self.tagging(inputs))
        return str(response["RouteTable"]["RouteTableId"])

    def outputs(self, item: dict[str, Any]) -> Props:
        return {
            "arn": self.aws.arn("ec2", f"route-table/{item['RouteTableId']}"),
            "vpcId": item["VpcId"],
            "ownerId": item.get("OwnerId", self.aws.account),
        }

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_route_table(RouteTableId=id)


class _Association(ResourceType):
    """An association of a route table with a subnet, a gateway or a VPC."""

    def _tables(self) -> list[dict[str, Any]]:
        return list(self.aws.client("ec2").describe_route_tables()["RouteTables"])

    def _association(self, id: str) -> dict[str, Any] | None:
        rows: list[dict[str, Any]] = [row for table in self._tables() for row in table["Associations"]]
        return next((row for row in rows if row["RouteTableAssociationId"] == id), None)


@register
class RouteTableAssociation(_Association):
    token = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    replace_on_change = frozenset({"subnetId", "gatewayId", "routeTableId"})
    delete_before_replace = True  # a subnet has one route table
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        target = without_none(SubnetId=inputs.get("subnetId"), GatewayId=inputs.get("gatewayId"))
        response = self.aws.client("ec2").associate_route_table(RouteTableId=inputs["routeTableId"], **target)
        return str(response["AssociationId"])

    def read(self, id: str, inputs: Props) -> Props | None:
        row = self._association(id)
        ends = {} if row is None else {"subnetId": row.get("SubnetId"), "gatewayId": row.get("GatewayId")}
        return None if row is None else without_none(routeTableId=row["RouteTableId"], **ends)

    def delete(self, id: str, outputs: Props) -> None:
        self.aws.client("ec2").disassociate_route_table(AssociationId=id)

    def find(self, inputs: Props) -> list[str]:
        rows = [row for t in self._tables() if t["RouteTableId"] == inputs["routeTableId"] for row in t["Associations"]]
        ends = ("SubnetId", "subnetId"), ("GatewayId", "gatewayId")
        matching = [
            r
            for r in rows
            if any(r.get(aws_key) and r.get(aws_key) == inputs.get(input_key) for aws_key, input_key in ends)
        ]
        return [r["RouteTableAssociationId"] for r in matching]


@register
class MainRouteTableAssociation(_Association):
    token = "aws:ec2/mainRouteTableAssociation:MainRouteTableAssociation"
    replace_on_change = frozenset({"vpcId", "routeTableId"})

    def create(self, inputs: Props) -> str:
        row = self._main(inputs["vpcId"])
        response = self.aws.client("ec2").replace_route_table_association(
            AssociationId=row["RouteTableAssociationId"], RouteTableId=inputs["routeTableId"]
        )
        # Deletion restores the former main table, so the id carries that table's id.
        return f"{response['NewAssociationId']}:{row['RouteTableId']}"

    def read(self, id: str, inputs: Props) -> Props | None:
        association, original = id.split(":")
        row = self._association(association)
        return None if row is None else {"routeTableId": row["RouteTableId"], "originalRouteTableId": original}

    def delete(self, id: str, outputs: Props) -> None:
        association, original = id.split(":")
        self.aws.client("ec2").replace_route_table_association(AssociationId=association, RouteTableId=original)

    def _main(self, vpc: str) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [
            row for t in self._tables() if t["VpcId"] == vpc for row in t["Associations"] if row.get("Main")
        ]
        if not rows:
            raise ProviderError(f"{vpc} has no main route table")
        return rows[0]


ROUTE_TARGETS = {
    "gatewayId": "GatewayId",
    "networkInterfaceId": "NetworkInterfaceId",
    "egressOnlyGatewayId": "EgressOnlyInternetGatewayId",
    "natGatewayId": "NatGatewayId",
    "vpcPeeringConnectionId": "VpcPeeringConnectionId",
    "transitGatewayId": "TransitGatewayId",
}


@register
class Route(ResourceType):
    token = "aws:ec2/route:Route"
    replace_on_change = frozenset({"routeTableId", "destinationCidrBlock", "destinationIpv6CidrBlock"})
    updatable = frozenset(ROUTE_TARGETS)
    delete_before_replace = True  # a route table has one route for a destination
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        self.aws.client("ec2").create_route(**self._where(inputs), **self._target(inputs))
        return self._id(inputs)

    def read(self, id: str, inputs: Props) -> Props | None:
        tables = self.aws.client("ec2").describe_route_tables(RouteTableIds=[inputs["routeTableId"]])["RouteTables"]
        for route in tables[0]["Routes"] if tables else ():
            if route.get("DestinationCidrBlock", "") == inputs.get("destinationCidrBlock", "") and (
                route.get("DestinationIpv6CidrBlock") or ""
            ) == inputs.get("destinationIpv6CidrBlock", ""):
                targets = {key: route.get(name) for key, name in ROUTE_TARGETS.items()}
                return without_none(**targets) | {
                    "state": route.get("State", "active"),
                    "origin": route.get("Origin", "CreateRoute"),
                    "instanceId": route.get("InstanceId", ""),
                }
        return None

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, *ROUTE_TARGETS):
            self.aws.client("ec2").replace_route(**self._where(news), **self._target(news))

    def delete(self, id: str, outputs: Props) -> None:
        self.aws.client("ec2").delete_route(**self._where(outputs))

    def find(self, inputs: Props) -> list[str]:
        try:
            return [self._id(inputs)] if self.read("", inputs) else []
        except ClientError as error:
            if not_found(error):
                return []
            raise

    @staticmethod
    def _id(inputs: Props) -> str:
        destination = inputs.get("destinationCidrBlock") or inputs.get("destinationIpv6CidrBlock")
        return f"{inputs['routeTableId']}_{destination}"

    @staticmethod
    def _where(inputs: Props) -> dict[str, Any]:
        return without_none(
            RouteTableId=inputs["routeTableId"],
            DestinationCidrBlock=inputs.get("destinationCidrBlock") or None,
            DestinationIpv6CidrBlock=inputs.get("destinationIpv6CidrBlock") or None,
        )

    @staticmethod
    def _target(inputs: Props) -> dict[str, Any]:
        targets = {name: inputs[key] for key, name in ROUTE_TARGETS.items() if inputs.get(key)}
        if len(targets) != 1:
            raise ProviderError(f"a route needs exactly one target of {', '.join(ROUTE_TARGETS)}")
        return targets


@register
class VpcEndpoint(Ec2ResourceType):
    token = "aws:ec2/vpcEndpoint:VpcEndpoint"
    replace_on_change = frozenset({"vpcId", "serviceName", "vpcEndpointType"})
    updatable = frozenset({"routeTableIds", "subnetIds", "securityGroupIds", "policy", "privateDnsEnabled", "tags"})
    defaults = {"vpcEndpointType": "Gateway"}  # noqa: RUF012 - ClassVar[Mapping] in the base
    resource, describe, items, id_key = "vpc-endpoint", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"

    def create(self, inputs: Props) -> str:
        response = self.ec2.create_vpc_endpoint(
            **without_none(
                VpcId=inputs["vpcId"],
                ServiceName=inputs["serviceName"],
                VpcEndpointType=inputs.get("vpcEndpointType"),
                RouteTableIds=inputs.get("routeTableIds"),
                SubnetIds=inputs.get("subnetIds"),
                SecurityGroupIds=inputs.get("securityGroupIds"),
                PolicyDocument=document(inputs.get("policy")),
                PrivateDnsEnabled=inputs.get("privateDnsEnabled", False),
            ),
            **self.tagging(inputs),
        )
        return str(response["VpcEndpoint"]["VpcEndpointId"])

    def update(self, id: str, olds: Props, news: Props) -> None:
        self.retag(id, olds, news)
        changes: dict[str, Any] = {}
        for key, noun in (
            ("routeTableIds", "RouteTableIds"),
            ("subnetIds", "SubnetIds"),
            ("securityGroupIds", "SecurityGroupIds"),
        ):
            before, after = set(olds.get(key) or ()), set(news.get(key) or ())
            changes |= {f"Add{noun}": sorted(after - before)} if after - before else {}
            changes |= {f"Remove{noun}": sorted(before - after)} if before - after else {}
        if news.get("policy") and differs(olds, news, "policy"):
            changes["PolicyDocument"] = document(news["policy"])
        if "privateDnsEnabled" in news and differs(olds, news, "privateDnsEnabled"):
            changes["PrivateDnsEnabled"] = news["privateDnsEnabled"]
        if changes:
            self.ec2.modify_vpc_endpoint(VpcEndpointId=id, **changes)

    def outputs(self, item: dict[str, Any]) -> Props:
        lists = self.ec2.describe_prefix_lists()["PrefixLists"]
        prefix: dict[str, Any] = next((p for p in lists if p["PrefixListName"] == item["ServiceName"]), {})
        return {
            "arn": self.aws.arn("ec2", f"vpc-endpoint/{item['VpcEndpointId']}"),
            "vpcId": item["VpcId"],
            "serviceName": item["ServiceName"],
            "vpcEndpointType": item.get("VpcEndpointType", "Gateway"),
            "state": item.get("State", "available"),
            "routeTableIds": item.get("RouteTableIds") or [],
            "subnetIds": item.get("SubnetIds") or [],
            "networkInterfaceIds": item.get("NetworkInterfaceIds") or [],
            "securityGroupIds": [group["GroupId"] for group in item.get("Groups") or ()],
            "prefixListId": prefix.get("PrefixListId", ""),
            "cidrBlocks": prefix.get("Cidrs", []),
        }

    def read(self, id: str, inputs: Props) -> Props | None:
        item = self.item(id)
        # AWS lists an endpoint for a while after its deletion.
        if item is None or str(item.get("State", "")).lower() in ("deleting", "deleted"):
            return None
        return self.outputs(item) | tag_outputs(item.get("Tags"))

    def delete(self, id: str, outputs: Props) -> None:
        self.ec2.delete_vpc_endpoints(VpcEndpointIds=[id])


@register
class VpcEndpointRouteTableAssociation(ResourceType):
    token = "aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation"
    replace_on_change = frozenset({"vpcEndpointId", "routeTableId"})
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        self._modify(inputs, "AddRouteTableIds")
        return f"a-{inputs['vpcEndpointId']}_{inputs['routeTableId']}"

    def read(self, id: str, inputs: Props) -> Props | None:
        endpoints = self.aws.client("ec2").describe_vpc_endpoints(VpcEndpointIds=[inputs["vpcEndpointId"]])[
            "VpcEndpoints"
        ]
        return {} if endpoints and inputs["routeTableId"] in (endpoints[0].get("RouteTableIds") or ()) else None

    def delete(self, id: str, outputs: Props) -> None:
        self._modify(outputs, "RemoveRouteTableIds")

    def find(self, inputs: Props) -> list[str]:
        present = self.read("", inputs) is not None
        return [f"a-{inputs['vpcEndpointId']}_{inputs['routeTableId']}"] if present else []

    def _modify(self, props: Props, verb: str) -> None:
        self.aws.client("ec2").modify_vpc_endpoint(
            VpcEndpointId=props["vpcEndpointId"], **{verb: [props["routeTableId"]]}
        )


def document(policy: Any) -> str | None:
    """Return a policy as JSON text, given as text or as a structure."""
    return policy if policy is None or isinstance(policy, str) else json.dumps(policy)
