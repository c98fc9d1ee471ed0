"""Manage CloudWatch's metric alarms."""

from collections.abc import Mapping
from typing import Any, ClassVar

from engine.provider.resource_type import (
    ResourceType,
    differs,
    register,
    tag_changes,
    tag_list,
    tag_map,
    without_none,
)
from engine.provider.values import Props

#: Inputs beside the name and the tags, with the parameter of PutMetricAlarm that each becomes.
_PARAMETERS = {
    "actionsEnabled": "ActionsEnabled",
    "alarmActions": "AlarmActions",
    "alarmDescription": "AlarmDescription",
    "comparisonOperator": "ComparisonOperator",
    "datapointsToAlarm": "DatapointsToAlarm",
    "evaluationPeriods": "EvaluationPeriods",
    "insufficientDataActions": "InsufficientDataActions",
    "metricName": "MetricName",
    "namespace": "Namespace",
    "okActions": "OKActions",
    "period": "Period",
    "statistic": "Statistic",
    "threshold": "Threshold",
    "treatMissingData": "TreatMissingData",
    "unit": "Unit",
}


@register
class MetricAlarm(ResourceType):
    token = "aws:cloudwatch/metricAlarm:MetricAlarm"
    replace_on_change = frozenset({"name"})
    updatable = frozenset({*_PARAMETERS, "dimensions", "tags"})
    autoname = "name"
    defaults: ClassVar[Mapping[str, Any]] = {"actionsEnabled": True, "treatMissingData": "missing"}
    id_from_inputs = True

    @property
    def cloudwatch(self) -> Any:
        """The CloudWatch client."""
        return self.aws.client("cloudwatch")

    def create(self, inputs: Props) -> str:
        self._put(inputs)
        return str(inputs["name"])

    def read(self, id: str, inputs: Props) -> Props | None:
        alarms = self.cloudwatch.describe_alarms(AlarmNames=[id], AlarmTypes=["MetricAlarm"])["MetricAlarms"]
        if not alarms:
            return None
        arn = str(alarms[0]["AlarmArn"])
        tags = tag_map(self.cloudwatch.list_tags_for_resource(ResourceARN=arn)["Tags"])
        return {"arn": arn, "tags": tags, "tagsAll": tags}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, *_PARAMETERS, "dimensions"):
            self._put(news)
        # AWS leaves the tags of an alarm that exists as they are, whatever PutMetricAlarm says.
        removed, changed = tag_changes(olds, news)
        arn = self.aws.arn("cloudwatch", f"alarm:{id}")
        if removed:
            self.cloudwatch.untag_resource(ResourceARN=arn, TagKeys=removed)
        if changed:
            self.cloudwatch.tag_resource(ResourceARN=arn, Tags=tag_list(changed))

    def delete(self, id: str, outputs: Props) -> None:
        self.cloudwatch.delete_alarms(AlarmNames=[id])

    def find(self, inputs: Props) -> list[str]:
        return [inputs["name"]] if self.read(inputs["name"], inputs) else []

    def _put(self, inputs: Props) -> None:
        """Create the alarm, or overwrite the one of this name. Pulumi's provider leaves out what is empty."""
        dimensions = [{"Name": name, "Value": value} for name, value in (inputs.get("dimensions") or {}).items()]
        parameters = {name: inputs.get(key) for key, name in _PARAMETERS.items()}
        self.cloudwatch.put_metric_alarm(
            AlarmName=inputs["name"],
            **{name: value for name, value in parameters.items() if value not in (None, [], "")},
            **without_none(Dimensions=dimensions or None, Tags=tag_list(inputs.get("tags")) or None),
        )
