"""Apply each remedy that a refusal of the account or the region names: the stack then passes it.

That AWS accepts the stack then is not shown here.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase as fnmatch
from ipaddress import IPv6Network
from typing import Any

import pulumi
import pytest
from moto.ec2.models import ec2_backends

import contract
from components import parameter_quotas
from engine.provider import invokes
from lab.api.iam import ACCOUNT
from lab.api.moto_patches import add_quota_increases, patched
from program.bundle_sizes import check_bundle_sizes
from program.preflight import check_account, find_placements, list_vpc_ranges
from settings.source import load
from tests.program.conftest import REGION, ROOT, Deployment, deploy_into_moto

Sections = dict[str, Any]
NOT_IN_A = {"instanceType": "a1.medium"}


@dataclass
class World:
    """An account with an existing VPC."""

    ec2: Any
    existing: dict[str, Any]

    @property
    def another_vpc(self) -> dict[str, Any]:
        """The default VPC's identifiers."""
        subnet = self.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]
        main = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
        table = self.ec2.describe_route_tables(Filters=main)["RouteTables"][0]
        return {"subnetId": subnet["SubnetId"], "routeTableIds": [table["RouteTableId"]]}

    def network(self, **keys: Any) -> Sections:
        return {"network": {**self.existing, **keys}}

    def with_zone(self, domain: str, *, private: bool = False) -> Sections:
        """Return sections with the gateway's name in a new hosted zone."""
        vpc = {"VPCId": self.existing["vpcId"], "VPCRegion": REGION}
        zone = Deployment({}, []).route53.create_hosted_zone(
            Name=domain,
            CallerReference=f"{domain} {private}",
            HostedZoneConfig={"PrivateZone": private},
            **({"VPC": vpc} if private else {}),
        )
        id = zone["HostedZone"]["Id"].rpartition("/")[2]
        return {"gateway": {"hostname": "vpn.example.com", "hostedZoneId": id}}

    def with_record(self, type: str, value: str) -> Sections:
        """Return sections with the gateway's name in a new hosted zone, which has a record of the name."""
        sections = self.with_zone("example.com")
        self.change_record(sections, "CREATE", type, value)
        return sections

    def change_record(self, sections: Sections, action: str, type: str, value: str) -> None:
        gateway = sections["gateway"]
        record = {"Name": gateway["hostname"], "Type": type, "TTL": 60, "ResourceRecords": [{"Value": value}]}
        Deployment({}, []).route53.change_resource_record_sets(
            HostedZoneId=gateway["hostedZoneId"],
            ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]},
        )

    def delete_record(self, type: str, value: str) -> None:
        """Delete the record from the one hosted zone."""
        (zone,) = Deployment({}, []).route53.list_hosted_zones()["HostedZones"]
        gateway = {"hostname": "vpn.example.com", "hostedZoneId": zone["Id"].rpartition("/")[2]}
        self.change_record({"gateway": gateway}, "DELETE", type, value)

    def fill_vpcs(self, sections: Sections) -> Sections:
        for number in range(5 - len(self.ec2.describe_vpcs()["Vpcs"])):
            self.ec2.create_vpc(CidrBlock=f"10.{number + 50}.0.0/16")
        return sections

    def delete_vpcs(self, count: int) -> None:
        vpcs = [vpc for vpc in self.ec2.describe_vpcs()["Vpcs"] if vpc["CidrBlock"].startswith("10.")]
        for vpc in vpcs[:count]:
            self.ec2.delete_vpc(VpcId=vpc["VpcId"])

    def fill_addresses(self, sections: Sections) -> Sections:
        for _ in range(5):
            self.ec2.allocate_address(Domain="vpc")
        return sections

    def release_addresses(self, count: int) -> None:
        for address in self.ec2.describe_addresses()["Addresses"][:count]:
            self.ec2.release_address(AllocationId=address["AllocationId"])

    def add_private_subnet(self) -> str:
        (table,) = self.existing["routeTableIds"]
        subnet = self.add_subnet("a")
        self.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        return subnet

    def add_default_route(self) -> None:
        (internet,) = self.ec2.describe_internet_gateways(
            Filters=[{"Name": "attachment.vpc-id", "Values": [self.existing["vpcId"]]}]
        )["InternetGateways"]
        (table,) = self.existing["routeTableIds"]
        self.ec2.create_route(
            RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=internet["InternetGatewayId"]
        )

    def add_subnet(self, zone: str) -> str:
        subnet = self.ec2.create_subnet(
            VpcId=self.existing["vpcId"], CidrBlock="172.20.6.0/24", AvailabilityZone=f"{REGION}{zone}"
        )
        return str(subnet["Subnet"]["SubnetId"])

    def with_prefix(self, prefix: str) -> Sections:
        return {**self.network(), "gateway": {"ipv6Prefix": prefix}, "tunnel": {"ipv6": "delegated"}}

    def add_ipv6(self) -> None:
        """Give the VPC and its subnet an IPv6 range, and a way to the Internet."""
        vpc, subnet = self.existing["vpcId"], self.existing["subnetId"]
        self.ec2.associate_vpc_cidr_block(VpcId=vpc, AmazonProvidedIpv6CidrBlock=True)
        (description,) = self.ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
        block = IPv6Network(description["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
        first = next(block.subnets(new_prefix=64))
        self.ec2.associate_subnet_cidr_block(SubnetId=subnet, Ipv6CidrBlock=str(first))
        main = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
        (table,) = self.ec2.describe_route_tables(Filters=main)["RouteTables"]
        internet = next(route["GatewayId"] for route in table["Routes"] if route["GatewayId"].startswith("igw-"))
        self.ec2.create_route(RouteTableId=table["RouteTableId"], DestinationIpv6CidrBlock="::/0", GatewayId=internet)

    def turn_dns_names_on(self) -> None:
        for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
            self.ec2.modify_vpc_attribute(VpcId=self.existing["vpcId"], **{attribute: {"Value": True}})

    def deploy_subnet(self) -> None:
        """Create the stack's public subnet in zone a, as a deployed stack has it."""
        names = contract.Names("dev")
        vpc = self.ec2.create_vpc(CidrBlock="10.1.0.0/16", TagSpecifications=tagged("vpc", names.tags("vpc")))["Vpc"]
        self.ec2.create_subnet(
            VpcId=vpc["VpcId"],
            CidrBlock="10.1.0.0/24",
            AvailabilityZone=f"{REGION}a",
            TagSpecifications=tagged("subnet", names.tags("public-0")),
        )

    def destroy_subnet(self) -> None:
        (subnet,) = self.ec2.describe_subnets(Filters=[{"Name": "cidr-block", "Values": ["10.1.0.0/24"]}])["Subnets"]
        self.ec2.delete_subnet(SubnetId=subnet["SubnetId"])


def with_foreign_log(_: World) -> Sections:
    Deployment({}, []).logs.create_log_group(logGroupName=LOG_GROUP)
    return {}


def delete_log_group() -> None:
    Deployment({}, []).logs.delete_log_group(logGroupName=LOG_GROUP)


def with_foreign_topic(_: World) -> Sections:
    Deployment({}, []).sns.create_topic(Name=contract.topic_name("dev"))
    return {"alerts": {"email": "operator@example.com"}}


def delete_topic(message: str) -> None:
    (topic,) = re.findall(r"--topic-arn (\S+)", message)
    Deployment({}, []).sns.delete_topic(TopicArn=topic)


def deployed_in_zone_a(world: World) -> Sections:
    world.deploy_subnet()
    return {"gateway": NOT_IN_A}


def full_of_vpcs(**sections: Any) -> Callable[[World], Sections]:
    return lambda world: world.fill_vpcs(sections)


def full_of_addresses(**sections: Any) -> Callable[[World], Sections]:
    return lambda world: world.fill_addresses(sections)


def private_subnet(world: World) -> Sections:
    return world.network(subnetId=world.add_private_subnet())


def foreign_prefix(world: World) -> Sections:
    world.add_ipv6()
    return world.with_prefix("2001:db8:1:2:3::/80")


def in_type(name: str) -> Callable[[World, str], Sections]:
    return lambda *_: {"gateway": {"instanceType": name}}


def tagged(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def request_more(message: str) -> None:
    """Run the command that a refusal names."""
    service, code, value = re.findall(r"--(?:service-code|quota-code|desired-value) (\S+)", message)
    quotas: Any = Deployment({}, []).__getattr__("service-quotas")
    quotas.request_service_quota_increase(ServiceCode=service, QuotaCode=code, DesiredValue=float(value))


def prepare_image(architecture: str, system: str = "debian-13") -> None:
    """Create what `drawbridge image build` creates."""
    ec2 = Deployment({}, []).ec2
    image = ec2.register_image(Name=f"prepared {architecture}")["ImageId"]
    ec2.create_tags(Resources=[image], Tags=[{"Key": contract.IMAGE_TAG, "Value": system}])
    ec2_backends[ACCOUNT][REGION].amis[image].architecture = architecture


def only_for_amd64(_: World) -> Sections:
    prepare_image("x86_64")
    return OURS


def in_existing_vpc(name: str) -> Callable[[World, str], Sections]:
    return lambda world, _: {**world.network(), "gateway": {"instanceType": name}}


def with_boundary(arn: str) -> Callable[[World, str], Sections]:
    return lambda *_: {"iam": {"permissionsBoundary": arn}}


@dataclass(frozen=True)
class Refusal:
    """A refusal of the account or the region, and a way to mend it that its remedy names."""

    sections: Callable[[World], Sections]
    text: str
    """Words of the refusal, in order; `*` stands for values."""
    way: str
    """Words of the remedy."""
    mend: Callable[[World, str], Sections | None]
    """Apply the remedy, which is in the refusal; return the stack's sections then, None for those before."""


NO_IMAGE = "drawbridge:gateway.image: * needs a prepared image for *, the architecture of *, but * has *; *"
LOG_GROUP = contract.Names("dev").connections
FOREIGN_LOG = "drawbridge:log: log group * exists in * and is not stack *'s; *"
FOREIGN_TOPIC = "drawbridge:alerts: topic * exists in * and is not stack *'s; *"
NO_TYPE = "drawbridge:gateway.instanceType: * is not offered in *"
FIRST_SUBNET = "*, where the stack's subnets are; *, or destroy the stack and deploy it again, in *"
TOO_MANY = "drawbridge:network: needs * new *, but * has * and the account's quota is *; *, or ask for more: *"
NOT_OFFERED = "*.subnetId: * is in *, which does not offer drawbridge:gateway.instanceType *; **"
NOT_PUBLIC = (
    "*.subnetId: * is not public: its route table * has no route for * to an internet gateway; "
    "name a public subnet, or add that route"
)
NO_IPV6 = "*.subnetId: * has no IPv6 range; give it one, or write ipv6: none"
NOT_IN_SUBNET = (
    "drawbridge:gateway.ipv6Prefix: * is not in the range * of *; use a part of it such as *, or leave ipv6Prefix out"
)
NO_DNS = (
    "drawbridge:network.domain: * needs DNS support and DNS hostnames, which * has turned off; "
    "turn both on in the VPC's settings, or leave domain out"
)
FOREIGN = "drawbridge:*: * is in another account than the stack, *; *"
FOREIGN_BOUNDARY = {"iam": {"permissionsBoundary": "arn:aws:iam::999999999999:policy/bound"}}


OURS = {"gateway": {"image": "ours"}}


def in_network(**keys: Any) -> Callable[[World], Sections]:
    return lambda world: world.network(**keys)


def in_subnet(**sections: Any) -> Callable[[World], Sections]:
    return lambda world: {**world.network(), **sections}


NAME_ZONE = "name the public hosted zone of the name's domain: aws route53 list-hosted-zones"
NOT_IN_ZONE = "is the zone of *, which drawbridge:gateway.hostname * is not in"
NO_ZONE = {"gateway": {"hostname": "vpn.example.com", "hostedZoneId": "Z0123456789ABCDEFGHIJ"}}


def with_foreign_zone(world: World) -> Sections:
    return world.with_zone("example.org")


HAS_RECORD = (
    "drawbridge:gateway.hostname: * already has a record in *: * *, which does not lead to this stack's gateway; "
    "delete it, after removing hostedZoneId from the stack that it belongs to, if any, or choose another name"
)

#: With the limits of `world`, more clients than have room.
CROWD = {"clients": [{"name": f"client{number}"} for number in range(20)]}

#: A client whose bundle has more than 4,096 characters, with every part of it long.
WINDOWS = {"name": "w" * 63, "system": "windows"}
DOMAIN = ".".join(["d" * 63] * 4)[-(253 - len("gateway.dev.")) :]
LONG_BUNDLE = {
    "clients": [{"name": "alice"}, WINDOWS],
    "network": {"domain": DOMAIN},
    "tunnel": {"ipv6": "delegated", "redirect": "all"},
}

#: Refusals and ways that change nothing in the account.
IN_THE_FILE = [
    *(
        Refusal(lambda _: {"gateway": {"instanceType": "t9z.nano"}}, f"{NO_TYPE}; *", name, in_type(name))
        for name in ("t4g.nano", "t3a.nano")
    ),
    Refusal(
        lambda _: {"network": {"zones": 3}},
        "*.zones: * is more than * has; write * or less",
        "write 2 or less",
        lambda *_: {"network": {"zones": 2}},
    ),
    Refusal(
        in_network(vpcId="vpc-9"),
        "*.vpcId: * does not exist in the region; name a VPC of this region",
        "name a VPC of this region",
        lambda world, _: world.network(),
    ),
    Refusal(
        in_network(subnetId="subnet-9"),
        "*.subnetId: * does not exist in the region; name a subnet of the VPC",
        "name a subnet of the VPC",
        lambda world, _: world.network(),
    ),
    Refusal(
        lambda world: world.network(subnetId=world.another_vpc["subnetId"]),
        "*.subnetId: * is in *, not in *; name a subnet of that VPC",
        "name a subnet of that VPC",
        lambda world, _: world.network(),
    ),
    *(
        Refusal(
            in_subnet(gateway=NOT_IN_A),
            NOT_OFFERED,
            name,
            in_existing_vpc(name),
        )
        for name in ("t4g.nano", "t3a.nano")
    ),
    Refusal(
        in_network(routeTableIds=["rtb-9"]),
        "*: * does not exist in the region; name route tables of the VPC",
        "name route tables of the VPC",
        lambda world, _: world.network(),
    ),
    Refusal(
        lambda world: world.network(routeTableIds=world.another_vpc["routeTableIds"]),
        "*: * is in *, not in *; name route tables of that VPC",
        "name route tables of that VPC",
        lambda world, _: world.network(),
    ),
    Refusal(
        in_subnet(tunnel={"ipv6": "delegated"}),
        NO_IPV6,
        "write ipv6: none",
        lambda world, _: {**world.network(), "tunnel": {"ipv6": "none"}},
    ),
    Refusal(in_network(domain="tenant.internal"), NO_DNS, "leave domain out", lambda world, _: world.network()),
    Refusal(
        lambda _: {"secrets": {"users": ["arn:aws:iam::999999999999:role/operator"]}},
        FOREIGN,
        "use users and roles of that account",
        lambda *_: {"secrets": {"users": ["arn:aws:iam::123456789012:role/operator"]}},
    ),
    Refusal(
        lambda _: OURS,
        NO_IMAGE,
        "or write image: debian-13",
        lambda *_: {"gateway": {"image": "debian-13"}},
    ),
    *(
        Refusal(lambda _: FOREIGN_BOUNDARY, FOREIGN, way, with_boundary(arn))
        for way, arn in (
            ("use a policy of that account", "arn:aws:iam::123456789012:policy/bound"),
            ("one of AWS's (arn:aws:iam::aws:policy/…)", "arn:aws:iam::aws:policy/PowerUserAccess"),
        )
    ),
    *(
        Refusal(
            sections,
            f"drawbridge:gateway.hostedZoneId: * {reason}; *",
            NAME_ZONE,
            lambda world, _: world.with_zone("example.com"),
        )
        for sections, reason in (
            (lambda _: NO_ZONE, "cannot be looked up (*)"),
            (lambda world: world.with_zone("example.com", private=True), "is a private zone, which clients do not see"),
            (with_foreign_zone, NOT_IN_ZONE),
        )
    ),
    Refusal(
        with_foreign_zone,
        f"drawbridge:gateway.hostedZoneId: * {NOT_IN_ZONE}; *, or use *",
        "or use a name such as vpn.example.org",
        lambda world, _: {"gateway": {**with_foreign_zone(world)["gateway"], "hostname": "vpn.example.org"}},
    ),
    Refusal(
        lambda world: world.with_record("CNAME", "example.net"),
        HAS_RECORD,
        "or choose another name",
        lambda world, _: {"gateway": {**world.with_zone("example.com")["gateway"], "hostname": "vpn2.example.com"}},
    ),
    *(
        Refusal(
            lambda _: CROWD,
            "drawbridge:clients: need * new SSM parameters, but * has * and the account's limit is *; *",
            f"drawbridge:secrets.{key}: {value}",
            lambda *_, key=key, value=value: {**CROWD, "secrets": {key: value}},
        )
        for key, value in (("tier", "intelligent"), ("bundles", "s3"))
    ),
    *(
        Refusal(
            lambda _: LONG_BUNDLE,
            "drawbridge:clients*: the bundle of * would have * characters, but an SSM parameter takes *; *",
            way,
            lambda *_, change=change: {**LONG_BUNDLE, **change},
        )
        for way, change in (
            ("shorten the client's name", {"clients": [{**WINDOWS, "name": "w"}]}),
            ("or drawbridge:network.domain", {"network": {"domain": "tenant.internal"}}),
            ("drawbridge:secrets.tier: intelligent", {"secrets": {"tier": "intelligent"}}),
            ("drawbridge:secrets.bundles: s3", {"secrets": {"bundles": "s3"}}),
        )
    ),
]

#: Refusals and ways that change the account, each in one of its own.
IN_THE_ACCOUNT = [
    Refusal(
        lambda world: world.with_record("A", "192.0.2.1"),
        HAS_RECORD,
        "delete it",
        lambda world, _: world.delete_record("A", "192.0.2.1"),
    ),
    Refusal(deployed_in_zone_a, NO_TYPE + FIRST_SUBNET, "t4g.nano", in_type("t4g.nano")),
    Refusal(deployed_in_zone_a, NO_TYPE + FIRST_SUBNET, "destroy the stack", lambda world, _: world.destroy_subnet()),
    Refusal(
        only_for_amd64,
        NO_IMAGE,
        "build one (drawbridge image build --stack dev --architecture arm64)",
        lambda *_: prepare_image("arm64"),
    ),
    Refusal(
        lambda _: {"gateway": {"image": "ours-backports"}},
        NO_IMAGE,
        "build one (drawbridge image build --stack dev --architecture arm64 --backports)",
        lambda *_: prepare_image("arm64", "debian-13-backports"),
    ),
    Refusal(
        with_foreign_log,
        FOREIGN_LOG,
        f"aws logs delete-log-group --log-group-name {LOG_GROUP}",
        lambda *_: delete_log_group(),
    ),
    Refusal(
        with_foreign_log,
        FOREIGN_LOG,
        "drawbridge:log.retention: none",
        lambda *_: {"log": {"retention": "none"}},
    ),
    Refusal(with_foreign_topic, FOREIGN_TOPIC, "delete it", lambda _, message: delete_topic(message)),
    Refusal(with_foreign_topic, FOREIGN_TOPIC, "or leave drawbridge:alerts out", lambda *_: {}),
    Refusal(full_of_vpcs(), TOO_MANY, "delete 1", lambda world, _: world.delete_vpcs(1)),
    Refusal(full_of_vpcs(pair={}), TOO_MANY, "delete 2", lambda world, _: world.delete_vpcs(2)),
    Refusal(full_of_vpcs(), TOO_MANY, "drawbridge:network.vpcId", lambda world, _: world.network()),
    Refusal(full_of_vpcs(pair={}), TOO_MANY, "--desired-value 7", lambda _, message: request_more(message)),
    Refusal(full_of_addresses(pair={}), TOO_MANY, "release 2", lambda world, _: world.release_addresses(2)),
    Refusal(full_of_addresses(), TOO_MANY, "--desired-value 6", lambda _, message: request_more(message)),
    Refusal(
        in_subnet(gateway=NOT_IN_A),
        NOT_OFFERED,
        "name a subnet in eu-west-1b or eu-west-1c",
        lambda world, _: {**world.network(subnetId=world.add_subnet("b")), "gateway": NOT_IN_A},
    ),
    Refusal(private_subnet, NOT_PUBLIC, "name a public subnet", lambda world, _: world.network()),
    Refusal(private_subnet, NOT_PUBLIC, "add that route", lambda world, _: world.add_default_route()),
    Refusal(in_subnet(tunnel={"ipv6": "delegated"}), NO_IPV6, "give it one", lambda world, _: world.add_ipv6()),
    Refusal(
        foreign_prefix,
        NOT_IN_SUBNET,
        "use a part of it such as",
        lambda world, message: world.with_prefix(message.rpartition("such as ")[2].partition(",")[0]),
    ),
    Refusal(
        foreign_prefix,
        NOT_IN_SUBNET,
        "leave ipv6Prefix out",
        lambda world, _: {**world.network(), "tunnel": {"ipv6": "delegated"}},
    ),
    Refusal(
        in_network(domain="tenant.internal"),
        NO_DNS,
        "turn both on in the VPC's settings",
        lambda world, _: world.turn_dns_names_on(),
    ),
]


@pytest.fixture
def world(existing: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A region with two zones beside a local one, in an account that has room for few parameters."""
    monkeypatch.setattr(parameter_quotas, "STANDARD_PARAMETERS", 30)
    monkeypatch.setattr(parameter_quotas, "COUNTED_FROM", 20)
    zones = {"id": REGION, "names": ["eu-west-1-wl1-bru-wlz-1", "eu-west-1b", "eu-west-1a"]}
    monkeypatch.setitem(invokes.INVOKES, "aws:index/getAvailabilityZones:getAvailabilityZones", lambda *_: zones)
    with patched(add_quota_increases):
        yield World(Deployment({}, []).ec2, existing)


def look_at(sections: Sections) -> None:
    """Look at the account as the program does; raises `pulumi.RunError`."""
    config = {"aws:region": REGION} | {f"drawbridge:{key}": value for key, value in sections.items()}

    def look() -> None:
        settings = load()
        check_account(settings)
        placement = find_placements(settings)[contract.GATEWAYS[0]]
        if not settings.pair:
            ranges = list_vpc_ranges(settings.network, placement)
            check_bundle_sizes(settings, contract.Names(settings.stack), ranges, {})

    deploy_into_moto(config, "dev", look)


def apply_remedy(world: World, refusal: Refusal) -> None:
    sections = refusal.sections(world)
    with pytest.raises(pulumi.RunError) as raised:
        look_at(sections)
    message = str(raised.value)
    assert fnmatch(message, refusal.text)
    assert refusal.way in message.partition("; ")[2]
    mended = refusal.mend(world, message)
    look_at(sections if mended is None else mended)


def test_remedies_that_change_the_file_are_accepted(world: World) -> None:
    for refusal in IN_THE_FILE:
        apply_remedy(world, refusal)


@pytest.mark.parametrize("refusal", IN_THE_ACCOUNT, ids=lambda refusal: refusal.way)
def test_a_remedy_that_changes_the_account_is_accepted(world: World, refusal: Refusal) -> None:
    apply_remedy(world, refusal)


def list_refusals() -> Iterator[str]:
    """Yield the words of each refusal in the source, with `*` for values."""
    for path in (*ROOT.glob("components/*.py"), *ROOT.glob("program/*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) == "pulumi.RunError":
                message = call.args[0]
                parts = message.values if isinstance(message, ast.JoinedStr) else [message]
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


def test_every_refusal_is_in_the_table() -> None:
    words = {re.sub(r"\*+", "*", refusal.text) for refusal in (*IN_THE_FILE, *IN_THE_ACCOUNT)}
    missing = [text for text in list_refusals() if not any(fnmatch(text.replace("*", "x"), word) for word in words)]
    assert missing == []
