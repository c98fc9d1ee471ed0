"""Machines with a kernel of their own: User-Mode Linux, for what the kernel of this machine may lack, such as bonding.

Such a machine boots the same image by the same systemd as any other of the lab's, which takes it about 6 s. Its kernel
(`lab.machines.uml_kernel`) is an ordinary process in the machine's network namespace: each interface found there
becomes one of the machine's own, with its address, route and MAC, and the namespace only carries frames between the
two. Commands reach it through `lab.machines.uml_agent`.

Debian's such kernel has nftables for bridges alone. For all else `lab.machines.uml_nft` stands in for the program:
rulesets are checked and not in force there.

Sources: the kernel's Documentation/virt/uml/user_mode_linux_howto_v2.rst (vector transports, hostfs); systemd.link(5),
systemd.network(5); unshare(1).
"""

import contextlib
import hashlib
import json
import re
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabError, MachineDown
from lab.linux import NETNS, ip_batch, listen, run, within
from lab.machines import uml_kernel
from lab.machines.container import ENVIRONMENT, LabMachine
from lab.machines.uml_agent import ADDRESS, CHECKER, MAC, PORT
from lab.machines.uml_nft import REAL
from lab.namespaces import add_namespace, delete_namespace
from lab.rooted_files import read_file, remove_file, rename_file, write_file

NFT = "/usr/sbin/nft"
#: Options of nft that change what it prints, or have it check alone.
_NFT_OPTIONS = {"-c", "--check", "-j", "--json", "-a", "--handle", "-s", "--stateless", "-n", "--numeric"}
#: dpkg's list of the files that it puts elsewhere (dpkg-divert(1)).
_DIVERSIONS = "/var/lib/dpkg/diversions"
_AGENT = "/usr/local/lib/lab/agent.py"
_REBOOTING = "/var/lib/lab-rebooting"
_NETWORK = "/usr/local/lib/lab/network"
#: MiB of a host, and the most that an instance gets whatever its type.
_HOST_MEMORY, _MOST_MEMORY = 256, 512
_HOST_END = f"{CHECKER[0]}/30"
CONTROL = "lab0"
_GONE_SECONDS = 5.0
#: What a kernel prints last (kernel/reboot.c), and the seconds that it may then take to end.
_LAST_WORDS = rb"reboot: (Restarting system|Power down|System halted)"
_LAST_LOOP_SECONDS = 3.0
#: A kernel that is gone ends no connection: after 10 s without an answer it counts as gone (tcp(7)).
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 2,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 10_000,
}
_FILES = {
    _AGENT: Path(__file__).with_name("uml_agent.py").read_text(),
    "/etc/systemd/system/lab-agent.service": (
        "[Unit]\nDescription=The lab's way in\nDefaultDependencies=no\nAfter=local-fs.target\n\n"
        f"[Service]\nExecStart=/usr/bin/python3 -I {_AGENT}\nRestart=always\nRestartSec=1\n"
    ),
    "/etc/systemd/system/lab-reboot.service": (
        "[Unit]\nDescription=Tell the lab that this is a reboot\nDefaultDependencies=no\n"
        "After=shutdown.target\nBefore=umount.target final.target\n\n"
        f"[Service]\nType=oneshot\nExecStart=/usr/bin/touch {_REBOOTING}\n"
    ),
    "/etc/systemd/system/reboot.target.d/lab.conf": "[Unit]\nWants=lab-reboot.service\n",
    # As on EC2, where cloud-init finds an address before the network is up that it may configure.
    "/etc/systemd/system/lab-network.service": (
        "[Unit]\nDescription=The lab's addresses\nDefaultDependencies=no\n"
        "After=systemd-udev-trigger.service\nBefore=cloud-init-local.service\n\n"
        f"[Service]\nType=oneshot\nExecStart=/bin/sh {_NETWORK}\n"
    ),
    "/etc/systemd/system/cloud-init-local.service.d/lab.conf": (
        "[Unit]\nWants=lab-network.service\nAfter=lab-network.service\n"
    ),
    # What boots slowly does what it has to: of its devices it knows its lines, and nothing changed since the image.
    "/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": (
        "[Service]\nExecStart=\nExecStart=udevadm trigger --action=add --subsystem-match=net\n"
    ),
    **dict.fromkeys(("/etc/.updated", "/var/.updated"), ""),
    # Its addresses and its resolver are in files: nothing waits for a lease, and no other resolver starts.
    "/usr/sbin/dhcpcd": "",
    **dict.fromkeys(
        (
            "/etc/systemd/system/systemd-networkd-wait-online.service",
            "/etc/systemd/system/systemd-resolved.service",
        ),
        "",
    ),
    # It has no terminal, no clock to set, no program of another architecture, and no use for message queues. Each of
    # these starts takes such a kernel up to a second.
    **dict.fromkeys(
        (
            f"/etc/systemd/system/{unit}"
            for unit in (
                "dev-mqueue.mount",
                "getty.target",
                "proc-sys-fs-binfmt_misc.automount",
                "systemd-ask-password-console.path",
                "systemd-ask-password-wall.path",
                "systemd-binfmt.service",
                "systemd-random-seed.service",
                "systemd-timesyncd.service",
                "systemd-udev-load-credentials.service",
                "systemd-user-sessions.service",
            )
        ),
        "",
    ),
    # Its disk is this machine's: what is not written down yet when its power is cut is not lost.
    "/etc/dpkg/dpkg.cfg.d/lab": "force-unsafe-io\n",
    "/etc/systemd/system/sysinit.target.d/lab.conf": "[Unit]\nWants=lab-agent.service\n",
    "/etc/systemd/system/multi-user.target.d/lab.conf": "[Unit]\nWants=systemd-networkd.service\n",
}


