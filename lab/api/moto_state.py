"""Read and write moto's state where the AWS API does not: principals, policies, images, instances as Linux has them.

Only this module and `lab.api.moto_patches` reach into moto's objects; everything else speaks the AWS API.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.route53.models import route53_backends
from moto.s3.models import s3_backends
from moto.ssm.models import Parameter, ssm_backends
from moto.sts.models import sts_backends

from lab.api import ec2_resources
from lab.api.iam import ACCOUNT, Call, KmsKey, Principal, kms_context, tag_context
from lab.api.moto_inventory import DEFAULT_KEY, Inventory
from lab.network.dns import PrivateZone, Records

ADMINISTRATOR_POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
#: Releases and architectures of Debian's images, as its public parameters and images name them.
RELEASES, ARCHITECTURES = ("12", "13"), ("amd64", "arm64")
#: Debian's AWS account ("Debian on Amazon EC2").
_DEBIAN = "136693071363"
#: Dates in the names of the images that a region has from the start, an older one and then the newest.
_DATES = ("20260901", "20261101")
#: moto's description of an interface that RunInstances created.
_LAUNCHED_INTERFACE = "Primary network interface"


class AccessKeys:
    """The access keys of a region: the lab's own, users', and those of assumed roles."""

    def __init__(self) -> None:
        self.lab_key = "AKIALABREGION0000000"
        self.lab_secret = secrets.token_hex(20)

    def find_principal(self, key: str) -> Principal | None:
        """Return the principal of an access key, with its policies as they are now, or None."""
        if key == self.lab_key:
            return Principal(arn=f"arn:aws:iam::{ACCOUNT}:root", secret=self.lab_secret, root=True)
        iam = iam_backends[ACCOUNT]["aws"]
        for user in iam.users.values():
            for access in user.access_keys:
                if access.access_key_id == key and access.status == "Active":
                    groups = [group for group in iam.groups.values() if user in group.users]
                    owners = [user, *groups]
                    documents = tuple(document for owner in owners for document in _list_policies(owner))
                    return Principal(
                        arn=user.arn,
                        secret=access.secret_access_key,
                        policies=documents,
                        boundary=_find_boundary(user),
                    )
        for session in sts_backends[ACCOUNT]["aws"].assumed_roles:
            if session.access_key_id == key and session.expiration > datetime.now(session.expiration.tzinfo):
                role = iam.get_role_by_arn(session.role_arn)
                return Principal(
                    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.name}/{session.session_name}",
                    secret=session.secret_access_key,
                    token=session.session_token,
                    policies=tuple(_list_policies(role)),
                    boundary=_find_boundary(role),
                    role=role.arn,
                )
        return None


def _list_policies(owner: Any) -> list[Mapping[str, Any]]:
    """Return the policy documents of a user, group or role, inline and attached."""
    attached = [
        next(version.document for version in policy.versions if version.is_default)
        for policy in owner.managed_policies.values()
    ]
    return [json.loads(text) for text in (*owner.policies.values(), *attached)]


def _find_boundary(owner: Any) -> Mapping[str, Any] | None:
    """Return the permissions boundary of a user or role; one that moto does not know allows nothing."""
    # Users have the attribute by a patch, which tests of other things leave out.
    arn = getattr(owner, "permissions_boundary_arn", None)
    if not arn:
        return None
    policy = iam_backends[ACCOUNT]["aws"].managed_policies.get(arn)
    document = next((version.document for version in policy.versions if version.is_default), "{}") if policy else "{}"
    boundary: Mapping[str, Any] = json.loads(document)
    return boundary


def add_state(call: Call) -> Call:
    """Return a call with what IAM knows of its resources: those behind associations, their tags, their boundaries."""
    match call.service:
        case "ec2":
            return _add_tags(_resolve_associations(call))
        case "kms":
            return _add_key_tags(call)
        case "iam" if "PermissionsBoundary" not in call.parameters:
            iam = iam_backends[ACCOUNT]["aws"]
            parameters = call.parameters
            owner = iam.users.get(str(parameters.get("UserName"))) or next(
                (role for role in iam.roles.values() if role.name == parameters.get("RoleName")), None
            )
            if boundary := getattr(owner, "permissions_boundary_arn", None):
                return replace(call, context={**call.context, "iam:PermissionsBoundary": boundary})
    return call


def _add_key_tags(call: Call) -> Call:
    """Return a call of KMS with the tags of its key, which it may name by an alias."""
    region = call.context["aws:RequestedRegion"]
    backend: Any = kms_backends[ACCOUNT][region]
    context = dict(call.resource_context)
    for arn in call.resources:
        if key := find_key(region, arn):
            tags = backend.tagger.get_tag_dict_for_resource(key.arn.rpartition("/")[2])
            context[arn] = {**context.get(arn, {}), **tag_context("aws:ResourceTag", tags)}
    return replace(call, resource_context=context)


def _resolve_associations(call: Call) -> Call:
    """Return a call of EC2 with the resources that an association or attachment in its parameters joins."""
    region = call.context["aws:RequestedRegion"]
    ec2: Any = ec2_backends[ACCOUNT][region]
    identity = str(call.parameters.get("AssociationId") or call.parameters.get("AttachmentId") or "")
    joined: list[str] = []
    for table in ec2.route_tables.values() if identity.startswith("rtbassoc-") else ():
        if identity in (table.main_association_id, *table._associations):
            joined += [table.id, *filter(None, [table._associations.get(identity)])]
    for acl in ec2.network_acls.values() if identity.startswith("aclassoc-") else ():
        if identity in acl.associations:
            joined += [acl.associations[identity].subnet_id]
    for address in ec2.addresses if identity.startswith("eipassoc-") else ():
        if address.association_id == identity:
            joined += [address.allocation_id, *([address.eni.id] if address.eni else [])]
    for interface in ec2.enis.values() if identity.startswith("eni-attach-") else ():
        if interface.attachment_id == identity:
            joined += [interface.id, *([interface.instance.id] if interface.instance else [])]
    prefix = f"arn:aws:ec2:{region}:{ACCOUNT}:"
    named = [resource for resource in call.resources if resource != "*"]
    arns = [*named, *(ec2_resources.arn_of(resource, prefix) for resource in joined)]
    return replace(call, resources=tuple(arns or call.resources))


def _add_tags(call: Call) -> Call:
    """Return a call of EC2 with the tags of its resources as condition keys."""
    tags = ec2_backends[ACCOUNT][call.context["aws:RequestedRegion"]].tags
    context = dict(call.resource_context)
    for arn in call.resources:
        resource_tags = tags.get(arn.rpartition("/")[2], {})
        keys = tag_context("aws:ResourceTag", resource_tags) | tag_context("ec2:ResourceTag", resource_tags)
        context[arn] = {**context.get(arn, {}), **keys}
    return replace(call, resource_context=context)


def find_bucket_policy(bucket: str) -> Mapping[str, Any] | None:
    """Return a bucket's policy, or None."""
    stored = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    policy: Mapping[str, Any] | None = json.loads(stored.policy) if stored is not None and stored.policy else None
    return policy


