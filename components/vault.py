"""The bucket with releases and kits, and the parameters by which gateway and operator exchange their state."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

import contract
from components.grants import READ_PARAMETERS, Grant
from components.private_bucket import create_private_bucket, deny_without_tls
from userdata.release import Release


@dataclass(frozen=True, kw_only=True, slots=True)
class VaultArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    release: pulumi.Input[Release]
    """The release the gateway should run."""
    disposable: bool
    """Whether destroying the stack may delete objects that others put into the bucket."""
    kits: Mapping[str, pulumi.Input[bytes]] = field(default_factory=dict)
    """Kits by the client's name; the names are plain values, because each kit becomes a resource."""
    bucket_of: "Vault | None" = None
    """Another gateway's vault, whose bucket this one uses; without it, a bucket is created."""


class Vault(pulumi.ComponentResource):
    """A private bucket with the release and clients' kits, a pointer at the release, and the gateway's report."""

    bucket: pulumi.Output[str]
    release: pulumi.Output[str]
    """SHA-256 of the release."""
    bucket_arn: pulumi.Output[str]
    grants: Sequence[Grant]
    """Permissions of the gateway: to read its releases and to report."""

    def __init__(self, name: str, args: VaultArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Vault", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        self._names = args.names
        if args.bucket_of:
            self.bucket, self.bucket_arn = args.bucket_of.bucket, args.bucket_of.bucket_arn
        else:
            self._create_bucket(name, args)
        release = pulumi.Output.from_input(args.release)
        sha256 = release.apply(lambda release: release.sha256)
        archive = aws.s3.BucketObjectv2(
            f"{name}-release",
            bucket=self.bucket,
            key=sha256.apply(args.names.release_key),
            content_base64=release.apply(lambda release: base64.b64encode(release.archive).decode()),
            content_type="application/gzip",
            tags=contract.tags(args.names.stack),
            opts=child,
        )
        for client, kit in args.kits.items():
            kit_object = aws.s3.BucketObjectv2(
                f"{name}-kit-{client}",
                bucket=self.bucket,
                key=args.names.kit_key(client),
                content_base64=pulumi.Output.from_input(kit).apply(lambda kit: base64.b64encode(kit).decode()),
                content_type="application/gzip",
                tags=contract.tags(args.names.stack),
                opts=child,
            )
            aws.ssm.Parameter(
                f"{name}-kit-digest-{client}",
                name=args.names.kit_digest(client),
                type="String",
                value=pulumi.Output.from_input(kit).apply(lambda kit: hashlib.sha256(kit).hexdigest()),
                tags=contract.tags(args.names.stack),
                # The digest never names a kit that is not there yet.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[kit_object]),
            )
        pointer = aws.ssm.Parameter(
            f"{name}-pointer",
            name=args.names.release,
            type="String",
            # Outputs of the object, so that the pointer never names one that does not exist yet.
            value=pulumi.Output.json_dumps({"bucket": archive.bucket, "key": archive.key, "sha256": sha256}),
            tags=contract.tags(args.names.stack),
            opts=child,
        )
        report = aws.ssm.Parameter(
            f"{name}-report",
            name=args.names.report,
            type="String",
            value=json.dumps({"state": "pending"}),
            tags=contract.tags(args.names.stack),
            # The gateway writes the value. The stack has the parameter, so that it is deleted with the stack.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["value"]),
        )
        self.release = sha256
        releases = pulumi.Output.concat(self.bucket_arn, f"/{args.names.releases}/*")
        self.grants = [
            Grant(sid="Pointer", actions=READ_PARAMETERS, resources=[pointer.arn]),
            Grant(sid="Report", actions=["ssm:PutParameter"], resources=[report.arn], condition=_VALUE_ONLY),
            Grant(sid="Releases", actions=["s3:GetObject"], resources=[releases]),
        ]
        self.register_outputs({"bucket": self.bucket, "release": self.release})

    def kit_grant(self, client: str) -> Grant:
        """Return the permission to read a client's kit."""
        kit = pulumi.Output.concat(self.bucket_arn, "/", self._names.kit_key(client))
        return Grant(sid="Kit", actions=["s3:GetObject"], resources=[kit])

    def _create_bucket(self, name: str, args: VaultArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)
        account = aws.get_caller_identity(opts=pulumi.InvokeOptions(parent=self)).account_id
        bucket, private = create_private_bucket(
            name,
            args.names.bucket(account, args.region),
            force_destroy=args.disposable,
            tags=args.names.tags("vault"),
            parent=self,
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
            opts=pulumi.ResourceOptions(parent=self, depends_on=[private]),
        )
        self.bucket, self.bucket_arn = bucket.id, bucket.arn


#: Allows a new value of a parameter that exists, without parameter policies, of which one could delete it. No condition
#: key covers its tier and type. Source: AWS Systems Manager User Guide, "Preventing access to Parameter Store API
#: operations".
_VALUE_ONLY = {"StringEquals": {"ssm:Overwrite": "true"}, "StringNotEquals": {"ssm:Policies": "true"}}


def tls_only(bucket_arn: str) -> str:
    """Return a bucket policy that denies requests without TLS."""
    return json.dumps({"Version": "2012-10-17", "Statement": [deny_without_tls(bucket_arn)]})
