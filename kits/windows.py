"""What a client on Windows gets: its bundle, and the two scripts that the bundle names.

The scripts set what the gateway has pushed, and take it back: addresses, the ways through the tunnel, resolvers. So all
of it is gone when the tunnel is, also where the adapter stays. None of this has been run on Windows.

Sources: openvpn(8) of 2.6, "Environmental Variables"; Microsoft's references of netsh, route and cmd.
"""

from pathlib import Path

from openvpn import windows

_FILES = Path(__file__).with_name("files") / "windows"


def files(bundle: str, client: str) -> dict[str, str]:
    """Return a client's files by name, the bundle first, their lines ended as on Windows.

    The bundle holds secrets, the scripts none.
    """
    scripts = zip(windows.script_names(client), ("up.cmd", "down.cmd"), strict=True)
    texts = {f"{client}.ovpn": bundle} | {name: (_FILES / source).read_text() for name, source in scripts}
    return {name: text.replace("\n", "\r\n") for name, text in texts.items()}