def list_implied_calls(call: Call) -> list[Call]:
    """Return the further calls that a call implies: iam:PassRole of a launch, KMS's of a SecureString or an object."""
    return [*_list_passed_roles(call), *_list_kms_calls(call), *_list_kms_calls_of_s3(call)]


def _list_passed_roles(call: Call) -> list[Call]:
    if call.action == "iam:AddRoleToInstanceProfile":
        role = f"arn:aws:iam::{ACCOUNT}:role/{call.parameters.get('RoleName')}"
        context = {**call.context, "iam:PassedToService": "ec2.amazonaws.com"}
        return [Call("iam", "iam:PassRole", (role,), context)]
    reference = call.parameters.get("IamInstanceProfile.Name") or call.parameters.get("IamInstanceProfile.Arn")
    if call.service != "ec2" or not reference:
        return []
    profiles = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
    name = str(reference).rsplit("/", 1)[-1]
    roles = next((profile.roles for profile in profiles if profile.name == name), [])
    context = {**call.context, "iam:PassedToService": "ec2.amazonaws.com"}
    return [Call("iam", "iam:PassRole", (role.arn,), context) for role in roles]


def _list_kms_calls(call: Call) -> list[Call]:
    """Return the calls of KMS that SSM makes for its caller, with the parameter's ARN as encryption context.

    Source: Systems Manager User Guide, "How AWS Systems Manager Parameter Store uses AWS KMS".
    """
    region, parameters, action = call.context["aws:RequestedRegion"], call.parameters, call.action
    inventory = Inventory(region)
    uses: list[tuple[str, str]] = []
    if action == "ssm:PutParameter":
        name = str(parameters.get("Name"))
        kind = parameters.get("Type") or inventory.find_parameter_type(name)
        keys = dict(inventory.list_secure_parameters(name))
        uses = [(name, parameters.get("KeyId") or keys.get(name) or DEFAULT_KEY)] if kind == "SecureString" else []
        verb = "GenerateDataKey" if parameters.get("Tier") == "Advanced" else "Encrypt"
    elif call.service == "ssm" and parameters.get("WithDecryption"):
        names = [str(parameters["Name"])] if "Name" in parameters else parameters.get("Names", [])
        uses = [use for name in names for use in inventory.list_secure_parameters(str(name).partition(":")[0])]
        if "Path" in parameters:
            uses = list(inventory.list_secure_parameters(str(parameters["Path"]), below=True))
        verb = "Decrypt"
    return [
        Call(
            "kms",
            f"kms:{verb}",
            (key,),
            dict(call.context)
            | kms_context(
                {"PARAMETER_ARN": f"arn:aws:ssm:{region}:{ACCOUNT}:parameter/{name.lstrip('/')}"},
                via=f"ssm.{region}.amazonaws.com",
            ),
        )
        for name, key in uses
    ]


