"""Test the embedded engine on moto: operations, their order, and the state.

Does not prove that Pulumi's own engine does the same (tests/program/test_pulumi_cli.py does), nor that AWS accepts it.
"""

import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pulumi
import pytest

from engine.engine import EngineError, Event, loopback_endpoint
from engine.provider.values import SECRET, SIGNATURE
from engine.state import Entry, Snapshot, Store
from tests.support.aws import Lab

NETWORK = """
    config = pulumi.Config()
    vpc = aws.ec2.Vpc("net", cidr_block=config.get("cidr") or "10.1.0.0/16", tags={"Name": config.get("tag") or "a"})
    subnet = aws.ec2.Subnet("sub", vpc_id=vpc.id, cidr_block="10.1.0.0/24")
    group = aws.ec2.SecurityGroup("group", vpc_id=vpc.id, description="d")
    pulumi.export("vpc", vpc.id)
    pulumi.export("size", subnet.cidr_block.apply(len))
"""

DYNAMIC = """
    from pulumi.dynamic import (
        CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult
    )

    class Provider(ResourceProvider):
        def check(self, olds, news):
            failures = [CheckFailure("size", "too big")] if news["size"] > 9 else []
            return CheckResult(news, failures)
        def diff(self, id, olds, news):
            changed = olds["size"] != news["size"]
            return DiffResult(changes=changed, replaces=["size"] if news["size"] == 5 else [])
        def create(self, props):
            return CreateResult(f"made-{props['size']}", {**props, "told": f"c{props['size']}"})
        def update(self, id, olds, news):
            return UpdateResult({**news, "told": f"u{olds['size']}-{news['size']}"})
        def delete(self, id, props):
            print("deleted", id)

    class Thing(Resource):
        told: pulumi.Output[str]
        def __init__(self, name, size):
            super().__init__(Provider(), name, {"size": size, "told": None})

    thing = Thing("thing", int(pulumi.Config().require("size")))
    pulumi.export("told", thing.told)
"""


def test_up_then_up_again_changes_nothing_and_asks_aws_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(NETWORK)
    first = lab.engine().up()
    assert first.changes == {"create": 3, "update": 0, "replace": 0, "delete": 0, "same": 0}
    assert first.outputs == {"vpc": lab.vpcs()["10.1.0.0/16"], "size": 11}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # nobody listens there
    second = lab.engine().up()
    assert second.changes == {"create": 0, "update": 0, "replace": 0, "delete": 0, "same": 3}
    assert second.outputs == first.outputs == lab.engine().outputs()


def test_preview_promises_what_up_does_and_touches_nothing(lab: Lab) -> None:
    lab.write(NETWORK)
    empty = lab.engine().preview()
    assert (empty.changes["create"], empty.outputs["vpc"], lab.vpcs(), lab.state.exists()) == (3, None, {}, False)
    lab.engine().up()
    before = lab.state.read_bytes()
    for config in ({"tag": "b"}, {"cidr": "10.1.0.0/20"}):
        promised = lab.engine(config).preview()
        assert lab.state.read_bytes() == before
        assert list(lab.vpcs()) == ["10.1.0.0/16"]
        assert promised.changes == {"update": 1, "same": 2, "replace": 0, "create": 0, "delete": 0} or (
            promised.changes == {"replace": 3, "same": 0, "update": 0, "create": 0, "delete": 0}
        )
    assert lab.engine({"cidr": "10.1.0.0/20"}).up().changes == promised.changes


def test_an_updatable_input_is_updated_in_place(lab: Lab) -> None:
    lab.write(NETWORK)
    before = lab.engine().up().outputs["vpc"]
    result = lab.engine({"tag": "b"}).up()
    assert result.changes["update"] == 1
    assert [step.changed for step in result.steps if step.operation == "update"] == [("tags",)]
    found = lab.client("ec2").describe_vpcs(VpcIds=[before])["Vpcs"][0]["Tags"]
    assert found == [{"Key": "Name", "Value": "b"}]


