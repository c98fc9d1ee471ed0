"""Manage buckets, their settings, and objects."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from engine.provider.resource_type import (
    ResourceType,
    differs,
    none_if_not_found,
    register,
    tag_list,
    tag_map,
    without_none,
)
from engine.provider.values import Props, body
from engine.provider.vpc import document


class _S3(ResourceType):
    id_from_inputs = True

    @property
    def s3(self) -> Any:
        """The S3 client."""
        return self.aws.client("s3")


@register
class Bucket(_S3):
    token = "aws:s3/bucket:Bucket"
    replace_on_change = frozenset({"bucket", "objectLockEnabled"})
    updatable = frozenset({"forceDestroy", "tags"})
    autoname = "bucket"

    def create(self, inputs: Props) -> str:
        region = self.aws.region
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        lock = without_none(ObjectLockEnabledForBucket=inputs.get("objectLockEnabled"))
        self.s3.create_bucket(Bucket=inputs["bucket"], **place, **lock)
        self.update(inputs["bucket"], {}, inputs)
        return str(inputs["bucket"])

    def read(self, id: str, inputs: Props) -> Props | None:
        if none_if_not_found(self.s3.head_bucket, Bucket=id) is None:
            return None
        tags = tag_map((none_if_not_found(self.s3.get_bucket_tagging, Bucket=id) or {}).get("TagSet"))
        region = self.aws.region
        return {
            "arn": f"arn:aws:s3:::{id}",
            "bucket": id,
            "bucketDomainName": f"{id}.s3.amazonaws.com",
            "bucketRegionalDomainName": f"{id}.s3.{region}.amazonaws.com",
            "bucketRegion": region,
            "region": region,
            "tags": tags,
            "tagsAll": tags,
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        if differs(olds, news, "tags"):
            if news.get("tags"):
                self.s3.put_bucket_tagging(Bucket=id, Tagging={"TagSet": tag_list(news["tags"])})
            else:
                self.s3.delete_bucket_tagging(Bucket=id)

    def delete(self, id: str, outputs: Props) -> None:
        if outputs.get("forceDestroy"):
            for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=id):
                rows = [*(page.get("Versions") or ()), *(page.get("DeleteMarkers") or ())]
                keys = [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows]
                if keys:
                    self.s3.delete_objects(Bucket=id, Delete={"Objects": keys, "Quiet": True})
        self.s3.delete_bucket(Bucket=id)

    def find(self, inputs: Props) -> list[str]:
        names = [row["Name"] for row in self.s3.list_buckets()["Buckets"]]
        return [inputs["bucket"]] if inputs["bucket"] in names else []


class _Part(_S3):
    """A setting that a bucket has once; its id is the bucket's name."""

    replace_on_change = frozenset({"bucket"})

    def create(self, inputs: Props) -> str:
        self._put(inputs)
        return str(inputs["bucket"])

    def update(self, id: str, olds: Props, news: Props) -> None:
        self._put(news)

    def read(self, id: str, inputs: Props) -> Props | None:
        return {} if none_if_not_found(self._get, Bucket=id) is not None else None

    def find(self, inputs: Props) -> list[str]:
        return [inputs["bucket"]] if self.read(inputs["bucket"], inputs) is not None else []

    def _put(self, inputs: Props) -> None:
        raise NotImplementedError

    @property
    def _get(self) -> Callable[..., Any]:
        raise NotImplementedError


BLOCKS = {
    "blockPublicAcls": "BlockPublicAcls",
    "blockPublicPolicy": "BlockPublicPolicy",
    "ignorePublicAcls": "IgnorePublicAcls",
    "restrictPublicBuckets": "RestrictPublicBuckets",
}


@register
class BucketPublicAccessBlock(_Part):
    token = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
    updatable = frozenset(BLOCKS)

    def _put(self, inputs: Props) -> None:
        configuration = {name: bool(inputs.get(key)) for key, name in BLOCKS.items()}
        self.s3.put_public_access_block(Bucket=inputs["bucket"], PublicAccessBlockConfiguration=configuration)

    @property
    def _get(self) -> Callable[..., Any]:
        return self.s3.get_public_access_block  # type: ignore[no-any-return]

    def delete(self, id: str, outputs: Props) -> None:
        self.s3.delete_public_access_block(Bucket=id)


@register
class BucketServerSideEncryptionConfiguration(_Part):
    token = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    updatable = frozenset({"rules"})

    def _put(self, inputs: Props) -> None:
        rules = []
        for rule in inputs["rules"]:
            default = rule.get("applyServerSideEncryptionByDefault") or {}
            algorithm = without_none(
                SSEAlgorithm=default.get("sseAlgorithm"), KMSMasterKeyID=default.get("kmsMasterKeyId")
            )
            rules.append(
                without_none(
                    ApplyServerSideEncryptionByDefault=algorithm or None, BucketKeyEnabled=rule.get("bucketKeyEnabled")
                )
            )
        self.s3.put_bucket_encryption(Bucket=inputs["bucket"], ServerSideEncryptionConfiguration={"Rules": rules})

    @property
    def _get(self) -> Callable[..., Any]:
        return self.s3.get_bucket_encryption  # type: ignore[no-any-return]

    def delete(self, id: str, outputs: Props) -> None:
        self.s3.delete_bucket_encryption(Bucket=id)


@register
class BucketPolicy(_Part):
    token = "aws:s3/bucketPolicy:BucketPolicy"
    updatable = frozenset({"policy"})

    def _put(self, inputs: Props) -> None:
        self.s3.put_bucket_policy(Bucket=inputs["bucket"], Policy=document(inputs["policy"]))

    @property
    def _get(self) -> Callable[..., Any]:
        return self.s3.get_bucket_policy  # type: ignore[no-any-return]

    def delete(self, id: str, outputs: Props) -> None:
        self.s3.delete_bucket_policy(Bucket=id)


