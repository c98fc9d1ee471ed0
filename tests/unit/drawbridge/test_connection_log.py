"""`drawbridge client history` on moto's CloudWatch Logs. Does not prove that a gateway writes such events."""

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from contract import Names
from drawbridge.commands.root import cli
from drawbridge.operate import connection_log
from drawbridge.operate.account import Account

from .conftest import STACK, Enrol, Write, entry


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["client", "history", *arguments, "--stack", STACK])


def test_a_clients_history_fits_80_columns(write: Write) -> None:
    write(
        entry("connected", 200),
        entry("displaced", 100, seconds=6000.0, received=2902, sent=5_000_000, byAddress="198.51.100.9", byPort=4711),
        entry("connected", 100, address="198.51.100.9", port=4711),
        entry(
            "disconnected", 50, address="198.51.100.9", port=4711, seconds=3000, received=0, sent=1, reason="timeout"
        ),
        entry("refused", 10, reason="revoked", count=4),
        entry("connected", 5, client="bob"),
    )
    result = run("alice")
    assert result.exit_code == 0, result.output
    rows = [line[18:].split("  ") for line in result.stdout.splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["from", "event", "lasted", "in", "out"],
        ["203.0.113.7:40001", "connected"],
        ["203.0.113.7:40001", "displaced by 198.51.100.9:4711", "1h 40m", "2.9 kB", "5.0 MB"],
        ["198.51.100.9:4711", "connected"],
        ["198.51.100.9:4711", "disconnected: timeout", "50m 0s", "0 B", "1 B"],
        ["203.0.113.7:40001", "refused 4 times: revoked"],
    ]
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_json_has_every_figure(write: Write) -> None:
    write(entry("disconnected", 5, seconds=3.5, received=1, sent=2, reason="exit"))
    (event,) = json.loads(run("alice", "--json").stdout)
    assert (event["event"], event["seconds"], event["received"], event["sent"]) == ("disconnected", 3.5, 1, 2)
    assert (event["address"], event["port"], event["reason"], event["count"]) == ("203.0.113.7", 40001, "exit", None)


def test_events_of_many_pages_and_both_gateways_are_in_order_and_once(deployed: Account, write: Write) -> None:
    """A request returns a part of the events; who reads one page sees the oldest ones."""

    def limit_pages(params: dict[str, Any], **_: object) -> None:
        params["limit"] = 3

    deployed.session.events.register("before-parameter-build.logs.FilterLogEvents", limit_pages)
    write(*(entry("connected", 30, id=str(number), client=f"c{number % 2}") for number in range(20)))
    write(entry("disconnected", 1, client="c0"), entry("disconnected", 1, client="c0"))
    write(entry("refused", 2, client="c0", reason="revoked"), names=Names(STACK, "b"))
    events = connection_log.read_history(deployed, "c0", timedelta(days=1))
    assert len(events) == 10 + 2
    assert [event.event for event in events[-2:]] == ["refused", "disconnected"]


def test_what_others_write_to_the_log_reaches_no_terminal_and_stops_nothing(write: Write) -> None:
    write("no JSON", "[]", '"alice"', {"client": "alice"}, entry("connected", 3, port="x"), entry("connected", 2))
    write(entry("refused", 1, reason="\x1b[2J"))
    result = run("alice")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert "\x1b" not in result.stdout and "\\x1b[2J" in result.stdout


def test_events_before_the_period_are_left_out(deployed: Account, write: Write, enrol: Enrol) -> None:
    write(entry("connected", 1))
    enrol("alice")
    assert connection_log.read_history(deployed, "alice", timedelta(hours=1))
    time.sleep(0.01)
    assert connection_log.read_history(deployed, "alice", timedelta(0)) == []


@pytest.mark.parametrize("period", ["7", "d", "0d", "7y", "-1d", "7d7h", "1e3d"])
def test_a_period_that_is_none(period: str) -> None:
    result = run("alice", "--since", period)
    assert result.exit_code == 2
    assert f"{period} is not a period; use one such as 30m, 12h, 7d or 4w" in " ".join(result.stderr.split())


def test_a_client_that_has_not_connected(write: Write, enrol: Enrol) -> None:
    write(entry("connected", 1, client="bob"))
    enrol("alice")
    assert run("alice").stdout == "alice has not connected within this time\n"
    assert run("alice", "--json").stdout == "[]\n"


def test_a_client_that_is_not_there(write: Write) -> None:
    write(entry("connected", 1))
    result = run("nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "stack team has no client nobody" in result.stderr and "--since 90d" in result.stderr


def test_a_client_that_was_removed_still_has_a_history(write: Write) -> None:
    write(entry("connected", 1))
    assert run("alice").exit_code == 0


def test_without_a_log_it_says_how_to_have_one(deployed: Account) -> None:
    result = run("alice")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "stack team has no connection log" in result.stderr and "drawbridge:log" in result.stderr


def test_without_a_stack_it_says_so(account: Account) -> None:
    result = run("alice")
    assert result.exit_code == 1
    assert "is it deployed, and in this region?" in result.stderr


def test_a_log_without_events_is_no_error(deployed: Account, enrol: Enrol) -> None:
    deployed.client("logs").create_log_group(logGroupName=deployed.names.connections)
    enrol("alice")
    assert run("alice").stdout == "alice has not connected within this time\n"


def journal(age: float, message: str, unit: str = "drawbridge-agent") -> dict[str, Any]:
    return {"event": "journal", "time": entry("connected", age)["time"], "unit": unit, "message": message}


def show_logs(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["gateway", "logs", "--no-login", *arguments, "--stack", STACK])


def test_the_errors_of_a_gateway_are_read_without_a_login(write: Write) -> None:
    write(
        journal(30, "the first"),
        entry("connected", 25),
        journal(20, "Options error: \x1b[2J", "openvpn-server@server"),
        {"event": "journal", "time": "never"},
    )
    twice = journal(10, "release refused")
    write(twice, twice)
    write(journal(5, "the other gateway's"), names=Names(STACK, "b"))
    result = show_logs("--lines", "2")
    assert result.exit_code == 0, result.output
    assert [line.partition(" ")[2] for line in result.stdout.splitlines()] == [
        "openvpn-server@server: Options error: \\x1b[2J",
        "drawbridge-agent: release refused",
    ]
    assert len(show_logs().stdout.splitlines()) == 3
    assert show_logs("--lines", "0").stdout == ""
    second = show_logs("--second")
    assert second.stdout.endswith("drawbridge-agent: the other gateway's\n") and second.stdout.count("\n") == 1


def test_without_a_log_or_to_follow_it_a_login_is_needed(deployed: Account) -> None:
    result = show_logs()
    assert (result.exit_code, "has no connection log" in result.output) == (1, True)
    result = show_logs("--follow")
    assert (result.exit_code, "--follow needs a login" in result.output) == (2, True)
