"""Render what all network devices of a gateway need: the names of their files, and how OpenVPN waits for them.

systemd-networkd creates the devices, so that OpenVPN needs no privilege: it opens a device that its user owns.
Source: systemd-networkd-wait-online(8), systemd.service(5), capabilities(7).
"""

from collections.abc import Mapping, Sequence

#: User that OpenVPN runs as.
USER = "openvpn"


def name_files(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by their paths under `/`, from their names, such as `tun0.netdev`."""
    # They sort before the host's own files: the first file that matches an interface counts.
    return {f"etc/systemd/network/10-drawbridge-{name}": text for name, text in texts.items()}


def render_wait(interfaces: Sequence[str], *, wants: str = "") -> str:
    """Return a drop-in that has OpenVPN start once these network interfaces are configured.

    `wants` is another unit that starts with OpenVPN.
    """
    names = " ".join(interfaces)
    return _WAIT.format(
        wants=f"Wants={wants}\n" if wants else "",
        names=names,
        options=" ".join(f"--interface={name}:no-carrier" for name in interfaces),
    )


# OpenVPN owns its device and may remove it (TUNSETPERSIST); without a device it could not start again. One command, and
# without the sandbox, which systemd would set up for it as well: clients wait while OpenVPN restarts.
_WAIT = """\
[Unit]
Wants=systemd-networkd.service
{wants}After=systemd-networkd.service

[Service]
ExecStartPre=+/bin/sh -c 'cd /sys/class/net && ls -d {names} >/dev/null 2>&1 || networkctl reload && \\
exec /usr/lib/systemd/systemd-networkd-wait-online --timeout=50 {options}'
"""
