"""The agent on a gateway whose processes are links of a bond. Does not prove that the links carry packets."""

import json
from pathlib import Path

import pytest

from openvpn.paths import Paths
from tests.support import gateway
from tests.unit.userdata.test_agent_machine import World, world  # noqa: F401  # a fixture
from userdata.files import agent

LINKS = tuple(f"drawbridge-link@ovn{n}.service" for n in (0, 1))
WATCHERS = {f"drawbridge-watch@ovn{n}.service" for n in (0, 1)}


def put_bundle(world: World, text: str) -> None:  # noqa: F811
    world.ssm.put_parameter(Name=gateway.BUNDLE, Value=text, Type="SecureString", Overwrite=True)


@pytest.fixture
def paired(world: World) -> World:  # noqa: F811
    """A gateway that runs its links."""
    put_bundle(world, "tls-client\n")
    sha = world.publish(gateway.build_linked_release())
    assert world.run() == agent.Report("ready", sha, sha, "", "i-1", LINKS)
    return world


def test_links_and_their_watchers_run_once_the_bond_is_made(paired: World) -> None:
    assert paired.services.active == {agent.FIREWALL, *LINKS, *WATCHERS, "drawbridge-patches.timer"}
    order = [
        next(i for i, command in enumerate(paired.services.commands) if command.startswith(beginning))
        for beginning in (
            f"systemctl reload-or-restart {agent.FIREWALL}",
            f"sh {paired.root}/etc/drawbridge/make-bond",
            "systemctl restart drawbridge-link@ovn0.service",
            "systemctl restart drawbridge-watch@ovn0.service",
        )
    ]
    assert order == sorted(order)


def test_the_bundle_lies_with_the_secrets_and_is_checked_before_it_is_used(paired: World) -> None:
    bundle = paired.machine.vault / (paired.root / Paths.secrets.lstrip("/")).readlink().name / "ovn1.ovpn"
    assert bundle.read_text() == "tls-client\n"
    assert bundle.stat().st_mode & 0o777 == 0o400
    assert f"openvpn --config {bundle} --show-digests" in paired.services.commands


def test_nothing_starts_again_where_nothing_changed(paired: World) -> None:
    starts = paired.services.starts
    paired.run()
    assert paired.services.starts == starts


def test_another_bundle_starts_the_links_again(paired: World) -> None:
    starts = paired.services.starts
    put_bundle(paired, "tls-client\n# another\n")
    assert paired.run().state == "ready"
    assert paired.services.starts == starts + 2


def test_a_change_of_one_link_starts_that_one_alone(paired: World) -> None:
    starts = paired.services.starts
    paired.publish(gateway.build_linked_release(extra="# more\n"))
    assert paired.run().state == "ready"
    assert paired.services.starts == starts + 1


def test_a_kernel_that_cannot_bond_is_told_and_the_release_refused(world: World) -> None:  # noqa: F811
    world.services.fails[f"sh {world.root}/etc/drawbridge/make-bond"] = "this kernel has no bonding driver"
    put_bundle(world, "tls-client\n")
    world.publish(gateway.build_linked_release())
    report = world.run()
    assert (report.state, report.reason) == ("failed", "sh: this kernel has no bonding driver")


def test_without_its_bundle_it_says_which_parameter_it_misses(world: World) -> None:  # noqa: F811
    world.publish(gateway.build_linked_release())
    report = world.run()
    assert (report.state, report.reason) == ("failed", f"AWS has no parameter {gateway.BUNDLE}")


def test_a_file_of_a_bundle_stays_with_the_secrets(tmp_path: Path) -> None:
    raw = json.loads(gateway.release_contents(gateway.build_linked_release())["manifest.json"])
    for key, value in (("bundles", {"../x": "/p"}), ("unit", "a/b"), ("configs", "../etc"), ("beside", ["a b"])):
        with pytest.raises(agent.RefusedError, match="name"):
            agent.read_manifest(json.dumps({**raw, key: value}))
