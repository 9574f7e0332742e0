"""Commands reach Redis as the client library itself would write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection
from redis.exceptions import DataError

from keepline.ops.redis.connections import telling_losses

OURS, THEIRS = telling_losses(Connection)(protocol=3), Connection(protocol=3)

names = st.sampled_from(["GET", b"GET", "XINFO GROUPS", b"XINFO GROUPS"])
values = st.binary(max_size=8_000) | st.text(st.characters(codec="utf-8")) | st.integers() | st.just(0.5)


@given(names, st.lists(values, max_size=5))
def test_bytes_are_those_of_the_library(name: str | bytes, arguments: list[Any]) -> None:
    command = (name, *arguments)
    assert b"".join(OURS.pack_command(*command)) == b"".join(THEIRS.pack_command(*command))
    assert b"".join(OURS.pack_commands([command, command])) == b"".join(OURS.pack_command(*command) * 2)


@pytest.mark.parametrize("value", [None, True, [1], {}])
def test_what_is_no_value_of_redis_is_refused_as_the_library_does(value: Any) -> None:
    for connection in (OURS, THEIRS):
        with pytest.raises(DataError):
            connection.pack_command("SET", "key", value)
