"""World `site`: a home LAN and a VPC as one routed network, the home's host set up by its kit.

Does not prove that AWS itself accepts what is deployed, nor how fast it is there: the lab's lines have no limit.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

import contract
from drawbridge.operate import ingress_rules
from drawbridge.trial.deployment import Deployment, deploy
from drawbridge.trial.hosts import run_checked
from drawbridge.trial.measure import EchoAnswer, ask_echo, packets_arrive, ping, send_datagram, start_echo
from lab.linux import ip_batch
from lab.region import Host
from tests.support import stacks, waiting
from tests.support.every_routed_world import EveryRoutedWorld
from tests.support.promises import World

TUNNEL = 60.0
HOME = IPv4Address("203.0.113.10")
REACHABLE, HIDDEN = "192.168.1.254", "192.168.1.2"


def settings(**tunnel: Any) -> dict[str, Any]:
    raw = stacks.world_config("site")
    return {**raw, "drawbridge:tunnel": {**raw["drawbridge:tunnel"], **tunnel}}


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with stacks.disposable_world("site") as stack:
        yield stack


@pytest.fixture
def home(deployed: Deployment) -> Host:
    """The home's gateway, with its tunnel up."""
    host = deployed.region.host("home")
    assert ping(host, deployed.outputs["privateIp"], TUNNEL) is not None
    return host


@pytest.fixture
def inside(deployed: Deployment, home: Host) -> Host:
    """A home host that AWS may reach."""
    return deployed.region.host("home-reachable")


@pytest.fixture
def hidden(deployed: Deployment, home: Host) -> Host:
    """A home host that AWS may not reach."""
    return deployed.region.host("home-hidden")


@pytest.fixture
def private(deployed: Deployment) -> Host:
    """A host in the VPC's private subnet."""
    return deployed.region.host("private-host")


def refused(host: Host, counter: str = "refused_forward") -> int:
    """Packets that a counter of a host's own table has counted."""
    listed = json.loads(run_checked(host, "nft", "-j", "list", "counter", "inet", "drawbridge", counter))["nftables"]
    return int(next(entry["counter"]["packets"] for entry in listed if "counter" in entry))


def source(answer: EchoAnswer | None) -> str | None:
    return answer.source if answer else None


@contextmanager
def checked(deployed: Deployment, interface: str, on: bool) -> Iterator[None]:
    """An interface with its source/dest check on or off for the length of a block."""
    ec2 = deployed.client("ec2")

    def switch(value: bool) -> None:
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, SourceDestCheck={"Value": value})
        deployed.region.wait_reconciled()

    switch(on)
    try:
        yield
    finally:
        switch(not on)


@contextmanager
def waved_through(host: Host, unit: str) -> Iterator[None]:
    """A host whose own filter forwards everything, as one would that was taken over."""
    run_checked(host, "nft", "insert", "rule", "inet", "drawbridge", "forward", "accept")
    try:
        yield
    finally:
        run_checked(host, "systemctl", *unit.split())


@pytest.mark.seed("4.1", "4.3")
def test_the_kit_made_the_home_a_client_that_starts_at_boot(deployed: Deployment, home: Host) -> None:
    profile = run_checked(home, "cat", "/etc/openvpn/client/home.conf").splitlines()
    wanted = {"resolv-retry infinite", "nobind", "persist-tun", "persist-key", "remote-cert-tls server"}

    assert wanted | {f"remote {deployed.outputs['publicIp']} 1194"} <= set(profile)
    assert run_checked(home, "stat", "-c", "%a %U", "/etc/openvpn/client/home.conf").split() == ["600", "root"]
    assert run_checked(home, "systemctl", "is-enabled", "openvpn-client@home").strip() == "enabled"
    assert run_checked(deployed.gateway, "systemctl", "is-enabled", "openvpn-server@server").strip() == "enabled"


@pytest.mark.seed("4.4")
def test_the_ccd_files_name_is_the_common_name(deployed: Deployment, home: Host) -> None:
    bundle = run_checked(home, "cat", "/etc/openvpn/client/home.conf")
    certificate = bundle.partition("<cert>\n")[2].partition("</cert>")[0]

    subject = run_checked(home, "openssl", "x509", "-noout", "-subject", stdin=certificate)
    assert subject.replace(" ", "").strip() == "subject=CN=home"
    assert run_checked(deployed.gateway, "ls", "/etc/openvpn/server/ccd").split() == ["home"]


