"""Stack `lab` as a user has it: deployed by the program, booted from its user data, used through its tunnel.

Does not prove that AWS itself accepts what is deployed; the lab's differences from AWS are listed in docs/lab.md.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from drawbridge.doctor import path_checks, path_reader
from drawbridge.doctor.linux_machine import READ_LINUX
from drawbridge.doctor.machine_reader import parse_machine
from drawbridge.operate import bundle_probe, connection_log, gateway_status
from drawbridge.operate.connection_log import ConnectionEvent
from drawbridge.operate.gateway_status import ClientSession, parse_sessions
from drawbridge.operate.stack_files import CHECKOUT
from drawbridge.trial.deployment import Deployment, create_engine, deploy
from drawbridge.trial.hosts import fetch_bundle, run_checked
from drawbridge.trial.measure import ask_echo, ping
from drawbridge.trial.removal import destroy_stack
from engine.engine import EngineError
from lab.linux import within
from lab.network.fabric import MIRROR
from lab.region import Host
from openvpn.bundle import certificate_of, render_bundle
from pki import tls_crypt
from pki.authority import Certificate, CertificateAuthority
from tests.support import packages, promises, stacks, waiting
from userdata.files.agent import without_dynamic_elements

TUNNEL = 60.0
#: Seconds that a boot may take on a busy machine.
BOOT = 240.0


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    with stacks.disposable_world("lab") as stack:
        yield stack


@pytest.fixture
def alice(deployed: Deployment) -> Host:
    host = deployed.region.host("alice")
    assert ping(host, deployed.outputs["privateIp"], TUNNEL) is not None
    return host


@pytest.mark.seed("3.3")
def test_a_client_gets_the_route_and_reaches_the_gateway_and_a_private_host(deployed: Deployment, alice: Host) -> None:
    routes = run_checked(alice, "ip", "route")

    assert re.search(rf"^{re.escape('10.1.0.0/16')} via 10\.8\.0\.1 dev tun0", routes, re.MULTILINE)
    assert ping(alice, deployed.outputs["privateIp"], 5) is not None
    assert ping(alice, deployed.region.host("private-host").address, 5) is not None


def test_a_client_s_path_is_measured(deployed: Deployment, alice: Host) -> None:
    """By a process that is not root's, and whose elements do not count as a changed filter."""
    gateway = deployed.gateway
    (address,) = re.findall(r"inet (10\.8\.0\.\d+)/", run_checked(alice, "ip", "-4", "address", "show", "dev", "tun0"))

    def is_measured() -> bool:
        listing = run_checked(gateway, "nft", "list", "map", "inet", "drawbridge", "client_paths")
        return re.search(rf"\b{re.escape(address)} timeout \S+ expires \S+ : goto path_1492\b", listing) is not None

    waiting.until(is_measured, 120)
    pid = run_checked(gateway, "systemctl", "show", "--value", "--property=MainPID", "drawbridge-path-mtu").strip()
    assert run_checked(gateway, "stat", "--format=%U", f"/proc/{pid}").strip() != "root"
    report = json.loads(run_checked(gateway, "cat", "/run/drawbridge/report.json"))
    assert (report["state"], report["repaired"]) == ("ready", [])


def test_control_without_the_tunnel_the_private_host_is_out_of_reach(deployed: Deployment, alice: Host) -> None:
    private = deployed.region.host("private-host").address
    run_checked(alice, "systemctl", "stop", "openvpn-client@alice")
    try:
        assert ping(alice, private, 2) is None
    finally:
        run_checked(alice, "systemctl", "start", "openvpn-client@alice")
    assert ping(alice, private, TUNNEL) is not None


@pytest.mark.seed("3.2")
def test_the_server_is_routed_pushes_the_tenant_route_and_keeps_alive(deployed: Deployment, alice: Host) -> None:
    config = run_checked(deployed.gateway, "cat", "/etc/openvpn/server/server.conf").splitlines()
    pushed = run_checked(alice, "journalctl", "--no-pager", "-u", "openvpn-client@alice", "--grep", "PUSH: Received")

    assert "dev tun0" in config and "keepalive 1 7" in config
    assert any(line.startswith("server 10.8.0.0 255.255.255.0") for line in config)
    assert "route 10.1.0.0 255.255.0.0" in pushed
    assert "ping 1,ping-restart 7" in pushed
    assert "redirect-gateway" not in pushed


@pytest.mark.seed("3.1")
def test_lifetimes_are_the_settings_and_the_authority_key_is_not_on_the_gateway(deployed: Deployment) -> None:
    days = {"ca.crt": 3650, "server.crt": 825}
    secrets = "/etc/openvpn/server/secrets"
    for name, expected in days.items():
        end = f"{secrets}/{name}"
        assert (
            deployed.gateway.run(
                ["openssl", "x509", "-noout", "-checkend", str((expected - 2) * 86400), "-in", end]
            ).returncode
            == 0
        )
        assert (
            deployed.gateway.run(
                ["openssl", "x509", "-noout", "-checkend", str((expected + 2) * 86400), "-in", end]
            ).returncode
            == 1
        )
    held = deployed.client("ssm").get_parameter(Name=deployed.names.keys, WithDecryption=True)["Parameter"]["Value"]
    everywhere = ("/etc", "/opt", "/var", "/run", "/root", "/usr/local")
    line = promises.unique_line(json.loads(held)["ca"]["key"])
    found = deployed.gateway.run(["grep", "-rlF", "-e", line, *everywhere])
    assert (found.returncode, found.stdout) == (1, "")
    server_key = promises.unique_line(run_checked(deployed.gateway, "cat", f"{secrets}/server.key"))
    control = deployed.gateway.run(["grep", "-rlF", "-e", server_key, *everywhere])
    assert "server.key" in control.stdout  # the search would have found it


