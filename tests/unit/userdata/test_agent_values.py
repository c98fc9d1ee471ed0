"""The agent's reading of what it is given. Does not prove that AWS, OpenVPN or tar write it this way."""

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userdata import release
from userdata.files import agent

SHA = "0123456789abcdef" * 4


def test_env_is_read_without_comments_and_blank_lines() -> None:
    assert agent.read_env("# names\n\nREGION=eu-west-1\n A = b=c \n") == {"REGION": "eu-west-1", "A": "b=c"}


def test_pointer() -> None:
    text = json.dumps({"bucket": "b", "key": "k", "sha256": SHA})
    assert agent.read_pointer(text) == agent.Pointer(bucket="b", key="k", sha256=SHA)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"bucket": "b", "key": "k"}', '{"bucket":'])
def test_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(agent.RefusedError, match="not a pointer"):
        agent.read_pointer(text)


@pytest.mark.parametrize("sha", ["", "../../etc", SHA.upper(), SHA[1:], SHA + "0"])
def test_pointer_to_what_is_no_digest_is_refused(sha: str) -> None:
    with pytest.raises(agent.RefusedError, match="SHA-256"):
        agent.read_pointer(json.dumps({"bucket": "b", "key": "k", "sha256": sha}))


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"format": 2, "instances": [], "secrets": []}, "format 2"),
        ({"format": 1, "instances": ["../x"], "secrets": []}, "'../x'"),
        ({"format": 1, "instances": [7], "secrets": []}, "7"),
        ({"format": 1}, "unreadable"),
        ({"format": 1, "instances": "server", "secrets": []}, "not a list"),
        ({"format": 1, "instances": [], "secrets": [], "configs": 7}, "unreadable"),
        ({"format": 1, "instances": [], "secrets": [["key"]]}, "unreadable"),
        ([], "unreadable"),
    ],
)
def test_manifest_not_understood_is_refused(manifest: object, reason: str) -> None:
    with pytest.raises(agent.RefusedError, match=reason):
        agent.read_manifest(json.dumps(manifest))


@given(st.builds(agent.Generation, st.text(), st.text()) | st.none(), st.text(), st.text())
def test_state_survives_writing_and_reading(generation: agent.Generation | None, reason: str, reported: str) -> None:
    state = agent.AgentState(applied=generation, refused=generation, reason=reason, reported=reported)
    assert agent.read_state(json.dumps(asdict(state))) == state


