"""The bucket of clients' bundles, encrypted with the stack's KMS key, where they are not in SSM."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from components.private_bucket import create_private_bucket, deny_without_tls


@dataclass(frozen=True, kw_only=True, slots=True)
class BundlesBucketArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    bucket: str
    """Name of the bucket."""
    key: pulumi.Input[str]
    """ARN of the KMS key of the secrets."""


class BundlesBucket(pulumi.ComponentResource):
    """A private bucket without versions. It takes no object but those under the key, whose policy says who reads."""

    bucket: pulumi.Output[str]
    """Its name, once it takes objects."""

    def __init__(self, name: str, args: BundlesBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:BundlesBucket", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        bucket, private = create_private_bucket(
            name,
            args.bucket,
            # The authority empties it. What else is in it is left from a run that was cut off.
            force_destroy=True,
            tags=args.names.tags("bundles"),
            parent=self,
        )
        encrypted = aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encrypted",
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": args.key,
                    },
                    # With a bucket key, S3 would hand KMS the bucket's ARN for all objects and not each one's own, by
                    # which the key's policy and those of clients' users tell bundles apart.
                    "bucket_key_enabled": False,
                }
            ],
            opts=child,
        )
        policy = aws.s3.BucketPolicy(
            f"{name}-policy",
            bucket=bucket.id,
            policy=pulumi.Output.all(bucket.arn, args.key).apply(lambda arns: render_bucket_policy(*arns)),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[private]),
        )
        self.bucket = pulumi.Output.all(bucket.id, encrypted.id, policy.id).apply(lambda ids: str(ids[0]))
        self.register_outputs({"bucket": self.bucket})


def name_bundles_bucket(names: contract.Names, region: str) -> str:
    """Return the name of the bucket that a stack's bundles are in, or could be, in the deployer's account."""
    return names.bundles_bucket(aws.get_caller_identity().account_id, region)


def render_bucket_policy(bucket_arn: str, key_arn: str) -> str:
    """Return a bucket policy that denies requests without TLS, and objects that are not encrypted with the key.

    Source: Amazon S3 User Guide, "Using server-side encryption with AWS KMS keys (SSE-KMS)".
    """
    own_key = {
        "Sid": "OwnKey",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"{bucket_arn}/*",
        # A negated condition holds also if the request names no key.
        "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": key_arn}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [deny_without_tls(bucket_arn), own_key]})
