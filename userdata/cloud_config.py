"""A gateway's user data: names and no secrets, and as much of a program as it takes to fetch the agent.

Source: cloud-init's "Cloud config examples" and the modules it names; the AWS page "Run commands when you launch an EC2
instance with user data input" for the limit of 16 KB.
"""

from pathlib import Path

import yaml

from contract import Names
from images import DEFAULT_IMAGE, PREPARED_SYSTEMS, find_image

FILES = Path(__file__).with_name("files")

#: The first line decides whether cloud-init takes the text for a configuration at all.
HEADER = "#cloud-config"
#: Bytes that EC2 takes, before they are encoded.
LIMIT = 16_384


class UserDataError(ValueError):
    """User data that EC2 would not take."""


def render(*, names: Names, region: str, ssh_key: str | None, image: str = DEFAULT_IMAGE) -> str:
    """Return a gateway's user data.

    `ssh_key` is an OpenSSH public key for the image's default user; without one nobody logs in. Raises `UserDataError`
    if the text is larger than EC2 takes. It holds nothing that changes with a release, so it hardly ever replaces an
    instance.
    """
    packages = list(find_image(image).packages)
    config: dict[str, object] = {
        # A prepared image has them, and cloud-init would fetch the mirror's lists to find that out. If it lacks any,
        # the bootstrap installs them.
        **({} if image in PREPARED_SYSTEMS else {"packages": packages}),
        # Just a placeholder until the agent brings the key that the operator knows; the console should not show it.
        "ssh_genkeytypes": ["ed25519"],
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "write_files": list(_files(env(names=names, region=region, image=image))),
        "runcmd": [
            ["systemctl", "daemon-reload"],
            # The timer first: it tries again what the first run, which this boot waits for, may fail at.
            ["systemctl", "start", "drawbridge-agent.timer"],
            # A failure is the agent's, not cloud-init's.
            ["sh", "-c", "systemctl start drawbridge-agent.service || true"],
        ],
    }
    if ssh_key:
        config["ssh_authorized_keys"] = [ssh_key.strip()]
    text = f"{HEADER}\n{yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=1_000)}"
    if (size := len(text.encode())) > LIMIT:
        raise UserDataError(f"the user data has {size} bytes, EC2 takes {LIMIT}")
    return text


def env(*, names: Names, region: str, image: str = DEFAULT_IMAGE) -> str:
    """Return the one file of variables that the gateway's static files read."""
    values = {
        "REGION": region,
        "STACK": names.root.partition("/drawbridge/")[2],
        "RELEASE": names.release,
        "SECRETS": names.secrets,
        "REPORT": names.report,
        "PACKAGES": " ".join(find_image(image).packages),
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _files(environment: str) -> list[dict[str, str]]:
    first, units = FILES / "first", "etc/systemd/system"
    contents = {
        "etc/drawbridge/env": environment,
        "usr/local/lib/drawbridge/bootstrap.py": (FILES / "bootstrap.py").read_text(),
        # Each release brings these two again, and may change them.
        **{f"{units}/drawbridge-agent.{kind}": _unit(f"drawbridge-agent.{kind}") for kind in ("service", "timer")},
        **{str(path.relative_to(first)): path.read_text() for path in sorted(first.rglob("*")) if path.is_file()},
    }
    return [{"path": f"/{path}", "permissions": "0644", "content": content} for path, content in contents.items()]


def _unit(name: str) -> str:
    return (FILES / "root/etc/systemd/system" / name).read_text()


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, for whoever reads the user data on the machine."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _represent_text)