@dataclass(frozen=True, slots=True)
class Link:
    """One interface, as it was in the namespace and is in the machine."""

    name: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[tuple[str, int], ...]
    """Default routes: gateway, metric."""

    @property
    def files(self) -> dict[str, str]:
        """The files that make systemd name and configure it so, by path."""
        stem = f"/etc/systemd/network/10-lab-{self.name}"
        match = f"[Match]\nMACAddress={self.mac}\nType=ether\nKind=!*\n"
        routes = "".join(
            f"\n[Route]\nGateway={gateway}\nGatewayOnLink=yes\nMetric={metric}\n" for gateway, metric in self.gateways
        )
        lines = "".join(f"Address={address}\n" for address in self.addresses)
        return {
            f"{stem}.link": f"{match}\n[Link]\nName={self.name}\nMTUBytes={self.mtu}\n",
            f"{stem}.network": f"{match}\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n{lines}{routes}",
        }

    @property
    def script(self) -> str:
        """The same at once, for a shell; what is there already stays."""
        lines = [f"udevadm wait --timeout=20 /sys/class/net/{self.name}", f"ip link set {self.name} up"]
        lines += [f"ip address replace {address} brd + dev {self.name}" for address in self.addresses if "." in address]
        lines += [
            f"ip route replace default via {gateway} dev {self.name} onlink metric {metric}"
            for gateway, metric in self.gateways
            if "." in gateway
        ]
        return "".join(f"{line}\n" for line in lines)


