"""Lua scripts, stored beside the modules that call them, and the error that those modules raise for Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError, RedisError

from keepline.ops.redis.batches import Batches
from keepline.ops.redis.client import Client

Value = bytes | str | int


class StoreUnavailable(Exception):
    """Redis did not answer. A write may or may not have been carried out."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable for any error of the client library."""
    try:
        yield
    except RedisError as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


def text(value: Any) -> str:
    """A name in an answer of Redis."""
    return value.decode() if isinstance(value, bytes) else str(value)


Call = tuple[Sequence[str], Sequence[Value]]
"""Keys and arguments of a script."""


class Script:
    """A script that Redis caches by its digest. It is sent in full to a server that does not have it."""

    def __init__(self, client: Client, package: str, name: str) -> None:
        """Take the package whose folder contains the script, and its file name."""
        self._client = client
        self._text = files(package).joinpath(name).read_text()
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, keys: Sequence[str], arguments: Sequence[Value]) -> Any:
        """Run it. Raises StoreUnavailable."""
        with translated():
            return await self.evaluate(keys, arguments)

    async def evaluate(self, keys: Sequence[str | bytes], arguments: Sequence[Value]) -> Any:
        """Run it. Raises RedisError."""
        try:
            return await self._client.evalsha(self._digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self._client.eval(self._text, len(keys), *keys, *arguments)

    async def ask(self, batches: Batches, keys: Sequence[str], arguments: Sequence[Value]) -> Any:
        """Run it in one write with commands of others. Raises StoreUnavailable."""
        with translated():
            try:
                return await batches.ask("EVALSHA", self._digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return await batches.ask("EVAL", self._text, len(keys), *keys, *arguments)

    async def run_many(self, calls: Sequence[Call]) -> list[Any]:
        """Run it for each of `calls` in one write. Answers may be errors. Raises StoreUnavailable."""
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                for call in calls:
                    self.add_to(pipe, call)
                return await self.completed(calls, await pipe.execute(raise_on_error=False))

    def add_to(self, pipe: Pipeline, call: Call) -> None:
        """Add it to a pipeline. Pass the answers to `completed`."""
        keys, arguments = call
        pipe.evalsha(self._digest, len(keys), *keys, *arguments)

    async def completed(self, calls: Sequence[Call], answers: Sequence[Any]) -> list[Any]:
        """Run again the calls that failed because the server did not have the script. Raises RedisError."""
        completed = list(answers)
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            async with self._client.pipeline(transaction=False) as pipe:
                for at in unknown:
                    keys, arguments = calls[at]
                    pipe.eval(self._text, len(keys), *keys, *arguments)
                again = await pipe.execute(raise_on_error=False)
            for at, answer in zip(unknown, again, strict=True):
                completed[at] = answer
        return completed
