"""The kit of a host that holds one address over several tunnels: devices for systemd-networkd, tunnels, watchers."""

from collections.abc import Mapping

from kits import kit
from openvpn.bond import Bond, render_files


def build(bond: Bond, *, stack: str, region: str, bundles: Mapping[str, str]) -> bytes:
    """Return the kit of `bond.host`.

    `bundles` says which client's bundle has the keys of a tap (`ovn0`), or, under the host's own name, of all taps.
    A tap with neither has them in /etc/openvpn/client/<tap>.conf already: a listener's are not a client's.
    """
    taps = [link.interface for link in bond.links]
    return kit.build(
        bond.host,
        stack=stack,
        region=region,
        files={**render_files(bond), **kit.static("links")},
        units=[f"drawbridge-{kind}@{tap}.service" for kind in ("link", "watch") for tap in taps],
        bundles=bundles,
        variables={"TAPS": ":".join(taps)},
        hints=f"The bond is bond0, {bond.address}; its state: cat /proc/net/bonding/bond0\n",
        hook=_HOOK,
    )


_HOOK = """\
for conf in /etc/drawbridge/links/*.conf; do
    tap=$(basename "$conf" .conf)
    keys=/etc/openvpn/client/$tap.conf
    [ -f "$keys" ] || keys=/etc/openvpn/client/$(sed -n 's/^KIT=//p' /etc/drawbridge/kit.env).conf
    whole=/etc/drawbridge/links/$tap.full
    install -m 0640 -g openvpn /dev/null "$whole.new"
    { cat "$conf" && sed -n '/^<ca>$/,$p' "$keys"; } >"$whole.new"
    mv "$whole.new" "$whole"
done
systemctl enable --quiet systemd-networkd.service
sh /etc/drawbridge/make-bond
"""