@pytest.mark.seed("4.5")
def test_the_home_reaches_the_tunnels_address_and_the_gateways(deployed: Deployment, home: Host) -> None:
    assert ping(home, "10.1.2.1", 5) is not None
    assert ping(home, deployed.outputs["privateIp"], 5) is not None


@pytest.mark.seed("4.6")
def test_hosts_behind_the_home_reach_a_private_host(inside: Host, hidden: Host, private: Host) -> None:
    for host in (inside, hidden):
        assert ping(host, private.address, 10) is not None
        assert ask_echo(host, private.address) is not None


@pytest.mark.seed("4.7")
def test_a_private_host_reaches_a_declared_home_host(private: Host, inside: Host) -> None:
    assert ping(private, REACHABLE, 10) is not None
    assert ask_echo(private, REACHABLE) is not None


@pytest.mark.seed("4.8")
def test_a_private_host_does_not_reach_the_rest_of_the_home(
    deployed: Deployment, private: Host, hidden: Host, inside: Host
) -> None:
    before = refused(deployed.gateway)
    assert not packets_arrive(hidden, f"icmp and src {private.address}", lambda: ping(private, HIDDEN, 2))
    assert ask_echo(private, HIDDEN) is None
    assert refused(deployed.gateway) > before, "it was the gateway that dropped them"
    # Controls: the host is there and answers its neighbours, and the half that is declared is reached.
    assert ask_echo(inside, HIDDEN) is not None
    assert ping(private, REACHABLE, 5) is not None


@pytest.mark.seed("4.9")
def test_the_route_leads_to_the_interface_and_needs_its_check_off(
    deployed: Deployment, private: Host, inside: Host
) -> None:
    tables = deployed.client("ec2").describe_route_tables()["RouteTables"]
    gateway = deployed.outputs["gatewayInterfaceId"]
    routes = [r["DestinationCidrBlock"] for t in tables for r in t["Routes"] if r.get("NetworkInterfaceId") == gateway]

    assert routes.count("192.168.1.0/24") == 2
    assert ping(private, REACHABLE, 5) is not None
    with checked(deployed, gateway, on=True):
        assert ping(private, REACHABLE, 3) is None
    assert ping(private, REACHABLE, 10) is not None


@pytest.mark.seed("4.12")
def test_the_tunnel_and_ssh_are_open_to_the_home_alone(deployed: Deployment, home: Host) -> None:
    other = elsewhere(deployed, "192.0.2.77")
    for host, address, expected in ((home, HOME, True), (other, IPv4Address("192.0.2.77"), False)):
        assert knocks(deployed, host, address) is expected
        assert speaks_ssh(deployed, host) is expected