@pytest.mark.seed("4.1")
def test_a_nano_instance_with_the_elastic_ip_in_remote_enabled_at_boot_at_both_ends(
    deployed: Deployment, alice: Host
) -> None:
    ec2 = deployed.client("ec2")
    found = ec2.describe_instances(InstanceIds=[deployed.outputs["gatewayInstanceId"]])["Reservations"][0]["Instances"][
        0
    ]
    elastic = [address["PublicIp"] for address in ec2.describe_addresses()["Addresses"]]

    assert re.fullmatch(r"t[34][a-z]?\.nano", found["InstanceType"])
    assert [deployed.outputs["publicIp"]] == elastic
    assert f"remote {elastic[0]} 1194" in run_checked(alice, "cat", "/etc/openvpn/client/alice.conf")
    assert run_checked(deployed.gateway, "systemctl", "is-enabled", "openvpn-server@server").strip() == "enabled"
    assert run_checked(alice, "systemctl", "is-enabled", "openvpn-client@alice").strip() == "enabled"


@pytest.mark.seed("0.15")
def test_the_bundle_is_one_file_fetched_over_the_aws_api_with_the_clients_own_key(
    deployed: Deployment, alice: Host
) -> None:
    held = deployed.client("ssm").get_parameter(Name=deployed.names.bundle("alice"), WithDecryption=True)["Parameter"]

    assert run_checked(alice, "cat", "/etc/openvpn/client/alice.conf") == held["Value"]
    assert run_checked(alice, "stat", "-c", "%a", "/etc/openvpn/client/alice.conf").strip() == "600"
    own = deployed.names.bundle("alice")
    assert _from(alice, f"ssm.get_parameter(Name='{own}', WithDecryption=True)") == "ok"
    for other in (deployed.names.secret("server.key"), deployed.names.bundle("bob")):
        assert _from(alice, f"ssm.get_parameter(Name='{other}', WithDecryption=True)") == "AccessDeniedException"


@pytest.mark.fault("1.3")
@pytest.mark.seed("0.16")
def test_a_restarted_server_has_its_client_back_by_itself_and_logs_to_the_journal(
    deployed: Deployment, alice: Host
) -> None:
    before = run_checked(alice, "systemctl", "show", "-P", "MainPID", "openvpn-client@alice")
    run_checked(deployed.gateway, "systemctl", "restart", "openvpn-server@server")

    assert ping(alice, deployed.outputs["privateIp"], TUNNEL) is not None
    assert run_checked(alice, "systemctl", "show", "-P", "MainPID", "openvpn-client@alice") == before
    journal = run_checked(deployed.gateway, "journalctl", "--no-pager", "-u", "openvpn-server@server")
    assert journal.count("Initialization Sequence Completed") >= 2


@pytest.mark.fault("3.1", "3.3", "3.5")
def test_a_gateway_that_lost_filter_forwarding_and_device_puts_them_back(deployed: Deployment, alice: Host) -> None:
    for command in (("nft", "flush", "ruleset"), ("sysctl", "net.ipv4.ip_forward=0"), ("ip", "link", "delete", "tun0")):
        run_checked(deployed.gateway, *command)

    # Its timer starts it as well; by hand, the test need not wait for that.
    stacks.run_agent(deployed.gateway)

    report = json.loads(run_checked(deployed.gateway, "cat", "/run/drawbridge/report.json"))
    assert (report["state"], report["reason"]) == ("ready", "")
    repairs = [repair.partition(" ")[2] for repair in report["repaired"]]
    assert "the packet filter was changed" in repairs
    # A change of this key resets others (ip-sysctl.rst).
    assert any(repair.startswith("changed kernel settings: net.ipv4.ip_forward") for repair in repairs), repairs
    assert "policy drop" in run_checked(deployed.gateway, "nft", "list", "chain", "inet", "drawbridge", "forward")
    assert ping(alice, deployed.region.host("private-host").address, TUNNEL) is not None


@pytest.mark.fault("6.3")
@pytest.mark.seed("0.17")
def test_both_ends_start_at_boot(deployed: Deployment, alice: Host) -> None:
    boot = run_checked(alice, "cat", "/proc/sys/kernel/random/boot_id"), alice.leader
    deployed.region.reboot_host("alice")
    again = waiting.until(lambda: _rebooted(lambda: deployed.region.host("alice"), boot[1]), 30)

    assert ping(again, deployed.outputs["privateIp"], TUNNEL) is not None


