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

    def client_end(self, client: str, issued: datetime, authority: Certificate) -> datetime:
        """Return when a client's certificate ends that the authority issued at a moment.

        It ends before the authority's own window, in which the server's certificate moves to the next authority.
        """
        return min(issued + self.lifetime_of(client), authority.not_after - self.window(self.ca))

    def is_client_due(self, client: str, not_after: datetime, authority: Certificate, now: datetime) -> bool:
        """Return whether a client's certificate is in its window; `authority` would issue the next one."""
        in_window = not_after - now <= self.window(self.lifetime_of(client))
        return in_window and self.client_end(client, now, authority) > not_after

    def server_end(self, issued: datetime, authority: Certificate) -> datetime:
        """Return when a server's certificate ends that the authority issued at a moment."""
        return min(issued + self.server, authority.not_after)

    def is_server_due(self, not_after: datetime, authority: Certificate, now: datetime) -> bool:
        """Return whether the server's certificate is in its window; `authority` would issue the next one."""
        return not_after - now <= self.window(self.server) and self.server_end(now, authority) > not_after
