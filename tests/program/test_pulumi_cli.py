"""The whole program under Pulumi's own engine, against the lab's provider: same steps, same AWS as the embedded engine.

Runs where `pulumi` is on PATH. Does not prove that AWS accepts anything: the provider is the lab's, the AWS is moto.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from engine.engine import Engine
from settings.stack_file import read_stack_file

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"
STACK = "lab"
WORLDS = [path.suffixes[0].removeprefix(".") for path in sorted(ROOT.glob("stacks/Pulumi.*.yaml"))]

pytestmark = pytest.mark.skipif(
    shutil.which("pulumi") is None,
    reason="no pulumi on PATH: Pulumi's own engine is not compared with the embedded one",
)

#: A client's public address.
HOME = "203.0.113.77"

#: Serves moto with the lab's public images on a free port of loopback, and prints its URL.
SERVER = """
import logging, sys, threading
from moto.server import ThreadedMotoServer
from lab.api.moto_patches import apply
from lab.api.moto_state import publish_images
logging.getLogger("werkzeug").setLevel(logging.ERROR)
publish_images(sys.argv[1])
apply()
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
threading.Event().wait()
"""


@dataclass(frozen=True)
class Region:
    """An AWS on loopback, in a process of its own."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **keys)  # type: ignore[call-overload]

    def inventory(self) -> dict[str, Any]:
        """What the program made, without what differs from one deployment to the next: ids, keys, times."""
        ec2, iam, ssm, s3 = (self.client(name) for name in ("ec2", "iam", "ssm", "s3"))
        vpcs = {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]}
        own = [{"Name": "vpc-id", "Values": sorted(vpcs)}] if vpcs else [{"Name": "vpc-id", "Values": ["none"]}]
        groups = [g["GroupId"] for g in ec2.describe_security_groups(Filters=own)["SecurityGroups"]]
        rules = [r for r in ec2.describe_security_group_rules()["SecurityGroupRules"] if r["GroupId"] in groups]
        instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        return {
            "vpcs": len(vpcs),
            "subnets": sorted(s["CidrBlock"] for s in ec2.describe_subnets(Filters=own)["Subnets"]),
            "rules": sorted(
                (r["IsEgress"], r["IpProtocol"], r.get("FromPort", -1), r.get("CidrIpv4", "")) for r in rules
            ),
            "routes": sorted(
                (r.get("DestinationCidrBlock", ""), r.get("GatewayId", "").split("-")[0])
                for table in ec2.describe_route_tables(Filters=own)["RouteTables"]
                for r in table["Routes"]
            ),
            "acls": sorted(
                (e["Egress"], e["RuleNumber"], e["Protocol"], e["RuleAction"], e.get("CidrBlock", ""))
                for acl in ec2.describe_network_acls(Filters=own)["NetworkAcls"]
                for e in acl["Entries"]
            ),
            "interfaces": sorted(
                (n["SourceDestCheck"], n["Status"]) for n in ec2.describe_network_interfaces()["NetworkInterfaces"]
            ),
            "addresses": len(ec2.describe_addresses()["Addresses"]),
            "instances": sorted(i["InstanceType"] for i in instances if i["State"]["Name"] == "running"),
            "roles": sorted(role["RoleName"].rsplit("-", 1)[0] for role in iam.list_roles()["Roles"]),
            "parameters": sorted(
                (re.sub(r"\d{9,}", "SERIAL", p["Name"]), p["Type"])
                for page in ssm.get_paginator("describe_parameters").paginate()
                for p in page["Parameters"]
                if not p["Name"].startswith("/aws/")
            ),
            "objects": sorted(
                re.sub(r"[0-9a-f]{64}", "SHA256", o["Key"])
                for b in buckets
                for o in s3.list_objects_v2(Bucket=b).get("Contents", [])
            ),
        }


@pytest.fixture
def regions() -> Iterator[tuple[Region, Region]]:
    """Two empty AWS, one for each engine."""
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", SERVER, REGION],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        first, second = (Region(server.stdout.readline().strip()) for server in servers if server.stdout)
        yield first, second
    finally:
        for server in servers:
            server.terminate()
            server.communicate(timeout=30)