def test_a_replacement_is_made_before_the_old_goes_and_what_needs_it_follows(lab: Lab) -> None:
    lab.write(NETWORK)
    old = lab.engine().up().outputs["vpc"]
    lab.events.clear()
    new = lab.engine({"cidr": "10.1.0.0/20"}).up().outputs["vpc"]
    assert new != old
    assert lab.vpcs() == {"10.1.0.0/20": new}
    assert lab.ended()[0] == ("replace", "net")
    subnets = lab.client("ec2").describe_subnets(Filters=[{"Name": "vpc-id", "Values": [old, new]}])["Subnets"]
    assert [subnet["VpcId"] for subnet in subnets] == [new]


def test_delete_before_replace_takes_dependents_first(lab: Lab) -> None:
    lab.write(
        """
        cidr = pulumi.Config().require("cidr")
        vpc = aws.ec2.Vpc("net", cidr_block=cidr, opts=ResourceOptions(delete_before_replace=True))
        subnet = aws.ec2.Subnet("sub", vpc_id=vpc.id, cidr_block="10.1.0.0/24")
        """
    )
    lab.engine({"cidr": "10.1.0.0/16"}).up()
    lab.events.clear()
    # Were the subnet still there, EC2 would refuse to delete the VPC.
    result = lab.engine({"cidr": "10.1.0.0/20"}).up()
    assert result.changes == {"create": 0, "update": 0, "replace": 2, "delete": 0, "same": 0}
    assert list(lab.vpcs()) == ["10.1.0.0/20"]


def test_what_left_the_program_is_deleted_users_before_used(lab: Lab) -> None:
    lab.write(NETWORK)
    lab.engine().up()
    lab.write("")
    lab.events.clear()
    assert lab.engine().up().changes["delete"] == 3
    assert lab.ended()[-1] == ("delete", "net")
    assert lab.vpcs() == {}


def test_depends_on_orders_making_and_deleting(lab: Lab) -> None:
    lab.write(
        """
        second = aws.ssm.Parameter("a-first", name="/a", type="String", value="1")
        first = aws.ssm.Parameter("b-later", name="/b", type="String", value="1",
                                  opts=ResourceOptions(depends_on=[second]))
        """
    )
    lab.engine().up()
    assert lab.ended() == [("create", "a-first"), ("create", "b-later")]
    lab.engine().destroy()
    assert lab.ended() == [("delete", "b-later"), ("delete", "a-first")]


def test_destroy_leaves_neither_resources_nor_files(lab: Lab) -> None:
    lab.write(NETWORK + "\n    aws.ssm.Parameter('s', name='/s', type='SecureString', value=pulumi.Output.secret('x'))")
    lab.engine().up()
    assert lab.engine().destroy().changes["delete"] == 4
    assert (lab.vpcs(), list(lab.state.parent.iterdir())) == ({}, [])


def test_secrets_are_sealed_in_the_state_and_come_back(lab: Lab) -> None:
    lab.write(
        """
        made = aws.ssm.Parameter("p", name="/p", type="SecureString", value=pulumi.Output.secret("hush-hush"))
        pulumi.export("shown", made.value)
        pulumi.export("name", made.name)
        """
    )
    for _ in range(2):
        result = lab.engine().up()
        assert result.outputs == {"shown": "hush-hush", "name": "/p"}
        assert result.secret_outputs == {"shown"}
    assert result.changes["same"] == 1
    text = lab.state.read_text()
    assert "/p" in text
    assert "hush-hush" not in text
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in lab.state.parent.iterdir()}
    assert modes == {"lab.json": 0o600, "lab.json.key": 0o600}
    (lab.state.parent / "lab.json.key").unlink()
    with pytest.raises(EngineError, match=r"its key .* is missing"):
        lab.engine().up()


def test_ignored_changes_alias_and_protection(lab: Lab) -> None:
    lab.write('aws.ec2.Vpc("old", cidr_block="10.1.0.0/16", tags={"a": "1"}, opts=ResourceOptions(protect=True))')
    lab.engine().up()
    lab.write(
        """
        options = ResourceOptions(ignore_changes=["tags"], aliases=[pulumi.Alias(name="old")], protect=True)
        aws.ec2.Vpc("new", cidr_block="10.1.0.0/16", tags={"a": "2"}, opts=options)
        """
    )
    assert lab.engine().up().changes == {"create": 0, "update": 0, "replace": 0, "delete": 0, "same": 1}
    with pytest.raises(EngineError, match="new is protected"):
        lab.engine().destroy()
    lab.write("")
    with pytest.raises(EngineError, match="new is protected"):
        lab.engine().up()
    assert list(lab.vpcs()) == ["10.1.0.0/16"]


