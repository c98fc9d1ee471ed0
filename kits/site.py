"""The kit of a site: a Debian host that holds the tunnel and routes for its LAN."""

from collections.abc import Mapping

from kits import kit
from openvpn import site_filter, sysctl
from openvpn.model import Tunnel, TunnelClient

#: The tunnel's name on the host, whatever other tunnels are there.
INTERFACE = "drawbridge0"


def build(
    client: TunnelClient, tunnel: Tunnel, *, stack: str, region: str, door: Mapping[str, str] | None = None
) -> bytes:
    """Return a site's kit, tar and gzip.

    `door` has GROUP, RULE, PROTOCOL, PORT and FOLLOWS of the security group rule that follows the site's address;
    with it the kit checks every minute whether that address has changed.
    """
    files = {path: text for path, text in kit.static("site").items() if door or "allow" not in path}
    files["etc/drawbridge/site.nft"] = site_filter.render_nftables(client, tunnel, interface=INTERFACE)
    files["etc/sysctl.d/90-drawbridge-site.conf"] = sysctl.render_sysctl(tunnel)
    units = ["drawbridge-site.service", *(["drawbridge-allow-me.timer"] if door else [])]
    return kit.build(
        client.name,
        stack=stack,
        region=region,
        files=files,
        units=[*units, f"openvpn-client@{client.name}.service"],
        variables=door,
        hints=hints(client, tunnel),
    )


def hints(client: TunnelClient, tunnel: Tunnel) -> str:
    """Return what is left to be done at the LAN's router, where no kit can do it."""
    if not client.lan:
        return "The tunnel starts.\n"
    routes = "".join(f"    {network} via this host\n" for network in site_filter.remote_networks(client, tunnel))
    return f"The tunnel starts. For the other hosts of the LAN, give its router these routes:\n{routes}"
