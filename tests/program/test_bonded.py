"""What the program makes of world `bonded`. Packets: tests/lab/worlds/test_links_bonded.py."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

import contract
from drawbridge.doctor import path_checks, path_reader
from drawbridge.operate import bundle_probe
from openvpn.bundle import remote_of
from settings.stack_file import read_stack_file
from tests.program.conftest import ROOT, Deployment, deploy_into_moto, empty_aws
from tests.program.test_doctor import account_of, report_ready
from tests.program.test_worlds import archive, ingress

NAMES = contract.Names("bonded")


@pytest.fixture(scope="module")
def bonded() -> Iterator[Deployment]:
    with empty_aws():
        yield deploy_into_moto(read_stack_file(ROOT / "stacks/Pulumi.bonded.yaml"), "bonded")


def lines(files: dict[str, str], path: str) -> set[str]:
    return set(files[path].splitlines())


def test_two_processes_serve_one_segment_on_two_ports(bonded: Deployment) -> None:
    files = archive(bonded, NAMES.release_key(bonded.outputs["release"]))

    for instance, tap, port in (("server", "tap0", 1194), ("server1", "tap1", 1195)):
        conf = lines(files, f"root/etc/openvpn/server/{instance}.conf")
        assert {f"dev {tap}", f"port {port}", "mode server", "keepalive 1 5", "tun-mtu 1500"} <= conf
        # What a bonded host has of addresses and routes is its bond's.
        assert not any(line.startswith("push") for line in conf)
        assert "Bridge=br0" in lines(files, f"root/etc/systemd/network/10-drawbridge-{tap}.network")
    # Of hardware addresses it has five.
    assert files["ccd/left"].splitlines()[1:] == ["max-routes-per-client 13"]
    assert "Address=10.0.0.254/24" in lines(files, "root/etc/systemd/network/10-drawbridge-br0.network")
    assert 'udp dport 1194-1195 iifname != "br0" ip saddr @allowed accept' in files["root/etc/drawbridge/nftables.conf"]


def test_the_doctor_finds_nothing_broken_and_then_the_link_that_is(
    bonded: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_ready(bonded, NAMES)
    probed: list[int] = []

    def probe(namespace: str | None, bundle: str) -> bundle_probe.Verdict:
        port = remote_of(bundle).port
        probed.append(port)
        state: bundle_probe.ProbeState = "fine" if port == 1194 else "nothing"
        return bundle_probe.Verdict(state=state, remote="", finding="nothing listens", remedy="", seconds=0.0)

    monkeypatch.setattr(bundle_probe, "probe_from", probe)
    query = path_reader.PathQuery(client="left", source=IPv4Address("203.0.113.10"), probes=False)
    whole = path_checks.judge_path(path_reader.read_snapshot(account_of("bonded"), query))
    assert {result.state for result in whole} <= {"ok", "skipped"}, whole
    results = path_checks.judge_path(path_reader.read_snapshot(account_of("bonded"), replace(query, probes=True)))
    broken = path_checks.find_first_broken(results)
    assert broken is not None
    assert (broken.breakage, broken.finding) == ("listener-closed", "link ovn1: nothing listens")
    assert probed[-2:] == [1194, 1195]


def test_the_security_group_opens_both_ports(bonded: Deployment) -> None:
    udp = [(rule["FromPort"], rule["ToPort"]) for rule in ingress(bonded) if rule["IpProtocol"] == "udp"]
    assert udp == [(1194, 1195)]


@pytest.mark.seed("1.2")
def test_a_kit_pins_what_the_gateways_filter_lets_in(bonded: Deployment) -> None:
    members = archive(bonded, NAMES.release_key(bonded.outputs["release"]))["root/etc/drawbridge/members"]
    pinned = {}
    for host in ("left", "right"):
        kit = archive(bonded, NAMES.kit_key(host))
        units = "root/etc/systemd/network/30-drawbridge"
        found = {
            line.partition("=")[2]
            for path in (f"{units}-bond0.netdev", f"{units}-ovn0.link", f"{units}-ovn1.link")
            for line in kit[path].splitlines()
            if line.startswith("MACAddress=")
        }
        assert len(found) == 3 and all(f"{mac}) owner={host} ;;\n" in members for mac in found)
        pinned[host] = found
    assert not pinned["left"] & pinned["right"]


def test_a_kit_calls_both_ports_each_over_its_line_and_holds_no_secret(bonded: Deployment) -> None:
    files = archive(bonded, NAMES.kit_key("left"))
    for number in (0, 1):
        conf = lines(files, f"root/etc/drawbridge/links/ovn{number}.conf")
        remote = f"remote {bonded.outputs['publicIp']} {1194 + number}"
        assert {
            remote,
            f"bind-dev eth{number}",
            "client",
            "up-delay",
            "verify-x509-name bonded.drawbridge name",
        } <= conf
    assert files["bundles"] == f"left {NAMES.bundle('left')}\n"
    assert files["units"].split() == [f"drawbridge-{kind}@ovn{n}.service" for kind in ("link", "watch") for n in (0, 1)]
    assert not any("PRIVATE KEY" in text or "-----BEGIN" in text for text in files.values())
