"""World `tenant`: many private hosts behind one public address, reached by engineers and CI jobs through the tunnel.

Does not prove that AWS itself accepts what is deployed. One machine answers for all 250 tenant hosts: each has its own
address, but not its own kernel.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

import pytest

from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import fetch_bundle, run_checked
from drawbridge.trial.measure import ask_echo, packets_arrive, ping, send_datagram, start_echo
from lab.region import Host
from tests.support import stacks, waiting
from tests.support.every_routed_world import EveryRoutedWorld
from tests.support.processes import add_neighbour, count_connections, move_client, read_route_log, wait_process
from tests.support.promises import World
from tests.support.stacks import configuration_digests
from userdata.files.agent import without_dynamic_elements

TUNNEL = 60.0
POOL = "10.213.77.0/24"


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with stacks.disposable_world("tenant") as stack:
        yield stack


@pytest.fixture
def engineer(deployed: Deployment) -> Host:
    return connected(deployed, "engineer")


@pytest.fixture
def tenant(deployed: Deployment) -> Host:
    """A host of the private network."""
    return deployed.region.host("private-host")


def connected(deployed: Deployment, name: str) -> Host:
    host = deployed.region.host(name)
    assert ping(host, deployed.outputs["privateIp"], TUNNEL) is not None
    return host


def table(gateway: Host) -> str:
    """The gateway's own table, without what its counters have counted."""
    listed = run_checked(gateway, "nft", "-s", "list", "table", "inet", "drawbridge")
    assert listed
    return without_dynamic_elements(listed)


def source_dest_check(deployed: Deployment) -> bool:
    interface = deployed.outputs["gatewayInterfaceId"]
    found = deployed.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    return bool(found[0]["SourceDestCheck"])


@contextmanager
def rules(gateway: Host, change: str) -> Iterator[None]:
    """The gateway with other nftables rules for the length of a block."""
    with stacks.without_agent(gateway):
        run_checked(gateway, "nft", "-f", "/dev/stdin", stdin=change)
        try:
            yield
        finally:
            run_checked(gateway, "systemctl", "reload", "drawbridge-nftables")


@contextmanager
def permitted(deployed: Deployment, **permission: object) -> Iterator[None]:
    """The gateway's security group with one more permission for the length of a block."""
    ec2, group = deployed.client("ec2"), deployed.outputs["securityGroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    deployed.region.wait_reconciled()
    try:
        yield
    finally:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[permission])
        deployed.region.wait_reconciled()


@pytest.mark.seed("3.3")
def test_clients_get_the_route_and_reach_the_gateway(deployed: Deployment) -> None:
    for name in ("engineer", "ci-job"):
        host = connected(deployed, name)
        assert re.search(
            r"^10\.180\.0\.0/16 via 10\.213\.77\.1 dev tun0", run_checked(host, "ip", "route"), re.MULTILINE
        )


@pytest.mark.seed("3.4")
def test_another_tenant_sees_the_gateways_address_with_source_dest_check_on(
    deployed: Deployment, engineer: Host, tenant: Host
) -> None:
    gateway = deployed.outputs["privateIp"]

    assert source_dest_check(deployed)
    assert ping(engineer, tenant.address, TUNNEL) is not None
    assert packets_arrive(tenant, f"icmp[icmptype] == 8 and src {gateway}", lambda: ping(engineer, tenant.address, 3))
    answer = ask_echo(engineer, tenant.address)
    assert answer is not None and answer.source == gateway


@pytest.mark.seed("3.5")
def test_control_without_translation_the_same_ping_fails(deployed: Deployment, engineer: Host, tenant: Host) -> None:
    # A flow that is known stays translated, so these are new ones: other pings, other connections.
    assert ask_echo(engineer, tenant.address) is not None
    with rules(deployed.gateway, "flush chain inet drawbridge postrouting\n"):
        assert ping(engineer, tenant.address, 3) is None
        assert ask_echo(engineer, tenant.address) is None
        assert ping(engineer, deployed.outputs["privateIp"], 3) is not None
    assert ping(engineer, tenant.address, 5) is not None


