"""Render the user data of the machine that becomes a prepared image.

Source: cloud-init's "Cloud config examples" and the modules it names; systemd-run(1).
"""

import yaml

from userdata.cloud_config import FILES, HEADER

#: Minutes after which the machine ends itself, whatever became of whoever builds the image.
LIFETIME = 45

#: Source: Debian's 50unattended-upgrades; the Release file of trixie-backports.
_BACKPORTS = """\
// OpenVPN and the kernel of this image are Debian's backports.
Unattended-Upgrade::Origins-Pattern { "origin=Debian Backports,codename=${distro_codename}-backports"; };
"""

_SCRIPT = "/run/drawbridge-prepare-image"


def render_image_config(build: str, packages: tuple[str, ...], *, backports: bool = False) -> str:
    """Return user data that installs packages and reports to the console under the build's ID (`prepare-image`).

    With `backports` fixes of Debian's backports are installed every day as well.

    The machine powers off after `LIFETIME` minutes. Nothing of it but the packages, and how to install more, stays on
    the disk.
    """
    apt = "etc/apt/apt.conf.d/90drawbridge"
    fixes = {"path": "/etc/apt/apt.conf.d/92drawbridge-backports", "permissions": "0644", "content": _BACKPORTS}
    config: dict[str, object] = {
        "ssh_genkeytypes": ["ed25519"],
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "write_files": [
            *([fixes] if backports else []),
            {"path": f"/{apt}", "permissions": "0644", "content": (FILES / "first" / apt).read_text()},
            {"path": _SCRIPT, "permissions": "0755", "content": (FILES / "prepare-image").read_text()},
        ],
        # After cloud-init, whose traces it removes.
        "runcmd": [
            [
                *("systemd-run", "--quiet", "--no-block", "--unit=drawbridge-prepare-image"),
                *("--property=After=cloud-final.service", "sh", _SCRIPT, build, str(LIFETIME), *packages),
            ]
        ],
    }
    return f"{HEADER}\n{yaml.safe_dump(config, sort_keys=False, width=1_000)}"
