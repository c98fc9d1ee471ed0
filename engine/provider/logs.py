"""Manage log groups of CloudWatch Logs."""

from typing import Any

from engine.provider.resource_type import ResourceType, differs, register, tag_changes, without_none
from engine.provider.values import Props


@register
class LogGroup(ResourceType):
    token = "aws:cloudwatch/logGroup:LogGroup"
    replace_on_change = frozenset({"name", "logGroupClass"})
    updatable = frozenset({"retentionInDays", "tags"})
    autoname = "name"
    id_from_inputs = True

    @property
    def logs(self) -> Any:
        """The client of CloudWatch Logs."""
        return self.aws.client("logs")

    def create(self, inputs: Props) -> str:
        arguments = without_none(logGroupClass=inputs.get("logGroupClass"), tags=inputs.get("tags") or None)
        self.logs.create_log_group(logGroupName=inputs["name"], **arguments)
        if inputs.get("retentionInDays"):
            self._set_retention(inputs)
        return str(inputs["name"])

    def _set_retention(self, inputs: Props) -> None:
        # No days stand for events that never expire, as in Pulumi's provider.
        if days := inputs.get("retentionInDays"):
            self.logs.put_retention_policy(logGroupName=inputs["name"], retentionInDays=int(days))
        else:
            self.logs.delete_retention_policy(logGroupName=inputs["name"])

    def read(self, id: str, inputs: Props) -> Props | None:
        pages = self.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=id)
        group = next((group for page in pages for group in page["logGroups"] if group["logGroupName"] == id), None)
        if group is None:
            return None
        # AWS's own ends in `:*`, which stands for the group's streams.
        arn = str(group["arn"]).removesuffix(":*")
        tags = self.logs.list_tags_for_resource(resourceArn=arn)["tags"]
        days = group.get("retentionInDays", 0)
        return {"arn": arn, "name": id, "retentionInDays": days, "tags": tags, "tagsAll": tags}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "retentionInDays"):
            self._set_retention(news)
        removed, changed = tag_changes(olds, news)
        arn = self.aws.arn("logs", f"log-group:{id}")
        if removed:
            self.logs.untag_resource(resourceArn=arn, tagKeys=removed)
        if changed:
            self.logs.tag_resource(resourceArn=arn, tags=changed)

    def delete(self, id: str, outputs: Props) -> None:
        self.logs.delete_log_group(logGroupName=id)

    def find(self, inputs: Props) -> list[str]:
        return [inputs["name"]] if self.read(inputs["name"], inputs) else []
