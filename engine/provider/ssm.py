"""Parameters of Systems Manager."""

from engine.provider.kind import Kind, absent, differs, register, some, tag_changes, tag_list, tag_map
from engine.provider.values import Props


@register
class Parameter(Kind):
    token = "aws:ssm/parameter:Parameter"
    fixed = frozenset({"name", "dataType"})
    changeable = frozenset(
        {"type", "value", "insecureValue", "description", "tier", "keyId", "allowedPattern", "overwrite", "tags"}
    )
    auto_name = "name"
    named = True

    def create(self, inputs: Props) -> str:
        self._put(inputs, overwrite=bool(inputs.get("overwrite")), tags=inputs.get("tags"))
        return str(inputs["name"])

    def _put(self, inputs: Props, *, overwrite: bool, tags: dict[str, str] | None = None) -> None:
        # One call does both: AWS takes tags only with a parameter that is not overwritten.
        self.aws.client("ssm").put_parameter(
            **some(
                Name=inputs["name"],
                Type=inputs["type"],
                Value=inputs.get("value", inputs.get("insecureValue")),
                Description=inputs.get("description"),
                Tier=inputs.get("tier"),
                KeyId=inputs.get("keyId"),
                AllowedPattern=inputs.get("allowedPattern"),
                DataType=inputs.get("dataType"),
                Tags=tag_list(tags) if tags and not overwrite else None,
            ),
            Overwrite=overwrite,
        )

    def read(self, id: str, inputs: Props) -> Props | None:
        ssm = self.aws.client("ssm")
        try:
            found = ssm.get_parameter(Name=id, WithDecryption=True)["Parameter"]
        except ssm.exceptions.ParameterNotFound:
            return None
        tags = tag_map(ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=id)["TagList"])
        return {
            "arn": found["ARN"],
            "version": found["Version"],
            "value": found["Value"],
            "type": found["Type"],
            "dataType": found.get("DataType", "text"),
            "tier": inputs.get("tier", "Standard"),
            "tags": tags,
            "tagsAll": tags,
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, *(self.changeable - {"tags", "overwrite"})):
            self._put(news, overwrite=True)
        gone, wanted = tag_changes(olds, news)
        ssm = self.aws.client("ssm")
        if gone:
            ssm.remove_tags_from_resource(ResourceType="Parameter", ResourceId=id, TagKeys=gone)
        if wanted:
            ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=id, Tags=tag_list(wanted))

    def delete(self, id: str, outputs: Props) -> None:
        self.aws.client("ssm").delete_parameter(Name=id)

    def find(self, inputs: Props) -> list[str]:
        try:
            return [inputs["name"]] if self.read(inputs["name"], inputs) else []
        except Exception as error:
            if absent(error):
                return []
            raise
