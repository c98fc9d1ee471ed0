"""Cutting sessions over the management socket. Its server is a stand-in: this does not prove what OpenVPN does."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateway
from userdata.files import agent


class Management:
    """Stand-in for OpenVPN's management interface: greets, answers `status 3` and `client-kill`, notes the latter."""

    def __init__(self, path: Path, sessions: dict[int, str], *, mute: bool = False) -> None:
        self.kills: list[str] = []
        self.sessions, self.mute = sessions, mute
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rw", newline="") as stream:
                stream.write(">INFO:OpenVPN Management Interface Version 5\r\n")
                stream.flush()
                for line in stream:
                    if not self.mute:
                        stream.write("".join(f"{answer}\r\n" for answer in self._answer(line.strip())))
                        stream.flush()

    def _answer(self, command: str) -> Iterator[str]:
        if command == "status 3":
            yield "TITLE\tOpenVPN"
            yield ">CLIENT:ADDRESS,1,10.8.0.2,1"
            yield from (gateway.SESSION.format(name=name, cid=cid) for cid, name in self.sessions.items())
            yield "END"
        elif self.sessions.pop(int(command.split()[1]), None):
            self.kills.append(command)
            yield "SUCCESS: client-kill command succeeded"
        else:
            yield "ERROR: client-kill command failed"


@pytest.fixture
def machine(tmp_path: Path) -> agent.GatewayMachine:
    machine = agent.GatewayMachine(tmp_path, gateway.ServicesStub(tmp_path), gateway.USER)
    machine.runtime_directory("server").mkdir(parents=True)
    releases = {
        "old": gateway.build_release(revoked={1: "bob"}),
        "gone": gateway.build_release(gateway.tunnel_without(("alice",)), revoked=[1, 2]),
        "rekeyed": gateway.build_release(revoked={1: "bob", 2: "alice"}),
    }
    for name, release in releases.items():
        machine.unpack_release(name, release.archive)
    return machine


def serve(machine: agent.GatewayMachine, *, mute: bool = False) -> Management:
    return Management(machine.runtime_directory("server") / "mgmt.sock", {7: "alice", 8: "bob", 9: "alice"}, mute=mute)


@pytest.mark.parametrize(
    ("release", "kills"),
    [
        ("old", []),
        ("gone", ["client-kill 7 HALT", "client-kill 9 HALT"]),
        ("rekeyed", ["client-kill 7", "client-kill 9"]),
    ],
)
def test_only_sessions_of_the_revoked_end(machine: agent.GatewayMachine, release: str, kills: list[str]) -> None:
    server = serve(machine)
    try:
        machine.end_revoked_sessions("old", machine.read_release_revocations(release))
    finally:
        server.close()
    assert server.kills == kills


def test_no_openvpn_no_sessions(machine: agent.GatewayMachine) -> None:
    machine.end_revoked_sessions("old", machine.read_release_revocations("gone"))


def test_a_client_that_left_meanwhile_is_no_error(machine: agent.GatewayMachine) -> None:
    server = serve(machine)
    try:
        assert agent.send_management_commands(
            machine.runtime_directory("server") / "mgmt.sock", ["client-kill 99 HALT", "client-kill 7"]
        ) == [
            "ERROR: client-kill command failed",
            "SUCCESS: client-kill command succeeded",
        ]
    finally:
        server.close()


@pytest.mark.fault("1.6")
def test_silence_is_an_error_in_bounded_time(machine: agent.GatewayMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MANAGEMENT_TIMEOUT", 0.2)
    server = serve(machine, mute=True)
    try:
        with pytest.raises(agent.FailedError, match=r"mgmt\.sock"):
            machine.end_revoked_sessions("old", machine.read_release_revocations("gone"))
    finally:
        server.close()
