"""Refuse calls and tags that moto takes, of services other than EC2: one row of `RULES` a rule.

Sources: AWS Systems Manager API Reference, "PutParameter"; Amazon CloudWatch API Reference, "PutMetricData"; Amazon
Route 53 API Reference, "ChangeResourceRecordSets", "CreateHostedZone"; Amazon S3 User Guide, "General purpose bucket
naming rules"; AWS General Reference, "Tagging your AWS resources".
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.api.errors import ApiError
from lab.api.moto_inventory import Inventory, ZoneRecord
from lab.api.request import ApiRequest
from lab.api.validation.logs import check_log_events, check_retention
from lab.api.validation.policies import check_key_policy, check_managed_policy, check_trust_policy, inline_check


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """A check that runs on some actions of a service."""

    service: str
    actions: tuple[str, ...]
    check: Callable[[ApiRequest, Inventory], ApiError | None]


def check_services(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Return the first refusal of a call, or None."""
    rules = (rule for rule in RULES if rule.service == request.service and request.action in rule.actions)
    refusals = (rule.check(request, inventory) for rule in rules)
    return next((refusal for refusal in refusals if refusal), None) or check_tags(request)


# --- SSM --------------------------------------------------------------------------------------------------------------

#: Characters of a value, by tier.
_VALUE_LIMITS = {"Standard": 4096, "Advanced": 8192}
_PARAMETER_NAME = re.compile(r"[a-zA-Z0-9_.\-/]+")
_MAX_NAME, _MAX_LEVELS = 1011, 15


