"""Test the provider's other interfaces: the SDK's mocks, Pulumi's provider protocol, and the executable.

Does not prove that Pulumi's engine is content with them: tests/program/test_pulumi_cli.py does, where there is one.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest
from moto import mock_aws
from pulumi.provider.experimental import provider as protocol
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime import mocks

from engine.provider.mocks import ProviderMocks
from engine.provider.plugin import AwsPlugin, from_wire, sdk_map, to_wire, wire_map
from engine.provider.resource_type import ProviderError
from engine.provider.values import UNKNOWN, comparable, fingerprint, from_sdk, has_secret, has_unknown, plain, secret

REGION = "eu-west-1"
PLUGIN = Path(__file__).parents[3] / "engine" / "plugin" / "pulumi-resource-aws"
VPC = "aws:ec2/vpc:Vpc"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS in this process."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def asked(type: str, inputs: dict[str, Any], *, custom: bool = True) -> mocks.MockResourceArgs:
    return mocks.MockResourceArgs(typ=type, name="thing", inputs=inputs, custom=custom)


@pytest.mark.usefixtures("aws")
def test_mocks_make_the_real_thing_and_keep_secrets_secret() -> None:
    own = ProviderMocks(REGION, project="demo")
    id, outputs = own.new_resource(asked(VPC, {"cidrBlock": "10.1.0.0/16"}))
    assert boto3.client("ec2").describe_vpcs(VpcIds=[str(id)])["Vpcs"][0]["CidrBlock"] == outputs["cidrBlock"]
    inputs = {"name": "/p", "type": "SecureString", "value": secret("x")}
    _, outputs = own.new_resource(asked("aws:ssm/parameter:Parameter", inputs))
    assert (outputs["value"], outputs["type"]) == (secret("x"), "SecureString")
    assert [(kind, id) for kind, _, id, _ in own.created][1] == ("aws:ssm/parameter:Parameter", "/p")
    assert own.new_resource(asked("demo:index:Net", {"a": 1}, custom=False)) == ("", {"a": 1})


@pytest.mark.usefixtures("aws")
def test_mocks_take_assets_and_refuse_what_they_do_not_know() -> None:
    own = ProviderMocks(REGION, project="demo")
    own.new_resource(asked("aws:s3/bucket:Bucket", {"bucket": "bucket"}))
    own.new_resource(
        asked(
            "aws:s3/bucketObjectv2:BucketObjectv2",
            {"bucket": "bucket", "key": "k", "source": pulumi.StringAsset("text")},
        )
    )
    assert boto3.client("s3").get_object(Bucket="bucket", Key="k")["Body"].read() == b"text"
    with pytest.raises(ProviderError, match="does not know the input typo"):
        own.new_resource(asked(VPC, {"typo": 1}))
    with pytest.raises(ProviderError, match="neither an AWS type nor a dynamic resource"):
        own.new_resource(asked("random:index:RandomId", {}))
    with pytest.raises(ProviderError, match="does not know this function"):
        own.call(mocks.MockCallArgs(token="aws:ec2/getMoon:getMoon", args={}, provider=""))
    who, _ = own.call(mocks.MockCallArgs("aws:index/getCallerIdentity:getCallerIdentity", {}, ""))
    assert who["accountId"] == "123456789012"


def test_mocks_in_a_preview_make_nothing() -> None:
    id, outputs = ProviderMocks(REGION, project="demo", preview=True).new_resource(
        asked(VPC, {"cidrBlock": "10.1.0.0/16"})
    )
    assert (id, outputs) == ("", {"cidrBlock": "10.1.0.0/16"})


def test_values_cross_the_wire_and_back() -> None:
    value = {"text": "a", "n": 1, "yes": True, "list": [1, {"deep": secret("s")}], "later": UNKNOWN}
    crossed = wire_map(sdk_map(value))
    assert crossed == value
    assert to_wire(from_wire(secret([1]))) == secret([1])
    assert (has_secret(value), has_unknown(value)) == (True, True)
    assert plain(value)["list"][1] == {"deep": "s"}
    assert wire_map({"gone": PropertyValue.null()}) == {}


def test_an_asset_is_compared_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("one")
    before = fingerprint({"source": from_sdk(pulumi.FileAsset(str(file)))})
    same = fingerprint({"source": from_sdk(pulumi.StringAsset("one"))})
    file.write_text("two")
    after = fingerprint({"source": from_sdk(pulumi.FileAsset(str(file)))})
    assert comparable(before) == comparable(same) != comparable(after)


def urn(type: str, name: str = "thing") -> str:
    return f"urn:pulumi:lab::demo::demo:index:Net${type}::{name}"


@pytest.mark.usefixtures("aws")
def test_the_protocol_carries_a_resource_through_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    # In-process moto answers for AWS's own names only.
    plugin = AwsPlugin("https://ssm.eu-west-1.amazonaws.com")
    where, token = urn("aws:ssm/parameter:Parameter"), "/p"

    async def life() -> None:
        await plugin.configure(protocol.ConfigureRequest({}, sdk_map({"region": REGION}), True, True))
        given = sdk_map({"name": token, "type": "SecureString", "value": secret("one")})
        checked = await plugin.check(protocol.CheckRequest(where, {}, given, b""))
        assert checked.failures is None
        assert checked.inputs is not None
        wrong = await plugin.check(protocol.CheckRequest(where, {}, sdk_map({"typo": 1}), b""))
        assert wrong.failures is not None
        assert "does not know the input typo" in wrong.failures[0].reason
        promised = await plugin.create(protocol.CreateRequest(where, checked.inputs, 0, True))
        assert promised.resource_id == ""
        made = await plugin.create(protocol.CreateRequest(where, checked.inputs, 0, False))
        assert made.resource_id == token
        assert wire_map(made.properties)["value"] == secret("one")
        state = made.properties
        none = await plugin.diff(protocol.DiffRequest(where, token, state, checked.inputs, []))
        assert (none.changes, none.diffs) == (False, [])
        news = {**checked.inputs, "value": from_wire(secret("two"))}
        some = await plugin.diff(protocol.DiffRequest(where, token, state, news, []))
        assert (some.changes, some.diffs, some.replaces) == (True, ["value"], [])
        ignored = await plugin.diff(protocol.DiffRequest(where, token, state, news, ["value"]))
        assert ignored.changes is False
        other = await plugin.diff(
            protocol.DiffRequest(where, token, state, {**checked.inputs, "name": PropertyValue("/q")}, [])
        )
        assert other.replaces == ["name"]
        updated = await plugin.update(protocol.UpdateRequest(where, token, state, news, 0, [], False))
        assert wire_map(updated.properties)["version"] == 2
        read = await plugin.read(protocol.ReadRequest(where, token, updated.properties, news))
        assert read.resource_id == token
        await plugin.delete(protocol.DeleteRequest(where, token, updated.properties, 0))
        gone = await plugin.read(protocol.ReadRequest(where, token, updated.properties, news))
        assert not gone.resource_id

    asyncio.run(life())
    assert boto3.client("ssm").describe_parameters()["Parameters"] == []


@pytest.mark.allow_subprocess  # the executable is the thing under test
@pytest.mark.parametrize(
    ("endpoint", "message"), [("https://example.com", "not loopback"), (None, "AWS_ENDPOINT_URL is not set")]
)
def test_the_plugin_refuses_to_serve_an_endpoint_elsewhere(endpoint: str | None, message: str) -> None:
    extra = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    ended = subprocess.run(
        [PLUGIN, "127.0.0.1:1"], env={**os.environ, **extra}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.allow_subprocess
def test_the_plugin_serves_on_the_port_it_prints() -> None:
    started = subprocess.Popen(
        [PLUGIN, "127.0.0.1:1"],
        env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert int(started.stdout.readline()) > 1024
    finally:
        started.terminate()
        started.communicate(timeout=30)