@pytest.mark.seed("9.3")
def test_a_tunnel_client_cannot_reach_the_gateways_metadata(deployed: Deployment, alice: Host) -> None:
    promises.check_no_metadata(deployed, alice, "tun0", deployed.region.host("private-host").address)


@pytest.mark.seed("9.6")
def test_no_private_key_is_where_others_read(deployed: Deployment, alice: Host) -> None:
    promises.check_no_key_exposed(deployed, alice, "alice")


@pytest.mark.seed("9.7")
@pytest.mark.attack("8.1", "8.2", "8.3", "8.4", "8.5")
def test_the_instance_role_reads_what_its_gateway_needs_and_nothing_else(deployed: Deployment) -> None:
    promises.check_instance_role(deployed, "alice")


def sessions(gateway: Host) -> list[str]:
    """What OpenVPN has said of those who connected."""
    unit = "openvpn-server@server"
    return run_checked(
        gateway, "journalctl", "-o", "cat", "-u", unit, "--grep", "Peer Connection Initiated"
    ).splitlines()


def bundle_of(alice: Host) -> str:
    return run_checked(alice, "cat", "/etc/openvpn/client/alice.conf")


def other(bundle: str) -> str:
    """The same with the keys of another authority, whose gateway this is not."""
    authority, now = CertificateAuthority.create("another", timedelta(days=1), datetime.now(UTC)), datetime.now(UTC)
    leaf = authority.issue_client("alice", timedelta(days=1), now)
    wrapped = tls_crypt.client_key(tls_crypt.server_key())
    return render_bundle(bundle.partition("<ca>")[0], authority.certificate, leaf.certificate, leaf.key, wrapped)


def probed(deployed: Deployment, host: Host, bundle: str, *, aws: bool = False) -> bundle_probe.Verdict:
    """What the probe says at a client's home; with `aws`, what AWS knows as well."""
    with waiting.Lateness() as late:
        verdict = within(host.namespace, lambda: bundle_probe.probe_bundle(bundle))
    assert verdict.seconds < bundle_probe.TIME_LIMIT + 1 + late.seconds, (verdict, late.seconds)
    return bundle_probe.add_aws_findings(deployed.account, bundle, verdict) if aws else verdict


@contextmanager
def shut(deployed: Deployment) -> Iterator[None]:
    """The tunnel's rule of the security group, made one for another port."""
    ec2, group, tunnel = deployed.client("ec2"), deployed.outputs["securityGroupId"], deployed.settings.tunnel
    mine = [{"Name": "group-id", "Values": [group]}]
    (rule,) = [
        one
        for one in ec2.describe_security_group_rules(Filters=mine)["SecurityGroupRules"]
        if not one["IsEgress"] and (one["IpProtocol"], one["FromPort"]) == (tunnel.protocol, tunnel.port)
    ]
    kept = {key: rule[key] for key in ("IpProtocol", "CidrIpv4", "Description")}

    def move(port: int) -> None:
        changed = {**kept, "FromPort": port, "ToPort": port}
        change = {"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": changed}
        ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[change])
        deployed.region.wait_reconciled()

    move(9)
    try:
        yield
    finally:
        move(tunnel.port)


@contextmanager
def stopped(deployed: Deployment) -> Iterator[None]:
    run_checked(deployed.gateway, "systemctl", "stop", "openvpn-server@server")
    try:
        yield
    finally:
        run_checked(deployed.gateway, "systemctl", "start", "openvpn-server@server")
        # Its agent may have looked meanwhile, and then has reported it.
        stacks.wait_current(deployed)


@pytest.mark.seed("2.13")
def test_a_probe_tells_a_wrong_address_from_a_wrong_configuration(deployed: Deployment, alice: Host) -> None:
    bundle, address = bundle_of(alice), deployed.outputs["publicIp"]
    before = sessions(deployed.gateway)

    assert probed(deployed, alice, bundle).state == "fine"
    # An address of the lab's Internet that nobody has.
    assert probed(deployed, alice, bundle.replace(address, "198.51.100.250")).state == "address"
    found = probed(deployed, alice, other(bundle))
    assert found.state == "unanswered" and "another gateway's" in found.finding
    found = bundle_probe.add_aws_findings(deployed.account, other(bundle), found)
    assert found.state == "configuration" and "not the one that alice has now" in found.finding
    # The client's own session has lived all along, and the gateway has had no other.
    assert ping(alice, deployed.outputs["privateIp"], 2) is not None
    assert sessions(deployed.gateway) == before != []
    with stopped(deployed):
        assert probed(deployed, alice, bundle).state == "nothing"
    with shut(deployed):
        found = probed(deployed, alice, bundle, aws=True)
        assert (found.state, "open to nobody" in found.finding) == ("unanswered", True), found
    assert probed(deployed, alice, bundle).state == "fine"