@given(
    changes=st.dictionaries(
        st.sampled_from(["format", "instances", "secrets", "unit", "configs", "beside", "bundles"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_a_manifest_with_any_values_is_read_or_refused(changes: dict[str, object]) -> None:
    text = json.dumps({"format": agent.FORMAT, "instances": ["server"], "secrets": ["key"], **changes})
    try:
        manifest = agent.read_manifest(text)
    except agent.RefusedError:
        return
    assert all(agent.is_plain(name) for name in (*manifest.instances, *manifest.files, *manifest.beside))


@pytest.mark.parametrize("read", [agent.read_pointer, agent.read_manifest])
def test_nested_too_deep_is_refused(read: Callable[[str], object]) -> None:
    with pytest.raises(agent.RefusedError):
        read("[" * 100_000)


@pytest.mark.fault("2.11")
@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"applied": 7}', '{"unknown": 1}'])
def test_damaged_state_counts_as_none(text: str) -> None:
    assert agent.read_state(text) == agent.AgentState()


def parameter(name: str, version: int, seconds: int = 0) -> dict[str, Any]:
    modified = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return {"Name": name, "Version": version, "LastModifiedDate": modified, "Value": "secret"}


def test_identity_of_secrets() -> None:
    first, second = parameter("/a", 1), parameter("/b", 1)
    assert agent.identify_secrets([first, second]) == agent.identify_secrets([second, first])
    assert agent.identify_secrets([first]) != agent.identify_secrets([parameter("/a", 2)])
    assert agent.identify_secrets([first]) != agent.identify_secrets([parameter("/a", 1, 5)]), "deleted and made again"
    assert agent.identify_secrets([first]) == agent.identify_secrets([first | {"Value": "as ciphertext"}])


def test_a_secret_shows_its_name_only() -> None:
    assert repr(agent.Secret("server.key", "PRIVATE")) == "Secret('server.key')"


def packed(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 1, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size if kind == tarfile.REGTYPE else 0, target
    return info


def test_members_of_an_archive() -> None:
    archive = packed(
        member("ccd", tarfile.DIRTYPE), member("ccd/alice", size=2), member("root/a@.service.d/b_c-1.conf")
    )
    assert list(agent.read_archive(archive)) == [
        (PurePosixPath("ccd"), None),
        (PurePosixPath("ccd/alice"), b"xx"),
        (PurePosixPath("root/a@.service.d/b_c-1.conf"), b"x"),
    ]


@pytest.mark.attack("10.9")
@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/.ssh/x", "a\nb", "a b", "ä", "."])
def test_paths_that_leave_or_hide_are_refused(name: str) -> None:
    with pytest.raises(agent.RefusedError, match="path"):
        list(agent.read_archive(packed(member(name))))


@pytest.mark.attack("10.9")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_all_but_files_and_directories_is_refused(kind: bytes) -> None:
    with pytest.raises(agent.RefusedError, match="neither"):
        list(agent.read_archive(packed(member("a", kind, target="/etc/shadow"))))


@pytest.mark.attack("10.9")
def test_a_path_twice_is_refused() -> None:
    with pytest.raises(agent.RefusedError, match="'a' twice"):
        list(agent.read_archive(packed(member("a"), member("a"))))


@pytest.mark.attack("10.9")
def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MAX_FILES", 2)
    assert len(list(agent.read_archive(packed(member("a"), member("b"))))) == 2
    with pytest.raises(agent.RefusedError, match="more than"):
        list(agent.read_archive(packed(member("a"), member("b"), member("c"))))
    monkeypatch.setattr(agent, "MAX_UNPACKED", 9)
    with pytest.raises(agent.RefusedError, match="more than"):
        list(agent.read_archive(packed(member("a", size=10))))


@pytest.mark.fault("2.4")
@given(st.data())
def test_a_damaged_archive_is_refused_or_whole(data: st.DataObject) -> None:
    """Whatever is cut off or changed: never another error, never a file with another content than it had."""
    archive = release.pack({"a": b"first" * 50, "b": b"second"})
    cut = data.draw(st.integers(0, len(archive) - 1))
    flip = data.draw(st.integers(1, 255))
    flipped = archive[:cut] + bytes([archive[cut] ^ flip]) + archive[cut + 1 :]
    with pytest.raises(agent.RefusedError):
        # tar itself does not see a cut in its closing zeros, so a digest stands before this one.
        list(agent.read_archive(archive[: min(cut, len(archive) // 2)]))
    try:
        list(agent.read_archive(flipped))
    except agent.RefusedError:
        pass
    else:
        assert zlib.crc32(flipped) != zlib.crc32(archive)


def test_sessions() -> None:
    status = (
        "TITLE\tOpenVPN 2.6.14",
        "HEADER\tCLIENT_LIST\tCommon Name\tReal Address",
        "CLIENT_LIST\talice\tudp4:1.2.3.4:5\t10.8.0.2\t\t1\t2\tnow\t0\tUNDEF\t17\t0\tAES-256-GCM",
        "CLIENT_LIST\tUNDEF\t1.2.3.4:6",
        "ROUTING_TABLE\t10.8.0.2\talice\t1.2.3.4:5\tnow\t0",
        "END",
    )
    assert agent.read_sessions(status) == [agent.Session("alice", 17)]


def test_cuts() -> None:
    sessions = [agent.Session("alice", 1), agent.Session("bob", 2), agent.Session("carol", 3)]
    assert agent.kill_commands(sessions, allowed={"alice", "bob"}, rekeyed={"bob"}) == [
        "client-kill 2",
        "client-kill 3 HALT",
    ]
    assert agent.kill_commands(sessions, allowed={"alice", "bob", "carol"}, rekeyed=set()) == []


def test_units_as_systemctl_shows_them() -> None:
    shown = "Id=a.service\nActiveState=active\nSubState=exited\n\nSubState=running\nId=b.service\nActiveState=active\n"
    assert agent.read_units(shown) == {"a.service": ("active", "exited"), "b.service": ("active", "running")}
    assert agent.read_units("") == {}


def test_a_report_is_news_only_if_it_says_something_else() -> None:
    report = agent.Report("ready", SHA, SHA, "", "i-1")
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    assert report.text(early) != report.text(late)
    assert "time" not in report.content()
    assert json.loads(report.text(early)) == {
        "state": "ready",
        "release": SHA,
        "running": SHA,
        "reason": "",
        "instance": "i-1",
        "units": [],
        "repaired": [],
        "software": {},
        "offloaded": None,
        "time": "2026-01-01T00:00:00+00:00",
    }


def test_the_longest_report_fits_a_parameter() -> None:
    report = agent.failed_report(
        agent.Report("ready", SHA, SHA, "", "i-0123456789abcdef0"), agent.FailedError("ä" * 9_999)
    )
    units = tuple(f"openvpn-server@server{number}.service" for number in range(2))
    repairs = agent.add_repairs((), (f"{number}{'ä' * 999}" for number in range(9)), datetime.now(UTC))
    report = replace(report, units=units, repaired=repairs)
    assert len(report.text(datetime.now(UTC)).encode()) <= 4_096
