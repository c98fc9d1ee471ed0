"""What botocore's sessions share, and what they do not."""

import boto3
import pytest


def test_clients_share_methods_and_neither_region_nor_credentials() -> None:
    first, second = (
        boto3.Session("key", secret, region_name=region).client("ec2")
        for secret, region in (("one", "eu-west-1"), ("two", "us-east-1"))
    )
    assert type(first).describe_vpcs is type(second).describe_vpcs
    assert (first.meta.region_name, second.meta.region_name) == ("eu-west-1", "us-east-1")
    assert [client._get_credentials().secret_key for client in (first, second)] == ["one", "two"]


def test_events_have_one_name_in_all_sessions_and_handlers_stay_their_own() -> None:
    calls: list[str] = []

    def count(**_: object) -> None:
        calls.append("handled")

    first, second = (boto3.Session("key", "secret", region_name="eu-west-1").client("ec2") for _ in range(2))
    first.meta.events.register("provide-client-params.ec2.DescribeVpcs", count)
    for client in (first, second):
        client.meta.events.emit("provide-client-params.ec2.DescribeVpcs", params={}, model=None, context={})
    assert calls == ["handled"]


def test_a_handler_that_does_not_take_every_argument_is_refused() -> None:
    events = boto3.Session("key", "secret", region_name="eu-west-1").client("ec2").meta.events
    with pytest.raises(ValueError, match="must accept keyword arguments"):
        events.register("before-call", lambda model: None)
