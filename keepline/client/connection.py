"""One WebSocket to one node, from the handshake to the close."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as WebSocketClosed
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from keepline.client.closes import ABNORMAL_CLOSURE, NORMAL_CLOSURE, Close
from keepline.client.errors import (
    ConnectionLost,
    KeeplineError,
    ProtocolError,
    RequestTimedOut,
)
from keepline.client.frames import Frame, decode, encode, request_failed
from keepline.client.models import Welcome
from keepline.client.options import Options

SUBPROTOCOL = Subprotocol("keepline.v1")

_MAX_EARLY_FRAMES = 1000

_log = logging.getLogger(__name__)


class Connection:
    """Sends frames, matches answers to requests, and hands every other frame to its owner.

    Frames are handed over in the order in which they arrived, and an answer before its request returns.
    """

    def __init__(self, socket: ClientConnection, options: Options) -> None:
        self._socket = socket
        self._options = options
        self._ids: Iterator[int] = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Frame]] = {}
        self._lost = False
        self._early: list[bytes] = []

    @classmethod
    async def open(cls, url: str, options: Options) -> Connection:
        """Connect to a node. Raises ConnectionLost when that fails, ProtocolError when it is no node."""
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
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ConnectionLost(f"cannot connect: {error}") from error
        connection = cls(socket, options)
        if socket.subprotocol != SUBPROTOCOL:
            await connection.close()
            raise ProtocolError(f"the server at {url} does not speak {SUBPROTOCOL}")
        return connection

    async def hello(self, token: str, resume: str | None) -> Welcome | Close:
        """Present the token: the server's welcome, or how it closed the connection instead.

        A session that is resumed holds its rooms before the welcome is written, so frames about them may come
        first: `run` gets them. Raises RequestTimedOut, or RequestFailed for a refusal that closes nothing.
        """
        frame = {"type": "hello", "token": token} | ({} if resume is None else {"resume": resume})
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self.send(frame)
                while True:
                    data = await self._socket.recv(decode=False)
                    answer = decode(data)
                    if answer["type"] == "welcome":
                        return Welcome.parse(answer)
                    if answer["type"] != "error":
                        self._keep_early(data)
                    elif answer.get("code") != "unauthorized":
                        raise request_failed(answer)
        except (WebSocketClosed, ConnectionLost):
            return self._close_received()
        except TimeoutError as error:
            raise RequestTimedOut("no answer to hello") from error

    async def run(self, on_frame: Callable[[Frame], None]) -> Close:
        """Read until the connection ends, and tell how. Open requests then fail with ConnectionLost."""
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

    async def send(self, frame: Frame) -> None:
        """Hand a frame to the transport, waiting while its buffer is full. Raises ConnectionLost."""
        try:
            async with asyncio.timeout(self._options.request_timeout):
                await self._socket.send(encode(frame), text=True)
        except WebSocketClosed as error:
            raise ConnectionLost("the connection is closed") from error
        except TimeoutError as error:
            self.abort()
            raise ConnectionLost("the server does not read") from error

    async def request(self, frame: Frame) -> Frame:
        """Send a request and wait for its answer, as long as the caller lets it.

        Raises RequestFailed, or ConnectionLost when the connection ends first.
        """
        if self._lost:
            raise ConnectionLost("the connection is closed")
        request_id = str(next(self._ids))
        answer = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        try:
            await self.send({**frame, "id": request_id})
            received: Frame = await answer
        finally:
            del self._answers[request_id]
            answer.cancel()
        if received.get("type") == "error":
            raise request_failed(received)
        return received

    async def close(self) -> None:
        """Close with a normal closing handshake, which takes `close_timeout` at most."""
        await self._socket.close(NORMAL_CLOSURE)

    def abort(self) -> None:
        """Give the connection up at once, without a closing handshake."""
        self._socket.transport.abort()

    def _keep_early(self, data: bytes) -> None:
        if len(self._early) >= _MAX_EARLY_FRAMES:
            raise ProtocolError("too many frames before the welcome")
        self._early.append(data)

    def _receive(self, data: bytes, on_frame: Callable[[Frame], None]) -> None:
        frame: Frame = {}
        try:
            frame = decode(data)
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
