"""What is in a kit's archive. Does not prove that a host can install it: tests/lab/worlds/test_site.py does."""

import io
import tarfile

from contract import Names
from kits import kit


def contents(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read().decode() for name, file in files.items() if file}


def make(**more: object) -> bytes:
    given = {
        "names": Names("ci"),
        "region": "eu-west-1",
        "files": {"etc/x.conf": "x\n"},
        "units": ["x.service"],
        **more,
    }
    return kit.build("home", **given)  # type: ignore[arg-type]


def test_what_is_in_it() -> None:
    found = contents(make(packages=["jq"], variables={"PORT": "1194"}, hints="done\n"))

    assert (
        found["kit.env"] == "STACK=ci\nREGION=eu-west-1\nKIT=home\nPORT=1194\n" == found["root/etc/drawbridge/kit.env"]
    )
    assert found["packages"].split() == [*kit.PACKAGES, "jq"]
    assert found["bundles"] == "home /drawbridge/ci/clients/home/bundle\n"
    assert (found["units"], found["hints"], found["root/etc/x.conf"]) == ("x.service\n", "done\n", "x\n")
    assert found["install"].startswith("#!/bin/sh\n") and "fetch" in found
    assert "hook" not in found


def test_it_may_bring_several_bundles_or_none_and_a_hook() -> None:
    found = contents(make(bundles={"ovn0": "rover-0", "ovn1": "rover-1"}, hook="true\n"))

    assert found["bundles"].split("\n")[:2] == [
        "ovn0 /drawbridge/ci/clients/rover-0/bundle",
        "ovn1 /drawbridge/ci/clients/rover-1/bundle",
    ]
    assert found["hook"] == "true\n"
    assert contents(make(bundles={}))["bundles"] == ""


def test_the_same_values_give_the_same_bytes() -> None:
    assert make() == make()
    assert make() != make(files={})
