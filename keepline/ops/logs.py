"""Logs: one line an event on stderr, from our code and from libraries alike."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

import orjson
import structlog

LogFormat = Literal["json", "text"]

# These say at INFO what is only of use to those who work on the library itself.
_CHATTY = ("websockets", "aiohttp", "asyncio", "redis", "aioice")


def _to_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def bind(**names: str) -> None:
    """Put these names on every line from here on, whatever task or callback it comes from that begins later."""
    structlog.contextvars.bind_contextvars(**names)


class _Output:
    """Writes lines to a stream, those of one tick of the event loop in one write; without a loop each at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # that is going to flush

    def write(self, text: str) -> None:
        """Write `text`, which ends with its newline, soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            self._stream.write(text)
            self._stream.flush()
            return
        self._lines.append(text)
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now what is still to be written."""
        self._loop = None
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write("".join(lines))
            self._stream.flush()


class _Logger:
    """What structlog hands finished lines to."""

    def __init__(self, output: _Output, name: str) -> None:
        self.name = name
        self._output = output

    def msg(self, line: str) -> None:
        """Write a line of any level."""
        self._output.write(line + "\n")

    debug = info = warning = error = critical = msg


def configure(log_format: LogFormat | None, level: str, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (stderr by default). Without a format: text on a terminal, else JSON.

    Our own lines do not pass through the standard library: it would take four times as long, which shows when
    thousands of clients come in at once.
    """
    out = sys.stderr if stream is None else stream
    chosen = log_format or ("text" if out.isatty() else "json")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    renderers: list[structlog.typing.Processor]
    if chosen == "json":
        renderers = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    else:
        renderers = [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(),
                timestamp_key="at",
                # The default formatter prints local variables, and with them tokens and secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    output = _Output(out)
    atexit.register(output.flush)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="": _Logger(output, name),
        # Loggers are made when modules are imported, which is before this is called.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_of_libraries(output, shared, renderers)]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _of_libraries(
    output: _Output,
    shared: Sequence[structlog.typing.Processor],
    renderers: Sequence[structlog.typing.Processor],
) -> logging.Handler:
    """Brings what libraries log into the same form; each line is written at once, after ours before it."""
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.PositionalArgumentsFormatter(),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    return handler
