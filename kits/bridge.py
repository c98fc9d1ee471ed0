"""Build the kit of a bridge: a Debian host that joins its LAN to a segment."""

from contract import Names
from kits import kit
from openvpn import lan_bridge
from openvpn.model import Tunnel, TunnelClient


def build(
    client: TunnelClient,
    tunnel: Tunnel,
    host: lan_bridge.BridgeHost,
    *,
    names: Names,
    region: str,
    bucket: str | None = None,
    dynamic_rule: kit.DynamicRule | None = None,
) -> bytes:
    """Return a bridge's kit, tar and gzip; for `bucket` and `dynamic_rule` see `kits.site.build`."""
    files = {path: text for path, text in kit.static("site").items() if "openvpn-client@" not in path}
    files = {path: text for path, text in files.items() if dynamic_rule or "allow" not in path} | kit.static("bridge")
    units = ["drawbridge-site.service", *(["drawbridge-allow-me.timer"] if dynamic_rule else [])]
    return kit.build(
        client.name,
        names=names,
        region=region,
        bucket=bucket,
        files={**files, **lan_bridge.render_files(client, tunnel, host)},
        packages=("iproute2", "iputils-ping"),
        units=[*units, "drawbridge-bridge.service", f"openvpn-client@{client.name}.service"],
        variables=dynamic_rule.variables if dynamic_rule else None,
        hints=hints(tunnel),
        hook=_HOOK,
        remove=_REMOVE,
    )


def hints(tunnel: Tunnel) -> str:
    """Return what the user has to configure in the LAN."""
    routes = "".join(f"    {network} via {tunnel.layout.address}\n" for network in tunnel.routes)
    if routes:
        routes = f"Its hosts reach AWS once they, or their router, have these routes:\n{routes}"
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
