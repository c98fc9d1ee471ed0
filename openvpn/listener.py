"""Describe the endpoints of an OpenVPN server: a transport protocol and ports, for one process or more each."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Listener:
    """The transport protocol and the ports that clients connect to: one for each process, or one for all processes.

    >>> Listener("udp", (1194, 1195)).port_range
    (1194, 1195)
    >>> Listener.consecutive("udp", 1194, 2)
    Listener(protocol='udp', ports=(1194, 1195), sharing=1)
    >>> Listener("udp", (1194,), sharing=3).process_ports
    (1194, 1195, 1196)
    """

    protocol: Literal["udp", "tcp"] = "udp"
    ports: tuple[int, ...] = (1194,)
    sharing: int = 1
    """Processes that share the one port: the packet filter hands each client to one of them, by its address."""

    @classmethod
    def consecutive(cls, protocol: Literal["udp", "tcp"], first: int, count: int) -> "Listener":
        """Return a listener on `count` ports that follow each other."""
        return cls(protocol, tuple(range(first, first + count)))

    @property
    def process_ports(self) -> tuple[int, ...]:
        """Port that each process listens on; of processes that share a port, others reach only the first one's."""
        return self.ports if self.sharing == 1 else tuple(range(self.ports[0], self.ports[0] + self.sharing))

    @property
    def port_range(self) -> tuple[int, int]:
        """First and last port, as a firewall rule names them."""
        return self.ports[0], self.ports[-1]
