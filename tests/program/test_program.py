"""What the program makes of other stack files, and of one after another. Whether a packet passes is not shown here."""

import io
import tarfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pulumi
import pytest

import contract
from openvpn import bundle as bundles
from pki.authority import certifies
from program.tunnel import tunnel_from_settings, with_vpc_routes
from settings.parse import parse
from settings.stack_file import read_stack_file
from tests.program.conftest import REGION, ROOT, Deploy, Deployment
from tests.support.requests import create_request

NAMES = contract.Names("dev")

SYSTEMS = list(enumerate(("linux", "networkmanager", "windows", "macos", "android", "ios"), start=10))


def config(**sections: Any) -> dict[str, object]:
    return {"aws:region": REGION} | {f"drawbridge:{key}": value for key, value in sections.items()}


def routes_to_the_gateway(stack: Deployment) -> set[tuple[str, str]]:
    tables = stack.ec2.describe_route_tables()["RouteTables"]
    interface = stack.outputs["gatewayInterfaceId"]
    return {
        (name(table), route["DestinationCidrBlock"])
        for table in tables
        for route in table["Routes"]
        if route.get("NetworkInterfaceId") == interface
    }


def name(thing: dict[str, Any]) -> str:
    return str({t["Key"]: t["Value"] for t in thing.get("Tags", [])}.get("Name", ""))


def source_dest_check(stack: Deployment) -> bool:
    ids = [stack.outputs["gatewayInterfaceId"]]
    (interface,) = stack.ec2.describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"]
    return bool(interface["SourceDestCheck"])


def ingress(stack: Deployment) -> set[tuple[str, int, str]]:
    rules = stack.ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [stack.outputs["securityGroupId"]]}]
    )["SecurityGroupRules"]
    return {(r["IpProtocol"], r["FromPort"], r["CidrIpv4"]) for r in rules if not r["IsEgress"]}


def test_defaults_open_no_ssh_and_route_nothing_to_the_gateway(deploy: Deploy) -> None:
    stack = deploy(config())
    assert ingress(stack) == {("udp", 1194, "0.0.0.0/0"), ("icmp", 8, "0.0.0.0/0"), ("icmp", 3, "0.0.0.0/0")}
    assert routes_to_the_gateway(stack) == set()
    assert source_dest_check(stack) is True


def test_an_untranslated_tunnel_is_routed_to_the_interface(deploy: Deploy) -> None:
    site = {"name": "home", "lan": ["192.168.1.0/24"], "reachable": ["192.168.1.128/25"]}
    stack = deploy(config(tunnel={"nat": False}, clients=[site]))
    tables = ("drawbridge-dev-public", "drawbridge-dev-private")
    assert routes_to_the_gateway(stack) == {(t, to) for t in tables for to in ("10.8.0.0/24", "192.168.1.0/24")}
    assert source_dest_check(stack) is False
    assert ("-1", -1, "10.1.0.0/16") in ingress(stack)


def test_only_linux_clients_get_a_kit(deploy: Deploy) -> None:
    stack = deploy(config(clients=[{"name": n, "at": f"203.0.113.{i}", "system": n} for i, n in SYSTEMS]))
    objects = stack.s3.list_objects_v2(Bucket=stack.outputs["bucket"], Prefix="kits/")["Contents"]
    users = stack.iam.list_users()["Users"]
    assert [found["Key"] for found in objects] == ["kits/linux.tar.gz"]
    assert [found["UserName"] for found in users] == ["drawbridge-dev-linux"]
    assert {("udp", 1194, f"203.0.113.{i}/32") for i, _ in SYSTEMS} <= ingress(stack)  # the control: all may come


def test_a_translated_tunnel_routes_only_what_the_vpc_may_open(deploy: Deploy) -> None:
    site = {"name": "home", "lan": ["192.168.1.0/24"], "reachable": ["192.168.1.128/25"]}
    stack = deploy(config(clients=[site]))
    assert {to for _, to in routes_to_the_gateway(stack)} == {"192.168.1.128/25"}
    assert source_dest_check(stack) is False