@pytest.mark.seed("4.14")
def test_a_private_host_that_was_taken_over_does_not_get_into_the_home(
    deployed: Deployment, private: Host, home: Host, hidden: Host, inside: Host
) -> None:
    ec2, gateway = deployed.client("ec2"), deployed.gateway
    # The gateway's filter drops what is not declared; the home's does, too, where the gateway itself was taken over.
    before = refused(gateway)
    assert ping(private, HIDDEN, 2) is None
    assert refused(gateway) > before
    with stacks.without_agent(gateway), waved_through(gateway, "reload drawbridge-nftables"):
        before = refused(home)
        assert ping(private, HIDDEN, 2) is None
        assert refused(home) > before
        with waved_through(home, "restart drawbridge-site"):
            assert ping(private, HIDDEN, 5) is not None, "the control: only the two filters kept it out"
    assert ping(home, deployed.outputs["privateIp"], TUNNEL) is not None  # its unit requires the filter's

    # The security group drops a source that is not the VPC's.
    address = [{"Name": "addresses.private-ip-address", "Values": [private.address]}]
    interface = ec2.describe_network_interfaces(Filters=address)["NetworkInterfaces"][0]
    with checked(deployed, interface["NetworkInterfaceId"], on=False):
        run_checked(private, "ip", "address", "add", "172.31.9.9/32", "dev", "lo")
        try:
            forged = ["ping", "-c", "1", "-W", "1", "-I", "172.31.9.9", REACHABLE]
            assert not packets_arrive(gateway, "icmp and src 172.31.9.9", lambda: private.run(forged))
            own = f"icmp and src {private.address} and dst {REACHABLE}"
            assert packets_arrive(gateway, own, lambda: ping(private, REACHABLE, 2))
            with permitted(deployed, "172.31.9.9/32"):
                assert packets_arrive(gateway, "icmp and src 172.31.9.9", lambda: private.run(forged))
        finally:
            run_checked(private, "ip", "address", "delete", "172.31.9.9/32", "dev", "lo")

    # The private subnet's network ACL drops what goes to a network that nobody declared, route or not.
    table = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [interface["SubnetId"]]}])
    route = {"RouteTableId": table["RouteTables"][0]["RouteTableId"], "DestinationCidrBlock": "192.168.50.0/24"}
    ec2.create_route(**route, NetworkInterfaceId=deployed.outputs["gatewayInterfaceId"])
    deployed.region.wait_reconciled()
    try:
        other = "icmp and dst 192.168.50.5"
        assert not packets_arrive(gateway, other, lambda: ping(private, "192.168.50.5", 1))
        with listed(deployed, interface["SubnetId"], "192.168.50.0/24"):
            assert packets_arrive(gateway, other, lambda: ping(private, "192.168.50.5", 1))
    finally:
        ec2.delete_route(**route)
        deployed.region.wait_reconciled()


def test_a_home_of_the_second_of_two_processes_is_reached(deployed: Deployment, private: Host, inside: Host) -> None:
    raw = settings()
    raw["drawbridge:gateway"] = {**raw["drawbridge:gateway"], "processes": 2}
    stacks.deploy_world(deployed.region, "site", raw)
    assert ping(inside, private.address, TUNNEL) is not None

    assert "192.168.1.0/24 dev tun1" in run_checked(deployed.gateway, "ip", "route")
    # AWS opens a connection: the home may have sent nothing before.
    assert source(ask_echo(private, REACHABLE)) == private.address
    assert source(ask_echo(inside, private.address)) == REACHABLE
    before = refused(deployed.gateway)
    assert ping(private, HIDDEN, 2) is None and refused(deployed.gateway) > before
    stacks.deploy_world(deployed.region, "site", settings())
    assert ping(inside, private.address, TUNNEL) is not None


