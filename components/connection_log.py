"""The log group of a gateway's connection log."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

import contract
from components.grants import Grant


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLogArgs:
    names: contract.Names
    """Names of the gateway this belongs to."""
    retention_days: int
    """Days for which CloudWatch Logs keeps an event, one of AWS's numbers."""


class ConnectionLog(pulumi.ComponentResource):
    """A log group that the gateway writes to, in a stream of its own for each instance.

    CloudWatch Logs encrypts it with a key of AWS's. The stack's key stays one for secrets alone: its policy lets no
    service but SSM use it, and nothing in the log is secret.
    """

    grants: Sequence[Grant]
    """What the gateway's role may do."""

    def __init__(self, name: str, args: ConnectionLogArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("drawbridge:index:ConnectionLog", name, {}, opts)
        group = aws.cloudwatch.LogGroup(
            f"{name}-group",
            name=args.names.connections,
            retention_in_days=args.retention_days,
            tags=args.names.tags("connections"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.grants = (
            Grant(
                sid="ConnectionLog",
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                # The group's streams: these actions are judged on a stream's ARN.
                resources=[pulumi.Output.concat(group.arn, ":*")],
            ),
        )
        self.register_outputs({})
