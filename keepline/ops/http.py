"""The HTTP server of the ops port: health, metrics, and a program's own routes.

All errors are JSON of one form, `{"error": {"code", "message", "retry_after_ms"?}}`, whatever raised them.
"""

from __future__ import annotations

import asyncio
import errno
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from keepline.ops.health import Health
from keepline.ops.http_guard import Guard, OpsLimits
from keepline.ops.metrics_text import MetricsText
from keepline.ops.settings import CommonSettings

LOOPBACK, LOOPBACK_6 = "127.0.0.1", "::1"
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
MAX_BODY_BYTES = 64 * 1024
_SHUTDOWN_SECONDS = 5.0
_KEEPALIVE_SECONDS = 75.0

_log = structlog.get_logger(__name__)


def http_url(host: str, port: int) -> str:
    """The URL of a port; an address of IPv6 goes in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpError(Exception):
    """An error that the HTTP API returns as JSON."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_ms: int | None = None) -> None:
        """The HTTP status, the error code, the message for people, and when a retry makes sense."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


def json_response(data: Any, status: int = 200) -> web.Response:
    """Return `data` as a JSON response."""
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json")


def _error_response(error: HttpError) -> web.Response:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
    response = json_response({"error": body}, error.status)
    if error.retry_after_ms is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_ms / 1000))
    return response


_CODES = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except HttpError as error:
        return _error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _CODES.get(error.status, "bad_request" if error.status < 500 else "internal")
        response = _error_response(HttpError(error.status, code, error.reason))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        _log.exception("http_request_failed", method=request.method, path=request.path)
        return _error_response(HttpError(500, "internal", "the request failed; the log says why"))


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    """Do not reveal the server library and its version."""
    response.headers["Server"] = "keepline"


def create_app(
    health: Health, registry: CollectorRegistry, routes: Iterable[web.AbstractRouteDef] = ()
) -> web.Application:
    """Return an application with `/livez`, `/readyz`, `/healthz`, `/metrics` and the given routes.

    `/livez` is 200 whenever the event loop runs. `/readyz` is 503 with the reasons while a condition is not met; its
    warnings say why other instances are preferable. `/healthz` is always 200, with each dependency.
    """

    async def livez(_: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        reasons = health.reasons()
        answer = {"ready": not reasons, "reasons": reasons, "warnings": health.warnings()}
        return json_response(answer, 503 if reasons else 200)

    async def healthz(_: web.Request) -> web.Response:
        return json_response(health.report())

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await text.latest(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    text = MetricsText(registry)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(_hide_server)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    app.add_routes(routes)
    return app


def guard(settings: CommonSettings, registry: CollectorRegistry) -> Guard:
    """The guard with the limits of the settings. Its metrics are added to the registry."""
    limits = OpsLimits(
        settings.limit_ops_connections, settings.limit_ops_request_seconds, settings.limit_ops_work_ms
    )
    made = Guard(asyncio.get_running_loop(), limits)
    registry.register(made)
    return made


async def _listen(factory: Any, host: str, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(factory, host, port, reuse_address=True, ssl=tls)
    except OSError as error:
        if host != LOOPBACK or error.errno not in _NO_SUCH_ADDRESS:
            raise
        return await loop.create_server(factory, LOOPBACK_6, port, reuse_address=True, ssl=tls)


@asynccontextmanager
async def serve(
    app: web.Application,
    host: str,
    port: int,
    guarded_by: Guard | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve `app` while the context is open. Yields the address, with the actual port if 0 was requested.

    On a host with only IPv6, the IPv6 loopback replaces 127.0.0.1. Raises OSError if the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    factory = (guarded_by or Guard(loop)).factory(
        runner.server, access_log=None, lingering_time=0, keepalive_timeout=_KEEPALIVE_SECONDS
    )
    try:
        server = await _listen(factory, host, port, tls)
        try:
            address = server.sockets[0].getsockname()
            yield str(address[0]), int(address[1])
        finally:
            server.close()
            runner.server.pre_shutdown()
    finally:
        await runner.cleanup()
