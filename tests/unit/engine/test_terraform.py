"""The Terraform AWS provider, of whose code Pulumi's is made, deploys a stack's resources with the same calls as ours.

Skipped where no `terraform` is on PATH or its AWS provider is in no local directory; nothing is downloaded. Does not
prove anything of `primary_network_interface`, which provider 5 does not know, nor of Route 53: moto's private zones
list no VPC, so that provider plans a change for ever.
"""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.core.responses import ActionResult
from moto.ec2.models.instances import InstanceBackend
from moto.iam.responses import IamResponse

from engine.provider.values import Props
from lab.api import moto_patches
from lab.api.moto_state import detach_terminated_interfaces
from tests.support.aws_calls import Recorder, recording_server
from tests.unit.engine.stack_resources import CHANGES, REGION, RESOURCES
from tests.unit.engine.test_provider_calls import READS, RECORDED

PLUGINS = [
    Path(directory)
    for directory in (
        os.environ.get("TERRAFORM_PLUGIN_DIR", ""),
        Path.home() / ".terraform.d/plugins",
        "/usr/local/share/terraform/plugins",
        "/usr/share/terraform/plugins",
    )
    if directory and any(Path(directory).glob("registry.terraform.io/hashicorp/aws/*"))
]
"""Directories that Terraform's "Provider Installation" page names for local copies, and one of the tester's own."""

pytestmark = [
    pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform on PATH"),
    pytest.mark.skipif(not PLUGINS, reason="no local copy of Terraform's AWS provider (TERRAFORM_PLUGIN_DIR)"),
    pytest.mark.allow_subprocess,  # the real provider is a program of its own
]

BLOCKS = {"rules": "rule", "networkInterfaces": "network_interface", "vpcs": "vpc"}
"""Inputs whose Terraform name is a block's singular."""

RENAMED = {
    "cloudwatch/metricAlarm:MetricAlarm": {"name": "alarm_name"},
    "sns/topicSubscription:TopicSubscription": {"topic": "topic_arn"},
}
"""Inputs to which Pulumi gives another name, by type."""

MAPS = ("tags", "dimensions")
"""Inputs that are maps, where other objects are blocks."""


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def terraform_type(token: str) -> str:
    """Return Terraform's type of one of Pulumi's: EC2's have no module in it, nor has the VPC in most."""
    module, _, rest = token.partition("/")
    name = snake(rest.partition(":")[0])
    if module == "vpc":
        return f"aws_vpc_{name}"
    return (
        "aws_s3_object" if name == "bucket_objectv2" else f"aws_{name}" if module == "ec2" else f"aws_{module}_{name}"
    )


def terraform_value(value: Any, name: str = "") -> Any:
    """Return an input as Terraform's JSON syntax has it: a nested object is a block, a list of one."""
    if isinstance(value, dict):
        if name in MAPS:
            return value
        return [terraform_block(value)]
    if isinstance(value, list):
        return [terraform_block(item) if isinstance(item, dict) else terraform_value(item) for item in value]
    if isinstance(value, str) and (reference := re.fullmatch(r"=(\w+?)(?:\.(\w+))?", value)):
        target = terraform_type(RESOURCES[reference[1]][0])
        return f"${{{target}.{reference[1]}.{snake(reference[2] or 'id')}}}"
    return value.replace("${", "$${") if isinstance(value, str) else value


def terraform_block(inputs: Props, token: str = "") -> Props:
    names = BLOCKS | RENAMED.get(token, {})
    return {names.get(key, snake(key)): terraform_value(value, key) for key, value in inputs.items()}


def configuration(changes: dict[str, Props]) -> Props:
    """Return the stack's resources as a Terraform configuration in JSON."""
    resources: dict[str, dict[str, Props]] = {}
    for name, (token, inputs) in RESOURCES.items():
        resources.setdefault(terraform_type(token), {})[name] = terraform_block(
            {**inputs, **changes.get(name, {})}, token
        )
    provider = {"region": REGION, "access_key": "testing", "secret_key": "testing", "s3_use_path_style": True}
    return {
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
        "provider": {"aws": {**provider, "skip_metadata_api_check": True, "max_retries": 2}},
        "resource": resources,
    }


class Terraform:
    """Runs Terraform in a directory against a recorded AWS API."""

    def __init__(self, directory: Path, url: str, recorder: Recorder) -> None:
        self.directory, self.recorder = directory, recorder
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("TF_", "AWS_"))},
            "AWS_ENDPOINT_URL": url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CHECKPOINT_DISABLE": "1",
        }

    def run(self, *arguments: str) -> tuple[int, str, Counter[str]]:
        """Return exit status, output and the calls that were made."""
        self.recorder.calls.clear()
        ended = subprocess.run(
            ["terraform", *arguments, "-no-color"],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr, Counter(map(str, self.recorder.calls))

    def write(self, changes: dict[str, Props]) -> None:
        (self.directory / "main.tf.json").write_text(json.dumps(configuration(changes)))


@pytest.fixture
def terraform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terraform]:
    terminate = InstanceBackend.terminate_instances

    def terminate_and_detach(backend: Any, instance_ids: list[str]) -> Any:
        """Free a terminated instance's interface, as EC2 does; moto keeps it attached."""
        answer = terminate(backend, instance_ids)
        detach_terminated_interfaces(REGION)
        return answer

    monkeypatch.setattr(InstanceBackend, "terminate_instances", terminate_and_detach)
    # The provider asks before it deletes a user; moto has no such call.
    answer = ActionResult({"ServiceSpecificCredentials": []})
    monkeypatch.setattr(IamResponse, "list_service_specific_credentials", lambda _: answer, raising=False)
    with moto_patches.patched(), recording_server() as (url, recorder):
        run = Terraform(tmp_path, url, recorder)
        run.write({})
        status, output, _ = run.run("init", f"-plugin-dir={PLUGINS[0]}")
        assert status == 0, output
        yield run


def recorded(phase: str) -> Counter[str]:
    return Counter(call for phases in RECORDED.values() for call in phases.get(phase, ()))


def test_terraforms_provider_makes_the_recorded_calls(terraform: Terraform) -> None:
    """Only `plan` reads the resources again before it works, because Pulumi does not either."""
    status, output, calls = terraform.run("apply", "-auto-approve", "-refresh=false")
    assert status == 0, output
    assert calls == recorded("create")
    status, output, calls = terraform.run("plan", "-detailed-exitcode")
    assert (status, calls) == (0, Counter()), output  # 2: it would change something
    terraform.write(dict(CHANGES))
    status, output, calls = terraform.run("apply", "-auto-approve", "-refresh=false")
    assert status == 0, output
    assert calls == recorded("update")
    status, output, calls = terraform.run("destroy", "-auto-approve", "-refresh=false")
    assert status == 0, output
    assert calls == recorded("delete")
    assert sorted(terraform.recorder.reads) == READS
