"""Connections to Redis whose loss is told in one way, and that put commands into bytes fast.

A command that is written in the moment in which its connection is lost fails with RuntimeError under uvloop, which the
client library hands on as it is. To whoever sent the command that is a loss like any other: ConnectionError.

The library's asyncio connections put commands together in Python, an argument at a time, although they read answers by
hiredis; here hiredis does both.
"""

from __future__ import annotations

from typing import Any

import hiredis
from redis.exceptions import ConnectionError, DataError


def telling_losses(kind: type[Any]) -> type[Any]:
    """The kind of connection as it is, except that every loss is a ConnectionError, and that hiredis packs commands."""

    class Telling(kind):  # type: ignore[misc]  # which class it is depends on the URL
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

    return Telling