def test_zones_get_subnets_in_zones_of_their_own(deploy: Deploy) -> None:
    stack = deploy(config(network={"cidr": "10.20.0.0/16", "zones": 2}))
    subnets = stack.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [stack.outputs["vpcId"]]}])["Subnets"]
    assert {(s["CidrBlock"], s["AvailabilityZone"]) for s in subnets} == {
        ("10.20.0.0/24", "eu-west-1a"),
        ("10.20.1.0/24", "eu-west-1a"),
        ("10.20.2.0/24", "eu-west-1b"),
        ("10.20.3.0/24", "eu-west-1b"),
    }


def test_an_existing_vpc_gets_the_gateway_and_its_routes(deploy: Deploy, existing: dict[str, Any]) -> None:
    ec2 = Deployment({}, []).ec2
    before = {call: count(ec2, call) for call in ("vpcs", "subnets", "internet_gateways", "network_acls")}
    stack = deploy(config(network=existing, tunnel={"nat": False}, clients=[{"name": "alice"}]))
    assert (stack.outputs["vpcId"], stack.outputs["publicSubnetId"]) == (existing["vpcId"], existing["subnetId"])
    assert stack.outputs.get("privateSubnetId") is None
    assert {call: count(ec2, call) for call in before} == before
    (table,) = ec2.describe_route_tables(RouteTableIds=existing["routeTableIds"])["RouteTables"]
    targets = {r["DestinationCidrBlock"]: r.get("NetworkInterfaceId") for r in table["Routes"]}
    assert targets == {"172.20.0.0/16": None, "172.21.0.0/16": None, "10.8.0.0/24": stack.outputs["gatewayInterfaceId"]}


def count(ec2: Any, things: str) -> int:
    (listed,) = (v for k, v in getattr(ec2, f"describe_{things}")().items() if isinstance(v, list))
    return len(listed)


def test_an_existing_vpc_that_overlaps_is_refused_before_anything_is_made(
    deploy: Deploy, existing: dict[str, Any]
) -> None:
    with pytest.raises(pulumi.RunError) as refusal:
        deploy(config(network=existing, tunnel={"pool": "172.20.9.0/24"}))
    assert str(refusal.value) == (
        "drawbridge:tunnel.pool: 172.20.9.0/24 overlaps drawbridge:network.vpcId 172.20.0.0/16; "
        "use a range that does not overlap it"
    )
    assert Deployment({}, []).ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    assert Deployment({}, []).ssm.get_parameters_by_path(Path=NAMES.root, Recursive=True)["Parameters"] == []


def test_bad_settings_end_the_program_with_all_of_them_and_nothing_is_made(deploy: Deploy) -> None:
    with pytest.raises(pulumi.RunError) as refusal:
        deploy(config(tunnel={"port": 70000}, gateway={"diskSize": 1}))
    assert str(refusal.value).splitlines() == [
        "drawbridge:gateway.diskSize: 1 is too small; use 8 or more",
        "drawbridge:tunnel.port: 70000 is too large; use 65535 or less",
    ]
    assert refusal.value.__suppress_context__
    assert Deployment({}, []).ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []


def test_what_is_probably_a_mistake_is_warned_of(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda text, *_, **__: warnings.append(text))
    deploy(config())
    assert warnings == ["drawbridge:clients: [] has nobody who may connect; add clients, such as {name: alice}"]


