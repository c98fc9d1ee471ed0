r"""What a client's profile says more on Windows: two scripts that OpenVPN runs, and where it finds them.

They set what the gateway has pushed, and take it back. They need an administrator's rights, which OpenVPN's own service
(`config-auto`) has. Source: openvpn(8) of 2.6, `--up`, whose command is taken apart a second time, so that each
backslash of a path stands there four times.
"""

from collections.abc import Iterator

from openvpn.model import Tunnel

#: Where OpenVPN's service looks for profiles that it starts at boot.
PLACE = r"C:\Program Files\OpenVPN\config-auto"

_MARK = "# for Windows: "


def options(tunnel: Tunnel, client: str) -> Iterator[str]:
    """Lines of the profile of a client on Windows."""
    yield f"{_MARK}{PLACE}"
    # The scripts do it: OpenVPN tells them what.
    yield "ifconfig-noexec"
    yield "route-noexec"
    if tunnel.redirect:
        # What OpenVPN would have done by itself, and tells no script.
        yield "setenv drawbridge_redirect 1"
    yield "script-security 2"
    for event, name in zip(("up", "down"), scripts(client), strict=True):
        path = quoted(rf"{PLACE}\{name}")
        yield f"{event} {path}"


def quoted(path: str) -> str:
    r"""Return a path as the command of `--up`: read once as an option's value, and what remains as a command line.

    >>> print(quoted(r"C:\a b\c.cmd"))
    "\"C:\\\\a b\\\\c.cmd\""
    """
    command = '"{}"'.format(path.replace("\\", r"\\"))
    return '"{}"'.format(command.replace("\\", r"\\").replace('"', r"\""))


def is_for(bundle: str) -> bool:
    """Whether a bundle is for Windows."""
    return f"\n{_MARK}" in bundle.partition("<ca>")[0]


def scripts(client: str) -> tuple[str, str]:
    """Return the names of a client's two scripts."""
    return f"{client}-up.cmd", f"{client}-down.cmd"
