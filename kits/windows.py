"""Return the files of a client on Windows: its bundle, and the two scripts that the bundle names.

One script sets the addresses, routes and resolvers that the gateway has pushed, the other removes them, because the
adapter may stay when the tunnel ends. None of this has been run on Windows.

Sources: openvpn(8) of 2.6, "Environmental Variables"; Microsoft's references of netsh, route and cmd.
"""

from pathlib import Path

from openvpn import windows

_FILES = Path(__file__).with_name("files") / "windows"


def files(bundle: str, client: str) -> dict[str, str]:
    """Return a client's files by name, the bundle first, with Windows line endings.

    The bundle holds secrets; the scripts do not.
    """
    scripts = zip(windows.script_names(client), ("up.cmd", "down.cmd"), strict=True)
    texts = {f"{client}.ovpn": bundle} | {name: (_FILES / source).read_text() for name, source in scripts}
    return {name: text.replace("\n", "\r\n") for name, text in texts.items()}
