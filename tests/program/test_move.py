"""A stack with a name moves to another region, with the whole program in two regions of one AWS.

Does not prove that packets arrive there: the worlds of tests/lab do so for one region.
"""

import io
import tarfile
from datetime import UTC, datetime
from typing import Any

import boto3

import contract
from drawbridge.operate.account import Account
from drawbridge.operate.stack_backup import restore_backup, take_backup
from lab.api.moto_state import publish_images
from openvpn import bundle as bundles
from pki import tls_crypt
from tests.program.conftest import REGION, Deploy, Deployment, deploy_into_moto, empty_aws

SECOND = "eu-central-1"
NAMES = contract.Names("dev")


def account(region: str) -> Account:
    return Account(stack="dev", session=boto3.Session("testing", "testing", region_name=region))


def config(region: str, **gateway: Any) -> dict[str, object]:
    return {
        "aws:region": region,
        "drawbridge:gateway": {"hostname": "vpn.example.com", **gateway},
        "drawbridge:clients": [{"name": "alice"}],
    }


def create_zone() -> str:
    zone = Deployment({}, []).route53.create_hosted_zone(Name="example.com", CallerReference="1")
    return str(zone["HostedZone"]["Id"].rpartition("/")[2])


def change_record(zone: str, action: str, ttl: int, address: str) -> None:
    record = {"Name": "vpn.example.com", "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": address}]}
    changes = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    Deployment({}, []).route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=changes)


def look_up(zone: str) -> list[tuple[int, list[str]]]:
    """Return time to live and addresses of each record of the name."""
    records = Deployment({}, []).route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return [
        (record["TTL"], [value["Value"] for value in record["ResourceRecords"]])
        for record in records
        if (record["Name"], record["Type"]) == ("vpn.example.com.", "A")
    ]


def remotes(bundle: str) -> list[str]:
    return [line.split()[1] for line in bundle.splitlines() if line.startswith("remote ")]


def test_a_stack_with_a_name_moves_and_its_bundles_with_it() -> None:
    with empty_aws():
        zone = create_zone()
        first = deploy_into_moto(config(REGION, hostedZoneId=zone), "dev")
        assert look_up(zone) == [(60, [first.outputs["publicIp"]])]
        old = account(REGION).parameter(NAMES.bundle("alice"), secret=True)
        assert remotes(old) == ["vpn.example.com", first.outputs["publicIp"]]
        assert bundles.remote_of(old).host == "vpn.example.com"

        restore_backup(account(SECOND), take_backup(account(REGION), datetime.now(UTC)), print)
        # The first stack's name leads to the new one from here on.
        change_record(zone, "DELETE", 60, first.outputs["publicIp"])
        publish_images(SECOND)
        second = deploy_into_moto(config(SECOND, hostedZoneId=zone), "dev")
        assert second.outputs["publicIp"] != first.outputs["publicIp"]
        assert look_up(zone) == [(60, [second.outputs["publicIp"]])]
        secrets = account(SECOND).parameters(NAMES.secrets, secret=True)
        assert secrets[NAMES.secret("ca.crt")].strip() == bundles.ca_of(old).strip()
        assert tls_crypt.read_metadata(secrets[NAMES.secret("tls-crypt-v2.key")], bundles.tls_crypt_of(old))
        new = account(SECOND).parameter(NAMES.bundle("alice"), secret=True)
        assert bundles.key_of(new) == bundles.key_of(old)
        assert remotes(new) == ["vpn.example.com", second.outputs["publicIp"]]


def test_both_links_of_a_bonded_host_lead_to_the_name(deploy: Deploy) -> None:
    tunnel = {"device": "tap", "links": 2, "clientToClient": True}
    stack = deploy({**config(REGION), "drawbridge:tunnel": tunnel})
    kit = stack.s3.get_object(Bucket=stack.outputs["bucket"], Key=NAMES.kit_key("alice"))["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(kit)) as archive:
        texts = [
            file.read().decode()
            for member in archive
            if member.name.endswith(".conf") and (file := archive.extractfile(member))
        ]
    lines = sorted(line for text in texts for line in text.splitlines() if line.startswith("remote "))
    assert lines == ["remote vpn.example.com 1194", "remote vpn.example.com 1195"]


def test_without_a_zone_the_name_is_in_the_bundles_alone(deploy: Deploy) -> None:
    stack = deploy(config(REGION))
    assert remotes(account(REGION).parameter(NAMES.bundle("alice"), secret=True)) == [
        "vpn.example.com",
        stack.outputs["publicIp"],
    ]
    assert stack.route53.list_hosted_zones()["HostedZones"] == []
