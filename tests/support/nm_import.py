"""Import a profile as NetworkManager does, and print the connection's options as JSON.

Runs under the system's Python, which has the bindings of libnm: `python3 nm_import.py PLUGIN PROFILE`. No daemon is
asked. The plugin writes keys and certificates to $HOME/.cert.
"""

import json
import sys


def main() -> None:
    import gi  # type: ignore[import-not-found]

    gi.require_version("NM", "1.0")
    from gi.repository import NM, GLib  # type: ignore[import-not-found]

    plugin = NM.VpnEditorPlugin.load(sys.argv[1], "org.freedesktop.NetworkManager.openvpn")
    try:
        connection = plugin.import_(sys.argv[2])
    except GLib.Error as error:
        sys.exit(error.message)
    options: dict[str, str] = {}
    connection.get_setting_vpn().foreach_data_item(options.__setitem__)
    print(json.dumps(options))


if __name__ == "__main__":
    main()
