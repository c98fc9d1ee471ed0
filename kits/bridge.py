"""The kit of a bridge: a Debian host that joins the LAN it stands in to a segment."""

from collections.abc import Mapping

from kits import kit
from openvpn import lan_bridge
from openvpn.model import Tunnel, TunnelClient


def build(
    client: TunnelClient,
    tunnel: Tunnel,
    host: lan_bridge.BridgeHost,
    *,
    stack: str,
    region: str,
    door: Mapping[str, str] | None = None,
) -> bytes:
    """Return a bridge's kit, tar and gzip; `door` is as for `kits.site.build`."""
    files = {path: text for path, text in kit.static("site").items() if "openvpn-client@" not in path}
    files = {path: text for path, text in files.items() if door or "allow" not in path} | kit.static("bridge")
    units = ["drawbridge-site.service", *(["drawbridge-allow-me.timer"] if door else [])]
    return kit.build(
        client.name,
        stack=stack,
        region=region,
        files={**files, **lan_bridge.render_files(client, tunnel, host)},
        packages=("iproute2", "iputils-ping"),
        units=[*units, "drawbridge-bridge.service", f"openvpn-client@{client.name}.service"],
        variables=door,
        hints=hints(tunnel),
        hook=_HOOK,
        remove=_REMOVE,
    )


def hints(tunnel: Tunnel) -> str:
    """Return what the LAN's owner has to see to, where no kit can do it."""
    far = "".join(f"    {network} via {tunnel.layout.address}\n" for network in tunnel.routes)
    routes = f"Its hosts reach AWS once they, or their router, have these routes:\n{far}" if far else ""
    return f"The LAN is bridged. Its router must hand out no address of {tunnel.pool}.\n{routes}"


_HOOK = """\
systemctl enable --quiet drawbridge-bridge-stage.service
python3 -I /usr/local/lib/drawbridge/bridge.py try
"""

_REMOVE = """\
systemctl stop "openvpn-client@$(sed -n 's/^KIT=//p' /etc/drawbridge/kit.env).service"
python3 -I /usr/local/lib/drawbridge/bridge.py remove
systemctl disable --quiet drawbridge-bridge-stage.service
"""