def test_retained_resources_leave_the_state_but_are_not_deleted(lab: Lab) -> None:
    lab.write('aws.ec2.Vpc("net", cidr_block="10.1.0.0/16", opts=ResourceOptions(retain_on_delete=True))')
    lab.engine().up()
    lab.engine().destroy()
    assert list(lab.vpcs()) == ["10.1.0.0/16"]


def test_refresh_makes_anew_what_is_gone(lab: Lab) -> None:
    lab.write(NETWORK)
    lab.engine().up()
    ec2 = lab.client("ec2")
    mine = {"Name": "vpc-id", "Values": [lab.vpcs()["10.1.0.0/16"]]}
    ec2.delete_subnet(SubnetId=ec2.describe_subnets(Filters=[mine])["Subnets"][0]["SubnetId"])
    assert lab.engine().up().changes["same"] == 3  # control: without refresh it is not seen
    assert lab.engine().up(refresh=True).changes == {"create": 1, "update": 0, "replace": 0, "delete": 0, "same": 2}
    assert len(ec2.describe_subnets(Filters=[mine])["Subnets"]) == 1


def test_components_parent_their_children_and_an_invoke_answers(lab: Lab) -> None:
    lab.write(
        """
        class Net(pulumi.ComponentResource):
            def __init__(self, name):
                super().__init__("demo:index:Net", name)
                self.vpc = aws.ec2.Vpc(name, cidr_block="10.1.0.0/16", opts=ResourceOptions(parent=self))
                self.register_outputs({"id": self.vpc.id})
        found = aws.ec2.get_vpc_output(id=Net("net").vpc.id)
        pulumi.export("cidr", found.cidr_block)
        pulumi.export("account", aws.get_caller_identity().account_id)
        """
    )
    assert lab.engine().preview().outputs == {"cidr": None, "account": "123456789012"}
    assert lab.engine().up().outputs == {"cidr": "10.1.0.0/16", "account": "123456789012"}
    entries = {entry.name: entry for entry in Store(lab.state).load().entries if entry.custom}
    assert entries["net"].urn == "urn:pulumi:lab::demo::demo:index:Net$aws:ec2/vpc:Vpc::net"


def test_dynamic_resources_run_here(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write(DYNAMIC)
    assert lab.engine({"size": 1}).preview().outputs == {"told": None}
    assert lab.engine({"size": 1}).up().outputs == {"told": "c1"}
    assert lab.engine({"size": 1}).up().changes["same"] == 1
    assert lab.engine({"size": 2}).up().outputs == {"told": "u1-2"}
    replaced = lab.engine({"size": 5}).up()
    assert (replaced.outputs, replaced.changes["replace"]) == ({"told": "c5"}, 1)
    with pytest.raises(EngineError, match="thing: size: too big"):
        lab.engine({"size": 10}).up()
    lab.engine().destroy()
    assert capsys.readouterr().out.split() == ["deleted", "made-1", "deleted", "made-5"]


def test_configuration_reaches_the_program_as_pulumi_hands_it_over(lab: Lab) -> None:
    lab.write(
        """
        config = pulumi.Config()
        pulumi.export("seen", [config.require_object("net"), config.require_int("n"), config.require_bool("b"),
                               pulumi.Config("other").require("k"), pulumi.get_stack(), pulumi.get_project()])
        """
    )
    config = {"net": {"cidr": "10.0.0.0/8"}, "n": 3, "b": True, "other:k": "v"}
    assert lab.engine(config).up().outputs["seen"] == [{"cidr": "10.0.0.0/8"}, 3, True, "v", "lab", "demo"]
    with pytest.raises(EngineError, match="needs the Pulumi CLI"):
        lab.engine({"x": {"secure": "v1:abc"}})


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ('raise pulumi.RunError("network.cidr: choose another")', pulumi.RunError, "^network.cidr: choose another$"),
        ('{}["nothing"]', EngineError, r"the program failed: KeyError: 'nothing' \(.*__main__.py:4\)"),
        ('pulumi.log.error("no good")', EngineError, "^no good$"),
        ("import sys; sys.exit(3)", EngineError, "exit code 3"),
        (
            'aws.ec2.Vpc("a", cidr_block="10.0.0.0/16"); aws.ec2.Vpc("a", cidr_block="10.0.0.0/16")',
            EngineError,
            "two resources are named a",
        ),
        ('aws.ec2.Vpc("a", cidr_block="x")', EngineError, "aws:ec2/vpc:Vpc a: CreateVpc: InvalidParameterValue"),
        ('aws.ec2.Vpc("a", ipv4_ipam_pool_id="p")', EngineError, "does not know the input ipv4IpamPoolId"),
        ('aws.sqs.Queue("a")', EngineError, "aws:sqs/queue:Queue: this provider does not know this type"),
        ("aws.get_regions()", EngineError, "getRegions: this provider does not know this function"),
        (
            'aws.ec2.Vpc("a", opts=ResourceOptions(import_="vpc-1"))',
            EngineError,
            "does not support the option importId",
        ),
    ],
)
def test_a_failure_is_one_line(lab: Lab, program: str, error: type[Exception], message: str) -> None:
    lab.write(program)
    with pytest.raises(error, match=message) as caught:
        lab.engine().up()
    assert "Traceback" not in str(caught.value)