@pytest.mark.seed("3.6")
def test_input_drops_what_is_not_ssh_the_tunnel_icmp_or_a_reply(deployed: Deployment, engineer: Host) -> None:
    """From the Internet, with the security group wide open, so that only the gateway's own filter is left."""
    public, gateway = deployed.outputs["publicIp"], deployed.gateway
    other = [2222, 3306, 5432, 8080, 30000]
    for port in other:
        start_echo(gateway, port)
    anyone = [{"CidrIp": "0.0.0.0/0"}]
    with permitted(deployed, IpProtocol="tcp", FromPort=0, ToPort=65535, IpRanges=anyone):
        before = refused(gateway, "refused_input")
        assert {port: ask_echo(engineer, public, port=port, timeout=1) for port in other} == dict.fromkeys(other)
        assert refused(gateway, "refused_input") >= before + len(other), "it was the gateway that dropped them"
        # SSH, echo requests and the tunnel get in; the gateway's own questions are answered.
        assert run_checked(engineer, "timeout", "5", "bash", "-c", f"head -c 4 </dev/tcp/{public}/22") == "SSH-"
        assert ping(engineer, public, 5) is not None
        assert ping(engineer, deployed.outputs["privateIp"], 5) is not None
        assert run_checked(
            gateway, "curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://mirror.lab/"
        )
        # The control: without the filter the same ports answer.
        with rules(gateway, "flush chain inet drawbridge input\nadd rule inet drawbridge input accept\n"):
            assert all(ask_echo(engineer, public, port=port) for port in other)


@pytest.mark.seed("3.7")
def test_forward_drops_what_is_not_from_the_tunnel_to_a_tenant_or_its_reply(
    deployed: Deployment, engineer: Host, tenant: Host
) -> None:
    gateway, job = deployed.gateway, connected(deployed, "ci-job")
    assert ask_echo(engineer, tenant.address) is not None  # from the tunnel, and back from the tenants
    outside, peer = "198.51.100.1", "10.213.77.11"
    with via_tunnel(engineer, outside):
        before = refused(gateway, "refused_forward")
        assert ping(engineer, outside, 2) is None
        assert refused(gateway, "refused_forward") > before
        assert ping(engineer, peer, 2) is None
        assert refused(gateway, "refused_forward") > before + 1
        # The control: it is the filter that these meet, and one that lets them pass lets them through.
        with rules(gateway, "insert rule inet drawbridge forward accept\n"):
            assert ping(engineer, peer, 5) is not None
            leaves = f"icmp and src {deployed.outputs['privateIp']} and dst {outside}"
            assert packets_arrive(gateway, leaves, lambda: ping(engineer, outside, 1))
    assert ping(job, tenant.address, 5) is not None


@pytest.mark.seed("3.8")
def test_only_the_pool_is_translated_and_only_on_its_way_out_of_the_tunnel(
    deployed: Deployment, engineer: Host, tenant: Host
) -> None:
    gateway, job = deployed.gateway, connected(deployed, "ci-job")
    with rules(gateway, "insert rule inet drawbridge forward accept\n"):
        # Into the tunnel: from one client to another, the source stays.
        start_echo(job)
        answer = ask_echo(engineer, "10.213.77.11")
        assert answer is not None and answer.source == "10.213.77.10"
        # Out of it: translated.
        answer = ask_echo(engineer, tenant.address)
        assert answer is not None and answer.source == deployed.outputs["privateIp"]
        # A source that is not of the pool leaves as it is (and the VPC drops it, because the check is on).
        stranger = "10.99.0.1"
        run_checked(gateway, "ip", "address", "add", f"{stranger}/32", "dev", "lo")
        try:
            leaves = f"icmp and src {stranger} and dst {tenant.address}"
            asked = ["ping", "-c", "1", "-W", "1", "-I", stranger, tenant.address]
            assert packets_arrive(gateway, leaves, lambda: gateway.run(asked))
        finally:
            run_checked(gateway, "ip", "address", "delete", f"{stranger}/32", "dev", "lo")


@pytest.mark.seed("3.9", "9.8")
def test_after_a_reboot_rules_and_clients_are_back_and_other_tables_untouched(
    deployed: Deployment, engineer: Host, tenant: Host
) -> None:
    other = 'table inet other {\n    chain c {\n        comment "not ours"\n    }\n}\n'
    run_checked(deployed.gateway, "nft", "-f", "/dev/stdin", stdin=other)
    rules_before, files = table(deployed.gateway), configuration_digests(deployed.gateway)
    run_checked(deployed.gateway, "systemctl", "reload", "drawbridge-nftables")
    assert table(deployed.gateway) == rules_before
    assert "not ours" in run_checked(deployed.gateway, "nft", "list", "table", "inet", "other")

    leader = deployed.gateway.leader
    pid = run_checked(engineer, "systemctl", "show", "-P", "MainPID", "openvpn-client@engineer")
    deployed.client("ec2").reboot_instances(InstanceIds=[deployed.outputs["gatewayInstanceId"]])
    again = waiting.until(lambda: ((h := deployed.gateway).leader != leader and h) or None, 60)
    again.wait_booted(60)

    assert ping(engineer, tenant.address, TUNNEL) is not None
    assert run_checked(engineer, "systemctl", "show", "-P", "MainPID", "openvpn-client@engineer") == pid
    assert (table(again), configuration_digests(again)) == (rules_before, files)


