"""Connections to Redis whose loss is told in one way.

A command that is written in the moment in which its connection is lost fails with RuntimeError under uvloop, which the
client library hands on as it is. To whoever sent the command that is a loss like any other: ConnectionError.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ConnectionError


def telling_losses(kind: type[Any]) -> type[Any]:
    """The kind of connection as it is, except that every loss is a ConnectionError."""

    class Telling(kind):  # type: ignore[misc]  # which class it is depends on the URL
        async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
            try:
                await super().send_packed_command(*arguments, **options)
            except RuntimeError as error:
                raise ConnectionError(f"lost while writing: {error}") from error

    return Telling
