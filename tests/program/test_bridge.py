"""What the program makes of world `bridge`. Frames: see tests/lab/worlds/test_bridge.py."""

from collections.abc import Iterator

import pytest

import contract
from settings.stack_file import read_stack_file
from tests.program.conftest import ROOT, Deployment, deploy_into_moto, empty_aws
from tests.program.test_worlds import archive

NAMES = contract.Names("bridge")


@pytest.fixture(scope="module")
def bridge() -> Iterator[Deployment]:
    with empty_aws():
        yield deploy_into_moto(read_stack_file(ROOT / "stacks/Pulumi.bridge.yaml"), "bridge")


def test_the_kit_makes_the_bridge_before_the_tunnel_and_holds_no_secret(bridge: Deployment) -> None:
    files = archive(bridge, NAMES.kit_key("home"))

    assert files["units"].split() == [
        "drawbridge-site.service",
        "drawbridge-bridge.service",
        "openvpn-client@home.service",
    ]
    assert files["bundles"] == "home /drawbridge/bridge/clients/home/bundle\n"
    assert {"hook", "remove", "root/usr/local/lib/drawbridge/bridge.py"} <= files.keys()
    assert "10.1.0.0/16 via 192.168.1.193" in files["hints"]
    assert not any("PRIVATE KEY" in text or "-----BEGIN" in text for text in files.values())


def test_the_gateway_serves_the_lans_largest_frames_and_asks_for_its_hosts(bridge: Deployment) -> None:
    files = archive(bridge, NAMES.release_key(bridge.outputs["release"]))
    (config,) = (text for path, text in files.items() if path.endswith("server.conf"))

    assert {"tun-mtu 1500", "mtu-disc no"} <= set(config.splitlines())
    assert "bridge=home" in files["root/etc/drawbridge/members"].splitlines()


def test_aws_reaches_what_is_declared_and_no_more(bridge: Deployment) -> None:
    tables = bridge.ec2.describe_route_tables()["RouteTables"]
    to_gateway = [
        route["DestinationCidrBlock"]
        for table in tables
        for route in table["Routes"]
        if route.get("NetworkInterfaceId") == bridge.outputs["gatewayInterfaceId"]
    ]
    assert set(to_gateway) == {"192.168.1.128/27"}
