r"""Render the part of a client's profile for Windows: two scripts that OpenVPN runs, and their paths.

The scripts set what the gateway has pushed, and undo it. They need an administrator's rights, which OpenVPN's own
service (`config-auto`) has. Source: openvpn(8) of 2.6, `--up`: OpenVPN parses the command a second time, so each
backslash of a path is written four times.
"""

from collections.abc import Iterator

from openvpn.model import Tunnel

#: Directory of the profiles that OpenVPN's service starts at boot.
CONFIG_DIRECTORY = r"C:\Program Files\OpenVPN\config-auto"


#: The first of the additional lines; no other profile has it.
FIRST_OPTION = "ifconfig-noexec"


def render_options(tunnel: Tunnel, client: str) -> Iterator[str]:
    """Yield the additional lines of a profile for a client on Windows."""
    # The scripts set addresses and routes: OpenVPN passes them in the environment.
    yield FIRST_OPTION
    yield "route-noexec"
    if tunnel.redirect:
        # With route-noexec OpenVPN does not redirect the default route, and no script learns of it otherwise.
        yield "setenv drawbridge_redirect 1"
    if tunnel.blocks_ipv6:
        yield "setenv drawbridge_block_ipv6 1"
    if tunnel.redirect and tunnel.resolver:
        # Windows asks the resolvers of every adapter. Only OpenVPN for Windows knows the option.
        yield "setenv opt block-outside-dns"
    yield "script-security 2"
    for event, name in zip(("up", "down"), script_names(client), strict=True):
        path = quote_path(rf"{CONFIG_DIRECTORY}\{name}")
        yield f"{event} {path}"


def quote_path(path: str) -> str:
    r"""Return a path quoted for `--up`, which is parsed first as an option's value and then as a command line.

    >>> print(quoted(r"C:\a b\c.cmd"))
    "\"C:\\\\a b\\\\c.cmd\""
    """
    command = '"{}"'.format(path.replace("\\", r"\\"))
    return '"{}"'.format(command.replace("\\", r"\\").replace('"', r"\""))


def script_names(client: str) -> tuple[str, str]:
    """Return the names of a client's two scripts."""
    return f"{client}-up.cmd", f"{client}-down.cmd"
