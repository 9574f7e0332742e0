"""The endpoint for operators, over a real socket."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keepline.ops.health import Health
from keepline.ops.http import MAX_BODY_BYTES, HttpError, create_app, json_response, serve
from keepline.ops.metrics import new_registry


class Endpoint:
    """A served app and a client for it."""

    def __init__(self, health: Health, url: str, session: aiohttp.ClientSession) -> None:
        self.health = health
        self.url = url
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], Any]:
        async with self.session.request(method, self.url + path, **options) as response:
            body = await response.json() if "json" in response.content_type else await response.text()
            return response.status, dict(response.headers), body


async def refuse(_: web.Request) -> web.Response:
    raise HttpError(503, "unavailable", "Redis is away", retry_after_ms=1500)


async def fail(_: web.Request) -> web.Response:
    raise RuntimeError("with a secret in it")


async def echo(request: web.Request) -> web.Response:
    return json_response({"size": len(await request.read())}, 201)


async def redirect(_: web.Request) -> web.Response:
    raise web.HTTPFound("/livez")


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    health = Health(lambda: 0.0)
    routes = [
        web.get("/refuse", refuse),
        web.get("/fail", fail),
        web.post("/echo", echo),
        web.get("/redirect", redirect),
    ]
    app = create_app(health, new_registry("test"), routes)
    async with serve(app, "127.0.0.1", 0) as (host, port), aiohttp.ClientSession() as session:
        yield Endpoint(health, f"http://{host}:{port}", session)


async def test_alive_whatever_the_dependencies_do(endpoint: Endpoint) -> None:
    endpoint.health.probe("redis").failed("away")
    endpoint.health.require("never", lambda: "no")
    status, headers, body = await endpoint.call("GET", "/livez")
    assert (status, body) == (200, {"status": "ok"})
    assert headers["Server"] == "keepline"


async def test_ready_only_when_every_condition_holds(endpoint: Endpoint) -> None:
    assert (await endpoint.call("GET", "/readyz"))[0] == 200
    endpoint.health.require("heard", lambda: "deaf for 3 s")
    status, _, body = await endpoint.call("GET", "/readyz")
    assert (status, body) == (
        503,
        {"ready": False, "reasons": {"heard": "deaf for 3 s"}, "warnings": {}},
    )


async def test_health_informs_and_does_not_judge(endpoint: Endpoint) -> None:
    endpoint.health.probe("postgres").failed("away")
    status, _, body = await endpoint.call("GET", "/healthz")
    assert (status, body["status"]) == (200, "degraded")
    assert body["dependencies"]["postgres"]["error"] == "away"


async def test_metrics_are_of_this_program(endpoint: Endpoint) -> None:
    status, headers, body = await endpoint.call("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'keepline_build_info{program="test"' in body
    assert "process_cpu_seconds_total" in body
    assert "python_gc_collections_total" in body


async def test_a_refusal_is_told_with_its_code_and_when_to_retry(endpoint: Endpoint) -> None:
    status, headers, body = await endpoint.call("GET", "/refuse")
    assert status == 503
    assert headers["Retry-After"] == "2"
    assert body == {"error": {"code": "unavailable", "message": "Redis is away", "retry_after_ms": 1500}}


async def test_an_accident_is_told_without_its_details(endpoint: Endpoint) -> None:
    status, _, body = await endpoint.call("GET", "/fail")
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "secret" not in str(body)


@pytest.mark.parametrize(
    ("method", "path", "size", "status", "code"),
    [
        ("GET", "/nowhere", 0, 404, "not_found"),
        ("POST", "/livez", 0, 405, "method_not_allowed"),
        ("POST", "/echo", MAX_BODY_BYTES + 1, 413, "too_large"),
    ],
)
async def test_errors_of_the_library_have_our_form(
    endpoint: Endpoint, method: str, path: str, size: int, status: int, code: str
) -> None:
    got, headers, body = await endpoint.call(method, path, data=b"x" * size)
    assert (got, body["error"]["code"]) == (status, code)
    assert ("Allow" in headers) == (status == 405)


async def test_a_body_up_to_the_limit_passes(endpoint: Endpoint) -> None:
    status, _, body = await endpoint.call("POST", "/echo", data=b"x" * MAX_BODY_BYTES)
    assert (status, body) == (201, {"size": MAX_BODY_BYTES})


async def test_a_redirection_is_not_an_error(endpoint: Endpoint) -> None:
    assert (await endpoint.call("GET", "/redirect", allow_redirects=False))[0] == 302


async def test_an_address_in_use_is_an_os_error() -> None:
    app = create_app(Health(lambda: 0.0), new_registry("test"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with serve(app, "127.0.0.1", taken.getsockname()[1]):
            pass


async def test_where_there_is_no_ipv4_the_loopback_of_ipv6_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    create = loop.create_server

    async def without_ipv4(factory: Any, host: str, port: int, **options: Any) -> Any:
        if host.startswith("127."):
            raise OSError(errno.EADDRNOTAVAIL, "error while attempting to bind")
        return await create(factory, host, port, **options)

    monkeypatch.setattr(loop, "create_server", without_ipv4)
    app = create_app(Health(lambda: 0.0), new_registry("test"))
    async with serve(app, "127.0.0.1", 0) as (host, port):
        assert (host, port > 0) == ("::1", True)
    with pytest.raises(OSError, match="bind"):
        async with serve(app, "127.0.0.2", 0):
            pass
