"""Exact children, inputs, parents and outputs of each component. That AWS accepts them is not shown here."""

import json
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Literal

import pulumi
import pytest

import contract
from components.access import Access, AccessArgs
from components.address import Address, AddressArgs
from components.authority import Authority, AuthorityArgs
from components.connection_log import ConnectionLog, ConnectionLogArgs
from components.existing_vpc import ExistingVpc
from components.firewall import Firewall, FirewallArgs
from components.gateway import Gateway, GatewayArgs
from components.grants import Grant, render_policy
from components.network import Network, NetworkArgs
from components.routes import Routes, RoutesArgs
from components.vault import Vault, VaultArgs
from images import IMAGES, find_architecture
from openvpn.listener import Listener
from settings import model
from settings.checks import quotas
from settings.draft import Draft
from tests.unit.components.conftest import Declare
from userdata.release import Release

NAMES = contract.Names("dev")
NET, SIX = IPv4Network, IPv6Network


def tags(name: str = "") -> dict[str, str]:
    return contract.tags("dev", name)


def test_firewall(declare: Declare) -> None:
    args = FirewallArgs(
        names=NAMES,
        vpc_id="vpc-1",
        listener=Listener("udp", (1195,)),
        admin_from=(NET("203.0.113.7/32"),),
        allow_from=(NET("0.0.0.0/0"),),
        forwards_for=(NET("10.1.0.0/16"),),
    )
    seen = declare(lambda: Firewall("fw", args))
    rules = {
        n: seen.inputs(kind, n)
        for kind, n in seen.children
        if kind.startswith("SecurityGroup") and kind != "SecurityGroup"
    }
    common = {"securityGroupId": "fw-gateway-id", "tags": tags("gateway")}
    assert seen.inputs("SecurityGroup", "fw-gateway") == {
        "name": "drawbridge-dev-gateway",
        "description": "Drawbridge gateway",
        "vpcId": "vpc-1",
        "tags": tags("gateway"),
    }
    assert rules == {
        "fw-ssh-203.0.113.7/32": common
        | {"description": "ssh", "ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "cidrIpv4": "203.0.113.7/32"},
        "fw-tunnel-0.0.0.0/0": common
        | {"description": "tunnel", "ipProtocol": "udp", "fromPort": 1195, "toPort": 1195, "cidrIpv4": "0.0.0.0/0"},
        "fw-echo-0.0.0.0/0": common
        | {"description": "echo", "ipProtocol": "icmp", "fromPort": 8, "toPort": -1, "cidrIpv4": "0.0.0.0/0"},
        "fw-fragmentation-0.0.0.0/0": common
        | {"description": "fragmentation", "ipProtocol": "icmp", "fromPort": 3, "toPort": 4, "cidrIpv4": "0.0.0.0/0"},
        "fw-forwarded-10.1.0.0/16": common
        | {"description": "forwarded", "ipProtocol": "-1", "cidrIpv4": "10.1.0.0/16"},
        "fw-out": common | {"description": "everything", "ipProtocol": "-1", "cidrIpv4": "0.0.0.0/0"},
    }
    assert len(seen.children) == 7
    assert seen.outputs == {"securityGroupId": "fw-gateway-id"}


def test_a_range_and_an_address_that_AWS_takes_for_one_rule_are_one_rule(declare: Declare) -> None:
    """AWS knows a rule by protocol, ports and range, and refuses a second one (`InvalidPermission.Duplicate`)."""
    args = FirewallArgs(
        names=NAMES,
        vpc_id="vpc-1",
        listener=Listener(),
        admin_from=(NET("203.0.113.7/32"), NET("198.51.100.0/25"), NET("198.51.100.128/25")),
        admin_at=IPv4Address("203.0.113.7"),
        allow_from=(NET("192.0.2.9/32"), NET("192.0.2.9/32")),
        clients_at={"home": IPv4Address("192.0.2.9")},
    )
    seen = declare(lambda: Firewall("fw", args))
    assert {name for kind, name in seen.children if kind == "SecurityGroupIngressRule"} == {
        "fw-ssh-198.51.100.0/24",
        "fw-door-ssh",
        "fw-echo-192.0.2.9/32",
        "fw-fragmentation-0.0.0.0/0",
        "fw-door-tunnel/home",
    }


def test_the_settings_count_the_rules_and_entries_that_are_declared(declare: Declare) -> None:
    """What counts against AWS's quotas is known before anything is created."""
    clients = {
        0: model.Client(name="home", at=IPv4Address("192.0.2.9"), lan=(NET("192.168.1.0/24"),)),
        1: model.Client(name="office", at=IPv4Address("192.0.2.10"), lan=(NET("192.168.4.0/24"),)),
    }
    draft = Draft(
        stack="dev",
        region="eu-west-1",
        network=model.Network(),
        gateway=model.Gateway.model_validate(
            {
                "adminFrom": ["203.0.113.7/32", "203.0.113.9/32"],
                "adminAt": "203.0.113.7",
                "allowFrom": ["192.0.2.9/32", "198.51.100.0/24"],
            }
        ),
        tunnel=model.Tunnel(nat=False),
        clients=clients,
        entries=2,
        iam=None,
        lifetimes=model.Lifetimes(),
        rotations=model.Rotations(),
        secrets=model.Secrets(),
        log=model.Log(),
        pair=None,
        alerts=None,
        has_pair=False,
    )
    assert draft.gateway and draft.tunnel
    args = FirewallArgs(
        names=NAMES,
        vpc_id="vpc-1",
        listener=Listener(),
        admin_from=draft.gateway.admin_from,
        admin_at=draft.gateway.admin_at,
        allow_from=draft.gateway.allow_from,
        clients_at={client.name: client.at for client in clients.values() if client.at},
        forwards_for=(NET("10.1.0.0/16"),),
    )
    rules = [kind for kind, _ in declare(lambda: Firewall("fw", args)).children if kind == "SecurityGroupIngressRule"]
    assert len(rules) == quotas.count_group_rules(draft, draft.gateway, draft.tunnel)
    for ipv6 in (False, True):
        entries = quotas.count_acl_entries(ssh=True, ipv6=ipv6)
        network = replace(NETWORK, ssh=True, ipv6=ipv6, behind=())
        seen = declare(partial(Network, "network", network))
        for kind, expected in entries.items():
            declared = [name for _, name in seen.children if name.startswith(f"network-{kind}-in-")]
            last = 2 if ipv6 else 1  # AWS's own
            assert len(declared) + last == expected, (kind, ipv6)


ADDRESS = AddressArgs(names=NAMES, region="eu-west-1", subnet_id="s", security_group_id="g", source_dest_check=False)


def test_address(declare: Declare) -> None:
    args = replace(ADDRESS, subnet_id="subnet-1", security_group_id="sg-1")
    seen = declare(lambda: Address("address", args))
    assert set(seen.children) == {("NetworkInterface", "address-interface"), ("Eip", "address-elastic")}
    assert seen.inputs("NetworkInterface", "address-interface") == {
        "subnetId": "subnet-1",
        "securityGroups": ["sg-1"],
        "sourceDestCheck": False,
        "description": "Drawbridge gateway",
        "tags": tags("gateway"),
    }
    assert seen.inputs("Eip", "address-elastic") == {
        "domain": "vpc",
        "networkInterface": "address-interface-id",
        "tags": tags("gateway"),
    }


def test_a_firewall_for_ipv6(declare: Declare) -> None:
    args = FirewallArgs(
        names=NAMES,
        vpc_id="vpc-1",
        listener=Listener(),
        admin_from=(),
        allow_from=(),
        ipv6=True,
        opened6=(SIX("2001:db8::/32"),),
    )
    seen = declare(lambda: Firewall("fw", args))
    rules = {n: seen.inputs(kind, n) for kind, n in seen.children if kind != "SecurityGroup"}
    fragmentation6 = rules["fw-fragmentation-::/0"]
    assert (fragmentation6["ipProtocol"], fragmentation6["fromPort"], fragmentation6["toPort"]) == ("icmpv6", 2, 0)
    assert {n: (r["ipProtocol"], r.get("cidrIpv4"), r.get("cidrIpv6")) for n, r in rules.items()} == {
        "fw-fragmentation-0.0.0.0/0": ("icmp", "0.0.0.0/0", None),
        "fw-fragmentation-::/0": ("icmpv6", None, "::/0"),
        "fw-opened-2001:db8::/32": ("-1", None, "2001:db8::/32"),
        "fw-out": ("-1", "0.0.0.0/0", None),
        "fw-out6": ("-1", None, "::/0"),
    }


@pytest.mark.parametrize("named", [None, "2001:db8:1:2:3::/80"])
def test_an_address_with_ipv6(declare: Declare, named: str | None) -> None:
    seen = declare(lambda: Address("address", replace(ADDRESS, ipv6=True, ipv6_prefix=named)))
    inputs = seen.inputs("NetworkInterface", "address-interface")
    # EC2 takes an address or a prefix in the call that creates an interface, never both.
    assert {key: value for key, value in inputs.items() if key.startswith("ipv6")} == {"ipv6AddressCount": 1}
    prefix = seen.inputs("DelegatedPrefix", "address-prefix")
    assert (prefix["interfaceId"], prefix.get("named")) == ("address-interface-id", named)


def test_an_address_whose_prefix_is_another_subnet_s(declare: Declare) -> None:
    seen = declare(lambda: Address("address", replace(ADDRESS, ipv6=True, delegated=False)))
    assert set(seen.children) == {("NetworkInterface", "address-interface"), ("Eip", "address-elastic")}
    assert seen.inputs("NetworkInterface", "address-interface")["ipv6AddressCount"] == 1


def test_an_announced_range_is_an_empty_subnet_s_that_the_internet_gateway_knows(declare: Declare) -> None:
    seen = declare(lambda: Network("network", replace(NETWORK, ipv6=True, announced=True)))
    plain = declare(lambda: Network("network", replace(NETWORK, ipv6=True)))
    assert set(seen.children) - set(plain.children) == {
        ("Subnet", "network-announced"),
        ("RouteTable", "network-edge"),
        ("RouteTableAssociation", "network-edge"),
    }
    subnet = seen.inputs("Subnet", "network-announced")
    assert (subnet["ipv6CidrBlock"], subnet["ipv6Native"]) == ("2001:db8:7:ff::/64", True)
    assert "cidrBlock" not in subnet
    association = seen.inputs("RouteTableAssociation", "network-edge")
    assert association == {"gatewayId": "network-internet-id", "routeTableId": "network-edge-id"}


def test_a_whole_subnet_is_routed_to_the_interface_from_everywhere(declare: Declare) -> None:
    tables = {"tables": {"public": "rtb-1"}, "edge": {"edge": "rtb-9"}}
    args = RoutesArgs(**tables, interface_id="eni-1", destinations=(), destination6="2001:db8:7:ff::/64")
    seen = declare(lambda: Routes("routes", args))
    assert {n: seen.inputs(k, n) for k, n in seen.children} == {
        f"routes-{name}-announced": {
            "routeTableId": id_,
            "destinationIpv6CidrBlock": "2001:db8:7:ff::/64",
            "networkInterfaceId": "eni-1",
        }
        for name, id_ in (("public", "rtb-1"), ("edge", "rtb-9"))
    }


def test_routes(declare: Declare) -> None:
    args = RoutesArgs(
        tables={"public": "rtb-1", "private": "rtb-2"},
        interface_id="eni-1",
        destinations=(NET("10.8.0.0/24"), NET("192.168.1.0/24")),
    )
    seen = declare(lambda: Routes("routes", args))
    assert {key: seen.inputs(*key) for key in seen.children} == {
        ("Route", f"routes-{table}-{to}"): {
            "routeTableId": id_,
            "destinationCidrBlock": to,
            "networkInterfaceId": "eni-1",
        }
        for table, id_ in (("public", "rtb-1"), ("private", "rtb-2"))
        for to in ("10.8.0.0/24", "192.168.1.0/24")
    }


GATEWAY = GatewayArgs(
    names=NAMES,
    interface_id="eni-1",
    profile="profile",
    instance_type="t4g.nano",
    region="eu-west-1",
    image="debian-13",
    disk_size=9,
    credits="standard",
    user_data="#cloud-config\n",
)


def test_gateway(declare: Declare) -> None:
    seen = declare(lambda: Gateway("gateway", GATEWAY))
    assert seen.inputs("Instance", "gateway-instance") == {
        "ami": "ami-1",
        "instanceType": "t4g.nano",
        "iamInstanceProfile": "profile",
        "primaryNetworkInterface": {"networkInterfaceId": "eni-1"},
        "creditSpecification": {"cpuCredits": "standard"},
        "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1},
        "rootBlockDevice": {"volumeType": "gp3", "volumeSize": 9, "encrypted": True, "deleteOnTermination": True},
        "volumeTags": tags("gateway"),
        "userData": "#cloud-config\n",
        "userDataReplaceOnChange": True,
        "tags": tags("gateway"),
    }
    assert seen.inputs("PinnedImage", "gateway-image-arm64")["parameter"] == IMAGES["debian-13"].parameters["arm64"]
    request = seen.children["Instance", "gateway-instance"]
    assert request.deleteBeforeReplace
    # Else the provider turns the interface's check on in the next run.
    assert list(request.ignoreChanges) == ["sourceDestCheck"]
    assert seen.outputs == {"instanceId": "gateway-instance-id"}


def test_a_prepared_image_is_pinned_by_the_architecture(declare: Declare) -> None:
    args = replace(GATEWAY, instance_type="t3.nano", image="ours")
    seen = declare(lambda: Gateway("gateway", args))
    assert seen.inputs("Instance", "gateway-instance")["ami"] == "ami-1"
    inputs = seen.inputs("PinnedImage", "gateway-image-amd64")
    assert inputs["prepared"] == "amd64" and "parameter" not in inputs


def test_an_image_named_by_its_id_is_followed(declare: Declare) -> None:
    args = replace(GATEWAY, instance_type="c7g.medium", image="ami-0123", credits=None)
    seen = declare(lambda: Gateway("gateway", args))
    assert seen.inputs("Instance", "gateway-instance")["ami"] == "ami-0123"
    assert "creditSpecification" not in seen.inputs("Instance", "gateway-instance")
    assert list(seen.children["Instance", "gateway-instance"].ignoreChanges) == ["sourceDestCheck"]


@pytest.mark.parametrize(
    ("expected", "kinds"),
    [
        ("arm64", ("t4g.nano", "c7gn.large", "a1.medium", "im4gn.large")),
        ("amd64", ("t3.nano", "g4dn.xlarge", "c5n.large", "t3a.nano")),
    ],
)
def test_architecture(expected: str, kinds: tuple[str, ...]) -> None:
    assert {find_architecture(kind) for kind in kinds} == {expected}


def test_vault(declare: Declare) -> None:
    args = VaultArgs(names=NAMES, region="eu-west-1", release=Release(archive=b"abc", sha256="d1"), disposable=True)
    seen = declare(lambda: Vault("vault", args))
    bucket = "drawbridge-dev-123456789012-eu-west-1"
    assert seen.inputs("Bucket", "vault-bucket") == {"bucket": bucket, "forceDestroy": True, "tags": tags("vault")}
    assert seen.inputs("BucketPublicAccessBlock", "vault-private") == {
        "bucket": "vault-bucket-id",
        "blockPublicAcls": True,
        "blockPublicPolicy": True,
        "ignorePublicAcls": True,
        "restrictPublicBuckets": True,
    }
    assert seen.inputs("BucketObjectv2", "vault-release") == {
        "bucket": "vault-bucket-id",
        "key": "releases/d1.tar.gz",
        "contentBase64": "YWJj",
        "contentType": "application/gzip",
        "tags": tags(),
    }
    pointer = seen.inputs("Parameter", "vault-pointer")
    assert json.loads(pointer.pop("value")) == {
        "bucket": "vault-bucket-id",
        "key": "releases/d1.tar.gz",
        "sha256": "d1",
    }
    assert pointer == {"name": "/drawbridge/dev/release", "type": "String", "tags": tags()}
    assert list(seen.children["Parameter", "vault-report"].ignoreChanges) == ["value"]
    assert set(seen.children) == {
        ("Bucket", "vault-bucket"),
        ("BucketPublicAccessBlock", "vault-private"),
        ("BucketServerSideEncryptionConfiguration", "vault-encrypted"),
        ("BucketPolicy", "vault-tls-only"),
        ("BucketObjectv2", "vault-release"),
        ("Parameter", "vault-pointer"),
        ("Parameter", "vault-report"),
    }


def test_access(declare: Declare) -> None:
    grants = [
        Grant(sid="Secrets", actions=["ssm:GetParameter"], resources=["arn:s/a", "arn:s/b"]),
        Grant(sid="Releases", actions=["s3:GetObject"], resources=["arn:b/releases/*"]),
    ]
    args = AccessArgs(names=NAMES, region="eu-west-1", grants=grants)
    seen = declare(lambda: Access("access", args))
    assert set(seen.children) == {
        ("Role", "access-role"),
        ("RolePolicy", "access-policy"),
        ("InstanceProfile", "access-profile"),
    }
    assert statements(seen.inputs("RolePolicy", "access-policy")["policy"]) == {
        "Secrets": (["ssm:GetParameter"], ["arn:s/a", "arn:s/b"], None),
        "Releases": (["s3:GetObject"], ["arn:b/releases/*"], None),
        "Metrics": (
            ["cloudwatch:PutMetricData"],
            ["*"],
            {"StringEquals": {"cloudwatch:namespace": "Drawbridge/dev"}},
        ),
    }


def test_a_connection_log_is_written_to_by_its_gateway_alone(declare: Declare) -> None:
    def declare_log() -> ConnectionLog:
        log = ConnectionLog("log", ConnectionLogArgs(names=contract.Names("dev", "b"), retention_days=30))
        policy = render_policy(log.grants)
        pulumi.CustomResource("test:index:Policy", "policy", {"json": policy}, pulumi.ResourceOptions(parent=log))
        return log

    seen = declare(declare_log)
    inputs = seen.inputs("LogGroup", "log-group")
    assert (inputs["name"], inputs["retentionInDays"]) == ("/drawbridge/dev/b/connections", 30)
    assert inputs["tags"]["Stack"] == "dev" and "kmsKeyId" not in inputs
    assert statements(seen.inputs("Policy", "policy")["json"]) == {
        "ConnectionLog": (["logs:CreateLogStream", "logs:PutLogEvents"], ["arn:aws:x:::log-group:*"], None),
    }


def statements(policy: str) -> dict[str, tuple[list[str], list[str], Any]]:
    """Return a policy's actions, resources and condition by its statements' names; all of them allow."""
    document = json.loads(policy)["Statement"]
    assert {statement["Effect"] for statement in document} == {"Allow"}
    return {s["Sid"]: (s["Action"], s["Resource"], s.get("Condition")) for s in document}


def test_vault_and_authority_grant_the_gateway_what_it_reads_and_writes(declare: Declare) -> None:
    release = Release(archive=b"abc", sha256="d1")

    def declare_vault() -> Vault:
        vault = Vault("vault", VaultArgs(names=NAMES, region="eu-west-1", release=release, disposable=True))
        policy = render_policy([*vault.grants, vault.kit_grant("alice")])
        pulumi.CustomResource("test:index:Policy", "policy", {"json": policy}, pulumi.ResourceOptions(parent=vault))
        return vault

    def declare_authority(key: str | None = None, bucket: str | None = None) -> Authority:
        profiles = {"alice": ""}
        args = AuthorityArgs(names=NAMES, region="eu-west-1", profiles=profiles, lifetimes={}, key=key, bucket=bucket)
        authority = Authority("authority", args)
        policy = render_policy([*authority.grants, *authority.bundle_grants("alice")])
        pulumi.CustomResource("test:index:Policy", "policy", {"json": policy}, pulumi.ResourceOptions(parent=authority))
        return authority

    value_only = {"StringEquals": {"ssm:Overwrite": "true"}, "StringNotEquals": {"ssm:Policies": "true"}}
    read = ["ssm:GetParameter", "ssm:GetParameters"]
    base = "arn:aws:ssm:eu-west-1:123456789012:parameter/drawbridge/dev"
    assert statements(declare(declare_vault).inputs("Policy", "policy")["json"]) == {
        "Pointer": (read, ["arn:aws:x:::vault-pointer"], None),
        "Report": (["ssm:PutParameter"], ["arn:aws:x:::vault-report"], value_only),
        "Releases": (["s3:GetObject"], ["arn:aws:x:::vault-bucket/releases/*"], None),
        "Kit": (["s3:GetObject"], ["arn:aws:x:::vault-bucket/kits/alice.tar.gz"], None),
    }
    assert statements(declare(declare_authority).inputs("Policy", "policy")["json"]) == {
        "Secrets": (read, [f"{base}/gateway/*"], None),
        "SecretsPath": (["ssm:GetParametersByPath"], [f"{base}/gateway"], None),
        "Bundle": (read, [f"{base}/clients/alice/bundle"], None),
    }
    granted = statements(declare(lambda: declare_authority("arn:key")).inputs("Policy", "policy")["json"])
    of_parameter = "kms:EncryptionContext:PARAMETER_ARN"
    assert {sid: granted[sid] for sid in ("SecretsKey", "BundleKey")} == {
        "SecretsKey": (["kms:Decrypt"], ["arn:key"], {"StringLike": {of_parameter: f"{base}/gateway/*"}}),
        "BundleKey": (["kms:Decrypt"], ["arn:key"], {"StringLike": {of_parameter: f"{base}/clients/alice/bundle"}}),
    }
    granted = statements(declare(lambda: declare_authority("arn:key", "b")).inputs("Policy", "policy")["json"])
    arn = "arn:aws:s3:::b/clients/alice.ovpn"
    assert {sid: granted[sid] for sid in ("Bundle", "BundleKey")} == {
        "Bundle": (["s3:GetObject"], [arn], None),
        "BundleKey": (["kms:Decrypt"], ["arn:key"], {"StringLike": {"kms:EncryptionContext:aws:s3:arn": arn}}),
    }


def test_authority_hands_its_provider_names_and_no_secret(declare: Declare) -> None:
    args = AuthorityArgs(
        names=NAMES,
        region="eu-west-1",
        profiles={"alice": "client\n"},
        lifetimes={"ca": 3, "server": 2, "client": 1},
    )
    seen = declare(lambda: Authority("authority", args))
    given_ = seen.inputs("Certificates", "authority-certificates")
    assert isinstance(given_.pop("__provider"), str)
    assert given_ == {
        "stack": "dev",
        "region": "eu-west-1",
        "account": "123456789012",
        "serverName": "dev.drawbridge",
        "profiles": {"alice": "client\n"},
        "lifetimes": {"ca": 3, "server": 2, "client": 1},
        "owner": "authority-owner-id",
    }
    assert seen.inputs("Parameter", "authority-ssh-host-key")["value"] == "ssh-ed25519 AAAA"
    assert seen.outputs == {
        "clients": {
            "alice": {"bundle": "/drawbridge/dev/clients/alice/bundle", "serial": "17", "notAfter": "2030-01-01"}
        },
        "revoked": {"16": {"client": "bob", "notAfter": "2030-01-01"}},
    }


NETWORK = NetworkArgs(
    names=NAMES,
    region="eu-west-1",
    cidr=NET("10.1.0.0/16"),
    zones=("eu-west-1a",),
    listener=Listener(),
    ssh=False,
    behind=(NET("10.8.0.0/24"),),
)


def test_network(declare: Declare) -> None:
    seen = declare(lambda: Network("network", NETWORK))
    kinds = [kind for kind, _ in seen.children]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Vpc": 1,
        "InternetGateway": 1,
        "Subnet": 2,
        "RouteTable": 2,
        "RouteTableAssociation": 2,
        "Route": 1,
        "VpcEndpoint": 1,
        "NetworkAcl": 2,
        "NetworkAclRule": 12,
        "NetworkAclAssociation": 2,
    }
    subnet = seen.inputs("Subnet", "network-public-0")
    assert (subnet["cidrBlock"], subnet["availabilityZone"]) == ("10.1.0.0/24", "eu-west-1a")
    assert subnet["mapPublicIpOnLaunch"] is False
    assert list(seen.children["Subnet", "network-public-0"].ignoreChanges) == ["availabilityZone"]
    private = {n: seen.inputs(k, n) for k, n in seen.children if k == "NetworkAclRule" and "private" in n}
    assert {n: (r["protocol"], r["cidrBlock"], r["egress"]) for n, r in private.items()} == {
        "network-private-in-90": ("6", "0.0.0.0/0", False),
        "network-private-in-100": ("-1", "10.1.0.0/16", False),
        "network-private-in-101": ("-1", "10.8.0.0/24", False),
        "network-private-out-90": ("6", "0.0.0.0/0", True),
        "network-private-out-100": ("-1", "10.1.0.0/16", True),
        "network-private-out-101": ("-1", "10.8.0.0/24", True),
    }
    association = seen.children["NetworkAclAssociation", "network-private-0"]
    assert len([d for d in association.dependencies if "networkAclRule" in d]) == 6
    assert seen.outputs == {
        "vpcId": "network-vpc-id",
        "publicSubnetId": "network-public-0-id",
        "privateSubnetId": "network-private-0-id",
    }