def test_the_lab_stack_is_refused_without_a_loopback_endpoint(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = read_stack_file(ROOT / "stacks/Pulumi.lab.yaml")
    with pytest.raises(pulumi.RunError, match=r"^stack: lab would be deployed to AWS itself; "):
        deploy(raw, stack="lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", "https://ssm.eu-west-1.amazonaws.com")
    with pytest.raises(pulumi.RunError, match=r"would be deployed to https://ssm\.eu-west-1\.amazonaws\.com; "):
        deploy(raw, stack="lab")


@pytest.mark.seed("3.2")
def test_what_clients_are_told(deploy: Deploy) -> None:
    stack = deploy(config(clients=[{"name": "alice"}]))
    server = release_file(stack, "root/etc/openvpn/server/server.conf")
    lines = server.splitlines()
    assert "server 10.8.0.0 255.255.255.0 nopool" in lines
    assert 'push "route 10.1.0.0 255.255.0.0"' in lines
    assert "keepalive 1 7" in lines
    assert "dev-type tun" in lines
    bundle = stack.ssm.get_parameter(Name=NAMES.bundle("alice"), WithDecryption=True)["Parameter"]["Value"]
    assert "verify-x509-name dev.drawbridge name" in bundle
    assert bundles.key_of(bundle).startswith("-----BEGIN PRIVATE KEY-----")


def test_a_client_with_a_signing_request_keeps_its_key(deploy: Deploy, tmp_path: Path) -> None:
    request = tmp_path / "alice.csr"
    request.write_text(create_request("alice")[0])
    stack = deploy(config(clients=[{"name": "alice", "csr": str(request)}]))
    bundle = stack.ssm.get_parameter(Name=NAMES.bundle("alice"), WithDecryption=True)["Parameter"]["Value"]
    assert bundles.has_key_file(bundle) and "PRIVATE KEY" not in bundle
    assert certifies(bundles.certificate_of(bundle), request.read_text(), "alice")


def release_file(stack: Deployment, path: str) -> str:
    body = stack.s3.get_object(Bucket=stack.outputs["bucket"], Key=NAMES.release_key(stack.outputs["release"]))["Body"]
    with tarfile.open(fileobj=io.BytesIO(body.read())) as tar:
        member = tar.extractfile(path)
        assert member is not None
        return member.read().decode()


def test_default_tags_reach_every_resource_that_the_provider_tags(deploy: Deploy) -> None:
    """The stack's own tags come first, because audit and commands find resources by them."""
    tags = {"Team": "network", "Stack": "other"}
    stack = deploy({**config(clients=[{"name": "a"}]), "aws:defaultTags": {"tags": tags}})
    inputs = [
        outputs["tags"] for kind, *_, outputs in stack.resources if outputs.get("tags") and kind.startswith("aws:")
    ]
    assert len(inputs) > 10
    assert all((found["Team"], found["Stack"]) == ("network", "dev") for found in inputs)
    listed = stack.ec2.describe_instances(InstanceIds=[stack.outputs["gatewayInstanceId"]])["Reservations"]
    (mapping,) = listed[0]["Instances"][0]["BlockDeviceMappings"]
    (volume,) = stack.ec2.describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
    for resource in (listed[0]["Instances"][0], volume):
        found = {tag["Key"]: tag["Value"] for tag in resource["Tags"]}
        assert (found["Team"], found["Stack"]) == ("network", "dev")
    # Without those of public images.
    below = [{"Key": "Path", "Option": "Recursive", "Values": [NAMES.root]}]
    described = stack.ssm.describe_parameters(ParameterFilters=below)["Parameters"]
    assert len(described) > 5
    for parameter in described:
        answer = stack.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=parameter["Name"])
        found = {tag["Key"]: tag["Value"] for tag in answer["TagList"]}
        assert (found["Team"], found["Stack"]) == ("network", "dev"), parameter["Name"]


@pytest.mark.parametrize(
    ("section", "resolver"),
    [
        ({"redirect": "all"}, "10.1.0.2"),
        ({"redirect": "none"}, None),
        # Such a client cannot ask the VPC's resolver.
        ({"redirect": "all", "nat": False}, None),
        ({"redirect": "all", "vpc": False}, None),
    ],
)
def test_clients_whose_traffic_all_takes_the_tunnel_ask_the_vpcs_resolver(
    section: dict[str, Any], resolver: str | None
) -> None:
    settings = parse(config(tunnel=section), stack="dev", endpoint=None)
    tunnel = with_vpc_routes(tunnel_from_settings(settings), settings, (IPv4Network("10.1.0.0/16"),))
    assert tunnel.resolver == (resolver and IPv4Address(resolver))