@pytest.mark.seed("3.13")
def test_more_than_250_tenants_are_addressed_through_one_tunnel(
    deployed: Deployment, engineer: Host, tenant: Host
) -> None:
    ec2, private = deployed.client("ec2"), IPv4Address(tenant.address)
    found = ec2.describe_network_interfaces(
        Filters=[{"Name": "addresses.private-ip-address", "Values": [str(private)]}]
    )
    (interface,) = found["NetworkInterfaces"]
    subnet = ec2.describe_subnets(SubnetIds=[interface["SubnetId"]])["Subnets"][0]
    # AWS keeps the first four addresses and the last one of a subnet.
    usable = list(IPv4Network(subnet["CidrBlock"]))[4:-1]
    more = [str(address) for address in usable if address != private]
    ec2.assign_private_ip_addresses(NetworkInterfaceId=interface["NetworkInterfaceId"], PrivateIpAddresses=more)
    deployed.region.wait_reconciled()
    run_checked(tenant, "ip", "-batch", "-", stdin="".join(f"address add {address}/32 dev lo\n" for address in more))

    script = (
        "import concurrent.futures as f, subprocess as s, sys\n"
        "ask = lambda a: s.run(['ping', '-n', '-c', '1', '-W', '5', a], stdout=s.DEVNULL).returncode == 0\n"
        "with f.ThreadPoolExecutor(16) as pool: print(sum(pool.map(ask, sys.stdin.read().split())))\n"
    )
    answered = int(run_checked(engineer, "python3", "-c", script, stdin="\n".join([str(private), *more])))
    assert answered == len(usable) == 251


@contextmanager
def via_tunnel(host: Host, *addresses: str) -> Iterator[None]:
    """A client that sends these addresses' packets into the tunnel, whatever was pushed."""
    for address in addresses:
        run_checked(host, "ip", "route", "replace", f"{address}/32", "via", "10.213.77.1", "dev", "tun0")
    try:
        yield
    finally:
        for address in addresses:
            run_checked(host, "ip", "route", "delete", f"{address}/32")


def refused(gateway: Host, counter: str) -> int:
    """Packets that a counter of the gateway's has counted."""
    listed = json.loads(run_checked(gateway, "nft", "-j", "list", "counter", "inet", "drawbridge", counter))["nftables"]
    return int(next(entry["counter"]["packets"] for entry in listed if "counter" in entry))


def reaches(host: Host, address: str, seconds: float = TUNNEL) -> bool:
    return ping(host, address, seconds) is not None


