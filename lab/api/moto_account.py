"""What the lab adds to moto's account: people, keys and roles, and the public images.

With `lab.api.moto_patches` the only module that reaches into moto's objects; everything else speaks the AWS API.
"""

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.access_control import PermissionResult
from moto.iam.models import iam_backends
from moto.route53.models import route53_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.ssm.models import Parameter, ssm_backends
from moto.sts.models import sts_backends

from lab.api.iam import ACCOUNT, Call, Principal
from lab.network.dns import Records, Zone

ADMINISTRATOR = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
#: Public parameters that name the current Debian image (docs: "Debian on Amazon EC2"), and the image each names in the
#: lab.
IMAGES = {
    f"/aws/service/debian/release/{release}/latest/{architecture}": f"ami-0debian{release}{architecture}"
    for release in ("12", "13")
    for architecture in ("amd64", "arm64")
}


class Keys:
    """Who an access key belongs to: the region's own, users, and roles' sessions."""

    def __init__(self) -> None:
        self.own = "AKIALABREGION0000000"
        self.own_secret = secrets.token_hex(20)

    def principal(self, key: str) -> Principal | None:
        """The principal of an access key with its policies as they are now, or None."""
        if key == self.own:
            return Principal(arn=f"arn:aws:iam::{ACCOUNT}:root", secret=self.own_secret, root=True)
        iam = iam_backends[ACCOUNT]["aws"]
        for user in iam.users.values():
            for access in user.access_keys:
                if access.access_key_id == key and access.status == "Active":
                    groups = [group for group in iam.groups.values() if user in group.users]
                    owners = [user, *groups]
                    documents = tuple(document for owner in owners for document in _documents(owner))
                    return Principal(arn=user.arn, secret=access.secret_access_key, policies=documents)
        for session in sts_backends[ACCOUNT]["aws"].assumed_roles:
            if session.access_key_id == key and session.expiration > datetime.now(session.expiration.tzinfo):
                role = iam.get_role_by_arn(session.role_arn)
                return Principal(
                    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.name}/{session.session_name}",
                    secret=session.secret_access_key,
                    token=session.session_token,
                    policies=tuple(_documents(role)),
                )
        return None


def _documents(owner: Any) -> list[Mapping[str, Any]]:
    """Policy documents of a user, group or role, inline and attached."""
    attached = [
        next(version.document for version in policy.versions if version.is_default)
        for policy in owner.managed_policies.values()
    ]
    return [json.loads(text) for text in (*owner.policies.values(), *attached)]


def bucket_policy(bucket: str) -> Mapping[str, Any] | None:
    """A bucket's policy, parsed, or None."""
    found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    parsed: Mapping[str, Any] | None = json.loads(found.policy) if found is not None and found.policy else None
    return parsed


def passed_roles(call: Call) -> list[Call]:
    """What else a call needs: whoever gives an instance a profile hands its role to EC2, and must be allowed to."""
    named = call.parameters.get("IamInstanceProfile.Name") or call.parameters.get("IamInstanceProfile.Arn")
    if call.service != "ec2" or not named:
        return []
    profiles = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
    found = next((profile for profile in profiles if str(named).rsplit("/", 1)[-1] == profile.name), None)
    context = {**call.context, "iam:PassedToService": "ec2.amazonaws.com"}
    return [Call("iam", "iam:PassRole", (role.arn,), context) for role in (found.roles if found else [])]


def trusts_ec2(role: str) -> bool:
    """Whether a role lets EC2 take it, so that an instance gets its credentials."""
    found = iam_backends[ACCOUNT]["aws"].get_role(role)
    statements = json.loads(found.assume_role_policy_document)["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        actions, services = statement.get("Action", []), statement.get("Principal", {})
        services = services.get("Service", []) if isinstance(services, dict) else services
        named = services if isinstance(services, list) else [services]
        acts = actions if isinstance(actions, list) else [actions]
        if (
            statement["Effect"] == "Allow"
            and "ec2.amazonaws.com" in named
            and {"sts:AssumeRole", "sts:*", "*"} & {*acts}
        ):
            return True
    return False


def private_zones(region: str, vpc: str) -> list[Zone]:
    """Hosted zones that a VPC's resolver answers for, as they are now; none where the VPC lacks a DNS attribute.

    Alias records and routing policies are not known here: of several records for a name the first counts.
    """
    found = ec2_backends[ACCOUNT][region].vpcs.get(vpc)
    if found is None or not (found.enable_dns_support and found.enable_dns_hostnames):
        return []
    zones = route53_backends[ACCOUNT]["aws"].zones.values()
    return [_zone(zone) for zone in zones if zone.private_zone and vpc in [one.get("vpc_id") for one in zone.vpcs]]


def _zone(zone: Any) -> Zone:
    records: dict[tuple[str, str], Records] = {}
    for held in zone.rrsets:
        if held.records:
            known = Records(int(held.ttl or 300), tuple(map(str, held.records)))
            records.setdefault((_domain_name(held.name), held.type), known)
    return Zone(_domain_name(zone.name), records)


def _domain_name(text: str) -> str:
    """As the API spells names: any case, perhaps a last dot, an asterisk as its octal code."""
    return text.lower().rstrip(".").replace("\\052", "*")


def publish_images(region: str) -> None:
    """Put Debian's public image parameters and images into a region of the account. Idempotent."""
    parameters = ssm_backends[ACCOUNT][region]._parameters
    ec2 = ec2_backends[ACCOUNT][region]
    for name, image in IMAGES.items():
        if name not in parameters:
            parameters[name].append(
                Parameter(  # type: ignore[abstract]  # moto's own way to make one
                    account_id=ACCOUNT,
                    name=name,
                    value=image,
                    parameter_type="String",
                    description="",
                    allowed_pattern=None,
                    keyid=None,
                    last_modified_date=datetime.now(UTC),
                    version=1,
                    data_type="aws:ec2:image",
                )
            )
        if image not in ec2.amis:
            _register_image(ec2, image)


def _register_image(ec2: Any, identity: str) -> None:
    made = ec2.register_image(name=identity, description="Debian, as the lab builds it")
    del ec2.amis[made.id]
    made.id = identity
    made.architecture = "arm64" if identity.endswith("arm64") else "x86_64"
    made.root_device_name = "/dev/xvda"
    made.owner_id = "136693071363"
    ec2.amis[identity] = made


def leave_bucket_policies_alone() -> None:
    """Keep moto from judging objects by bucket policies: a Deny whose Condition it does not know denies everything."""
    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL  # type: ignore[method-assign]
