"""List the stacks of an account and region, by the tags and names of their resources and by their claims.

It needs no stack file and no state of Pulumi's.
"""

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import contract
from drawbridge import errors
from drawbridge.operate import gateway_status, leftovers, monthly_cost
from drawbridge.operate.account import Account, translate_aws_errors
from drawbridge.operate.claims import Claim, list_claims, parse_moment, stack_subject


@dataclass(frozen=True, kw_only=True, slots=True)
class StackSummary:
    """A stack in the account."""

    name: str
    owner: str
    """Who made it; empty if nothing says so."""
    end: datetime | None
    """When it may be destroyed; None if it stays, or if not all of its resources have an end."""
    state: str
    """`claimed` (nothing is deployed), `incomplete` (it has no gateway), EC2's word for an instance that does not run,
    or the state of its gateway's report (docs/gateway.md).
    """
    dollars: float | None
    """Cost a month, without traffic; None for an instance type without a price."""

    def is_past(self, now: datetime) -> bool:
        """Return whether its end is over."""
        return self.end is not None and self.end <= now

    def describe_orphan(self, now: datetime) -> str:
        """Return why what is deployed of it is probably forgotten; empty if it is not."""
        if self.state == "claimed":
            return ""
        if self.is_past(now):
            return "past its end"
        return "without a gateway" if self.state == "incomplete" else ""


@dataclass(slots=True)
class _Traces:
    """The resources of a stack in the account."""

    resources: list[leftovers.Ec2Resource] = field(default_factory=list)
    tags: list[Mapping[str, str]] = field(default_factory=list)
    """Tags of each resource whose tags are read."""
    keys: int = 0
    zones: int = 0
    alarms: int = 0


def list_summaries(account: Account) -> list[StackSummary]:
    """Return the stacks of the account and region by name; raises `AwsError`."""
    with translate_aws_errors(account.stack):
        traces = _find_traces(account)
    claims = {claim.stack: claim for claim in list_claims(account) if claim.subject == stack_subject(claim.stack)}
    return [
        StackSummary(
            name=name,
            owner=_find_owner(traces.get(name)) or (claims[name].owner if name in claims else ""),
            end=_find_end(traces.get(name), claims.get(name)),
            state=_find_state(replace(account, stack=name), traces[name]) if name in traces else "claimed",
            dollars=_find_cost(traces[name]) if name in traces else 0.0,
        )
        for name in sorted({*traces, *claims})
    ]


def _find_end(traces: _Traces | None, claim: Claim | None) -> datetime | None:
    """Return a stack's end: the latest in its resources' tags, or the claim's if no resource has tags.

    It is None if a resource has no valid end, because whoever takes the end out of a stack's file keeps the stack.
    """
    if traces is None or not traces.tags:
        return claim.end if claim else None
    ends = []
    for tags in traces.tags:
        try:
            ends.append(parse_moment(tags[contract.END_TAG]))
        except (KeyError, ValueError):
            return None
    return max(ends)


def _find_owner(traces: _Traces | None) -> str:
    owners = (tags.get(contract.OWNER_TAG, "") for tags in traces.tags) if traces else ()
    return next(filter(None, owners), "")


def _find_state(account: Account, traces: _Traces) -> str:
    """Return the state of the first gateway that is not ready."""
    instances = {
        resource.tags.get("Name", ""): resource for resource in traces.resources if resource.kind == "instance"
    }
    states = []
    for names in account.all_names:
        instance = instances.get(names.tags("gateway")["Name"])
        if instance is None:
            continue
        state = str(instance.details["State"]["Name"])
        if state == "running":
            gateways = [gateway_status.GatewayInstance(instance.id, state)]
            try:
                state = gateway_status.read_report(replace(account, gateway=names.gateway), gateways).state
            except errors.NotDeployedError:
                state = "missing"
            except errors.MalformedError:
                state = "malformed"
        states.append(state)
    return next((state for state in states if state != "ready"), "ready") if states else "incomplete"


def _find_cost(traces: _Traces) -> float | None:
    instances = [resource.details for resource in traces.resources if resource.kind == "instance"]
    with contextlib.suppress(errors.StackError):
        return monthly_cost.price_resources(
            machines=[entry["InstanceType"] for entry in instances if entry["State"]["Name"] in ("pending", "running")],
            addresses=sum(resource.kind == "address" for resource in traces.resources),
            gibibytes=sum(resource.details["Size"] for resource in traces.resources if resource.kind == "volume"),
            keys=traces.keys,
            zones=traces.zones,
            alarms=traces.alarms,
        )
    return None


def _find_traces(account: Account) -> dict[str, _Traces]:
    traces: defaultdict[str, _Traces] = defaultdict(_Traces)
    filters = [{"Name": "tag:Project", "Values": [contract.PROJECT]}, {"Name": "tag-key", "Values": ["Stack"]}]
    for resource in leftovers.list_ec2_resources(account, filters):
        traces[resource.tags["Stack"]].resources.append(resource)
        traces[resource.tags["Stack"]].tags.append(resource.tags)
    for kind, tags in leftovers.list_tagged_resources(account):
        stack = traces[tags["Stack"]]
        stack.tags.append(tags)
        stack.keys += kind == "key"
        stack.zones += kind == "hosted zone"
    traces |= {name: _Traces() for name in {*_list_names(account)} - traces.keys()}
    for page in (
        account.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{contract.PROJECT}-")
    ):
        for alarm in (alarm["AlarmName"] for alarm in page["MetricAlarms"]):
            # A stack's name may begin with another one's, and may have any word in it.
            stacks = [name for name in traces if alarm.startswith(contract.alarm_prefix(name))]
            traces[max(stacks, key=len, default=_stack_of_alarm(alarm))].alarms += 1
    return dict(traces)


def _stack_of_alarm(alarm: str) -> str:
    return alarm.removeprefix(f"{contract.PROJECT}-").partition("-alarm-")[0]


def _list_names(account: Account) -> Iterator[str]:
    """Yield the stack of each parameter, log group, bucket and topic that has a stack's name in its own."""
    filters = [{"Key": "Path", "Option": "Recursive", "Values": [f"/{contract.PROJECT}"]}]
    for page in account.client("ssm").get_paginator("describe_parameters").paginate(ParameterFilters=filters):
        names = (parameter["Name"] for parameter in page["Parameters"])
        yield from (name.split("/")[2] for name in names if not name.startswith(f"{contract.CLAIMS}/"))
    groups = account.client("logs").get_paginator("describe_log_groups")
    for page in groups.paginate(logGroupNamePrefix=f"/{contract.PROJECT}/"):
        yield from (group["logGroupName"].split("/")[2] for group in page["logGroups"])
    # Names of buckets hold the region, because S3 lists those of all regions.
    bucket = rf"{contract.PROJECT}-(.+)-\d{{12}}-{account.session.region_name}(-pki)?"
    for entry in account.client("s3").list_buckets()["Buckets"]:
        yield from (match[1] for match in [re.fullmatch(bucket, entry["Name"])] if match)
    for page in account.client("sns").get_paginator("list_topics").paginate():
        for name in (topic["TopicArn"].rpartition(":")[2] for topic in page["Topics"]):
            yield from (match[1] for match in [re.fullmatch(contract.topic_name("(.+)"), name)] if match)