@dataclass
class OwnKernelMachine(LabMachine):
    """A machine whose kernel is a process in its network namespace: it has a tap for each interface there."""

    links: list[Link] = field(default_factory=list)

    @property
    def leader(self) -> int | None:
        """Process id of its kernel, or None."""
        return self.process.pid if self.process is not None and self.running else None

    def reboot(self) -> None:
        """Ask the machine's systemd to reboot; the machine may be down before the command has ended."""
        with contextlib.suppress(MachineDown):
            execute(self.namespace, ["systemctl", "--no-block", "reboot"])

    def stop(self, *, orderly: bool = True) -> None:
        """As `Machine.stop`; its kernel is gone when this returns, not only the process that guards it."""
        kernels = list_children(self.process.pid) if self.process is not None else []
        super().stop(orderly=orderly)
        deadline = time.monotonic() + _GONE_SECONDS
        while any(Path(f"/proc/{kernel}").exists() for kernel in kernels) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _power_off(self, leader: int) -> None:
        execute(self.namespace, ["systemctl", "--no-block", "poweroff"], timeout=5)

    def _take_links(self) -> None:
        """Take each interface's configuration out of the namespace, and join it with a tap that the kernel opens."""
        add_control_link(self.namespace)
        for device in json.loads(run("ip", "-n", self.namespace, "-j", "-d", "address")):
            kind = device.get("linkinfo", {}).get("info_kind")
            addresses = tuple(f"{a['local']}/{a['prefixlen']}" for a in device["addr_info"] if a["scope"] == "global")
            if kind != "veth" or not addresses:
                continue
            name = device["ifname"]
            gateways = tuple(
                (route["gateway"], int(route.get("metric", 0)))
                for family in ("-4", "-6")
                for route in json.loads(run("ip", "-n", self.namespace, family, "-j", "route", "show", "default"))
                if route["dev"] == name and "gateway" in route
            )
            link = Link(name, device["address"], device["mtu"], addresses, gateways)
            self.links = [*(present for present in self.links if present.name != name), link]
            _join_network(self.namespace, link)


@dataclass
class UmlMachine(OwnKernelMachine):
    """A machine like any other, but for whose kernel it is."""

    checker: "RulesetChecker | None" = None

    def prepare(self, files: Mapping[str, str] | None = None, hostname: str | None = None) -> None:
        """As `Machine.prepare`; its kernel's modules and its interfaces' files are there as well."""
        super().prepare(files, hostname)
        modules = uml_kernel.find().modules
        target = self.root / "usr/lib/modules" / modules.name
        if not target.is_mount():
            target.mkdir(parents=True, exist_ok=True)
            run("mount", "--bind", "-o", "ro", str(modules), str(target))
        self._take_links()
        mine = dict(_FILES)
        mine[_NETWORK] = "".join(link.script for link in self.links)
        for link in self.links:
            mine |= link.files
        super().prepare(mine)
        self._stand_in()
        self.checker = self.checker or RulesetChecker.open(self.namespace)

    def _wait_down(self, process: "subprocess.Popen[bytes]") -> int:
        # Now and then a kernel says that it restarts, and then turns in its last loop for ever.
        start = self.console.stat().st_size
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_LAST_LOOP_SECONDS)
            if re.search(_LAST_WORDS, self.console.read_bytes()[start:]):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_LAST_LOOP_SECONDS)
                process.kill()

    def _asks_to_boot_again(self, code: int) -> bool:
        # The kernel's own way starts it again while it still holds its taps.
        return remove_file(self.root, _REBOOTING)

    def remove(self) -> None:
        """As `Machine.remove`."""
        super().remove()
        if self.checker is not None:
            self.checker.close()
            self.checker = None

    def _stand_in(self) -> None:
        """Put `lab.machines.uml_nft` in nft's place, for good: dpkg puts the package's own program beside it."""
        program = read_file(self.root, NFT)
        if program is not None and read_file(self.root, REAL) is None and program[:2] != b"#!":
            rename_file(self.root, NFT, Path(REAL).name)
        write_file(self.root, NFT, Path(__file__).with_name("uml_nft.py").read_text(), 0o755)
        diverted = (read_file(self.root, _DIVERSIONS) or b"").decode()
        if NFT not in diverted.splitlines():
            write_file(self.root, _DIVERSIONS, f"{diverted}{NFT}\n{REAL}\n:\n")

    def _command(self) -> list[str]:
        # As process 1 of a namespace of its own: all the processes that make up one such kernel die with it.
        vectors = [f"vec0:transport=tap,ifname={CONTROL},depth=64,mac={MAC}"]
        vectors += [
            f"vec{number}:transport=tap,ifname={name_tap(link.name)},depth=128,mtu={link.mtu},mac={link.mac}"
            for number, link in enumerate(self.links, 1)
        ]
        memory = min(self.memory or _HOST_MEMORY, _MOST_MEMORY)
        return [
            "setpriv", "--pdeathsig=KILL",
            "nsenter", f"--net={NETNS / self.namespace}",
            "unshare", "--pid", "--fork", "--kill-child=KILL",
            *uml_kernel.find().command, f"mem={memory}M", f"uml_dir={self.directory}/uml/", "umid=kernel",
            "root=/dev/root", "rootfstype=hostfs", f"rootflags={self.root}", "rw", "noreboot",
            "con=null", "con0=null,fd:1", "ssl=null", "quiet", "net.ifnames=0", "systemd.show_status=no",
            *vectors,
        ]  # fmt: skip


