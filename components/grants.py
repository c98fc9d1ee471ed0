"""IAM permissions that components grant to those who use what they create."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

#: Actions that read SSM parameters by name: bootstrap and kits read one in a call, the agent several.
READ_PARAMETERS = ("ssm:GetParameter", "ssm:GetParameters")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """One statement of an IAM policy, which allows some actions on some resources."""

    sid: str
    """Name of the statement, unique in its policy."""
    actions: Sequence[str]
    resources: Sequence[pulumi.Input[str]]
    """ARNs, or `*`."""
    condition: Mapping[str, Mapping[str, pulumi.Input[str]]] | None = None

    @property
    def statement(self) -> dict[str, object]:
        """The statement as IAM's JSON has it."""
        return {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": list(self.resources),
            **({"Condition": self.condition} if self.condition else {}),
        }


def render_policy(grants: Sequence[Grant]) -> pulumi.Output[str]:
    """Return the JSON of an IAM policy that allows what `grants` allow.

    Source: IAM User Guide, "IAM JSON policy elements reference".
    """
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": [grant.statement for grant in grants]})
