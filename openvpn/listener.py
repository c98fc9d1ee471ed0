"""Describe the endpoints of an OpenVPN server: one transport protocol, and a port for each of its processes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Listener:
    """The transport protocol and the ports of a gateway's OpenVPN processes, one port a process, in order.

    >>> Listener("udp", (1194, 1195)).port_range
    (1194, 1195)
    >>> Listener.consecutive("udp", 1194, 2)
    Listener(protocol='udp', ports=(1194, 1195))
    """

    protocol: Literal["udp", "tcp"] = "udp"
    ports: tuple[int, ...] = (1194,)

    @classmethod
    def consecutive(cls, protocol: Literal["udp", "tcp"], first: int, count: int) -> "Listener":
        """Return a listener on `count` ports that follow each other."""
        return cls(protocol, tuple(range(first, first + count)))

    @property
    def port_range(self) -> tuple[int, int]:
        """First and last port, as a firewall rule names them."""
        return self.ports[0], self.ports[-1]
