"""Keep the hosts outside of AWS: at a site behind NAT, or on the Internet itself."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lab.errors import LabError
from lab.machines.container import LabMachine
from lab.machines.factory import MachineFactory
from lab.namespaces import delete_namespace
from lab.network.fabric import RESOLVER, Fabric
from lab.network.sites import InternetHost, Site

#: The image has no SSH host keys, which cloud-init makes on an instance: a host would start sshd again and again.
_SKIPPED_UNITS = {"/etc/systemd/system/ssh.service": ""}


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host outside of AWS."""

    machine: LabMachine
    site: str | None
    """None for one that is on the Internet itself."""
    address: str


class Hosts:
    """The sites and hosts of one lab.

    Args:
        factory: creates the machines.
        fabric: has the lab's Internet.
        boots: whether machines boot; where not, a host is its network namespace alone.
    """

    def __init__(self, factory: MachineFactory, fabric: Fabric, *, boots: bool) -> None:
        self.sites: dict[str, Site] = {}
        self.hosts: dict[str, HostRecord] = {}
        self._factory = factory
        self._fabric = fabric
        self._boots = boots

    def add_site(self, site: Site) -> None:
        """Create a site; one of that name stays as it is."""
        if site.name not in self.sites:
            site.open(self._fabric)
            self.sites[site.name] = site

    def remove_site(self, name: str) -> None:
        """Remove a site, if there is one.

        Raises:
            LabError: it still has hosts.
        """
        site = self.sites.get(name)
        if site is None:
            return
        if site.hosts:
            raise LabError(f"site {name} still has hosts: {', '.join(sorted(site.hosts))}")
        site.close(self._fabric)
        del self.sites[name]

    def site(self, name: str) -> Site:
        """Return a site by its name.

        Raises:
            LabError: there is none of that name.
        """
        if name not in self.sites:
            raise LabError(f"the lab has no site {name}; it has {', '.join(sorted(self.sites)) or 'none'}")
        return self.sites[name]

    def host(self, name: str) -> HostRecord:
        """Return a host by its name.

        Raises:
            LabError: there is none of that name.
        """
        if name not in self.hosts:
            raise LabError(f"the lab has no host {name}; it has {', '.join(sorted(self.hosts)) or 'none'}")
        return self.hosts[name]

    def add_host(
        self,
        name: str,
        *,
        site: str | None,
        second_site: str | None,
        address: IPv4Address | None,
        address6: IPv6Address | None,
        own_kernel: bool,
        files: Mapping[str, str],
    ) -> None:
        """Create a host and boot it; one of that name stays as it is.

        Args:
            site: where it is; None for the Internet itself, with the addresses given.
            second_site: site that its ``eth1`` is plugged into.
            files: text by path, written before it boots.

        Raises:
            LabError: there is no such site, or neither a site nor an address is given.
        """
        if name in self.hosts:
            return
        if site:
            at = self.site(site)
            namespace = at.add_host(self._fabric, name, address)
            address = at.hosts[name].ip
            if second_site:
                self.site(second_site).add_host(self._fabric, name, line=1)
        elif address:
            namespace = InternetHost(name, address, address6).open(self._fabric)
        else:
            raise LabError(f"host {name} needs a site or a public address of its own")
        machine = self._factory.create_host(name, namespace, own_kernel=own_kernel)
        self.hosts[name] = HostRecord(machine, site, str(address))
        if self._boots:
            files = {**self._factory.shared_files(machine, RESOLVER), **_SKIPPED_UNITS, **files}
            machine.prepare(files, hostname=name.replace("_", "-"))
            machine.start()

    def remove_host(self, name: str) -> None:
        """Remove a host with all it wrote, if there is one."""
        host = self.hosts.pop(name, None)
        if host is not None:
            host.machine.remove()
            for site in self.sites.values():
                site.hosts.pop(name, None)
            delete_namespace(f"{self._fabric.prefix}{name}")

    def close(self) -> None:
        """Stop every host's machine and remove what it wrote."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda host: host.machine.remove(), self.hosts.values()))
