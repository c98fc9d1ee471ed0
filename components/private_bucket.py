"""A private S3 bucket, and the statement of its policy that demands TLS."""

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws


def create_private_bucket(
    name: str,
    bucket: pulumi.Input[str],
    *,
    force_destroy: bool,
    tags: Mapping[str, str],
    parent: pulumi.Resource,
) -> tuple[aws.s3.Bucket, aws.s3.BucketPublicAccessBlock]:
    """Return a bucket and the block of its public access, on which a policy of the bucket has to depend.

    AWS refuses one change of a bucket's access while another is under way (409 OperationAborted).
    """
    child = pulumi.ResourceOptions(parent=parent)
    created = aws.s3.Bucket(f"{name}-bucket", bucket=bucket, force_destroy=force_destroy, tags=tags, opts=child)
    private = aws.s3.BucketPublicAccessBlock(
        f"{name}-private",
        bucket=created.id,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=child,
    )
    return created, private


def deny_without_tls(bucket_arn: str) -> dict[str, object]:
    """Return the statement of a bucket's policy that denies requests without TLS.

    Source: Amazon S3 User Guide, "Restrict access to only HTTPS requests".
    """
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket_arn, f"{bucket_arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
