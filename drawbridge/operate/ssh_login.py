"""One SSH connection to a gateway whose host key is known beforehand.

The key comes from SSM, where the program put it before the machine existed: nothing is trusted on first use, and no
known_hosts file of the user's is read or written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

from drawbridge import errors
from drawbridge.operate.account import Dial, dial
from images import DEFAULT_IMAGE, IMAGES

CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SshTarget:
    """Whom to connect to, and as whom."""

    host: str
    host_key: str
    """Public key of the host, as in authorized_keys: `ssh-ed25519 AAAA…`."""
    user: str = IMAGES[DEFAULT_IMAGE].login_user
    port: int = 22
    identity: Path | None = None
    """Private key to log in with; None tries the SSH agent's keys and the usual files."""
    dial: Dial = dial


@dataclass(frozen=True, slots=True)
class Shell:
    """A logged-in connection."""

    client: paramiko.SSHClient

    def run(self, command: str) -> str:
        """Output of a command that ends by itself; raises `RemoteError` where it fails or takes longer than 30 s."""
        return "".join(self.lines(command, timeout=COMMAND_TIMEOUT))

    def lines(self, command: str, timeout: float | None = None) -> Iterator[str]:
        """Output of a command line by line, as it comes; raises `RemoteError` as `run`. No timeout waits for ever."""
        try:
            stdin, stdout, stderr = self.client.exec_command(command, timeout=timeout)
            # No command here reads anything: none may wait for it.
            stdin.channel.shutdown_write()
            yield from stdout
            status = stdout.channel.recv_exit_status()
            complaint = stderr.read().decode(errors="replace").strip()
        except (paramiko.SSHException, OSError) as error:
            raise errors.RemoteError(f"{command!r} gave no answer: {error or 'time is up'}", _AGAIN) from error
        if status != 0:
            raise errors.RemoteError(f"{command!r} failed ({status}): {complaint}", _AGAIN)


_AGAIN = "try again; if it stays so, look at the release's state: drawbridge gateway status"


@contextmanager
def connect(target: SshTarget) -> Iterator[Shell]:
    """Logs in; raises `UnreachableError`, `HostKeyError` or `LoginError`. The connection ends with the context."""
    where = f"{target.host}:{target.port}"
    client = paramiko.SSHClient()
    _pin_key(client, target)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        stream = target.dial(target.host, target.port, CONNECT_TIMEOUT)
    except OSError as error:
        raise errors.UnreachableError(
            f"no connection to {where}: {error}", "is your address in drawbridge:gateway.adminFrom, and the gateway up?"
        ) from error
    with client:
        try:
            client.connect(
                target.host,
                port=target.port,
                username=target.user,
                key_filename=None if target.identity is None else str(target.identity),
                allow_agent=target.identity is None,
                look_for_keys=target.identity is None,
                sock=stream,
                timeout=CONNECT_TIMEOUT,
                banner_timeout=CONNECT_TIMEOUT,
                auth_timeout=CONNECT_TIMEOUT,
            )
        except paramiko.BadHostKeyException as error:
            raise errors.HostKeyError(
                f"{where} shows host key {error.key.fingerprint}, not the one SSM holds for this gateway",
                "do not log in: another machine may be answering; after a re-deploy, check `drawbridge gateway status`",
            ) from error
        except paramiko.AuthenticationException as error:
            raise errors.LoginError(
                f"{where} does not let {target.user} in", "give the key of drawbridge:gateway.sshKey with --identity"
            ) from error
        except (paramiko.SSHException, OSError) as error:
            raise errors.UnreachableError(f"no SSH with {where}: {error}", "is the gateway up?") from error
        yield Shell(client)


def _pin_key(client: paramiko.SSHClient, target: SshTarget) -> None:
    """Makes one key the only one accepted."""
    kind, _, blob = target.host_key.strip().partition(" ")
    entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{target.host} {kind} {blob}")
    if entry is None or entry.key is None:
        raise errors.HostKeyError("the gateway's host key in SSM cannot be read", "deploy again: pulumi up")
    # paramiko looks hosts on other ports up by another name.
    name = target.host if target.port == paramiko.config.SSH_PORT else f"[{target.host}]:{target.port}"
    client.get_host_keys().add(name, kind, entry.key)