def check_parameter_name(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse parameter names with other characters, too many levels, or that are too long."""
    name = str(request.parameters["Name"])
    if "/" in name and not name.startswith("/"):
        return ApiError("ValidationException", "Parameter name must be a fully qualified name.")
    if not _PARAMETER_NAME.fullmatch(name) or name.endswith("/") or "//" in name:
        return ApiError(
            "ValidationException",
            'Parameter name: can\'t be prefixed with "ssm" (case-insensitive). If formed as a path, it can consist of '
            "sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the "
            "following 3 symbols .-_",
        )
    if name.count("/") > _MAX_LEVELS:
        return ApiError("HierarchyLevelLimitExceededException", "The hierarchy is limited to 15 levels.")
    if len(name) > _MAX_NAME:
        return ApiError("ValidationException", f"Parameter name must be at most {_MAX_NAME} characters long.")
    return None


def check_parameter_value(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse values that are too long for their tier, or hold a reference to another parameter."""
    value = str(request.parameters["Value"])
    tier = request.parameters.get("Tier") or inventory.find_parameter_tier(request.parameters["Name"]) or "Standard"
    if len(value) > _VALUE_LIMITS.get(tier, 8192):
        if tier == "Standard":
            return ApiError(
                "ValidationException",
                "Standard tier parameters support a maximum parameter value of 4096 characters. To create a larger "
                "parameter value, upgrade the parameter to use the advanced-parameter tier.",
            )
        return ApiError(
            "ValidationException",
            "Advanced tier parameters support a maximum parameter value of 8192 characters.",
        )
    if re.search(r"\{\{.*?\}\}", value, re.DOTALL):
        return ApiError("ValidationException", 'Parameter value can\'t nest another parameter. Do not use "{{}}".')
    return None


def check_parameter_type(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to overwrite a parameter with a value of another type."""
    current, new = inventory.find_parameter_type(request.parameters["Name"]), request.parameters.get("Type")
    if request.parameters.get("Overwrite") and current and new and current != new:
        return ApiError(
            "HierarchyTypeMismatchException",
            "Parameter Store doesn't support changing a parameter type in a hierarchy. For example, you can't change a "
            "parameter from a String type to a SecureString type. You must create a new, unique parameter.",
        )
    return None


def check_parameter_key(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse a SecureString under a key that does not exist or is not enabled."""
    identity = request.parameters.get("KeyId")
    if request.parameters.get("Type") != "SecureString" or not identity:
        return None
    key = inventory.find_key(identity)
    if key is None:
        return ApiError("InvalidKeyId", f"Key '{identity}' does not exist")
    return None if key.enabled else ApiError("InvalidKeyId", f"{key.arn} is disabled.")


def check_decrypting_key(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse to decrypt SecureStrings whose key is disabled, or waits for its deletion."""
    parameters = request.parameters
    if not parameters.get("WithDecryption"):
        return None
    names = [parameters["Name"]] if "Name" in parameters else parameters.get("Names", [])
    secrets = [secret for name in names for secret in inventory.list_secure_parameters(name.partition(":")[0])]
    if "Path" in parameters:
        secrets = list(inventory.list_secure_parameters(parameters["Path"], below=True))
    keys = filter(None, (inventory.find_key(key) for _, key in secrets))
    return next((ApiError("InvalidKeyId", f"{key.arn} is disabled.") for key in keys if not key.enabled), None)


# --- CloudWatch, Route 53 ---------------------------------------------------------------------------------------------


def check_metric_data(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse PutMetricData without metrics, or under AWS's own namespace."""
    if not request.parameters.get("MetricData") and not request.parameters.get("EntityMetricData"):
        return ApiError("MissingParameter", "The parameter MetricData is required.")
    if str(request.parameters["Namespace"]).startswith("AWS/"):
        return ApiError("InvalidParameterValue", "The value AWS/ for parameter Namespace is invalid.")
    return None


#: Metrics with which an alarm may have EC2 recover an instance.
_SYSTEM_CHECKS = ("StatusCheckFailed_System", "StatusCheckFailed_AttachedEBS")


def check_alarm(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse an alarm that CloudWatch cannot evaluate, or whose action EC2 cannot take (PutMetricAlarm).

    Sources: Amazon CloudWatch API Reference, "PutMetricAlarm"; Amazon EC2 User Guide, "Create alarms that stop,
    terminate, reboot, or recover an instance".
    """
    parameters = request.parameters
    period, periods = parameters.get("Period", 0), parameters.get("EvaluationPeriods", 0)
    if parameters.get("MetricName"):
        if not (parameters.get("Statistic") or parameters.get("ExtendedStatistic")):
            return ApiError("ValidationError", "Either Statistic or ExtendedStatistic must be set for a MetricAlarm.")
        if period not in (10, 20, 30) and (period < 60 or period % 60):
            return ApiError("ValidationError", "Period must be 10, 20, 30 or a multiple of 60.")
        if period * periods > (7 * 86400 if period >= 3600 else 86400):
            return ApiError(
                "ValidationError", "Metrics cannot be checked across more than a day (EvaluationPeriods * Period)."
            )
    if parameters.get("DatapointsToAlarm", periods) > periods:
        return ApiError("ValidationError", "DatapointsToAlarm must be less than or equal to EvaluationPeriods.")
    actions = {str(arn).rpartition(":")[2] for arn in parameters.get("AlarmActions", ()) if ":automate:" in str(arn)}
    dimensions = {dimension["Name"] for dimension in parameters.get("Dimensions", ())}
    if actions and dimensions != {"InstanceId"}:
        return ApiError("ValidationError", "EC2 actions need a metric with the dimension InstanceId alone.")
    if "recover" in actions and parameters.get("MetricName") not in _SYSTEM_CHECKS:
        return ApiError("ValidationError", f"Invalid use of EC2 'Recover' action. Use one of {_SYSTEM_CHECKS}.")
    return None


def check_zone_name(request: ApiRequest, _: Inventory) -> ApiError | None:
    """Refuse a zone whose name or one of whose labels has a length that DNS does not allow (RFC 1035, 2.3.4)."""
    name = str(request.parameters["Name"]).removesuffix(".")
    if len(name) <= 253 and all(1 <= len(label) <= 63 for label in name.split(".")):
        return None
    return ApiError("InvalidDomainName", f"The domain name {name} is not valid.")


def check_private_zone(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse a second private zone of one name in one VPC."""
    vpc = request.parameters.get("VPC", {}).get("VPCId")
    name = request.parameters.get("Name") or inventory.find_zone_name(request.parameters.get("HostedZoneId", ""))
    if not vpc or not name:
        return None
    names = [zone.rstrip(".").lower() for zone in inventory.list_private_zone_names(vpc)]
    if name.rstrip(".").lower() in names:
        return ApiError(
            "ConflictingDomainExists",
            f"The VPC {vpc} in region {request.region} has already been associated with a hosted zone with the same "
            "domain name.",
        )
    return None


def check_record_changes(request: ApiRequest, inventory: Inventory) -> ApiError | None:
    """Refuse a batch of changes to records if one of them does not fit the records that the zone has by then."""
    zone = request.parameters.get("HostedZoneId", "")
    records = {(record.name, record.type, record.identifier): record for record in inventory.list_records(zone)}
    for change in request.parameters["ChangeBatch"]["Changes"]:
        record = _read_record(change["ResourceRecordSet"])
        key = record.name, record.type, record.identifier
        refusal = _judge_record_change(change["Action"], record, list(records.values()), inventory.find_zone_name(zone))
        if refusal:
            return ApiError("InvalidChangeBatch", f"[{refusal}]")
        if change["Action"] == "DELETE":
            del records[key]
        else:
            records[key] = record
    return None


def _read_record(record: Mapping[str, Any]) -> ZoneRecord:
    return ZoneRecord(
        name=f"{str(record['Name']).lower().rstrip('.')}.",
        type=str(record["Type"]),
        identifier=record.get("SetIdentifier"),
        ttl=None if record.get("TTL") is None else int(record["TTL"]),
        values=tuple(str(each["Value"]) for each in record.get("ResourceRecords", ())),
    )


def _judge_record_change(action: str, record: ZoneRecord, existing: Sequence[ZoneRecord], zone: str | None) -> str:
    """Return why Route 53 refuses a change of a record, or an empty string."""
    key = record.type, record.identifier
    of_name = {(each.type, each.identifier): each for each in existing if each.name == record.name}
    change = f"Tried to {action.lower()} resource record set [name='{record.name}', type='{record.type}'] but"
    if action == "CREATE" and key in of_name:
        return f"{change} it already exists"
    if action == "DELETE":
        if key not in of_name:
            return f"{change} it was not found"
        former = of_name[key]
        if (former.ttl, sorted(former.values)) != (record.ttl, sorted(record.values)):
            return f"{change} the values provided do not match the current values"
        return ""
    types = {type for type, _ in of_name}
    if record.type != "CNAME" and "CNAME" in types:
        return (
            f"RRSet of type {record.type} with DNS name {record.name} is not permitted because a conflicting RRSet of "
            f"type CNAME with the same DNS name already exists in zone {zone}"
        )
    if record.type == "CNAME" and types - {"CNAME"}:
        return (
            f"RRSet of type CNAME with DNS name {record.name} is not permitted as it conflicts with other records with "
            f"the same DNS name in zone {zone}"
        )
    return ""


#: Add a rule here: service, actions, check.
RULES = (
    ServiceRule("ssm", ("PutParameter",), check_parameter_name),
    ServiceRule("ssm", ("PutParameter",), check_parameter_value),
    ServiceRule("ssm", ("PutParameter",), check_parameter_type),
    ServiceRule("ssm", ("PutParameter",), check_parameter_key),
    ServiceRule("ssm", ("GetParameter", "GetParameters", "GetParametersByPath"), check_decrypting_key),
    ServiceRule("cloudwatch", ("PutMetricData",), check_metric_data),
    ServiceRule("cloudwatch", ("PutMetricAlarm",), check_alarm),
    ServiceRule("logs", ("PutLogEvents",), check_log_events),
    ServiceRule("logs", ("PutRetentionPolicy",), check_retention),
    ServiceRule("iam", ("PutUserPolicy",), inline_check("User")),
    ServiceRule("iam", ("PutRolePolicy",), inline_check("Role")),
    ServiceRule("iam", ("PutGroupPolicy",), inline_check("Group")),
    ServiceRule("iam", ("CreatePolicy", "CreatePolicyVersion"), check_managed_policy),
    ServiceRule("iam", ("CreateRole", "UpdateAssumeRolePolicy"), check_trust_policy),
    ServiceRule("kms", ("CreateKey", "PutKeyPolicy"), check_key_policy),
    ServiceRule("route53", ("CreateHostedZone",), check_zone_name),
    ServiceRule("route53", ("CreateHostedZone", "AssociateVPCWithHostedZone"), check_private_zone),
    ServiceRule("route53", ("ChangeResourceRecordSets",), check_record_changes),
)


# --- tags -------------------------------------------------------------------------------------------------------------

_MAX_KEY, _MAX_VALUE, _MAX_TAGS = 128, 256, 50
#: Error code for a tag that is refused, where it is not ``InvalidParameterValue``.
_TAG_CODES = {
    "iam": "InvalidInput",
    "ssm": "ValidationException",
    "kms": "TagException",
    "sns": "InvalidParameter",
    "route53": "InvalidInput",
}


def check_tags(request: ApiRequest) -> ApiError | None:
    """Refuse tags that are too long or too many, or whose keys are reserved."""
    code = _TAG_CODES.get(request.service, "InvalidParameterValue")
    for tags in _list_tag_lists(request.parameters):
        for tag in tags:
            # KMS writes TagKey and TagValue.
            key, value = str(tag.get("Key", tag.get("TagKey", ""))), str(tag.get("Value", tag.get("TagValue")) or "")
            if key.lower().startswith("aws:"):
                return ApiError(code, "Tag keys starting with 'aws:' are reserved for internal use")
            if not 1 <= len(key) <= _MAX_KEY:
                return ApiError(code, f"Tag key exceeds the maximum length of {_MAX_KEY} characters")
            if len(value) > _MAX_VALUE:
                return ApiError(code, f"Tag value exceeds the maximum length of {_MAX_VALUE} characters")
        if len(tags) > _MAX_TAGS:
            code = "TagLimitExceeded" if request.service == "ec2" else code
            return ApiError(code, f"More than {_MAX_TAGS} tags")
    return None


def _list_tag_lists(parameters: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    for name in ("Tags", "AddTags"):
        if isinstance(parameters.get(name), list):
            yield parameters[name]
    for specification in parameters.get("TagSpecifications", ()):
        yield specification.get("Tags", [])


# --- S3 ---------------------------------------------------------------------------------------------------------------

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def check_bucket_name(name: str) -> ApiError | None:
    """Return the refusal of a name for a new bucket, or None."""
    try:
        ipaddress.IPv4Address(name)
        is_address = True
    except ValueError:
        is_address = False
    if (
        is_address
        or not _BUCKET_NAME.fullmatch(name)
        or ".." in name
        or name.startswith(_RESERVED_PREFIXES)
        or name.endswith(_RESERVED_SUFFIXES)
    ):
        return ApiError("InvalidBucketName", "The specified bucket is not valid.")
    return None


#: Tags of an object, and of a bucket (Amazon S3 User Guide, "Categorizing your objects using tags").
_MAX_OBJECT_TAGS = 10


def check_object_tags(action: str, headers: Mapping[str, str], body: bytes) -> ApiError | None:
    """Refuse more tags than an object in S3 takes: those of a new object are in a header, others in the body."""
    if action == "s3:PutObject":
        count = len(urllib.parse.parse_qsl(headers.get("x-amz-tagging", ""), keep_blank_values=True))
    elif action == "s3:PutObjectTagging":
        count = len(re.findall(rb"<Tag>", body))
    else:
        return None
    if count <= _MAX_OBJECT_TAGS:
        return None
    return ApiError("BadRequest", f"Object tags cannot be greater than {_MAX_OBJECT_TAGS}")