@pytest.mark.seed("2.13")
def test_the_probe_s_command_needs_no_right(deployed: Deployment, alice: Host, tmp_path: Path) -> None:
    """Run by the command itself, without any capability; who may send no pings is told so."""
    groups = "net.ipv4.ping_group_range"
    before = run_checked(alice, "sysctl", "-n", groups).strip()
    good, lost = bundle_of(alice), bundle_of(alice).replace(deployed.outputs["publicIp"], "198.51.100.250")
    for pings, text, status, state in (
        ("0 2147483647", good, 0, "fine"),
        ("0 2147483647", other(good), 1, "unanswered"),
        ("1 0", lost, 1, "unanswered"),
    ):
        run_checked(alice, "sysctl", "-q", "-w", f"{groups}={pings}")
        bundle = tmp_path / "alice.ovpn"
        bundle.write_text(text)
        argv = ["ip", "netns", "exec", alice.namespace, "setpriv", "--inh-caps=-all", "--bounding-set=-all"]
        argv += [sys.executable, "-m", "drawbridge", "gateway", "probe", str(bundle), "--json"]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, json.loads(done.stdout)["state"]) == (status, state), (pings, done.stdout)
    assert "may not send pings" in json.loads(done.stdout)["finding"]
    run_checked(alice, "sysctl", "-q", "-w", f"{groups}={before}")


def diagnose(deployed: Deployment, host: Host) -> list[str]:
    """Return the breakages of alice's path to the private host, and the hops that could not be judged."""
    query = path_reader.PathQuery(
        client="alice",
        target=IPv4Address(deployed.region.host("private-host").address),
        machine=parse_machine(run_checked(host, "sh", "-c", READ_LINUX)),
        probes=False,
    )
    hops = path_checks.judge_path(path_reader.read_snapshot(deployed.account, query))
    return [hop.breakage or f"{hop.hop}?" for hop in hops if hop.state in ("broken", "unknown")]


def test_the_doctor_names_what_stops_packets(deployed: Deployment, alice: Host) -> None:
    private = deployed.region.host("private-host").address
    assert diagnose(deployed, alice) == []
    with shut(deployed):
        assert probed(deployed, alice, bundle_of(alice)).state == "unanswered"
        assert diagnose(deployed, alice) == ["group-port-closed"]
    network = f"{private}/32"
    (device,) = re.findall(r"^default .*dev (\S+)", run_checked(alice, "ip", "route"), re.MULTILINE)
    run_checked(alice, "ip", "route", "add", network, "dev", device)
    try:
        assert ping(alice, private, 2) is None
        assert diagnose(deployed, alice) == ["network-is-local"]
    finally:
        run_checked(alice, "ip", "route", "delete", network)
    assert ping(alice, private, TUNNEL) is not None


@pytest.mark.seed("4.16")
def test_cloudwatch_is_told_bytes_clients_and_days_left(deployed: Deployment, alice: Host) -> None:
    gateway, private = deployed.gateway, deployed.region.host("private-host").address
    run_checked(
        gateway, "systemctl", "stop", "drawbridge-metrics.timer"
    )  # what it tells in between would not be seen here
    # The days left are sent once a day.
    run_checked(gateway, "rm", "-f", "/var/lib/drawbridge-metrics/load.json")
    told = figures(deployed)
    assert told["ConnectedClients", ""] >= 1 and told["Bytes", ""] > 0 and 824 < told["DaysLeft", ""] <= 825
    run_checked(gateway, "sh", "-c", "echo full > /opt/drawbridge/current/metrics-level")
    told = figures(deployed)
    connected = told["ConnectedClients", "server"]
    assert connected >= 1
    assert 824 < told["DaysLeft", "server"] <= 825 and 3649 < told["DaysLeft", "ca"] <= 3650
    size = 500_000
    answer = ask_echo(alice, private, send=size)
    assert answer is not None
    told = figures(deployed)
    assert told["BytesReceived", "server"] > size > told["BytesSent", "server"] > 0
    # The control: each byte is told once.
    waiting.until(lambda: figures(deployed)["BytesReceived", "server"] < size, 30)

    run_checked(alice, "systemctl", "stop", "openvpn-client@alice")
    try:  # it says goodbye, and the server notices
        waiting.until(lambda: figures(deployed)["ConnectedClients", "server"] < connected, 30)
    finally:
        run_checked(alice, "systemctl", "start", "openvpn-client@alice")
        run_checked(gateway, "sh", "-c", "echo basic > /opt/drawbridge/current/metrics-level")
        run_checked(gateway, "systemctl", "start", "drawbridge-metrics.timer")


