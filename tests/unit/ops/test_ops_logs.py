"""Logs: one line an event, ours and the libraries', without local variables."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from keepline.ops import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json(stream: io.StringIO) -> None:
    logs.configure("json", "info", stream)
    structlog.get_logger("a.b").info("joined", partition=3, note="two\nlines", raw=b"x")
    (event,) = lines(stream)
    assert {name: event[name] for name in ("event", "level", "logger", "partition", "note")} == {
        "event": "joined",
        "level": "info",
        "logger": "a.b",
        "partition": 3,
        "note": "two\nlines",
    }
    assert event["at"].endswith("Z")


def test_libraries_are_logged_in_the_same_form(stream: io.StringIO) -> None:
    logs.configure("json", "info", stream)
    logging.getLogger("some.library").warning("lost %s", "it", extra={"host": "h"})
    (event,) = lines(stream)
    assert (event["event"], event["logger"], event["host"]) == ("lost it", "some.library", "h")


def test_the_level_holds_for_ours_and_theirs(stream: io.StringIO) -> None:
    logs.configure("json", "warning", stream)
    structlog.get_logger("a").info("quiet")
    logging.getLogger("b").info("quiet")
    logging.getLogger("websockets.server").warning("loud")
    assert [event["event"] for event in lines(stream)] == ["loud"]


def test_chatty_libraries_are_kept_to_warnings(stream: io.StringIO) -> None:
    logs.configure("json", "debug", stream)
    logging.getLogger("asyncio").debug("using selector")
    structlog.get_logger("a").debug("ours")
    assert [event["event"] for event in lines(stream)] == ["ours"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_does_not_show_local_variables(stream: io.StringIO, log_format: logs.LogFormat) -> None:
    logs.configure(log_format, "info", stream)
    secret = "do-not-" + "show"
    try:
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger("a").exception("failed")
    assert "ValueError: 11" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_without_a_format_what_is_no_terminal_gets_json(stream: io.StringIO) -> None:
    logs.configure(None, "info", stream)
    structlog.get_logger("a").info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_a_terminal_gets_text(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "isatty", lambda: True)
    logs.configure(None, "info", stream)
    structlog.get_logger("a").info("hello", n=1)
    assert not stream.getvalue().startswith("{")
    assert len(stream.getvalue().splitlines()) == 1


class CountingStream(io.StringIO):
    """Counts how often it is written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


@pytest.fixture
def counting(stream: io.StringIO) -> CountingStream:
    """After `stream`, which puts the logs back."""
    return CountingStream()


async def test_lines_of_one_tick_leave_in_one_write_and_in_order(counting: CountingStream) -> None:
    logs.configure("json", "info", counting)
    for number in range(3):
        structlog.get_logger("a").info("joined", number=number)
    assert counting.writes == 0
    await asyncio.sleep(0)
    assert counting.writes == 1
    structlog.get_logger("a").info("joined", number=3)
    logging.getLogger("some.library").warning("lost")
    assert [event.get("number", event["event"]) for event in lines(counting)] == [0, 1, 2, 3, "lost"]


def test_what_a_loop_that_ended_left_is_written_by_the_next(counting: CountingStream) -> None:
    logs.configure("json", "info", counting)

    async def log(event: str) -> None:
        structlog.get_logger("a").info(event)

    async def log_and_wait() -> None:
        await log("second")
        await asyncio.sleep(0)

    asyncio.run(log("first"))
    asyncio.run(log_and_wait())
    structlog.get_logger("a").info("third")  # without a loop: at once
    assert [event["event"] for event in lines(counting)] == ["first", "second", "third"]
