"""Manage parameters of Systems Manager."""

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
class Parameter(ResourceType):
    token = "aws:ssm/parameter:Parameter"
    replace_on_change = frozenset({"name", "dataType"})
    updatable = frozenset(
        {"type", "value", "insecureValue", "description", "tier", "keyId", "allowedPattern", "overwrite", "tags"}
    )
    autoname = "name"
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        self._put(inputs, overwrite=bool(inputs.get("overwrite")), tags=inputs.get("tags"))
        return str(inputs["name"])

    def _put(self, inputs: Props, *, overwrite: bool, tags: dict[str, str] | None = None) -> None:
        # One call does both: AWS takes tags only with a parameter that is not overwritten.
        self.aws.client("ssm").put_parameter(
            **without_none(
                Name=inputs["name"],
                Type=inputs["type"],
                Value=inputs.get("value", inputs.get("insecureValue")),
                Description=inputs.get("description"),
                Tier=inputs.get("tier") or ("Standard" if overwrite else None),
                KeyId=inputs.get("keyId"),
                AllowedPattern=inputs.get("allowedPattern", ""),
                DataType=inputs.get("dataType"),
                Tags=tag_list(tags) if tags and not overwrite else None,
            ),
            Overwrite=overwrite,
        )

    def read(self, id: str, inputs: Props) -> Props | None:
        ssm = self.aws.client("ssm")
        try:
            parameter = ssm.get_parameter(Name=id, WithDecryption=True)["Parameter"]
        except ssm.exceptions.ParameterNotFound:
            return None
        tags = tag_map(ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=id)["TagList"])
        return {
            "arn": parameter["ARN"],
            "version": parameter["Version"],
            "value": parameter["Value"],
            "type": parameter["Type"],
            "dataType": parameter.get("DataType", "text"),
            "tier": inputs.get("tier", "Standard"),
            "tags": tags,
            "tagsAll": tags,
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, *(self.updatable - {"tags", "overwrite"})):
            self._put(news, overwrite=True)
        removed, changed = tag_changes(olds, news)
        ssm = self.aws.client("ssm")
        if removed:
            ssm.remove_tags_from_resource(ResourceType="Parameter", ResourceId=id, TagKeys=removed)
        if changed:
            ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=id, Tags=tag_list(changed))

    def delete(self, id: str, outputs: Props) -> None:
        self.aws.client("ssm").delete_parameter(Name=id)

    def find(self, inputs: Props) -> list[str]:
        try:
            return [inputs["name"]] if self.read(inputs["name"], inputs) else []
        except Exception as error:
            if not_found(error):
                return []
            raise
