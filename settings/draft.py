"""Hold a configuration whose sections are valid by themselves, before they are checked against each other."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from settings.model import (
    DEFAULT_POOLS,
    Alerts,
    Client,
    Gateway,
    Iam,
    Lifetimes,
    Log,
    Network,
    Pair,
    Rotations,
    Secrets,
    Tunnel,
)
from settings.problems import Problem


class Topology(Enum):
    """The networks and hosts that a tunnel connects."""

    ROUTED = auto()
    """Clients and their LANs, by routes."""
    SEGMENT = auto()
    """Clients on one Ethernet segment."""
    BONDED = auto()
    """Clients on one Ethernet segment, each over two links that it bonds."""
    PAIR = auto()
    """Two gateways over two links; no clients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A stack's sections; None stands for a section that is not valid by itself and already reported."""

    stack: str
    region: str
    network: Network | None
    gateway: Gateway | None
    tunnel: Tunnel | None
    """The tunnel as the stack file has it."""
    clients: Mapping[int, Client]
    """Valid clients by their position in the list."""
    entries: int
    """Entries in the list of clients, valid or not."""
    lifetimes: Lifetimes | None
    rotations: Rotations | None
    iam: Iam | None
    secrets: Secrets | None
    log: Log | None
    pair: Pair | None
    has_pair: bool
    """Whether the stack file has a section `pair`, valid or not."""
    alerts: Alerts | None
    """Also None in a stack without alarms."""

    @property
    def topology(self) -> Topology | None:
        """Return what the tunnel connects; None if its section is not valid."""
        if self.has_pair:
            return Topology.PAIR
        if self.tunnel is None:
            return None
        if self.tunnel.links > 1:
            return Topology.BONDED
        return Topology.SEGMENT if self.tunnel.device == "tap" else Topology.ROUTED

    @property
    def client_tunnel(self) -> Tunnel | None:
        """Return the tunnel if it is for clients; None in a pair, or if its section is not valid."""
        return None if self.has_pair else self.tunnel

    @property
    def effective_tunnel(self) -> Tunnel | None:
        """Return the tunnel that is deployed: in a pair it has two Ethernet links, whether or not the file says so."""
        if not self.has_pair or self.tunnel is None:
            return self.tunnel
        pool = self.tunnel.pool if "pool" in self.tunnel.model_fields_set else DEFAULT_POOLS["tap"]
        implied = {"device": "tap", "links": 2, "bond": self.tunnel.bond or "balance-xor", "nat": False, "pool": pool}
        return self.tunnel.model_copy(update=implied)


#: Finds the problems of one kind.
Check = Callable[[Draft], Iterable[Problem]]
