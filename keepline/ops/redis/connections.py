"""Connections to Redis whose loss is told in one way, and that put commands into bytes fast.

A command that is written in the moment in which its connection is lost fails with RuntimeError under uvloop, which the
client library hands on as it is. To whoever sent the command that is a loss like any other: ConnectionError.

A primary that is demoted keeps its connections: behind a name that leads to the new one they would go on failing for
ever. So the first answer that only the wrong server gives closes all connections of the client, as a server does that
stops; each next command then resolves the name anew.

The library's asyncio connections put commands together in Python, an argument at a time, although they read answers by
hiredis; here hiredis does both. They also wrap each answer in a timeout and more, even those of a pipeline that came
with the one before; here only what has to be waited for is.
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
"""The least time between two moments in which all connections are closed, should the name still lead to a replica."""

_DEMOTED_WHILE_BLOCKED = "UNBLOCKED force unblock"
"""A deleted stream unblocks its readers as well, with other words: that server is the right one."""


def is_of_wrong_server(error: ResponseError) -> bool:
    """Whether only a server says so that is not, or no longer, the primary."""
    return isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith(_DEMOTED_WHILE_BLOCKED)


def telling_losses(kind: type[Any]) -> type[Any]:
    """A kind of connection for one client: every loss is a ConnectionError, the wrong server loses all connections."""
    opened: WeakSet[Any] = WeakSet()
    cut_at = -CUT_SECONDS

    class Telling(kind):  # type: ignore[misc]  # which class it is depends on the URL
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.add(self)

        async def read_response(self, *arguments: Any, **options: Any) -> Any:
            try:
                return await self._next_answer(*arguments, **options)
            except ResponseError as error:
                if is_of_wrong_server(error):
                    await self._leave(error)
                raise

        @property
        def is_lost(self) -> bool:
            """Whether it is known that the other end has closed it: what is written now would not arrive."""
            reader = self._reader
            return reader is None or reader.at_eof() or reader.exception() is not None

        async def _leave(self, error: ResponseError) -> None:
            nonlocal cut_at
            now = asyncio.get_running_loop().time()
            leaving = [self]
            if now - cut_at >= CUT_SECONDS:
                cut_at, leaving = now, list(opened)
                _log.warning("redis_demoted", error=str(error), connections=len(leaving))
            for connection in leaving:
                await connection.disconnect(nowait=True)

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
                ):  # closed by another command's answer since it was taken from the pool
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

    return Telling


def _answer_in(parser: Any) -> Any:
    """The next answer, if all of it has been read from the socket already."""
    reader = getattr(parser, "_reader", None)
    return reader.gets() if isinstance(reader, hiredis.Reader) and reader.has_data() else NOT_ENOUGH_DATA
