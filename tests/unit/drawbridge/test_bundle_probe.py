"""Bundles against a real OpenVPN on a loopback of its own: each thing that can be wrong, told by its own name.

Does not prove: what a network in between does (tests/lab/test_modes.py does).
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from drawbridge import errors
from drawbridge.operate import bundle_probe
from lab.linux import within
from openvpn.bundle import render_bundle
from openvpn.listener import Listener
from openvpn.model import Tunnel
from openvpn.profile import render_profile
from pki import tls_crypt
from pki.authority import CertificateAuthority, Leaf
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.waiting import Lateness, until


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "needs root for a network namespace"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    absent = [tool for tool in ("openvpn", "ip", "nsenter", "setpriv", "unshare") if not shutil.which(tool)]
    return f"needs {', '.join(absent)} on PATH" if absent else None


pytestmark = [pytest.mark.allow_subprocess, pytest.mark.skipif(_missing() is not None, reason=str(_missing()))]

DAY = timedelta(days=1)
NAME = "gateway.test"


@dataclass
class Server:
    """A running OpenVPN that takes no packets, and what its clients have of it."""

    tunnel: Tunnel
    authority: CertificateAuthority
    key: str
    directory: Path
    namespace: NetworkNamespace

    def probe(self, bundle: str) -> bundle_probe.Verdict:
        return within(str(self.namespace.path), lambda: bundle_probe.probe_bundle(bundle))

    def leaf(self, name: str = "alice") -> Leaf:
        return self.authority.issue_client(name, DAY, datetime.now(UTC))

    def bundle(self, leaf: Leaf | None = None, **changed: str) -> str:
        leaf = leaf or self.leaf()
        remote, name = changed.get("remote", "127.0.0.1"), changed.get("name", NAME)
        profile = render_profile(self.tunnel, remote, name)
        wrapped = tls_crypt.client_key(changed.get("key", self.key))
        ca = changed.get("ca", self.authority.certificate)
        return render_bundle(profile, ca, leaf.certificate, leaf.key, wrapped)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


PORTS = iter(range(1194, 2000))


@pytest.fixture(scope="module")
def namespace() -> Iterator[NetworkNamespace]:
    """A network of its own, with a loopback and nothing else."""
    with network_namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module", params=["udp", "tcp"])
def start(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, namespace: NetworkNamespace
) -> Iterator[Callable[..., Server]]:
    protocol, running = request.param, list[subprocess.Popen[bytes]]()
    authority = CertificateAuthority.create("Test CA", 2 * DAY, datetime.now(UTC))

    def run(*options: str) -> Server:
        directory = tmp_path_factory.mktemp("server")
        port = next(PORTS)
        tunnel = Tunnel(pool=IPv4Network("10.8.0.0/24"), listener=Listener(protocol, (port,)))
        server = Server(tunnel, authority, tls_crypt.server_key(), directory, namespace)
        leaf = authority.issue_server(NAME, DAY, datetime.now(UTC))
        files = {"ca": authority.certificate, "cert": leaf.certificate, "key": leaf.key, "tls-crypt-v2": server.key}
        for name, text in files.items():
            (directory / name).touch(mode=0o600)
            (directory / name).write_text(text)
        (directory / "revoked").mkdir()
        proto = "tcp-server" if protocol == "tcp" else "udp"
        argv = namespace.enter("openvpn", "--cd", str(directory), "--mode", "server", "--tls-server")
        argv += ["--dev", "tun", "--dh", "none", "--disable-dco"]
        argv += ["--local", "127.0.0.1", "--port", str(port), "--proto", proto, "--keepalive", "10", "120"]
        argv += [word for name in files for word in (f"--{name}", name)]
        argv += ["--remote-cert-tls", "client", "--crl-verify", "revoked", "dir", "--verb", "4", *options]
        with (directory / "log").open("wb") as log:
            running.append(subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT))
        until(lambda: "Initialization Sequence Completed" in server.log or running[-1].poll() is not None, 60)
        assert running[-1].poll() is None, server.log
        return server

    yield run
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Server:
    return start()


def test_a_good_bundle_is_fine_and_makes_no_client(server: Server) -> None:
    with Lateness() as late:
        verdict = server.probe(server.bundle())
    assert verdict.state == "fine", (verdict, server.log)
    assert verdict.seconds < bundle_probe.TIME_LIMIT + late.seconds
    assert "[alice]" not in server.log, "no peer: a session that lives is not ended"


def test_a_server_that_remembers_nobody_is_asked_as_it_wants(start: Callable[..., Server]) -> None:
    """2.6's cookies: the wrapped key has to come twice."""
    strict = start("--tls-crypt-v2", "tls-crypt-v2", "force-cookie")
    assert strict.probe(strict.bundle()).state == "fine", strict.log


