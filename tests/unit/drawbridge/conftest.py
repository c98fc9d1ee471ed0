"""A stack's AWS, in this process, and a gateway's SSH server, on loopback."""

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import boto3
import paramiko
import pytest
from moto import mock_aws
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

import contract
from contract import Names
from drawbridge.operate.account import Account
from lab.api.moto_patches import add_ipam_pools, patched
from openvpn.bundle import render_bundle
from pki import ssh as ssh_keys
from pki.authority import CertificateAuthority, Leaf

STACK = "team"
REGION = "eu-west-1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

Write = Callable[..., None]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Where stack `team` lives; empty."""
    with mock_aws(), patched(add_ipam_pools):
        monkeypatch.setenv("AWS_REGION", REGION)
        yield Account(stack=STACK, session=boto3.Session(region_name=REGION))


@dataclass
class Enrolled:
    """A client whose bundle is in SSM."""

    leaf: Leaf
    bundle: str


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("test", timedelta(days=3650), datetime.now(UTC))


@dataclass
class Enrol:
    """Puts a client's bundle where the program puts it."""

    account: Account
    authority: CertificateAuthority

    def __call__(self, name: str, *, days: int = 365) -> Enrolled:
        leaf = self.authority.issue_client(name, timedelta(days=days), datetime.now(UTC))
        bundle = render_bundle("client\n", self.authority.certificate, leaf.certificate, leaf.key, "tls-crypt\n")
        self.account.client("ssm").put_parameter(
            Name=self.account.names.bundle(name), Value=bundle, Type="SecureString", Overwrite=True
        )
        return Enrolled(leaf, bundle)


@pytest.fixture
def enrol(account: Account, authority: CertificateAuthority) -> Enrol:
    return Enrol(account, authority)


@dataclass
class SshServer(paramiko.ServerInterface):
    """One machine that speaks SSH on loopback: lets one key in, answers the commands it knows."""

    host_key: ssh_keys.HostKey
    user_key: str
    """Public key it lets in."""
    answers: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    """Start of a command -> exit code, output, errors."""
    asked: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    """Users who tried to log in."""

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.transports: list[paramiko.Transport] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def dial(self, host: str, port: int, timeout: float) -> socket.socket:
        """Whatever address is asked for, this machine is there."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def close(self) -> None:
        # A mere close would leave accept() waiting.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.listener.close()
        for transport in self.transports:
            transport.close()
            transport.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(paramiko.Ed25519Key(file_obj=io.StringIO(self.host_key.private)))
            self.transports.append(transport)
            # With an event it returns at once; a client that hangs up is then no exception here.
            transport.start_server(threading.Event(), self)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.logins.append(username)
        ok = f"{key.get_name()} {key.get_base64()}" == self.user_key
        return AUTH_SUCCESSFUL if ok else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        text = command.decode()
        self.asked.append(text)
        code, out, err = next(
            (answer for start, answer in self.answers.items() if text.startswith(start)), (127, "", "not found")
        )
        threading.Thread(target=self._answer, args=(channel, code, out, err), daemon=True).start()
        return True

    @staticmethod
    def _answer(channel: paramiko.Channel, code: int, out: str, err: str) -> None:
        # The client closes its side once it knows that the command was taken: no answer may come before that.
        channel.makefile("rb").read()
        channel.sendall(out.encode())
        channel.sendall_stderr(err.encode())
        channel.send_exit_status(code)
        channel.close()


@pytest.fixture(scope="session")
def user_key() -> ssh_keys.HostKey:
    """The operator's own key pair."""
    return ssh_keys.host_key()


@pytest.fixture
def gateway(user_key: ssh_keys.HostKey) -> Iterator[SshServer]:
    """A gateway's SSH server."""
    server = SshServer(host_key=ssh_keys.host_key(), user_key=" ".join(user_key.public.split()[:2]))
    yield server
    server.close()


@pytest.fixture
def elastic_ip(account: Account) -> str:
    """The stack's Elastic IP, beside another stack's."""
    ec2 = account.client("ec2")
    addresses = {}
    for stack in ("other", STACK):
        made = ec2.allocate_address(Domain="vpc")
        ec2.create_tags(
            Resources=[made["AllocationId"]],
            Tags=[{"Key": key, "Value": value} for key, value in contract.tags(stack, "gateway").items()],
        )
        addresses[stack] = made["PublicIp"]
    return str(addresses[STACK])


SESSION = {"client": "alice", "gateway": STACK, "process": "server", "address": "203.0.113.7", "port": 40001}


def entry(event: str, minutes_ago: float, **fields: object) -> dict[str, object]:
    """Return an event of the connection log, as the gateway writes it."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    id = f"{event}-{minutes_ago}"
    return {"event": event, "time": moment.isoformat(), "id": id, **SESSION, **fields}


@pytest.fixture
def deployed(account: Account) -> Account:
    """A stack that is deployed, without a log."""
    account.client("ssm").put_parameter(Name=account.names.release, Value="{}", Type="String")
    return account


@pytest.fixture
def write(deployed: Account) -> Write:
    """A function that writes entries, or texts, to a gateway's log."""
    logs = deployed.client("logs")

    def write(*entries: object, names: Names = deployed.names) -> None:
        if not logs.describe_log_groups(logGroupNamePrefix=names.connections)["logGroups"]:
            logs.create_log_group(logGroupName=names.connections)
            logs.create_log_stream(logGroupName=names.connections, logStreamName="i-1")
        now = int(time.time() * 1000)
        events = [
            {"timestamp": now, "message": text if isinstance(text, str) else json.dumps(text)} for text in entries
        ]
        if events:
            logs.put_log_events(logGroupName=names.connections, logStreamName="i-1", logEvents=events)

    return write
