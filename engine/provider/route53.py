"""Manage hosted zones and their records."""

from typing import Any

from engine.provider.resource_type import (
    ResourceType,
    differs,
    not_found,
    register,
    tag_changes,
    tag_list,
    tag_map,
    without_none,
)
from engine.provider.values import Props


@register
class Zone(ResourceType):
    token = "aws:route53/zone:Zone"
    replace_on_change = frozenset({"name", "vpcs"})
    updatable = frozenset({"comment", "forceDestroy", "tags"})
    id_from_inputs = True

    @property
    def route53(self) -> Any:
        """The Route 53 client."""
        return self.aws.client("route53")

    def create(self, inputs: Props) -> str:
        vpcs = [{"VPCRegion": vpc.get("vpcRegion") or self.aws.region, "VPCId": vpc["vpcId"]} for vpc in inputs["vpcs"]]
        response = self.route53.create_hosted_zone(
            Name=inputs["name"],
            CallerReference=f"{inputs['name']} {vpcs[0]['VPCId']}",
            HostedZoneConfig=without_none(Comment=inputs.get("comment"), PrivateZone=True),
            VPC=vpcs[0],
        )
        id = str(response["HostedZone"]["Id"]).rpartition("/")[2]
        for vpc in vpcs[1:]:
            self.route53.associate_vpc_with_hosted_zone(HostedZoneId=id, VPC=vpc)
        self.update(id, {}, inputs)
        return id

    def read(self, id: str, inputs: Props) -> Props | None:
        try:
            response = self.route53.get_hosted_zone(Id=id)
        except Exception as error:
            if not_found(error):
                return None
            raise
        tags = self.route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=id)
        mapped = tag_map(tags["ResourceTagSet"]["Tags"])
        servers = response.get("DelegationSet", {}).get("NameServers", [])
        return {"arn": f"arn:aws:route53:::hostedzone/{id}", "zoneId": id, "nameServers": servers, "tagsAll": mapped}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if olds and differs(olds, news, "comment"):
            self.route53.update_hosted_zone_comment(Id=id, Comment=news.get("comment") or "")
        removed, changed = tag_changes(olds, news)
        change = without_none(RemoveTagKeys=removed or None, AddTags=tag_list(changed) if changed else None)
        if change:
            self.route53.change_tags_for_resource(ResourceType="hostedzone", ResourceId=id, **change)

    def delete(self, id: str, outputs: Props) -> None:
        if outputs.get("forceDestroy"):
            for record in self.route53.list_resource_record_sets(HostedZoneId=id)["ResourceRecordSets"]:
                if record["Type"] not in ("NS", "SOA"):
                    _change_record(self.route53, id, "DELETE", record)
        self.route53.delete_hosted_zone(Id=id)

    def find(self, inputs: Props) -> list[str]:
        zones = self.route53.list_hosted_zones_by_vpc(
            VPCId=inputs["vpcs"][0]["vpcId"], VPCRegion=inputs["vpcs"][0].get("vpcRegion") or self.aws.region
        )
        name = inputs["name"].rstrip(".") + "."
        return [zone["HostedZoneId"] for zone in zones["HostedZoneSummaries"] if zone["Name"] == name]


@register
class Record(ResourceType):
    token = "aws:route53/record:Record"
    replace_on_change = frozenset({"zoneId", "name", "type"})
    updatable = frozenset({"ttl", "records"})
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        _change_record(self.aws.client("route53"), inputs["zoneId"], "CREATE", _set(inputs))
        return f"{inputs['zoneId']}_{inputs['name']}_{inputs['type']}"

    def read(self, id: str, inputs: Props) -> Props | None:
        response = self.aws.client("route53").list_resource_record_sets(HostedZoneId=inputs["zoneId"])
        name = inputs["name"].rstrip(".") + "."
        records = [r for r in response["ResourceRecordSets"] if (r["Name"], r["Type"]) == (name, inputs["type"])]
        return {"fqdn": inputs["name"]} if records else None

    def update(self, id: str, olds: Props, news: Props) -> None:
        _change_record(self.aws.client("route53"), news["zoneId"], "UPSERT", _set(news))

    def delete(self, id: str, outputs: Props) -> None:
        _change_record(self.aws.client("route53"), outputs["zoneId"], "DELETE", _set(outputs))

    def find(self, inputs: Props) -> list[str]:
        outputs = self.read("", inputs)
        return [f"{inputs['zoneId']}_{inputs['name']}_{inputs['type']}"] if outputs else []


def _set(inputs: Props) -> dict[str, Any]:
    values = [{"Value": value} for value in inputs["records"]]
    return {"Name": inputs["name"], "Type": inputs["type"], "TTL": int(inputs["ttl"]), "ResourceRecords": values}


def _change_record(route53: Any, zone: str, action: str, record: dict[str, Any]) -> None:
    route53.change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    )
