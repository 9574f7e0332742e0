"""The endpoint for operators against strangers: garbage, slow requests, too many connections, much at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry

from keepline.ops import http, http_guard
from keepline.ops.health import Health
from tests.helpers.waiting import eventually

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
Address = tuple[str, int]


@pytest_asyncio.fixture
async def address() -> AsyncIterator[Address]:
    app = http.create_app(Health(time.monotonic), CollectorRegistry())
    async with http.serve(app, "127.0.0.1", 0) as address:
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
    assert max(sizes) == http_guard.SLICE_BYTES


async def test_a_request_that_does_not_come_to_its_end_is_cut_off(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_guard, "REQUEST_SECONDS", 0.1)
    for begun in (b"", LIVEZ[:20]):
        head, body = await ask(address, begun)
        assert (head, body) == (b"", b"")


async def test_a_connection_that_has_asked_may_wait_with_the_next_request(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_guard, "REQUEST_SECONDS", 0.1)
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


async def test_a_probe_finds_a_place_among_connections_that_ask_for_nothing(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_guard, "MAX_CONNECTIONS", 5)
    silent = [await asyncio.open_connection(*address) for _ in range(20)]
    try:
        head, _ = await ask(address, LIVEZ.replace(b"Host", b"Connection: close\r\nHost"))
        assert head.startswith(b"HTTP/1.1 200 OK")
        await eventually(lambda: sum(reader.at_eof() for reader, _ in silent) >= 15)
    finally:
        for _, writer in silent:
            writer.close()


async def test_metrics_are_written_anew_only_within_their_budget(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def write(registry: CollectorRegistry) -> bytes:
        nonlocal written
        written += 1
        return b"text %d" % written

    monkeypatch.setattr(http, "generate_latest", write)
    metrics = http._Metrics(CollectorRegistry())
    assert [metrics.latest() for _ in range(3)] == [b"text 1", b"text 2", b"text 3"]
    metrics._budget.spend(1e9, time.monotonic())
    assert [metrics.latest() for _ in range(3)] == [b"text 3"] * 3