@pytest.mark.seed("4.17")
def test_throughput_is_recorded(
    private: Host,
    home: Host,
    inside: Host,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    size, figures = 32 << 20, {}
    for host, name in ((home, "home"), (inside, "behind home")):
        down, up = ask_echo(host, private.address, take=size), ask_echo(host, private.address, send=size)
        assert down is not None and up is not None and down.received == size
        for way, answer in (("down", down), ("up", up)):
            figures[f"{name} {way}"] = round(size * 8 / 1e6 / answer.seconds)
    with capsys.disabled():
        print(f"\n  Mbit/s through the tunnel, TCP, 32 MiB: {figures}")
    record_property("mbit_per_second", json.dumps(figures))
    assert min(figures.values()) > 30, "the write-up's figure, from a t2.nano over the Internet"


@pytest.mark.seed("4.10")
def test_the_home_forwards_and_filters_from_boot_on(
    deployed: Deployment, home: Host, inside: Host, private: Host
) -> None:
    order = run_checked(home, "systemctl", "show", "-P", "Before", "drawbridge-site").split()
    assert "network-pre.target" in order
    rules, leader = run_checked(home, "nft", "-s", "list", "table", "inet", "drawbridge"), home.leader
    deployed.region.reboot_host("home")
    again = waiting.until(lambda: ((h := deployed.region.host("home")).leader != leader and h) or None, 30)
    again.wait_booted()

    assert run_checked(again, "sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
    assert run_checked(again, "nft", "-s", "list", "table", "inet", "drawbridge") == rules
    assert ping(inside, private.address, TUNNEL) is not None
    assert ping(private, REACHABLE, TUNNEL) is not None
    # The LAN's router knows the way, because the kit's last words were followed; without that route there is none.
    router = next(p["router"] for p in deployed.region.status()["sites"] if p["name"] == "home-home")
    with without_route(router, "10.1.0.0/23", again.address):
        run_checked(inside, "ip", "route", "flush", "cache")  # it was told of the shorter way (ICMP redirect)
        assert ping(inside, private.address, 2) is None
    assert ping(inside, private.address, 5) is not None


@pytest.mark.seed("4.15")
@pytest.mark.fault("6.4")
def test_the_gateway_follows_the_home_to_its_new_address_and_shuts_the_old_one(
    deployed: Deployment, home: Host, private: Host
) -> None:
    moved = IPv4Address("198.51.100.10")
    deployed.region.move_site("home-home", moved)
    try:
        waiting.until(lambda: following_rule(deployed, "tunnel/home")["CidrIpv4"] == f"{moved}/32", 90)
        deployed.region.wait_reconciled()
        assert ping(home, private.address, 2 * TUNNEL) is not None
        assert knocks(deployed, home, moved)
        squatter = elsewhere(deployed, str(HOME))
        assert not knocks(deployed, squatter, HOME), "the old address is shut"
        # The admin's rule follows another address: it stayed.
        assert following_rule(deployed, "ssh")["CidrIpv4"] == f"{HOME}/32"
        # A deployment leaves it where it is.
        deploy(deployed.region, "site", settings(), lambda _: None)
        assert following_rule(deployed, "tunnel/home")["CidrIpv4"] == f"{moved}/32"
    finally:
        deployed.region.remove_host("other-203-0-113-10")
    # By hand: one command, the site's way and then the admin's.
    holiday = IPv4Address("192.0.2.78")
    cabin = elsewhere(deployed, str(holiday))
    assert not knocks(deployed, cabin, holiday)
    site = ingress_rules.allow_me(deployed.account, "home", holiday)
    assert (site.before, site.after) == (f"{moved}/32", f"{holiday}/32")
    assert knocks(deployed, cabin, holiday)
    assert not knocks(deployed, home, moved), "the one before is shut"
    ingress_rules.allow_me(deployed.account, "home", moved)
    assert knocks(deployed, home, moved)
    admin = ingress_rules.allow_me(deployed.account, None, moved)
    assert (admin.before, admin.after) == (f"{HOME}/32", f"{moved}/32")
    deployed.region.wait_reconciled()
    assert speaks_ssh(deployed, home)


@pytest.mark.seed("4.15")
def test_the_homes_credentials_change_its_own_rule_and_nothing_else(deployed: Deployment, home: Host) -> None:
    kit = dict(line.split("=", 1) for line in run_checked(home, "cat", "/etc/drawbridge/kit.env").splitlines())
    other = following_rule(deployed, "ssh")["SecurityGroupRuleId"]

    def modify(*rules: str) -> str:
        value = {"IpProtocol": "udp", "FromPort": 1194, "ToPort": 1194, "CidrIpv4": "198.51.100.10/32"}
        changed = [{"SecurityGroupRuleId": rule, "SecurityGroupRule": value} for rule in rules]
        return f"ec2.modify_security_group_rules(GroupId='{kit['GROUP']}', SecurityGroupRules={changed})"

    names, bucket = deployed.names, deployed.outputs["bucket"]
    others = deployed.client("ec2").describe_security_groups()["SecurityGroups"]
    group = next(other["GroupId"] for other in others if other["GroupId"] != kit["GROUP"])
    allowed = [
        modify(kit["RULE"]),
        f"ssm.get_parameter(Name='{names.bundle('home')}', WithDecryption=True)",
        f"s3.get_object(Bucket='{bucket}', Key='{names.kit_key('home')}')",
    ]
    denied = [
        modify(other),
        modify(kit["RULE"]).replace(kit["GROUP"], group),
        modify(kit["RULE"], other),
        f"ec2.authorize_security_group_ingress(GroupId='{kit['GROUP']}', IpPermissions=[])",
        f"ec2.revoke_security_group_ingress(GroupId='{kit['GROUP']}', SecurityGroupRuleIds=['{kit['RULE']}'])",
        "ec2.describe_security_group_rules()",
        f"ssm.get_parameter(Name='{names.secret('server.key')}', WithDecryption=True)",
        f"s3.get_object(Bucket='{bucket}', Key='{names.release_key(deployed.outputs['release'])}')",
        f"s3.put_object(Bucket='{bucket}', Key='{names.kit_key('home')}', Body=b'')",
        "iam.list_users()",
    ]
    assert {call: answer_to(home, call) for call in allowed} == dict.fromkeys(allowed, "ok")
    refusals = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}
    assert {call: code for call in denied if (code := answer_to(home, call)) not in refusals} == {}


def test_a_stolen_key_of_the_homes_opens_no_more_than_the_gateways_filter(deployed: Deployment, home: Host) -> None:
    """IAM knows no condition for what a rule says: with its one rule the key lets the world in, to the filter."""
    kit = dict(line.split("=", 1) for line in run_checked(home, "cat", "/etc/drawbridge/kit.env").splitlines())
    own = next(r for r in rules_of(deployed) if r["SecurityGroupRuleId"] == kit["RULE"])

    def modify(**what: object) -> str:
        value = {"CidrIpv4": own["CidrIpv4"], "IpProtocol": "udp", "FromPort": 1194, "ToPort": 1194, **what}
        changed = [{"SecurityGroupRuleId": kit["RULE"], "SecurityGroupRule": value}]
        return f"ec2.modify_security_group_rules(GroupId='{kit['GROUP']}', SecurityGroupRules={changed})"

    stranger = elsewhere(deployed, "192.0.2.77")
    start_echo(deployed.gateway, 8080)
    public, everything = deployed.outputs["publicIp"], {"IpProtocol": "-1", "FromPort": -1, "ToPort": -1}
    try:
        assert answer_to(home, modify(CidrIpv4="0.0.0.0/0", **everything)) == "ok"
        deployed.region.wait_reconciled()
        before = refused(deployed.gateway, "refused_input")
        assert ask_echo(stranger, public, port=8080, timeout=2) is None
        assert refused(deployed.gateway, "refused_input") > before, "the security group let it through"
        assert knocks(deployed, stranger, IPv4Address("192.0.2.77")), "what is left: the tunnel's port, and SSH's"
        assert speaks_ssh(deployed, stranger)
    finally:
        assert answer_to(home, modify()) == "ok"
        deployed.region.wait_reconciled()
    assert not knocks(deployed, stranger, IPv4Address("192.0.2.77"))


@pytest.mark.seed("4.11")
def test_untranslated_and_translated_each_shows_its_source(
    deployed: Deployment, private: Host, inside: Host, home: Host
) -> None:
    assert source(ask_echo(inside, private.address)) == REACHABLE
    assert source(ask_echo(private, REACHABLE)) == private.address
    stacks.deploy_world(deployed.region, "site", settings(nat=True))
    assert ping(inside, private.address, TUNNEL) is not None

    assert source(ask_echo(inside, private.address)) == deployed.outputs["privateIp"]
    # What AWS opens is addressed to the home as it is, so it is seen as it is.
    assert ping(private, REACHABLE, TUNNEL) is not None
    assert source(ask_echo(private, REACHABLE)) == private.address
    stacks.deploy_world(deployed.region, "site", settings())


@pytest.mark.seed("4.13")
def test_one_way_the_home_opens_connections_and_aws_does_not(
    deployed: Deployment, private: Host, inside: Host, home: Host
) -> None:
    assert ping(private, REACHABLE, TUNNEL) is not None  # the control: before, it does
    raw = settings()
    raw["drawbridge:clients"] = [{**raw["drawbridge:clients"][0], "reachable": []}]
    stacks.deploy_world(deployed.region, "site", raw)
    assert ping(inside, private.address, TUNNEL) is not None

    before = refused(deployed.gateway)
    assert ping(private, REACHABLE, 2) is None
    assert ask_echo(private, REACHABLE) is None
    assert refused(deployed.gateway) > before
    # The home opens connections, and their replies come: bytes both ways.
    answer = ask_echo(inside, private.address, send=100_000, take=100_000)
    assert answer is not None and answer.received == 100_000


def elsewhere(deployed: Deployment, address: str) -> Host:
    """A machine at a public address of its own."""
    name = f"other-{address.replace('.', '-')}"
    place, lan = name.replace("other", "at"), IPv4Network("192.168.77.0/24")
    deployed.region.add_site(place, public=IPv4Address(address), lan=lan)
    host = deployed.region.add_host(name, site=place)
    host.wait_booted()
    return host


def knocks(deployed: Deployment, host: Host, address: IPv4Address) -> bool:
    """Whether a datagram for the tunnel comes to the gateway from a machine at an address."""
    # One byte long, as no packet of a tunnel that lives on is: security groups let a flow they know go on.
    packets = f"udp and dst port 1194 and src {address} and udp[4:2] == 9"
    deployed.region.wait_reconciled()
    return packets_arrive(deployed.gateway, packets, lambda: send_datagram(host, deployed.outputs["publicIp"], 1194))


def speaks_ssh(deployed: Deployment, host: Host) -> bool:
    script = f"timeout 3 bash -c 'head -c 4 </dev/tcp/{deployed.outputs['publicIp']}/22'"
    return host.run(["sh", "-c", script]).stdout == "SSH-"


def rules_of(deployed: Deployment) -> list[dict[str, Any]]:
    found = deployed.client("ec2").describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [deployed.outputs["securityGroupId"]]}]
    )
    return list(found["SecurityGroupRules"])