def test_the_connection_log_has_who_came_and_went_and_who_was_refused(deployed: Deployment, alice: Host) -> None:
    """A transfer, a second session with the same bundle, a goodbye, and a revoked certificate; then no log at all."""
    gateway, size, status = deployed.gateway, 500_000, "/run/openvpn-server/status"
    revoked = "/etc/openvpn/server/revoked"
    serial = Certificate.read(certificate_of(bundle_of(alice))).serial

    def history(event: str, **expected: object) -> ConnectionEvent | None:
        events = connection_log.read_history(deployed.account, "alice", timedelta(hours=2))
        matching = (entry for entry in events if entry.event == event)
        return next((e for e in matching if all(getattr(e, key) == value for key, value in expected.items())), None)

    def displace_session() -> tuple[ClientSession, ConnectionEvent]:
        """Transfer, connect again with the same bundle, and return the first session and how it ended."""
        private = deployed.region.host("private-host").address
        waiting.until(lambda: ask_echo(alice, private, send=size) is not None, 60)
        session = waiting.until(
            lambda: next((s for s in parse_sessions(run_checked(gateway, "cat", status)) if s.received > size), None),
            30,
        )
        # The log reads the status file every ten seconds, which is how often OpenVPN writes it.
        for _ in range(3):
            written = run_checked(gateway, "stat", "--format=%y", status)
            waiting.until(lambda last=written: run_checked(gateway, "stat", "--format=%y", status) != last, 30)  # type: ignore[misc]
        second = ("openvpn", "--config", "/etc/openvpn/client/alice.conf", "--dev", "tun9", "--route-nopull")
        run_checked(alice, "systemd-run", "--quiet", "--unit=second", *second)
        address, _, port = session.real.rpartition(":")
        place = {"address": address, "port": int(port)}
        return session, waiting.until(lambda: history("displaced", **place) or history("disconnected", **place), 120)

    try:
        for _ in range(3):
            session, displaced = displace_session()
            if displaced.event == "displaced":
                break
            # On a busy machine the first session may have ended by itself, after seven seconds without a packet.
            run_checked(alice, "systemctl", "stop", "second")
    finally:
        alice.run(["systemctl", "stop", "second"])
    assert displaced.event == "displaced"
    address = displaced.address
    assert displaced.received is not None and displaced.received >= session.received > size > (displaced.sent or 0) > 0
    assert displaced.since is not None and abs((displaced.since - session.since).total_seconds()) < 2
    run_checked(alice, "systemctl", "stop", "openvpn-client@alice")
    try:
        run_checked(gateway, "sh", "-c", f"echo alice > {revoked}/{serial}")
        run_checked(alice, "systemctl", "start", "openvpn-client@alice")
        refused = waiting.until(lambda: history("refused", reason="revoked"), 120)
        assert refused.address == address
        # OpenVPN ends a session five seconds after its goodbye.
        ended = waiting.until(lambda: history("disconnected", reason="exit"), 120)
        assert (ended.seconds or 0) > 0 and history("connected", port=ended.port)
    finally:
        run_checked(gateway, "rm", "-f", f"{revoked}/{serial}")
        run_checked(alice, "systemctl", "restart", "openvpn-client@alice")
    peak = run_checked(gateway, "systemctl", "show", "--value", "--property=MemoryPeak", "drawbridge-connections")
    assert not peak.strip().isdigit() or int(peak) < 128 << 20
    # The control: where the log is off, the process ends and forgets.
    current = "/opt/drawbridge/current/connection-log"
    run_checked(gateway, "sh", "-c", f"echo off > {current}")
    try:
        run_checked(gateway, "systemctl", "restart", "drawbridge-connections")
        waiting.until(lambda: gateway.run(["systemctl", "is-active", "drawbridge-connections"]).returncode, 30)
        assert gateway.run(["test", "-e", "/var/lib/drawbridge-connections/state.json"]).returncode == 1
    finally:
        run_checked(gateway, "sh", "-c", f"echo on > {current}")


def figures(deployed: Deployment) -> dict[tuple[str, str], float]:
    """Have the gateway tell CloudWatch now; what CloudWatch has then of each metric, by its name and its dimension."""
    run_checked(deployed.gateway, "systemctl", "start", "drawbridge-metrics")
    cloudwatch, namespace = deployed.client("cloudwatch"), deployed.names.metrics
    found = {}
    for metric in cloudwatch.list_metrics(Namespace=namespace)["Metrics"]:
        query = {"Metric": metric, "Period": 1, "Stat": "Maximum"}
        now = datetime.now(UTC)
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "m", "MetricStat": query}],
            StartTime=now - timedelta(minutes=10),
            EndTime=now + timedelta(seconds=1),
            ScanBy="TimestampDescending",
        )
        if values := answer["MetricDataResults"][0]["Values"]:
            dimension = metric["Dimensions"][0]["Value"] if metric["Dimensions"] else ""
            found[metric["MetricName"], dimension] = values[0]
    return found


def patched(deployed: Deployment) -> gateway_status.SoftwareReport:
    """The gateway's report after its script for fixes has looked again."""
    run_checked(deployed.gateway, "systemctl", "start", "drawbridge-patches.service", timeout=300)
    # The agent passes it on; it looks every 30 seconds by itself.
    stacks.run_agent(deployed.gateway)
    instances = gateway_status.find_instances(deployed.account)
    software = gateway_status.read_report(deployed.account, instances).software
    assert software is not None
    return software


