"""Name the files of an OpenVPN process on the gateway."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of an instance's files on the gateway.

    >>> Paths("server").management
    '/run/openvpn-server/mgmt.sock'
    """

    instance: str

    root = "/etc/openvpn/server"
    secrets = f"{root}/secrets"
    """`ca.crt`, `server.crt`, `server.key`, `tls-crypt-v2.key`; OpenVPN warns of keys that group or others can read."""
    revoked = f"{root}/revoked"
    """A file for each revoked serial, named by it in decimal. Never move the directory: without it everyone gets in."""
    ccd = f"{root}/ccd"
    """One file for each client who may connect."""
    verify_key = "/etc/drawbridge/verify-key"
    """Script that OpenVPN asks whether a client's tls-crypt-v2 key is one of a certificate that is not revoked."""
    learn = "/etc/drawbridge/learn-address"
    """Script that OpenVPN asks whether a client may use a hardware address on a segment."""
    members = "/etc/drawbridge/members"
    """Part of that script which says who owns each hardware address."""
    verify_member = "/etc/drawbridge/verify-member"
    """Script that OpenVPN asks whether a client of a segment may connect: not while it is suspended."""

    note_session = "/etc/drawbridge/note-session"
    """Script by which processes that share a port say which clients they have."""

    @property
    def config(self) -> str:
        """Configuration that `openvpn-server@<instance>` starts with."""
        return f"{self.root}/{self.instance}.conf"

    @property
    def runtime(self) -> str:
        """Directory that systemd makes for the process, 0750: it guards the management socket, which is 0777."""
        return f"/run/openvpn-{self.instance}"

    @property
    def management(self) -> str:
        """UNIX socket of the management interface."""
        return f"{self.runtime}/mgmt.sock"

    @property
    def status(self) -> str:
        """Status file, version 3 (separated by tabs), written every 10 seconds."""
        return f"{self.runtime}/status"

    @property
    def addresses(self) -> str:
        """Addresses handed out before, so that a client gets the same one again."""
        return f"/var/lib/openvpn-{self.instance}/ipp.txt"