def test_a_network_with_ipv6(declare: Declare) -> None:
    opened = (SIX("2001:db8::/32"), SIX("2001:dba::/32"))
    seen = declare(lambda: Network("network", replace(NETWORK, ipv6=True, opened6=opened)))
    assert seen.inputs("Vpc", "network-vpc")["assignGeneratedIpv6CidrBlock"] is True
    assert seen.inputs("Subnet", "network-public-0")["ipv6CidrBlock"] == "2001:db8:7::/64"
    assert seen.inputs("Subnet", "network-private-0")["ipv6CidrBlock"] == "2001:db8:7:1::/64"
    ways = {n: seen.inputs(k, n) for k, n in seen.children if k == "Route" and n.endswith("internet6")}
    assert {n: (r.get("gatewayId"), r.get("egressOnlyGatewayId")) for n, r in ways.items()} == {
        "network-public-internet6": ("network-internet-id", None),
        "network-private-internet6": (None, "network-egress-id"),
    }
    plain = declare(lambda: Network("network", NETWORK))
    entries = [n for kind, n in seen.children if kind == "NetworkAclRule" and (kind, n) not in plain.children]
    assert sorted(entries) == sorted(
        [f"network-public-in-{n}" for n in (230, 240, 250, 260, 261)]
        + [f"network-private-in-{n}" for n in (220, 230, 240, 250)]
        + [f"network-{kind}-out-200" for kind in ("public", "private")]
    )
    assert seen.inputs("NetworkAclRule", "network-public-in-250")["icmpType"] == -1
    assert "cidrBlock" not in seen.inputs("NetworkAclRule", "network-public-in-261")
    # Clients reach private hosts on every port, so not only on those of replies.
    own = seen.inputs("NetworkAclRule", "network-private-in-220")
    assert (own["protocol"], own["ipv6CidrBlock"], own["egress"]) == ("-1", "2001:db8:7::/56", False)
    assert "cidrBlock" not in own


