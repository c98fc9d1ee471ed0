"""Decide when certificates end, and from when on a deployment renews them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pki.authority import Certificate

#: Time before its end from which a certificate is renewed, unless the stack says otherwise.
RENEWAL = timedelta(days=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Validity of a stack's certificates, and the time before their end from which they are renewed."""

    ca: timedelta
    server: timedelta
    client: timedelta
    clients: Mapping[str, timedelta] = field(default_factory=dict)
    """Validity of the certificates of clients that have one of their own, by the client's name."""
    renewal: timedelta = RENEWAL
    """Time before its end from which a certificate is renewed, but at most a third of its validity."""

    def lifetime_of(self, client: str) -> timedelta:
        """Return how long a client's certificates are valid."""
        return self.clients.get(client, self.client)

    def window(self, lifetime: timedelta) -> timedelta:
        """Return the time before its end from which a certificate with this validity is renewed.

        Without the third, each deployment would renew certificates that are valid for a shorter time than `renewal`.
        """
        return min(self.renewal, lifetime / 3)

    def is_authority_due(self, authority: Certificate, now: datetime) -> bool:
        """Return whether the authority's certificate is in its window.

        The window has room for the longest validity of a client's certificate, which must not end after the authority's
        certificate in the same bundle: so no client's validity is cut short, and none needs a bundle because of it.
        """
        longest = max((self.client, *self.clients.values()))
        validity = authority.not_after - authority.issued
        return authority.not_after - now <= min(longest + self.renewal, validity / 3)

    def authority_end(self, authority: Certificate, now: datetime) -> datetime:
        """Return when the authority's certificate ends once a deployment has renewed it if it is due."""
        return now + self.ca if self.is_authority_due(authority, now) else authority.not_after

    def client_end(self, client: str, issued: datetime, authority_end: datetime) -> datetime:
        """Return when a client's certificate ends that was issued at a moment, under an authority with this end."""
        return min(issued + self.lifetime_of(client), authority_end)

    def is_client_due(self, client: str, not_after: datetime, authority_end: datetime, now: datetime) -> bool:
        """Return whether a client's certificate is in its window; `authority_end` would bound the next one."""
        in_window = not_after - now <= self.window(self.lifetime_of(client))
        return in_window and self.client_end(client, now, authority_end) > not_after

    def server_end(self, issued: datetime, authority_end: datetime) -> datetime:
        """Return when a server's certificate ends that was issued at a moment, under an authority with this end."""
        return min(issued + self.server, authority_end)

    def is_server_due(self, not_after: datetime, authority_end: datetime, now: datetime) -> bool:
        """Return whether the server's certificate is in its window; `authority_end` would bound the next one."""
        return not_after - now <= self.window(self.server) and self.server_end(now, authority_end) > not_after
