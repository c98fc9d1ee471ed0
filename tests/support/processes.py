"""Several OpenVPN processes of a gateway in the lab: which one a client is at, and clients that move between them."""

from drawbridge.trial.deployment import Deployment
from drawbridge.trial.hosts import run_checked
from lab.region import Host
from tests.support import waiting


def wait_process(deployed: Deployment, client: str, instance: str) -> None:
    """Wait until this process of the gateway has a client's session by its status file, and no other one has."""
    expected = [f"/run/openvpn-{instance}/status"]
    waiting.until(lambda: _list_processes(deployed, client) == expected, 60)


def find_process(deployed: Deployment, client: str) -> str:
    """Wait until one process alone has a client's session, and return its instance."""

    def find_only() -> str | None:
        found = _list_processes(deployed, client)
        return found[0] if len(found) == 1 else None

    return waiting.until(find_only, 60).removeprefix("/run/openvpn-").removesuffix("/status")


def _list_processes(deployed: Deployment, client: str) -> list[str]:
    script = f"grep -l '^CLIENT_LIST.{client}' /run/openvpn-*/status"
    return deployed.gateway.run(["sh", "-c", script]).stdout.split()


def count_connections(host: Host, name: str) -> int:
    """Return how often a client has connected."""
    unit = f"openvpn-client@{name}"
    return run_checked(host, "journalctl", "--no-pager", "-o", "cat", "-u", unit).count("Initialization Sequence Comp")


def add_neighbour(deployed: Deployment, of: str, name: str) -> Host:
    """Add a machine to the home that another one is in, from whose address the gateway leads clients elsewhere."""
    site = next(host["site"] for host in deployed.region.status()["hosts"] if host["name"] == of)
    home = deployed.region.add_host(name, site=str(site))
    home.wait_booted()
    return home


def move_client(name: str, source: Host, target: Host) -> None:
    """Start a client on another machine. The first one's is killed, so it does not tell the gateway that it goes."""
    text = run_checked(source, "cat", f"/etc/openvpn/client/{name}.conf")
    run_checked(target, "mkdir", "-p", "/etc/openvpn/client")
    run_checked(target, "tee", f"/etc/openvpn/client/{name}.conf", stdin=text)
    run_checked(source, "systemctl", "stop", "--no-block", f"openvpn-client@{name}")
    run_checked(source, "systemctl", "kill", "--signal=KILL", f"openvpn-client@{name}")
    run_checked(target, "systemctl", "start", f"openvpn-client@{name}")


def read_route_log(gateway: Host) -> str:
    """Return what the gateway has logged of clients that moved between its processes."""
    return run_checked(gateway, "journalctl", "--no-pager", "-o", "cat", "-u", "drawbridge-client-routes")