@pytest.mark.parametrize(("protocol", "number"), [("udp", "17"), ("tcp", "6")])
def test_the_acl_lets_the_tunnel_in(declare: Declare, protocol: Literal["udp", "tcp"], number: str) -> None:
    seen = declare(lambda: Network("network", replace(NETWORK, listener=Listener(protocol, (443, 444)))))
    rule = seen.inputs("NetworkAclRule", "network-public-in-110")
    assert (rule["protocol"], rule["fromPort"], rule["toPort"]) == (number, 443, 444)


def test_ssh_opens_its_port_in_the_acl_and_moves_no_other_rule(declare: Declare) -> None:
    def names(args: NetworkArgs) -> set[str]:
        return {n for kind, n in declare(lambda: Network("network", args)).children if kind == "NetworkAclRule"}

    assert names(replace(NETWORK, ssh=True)) - names(NETWORK) == {"network-public-in-120"}


def test_an_existing_vpc_is_left_as_it_is(declare: Declare) -> None:
    existing = ExistingVpc(
        vpc_id="vpc-1", subnet_id="subnet-1", route_table_ids=("rtb-1",), cidrs=(NET("172.20.0.0/16"),), cidr6=None
    )
    networks: list[Network] = []
    args = replace(NETWORK, existing=existing)
    seen = declare(lambda: networks.append(Network("network", args)) or networks[0])  # type: ignore[func-returns-value]
    assert seen.children == {}
    assert (networks[0].cidrs, networks[0].route_tables) == ((NET("172.20.0.0/16"),), {"rtb-1": "rtb-1"})