def test_a_failed_run_keeps_what_it_made_and_the_next_goes_on(lab: Lab) -> None:
    lab.write(
        NETWORK + '\n    aws.ec2.Subnet("bad", vpc_id=subnet.vpc_id, cidr_block=config.get("bad") or "10.9.0.0/24")'
    )
    with pytest.raises(EngineError, match="Subnet bad: CreateSubnet"):
        lab.engine().up()
    made = sum(entry.custom for entry in Store(lab.state).load().entries)
    assert made >= 2
    result = lab.engine({"bad": "10.1.9.0/24"}).up()
    assert (result.changes["same"], result.changes["create"]) == (made, 4 - made)
    assert len(lab.vpcs()) == 1


def test_an_existing_resource_of_another_owner_is_not_adopted(lab: Lab) -> None:
    lab.client("ssm").put_parameter(Name="/theirs", Type="String", Value="theirs")
    lab.write('aws.ssm.Parameter("p", name="/theirs", type="String", value="mine")')
    for _ in range(2):
        with pytest.raises(EngineError, match="ParameterAlreadyExists"):
            lab.engine().up()
    lab.engine().destroy()
    assert lab.client("ssm").get_parameter(Name="/theirs")["Parameter"]["Value"] == "theirs"


@pytest.mark.fault("7.4")
@pytest.mark.parametrize("run", [lambda e: e.up(), lambda e: e.preview(), lambda e: e.destroy()])
def test_two_runs_at_once_are_refused(lab: Lab, run: Callable[..., object]) -> None:
    lab.write(NETWORK)
    with Store(lab.state).locked(), pytest.raises(EngineError, match=r"another run \(process \d+\) is using"):
        run(lab.engine())
    run(lab.engine())


@pytest.mark.fault("7.5")
@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9}', '{"format": 2, "entries": [{}]}'])
def test_a_damaged_state_is_named_and_kept(lab: Lab, text: str) -> None:
    lab.write(NETWORK)
    lab.state.parent.mkdir()
    lab.state.write_text(text)
    with pytest.raises(EngineError, match=r"lab\.json"):
        lab.engine().up()
    assert lab.state.read_text() == text


def test_a_state_of_an_older_format_is_refused_with_the_remedy(lab: Lab) -> None:
    lab.write(NETWORK)
    lab.state.parent.mkdir()
    lab.state.write_text('{"format": 1, "entries": [], "creating": [], "outputs": {}}')
    with pytest.raises(EngineError, match="has format 1, but this engine reads format 2 only; destroy the stack with"):
        lab.engine().up()