def test_another_gateway_s_key(server: Server) -> None:
    found = server.probe(server.bundle(key=tls_crypt.server_key()))
    if server.tunnel.listener.protocol == "tcp":
        assert (found.state, found.finding.split(",")[0]) == ("configuration", "something listens")
    else:
        assert found.state == "unanswered" and "either the bundle is another gateway's" in found.finding
    assert server.probe(server.bundle()).state == "fine", "the control"


def test_another_authority_s_certificate_and_another_name(server: Server) -> None:
    stranger = CertificateAuthority.create("Stranger", 2 * DAY, datetime.now(UTC))
    for bundle, why in (
        (server.bundle(ca=stranger.certificate), "signature failure|self-signed|local issuer"),
        (server.bundle(name="other.test"), f"it is {NAME}'s, not other.test's"),
    ):
        found = server.probe(bundle)
        assert found.state == "configuration" and "the bundle refuses" in found.finding
        assert any(part in found.finding for part in why.split("|")), found


def test_a_certificate_that_the_gateway_refuses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_probe, "TIME_LIMIT", 3.0)
    stranger = CertificateAuthority.create("Stranger", 2 * DAY, datetime.now(UTC))
    revoked = server.leaf()
    (server.directory / "revoked" / str(revoked.serial)).touch()
    for leaf in (revoked, stranger.issue_client("alice", DAY, datetime.now(UTC))):
        found = server.probe(server.bundle(leaf))
        assert found.state == "configuration" and "falls silent at its certificate" in found.finding, (
            found,
            server.log,
        )
    assert "is revoked" in server.log


def test_nothing_listens(server: Server) -> None:
    shut = replace(
        server, tunnel=replace(server.tunnel, listener=replace(server.tunnel.listener, ports=(next(PORTS),)))
    )
    found = shut.probe(shut.bundle())
    assert found.state == "nothing" and "nothing listens" in found.finding


def test_a_name_that_nobody_has(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert server.probe(server.bundle(remote="gateway.invalid")).state == "address"


def test_a_certificate_that_has_ended_is_known_without_a_packet(server: Server) -> None:
    old = server.authority.issue_client("alice", DAY, datetime.now(UTC) - timedelta(days=30))
    found = server.probe(server.bundle(old, remote="192.0.2.1"))
    assert found.state == "configuration" and "ended on" in found.finding


def test_a_bundle_from_before_or_after_a_renewal_of_the_authority_is_fine(server: Server) -> None:
    renewed = server.authority.renew(2 * DAY, datetime.now(UTC))
    assert server.probe(server.bundle(ca=renewed.certificate)).fine
    assert server.probe(server.bundle(renewed.issue_client("alice", DAY, datetime.now(UTC)))).fine


@pytest.mark.parametrize(
    ("issued", "finding", "remedy"),
    [
        (-2 * DAY, "the gateway's certificate has ended; this machine's clock says 20", "pulumi up --stack NAME"),
        (1.5 * DAY, "the gateway's certificate is not valid yet; this machine's clock says 20", "machine's clock"),
    ],
)
def test_a_gateway_whose_certificate_has_ended_or_is_from_later(
    start: Callable[..., Server], server: Server, tmp_path: Path, issued: timedelta, finding: str, remedy: str
) -> None:
    leaf = server.authority.issue_server(NAME, DAY, datetime.now(UTC) + issued)
    options = []
    for option, text in (("--cert", leaf.certificate), ("--key", leaf.key)):
        path = tmp_path / option
        path.touch(mode=0o600)
        path.write_text(text)
        options += [option, str(path)]
    ended = start(*options)
    verdict = ended.probe(ended.bundle())
    assert verdict.state == "configuration"
    assert verdict.finding.startswith(finding) and verdict.remedy.endswith(remedy)


def test_lines_may_end_as_on_windows(server: Server) -> None:
    assert server.probe(server.bundle().replace("\n", "\r\n")).state == "fine"


@pytest.mark.parametrize("text", ["", "client\n", "remote 192.0.2.1 1194\nproto udp\nverify-x509-name x name\n"])
def test_a_text_that_is_no_bundle(server: Server, text: str) -> None:
    with pytest.raises(errors.BundleFileError, match="this is not a bundle"):
        server.probe(text)


def test_keys_leave_no_file_behind(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert server.probe(server.bundle()).state == "fine"
    assert list(tmp_path.iterdir()) == []