def test_a_fix_runs_in_the_maintenance_window_and_not_before(deployed: Deployment, alice: Host, tmp_path: Path) -> None:
    gateway, unit = deployed.gateway, "openvpn-server@server.service"
    window = "/opt/drawbridge/current/maintenance-window"

    def set_window(start: float, end: float) -> None:
        """Open the window between these hours from now, every day."""
        first, last = (f"{datetime.now(UTC) + timedelta(hours=hours):%H:%M}" for hours in (start, end))
        run_checked(gateway, "tee", window, stdin=f"{first}-{last}\n")

    before = run_checked(gateway, "cat", window)
    pid = run_checked(gateway, "systemctl", "show", "-P", "MainPID", unit)
    set_window(2, 3)
    old = patched(deployed)
    assert old.openvpn.running == old.openvpn.installed and not old.waiting
    packages.offer_newer(gateway, "openvpn", tmp_path)
    assert list(patched(deployed).waiting) == ["package openvpn"]

    packages.install_upgrades(gateway, 300)

    waiting = patched(deployed)
    newer = f"{old.openvpn.installed}+newer"
    assert waiting.openvpn == gateway_status.InstalledVersion(old.openvpn.running, newer)
    assert unit in waiting.waiting
    assert run_checked(gateway, "systemctl", "show", "-P", "MainPID", unit) == pid, "it is not the window"

    set_window(-1, 1)
    done = patched(deployed)
    assert (done.openvpn, done.waiting, done.failure) == (gateway_status.InstalledVersion(newer, newer), {}, "")
    assert run_checked(gateway, "systemctl", "show", "-P", "MainPID", unit) != pid
    assert ping(alice, deployed.outputs["privateIp"], TUNNEL) is not None
    assert stacks.wait_current(deployed)
    run_checked(gateway, "tee", window, stdin=before)


def test_a_second_deployment_changes_nothing(deployed: Deployment) -> None:
    again = deploy(deployed.region, "lab", stacks.world_config("lab"), lambda _: None)

    assert {verb for verb, count in again.changes.items() if count} == {"same"}


@pytest.mark.seed("2.13")
def test_over_tcp_on_port_443(deployed: Deployment, alice: Host) -> None:
    """The stack is then another, and has alarms: what follows is for it."""
    raw = stacks.world_config("lab")
    raw["drawbridge:alerts"] = {"email": "operator@example.com"}
    raw["drawbridge:tunnel"] = {**raw["drawbridge:tunnel"], "protocol": "tcp", "port": 443}
    old = bundle_of(alice)
    changed = stacks.wait_current(deploy(deployed.region, "lab", raw, lambda _: None))
    fetch_bundle(changed, alice, "alice")
    run_checked(alice, "systemctl", "restart", "openvpn-client@alice")
    private = deployed.region.host("private-host")
    assert ping(alice, private.address, TUNNEL) is not None
    assert "443" in run_checked(deployed.gateway, "ss", "-Hltn", "sport = :443")
    caps = run_checked(deployed.gateway, "systemctl", "show", "-P", "CapabilityBoundingSet", "openvpn-server@server")
    assert caps.split() == ["cap_net_bind_service"]
    answer = ask_echo(alice, private.address, take=1_000_000)
    assert answer is not None and answer.received == 1_000_000

    bundle = bundle_of(alice)
    assert probed(changed, alice, bundle).state == "fine"
    assert probed(changed, alice, bundle.replace(changed.outputs["publicIp"], "198.51.100.250")).state == "address"
    assert probed(changed, alice, other(bundle)).state == "configuration"
    found = probed(changed, alice, old, aws=True)
    assert found.state == "configuration" and "tcp 443" in found.finding
    with stopped(changed):
        assert probed(changed, alice, bundle).state == "nothing"
    with shut(changed):
        assert probed(changed, alice, bundle).state == "unanswered"
    assert probed(changed, alice, bundle).state == "fine"


#: Opens TCP connections and holds them.
HOLD = """
import resource, socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
connections = [socket.socket() for _ in range(count)]
for connection in connections:
    connection.setblocking(False)
    connection.connect_ex((address, 443))
open("/run/held", "w").close()
time.sleep(120)
"""


@contextmanager
def connections_held(deployed: Deployment, stranger: Host) -> Iterator[Callable[[], int]]:
    """Have a stranger try 2,000 connections to the tunnel's port; the block's value says how many OpenVPN holds."""

    def count_places() -> int:
        sockets = run_checked(deployed.gateway, "ss", "-Hnt", "state", "established", "sport = :443")
        return sockets.count(str(stranger.address))

    run_checked(stranger, "tee", "/run/hold.py", stdin=HOLD)
    run_checked(stranger, "rm", "-f", "/run/held")
    public, unit = deployed.outputs["publicIp"], "hold"
    run_checked(stranger, "systemd-run", "--quiet", f"--unit={unit}", "python3", "/run/hold.py", public, "2000")
    try:
        waiting.until(lambda: stranger.run(["test", "-e", "/run/held"]).returncode == 0, 60)
        yield count_places
    finally:
        stranger.run(["systemctl", "stop", unit])


@pytest.mark.attack("4.3")
def test_a_stranger_s_connections_keep_no_client_out(deployed: Deployment, alice: Host) -> None:
    """Runs after the tunnel has become one over TCP."""
    gateway, private, unit = deployed.gateway, deployed.region.host("private-host"), "openvpn-client@alice"
    stranger = deployed.region.add_internet_host("stranger", address=IPv4Address("198.18.0.9"))
    stranger.wait_booted()
    limit = deployed.settings.tunnel.clients_per_address
    with connections_held(deployed, stranger) as count_places:
        run_checked(alice, "systemctl", "restart", unit)
        assert ping(alice, private.address, 15) is not None
        assert 0 < count_places() <= 2 * limit
    # The control: without the limit by address, the same connections take many of OpenVPN's places.
    chain = ["inet", "drawbridge", "untracked"]
    rule = re.search(
        r'counter name "sessions".*# handle (\d+)', run_checked(gateway, "nft", "-a", "list", "chain", *chain)
    )
    assert rule
    with stacks.without_agent(gateway):
        run_checked(gateway, "nft", "delete", "rule", *chain, "handle", rule[1])
        try:
            with connections_held(deployed, stranger) as count_places:
                waiting.until(lambda: count_places() > 10 * limit, 40)
        finally:
            run_checked(gateway, "systemctl", "reload", "drawbridge-nftables")


