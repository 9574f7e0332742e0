"""Lua scripts beside the modules that call them, and the one error that those modules raise for Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from keepline.ops.redis import Client

Value = bytes | str | int


class StoreUnavailable(Exception):
    """Redis could not be asked; what was to be written may or may not be."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable for whatever the client library raises."""
    try:
        yield
    except RedisError as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


def text(value: Any) -> str:
    """A name that Redis answered with."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Script:
    """A script that Redis keeps by its digest; it is sent again when Redis has forgotten it."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.text = files(__package__).joinpath(name).read_text()
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, keys: Sequence[str], arguments: Sequence[Value]) -> Any:
        """Run it. Raises StoreUnavailable."""
        with translated():
            try:
                return await self._client.evalsha(self.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                await self.load()
                return await self._client.evalsha(self.digest, len(keys), *keys, *arguments)

    async def run_many(self, calls: Sequence[tuple[Sequence[str], Sequence[Value]]]) -> list[Any]:
        """Run it once for each of `calls`, in one write. Raises StoreUnavailable."""
        with translated():
            answers = await self._pipelined(calls)
            unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                await self.load()
                again = await self._pipelined([calls[at] for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
            for answer in answers:
                if isinstance(answer, RedisError):
                    raise answer
        return answers

    async def _pipelined(self, calls: Sequence[tuple[Sequence[str], Sequence[Value]]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for keys, arguments in calls:
                pipe.evalsha(self.digest, len(keys), *keys, *arguments)
            return await pipe.execute(raise_on_error=False)

    async def load(self) -> None:
        """Make Redis know it."""
        await self._client.script_load(self.text)
