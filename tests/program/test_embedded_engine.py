"""The whole program under the embedded engine, on moto: what its state holds, and that nothing is left.

Does not prove what Pulumi's own engine keeps (tests/program/test_pulumi_cli.py does), nor anything about a machine.
"""

import base64
import json
from pathlib import Path
from typing import Any

import boto3
import yaml

from engine.engine import Engine, Event
from engine.provider.values import plain
from engine.state import Store

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "stacks" / "Pulumi.lab.yaml").read_text())["config"]


def test_the_program_comes_changes_and_goes_without_a_key_in_sight(endpoint: str, tmp_path: Path) -> None:
    events: list[Event] = []
    store = tmp_path / "state.json"

    def engine(config: dict[str, Any]) -> Engine:
        return Engine(ROOT, project="drawbridge", stack="lab", config=config, state=store, events=events.append)

    first = engine(CONFIG).up()
    assert engine(CONFIG).up().changes["same"] == first.changes["create"]
    second = engine({**CONFIG, "drawbridge:clients": [{"name": "bob"}]}).up()
    assert set(second.outputs["clients"]) == {"bob"}

    ec2, ssm = boto3.client("ec2"), boto3.client("ssm")
    key = ssm.get_parameter(Name="/drawbridge/lab/gateway/server.key", WithDecryption=True)["Parameter"]["Value"]
    assert "PRIVATE KEY" in key  # control: the words that are looked for are there to be found
    instance = first.outputs["gatewayInstanceId"]
    user_data = ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
    entries = [plain(entry.inputs | entry.outputs) for entry in Store(store).load().entries]
    seen = {
        "state": store.read_text(),
        "what the state has sealed": json.dumps(entries),
        "providers in the state": " ".join(
            base64.b64decode(entry["__provider"]).decode("latin-1") for entry in entries if "__provider" in entry
        ),
        "outputs": json.dumps([first.outputs, second.outputs]),
        "user data": base64.b64decode(user_data).decode(),
        "events": " ".join(event.text for event in events),
    }
    body = "".join(key.splitlines()[1:2])
    found = [place for place, text in seen.items() if "PRIVATE KEY" in text or body in text]
    assert found == []
    assert all(seen.values())

    engine(CONFIG).destroy()
    left = [p["Name"] for p in ssm.describe_parameters()["Parameters"] if not p["Name"].startswith("/aws/")]
    assert (left, list(tmp_path.iterdir()), boto3.client("s3").list_buckets()["Buckets"]) == ([], [], [])
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    assert ec2.describe_addresses()["Addresses"] == []
