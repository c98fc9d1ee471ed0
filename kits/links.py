"""Build the kit of a bonded host: network devices for systemd-networkd, a tunnel a link, and their watchers."""

from collections.abc import Mapping

from contract import Names
from kits import kit
from openvpn.bond import Bond, render_files


def build(bond: Bond, *, names: Names, region: str, bundles: Mapping[str, str], bucket: str | None = None) -> bytes:
    """Return the kit of `bond.host`; bundles are in S3's `bucket`, without it in SSM.

    `bundles` maps a tap (`ovn0`), or the host's name for all taps, to the client whose bundle has its keys. Keys of any
    other tap are in /etc/openvpn/client/<tap>.conf already.
    """
    taps = [link.interface for link in bond.links]
    return kit.build(
        bond.host,
        names=names,
        region=region,
        bucket=bucket,
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
    full=/etc/drawbridge/links/$tap.full
    install -m 0640 -g openvpn /dev/null "$full.new"
    { cat "$conf" && sed -n '/^<ca>$/,$p' "$keys"; } >"$full.new"
    mv "$full.new" "$full"
done
systemctl enable --no-reload --quiet systemd-networkd.service
sh /etc/drawbridge/make-bond
"""
