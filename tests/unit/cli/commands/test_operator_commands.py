"""The commands that look after a cluster, as far as they go without one."""

from __future__ import annotations

from typing import Any

import pytest

from keepline.cli.cluster.trace import _steps
from keepline.cli.main import main
from keepline.room.codec import BadRecord
from keepline.room.commands import AcceptVideo, Command, End, Join, Lose, RequestVideo
from keepline.room.record import ChatMode, EndReason
from keepline.room.steps import STEP_FIELD, decode_step, encode_step
from tests.unit.signal_node.calls import SESSION_1, SESSION_2, after, opened


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command; its exit code."""
    monkeypatch.setattr("sys.argv", ["keepline", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code if isinstance(caught.value.code, int) else 0


@pytest.mark.parametrize(
    ("words", "at", "completed"),
    [
        ("keepline st", "1", ["status"]),
        ("keepline d", "1", ["doctor", "drain", "dead-letters"]),
        ("keepline rooms --stat", "2", ["--status"]),
        ("keepline rooms --status ", "3", ["active", "grace_period", "ended"]),
        ("keepline drain node-1 --un", "3", ["--undo"]),
    ],
)
def test_the_shell_completes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    at: str,
    completed: list[str],
) -> None:
    for name, value in (("COMP_WORDS", words), ("COMP_CWORD", at), ("_KEEPLINE_COMPLETE", "complete_bash")):
        monkeypatch.setenv(name, value)
    call(monkeypatch)
    assert sorted(capsys.readouterr().out.split()) == sorted(completed)


@pytest.mark.parametrize("command", ["status", "rooms", "doctor"])
def test_redis_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert call(monkeypatch, command) == 2
    assert "set REDIS_URL" in capsys.readouterr().err


def test_a_url_that_is_none_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hidden-word@db")
    assert call(monkeypatch, "doctor") == 2
    told = capsys.readouterr().err
    assert "DATABASE_URL should be" in told
    assert "hidden-word" not in told


@pytest.mark.parametrize("arguments", [["rooms", "7"], ["trace", "7"], ["rooms", "--limit", "0"], ["drain"]])
def test_wrong_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith("keepline: ")


def trace_of(*commands: Command) -> list[Any]:
    """The entries that the commits of a text room leave."""
    room = opened(chat_mode=ChatMode.TEXT)
    entries = [(b"1000-0", {STEP_FIELD: encode_step("open", room)})]
    for number, command in enumerate(commands, start=1):
        room = after(room, command)
        step = encode_step(type(command).__name__.lower(), room)
        entries.append((f"{1000 + number}-0".encode(), {STEP_FIELD: step}))
    return entries


def test_a_trace_says_which_side_did_what() -> None:
    entries = trace_of(
        Join(1, "node-1", SESSION_1),
        Join(2, "node-2", SESSION_2),
        RequestVideo(1),
        AcceptVideo(2),
        Lose(2, SESSION_2),
        End(EndReason.HANGUP),
    )
    assert [(line.at, line.side, line.what, line.detail) for line in _steps(entries)] == [
        (1000, None, "open", "text"),
        (1001, 1, "join", f"joined on node-1 by {SESSION_1[:6]}"),
        (1002, 2, "join", f"joined on node-2 by {SESSION_2[:6]}"),
        (1003, None, "requestvideo", ""),
        (1004, None, "acceptvideo", "video"),
        (1005, 2, "lose", "reconnecting"),
        (1006, None, "end", "hangup"),
    ]


def test_a_step_that_cannot_be_read_is_shown_as_such() -> None:
    with pytest.raises(BadRecord):
        decode_step(b"{}")
    (line,) = _steps([(b"1000-0", {STEP_FIELD: b"{"})])
    assert (line.what, line.side) == ("unreadable", None)
