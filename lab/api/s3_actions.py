"""Name the action and the resource of an S3 request, as policies see them.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3".
"""

import re
import urllib.parse
from collections.abc import Mapping

#: What GET, PUT and DELETE of a bucket's subresource are called; S3 has no Delete for most configurations.
_BUCKET_SUBRESOURCES: Mapping[str, tuple[str, str, str]] = {
    "policy": ("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"),
    "website": ("GetBucketWebsite", "PutBucketWebsite", "DeleteBucketWebsite"),
    **{
        name: (f"Get{noun}", f"Put{noun}", f"Put{noun}")
        for name, noun in {
            "accelerate": "AccelerateConfiguration",
            "acl": "BucketAcl",
            "cors": "BucketCORS",
            "encryption": "EncryptionConfiguration",
            "lifecycle": "LifecycleConfiguration",
            "location": "BucketLocation",
            "logging": "BucketLogging",
            "notification": "BucketNotification",
            "object-lock": "BucketObjectLockConfiguration",
            "ownershipControls": "BucketOwnershipControls",
            "publicAccessBlock": "BucketPublicAccessBlock",
            "replication": "ReplicationConfiguration",
            "requestPayment": "BucketRequestPayment",
            "tagging": "BucketTagging",
            "versioning": "BucketVersioning",
        }.items()
    },
}
_LISTS = {"versions": "ListBucketVersions", "uploads": "ListBucketMultipartUploads"}
_VERBS = {"GET": 0, "HEAD": 0, "PUT": 1, "POST": 1, "DELETE": 2}
#: What is done with an object, and with a version of it.
_OBJECT = (("GetObject", "PutObject", "DeleteObject"), ("GetObjectVersion", "PutObject", "DeleteObjectVersion"))
_OBJECT_TAGGING = ("GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging")


def parse_s3(method: str, host: str, path: str, query: str, body: bytes) -> tuple[str, list[str]]:
    """Return action and ARNs of an S3 request, by path or by virtual host."""
    path = urllib.parse.unquote(path).lstrip("/")
    hosted = re.fullmatch(r"(.+?)\.s3[.-].*", host)
    bucket, _, key = (hosted.group(1), "", path) if hosted else path.partition("/")
    if not bucket:
        return "ListAllMyBuckets", ["*"]
    names = {name for name, _ in urllib.parse.parse_qsl(query, keep_blank_values=True)}
    verb = _VERBS.get(method)
    arn = f"arn:aws:s3:::{bucket}"
    if verb is None:
        return method, [arn]
    if key:
        actions = _OBJECT_TAGGING if "tagging" in names else _OBJECT["versionId" in names]
        return actions[verb], [f"{arn}/{key}"]
    if "delete" in names:
        return ("DeleteObjectVersion" if b"<VersionId>" in body else "DeleteObject"), [f"{arn}/*"]
    for name in names & _BUCKET_SUBRESOURCES.keys():
        return _BUCKET_SUBRESOURCES[name][verb], [arn]
    for name in names & _LISTS.keys():
        return _LISTS[name], [arn]
    return ("ListBucket", "CreateBucket", "DeleteBucket")[verb], [arn]
