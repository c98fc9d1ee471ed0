"""Kill the embedded engine with SIGKILL in the middle of a step: nothing is created twice, nothing is left.

Does not prove anything about a power cut: the state file is not synced to the disk.
"""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.state import Store
from tests.support.aws import Lab

ROOT = Path(__file__).parents[3]

PROGRAM = """
    vpc = aws.ec2.Vpc("net", cidr_block="10.1.0.0/16", enable_dns_hostnames=True, tags={"Name": "only-one"})
    subnet = aws.ec2.Subnet("sub", vpc_id=vpc.id, cidr_block="10.1.0.0/24", tags={"Name": "sub"})
    bucket = aws.s3.Bucket("bucket", bucket="only-one", tags={"a": "b"}, force_destroy=True)
    aws.s3.BucketObjectv2("object", bucket=bucket.id, key="k", content="c")
    pulumi.export("vpc", vpc.id)
"""

CHILD = """
    import os, signal, sys
    from pathlib import Path
    from engine.engine import Engine
    from engine.provider.catalog import Provider
    from engine.provider.vpc import Vpc

    directory, state, where, name, verb = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]

    def dies(original, early):
        def call(self, token, resource, *arguments):
            hit = resource == name
            if hit and early:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = original(self, token, resource, *arguments)
            if hit:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        return call

    method, moment = where.split("-")
    if moment == "middle":
        Vpc.update = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    else:
        setattr(Provider, method, dies(getattr(Provider, method), moment == "before"))
    engine = Engine(directory, project="demo", stack="lab", config={"aws:region": "eu-west-1"}, state=state)
    getattr(engine, verb)()
"""


def killed(lab: Lab, where: str, name: str, verb: str = "up") -> None:
    """Run the engine in a child that kills itself there."""
    arguments = [str(lab.directory), str(lab.state), where, name, verb]
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


@pytest.mark.fault("7.1")
@pytest.mark.allow_subprocess  # only a process of its own can be killed
@pytest.mark.parametrize(
    ("where", "name", "adopted"),
    [
        ("create-before", "net", False),
        ("create-after", "net", True),
        ("create-middle", "net", True),
        ("create-after", "sub", True),
        ("create-after", "bucket", True),
        ("create-after", "object", True),
    ],
)
def test_an_interrupted_creation_is_adopted(lab: Lab, where: str, name: str, adopted: bool) -> None:
    lab.write(PROGRAM)
    killed(lab, where, name)
    assert [entry.name for entry in Store(lab.state).load().pending_operations] == [name]
    result = lab.engine().up()
    assert any("adopted" in event.text for event in lab.events) is adopted
    assert lab.vpcs() == {"10.1.0.0/16": result.outputs["vpc"]}
    assert lab.client("ec2").describe_vpc_attribute(VpcId=result.outputs["vpc"], Attribute="enableDnsHostnames")[
        "EnableDnsHostnames"
    ]["Value"]
    assert lab.engine().up().changes["same"] == 4
    lab.engine().destroy()
    assert (lab.vpcs(), lab.client("s3").list_buckets()["Buckets"]) == ({}, [])


@pytest.mark.fault("7.3")
@pytest.mark.allow_subprocess
def test_destroy_deletes_what_an_interrupted_creation_left(lab: Lab) -> None:
    lab.write(PROGRAM)
    killed(lab, "create-after", "net")
    assert len(lab.vpcs()) == 1
    lab.engine().destroy()
    assert lab.vpcs() == {}


@pytest.mark.fault("7.2")
@pytest.mark.allow_subprocess
@pytest.mark.parametrize("where", ["delete-before", "delete-after"])
def test_an_interrupted_deletion_is_finished(lab: Lab, where: str) -> None:
    lab.write(PROGRAM)
    lab.engine().up()
    killed(lab, where, "sub", "destroy")
    lab.engine().destroy()
    assert (lab.vpcs(), lab.client("s3").list_buckets()["Buckets"]) == ({}, [])


@pytest.mark.fault("7.2")
@pytest.mark.allow_subprocess
def test_an_interrupted_replacement_leaves_no_old_resource(lab: Lab) -> None:
    lab.write(PROGRAM)
    lab.engine().up()
    lab.write(PROGRAM.replace("10.1.0.0/16", "10.1.0.0/20"))
    killed(lab, "delete-before", "net")  # the new one is made, the old one not yet gone
    assert len(lab.vpcs()) == 2
    lab.engine().up()
    assert list(lab.vpcs()) == ["10.1.0.0/20"]
