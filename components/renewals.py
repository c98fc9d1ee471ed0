"""Find which certificates a deployment renews, and say so in the preview and after it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pulumi

import contract
from components.schedule import Schedule
from pki.authority import Certificate

#: Clients that a message names; `drawbridge client list` shows all.
NAMED_CLIENTS = 10


def find_due(outputs: Mapping[str, Any], schedule: Schedule, now: datetime) -> Iterator[str]:
    """Yield what ends soon and is therefore renewed, in words for the operator.

    `outputs` are those of the last deployment, by which a preview decides as the deployment after it does.
    """
    authority = Certificate.read(outputs["caCertificate"])
    authority_end = schedule.authority_end(authority, now)
    if schedule.is_authority_due(authority, now):
        yield (
            f"the authority's certificate ({_describe_end(authority.not_after, now)}), for which OpenVPN restarts "
            "once; its key stays, so no client needs another bundle for it"
        )
    server = datetime.fromisoformat(outputs["serverNotAfter"])
    if schedule.is_server_due(server, authority_end, now):
        yield f"the gateway's certificate ({_describe_end(server, now)}), for which OpenVPN restarts once"
    ends = {client: datetime.fromisoformat(entry["notAfter"]) for client, entry in outputs["clients"].items()}
    due = {client: end for client, end in ends.items() if schedule.is_client_due(client, end, authority_end, now)}
    if due:
        ends_of_due = {client: _describe_end(end, now) for client, end in sorted(due.items())}
        yield f"{_list_clients(ends_of_due)}; the former ones work until then"


def find_reordered(former: Schedule, schedule: Schedule, clients: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the lifetimes that are ordered differ from the former ones, and what follows, in words."""
    if former.ca != schedule.ca:
        yield (
            f"drawbridge:lifetimes.ca is {schedule.ca.days} now, for the authority's next certificate; the present one "
            "stays"
        )
    if former.server != schedule.server:
        yield (
            f"drawbridge:lifetimes.server is {schedule.server.days} now: the gateway gets a new certificate, for which "
            "OpenVPN restarts once"
        )
    changed = {
        client: f"{days.days} days"
        for client in clients
        if (days := schedule.lifetime_of(client)) != former.lifetime_of(client)
    }
    if changed:
        yield (
            f"another lifetime is ordered for {_list_clients(changed)}: they get new certificates, and the former ones "
            "work until they end"
        )


def find_ordered(clients: Sequence[str]) -> Iterator[str]:
    """Yield the clients whose renewal was ordered since the last deployment, in words."""
    if clients:
        yield (
            f"renewals are ordered: {list_some(clients)} get new certificates, and the former ones work until they end"
        )


def find_ending_former(outputs: Mapping[str, Any], schedule: Schedule, now: datetime) -> Iterator[str]:
    """Yield the clients whose former certificates, which were renewed, end soon, in words."""
    ends = {
        client: datetime.fromisoformat(entry["formerNotAfter"])
        for client, entry in outputs["clients"].items()
        if "formerNotAfter" in entry
    }
    ending = {
        client: _describe_end(end, now)
        for client, end in ends.items()
        if now < end <= now + schedule.window(schedule.lifetime_of(client))
    }
    if ending:
        yield (
            f"the certificates that {_list_clients(ending)} had before their renewal end soon: a client that has not "
            "fetched its bundle since then needs it"
        )


def warn_of_renewals(
    names: contract.Names, former: Mapping[str, Certificate], issued: Mapping[str, Certificate]
) -> None:
    """Say which clients have new bundles, and until when their former ones work."""
    renewed = {client: certificate for client, certificate in former.items() if client in issued}
    if not renewed:
        return
    ends = {client: f"until {certificate.not_after:%Y-%m-%d}" for client, certificate in sorted(renewed.items())}
    pulumi.log.warn(
        f"{names.clients}: new certificates for clients whose former ones still work: {_list_clients(ends)}; each "
        f"needs its new bundle by then: drawbridge client fetch NAME --force --stack {names.stack}"
    )
    longer = {
        client: ends[client]
        for client, certificate in renewed.items()
        if issued[client].not_after < certificate.not_after
    }
    if longer:
        pulumi.log.warn(
            f"{names.clients}: former certificates that end after the new ones: {_list_clients(longer)}; to end one "
            f"now: drawbridge client rotate NAME --stack {names.stack}, then deploy"
        )


def _describe_end(end: datetime, now: datetime) -> str:
    return f"{'ended' if end <= now else 'until'} {end:%Y-%m-%d}"


def _list_clients(remarks: Mapping[str, str]) -> str:
    """Return clients with a remark on each; of many, some and the number of the others."""
    return list_some([f"{client} ({remark})" for client, remark in remarks.items()])


def list_some(texts: Sequence[str]) -> str:
    """Return a list of texts; of many, some and the number of the others."""
    more = len(texts) - NAMED_CLIENTS
    return ", ".join(texts[:NAMED_CLIENTS]) + (f" and {more} more" if more > 0 else "")