def read_nft_arguments(argv: Sequence[str], stdin: str | None) -> tuple[list[str], str]:
    """Return the options and the commands of a machine's nft, to be given to this machine's on its standard input.

    So no word of a machine names a file here. Raises ValueError for an option that is not in `_NFT_OPTIONS`, and for
    commands that read other files.

    >>> read_nft_arguments(["-j", "list", "ruleset"], None)
    (['-j'], 'list ruleset')
    >>> read_nft_arguments(["-c", "-f", "-"], "flush ruleset")
    (['-c'], 'flush ruleset')
    """
    options, commands, words = list[str](), list[str](), list(argv)
    while words:
        word = words.pop(0)
        if word == "--file" or re.fullmatch("-[cjasn]*f", word):
            # `lab.machines.uml_nft` has read the file.
            if words[:1] != ["-"]:
                raise ValueError("the lab's nft reads its standard input alone")
            words.pop(0)
            options += [f"-{flag}" for flag in word.strip("-") if word != "--file" and flag != "f"]
        elif word.startswith("-"):
            if word not in _NFT_OPTIONS:
                raise ValueError(f"the lab's nft does not take the option {word}")
            options.append(word)
        else:
            commands.append(word)
    text = " ".join(commands) or stdin or ""
    if "include" in text:
        raise ValueError("the lab checks no ruleset that reads other files")
    return options, text


