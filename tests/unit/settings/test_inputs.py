"""Inputs that are valid in form and wrong in fact: each is refused, or warned of."""

from pathlib import Path

import pytest

from settings.notices import find_notices
from settings.parse import parse
from settings.problems import SettingsError
from settings.stack_file import read_stack_file

STACKS = sorted(Path(__file__).parents[3].glob("stacks/Pulumi.*.yaml"))

REGION = "  aws:region: eu-west-1\n"
ALICE = "  drawbridge:clients: [{name: alice}]\n"
#: Beginnings of configurations with one more section.
GATEWAY, TUNNEL, NETWORK = (f"{REGION}{ALICE}  drawbridge:{section}: " for section in ("gateway", "tunnel", "network"))

#: A public key of which one character is missing.
CUT = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJ"

PRIVATE = "is not a public address: it is one of the private addresses"
NO_ROUTE = "lets nobody in: the Internet does not route"


def judge(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    """Return the problems and the notices of a stack file with this configuration."""
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(f"config:\n{text}")
    try:
        settings = parse(read_stack_file(path), stack="dev", endpoint=None)
    except SettingsError as error:
        return [str(problem) for problem in error.problems], []
    return [], [str(notice) for notice in find_notices(settings)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *(
            (REGION + f"  drawbridge:clients: [{{name: alice, at: {address}}}]\n", f"clients[0].at: {address} {reason}")
            for address, reason in (
                ("192.168.178.2", PRIVATE),
                ("10.0.0.1", PRIVATE),
                ("172.16.0.1", PRIVATE),
                ("100.64.0.1", "is not a public address: it is one of the addresses that providers share"),
                ("127.0.0.1", "is not a public address: it is one of the loopback addresses"),
                ("0.0.0.0", "is not a public address"),
                ("169.254.1.1", "is not a public address"),
                ("224.0.0.1", "is not a public address"),
                ("255.255.255.255", "is not a public address"),
            )
        ),
        (GATEWAY + "{adminAt: 192.168.1.1}\n", f"gateway.adminAt: 192.168.1.1 {PRIVATE}"),
        (GATEWAY + "{adminFrom: [192.168.0.0/16]}\n", f"adminFrom[0]: 192.168.0.0/16 {NO_ROUTE}"),
        (GATEWAY + "{adminFrom: [127.0.0.1/32]}\n", f"adminFrom[0]: 127.0.0.1/32 {NO_ROUTE}"),
        (GATEWAY + "{allowFrom: [10.0.0.0/8]}\n", f"allowFrom[0]: 10.0.0.0/8 {NO_ROUTE}"),
        (GATEWAY + "{allowFrom: [203.0.113.0/24, 224.0.0.0/4]}\n", f"allowFrom[1]: 224.0.0.0/4 {NO_ROUTE}"),
        (GATEWAY + "{sshKey: ssh-ed25519 AAAAC3Nz}\n", "is not a whole public key"),
        (GATEWAY + "{sshKey: ssh-rsa AAAA}\n", "is not a whole public key"),
        (GATEWAY + f"{{sshKey: {CUT}}}\n", "is not a whole public key"),
        (GATEWAY + "{sshKey: sk-ssh-ed25519@openssh.com AAAA}\n", "of type ed25519, ecdsa or rsa"),
        (
            ALICE + "  aws:region: eu-centrl-1\n",
            "is not a valid AWS region; run `pulumi config set aws:region eu-central-1`",
        ),
        (GATEWAY + "{instanceType: t4g.nanoo}\n", "t4g.nanoo is not a valid EC2 instance type"),
        (GATEWAY + "{instanceType: nano.t4g}\n", "nano.t4g is not a valid EC2 instance type"),
        (GATEWAY + "{instanceType: mac1.metal}\n", "mac1.metal needs a dedicated host"),
        (
            GATEWAY + "{instanceType: t2.nano}\n  drawbridge:tunnel: {ipv6: delegated}\n",
            "t2.nano takes no IPv6 prefix",
        ),
        (GATEWAY + "{image: ami-12345}\n", "ami-12345 is not a valid image"),
        (NETWORK + "{domain: x.local}\n", "x.local is for multicast DNS"),
        (NETWORK + "{domain: 10.1.0.1}\n", "10.1.0.1 is not a domain"),
        (NETWORK + "{domain: s3.amazonaws.com}\n", "s3.amazonaws.com is AWS's own"),
        (NETWORK + "{domain: eu-west-1.compute.internal}\n", "is AWS's own"),
        (
            REGION + ALICE + "  Drawbridge:tunnel: {port: 1}\n",
            "has an unknown namespace; did you mean drawbridge:tunnel?",
        ),
        (
            REGION + ALICE + "  other:tunnel: {port: 1}\n",
            "has an unknown namespace; known ones are aws, drawbridge, pulumi",
        ),
        (REGION + ALICE + "  drawbridge:clients: [{name: bob}]\n", "line 4 has the key drawbridge:clients again"),
        (REGION + ALICE + "  clients: [{name: bob}]\n", "`clients` is the same key as `drawbridge:clients`"),
        (REGION + "  clients: [{name: a, name: b}]\n", "line 3 has the key name again"),
        (
            REGION + "  clients: [{name: Not Valid}]\n",
            "drawbridge:clients[0].name: Not Valid is not a valid client name",
        ),
        (
            REGION + ALICE + "  drawbridge:tunnel:{port: 1}\n",
            "`drawbridge:tunnel:{port` is not a valid configuration key",
        ),
        (REGION + ALICE + "drawbridge:tunnel: {port: 1}\n", "`drawbridge:tunnel` is outside of `config`"),
        (REGION + ALICE + "\u00a0 drawbridge:tunnel: {port: 1}\n", "is outside of `config`, so nothing reads it"),
    ],
)
def test_refused(tmp_path: Path, text: str, words: str) -> None:
    problems, _ = judge(tmp_path, text)
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (REGION, "drawbridge:clients: [] has nobody who may connect"),
        (REGION + "  drawbridge:clients:\n", "drawbridge:clients: [] has nobody who may connect"),
        (ALICE + "  aws:region: eu-south-9\n", "eu-south-9 is not a region that was known"),
        (TUNNEL + "{pool: 8.8.8.0/24}\n", "tunnel.pool: 8.8.8.0/24 is a range of the Internet"),
        (NETWORK + "{cidr: 8.8.0.0/16}\n", "network.cidr: 8.8.0.0/16 is a range of the Internet"),
        (TUNNEL + "{pool: 192.168.1.0/24}\n", "which many home routers use"),
        (NETWORK + "{cidr: 192.168.0.0/16}\n", "overlaps 192.168.0.0/24, which many home routers use"),
        (GATEWAY + "{adminFromAnywhere: true}\n", "adminFromAnywhere: true confirms nothing"),
        (
            NETWORK + "{domain: x.internal}\n  drawbridge:tunnel: {nat: false}\n",
            "they cannot ask the VPC's resolver without nat; use drawbridge:tunnel.nat: true",
        ),
        (
            NETWORK + "{domain: x.internal}\n  drawbridge:tunnel: {vpc: false}\n",
            "they cannot ask the VPC's resolver without vpc; use drawbridge:tunnel.vpc: true",
        ),
        (
            GATEWAY + "{instanceType: x9z.large}\n",
            "x9z.large is of a family that was not known in November 2026; use a",
        ),
        (
            GATEWAY + "{instanceType: t44g.nano}\n",
            "a family that was not known in November 2026; did you mean t4g.nano?",
        ),
        (
            GATEWAY + "{instanceType: t4g.16xlarge}\n",
            "t4g.16xlarge is of a size that was not known in November 2026; did you mean t4g.xlarge?",
        ),
        (REGION + "  drawbridge:clients: [{name: con}]\n", "con is a device of Windows"),
        (REGION + "  drawbridge:clients: [{name: nul.home}]\n", "nul.home is a device of Windows"),
    ],
)
def test_warned_of(tmp_path: Path, text: str, words: str) -> None:
    problems, notices = judge(tmp_path, text)
    assert (problems, len(notices)) == ([], 1)
    assert words in notices[0]