def _list_kms_calls_of_s3(call: Call) -> list[Call]:
    """Return the call of KMS that S3 makes for its caller, with the object's ARN as encryption context.

    Sources: Amazon S3 User Guide, "Using server-side encryption with AWS KMS keys (SSE-KMS)" and "Bucket Keys": with a
    bucket key, the context is the bucket's ARN.
    """
    verbs = {"s3:PutObject": "GenerateDataKey", "s3:GetObject": "Decrypt", "s3:GetObjectVersion": "Decrypt"}
    if call.action not in verbs:
        return []
    (arn,) = call.resources
    bucket_name, _, key = arn.removeprefix("arn:aws:s3:::").partition("/")
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(bucket_name)
    if bucket is None:
        return []
    default = _default_encryption(bucket)
    if call.action == "s3:PutObject":
        algorithm = call.parameters.get("ServerSideEncryption") or default.get("SSEAlgorithm")
        kms_key = call.parameters.get("SSEKMSKeyId") or default.get("KMSMasterKeyID")
    else:
        stored = bucket.keys.get(key)
        algorithm, kms_key = getattr(stored, "encryption", None), getattr(stored, "kms_key_id", None)
    if algorithm != "aws:kms" or not kms_key:
        return []
    region = call.context["aws:RequestedRegion"]
    has_bucket_key = str(default.get("BucketKeyEnabled")).lower() == "true"
    encryption_context = {"aws:s3:arn": f"arn:aws:s3:::{bucket_name}" if has_bucket_key else arn}
    context = dict(call.context) | kms_context(encryption_context, via=f"s3.{region}.amazonaws.com")
    return [Call("kms", f"kms:{verbs[call.action]}", (str(kms_key),), context)]


def _default_encryption(bucket: Any) -> dict[str, Any]:
    """Return the algorithm, KMS key and use of a bucket key that a bucket has for new objects."""
    rule = (bucket.encryption or {}).get("Rule", {})
    return {**rule.get("ApplyServerSideEncryptionByDefault", {}), "BucketKeyEnabled": rule.get("BucketKeyEnabled")}


def find_key(region: str, identity: str) -> KmsKey | None:
    """Return the KMS key of a region by its id, alias or ARN, or None."""
    return Inventory(region).find_key(identity)