@register
class BucketVersioning(_Part):
    token = "aws:s3/bucketVersioning:BucketVersioning"
    updatable = frozenset({"versioningConfiguration"})

    def _put(self, inputs: Props) -> None:
        status = inputs["versioningConfiguration"]["status"]
        if status != "Disabled":  # S3 takes no Disabled: it is the state of a bucket that was never versioned
            self.s3.put_bucket_versioning(Bucket=inputs["bucket"], VersioningConfiguration={"Status": status})

    @property
    def _get(self) -> Callable[..., Any]:
        return self.s3.get_bucket_versioning  # type: ignore[no-any-return]

    def delete(self, id: str, outputs: Props) -> None:
        if outputs["versioningConfiguration"]["status"] == "Enabled":
            self.s3.put_bucket_versioning(Bucket=id, VersioningConfiguration={"Status": "Suspended"})


@register
class BucketOwnershipControls(_Part):
    token = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
    updatable = frozenset({"rule"})

    def _put(self, inputs: Props) -> None:
        rules = [{"ObjectOwnership": inputs["rule"]["objectOwnership"]}]
        self.s3.put_bucket_ownership_controls(Bucket=inputs["bucket"], OwnershipControls={"Rules": rules})

    @property
    def _get(self) -> Callable[..., Any]:
        return self.s3.get_bucket_ownership_controls  # type: ignore[no-any-return]

    def delete(self, id: str, outputs: Props) -> None:
        self.s3.delete_bucket_ownership_controls(Bucket=id)


@register
class BucketLifecycleConfiguration(_Part):
    token = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    updatable = frozenset({"rules"})

    def _put(self, inputs: Props) -> None:
        rules = []
        for rule in inputs["rules"]:
            days = rule.get("expiration") or {}
            old = rule.get("noncurrentVersionExpiration") or {}
            upload = rule.get("abortIncompleteMultipartUpload") or {}
            rules.append(
                {
                    "ID": rule["id"],
                    "Status": rule["status"],
                    "Filter": {"Prefix": (rule.get("filter") or {}).get("prefix", rule.get("prefix", ""))},
                }
                | without_none(
                    Expiration=without_none(Days=days.get("days"), Date=days.get("date")) or None,
                    NoncurrentVersionExpiration=without_none(NoncurrentDays=old.get("noncurrentDays")) or None,
                    AbortIncompleteMultipartUpload=without_none(DaysAfterInitiation=upload.get("daysAfterInitiation"))
                    or None,
                )
            )
        put = self.s3.put_bucket_lifecycle_configuration
        put(Bucket=inputs["bucket"], LifecycleConfiguration={"Rules": rules})

    @property
    def _get(self) -> Callable[..., Any]:
        return self.s3.get_bucket_lifecycle_configuration  # type: ignore[no-any-return]

    def delete(self, id: str, outputs: Props) -> None:
        self.s3.delete_bucket_lifecycle(Bucket=id)


@register
class BucketObjectv2(_S3):
    token = "aws:s3/bucketObjectv2:BucketObjectv2"
    replace_on_change = frozenset({"bucket", "key"})
    updatable = frozenset(
        {"content", "contentBase64", "source", "sourceHash", "contentType", "contentEncoding", "cacheControl"}
        | {"serverSideEncryption", "metadata", "tags", "forceDestroy"}
    )

    def create(self, inputs: Props) -> str:
        self._put(inputs)
        return f"{inputs['bucket']}/{inputs['key']}"

    def _put(self, inputs: Props) -> None:
        content = body(inputs.get("content"), inputs.get("contentBase64"), inputs.get("source"))
        tags = urlencode(inputs.get("tags") or {})
        self.s3.put_object(
            Bucket=inputs["bucket"],
            Key=inputs["key"],
            Body=content,
            ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
            **without_none(
                ContentType=inputs.get("contentType"),
                ContentEncoding=inputs.get("contentEncoding"),
                CacheControl=inputs.get("cacheControl"),
                ServerSideEncryption=inputs.get("serverSideEncryption"),
                Metadata=inputs.get("metadata"),
                Tagging=tags or None,
            ),
        )

    def read(self, id: str, inputs: Props) -> Props | None:
        bucket, _, key = id.partition("/")
        response = none_if_not_found(self.s3.head_object, Bucket=bucket, Key=key)
        if response is None:
            return None
        tags = inputs.get("tags") or {}
        return {
            "arn": f"arn:aws:s3:::{bucket}/{key}",
            "etag": response["ETag"].strip('"'),
            "versionId": response.get("VersionId", ""),
            "contentType": response.get("ContentType", ""),
            "tagsAll": tags,
        }

    def update(self, id: str, olds: Props, news: Props) -> None:
        self._put(news)

    def delete(self, id: str, outputs: Props) -> None:
        # With every version it has: a marker of its deletion would keep the bucket from being deleted.
        bucket, _, key = id.partition("/")
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key):
            rows = [*(page.get("Versions") or ()), *(page.get("DeleteMarkers") or ())]
            for version in [row["VersionId"] for row in rows if row["Key"] == key]:
                self.s3.delete_object(Bucket=bucket, Key=key, VersionId=version)

    def find(self, inputs: Props) -> list[str]:
        id = f"{inputs['bucket']}/{inputs['key']}"
        return [id] if self.read(id, inputs) is not None else []