@dataclass
class Operator:
    """Who gets a stack's alarms, and lets CloudWatch's time pass."""

    deployed: Deployment
    mails: list[tuple[str, str]] = field(default_factory=list)
    """Alarm and state of each message since the last `forget`."""

    def __post_init__(self) -> None:
        sqs, sns = self.deployed.client("sqs"), self.deployed.client("sns")
        self.queue = sqs.create_queue(QueueName="mail")["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]
        (topic,) = (topic["TopicArn"] for topic in sns.list_topics()["Topics"])
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=attributes["QueueArn"])

    def has_mail(self, alarm: str, state: str) -> bool:
        """Return whether a message has come."""
        sqs = self.deployed.client("sqs")
        while batch := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                published = json.loads(json.loads(message["Body"])["Message"])
                self.mails.append((published["AlarmName"].partition("-alarm-")[2], published["NewStateValue"]))
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return (alarm, state) in self.mails

    def forget(self) -> None:
        """Read all messages and forget them."""
        self.has_mail("", "")
        self.mails.clear()

    def wait_state(self, alarm: str, state: str) -> None:
        """Let time pass with the gateway's own metrics every five minutes until an alarm is in a state."""
        alarms = self.deployed.client("cloudwatch")
        for _ in range(6):
            run_checked(self.deployed.gateway, "systemctl", "start", "drawbridge-metrics")
            self.deployed.region.set_clock_forward(300)
            described = alarms.describe_alarms()["MetricAlarms"]
            states = {entry["AlarmName"].partition("-alarm-")[2]: entry["StateValue"] for entry in described}
            if states[alarm] == state:
                return
        raise AssertionError(f"{alarm} is not {state} within 30 minutes: {states}")

    def wait_mail(self, alarm: str, state: str, *, minutes: int, sends: bool) -> None:
        """Let time pass until a message has come, with the gateway's own metrics every five minutes if it `sends`."""
        for _ in range(0, minutes, 5):
            if sends:
                run_checked(self.deployed.gateway, "systemctl", "start", "drawbridge-metrics")
            self.deployed.region.set_clock_forward(300)
            if self.has_mail(alarm, state):
                return
        raise AssertionError(f"no message within {minutes} minutes, but {self.mails}")


def wait_ready(gateway: Host) -> None:
    """Wait until the agent says, in this boot, that all is well, whichever release that is."""
    stacks.run_agent(gateway)
    report = ["grep", "--quiet", '"state": "ready"', "/run/drawbridge/report.json"]
    waiting.until(lambda: gateway.run(report).returncode == 0, BOOT)


@pytest.fixture(scope="module")
def operator(deployed: Deployment) -> Operator:
    """For tests that run after the stack has got alarms."""
    return Operator(deployed)


@pytest.mark.fault("4.7")
def test_a_gateway_that_is_not_ready_or_silent_sends_its_operator_mail(
    deployed: Deployment, alice: Host, operator: Operator
) -> None:
    ssm, gateway, parameter = deployed.client("ssm"), deployed.gateway, deployed.names.release
    pointer = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    # A state that they have already, since before the operator was there, sends no message.
    operator.wait_state("heartbeat", "OK")
    operator.wait_state("not-ready", "OK")
    operator.forget()

    ssm.put_parameter(Name=parameter, Value="no pointer to a release", Overwrite=True)
    try:
        stacks.run_agent(gateway)
        operator.wait_mail("not-ready", "ALARM", minutes=30, sends=True)
        assert ping(alice, deployed.outputs["privateIp"], TUNNEL) is not None, "the last good release runs"
    finally:
        ssm.put_parameter(Name=parameter, Value=pointer, Overwrite=True)
    wait_ready(deployed.gateway)
    operator.wait_mail("not-ready", "OK", minutes=30, sends=True)
    assert not operator.has_mail("heartbeat", "ALARM"), "the control"

    run_checked(gateway, "systemctl", "stop", "drawbridge-metrics.timer")
    try:
        operator.wait_mail("heartbeat", "ALARM", minutes=30, sends=False)
    finally:
        run_checked(gateway, "systemctl", "start", "drawbridge-metrics.timer")
    operator.wait_mail("heartbeat", "OK", minutes=30, sends=True)


