"""One WebSocket to one node, from the handshake to the close."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as WebSocketClosed
from websockets.exceptions import InvalidProxy, InvalidStatus, WebSocketException
from websockets.http11 import Response
from websockets.typing import Subprotocol

from keepline.client.close_codes import ABNORMAL_CLOSURE, NORMAL_CLOSURE, Close
from keepline.client.errors import (
    AttemptFailed,
    ConnectFailed,
    ConnectionLost,
    KeeplineError,
    ProtocolError,
    RequestTimedOut,
)
from keepline.client.frames import Frame, decode, encode, request_failed, seconds
from keepline.client.limits import Limits, Pace, check_size
from keepline.client.models import Welcome
from keepline.client.options import Options

SUBPROTOCOL = Subprotocol("keepline.v1")

_MAX_EARLY_FRAMES = 1000

_FINAL = frozenset({"unauthorized", "bad_request"})
"""Errors after which the server closes with a code that says what to do."""

_MAX_WORDS = 200
_LONGEST_PAUSE_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Connection:
    """Sends frames, matches answers to requests, and passes every other frame to its owner.

    Frames are passed on in order of arrival, and an answer before its request returns.
    """

    def __init__(self, socket: ClientConnection, options: Options) -> None:
        self._socket = socket
        self._options = options
        self._ids: Iterator[int] = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Frame]] = {}
        self._reports: set[str] = set()
        self._lost = False
        self._early: list[bytes] = []
        self._allow(Limits())

    @classmethod
    async def open(cls, url: str, options: Options) -> Connection:
        """Connect to a node. Raises AttemptFailed, ProtocolError, or ConnectFailed if retrying is pointless."""
        try:
            socket = await connect(
                url,
                subprotocols=[SUBPROTOCOL],
                open_timeout=options.connect_timeout,
                close_timeout=options.close_timeout,
                ping_interval=options.ping_interval,
                ping_timeout=options.ping_interval,
                max_size=options.max_frame_bytes,
                compression=None,
                proxy=options.proxy,
            )
        except InvalidStatus as error:
            response = error.response
            raise AttemptFailed(
                url, _words(response), response.status_code, _retry_after(response)
            ) from error
        except (ImportError, InvalidProxy) as error:  # another attempt would fail the same way
            raise ConnectFailed(
                f"the proxy cannot be used: {error} (Options(proxy=None) uses none)"
            ) from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise AttemptFailed(url, str(error) or type(error).__name__) from error
        connection = cls(socket, options)
        if socket.subprotocol != SUBPROTOCOL:
            await connection.close()
            raise ProtocolError(f"the server at {url} does not speak {SUBPROTOCOL}")
        return connection

    async def hello(
        self, token: str, resume: str | None, on_queued: Callable[[], None] = lambda: None
    ) -> Welcome | Close:
        """Present the token. Returns the server's welcome, or how it closed the connection instead.

        A resumed session holds its rooms before the welcome is written, so frames about them may arrive first: `run`
        gets them. If the server says that the hello is queued, this keeps waiting; `on_queued` is called each time.
        Raises RequestTimedOut, or RequestFailed for a temporary refusal.
        """
        frame = {"type": "hello", "token": token} | ({} if resume is None else {"resume": resume})
        loop = asyncio.get_running_loop()
        refusal = ""
        try:
            async with asyncio.timeout(self._options.request_timeout) as patience:
                await self.send(frame)
                while True:
                    data = await self._socket.recv(decode=False)
                    answer = decode(data)
                    match answer["type"]:
                        case "welcome":
                            welcome = Welcome.parse(answer)
                            self._allow(welcome.limits)
                            return welcome
                        case "queued":
                            patience.reschedule(loop.time() + self._options.request_timeout)
                            on_queued()
                        case "error" if answer.get("code") in _FINAL:
                            refusal = str(answer.get("message", ""))
                        case "error":
                            raise request_failed(answer)
                        case _:
                            self._keep_early(data)
        except (WebSocketClosed, ConnectionLost):
            close = self._close_received()
            return Close(close.code, refusal or close.reason)
        except TimeoutError as error:
            raise RequestTimedOut("no answer to hello") from error

    async def run(self, on_frame: Callable[[Frame], None]) -> Close:
        """Read until the connection ends, and return how. Open requests then fail with ConnectionLost."""
        try:
            for data in self._early:
                self._receive(data, on_frame)
            self._early.clear()
            while True:
                self._receive(await self._socket.recv(decode=False), on_frame)
        except WebSocketClosed:
            return self._close_received()
        finally:
            self._fail_requests()

    async def paced(self) -> None:
        """Wait until the node accepts another frame. The caller then sends one, if that still makes sense."""
        if wait := self._pace.reserve():
            await self._options.sleep(wait)

    @property
    def free(self) -> bool:
        """Whether the node accepts a frame now, without waiting."""
        return self._pace.free

    async def send(self, frame: Frame) -> None:
        """Send a frame, like `send_text`."""
        await self.send_text(encode(frame))

    async def send_text(self, text: bytes) -> None:
        """Pass a frame to the transport, waiting while its buffer is full.

        Raises ConnectionLost, or RequestFailed for a frame that is larger than the node allows.
        """
        check_size(text, self.limits)
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self._socket.send(text, text=True)
        except WebSocketClosed as error:
            raise ConnectionLost("the connection is closed") from error
        except TimeoutError as error:
            self.abort()
            raise ConnectionLost("the server does not read") from error

    async def request(self, frame: Frame) -> Frame:
        """Send a request, after `paced`, and wait for its answer, as long as the caller allows.

        Raises RequestFailed, or ConnectionLost if the connection ends first.
        """
        if self._lost:
            raise ConnectionLost("the connection is closed")
        request_id = str(next(self._ids))
        answer = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        if frame["type"] == "report":
            self._reports.add(request_id)
        try:
            await self.send({**frame, "id": request_id})
            received: Frame = await answer
        finally:
            del self._answers[request_id]
            self._reports.discard(request_id)
            answer.cancel()
        if received.get("type") == "error":
            raise request_failed(received)
        return received

    async def close(self) -> None:
        """Close with a normal closing handshake, which takes at most `close_timeout`."""
        await self._socket.close(NORMAL_CLOSURE)

    def abort(self) -> None:
        """Drop the connection at once, without a closing handshake."""
        self._socket.transport.abort()

    def _allow(self, limits: Limits) -> None:
        self.limits = limits
        self._pace = Pace(limits, self._options.clock)

    def _keep_early(self, data: bytes) -> None:
        if len(self._early) >= _MAX_EARLY_FRAMES:
            raise ProtocolError("too many frames before the welcome")
        self._early.append(data)

    def _receive(self, data: bytes, on_frame: Callable[[Frame], None]) -> None:
        frame: Frame = {}
        try:
            frame = decode(data)
            if frame.get("code") == "rate_limited" and frame.get("id") not in self._reports:
                self._pace.pause(min(seconds(frame, "retry_after_ms") or 1.0, _LONGEST_PAUSE_SECONDS))
            on_frame(frame)
        except (KeyError, TypeError, ProtocolError) as error:
            _log.warning("ignored a frame that cannot be read: type %r, %r", frame.get("type"), error)
            self._answer(frame, ProtocolError(f"an answer that cannot be read: {error!r}"))
        else:
            self._answer(frame, None)

    def _answer(self, frame: Frame, error: KeeplineError | None) -> None:
        request_id = frame.get("id")
        answer = self._answers.get(request_id) if isinstance(request_id, str) else None
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(frame)
        else:
            answer.set_exception(error)

    def _fail_requests(self) -> None:
        self._lost = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionLost("the connection was lost before the answer came"))

    def _close_received(self) -> Close:
        code = self._socket.close_code
        return Close(ABNORMAL_CLOSURE if code is None else code, self._socket.close_reason or "")


def _words(response: Response) -> str:
    """An HTTP response as one line."""
    body = bytes(response.body or b"").decode(errors="replace").split("\n", 1)[0][:_MAX_WORDS]
    return f"HTTP {response.status_code} {response.reason_phrase}" + (f": {body}" if body else "")


def _retry_after(response: Response) -> float | None:
    """The seconds of a Retry-After header (RFC 9110, 10.2.3); None if it is missing or invalid."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
