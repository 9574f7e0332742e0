"""The endpoint for operators against strangers: garbage, slow requests, too many connections, much at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry

from keepline.ops import http
from keepline.ops.health import Health
from keepline.ops.http_guard import SLICE_BYTES, Guard, OpsLimits
from tests.helpers.waiting import eventually

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
Address = tuple[str, int]


@asynccontextmanager
async def guarded(limits: OpsLimits) -> AsyncIterator[tuple[Address, Guard]]:
    app, guard = (
        http.create_app(Health(time.monotonic), CollectorRegistry()),
        Guard(asyncio.get_running_loop(), limits),
    )
    async with http.serve(app, "127.0.0.1", 0, guard) as address:
        yield address, guard


@pytest_asyncio.fixture
async def address() -> AsyncIterator[Address]:
    async with guarded(OpsLimits()) as (address, _):
        yield address


async def ask(address: Address, request: bytes) -> tuple[bytes, bytes]:
    """Send a request; the head and the body of the answer, until the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return head, body
    finally:
        writer.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\0\x01\0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nAuthorization: Bearer se\x01cret\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    ],
)
async def test_garbage_is_answered_like_every_error_and_not_repeated(
    address: Address, garbage: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    head, body = await ask(address, garbage)
    assert head.partition(b" ")[2].startswith(b"400 ")
    assert b"\r\nServer: keepline" in head
    assert json.loads(body) == {"error": {"code": "bad_request", "message": "this is no HTTP request"}}
    said = "".join(capfd.readouterr()) + caplog.text
    assert "cret" not in said
    assert "Traceback" not in said


async def test_many_requests_in_one_packet_are_all_answered(address: Address) -> None:
    last = LIVEZ.replace(b"Host", b"Connection: close\r\nHost")
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(LIVEZ * 500 + last)
        async with asyncio.timeout(30):
            answers = await reader.read()
    finally:
        writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == 501


async def test_one_packet_is_parsed_in_slices(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    parse = RequestHandler.data_received

    def noted(self: RequestHandler, data: bytes) -> None:
        sizes.append(len(data))
        parse(self, data)

    monkeypatch.setattr(RequestHandler, "data_received", noted)
    await ask(address, LIVEZ * 500 + LIVEZ.replace(b"Host", b"Connection: close\r\nHost"))
    assert sum(sizes) > 500 * len(LIVEZ)
    assert max(sizes) == SLICE_BYTES


async def test_a_request_that_does_not_come_to_its_end_is_cut_off() -> None:
    async with guarded(OpsLimits(request_seconds=0.1)) as (address, _):
        for begun in (b"", LIVEZ[:20]):
            head, body = await ask(address, begun)
            assert (head, body) == (b"", b"")


async def test_a_connection_that_has_asked_may_wait_with_the_next_request() -> None:
    async with guarded(OpsLimits(request_seconds=0.1)) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        try:
            for _ in range(2):
                writer.write(LIVEZ)
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 OK")
                slow, other = await asyncio.open_connection(*address)
                assert await slow.read() == b"", "meanwhile one that has not asked is cut off"
                other.close()
        finally:
            writer.close()


async def test_a_probe_finds_a_place_among_connections_that_ask_for_nothing() -> None:
    async with guarded(OpsLimits(connections=5)) as (address, guard):
        silent = [await asyncio.open_connection(*address) for _ in range(20)]
        try:
            head, _ = await ask(address, LIVEZ.replace(b"Host", b"Connection: close\r\nHost"))
            assert head.startswith(b"HTTP/1.1 200 OK")
            await eventually(lambda: sum(reader.at_eof() for reader, _ in silent) >= 15)
        finally:
            for _, writer in silent:
                writer.close()
        assert counted(guard)["keepline_ops_connections_dropped"] == 16


async def test_who_is_over_the_budget_is_read_later_and_others_are_not() -> None:
    async with guarded(OpsLimits(work_ms=1)) as (address, guard):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(LIVEZ * 500)
        try:
            await eventually(lambda: counted(guard)["keepline_ops_reads_paused"] > 0)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 OK")
        finally:
            writer.close()


async def test_what_is_no_http_is_counted() -> None:
    async with guarded(OpsLimits()) as (address, guard):
        await ask(address, b"\x16\x03\x01\r\n\r\n")
        assert counted(guard)["keepline_ops_bad_requests"] == 1


def counted(guard: Guard) -> dict[str, float]:
    return {metric.name: metric.samples[0].value for metric in guard.collect()}
