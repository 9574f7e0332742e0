"""Runs the cluster's Lua scripts, as they are, against the Redis of the simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from lupa import lua51  # type: ignore[import-untyped]
from redis.exceptions import ResponseError

Call = Callable[[Sequence[bytes]], Any]


class Scripts:
    """An interpreter, and the scripts that it has compiled. `call` is what `redis.call` does."""

    def __init__(self) -> None:
        self.call: Call
        self._lua: Any = lua51.LuaRuntime(encoding=None, register_eval=False)
        self._compiled: dict[bytes, Any] = {}
        functions = self._lua.globals()
        functions[b"redis"] = self._table({b"call": self._redis_call, b"pcall": self._redis_pcall})
        functions[b"cjson"] = self._table({b"decode": self._decode, b"encode": self._encode})
        self._is_table = self._lua.eval(b"function(value) return type(value) == 'table' end")

    def run(self, text: bytes, keys: Sequence[bytes], arguments: Sequence[bytes], call: Call) -> Any:
        """Run a script; its answer as Redis gives it. Raises ResponseError."""
        function = self._compiled.get(text)
        if function is None:
            function = self._compiled[text] = self._lua.eval(b"function(KEYS, ARGV) " + text + b"\nend")
        self.call = call
        return self._answer(function(self._lua.table(*keys), self._lua.table(*arguments)))

    def _redis_call(self, *arguments: Any) -> Any:
        return self._to_lua(self.call([_text(argument) for argument in arguments]))

    def _redis_pcall(self, *arguments: Any) -> Any:
        try:
            return self._redis_call(*arguments)
        except ResponseError as error:
            return self._table({b"err": str(error).encode()})

    def _to_lua(self, answer: Any) -> Any:
        if answer is None:
            return False
        if isinstance(answer, list):
            return self._lua.table(*(self._to_lua(each) for each in answer))
        return answer

    def _answer(self, value: Any) -> Any:
        """What Redis makes of what a script returns: whole numbers, and arrays up to the first nil."""
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, float):
            return int(value)
        if self._is_table(value):
            found = []
            at = 1
            while value[at] is not None:
                found.append(self._answer(value[at]))
                at += 1
            return found
        return value

    def _decode(self, text: bytes) -> Any:
        raw = orjson.loads(text)
        return self._table({_to_bytes(key): _to_bytes(value) for key, value in raw.items()})

    def _table(self, fields: Mapping[bytes, Any]) -> Any:
        return self._lua.table_from(fields)

    def _encode(self, value: Any) -> bytes:
        return orjson.dumps({key.decode(): _from_lua(item) for key, item in value.items()})


def _from_lua(value: Any) -> Any:
    """What cjson makes of a value: a whole number is written without a point."""
    return value.decode() if isinstance(value, bytes) else int(value)


def _to_bytes(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return b"%.17g" % value
    return str(value).encode()