class Cli:
    """The CLI with home, backend and stack files of its own; the checkout is not written to."""

    def __init__(self, directory: Path, region: Region, config: Mapping[str, object], stack: str = STACK) -> None:
        self.program = directory / "program"
        self.program.mkdir()
        for path in ROOT.iterdir():
            if path.name in {"stacks", "tests", ".git", "Pulumi.yaml"} or path.name.endswith("_cache"):
                continue
            (self.program / path.name).symlink_to(path)
        project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        # The tests' own interpreter, wherever its environment is.
        project["runtime"] = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (self.program / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (self.program / "stacks").mkdir()
        self.stack_file = self.program / "stacks" / f"Pulumi.{stack}.yaml"
        self.configure(config)
        backend = directory / "backend"
        backend.mkdir()
        self.environment = {
            **os.environ,
            **region.environment,
            "PATH": f"{ROOT / 'engine' / 'plugin'}:{os.environ['PATH']}",
            "PULUMI_HOME": str(directory / "home"),
            "PULUMI_BACKEND_URL": backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "testing",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }

    def configure(self, config: Mapping[str, object]) -> None:
        """Write the stack's configuration; what the CLI keeps in the file stays."""
        kept = yaml.safe_load(self.stack_file.read_text()) if self.stack_file.exists() else {}
        self.stack_file.write_text(yaml.safe_dump({**kept, "config": dict(config)}))

    def run(self, *arguments: str) -> str:
        ended = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.program,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


def changed(summary: str) -> dict[str, int]:
    """Read the closing summary of an `up` or a `preview`: what was updated and replaced."""
    closing = summary[summary.rindex("Resources:") :]
    words = {"update": r"~ (\d+) (?:to update|updated)", "replace": r"\+-\s*(\d+) (?:to replace|replaced)"}
    found = {name: re.search(pattern, closing) for name, pattern in words.items()}
    return {name: int(match[1]) if match else 0 for name, match in found.items()}


def test_both_engines_do_the_same(
    tmp_path: Path, regions: tuple[Region, Region], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = regions
    config = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{STACK}.yaml").read_text())["config"]
    other = {**config, "drawbridge:clients": [{"name": "bob"}]}
    for name, value in ours.environment.items():
        monkeypatch.setenv(name, value)

    def embedded(config: Mapping[str, object]) -> Engine:
        state = tmp_path / "embedded" / "state.json"
        return Engine(ROOT, project="drawbridge", stack=STACK, config=config, state=state)

    cli = Cli(tmp_path, theirs, config)
    cli.run("stack", "init", STACK)
    cli.run("preview")
    embedded(config).preview()
    assert theirs.inventory() == ours.inventory() == {**ours.inventory(), "vpcs": 0, "parameters": []}

    cli.run("up", "--yes", "--skip-preview")
    first = embedded(config).up()
    assert ours.inventory()["vpcs"] == 1
    assert theirs.inventory() == ours.inventory()
    outputs = json.loads(cli.run("stack", "output", "--json"))
    assert outputs.keys() == first.outputs.keys()
    assert outputs["release"] == first.outputs["release"]

    cli.run("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert embedded(config).up().changes["same"] == first.changes["create"]

    cli.configure(other)
    promised, done = changed(cli.run("preview")), changed(cli.run("up", "--yes", "--skip-preview"))
    mine, result = embedded(other).preview().changes, embedded(other).up().changes
    assert promised == {name: mine[name] for name in promised}
    assert done == {name: result[name] for name in done}
    assert sum(done.values()) > 0
    assert theirs.inventory() == ours.inventory()
    assert "PRIVATE KEY" not in cli.run("stack", "export")

    cli.run("destroy", "--yes", "--skip-preview")
    embedded(other).destroy()
    assert theirs.inventory() == ours.inventory() == {**ours.inventory(), "vpcs": 0, "parameters": [], "objects": []}


def new_client(config: Mapping[str, Any]) -> dict[str, str]:
    """Return one more client of a stack; it has an address where the tunnel is open to no range."""
    is_closed = config["drawbridge:gateway"].get("allowFrom") == []
    return {"name": "zoe", **({"at": HOME} if is_closed else {})}


@pytest.mark.parametrize("stack", WORLDS)
def test_a_world_is_created_kept_refreshed_changed_and_destroyed(
    stack: str, tmp_path: Path, regions: tuple[Region, Region]
) -> None:
    region, _ = regions
    config = read_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml")
    empty = region.inventory()
    cli = Cli(tmp_path, region, config, stack)
    cli.run("stack", "init", stack)
    cli.run("up", "--yes", "--skip-preview")
    deployed = region.inventory()
    assert deployed != empty
    cli.run("up", "--yes", "--skip-preview", "--expect-no-changes")
    cli.run("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    assert region.inventory() == deployed
    if "drawbridge:pair" not in config:  # The gateways of a pair have no clients.
        cli.configure({**config, "drawbridge:clients": [*config["drawbridge:clients"], new_client(config)]})
        cli.run("up", "--yes", "--skip-preview")
        more = region.inventory()
        assert more["instances"] == deployed["instances"]
        assert len(more["parameters"]) > len(deployed["parameters"])
    cli.run("destroy", "--yes", "--skip-preview")
    assert region.inventory() == empty


def test_pulumi_new_copies_the_program(tmp_path: Path, regions: tuple[Region, Region]) -> None:
    template, copy = tmp_path / "template", tmp_path / "copy"
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, template / name)
    cli = Cli(tmp_path, regions[0], {})
    cli.run("new", str(template), "--generate-only", "--yes", "--name", "copied", "--dir", str(copy))
    project = yaml.safe_load((copy / "Pulumi.yaml").read_text())
    assert (project["name"], project["stackConfigDir"]) == ("copied", "stacks")
    assert (copy / "__main__.py").is_file()
    assert (copy / "stacks" / "Pulumi.lab.yaml").is_file()


def test_a_stack_file_may_lie_in_another_directory(tmp_path: Path, regions: tuple[Region, Region]) -> None:
    config = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{STACK}.yaml").read_text())["config"]
    cli = Cli(tmp_path, regions[0], config)
    cli.run("stack", "init", STACK)
    stack_file = tmp_path / "Pulumi.mine.yaml"
    cli.stack_file.rename(stack_file)
    preview = cli.run("preview", "--cwd", str(cli.program), "--config-file", str(stack_file), "--stack", STACK)
    assert "aws:ec2:Instance" in preview