def test_two_processes_serve_clients_behind_one_port(deployed: Deployment, engineer: Host, tenant: Host) -> None:
    """Each client has one of the processes, by its address; the kernel leads to it, and the filter is in between."""
    raw = stacks.world_config("tenant")
    raw["drawbridge:gateway"] = {**raw["drawbridge:gateway"], "processes": 2}
    raw["drawbridge:tunnel"] = {**raw["drawbridge:tunnel"], "clientToClient": True, "keepalive": [1, 5]}
    job, bundle = connected(deployed, "ci-job"), bundle_digest(engineer, "engineer")
    made = stacks.deploy_world(deployed.region, "tenant", raw)
    gateway, addresses = made.gateway, {"engineer": "10.213.77.10", "ci-job": "10.213.77.11"}
    hosts = {"engineer": engineer, "ci-job": job}

    # Both came back with the bundles that they had, each at a process of its own, and reach what they may.
    for host in hosts.values():
        assert reaches(host, tenant.address)
    assert bundle_digest(engineer, "engineer") == bundle
    # Where the hash leads their homes' addresses.
    own, other = "engineer", "ci-job"
    wait_process(made, own, "server1")
    wait_process(made, other, "server")
    assert reaches(engineer, addresses["ci-job"]) and reaches(job, addresses["engineer"])

    # The second one's port is open to nobody, though a security group should let packets there in.
    with permitted(made, IpProtocol="udp", FromPort=1195, ToPort=1195, IpRanges=[{"CidrIp": "0.0.0.0/0"}]):
        public = made.outputs["publicIp"]
        heard = packets_arrive(gateway, "udp and dst port 1195", lambda: send_datagram(job, public, 1195))
        assert heard  # the control: they arrive
        dropped = run_checked(gateway, "nft", "list", "chain", "inet", "drawbridge", "untracked")
        assert "udp dport 1195 drop" in dropped

    # A process that is killed costs its own clients only: the other one's do not connect again.
    before = {name: count_connections(hosts[name], name) for name in hosts}
    run_checked(gateway, "systemctl", "kill", "--signal=KILL", "openvpn-server@server1")
    waiting.until(lambda: count_connections(hosts[own], own) > before[own], TUNNEL)
    assert reaches(hosts[own], tenant.address)
    wait_process(made, own, "server1")
    assert count_connections(hosts[other], other) == before[other] and reaches(hosts[other], tenant.address, 2)

    # From the other one's home a client gets the other process, which ends its former session; routes follow.
    home = add_neighbour(made, other, "moved")
    move_client(own, hosts[own], home)
    assert reaches(home, tenant.address)
    assert reaches(hosts[other], addresses[own])
    wait_process(made, own, "server")
    ended = f"new connection by client '{own}' to server has ended its session with server1"
    assert ended in (said := read_route_log(gateway)), said
    run_checked(home, "systemctl", "stop", f"openvpn-client@{own}")
    run_checked(hosts[own], "systemctl", "restart", f"openvpn-client@{own}")
    assert reaches(hosts[own], tenant.address)

    # Apart, they reach the network and not each other, in both directions.
    raw["drawbridge:tunnel"] = {**raw["drawbridge:tunnel"], "clientToClient": False}
    made = stacks.deploy_world(deployed.region, "tenant", raw)
    for host in hosts.values():
        assert reaches(host, tenant.address)
    assert not reaches(engineer, addresses["ci-job"], 2) and not reaches(job, addresses["engineer"], 2)

    # Without the client of the second process, the agent cuts its session there.
    raw["drawbridge:clients"] = [entry for entry in raw["drawbridge:clients"] if entry["name"] != own]
    stacks.wait_current(deploy(deployed.region, "tenant", raw, lambda _: None))
    waiting.until(lambda: not reaches(hosts[own], deployed.outputs["privateIp"], 1), TUNNEL)
    assert reaches(hosts[other], tenant.address)

    # Over TCP as well.
    raw["drawbridge:clients"] = stacks.world_config("tenant")["drawbridge:clients"]
    raw["drawbridge:tunnel"] = {**raw["drawbridge:tunnel"], "protocol": "tcp"}
    made = stacks.deploy_world(deployed.region, "tenant", raw)
    fetch_bundles(made, hosts)
    for host in hosts.values():
        assert reaches(host, tenant.address)
        answer = ask_echo(host, tenant.address, take=1_000_000)
        assert answer is not None and answer.received == 1_000_000
    wait_process(made, own, "server1")
    wait_process(made, other, "server")

    # With one process again, nothing is left of the second one.
    made = stacks.deploy_world(deployed.region, "tenant", stacks.world_config("tenant"))
    fetch_bundles(made, hosts)
    for host in hosts.values():
        assert reaches(host, tenant.address)
    assert gateway.run(["systemctl", "is-active", "openvpn-server@server1"]).stdout.strip() == "inactive"
    assert gateway.run(["ip", "link", "show", "tun1"]).returncode


def fetch_bundles(deployed: Deployment, hosts: Mapping[str, Host]) -> None:
    """Have clients fetch their bundles and connect with them."""
    for name, host in hosts.items():
        fetch_bundle(deployed, host, name)
        run_checked(host, "systemctl", "restart", f"openvpn-client@{name}")


def bundle_digest(host: Host, name: str) -> str:
    return run_checked(host, "sha256sum", f"/etc/openvpn/client/{name}.conf")


@pytest.fixture(scope="module")
def world(deployed: Deployment) -> World:
    """The stack as its file has it, for what changes it for good: those tests come last."""
    raw = stacks.world_config("tenant")
    return World(stacks.deploy_world(deployed.region, "tenant", raw), raw)


class TestEveryRoutedWorld(EveryRoutedWorld):
    client = "engineer"
    looks = True
