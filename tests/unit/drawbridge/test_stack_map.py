"""`drawbridge map`: the drawing says what the settings say, and no text is cut or covered by another."""

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from drawbridge.commands.root import cli
from drawbridge.operate.stack_files import find_stack_file
from drawbridge.operate.stack_map import find_reaches, render_map
from drawbridge.operate.svg import BOLD, REGULAR
from openvpn.addressing import segment_addresses
from program.tunnel import tunnel_from_settings
from settings.model import Settings
from settings.parse import parse
from settings.stack_file import read_stack_file
from tests.support.sources import ROOT
from tests.unit.drawbridge.test_root import SLOW, imported_by

PICTURES = ROOT / "docs" / "pictures"
WORLDS = ("bonded", "bridge", "ipv6", "lab", "pair", "ros2", "site", "tenant")
SVG = "{http://www.w3.org/2000/svg}"


def settings(stack: str = "dev", **sections: Any) -> Settings:
    raw = {f"drawbridge:{name}": value for name, value in sections.items()}
    return parse({"aws:region": "eu-west-1", **raw}, stack=stack, endpoint="http://127.0.0.1")


def world(stack: str) -> Settings:
    return parse(read_stack_file(find_stack_file(stack)), stack=stack, endpoint="http://127.0.0.1")


LARGE = settings(
    network={"zones": 3, "privatePrefix": 20, "domain": "*.example.internal"},
    gateway={"hostname": f"vpn.{'long-name.' * 8}example.com"},
    tunnel={"redirect": "all", "ipv6": "delegated", "openTo": ["::/0", "2001:db8::/32"]},
    clients=[{"name": f"{'x' * 50}-{number}", "system": "ios"} for number in range(40)],
)
EXISTING = settings(
    network={
        "vpcId": "vpc-0123456789abcdef0",
        "subnetId": "subnet-0123456789abcdef0",
        "routeTableIds": [f"rtb-0123456789abcdef{digit}" for digit in range(3)],
    },
)

#: Drawings by their names: every world's, and two that are large or odd.
STACKS = {**{name: world(name) for name in WORLDS}, "large": LARGE, "existing": EXISTING}


def texts(image: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(image).iter(f"{SVG}text")]


Rectangle = tuple[float, float, float, float]


def text_areas(image: str) -> list[Rectangle]:
    """Return the areas of all texts, as wide as the widest common font draws them."""
    areas = []
    for element in ET.fromstring(image).iter(f"{SVG}text"):
        x, y, size = (float(element.attrib[name]) for name in ("x", "y", "font-size"))
        width = len(element.text or "") * size * (BOLD if "font-weight" in element.attrib else REGULAR)
        areas.append((x, y - size, x + width, y))
    return areas


def box_areas(image: str) -> list[Rectangle]:
    boxes = [element.attrib for element in ET.fromstring(image).iter(f"{SVG}rect") if "x" in element.attrib]
    corners = [tuple(float(box[name]) for name in ("x", "y", "width", "height")) for box in boxes]
    return [(x, y, x + width, y + height) for x, y, width, height in corners]


