"""Create a stack's alarms, and the topic that they are sent to."""

from collections.abc import Mapping

import pulumi

from components.alarms import Alarms, AlarmsArgs
from components.alerts import Alerts, AlertsArgs
from components.gateway import Gateway
from contract import Names
from settings.model import Settings


def first_end(settings: Settings, clients: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return when the first of the clients' certificates ends, for the release; None in a stack without alarms.

    `clients` is an authority's output. Texts in ISO 8601 have the order of the moments.
    """
    return min((client["notAfter"] for client in clients.values()), default="") if settings.alerts else None


def create_alerts(settings: Settings) -> pulumi.Output[str] | None:
    """Create the topic of the stack's alarms and return its ARN; None for a stack without alarms."""
    if settings.alerts is None:
        return None
    args = AlertsArgs(stack=settings.stack, region=settings.region, email=settings.alerts.email)
    return Alerts("alerts", args).topic


def create_alarms(settings: Settings, names: Names, instance: Gateway, topic: pulumi.Output[str] | None) -> None:
    """Create the alarms of one gateway; none without a topic."""
    if topic is None:
        return
    args = AlarmsArgs(
        names=names,
        region=settings.region,
        topic=topic,
        instance_id=instance.instance_id,
        recoverable=settings.gateway.is_recoverable,
    )
    Alarms(names.resource("alarms"), args)
