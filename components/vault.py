"""Where the gateway finds what it should run, and says what it does run."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

import contract
from userdata.release import Release


@dataclass(frozen=True, kw_only=True, slots=True)
class VaultArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    release: pulumi.Input[Release]
    """Everything non-secret the gateway runs on."""
    throw_away: bool
    """Whether destroying the stack may destroy objects that others put into the bucket."""
    kits: Mapping[str, pulumi.Input[bytes]] = field(default_factory=dict)
    """Archives for clients' machines, by their names; the names are plain, each is a resource."""
    within: "Vault | None" = None
    """The vault of a pair's first gateway, whose bucket the second one's shares."""


class Vault(pulumi.ComponentResource):
    """A private bucket with the release and clients' kits, a pointer at the release, and the gateway's report."""

    bucket: pulumi.Output[str]
    release: pulumi.Output[str]
    """SHA-256 of the release."""
    bucket_arn: pulumi.Output[str]
    pointer_arn: pulumi.Output[str]
    report_arn: pulumi.Output[str]

    def __init__(self, name: str, args: VaultArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Vault", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        if args.within:
            self.bucket, self.bucket_arn = args.within.bucket, args.within.bucket_arn
        else:
            self._make_bucket(name, args)
        made = pulumi.Output.from_input(args.release)
        sha256 = made.apply(lambda release: release.sha256)
        release = aws.s3.BucketObjectv2(
            f"{name}-release",
            bucket=self.bucket,
            key=sha256.apply(args.names.release_key),
            content_base64=made.apply(lambda release: base64.b64encode(release.archive).decode()),
            content_type="application/gzip",
            tags=contract.tags(args.names.stack),
            opts=child,
        )
        for kit, archive in args.kits.items():
            aws.s3.BucketObjectv2(
                f"{name}-kit-{kit}",
                bucket=self.bucket,
                key=args.names.kit_key(kit),
                content_base64=pulumi.Output.from_input(archive).apply(
                    lambda packed: base64.b64encode(packed).decode()
                ),
                content_type="application/gzip",
                tags=contract.tags(args.names.stack),
                opts=child,
            )
        pointer = aws.ssm.Parameter(
            f"{name}-pointer",
            name=args.names.release,
            type="String",
            # Out of the object, so that the pointer never names one that is not there yet.
            value=pulumi.Output.json_dumps({"bucket": release.bucket, "key": release.key, "sha256": sha256}),
            tags=contract.tags(args.names.stack),
            opts=child,
        )
        report = aws.ssm.Parameter(
            f"{name}-report",
            name=args.names.report,
            type="String",
            value=json.dumps({"state": "pending"}),
            tags=contract.tags(args.names.stack),
            # The gateway writes the value; the parameter is ours so that it goes with the stack.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["value"]),
        )
        self.release = sha256
        self.pointer_arn = pointer.arn
        self.report_arn = report.arn
        self.register_outputs({"bucket": self.bucket, "release": self.release})

    def _make_bucket(self, name: str, args: VaultArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)
        account = aws.get_caller_identity(opts=pulumi.InvokeOptions(parent=self)).account_id
        bucket = aws.s3.Bucket(
            f"{name}-bucket",
            bucket=args.names.bucket(account, args.region),
            force_destroy=args.throw_away,
            tags=args.names.tags("vault"),
            opts=child,
        )
        private = aws.s3.BucketPublicAccessBlock(
            f"{name}-private",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encrypted",
            bucket=bucket.id,
            rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
            opts=child,
        )
        aws.s3.BucketPolicy(
            f"{name}-tls-only",
            bucket=bucket.id,
            policy=bucket.arn.apply(tls_only),
            # AWS refuses one change of a bucket's access while another is under way (409 OperationAborted).
            opts=pulumi.ResourceOptions(parent=self, depends_on=[private]),
        )
        self.bucket, self.bucket_arn = bucket.id, bucket.arn


def tls_only(bucket_arn: str) -> str:
    """Return a bucket policy that refuses whoever does not use TLS.

    Source: Amazon S3 User Guide, "Restrict access to only HTTPS requests".
    """
    statement = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket_arn, f"{bucket_arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