class _CheckRequest(socketserver.StreamRequestHandler):
    """One ruleset: what this machine's nft says of it."""

    server: "RulesetChecker"

    def handle(self) -> None:
        """Answer one line of JSON with another."""
        request = json.loads(self.rfile.readline())
        try:
            options, text = read_nft_arguments([str(word) for word in request["argv"]], request["stdin"])
        except ValueError as error:
            answer = {"returncode": 1, "stdout": "", "stderr": f"{error}\n"}
        else:
            command = ["ip", "netns", "exec", self.server.namespace, "nft", *options, "-f", "-"]
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
            answer = {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class RulesetChecker(socketserver.ThreadingTCPServer):
    """Checks a machine's rulesets in a namespace where no packet passes; listens at the lab's end of its control link.

    They stay there: a second one meets what the first has made.
    """

    daemon_threads = True

    def __init__(self, machine: str) -> None:
        super().__init__(CHECKER, _CheckRequest, bind_and_activate=False)
        self.namespace = f"{machine}-nft"
        add_namespace(self.namespace)
        self.socket.close()
        self.socket = listen(machine, *CHECKER)

    @classmethod
    def open(cls, machine: str) -> "RulesetChecker":
        """Start to check for the machine of a namespace."""
        checker = cls(machine)
        threading.Thread(target=checker.serve_forever, kwargs={"poll_interval": 1}, daemon=True).start()
        return checker

    def close(self) -> None:
        """End, and forget."""

        def end() -> None:
            self.shutdown()
            self.server_close()

        threading.Thread(target=end, daemon=True).start()
        delete_namespace(self.namespace)


def _join_network(namespace: str, link: Link) -> None:
    """A bridge of two ports: the wire, under another MAC so that the machine can have that, and the kernel's tap."""
    tap, bridge = name_tap(link.name), f"b{name_tap(link.name)}"
    mac = "06:" + ":".join(f"{byte:02x}" for byte in hashlib.sha256(f"{namespace}{link.name}".encode()).digest()[:5])
    ip_batch(
        namespace,
        # A wire that was there before has left them behind.
        [f"link delete {device}" for device in (bridge, tap)],
        force=True,
    )
    ip_batch(
        namespace,
        [
            f"address flush dev {link.name}",
            f"link set {link.name} down",
            f"link set {link.name} address {mac}",
            f"link add {bridge} mtu {link.mtu} type bridge forward_delay 0 mcast_snooping 0",
            f"tuntap add {tap} mode tap",
            f"link set {tap} mtu {link.mtu}",
            *(f"link set {port} master {bridge} up" for port in (link.name, tap)),
            f"link set {bridge} addrgenmode none up",
        ],
    )
    software_checksums(namespace, link.name)


def software_checksums(namespace: str, device: str) -> None:
    """Have the far end of a veth finish the checksums of what it sends: the tap's reader takes frames as they come."""
    link = json.loads(run("ip", "-n", namespace, "-j", "link", "show", device))[0]
    namespaces = json.loads(run("ip", "-n", namespace, "-j", "netns", "list-id") or "[]")
    holder = next(entry["name"] for entry in namespaces if entry["nsid"] == link["link_netnsid"])
    others = json.loads(run("ip", "-n", holder, "-j", "link"))
    end = next(entry["ifname"] for entry in others if entry["ifindex"] == link["link_index"])
    run("ip", "netns", "exec", holder, "ethtool", "-K", end, "tx", "off")


def add_control_link(namespace: str) -> None:
    """Add the link that commands take, where it is missing."""
    if any(entry.get("ifname") == CONTROL for entry in json.loads(run("ip", "-n", namespace, "-j", "link"))):
        return
    ip_batch(
        namespace,
        [
            f"tuntap add {CONTROL} mode tap",
            f"link set {CONTROL} addrgenmode none up",
            f"address add {_HOST_END} dev {CONTROL}",
        ],
    )


def list_children(process: int) -> list[int]:
    """Return the ids of a process's children."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def name_tap(name: str) -> str:
    """Return the name of the tap that joins an interface with the kernel's own."""
    return f"t{name}"


def execute(
    namespace: str, argv: Sequence[str], *, timeout: float = 60, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command inside the machine of a namespace, as root; wait for the machine to come up first.

    Raises:
        MachineDown: the machine went down before the command had ended.
        LabError: the machine did not answer, or the command did not end, within `timeout` seconds; it is killed.
    """
    deadline = time.monotonic() + timeout
    text = " ".join(argv)
    with _connect_agent(namespace, text, deadline) as connection:
        left = max(deadline - time.monotonic(), 0.1)
        environment = dict(pair.split("=", 1) for pair in ENVIRONMENT)
        call = {"argv": list(argv), "stdin": stdin, "timeout": left, "environment": environment}
        connection.settimeout(left + 5)  # the agent ends it in time
        try:
            connection.sendall(json.dumps(call).encode() + b"\n")
            with connection.makefile(encoding="utf-8") as answers:
                line = answers.readline()
        except OSError as error:
            raise MachineDown(f"the machine of {namespace} went down before `{text}` had ended: {error}") from error
    if not line:
        raise MachineDown(f"the machine of {namespace} went down before `{text}` had ended")
    answer: dict[str, Any] = json.loads(line)
    if "late" in answer:
        raise LabError(f"`{text}` did not end within {timeout:.0f} s")
    return subprocess.CompletedProcess(list(argv), answer["returncode"], answer["stdout"], answer["stderr"])


def _connect_agent(namespace: str, text: str, deadline: float) -> socket.socket:
    """Return a connection to the agent of a machine, which notices within seconds when the machine is gone."""

    def connect() -> socket.socket:
        return socket.create_connection((ADDRESS, PORT), timeout=1)

    while True:
        try:
            connection = within(namespace, connect)
        except OSError as refused:
            if time.monotonic() > deadline:
                raise LabError(f"`{text}`: the machine of {namespace} did not answer") from refused
            time.sleep(0.1)
            continue
        for option, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection
