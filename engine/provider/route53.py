"""Manage hosted zones and their records.

Sources: Amazon Route 53 API Reference, "ChangeResourceRecordSets" and "GetChange".
"""

import time
from typing import Any

from engine.provider.resource_type import (
    ProviderError,
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

#: Seconds that all of Route 53's name servers may take for a change (60 as a rule), and seconds between two looks.
SYNC_TIMEOUT, SYNC_INTERVAL = 300.0, 2.0


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
    """A record; one of its name and type that exists is not overwritten."""

    token = "aws:route53/record:Record"
    replace_on_change = frozenset({"zoneId", "name", "type"})
    updatable = frozenset({"ttl", "records"})
    id_from_inputs = True

    @property
    def route53(self) -> Any:
        """The Route 53 client."""
        return self.aws.client("route53")

    def create(self, inputs: Props) -> str:
        self._change("CREATE", inputs)
        return _record_id(inputs)

    def read(self, id: str, inputs: Props) -> Props | None:
        record = self._find(inputs)
        if record is None:
            return None
        values = [value["Value"] for value in record.get("ResourceRecords", ())]
        return {"fqdn": inputs["name"], "ttl": record.get("TTL"), "records": values}

    def update(self, id: str, olds: Props, news: Props) -> None:
        self._change("UPSERT", news)

    def delete(self, id: str, outputs: Props) -> None:
        record = self._find(outputs)
        if record is not None:
            _change_record(self.route53, outputs["zoneId"], "DELETE", record)

    def find(self, inputs: Props) -> list[str]:
        # One with other values is somebody else's: AWS refused to create ours beside it.
        outputs = self.read("", inputs)
        ours = outputs is not None and sorted(outputs["records"]) == sorted(inputs["records"])
        return [_record_id(inputs)] if ours else []

    def _change(self, action: str, inputs: Props) -> None:
        # The zone first, as Pulumi's provider does: without it, the error names the zone.
        self.route53.get_hosted_zone(Id=inputs["zoneId"])
        _change_record(self.route53, inputs["zoneId"], action, _set(inputs))

    def _find(self, inputs: Props) -> dict[str, Any] | None:
        """Return the record as the zone has it, or None."""
        name = inputs["name"].rstrip(".").lower() + "."
        try:
            response = self.route53.list_resource_record_sets(
                HostedZoneId=inputs["zoneId"], StartRecordName=name, StartRecordType=inputs["type"], MaxItems="1"
            )
        except Exception as error:
            if not_found(error):
                return None
            raise
        records: list[dict[str, Any]] = response["ResourceRecordSets"]
        return next((record for record in records if (record["Name"], record["Type"]) == (name, inputs["type"])), None)


def _record_id(inputs: Props) -> str:
    return f"{inputs['zoneId']}_{inputs['name']}_{inputs['type']}"


def _set(inputs: Props) -> dict[str, Any]:
    values = [{"Value": value} for value in inputs["records"]]
    return {"Name": inputs["name"], "Type": inputs["type"], "TTL": int(inputs["ttl"]), "ResourceRecords": values}


def _change_record(route53: Any, zone: str, action: str, record: dict[str, Any]) -> None:
    """Change a record, and wait until all of Route 53's name servers have it; raises `ProviderError`."""
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    change = route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)["ChangeInfo"]
    end = time.monotonic() + SYNC_TIMEOUT
    while route53.get_change(Id=change["Id"].rpartition("/")[2])["ChangeInfo"]["Status"] != "INSYNC":
        if time.monotonic() > end:
            raise ProviderError(f"{record['Name']} is not on all name servers after {SYNC_TIMEOUT:g} seconds")
        time.sleep(SYNC_INTERVAL)
