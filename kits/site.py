"""Build the kit of a site: a Debian host that has the tunnel and routes for its LAN."""

from contract import Names
from kits import kit
from openvpn import site_filter, sysctl
from openvpn.model import Tunnel, TunnelClient

#: Name of the tunnel's network interface on the host.
INTERFACE = "drawbridge0"


def build(
    client: TunnelClient,
    tunnel: Tunnel,
    *,
    names: Names,
    region: str,
    bucket: str | None = None,
    dynamic_rule: kit.DynamicRule | None = None,
) -> bytes:
    """Return a site's kit, tar and gzip; bundles are in S3's `bucket`, without it in SSM.

    With a `dynamic_rule`, the host checks every minute whether its public address has changed, and updates the rule.
    """
    files = {path: text for path, text in kit.static("site").items() if dynamic_rule or "allow" not in path}
    files["etc/drawbridge/site.nft"] = site_filter.render_nftables(client, tunnel, interface=INTERFACE)
    files["etc/sysctl.d/90-drawbridge-site.conf"] = sysctl.render_sysctl(tunnel)
    units = ["drawbridge-site.service", *(["drawbridge-allow-me.timer"] if dynamic_rule else [])]
    return kit.build(
        client.name,
        names=names,
        region=region,
        bucket=bucket,
        files=files,
        units=[*units, f"openvpn-client@{client.name}.service"],
        variables=dynamic_rule.variables if dynamic_rule else None,
        hints=hints(client, tunnel),
    )


def hints(client: TunnelClient, tunnel: Tunnel) -> str:
    """Return what the user has to configure at the LAN's router."""
    if not client.lan:
        return "The tunnel starts.\n"
    routes = "".join(f"    {network} via this host\n" for network in site_filter.remote_networks(client, tunnel))
    return f"The tunnel starts. For the other hosts of the LAN, give its router these routes:\n{routes}"
