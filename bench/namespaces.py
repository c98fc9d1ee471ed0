"""Run commands in network namespaces, and join two of them by a wire."""

import subprocess

from tests.support.network_namespace import NetworkNamespace


def run(namespace: NetworkNamespace, *argv: str) -> str:
    """Return what a command in a namespace prints; raises `RuntimeError` with its errors if it fails."""
    done = subprocess.run(namespace.enter(*argv), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def join(left: NetworkNamespace, name: str, address: str, right: NetworkNamespace, far: str, far_address: str) -> None:
    """Join two namespaces by a pair of veth devices, and give each its name and its address with a prefix length."""
    ends = ("netns", f"{left.holder}", "type", "veth", "peer", "name", far, "netns", f"{right.holder}")
    subprocess.run(["ip", "link", "add", name, *ends], check=True)
    for namespace, device, interface_address in ((left, name, address), (right, far, far_address)):
        run(namespace, "ip", "address", "add", interface_address, "dev", device)
        run(namespace, "ip", "link", "set", device, "up")
