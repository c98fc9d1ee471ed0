"""The EC2 instance that runs OpenVPN."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from components.default_tags import read_default_tags
from components.image_provider import PinnedImage
from images import IMAGES, PREPARED_SYSTEMS, find_architecture


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    region: str
    interface_id: pulumi.Input[str]
    """The instance's primary network interface."""
    profile: pulumi.Input[str]
    """Name of the instance profile."""
    instance_type: str
    image: str
    """A name in `images.IMAGE_NAMES`, for the newest when the gateway is created; or an AMI's ID."""
    disk_size: int
    """GiB."""
    credits: str | None
    """CPU credits of a burstable type, `standard` or `unlimited`; none for other types, which have no credits."""
    user_data: str
    """Cloud-config. Every process on the machine can read it, so it holds names and no secrets."""
    after: Sequence[pulumi.Resource] = ()
    """Resources that the machine needs when it boots."""


class Gateway(pulumi.ComponentResource):
    """An instance on a network interface that outlives it."""

    instance_id: pulumi.Output[str]

    def __init__(self, name: str, args: GatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:Gateway", name, {}, opts)
        tags = args.names.tags("gateway")
        ami: pulumi.Input[str] = args.image
        # A new image comes out every few weeks; it must not replace a running gateway. The resource's name has the
        # processor's architecture, so another architecture gets another image.
        processor = find_architecture(args.instance_type)
        image_name, child = f"{name}-image-{processor}", pulumi.ResourceOptions(parent=self)
        if system := PREPARED_SYSTEMS.get(args.image):
            ami = PinnedImage(image_name, prepared=processor, system=system, region=args.region, opts=child).image
        elif image := IMAGES.get(args.image):
            parameter = image.parameters[processor]
            ami = PinnedImage(image_name, parameter=parameter, region=args.region, opts=child).image
        instance = aws.ec2.Instance(
            f"{name}-instance",
            ami=ami,
            instance_type=args.instance_type,
            iam_instance_profile=args.profile,
            primary_network_interface={"network_interface_id": args.interface_id},
            # AWS's default for T3 and T4g is `unlimited`, which bills CPU time above the baseline.
            credit_specification={"cpu_credits": args.credits} if args.credits else None,
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            root_block_device={
                "volume_type": "gp3",
                "volume_size": args.disk_size,
                "encrypted": True,
                "delete_on_termination": True,
            },
            # The provider adds default tags to the instance, but not to its volumes.
            volume_tags={**read_default_tags(), **tags},
            user_data=args.user_data,
            # cloud-init applies it at the first boot only, so a change needs a new instance.
            user_data_replace_on_change=True,
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(args.after),
                # An interface can be attached to one instance at a time.
                delete_before_replace=True,
                # The provider plans `sourceDestCheck: true` for an instance whose interface has the check off, and
                # would turn it on there (terraform-provider-aws, issue 44768); the interface's own resource decides.
                ignore_changes=["sourceDestCheck"],
            ),
        )
        self.instance_id = instance.id
        self.register_outputs({"instanceId": self.instance_id})