def following_rule(deployed: Deployment, name: str) -> dict[str, Any]:
    """Return the rule that follows an address, by the value of its tag."""
    tag = {"Key": contract.FOLLOWS_TAG, "Value": name}
    return next(rule for rule in rules_of(deployed) if tag in rule["Tags"])


def answer_to(host: Host, call: str) -> str:
    """`ok`, or the error code of an AWS call made on a machine with the credentials it has there."""
    script = (
        "import boto3, botocore.exceptions as e\n"
        "ssm, s3, ec2, iam = (boto3.client(s, region_name='eu-west-1') for s in ('ssm', 's3', 'ec2', 'iam'))\n"
        f"try:\n    {call}\n    print('ok')\n"
        "except e.ClientError as error:\n    print(error.response['Error']['Code'])\n"
    )
    return run_checked(host, "python3", "-c", script).strip()


@contextmanager
def permitted(deployed: Deployment, cidr: str) -> Iterator[None]:
    """The gateway's security group open to one more range."""
    ec2, group = deployed.client("ec2"), deployed.outputs["securityGroupId"]
    permission = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": cidr}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permission)
    deployed.region.wait_reconciled()
    try:
        yield
    finally:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=permission)
        deployed.region.wait_reconciled()


@contextmanager
def listed(deployed: Deployment, subnet: str, cidr: str) -> Iterator[None]:
    """A subnet's network ACL with one more range it lets out to."""
    ec2 = deployed.client("ec2")
    acl = ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["NetworkAcls"][0]
    entry = {"NetworkAclId": acl["NetworkAclId"], "RuleNumber": 50, "Egress": True}
    ec2.create_network_acl_entry(**entry, Protocol="-1", RuleAction="allow", CidrBlock=cidr)
    deployed.region.wait_reconciled()
    try:
        yield
    finally:
        ec2.delete_network_acl_entry(**entry)
        deployed.region.wait_reconciled()


@contextmanager
def without_route(router: str, network: str, via: str) -> Iterator[None]:
    """A LAN's router that does not know a network."""
    ip_batch(router, [f"route delete {network} via {via} dev lan0"])
    try:
        yield
    finally:
        ip_batch(router, [f"route replace {network} via {via} dev lan0"])


@pytest.fixture(scope="module")
def world(deployed: Deployment) -> World:
    """The stack as its file has it, for what changes it for good: those tests come last."""
    deployed.region.move_site("home-home", HOME)  # a test above has moved it
    for client in ("home", None):
        ingress_rules.allow_me(deployed.account, client, HOME)
    raw = stacks.world_config("site")
    return World(stacks.deploy_world(deployed.region, "site", raw), raw)


class TestEveryRoutedWorld(EveryRoutedWorld):
    client = "home"
    looks = False