def test_only_a_loopback_endpoint_will_do(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(NETWORK)
    assert loopback_endpoint({"AWS_ENDPOINT_URL": "http://[::1]:4566"}) == "http://[::1]:4566"
    with pytest.raises(EngineError, match=r"AWS_ENDPOINT_URL_S3 names example\.com"):
        loopback_endpoint({"AWS_ENDPOINT_URL": "http://localhost:1", "AWS_ENDPOINT_URL_S3": "https://example.com"})
    with pytest.raises(EngineError, match="is ignored"):
        loopback_endpoint({"AWS_ENDPOINT_URL": "http://[::1]:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"})
    for endpoint in ("https://ec2.eu-west-1.amazonaws.com", "http://127.0.0.1.example.com", "http://10.0.0.1"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(EngineError, match="not loopback"):
            lab.engine().up()
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(EngineError, match="is not set"):
        lab.engine().destroy()


def test_a_missing_program_is_an_error(lab: Lab) -> None:
    with pytest.raises(EngineError, match=r"program .* does not exist"):
        lab.engine().up()


def test_events_report_begin_and_end(lab: Lab) -> None:
    lab.write('aws.ec2.Vpc("net", cidr_block="10.1.0.0/16"); pulumi.log.info("hello")')
    lab.engine().up()
    kinds = [(event.kind, event.text) for event in lab.events]
    step = "create aws:ec2/vpc:Vpc net"
    assert sorted(kinds) == [("begin", step), ("end", step), ("info", "hello")]


def test_the_state_is_plain_json_that_names_dependencies(lab: Lab) -> None:
    lab.write(NETWORK)
    lab.engine().up()
    raw = json.loads(lab.state.read_text())
    by_name = {entry["urn"].rsplit("::", 1)[1]: entry for entry in raw["entries"]}
    assert by_name["sub"]["dependencies"] == [by_name["net"]["urn"]]
    assert raw["pending_operations"] == []


def test_a_step_encrypts_no_secret_of_the_steps_before_again(tmp_path: Path) -> None:
    """A run saves all entries after every step; encrypting them each time would cost the square of their number."""
    store = Store(tmp_path / "state.json")
    secret = {SIGNATURE: SECRET, "value": "hidden"}
    first, second = (Entry(urn=f"urn::{name}", type="t", custom=True, inputs={"key": secret}) for name in "ab")

    def read_tokens() -> list[str]:
        return [row["inputs"]["key"]["sealed"] for row in json.loads(store.path.read_text())["entries"]]

    store.save(Snapshot([first]))
    before = read_tokens()
    store.save(Snapshot([first, second], [replace(second, id="pending")], {"size": 1}))
    assert read_tokens()[:1] == before
    assert Store(store.path).load() == Snapshot([first, second], [replace(second, id="pending")], {"size": 1})
    store.save(Snapshot([replace(first, outputs={"key": secret})]))
    assert read_tokens() != before
    assert Store(store.path).load() == Snapshot([replace(first, outputs={"key": secret})])


@pytest.mark.fault("7.11")
def test_after_an_interruption_the_current_call_finishes_and_no_other_starts(lab: Lab) -> None:
    lab.write(NETWORK)
    engine = lab.engine()

    def interrupt(event: Event) -> None:
        lab.events.append(event)
        if event.kind == "begin":
            os.kill(os.getpid(), signal.SIGINT)

    engine.events = interrupt
    with pytest.raises(KeyboardInterrupt):
        engine.up()
    begun = sum(event.kind == "begin" for event in lab.events)
    ended = sum(event.kind == "end" for event in lab.events)
    made = [entry for entry in Store(lab.state).load().entries if entry.custom]
    assert begun == ended == len(made)
    assert lab.engine().up().changes["create"] == 3 - len(made)
    assert len(lab.vpcs()) == 1


def test_a_run_without_changes_writes_its_state_a_fixed_number_of_times(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write seals the whole state: one for every resource would make a run of many take a minute."""
    saves: list[int] = []
    save = Store.save

    def count(store: Store, snapshot: Snapshot) -> None:
        saves[-1] += 1
        save(store, snapshot)

    monkeypatch.setattr(Store, "save", count)
    for resources in (2, 60):
        lab.write(
            f"""
            for number in range({resources}):
                aws.ssm.Parameter(f"p{{number}}", name=f"/many/{{number}}", type="String", value="v")
            """
        )
        saves.append(0)
        lab.engine().up()
        saves[-1] = 0
        assert lab.engine().up().changes["same"] == resources
    assert saves[0] == saves[1]
