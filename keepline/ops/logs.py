"""Logs: one line per event on stderr, from our code and from libraries."""

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

# At INFO, these libraries log what only their own developers need.
_CHATTY = ("websockets", "aiohttp", "asyncio", "redis", "aioice")


def _to_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def bind(**names: str) -> None:
    """Add these names to every line that this context and its later tasks and callbacks log."""
    structlog.contextvars.bind_contextvars(**names)


class _Output:
    """Writes lines to a stream, those of one event loop tick in one write; without an event loop, each at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop that will flush

    def write(self, text: str) -> None:
        """Write `text`, which ends with a newline, at the end of the tick."""
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
        """Write everything pending now."""
        self._loop = None
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write("".join(lines))
            self._stream.flush()


class _Logger:
    """The logger that structlog passes finished lines to."""

    def __init__(self, output: _Output, name: str) -> None:
        self.name = name
        self._output = output

    def msg(self, line: str) -> None:
        """Write a line of any level."""
        self._output.write(line + "\n")

    debug = info = warning = error = critical = msg


def configure(log_format: LogFormat | None, level: str, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (stderr by default). The default format is text on a terminal, otherwise JSON.

    Our own lines bypass the standard library's logging, which takes four times as long. That matters when thousands of
    clients log in at once.
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
                # The default formatter prints local variables, which may contain tokens and secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    output = _Output(out)
    atexit.register(output.flush)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="": _Logger(output, name),
        # Loggers are created at import, which is before this call.
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
    """Converts log records of libraries to the same form. Each line is written at once, after our pending ones."""
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