def overlaps(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def contains(outer: Rectangle, inner: Rectangle) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@pytest.mark.parametrize("name", WORLDS)
def test_pictures_of_the_docs_are_what_the_command_draws(name: str) -> None:
    assert (PICTURES / f"{name}.svg").read_text() == render_map(STACKS[name]), f"drawbridge map {name} -o docs/pictures"


def test_every_picture_is_of_a_world() -> None:
    assert {path.stem for path in PICTURES.glob("*.svg") if not path.stem.startswith("benchmarks-")} == set(WORLDS)


@pytest.mark.parametrize("name", STACKS)
def test_no_text_is_cut_or_covered(name: str) -> None:
    image = render_map(STACKS[name])
    root = ET.fromstring(image)
    areas, boxes = text_areas(image), box_areas(image)
    paper = (0.0, 0.0, float(root.attrib["width"]), float(root.attrib["height"]))
    assert all(contains(paper, area) for area in [*areas, *boxes])
    assert not [pair for pair in itertools.combinations(areas, 2) if overlaps(*pair)]
    crossed = [(area, box) for area in areas for box in boxes if overlaps(area, box) and not contains(box, area)]
    assert not crossed
    assert all(
        contains(first, second) or contains(second, first) or not overlaps(first, second)
        for first, second in itertools.combinations(boxes, 2)
    )


@pytest.mark.parametrize("name", STACKS)
def test_a_screen_reader_gets_title_and_description(name: str) -> None:
    image, stack = render_map(STACKS[name]), STACKS[name]
    root = ET.fromstring(image)
    assert root.attrib["role"] == "img" and root.attrib["aria-labelledby"] == "title description"
    assert root.findtext(f"{SVG}title") == f"Stack {stack.stack} in eu-west-1"
    description = root.findtext(f"{SVG}desc") or ""
    assert all(client.name in description for client in stack.clients)
    assert all(f"{reach.source} to {reach.destination}: {reach.how}." in description for reach in find_reaches(stack))


@pytest.mark.parametrize("name", ["ros2", "ipv6", "bridge", "bonded"])
def test_addresses_on_a_segment_are_those_that_the_gateway_gives(name: str) -> None:
    lines = texts(render_map(STACKS[name]))
    for address in segment_addresses(tunnel_from_settings(STACKS[name])).values():
        assert f"tunnel address {address}" in lines


def reaches(**sections: Any) -> list[tuple[str, str, str]]:
    rows = find_reaches(settings(clients=[{"name": "alice"}], **sections))
    return [(reach.source, reach.destination, reach.how) for reach in rows]


def test_who_reaches_whom() -> None:
    to_vpc = ("clients", "VPC 10.1.0.0/16", "seen as the gateway's address")
    assert reaches() == [to_vpc]
    assert reaches(tunnel={"vpc": False}) == []
    assert reaches(tunnel={"vpc": False, "clientToClient": True}) == [("clients", "clients", "through the gateway")]
    assert reaches(tunnel={"nat": False}) == [("clients", "VPC 10.1.0.0/16", "by their own addresses")]
    assert reaches(tunnel={"redirect": "all"}) == [
        to_vpc,
        ("clients", "the Internet", "seen as the gateway's Elastic IP"),
    ]
    assert reaches(tunnel={"routes": ["10.9.0.0/16"]}) == [
        to_vpc,
        ("clients", "10.9.0.0/16", "seen as the gateway's address"),
    ]
    assert reaches(tunnel={"ipv6": "delegated", "openTo": ["2001:db8::/32"]})[1:] == [
        ("clients", "the VPC's IPv6 range", "by their own global addresses"),
        ("2001:db8::/32", "clients", "by their global IPv6 addresses"),
    ]


def test_a_site_is_reached_where_its_file_says() -> None:
    rows = [(reach.source, reach.destination) for reach in find_reaches(STACKS["site"])]
    assert ("VPC 10.1.0.0/23", "192.168.1.128/25") in rows
    assert "AWS reaches 192.168.1.128/25" in texts(render_map(STACKS["site"]))


def test_clients_beyond_those_drawn_are_counted() -> None:
    assert "and 29 more clients" in texts(render_map(LARGE))


def test_the_command_writes_a_file_or_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "lab.svg"
    written = CliRunner().invoke(cli, ["map", "lab", "-o", str(path)])
    printed = CliRunner().invoke(cli, ["map", "lab"])
    assert (written.exit_code, written.output, printed.exit_code) == (0, "", 0)
    assert path.read_text() == printed.output == render_map(STACKS["lab"])


def test_a_wrong_file_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "Pulumi.dev.yaml", tmp_path / "dev.svg"
    source.write_text("config: {aws:region: eu-west-1, tunnel: {port: 0}}")
    result = CliRunner().invoke(cli, ["map", str(source), "-o", str(target)])
    assert result.exit_code == 1 and "drawbridge:tunnel.port: 0 is too small" in result.stderr
    assert not target.exists()


@pytest.mark.allow_subprocess
def test_it_imports_no_slow_library(tmp_path: Path) -> None:
    assert imported_by("map", "lab", "-o", str(tmp_path / "lab.svg")) & SLOW == set()