def is_assumable_by_ec2(role: str) -> bool:
    """Return whether a role's trust policy lets EC2 assume it for an instance."""
    document = iam_backends[ACCOUNT]["aws"].get_role(role).assume_role_policy_document
    statements = json.loads(document)["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        actions, services = statement.get("Action", []), statement.get("Principal", {})
        services = services.get("Service", []) if isinstance(services, dict) else services
        services = services if isinstance(services, list) else [services]
        actions = actions if isinstance(actions, list) else [actions]
        if (
            statement["Effect"] == "Allow"
            and "ec2.amazonaws.com" in services
            and {"sts:AssumeRole", "sts:*", "*"} & {*actions}
        ):
            return True
    return False


def list_private_zones(region: str, vpc: str) -> list[PrivateZone]:
    """Return the private zones that a VPC's resolver answers for; none where the VPC lacks a DNS attribute.

    Alias records and routing policies are not supported: of several records of a name the first counts.
    """
    network = ec2_backends[ACCOUNT][region].vpcs.get(vpc)
    if network is None or not (network.enable_dns_support and network.enable_dns_hostnames):
        return []
    zones = route53_backends[ACCOUNT]["aws"].zones.values()
    return [
        _convert_zone(zone)
        for zone in zones
        if zone.private_zone and vpc in [entry.get("vpc_id") for entry in zone.vpcs]
    ]


def _convert_zone(zone: Any) -> PrivateZone:
    records: dict[tuple[str, str], Records] = {}
    for record_set in zone.rrsets:
        if record_set.records:
            values = Records(int(record_set.ttl or 300), tuple(map(str, record_set.records)))
            records.setdefault((_normalize_name(record_set.name), record_set.type), values)
    return PrivateZone(_normalize_name(zone.name), records)


def _normalize_name(text: str) -> str:
    """Return a domain name in lower case, without its last dot and with an asterisk in place of the octal code."""
    return text.lower().rstrip(".").replace("\\052", "*")


def publish_images(region: str) -> None:
    """Create Debian's public image parameters and images in an AWS region. Idempotent.

    There are two images of each release and architecture; the parameter names the newest.
    """
    for release in RELEASES:
        for architecture in ARCHITECTURES:
            newest = f"ami-0debian{release}{architecture}"
            if newest not in ec2_backends[ACCOUNT][region].amis:
                _register_image(region, release, architecture, _DATES[0])
                _register_image(region, release, architecture, _DATES[1], newest)
                _name_newest_image(region, release, architecture, newest)


def publish_newer_images(region: str, release: str) -> dict[str, str]:
    """Publish a newer image of a release for each architecture in an AWS region; return the images' IDs by it."""
    publish_images(region)
    identities = {}
    for architecture in ARCHITECTURES:
        identities[architecture] = _register_image(region, release, architecture, f"{datetime.now(UTC):%Y%m%d%H%M%S}")
        _name_newest_image(region, release, architecture, identities[architecture])
    return identities


def start_images(region: str) -> list[tuple[str, str]]:
    """Complete the images that CreateImage has just created; return each with the instance whose disk it gets.

    Such an image is `pending` until `finish_image`. It has the architecture, the root device and the size of the image
    that its instance was launched from.
    """
    images = ec2_backends[ACCOUNT][region].amis
    started = []
    for image in images.values():
        if image.instance_id is not None and image.root_device_type == "standard":
            parent = images.get(image.instance.image_id)
            image.root_device_type, image.virtualization_type = "ebs", "hvm"
            image.state, image.root_device_name = "pending", "/dev/xvda"
            image.architecture = parent.architecture if parent else image.instance.architecture
            image.ebs_snapshot.volume.size = parent.ebs_snapshot.volume.size if parent else 8
            image.ebs_snapshot.status = "pending"
            started.append((str(image.id), str(image.instance_id)))
    return started


def finish_image(region: str, identity: str, *, saved: bool) -> None:
    """Make a pending image available, or failed; one that was deregistered meanwhile stays so."""
    if image := ec2_backends[ACCOUNT][region].amis.get(identity):
        image.state = "available" if saved else "failed"
        image.ebs_snapshot.status = "completed" if saved else "error"


def withdraw_image(region: str, identity: str) -> bool:
    """Deregister one of Debian's images in an AWS region, as Debian does with old ones; return whether it existed."""
    images = ec2_backends[ACCOUNT][region].amis
    if identity not in images or images[identity].owner_id != _DEBIAN:
        return False
    del images[identity]
    return True


def _register_image(region: str, release: str, architecture: str, date: str, identity: str | None = None) -> str:
    """Register an image under its ID, a random one by default; return the ID."""
    images = ec2_backends[ACCOUNT][region].amis
    ami = ec2_backends[ACCOUNT][region].register_image(
        name=f"debian-{release}-{architecture}-{date}", description="Debian, as the lab builds it"
    )
    del images[ami.id]
    ami.id = identity or f"ami-0{secrets.token_hex(8)}"
    ami.architecture = "arm64" if architecture == "arm64" else "x86_64"
    ami.root_device_name = "/dev/xvda"
    ami.ebs_snapshot.volume.size = 8  # GiB, as Debian's own images
    ami.owner_id = _DEBIAN
    images[ami.id] = ami
    return str(ami.id)


def _name_newest_image(region: str, release: str, architecture: str, identity: str) -> None:
    """Have the public parameter name an image from now on."""
    name = f"/aws/service/debian/release/{release}/latest/{architecture}"
    versions = ssm_backends[ACCOUNT][region]._parameters[name]
    versions.append(
        Parameter(  # type: ignore[abstract]  # moto creates them so, too
            account_id=ACCOUNT,
            name=name,
            value=identity,
            parameter_type="String",
            description="",
            allowed_pattern=None,
            keyid=None,
            last_modified_date=datetime.now(UTC),
            version=len(versions) + 1,
            data_type="aws:ec2:image",
        )
    )


# --- EC2 --------------------------------------------------------------------------------------------------------------


def reference_finder(region: str) -> Callable[[str], bool]:
    """Return a function that says whether a security group or prefix list of an id is in an AWS region."""
    backend: Any = ec2_backends[ACCOUNT][region]

    def exists(identity: str) -> bool:
        return identity in backend.managed_prefix_lists or any(identity in groups for groups in backend.groups.values())

    return exists


def mark_stopping(region: str, instance: str) -> None:
    """Set an instance that moto has stopped to `stopping`, until its machine is down."""
    entry = ec2_backends[ACCOUNT][region].get_instance(instance)
    if entry.state == "stopped":
        entry._state.name, entry._state.code = "stopping", 64


def mark_powered_off(region: str, instance: str) -> None:
    """Set an instance whose machine went down to stopped, or to terminated where its launch said so."""
    backend = ec2_backends[ACCOUNT][region]
    entry = backend.get_instance(instance)
    state = str(entry._state.name)
    terminates = entry.instance_initiated_shutdown_behavior == "terminate"
    if state == "stopping":
        entry._state.name, entry._state.code = "stopped", 80
    elif state == "shutting-down" or (state in ("running", "pending") and terminates):
        entry.terminate()
        detach_terminated_interfaces(region)
    elif state in ("running", "pending"):
        entry.stop()


def detach_terminated_interfaces(region: str) -> None:
    """Free the interfaces of terminated instances, and delete those made by their launch; moto leaves all attached."""
    backend: Any = ec2_backends[ACCOUNT][region]
    terminated = {
        instance.id
        for reservation in backend.reservations.values()
        for instance in reservation.instances
        if instance.state == "terminated"
    }
    for interface in list(backend.enis.values()):
        if interface.instance is None or interface.instance.id not in terminated:
            continue
        interface.instance.nics = _NoInterfaces()
        interface.instance = interface.attachment_id = None
        interface.status = "available"
        if interface.description == _LAUNCHED_INTERFACE:
            _delete_interface(backend, interface)
    for address in backend.addresses:
        if address.instance is not None and address.instance.id in terminated:
            address.instance = None
        if address.eni is not None and address.eni.id not in backend.enis:
            address.eni = address.association_id = None


class _NoInterface:
    """The attributes that moto reads of the first interface of an instance that has none."""

    private_ip_address = None
    public_ip = None


class _NoInterfaces(dict[int, _NoInterface]):
    """Interfaces of a terminated instance: none, but moto still reads the addresses of number 0."""

    def __missing__(self, index: int) -> _NoInterface:
        return _NoInterface()


def _delete_interface(backend: Any, interface: Any) -> None:
    backend.enis.pop(interface.id, None)
    for entry in interface.private_ip_addresses:
        interface.subnet.del_subnet_ip(entry["PrivateIpAddress"])


def root_volume_tasks(backend: Any) -> list[dict[str, str]]:
    """Return the mutable list of a region's CreateReplaceRootVolumeTask tasks."""
    tasks: list[dict[str, str]] = backend.__dict__.setdefault("replace_root_volume_tasks", [])
    return tasks


def complete_root_volume_tasks(region: str, instance: str, state: str = "succeeded") -> None:
    """Set the pending tasks that replace an instance's root volume to their final state."""
    for task in root_volume_tasks(ec2_backends[ACCOUNT][region]):
        if task["InstanceId"] == instance and task["TaskState"] == "pending":
            task["TaskState"] = state
