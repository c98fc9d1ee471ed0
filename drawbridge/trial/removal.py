"""Destroy a stack of a region on this machine with all that was started for it, and list what is left."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from drawbridge import errors
from drawbridge.operate.account import translate_aws_errors
from drawbridge.operate.leftovers import Leftover, find_leftovers
from drawbridge.operate.stack_records import is_shared, remove_record, save_record
from drawbridge.trial.adoption import remove_adopted
from drawbridge.trial.deployment import Deployment, Progress, client_user, create_engine, load_deployment
from drawbridge.trial.hosts import PRIVATE_HOST
from drawbridge.trial.measure import wait_until
from engine.engine import EngineError
from lab.region import Region

_TERMINATED_SECONDS = 60


def destroy_stack(region: Region, stack: str, progress: Progress) -> list[Leftover]:
    """Destroy a stack, its clients' machines and its private hosts; return what is left of it in the region.

    Raises:
        StackError: the region has no such stack.
        DeploymentError, AwsError: it failed; the stack's record stays, so that the command can run again.
    """
    deployed = load_deployment(region, stack)
    with translate_aws_errors(stack):
        return _destroy(deployed, progress)


def _destroy(deployed: Deployment, progress: Progress) -> list[Leftover]:
    region, stack = deployed.region, deployed.settings.stack
    progress(f"removing the machines of stack {stack}")
    for client in list(deployed.record.clients):
        remove_client(deployed, client)
    _remove_other_hosts(deployed)
    _terminate_private_hosts(deployed)
    progress(f"destroying stack {stack}")
    with deployed.environment():
        try:
            create_engine(region, stack, deployed.record.config, progress).destroy()
        except EngineError as error:
            raise errors.DeploymentError(str(error), _name_remedy(str(error), region)) from error
    remove_adopted(region, deployed.record, deployed.settings.region)
    region.wait_reconciled()
    left = [*find_leftovers(deployed.account), *_find_started(deployed)]
    if not left:
        remove_record(region, stack)
    return left


def _name_remedy(failure: str, region: Region) -> str:
    if "DependencyViolation" in failure:
        return "first terminate the instances and delete the network interfaces that you made there; then run it again"
    return f"see {region.directory}/log, then run it again, or take the region down: drawbridge lab down"


def remove_client(deployed: Deployment, client: str) -> None:
    """Remove a client's machine, those in its LAN, its home, and the IAM user as whom it fetched its bundle."""
    record = deployed.record
    for name in record.clients.pop(client, []):
        _remove_host(deployed, record.machines.pop(name, name))
    record.bundles.pop(client, None)
    _delete_user(deployed, client_user(record.stack, client))
    save_record(deployed.region, record)


def _remove_other_hosts(deployed: Deployment) -> None:
    """Remove the machines outside of AWS that no other stack uses."""
    outside = {host["name"] for host in deployed.region.status()["hosts"]}
    for name, machine in list(deployed.record.machines.items()):
        if machine in outside:
            if not is_shared(deployed.region, deployed.record, machine):
                _remove_host(deployed, machine)
            del deployed.record.machines[name]
    save_record(deployed.region, deployed.record)


def _remove_host(deployed: Deployment, machine: str) -> None:
    """Remove a machine outside of AWS, and each site that has no other."""
    region = deployed.region
    status = region.status()
    region.remove_host(machine)
    occupied = {host["site"] for host in region.status()["hosts"]}
    for site in status["sites"]:
        if site["name"] not in occupied and _was_at(status, machine, site["name"]):
            region.remove_site(site["name"])


def _was_at(status: dict[str, Any], machine: str, site: str) -> bool:
    """Return whether a machine was at a site, by a status from before its removal."""
    sites = {host["site"] for host in status["hosts"] if host["name"] == machine}
    # A bonded host's second site is named after it, and no host is listed there.
    return site in sites or site.startswith(f"{machine}-ovn")


def _delete_user(deployed: Deployment, user: str) -> None:
    iam = deployed.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
        for policy in iam.list_user_policies(UserName=user)["PolicyNames"]:
            iam.delete_user_policy(UserName=user, PolicyName=policy)
        iam.delete_user(UserName=user)


def _terminate_private_hosts(deployed: Deployment) -> None:
    """Terminate the hosts that were started in the stack's private subnets, and delete their security groups."""
    ec2 = deployed.client("ec2")
    if instances := [row["InstanceId"] for row in _find_private_hosts(deployed)]:
        ec2.terminate_instances(InstanceIds=instances)
        if not wait_until(lambda: not list(_find_private_hosts(deployed)), _TERMINATED_SECONDS):
            raise errors.DeploymentError("the private hosts were not terminated", "run it again")
    for machine in _private_machines(deployed):
        prefixes = [{"Name": "group-name", "Values": [f"{machine}-*"]}]
        for group in ec2.describe_security_groups(Filters=prefixes)["SecurityGroups"]:
            # A machine of another stack may be called private-host-STACK.
            if re.fullmatch(r"[0-9a-f]{8}", group["GroupName"].removeprefix(f"{machine}-")):
                ec2.delete_security_group(GroupId=group["GroupId"])


def _find_private_hosts(deployed: Deployment) -> Iterator[dict[str, Any]]:
    if not (machines := _private_machines(deployed)):
        return
    filters = [
        {"Name": "tag:Name", "Values": machines},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped", "shutting-down"]},
    ]
    for reservation in deployed.client("ec2").describe_instances(Filters=filters)["Reservations"]:
        yield from reservation["Instances"]


def _private_machines(deployed: Deployment) -> list[str]:
    return [machine for name, machine in deployed.record.machines.items() if name.startswith(PRIVATE_HOST)]


def _find_started(deployed: Deployment) -> Iterator[Leftover]:
    """Find what was started for the stack beside its own resources."""
    outside = {host["name"] for host in deployed.region.status()["hosts"]}
    yield from (Leftover("machine", machine) for machine in deployed.record.machines.values() if machine in outside)
    yield from (Leftover("adopted", section) for section in deployed.record.adopted)
    yield from (Leftover("instance", row["InstanceId"]) for row in _find_private_hosts(deployed))
    users = deployed.client("iam").get_paginator("list_users").paginate()
    names = {client_user(deployed.record.stack, client.name) for client in deployed.settings.clients}
    yield from (
        Leftover("user", user["UserName"]) for page in users for user in page["Users"] if user["UserName"] in names
    )