@pytest.mark.fault("3.8", "3.12")
@pytest.mark.seed("0.5")
def test_an_instance_that_fails_ec2_s_check_is_rebooted_which_changes_nothing(
    deployed: Deployment, alice: Host, operator: Operator
) -> None:
    before, leader = _configuration(deployed.gateway), deployed.gateway.leader
    deployed.region.fail_check(deployed.outputs["gatewayInstanceId"], "Instance")
    operator.wait_mail("instance-check", "ALARM", minutes=15, sends=False)
    again = waiting.until(lambda: _rebooted(lambda: deployed.gateway, leader), BOOT)
    again.wait_booted(BOOT)

    assert ping(alice, deployed.outputs["privateIp"], TUNNEL) is not None
    assert _configuration(again) == before
    assert run_checked(again, "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_timeout_established").strip() == "7440"
    assert run_checked(again, "cloud-init", "status").strip() == "status: done"


@contextmanager
def mirror_closed(deployed: Deployment) -> Iterator[None]:
    """Have the mirror's port on the lab's Internet closed, which refuses connections."""
    internet = ("ip", "netns", "exec", f"{deployed.gateway.namespace.partition('-')[0]}-internet")
    rules = f"""table ip mirror {{
        chain input {{
            type filter hook input priority 0; policy accept;
            ip daddr {MIRROR} tcp dport 80 reject with tcp reset
        }}
    }}"""
    subprocess.run([*internet, "nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*internet, "nft", "delete", "table", "ip", "mirror"], check=True)


@pytest.mark.fault("3.11", "3.12", "4.9")
def test_a_first_boot_without_a_mirror_that_is_cut_off_ends_with_a_gateway(
    deployed: Deployment, alice: Host, operator: Operator
) -> None:
    """EC2 recovers an instance by a power cut, after which it boots on another host."""
    instance, leader = deployed.outputs["gatewayInstanceId"], deployed.gateway.leader

    def says_so_on_its_console() -> bool:
        # Without packages it has no boto3, with which it would write its report.
        output = deployed.client("ec2").get_console_output(InstanceId=instance, Latest=True).get("Output", "")
        return "failed: no agent: apt-get install failed" in output

    with mirror_closed(deployed):
        deployed.client("ec2").create_replace_root_volume_task(InstanceId=instance)
        first = waiting.until(lambda: _rebooted(lambda: deployed.gateway, leader), BOOT)
        waiting.until(says_so_on_its_console, BOOT)
        assert first.run(["test", "-e", "/usr/sbin/openvpn"]).returncode == 1
        deployed.region.fail_check(instance, "System")
        operator.wait_mail("system-check", "ALARM", minutes=15, sends=False)
        waiting.until(lambda: _rebooted(lambda: deployed.gateway, first.leader), BOOT)
    deployed.gateway.wait_booted(BOOT)

    wait_ready(deployed.gateway)
    assert ping(alice, deployed.outputs["privateIp"], TUNNEL) is not None


def test_destroy_leaves_nothing_of_the_stack(deployed: Deployment) -> None:
    """Runs last: it takes the stack away that the others use."""
    refused = r"aws:ec2/subnet:Subnet .*DependencyViolation"
    with deployed.environment(), pytest.raises(EngineError, match=refused):  # the private host is no resource of it
        create_engine(deployed.region, "lab", stacks.world_config("lab")).destroy()
    assert destroy_stack(deployed.region, "lab", lambda _: None) == []
    ec2, ssm = deployed.client("ec2"), deployed.client("ssm")
    mine = [{"Name": "tag:Stack", "Values": ["lab"]}]

    assert ssm.get_parameters_by_path(Path=deployed.names.root, Recursive=True)["Parameters"] == []
    assert deployed.client("s3").list_buckets()["Buckets"] == []
    assert [r["RoleName"] for r in deployed.client("iam").list_roles()["Roles"] if "drawbridge" in r["RoleName"]] == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_vpcs(Filters=mine)["Vpcs"] == []
    waiting.until(
        lambda: (
            not any(
                i["id"] == deployed.outputs["gatewayInstanceId"] and i["leader"]
                for i in deployed.region.status()["instances"]
            )
        ),
        20,
    )


def _from(host: Host, call: str) -> str:
    """`ok`, or the error code of an AWS call made on a machine with the credentials it has there."""
    return promises.call_aws(host, call)[call]


def _configuration(host: Host) -> str:
    """All that configures a gateway: its files, its rules without their counters, its units, its forwarding."""
    files = run_checked(
        host,
        "sh",
        "-c",
        "find /etc/openvpn /etc/drawbridge /etc/ssh /etc/systemd /etc/sysctl.d -type f | sort | xargs sha256sum",
    )
    rules = re.sub(r"(packets|bytes) \d+", "", run_checked(host, "nft", "list", "ruleset"))
    rules = without_dynamic_elements(rules)
    units = run_checked(host, "sh", "-c", "systemctl list-unit-files --state=enabled,masked --no-legend | sort")
    return "\n".join((files, rules, units, run_checked(host, "sysctl", "net.ipv4.ip_forward")))


def _rebooted(find: Callable[[], Host], leader: int | None) -> Host | None:
    """The machine once its PID 1 is another one."""
    host = find()
    return host if host.leader != leader else None


def test_the_lab_keeps_its_directory_to_root(deployed: Deployment) -> None:
    assert Path(deployed.region.directory).stat().st_mode & 0o077 == 0
