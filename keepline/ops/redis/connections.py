"""Connections to Redis that report every loss in the same way, and encode commands fast.

Under uvloop, writing a command at the moment in which its connection is lost raises RuntimeError, which the library
passes on. Here it is a ConnectionError, like any other loss.

A demoted primary keeps its connections open, so clients that reach it by a name that now leads to the new primary would
keep failing. So the first answer that shows a wrong server closes all connections of the client, like a server that
stops; the next commands resolve the name again.

The library encodes commands in Python, argument by argument, although it decodes answers with hiredis; here hiredis
does both. The library also wraps each answer in a timeout, even those of a pipeline that arrived with the previous one;
here only actual waits have one.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet

import hiredis
import structlog
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.exceptions import (
    ConnectionError,
    DataError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

_log = structlog.get_logger(__name__)

CUT_SECONDS = 1.0
"""Minimum time between two moments at which all connections are closed, in case the name still leads to a replica."""

_DEMOTED_WHILE_BLOCKED = "UNBLOCKED force unblock"
"""A deleted stream also unblocks its readers, with another message: that server is the right one."""


def is_of_wrong_server(error: ResponseError) -> bool:
    """Whether only a server that is not the primary, or no longer, gives this answer."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith(_DEMOTED_WHILE_BLOCKED)


class _Opened:
    """The connections of one client."""

    def __init__(self) -> None:
        self._connections: WeakSet[Any] = WeakSet()
        self._cut_at = -CUT_SECONDS

    def add(self, connection: Any) -> None:
        self._connections.add(connection)

    async def leave(self, connection: Any, error: ResponseError) -> None:
        """Close a connection to the wrong server, and now and then all others."""
        now = asyncio.get_running_loop().time()
        leaving = [connection]
        if now - self._cut_at >= CUT_SECONDS:
            self._cut_at, leaving = now, list(self._connections)
            _log.warning("redis_demoted", error=str(error), connections=len(leaving))
        for each in leaving:
            await each.disconnect(nowait=True)


_Library: Any = object
"""Which class of the library it is depends on the URL."""


class _Telling(_Library):  # type: ignore[misc]
    """What a connection does differently from the library's."""

    _opened: _Opened

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._opened.add(self)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await self._next_answer(*arguments, **options)
        except ResponseError as error:
            if is_of_wrong_server(error):
                await self._opened.leave(self, error)
            raise

    @property
    def is_lost(self) -> bool:
        """Whether the other end is known to have closed it, so that a write would be lost."""
        reader = self._reader
        return reader is None or reader.at_eof() or reader.exception() is not None

    def pack_command(self, *arguments: Any) -> list[bytes]:
        name, *rest = arguments
        words = name.encode() if isinstance(name, str) else name  # such as XINFO GROUPS
        try:
            return [hiredis.pack_command((*words.split(), *rest))]
        except TypeError as error:
            raise DataError(str(error)) from error

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*arguments, **options)
        except RuntimeError as error:
            raise ConnectionError(f"lost while writing: {error}") from error
        except AttributeError as error:
            if (
                self._writer is None
            ):  # closed because of another command's answer since it was taken from the pool
                raise ConnectionError("closed before writing") from error
            raise

    async def _next_answer(self, *arguments: Any, **options: Any) -> Any:
        answer = NOT_ENOUGH_DATA if arguments or options else _answer_in(self._parser)
        if isinstance(answer, hiredis.PushNotification):
            await self._parser.handle_push_response(answer)
            answer = NOT_ENOUGH_DATA
        if answer is NOT_ENOUGH_DATA:
            return await super().read_response(*arguments, **options)
        if isinstance(answer, ConnectionError):
            await self.disconnect(nowait=True)
        if isinstance(answer, RedisError):
            raise answer
        return answer


def telling_losses(kind: type[Any]) -> type[Any]:
    """The connection class of one client: every loss is a ConnectionError, and a wrong server closes all
    connections.
    """
    return type("Telling", (_Telling, kind), {"_opened": _Opened()})


def _answer_in(parser: Any) -> Any:
    """The next answer, if it has been read from the socket completely."""
    reader = getattr(parser, "_reader", None)
    return reader.gets() if isinstance(reader, hiredis.Reader) and reader.has_data() else NOT_ENOUGH_DATA
