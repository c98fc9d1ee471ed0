"""Manage KMS keys and their aliases."""

from typing import Any

from engine.provider.resource_type import (
    ResourceType,
    differs,
    not_found,
    register,
    tag_changes,
    without_none,
)
from engine.provider.values import Props
from engine.provider.vpc import document

#: Days until a key is deleted, if the program names none.
DELETION_WINDOW = 30


class _Kms(ResourceType):
    @property
    def kms(self) -> Any:
        """The KMS client."""
        return self.aws.client("kms")


@register
class Key(_Kms):
    token = "aws:kms/key:Key"
    replace_on_change = frozenset({"customerMasterKeySpec", "keyUsage", "multiRegion"})
    updatable = frozenset({"deletionWindowInDays", "description", "enableKeyRotation", "policy", "tags"})

    def create(self, inputs: Props) -> str:
        response = self.kms.create_key(
            CustomerMasterKeySpec=inputs.get("customerMasterKeySpec", "SYMMETRIC_DEFAULT"),
            KeyUsage=inputs.get("keyUsage", "ENCRYPT_DECRYPT"),
            Tags=_tag_list(inputs.get("tags") or {}),
            **without_none(
                Description=inputs.get("description"),
                MultiRegion=inputs.get("multiRegion"),
                Policy=document(inputs["policy"]) if inputs.get("policy") else None,
            ),
        )
        id = str(response["KeyMetadata"]["KeyId"])
        if inputs.get("enableKeyRotation"):
            self.kms.enable_key_rotation(KeyId=id)
        return id

    def read(self, id: str, inputs: Props) -> Props | None:
        try:
            metadata = self.kms.describe_key(KeyId=id)["KeyMetadata"]
        except Exception as error:
            if not_found(error):
                return None
            raise
        # Pulumi's provider takes such a key as deleted.
        if metadata["KeyState"] in ("PendingDeletion", "PendingReplicaDeletion"):
            return None
        tags = self._read_tags(id)
        return {"arn": metadata["Arn"], "keyId": metadata["KeyId"], "tags": tags, "tagsAll": tags}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "enableKeyRotation"):
            rotates = news.get("enableKeyRotation")
            (self.kms.enable_key_rotation if rotates else self.kms.disable_key_rotation)(KeyId=id)
        if differs(olds, news, "description"):
            self.kms.update_key_description(KeyId=id, Description=news.get("description") or "")
        if differs(olds, news, "policy") and news.get("policy"):
            self.kms.put_key_policy(KeyId=id, PolicyName="default", Policy=document(news["policy"]))
        removed, changed = tag_changes(olds, news)
        if removed:
            self.kms.untag_resource(KeyId=id, TagKeys=removed)
        if changed:
            self.kms.tag_resource(KeyId=id, Tags=_tag_list(changed))

    def delete(self, id: str, outputs: Props) -> None:
        window = int(outputs.get("deletionWindowInDays") or DELETION_WINDOW)
        try:
            self.kms.schedule_key_deletion(KeyId=id, PendingWindowInDays=window)
        except self.kms.exceptions.KMSInvalidStateException as error:
            if "pending deletion" not in str(error):
                raise

    def find(self, inputs: Props) -> list[str]:
        if not inputs.get("tags"):
            return []
        pages = self.kms.get_paginator("list_keys").paginate()
        ids = [str(key["KeyId"]) for page in pages for key in page["Keys"]]
        return [id for id in ids if self._read_tags(id) == inputs["tags"] and self.read(id, inputs)]

    def _read_tags(self, id: str) -> dict[str, str]:
        pages = self.kms.get_paginator("list_resource_tags").paginate(KeyId=id)
        return {tag["TagKey"]: tag["TagValue"] for page in pages for tag in page["Tags"]}


@register
class Alias(_Kms):
    token = "aws:kms/alias:Alias"
    replace_on_change = frozenset({"name"})
    updatable = frozenset({"targetKeyId"})
    autoname = "name"
    id_from_inputs = True

    def create(self, inputs: Props) -> str:
        self.kms.create_alias(AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
        return str(inputs["name"])

    def read(self, id: str, inputs: Props) -> Props | None:
        pages = self.kms.get_paginator("list_aliases").paginate()
        alias = next((alias for page in pages for alias in page["Aliases"] if alias["AliasName"] == id), None)
        if alias is None:
            return None
        arn, key = str(alias["AliasArn"]), str(alias.get("TargetKeyId", ""))
        return {"arn": arn, "targetKeyArn": f"{arn.rpartition(':')[0]}:key/{key}"}

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "targetKeyId"):
            self.kms.update_alias(AliasName=id, TargetKeyId=news["targetKeyId"])

    def delete(self, id: str, outputs: Props) -> None:
        self.kms.delete_alias(AliasName=id)

    def find(self, inputs: Props) -> list[str]:
        return [inputs["name"]] if self.read(inputs["name"], inputs) else []


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    """Return {key: value} as KMS's list of tags."""
    return [{"TagKey": key, "TagValue": value} for key, value in tags.items()]
