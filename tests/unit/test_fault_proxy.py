"""The fault proxy itself: a test that trusts it has to be able to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.helpers.fault_proxy import FaultProxy
from tests.helpers.waiting import eventually

SECONDS = 10.0


@dataclass
class Ends:
    """A proxy before a server that echoes, and a connection through it."""

    proxy: FaultProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hears(self, size: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readexactly(size)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        async with FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1], seed=1) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            yield Ends(proxy, reader, writer)
            writer.transport.abort()
    finally:
        server.close()


async def test_it_is_not_noticed_when_it_does_nothing(ends: Ends) -> None:
    data = bytes(range(256)) * 4_000
    writing = asyncio.create_task(ends.says(data))
    assert await ends.hears(len(data)) == data
    await writing
    assert ends.proxy.to_server.passed == ends.proxy.to_client.passed == len(data)
    ends.writer.write_eof()
    async with asyncio.timeout(SECONDS):
        assert await ends.reader.read() == b""


async def test_what_is_held_comes_in_order_after_the_release(ends: Ends) -> None:
    ends.proxy.to_client.hold()
    for number in range(10):
        await ends.says(b"%d" % number)
    await eventually(lambda: ends.proxy.to_server.passed == 10)
    assert ends.proxy.to_client.passed == 0
    ends.proxy.to_client.release()
    assert await ends.hears(10) == b"0123456789"


async def test_a_delay_does_not_make_the_next_wait_for_the_one_before(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    ends.proxy.to_client.delay = 0.2
    ends.proxy.to_server.jitter = 0.05
    began = loop.time()
    for number in range(20):
        await ends.says(b"%d" % (number % 10))
    assert await ends.hears(20) == b"0123456789" * 2
    assert loop.time() - began >= 0.2


async def test_throttled_bytes_take_their_time(ends: Ends) -> None:
    loop = asyncio.get_running_loop()
    ends.proxy.to_server.bytes_per_second = 10_000
    began = loop.time()
    await ends.says(b"x" * 3_000)
    await ends.hears(3_000)
    assert loop.time() - began >= 0.3


async def test_a_reset_is_one(ends: Ends) -> None:
    await ends.says(b"x")
    await ends.hears(1)
    ends.proxy.reset()
    with pytest.raises(ConnectionResetError):
        await ends.hears(1)
    _, writer = await asyncio.open_connection("127.0.0.1", ends.proxy.port)
    writer.close()
    await writer.wait_closed()


async def test_a_cut_lasts_until_it_is_restored(ends: Ends) -> None:
    ends.proxy.cut()

    async def answers() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", ends.proxy.port)
        try:
            writer.write(b"x")
            async with asyncio.timeout(SECONDS):
                return await reader.read(1) == b"x"
        except ConnectionError:
            return False
        finally:
            writer.transport.abort()

    assert not await answers()
    assert not await answers()
    ends.proxy.restore()
    assert await answers()