@pytest.mark.parametrize(
    "text",
    [
        "  clients: [{name: alice}]\n",
        "  drawbridge:config:clients: [{name: alice}]\n",
        "  drawbridge:clients: [{name: yes}]\n",
        ALICE
        + "  drawbridge:gateway: {adminFrom: [10.8.0.0/24, 10.1.0.7/32, 203.0.113.7/32], allowFrom: [0.0.0.0/0]}\n",
        "  drawbridge:tunnel: {device: tap}\n  drawbridge:clients: [{name: a, mac: 12:34:56:12:34:56}]\n",
        ALICE + "  drawbridge:gateway: {image: ami-0123456789abcdef0, instanceType: m7i.metal-48xl}\n",
        # Xen, too, boots the images; clients of these names are like others.
        ALICE + "  drawbridge:gateway: {instanceType: t2.nano}\n",
        "  drawbridge:clients: [{name: ca}, {name: server}, {name: gateway}, {name: operator}]\n",
        ALICE + "  pulumi:disable-default-providers: ['*']\n",
    ],
)
def test_neither(tmp_path: Path, text: str) -> None:
    """The control of the tests above."""
    assert judge(tmp_path, REGION + text) == ([], [])


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_no_stack_file_of_the_project_is_warned_of(path: Path) -> None:
    settings = parse(read_stack_file(path), stack=path.name.split(".")[1], endpoint="http://127.0.0.1")
    assert list(find_notices(settings)) == []
