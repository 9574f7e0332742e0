"""Keeps a client connected: opens one connection after the other, and moves its calls from each to the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from keepline.client.addresses import Addresses
from keepline.client.app_callbacks import AppCallbacks, State
from keepline.client.calls import Calls
from keepline.client.close_codes import (
    ABNORMAL_CLOSURE,
    INTERNAL_ERROR,
    REPLACED,
    UNAUTHORIZED,
    Close,
    ComeBack,
)
from keepline.client.connection import Connection
from keepline.client.errors import (
    AttemptFailed,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    KeeplineError,
    RequestFailed,
    RequestTimedOut,
    TokenUnavailable,
)
from keepline.client.events import IceServersChanged
from keepline.client.frames import Frame
from keepline.client.goodbye import Goodbye
from keepline.client.models import IceServer, Membership, Welcome
from keepline.client.options import Options
from keepline.client.ready_event import ReadyEvent
from keepline.client.reconnect import ReconnectPlan
from keepline.ops.backoff import Backoff

TokenSource = str | Callable[[], Awaitable[str]]

OVERLAP_SECONDS = 1.0
"""How long the previous connection is read after the next one has taken over, because frames on the way come first."""

_log = logging.getLogger(__name__)


class Connector:
    """The client's connections, one after the other, until the client is closed for good."""

    def __init__(
        self,
        addresses: Addresses,
        token: TokenSource,
        room_hint: str | None,
        callbacks: AppCallbacks,
        options: Options,
    ) -> None:
        self.ready = ReadyEvent()
        self.calls = Calls(self.request, self.ready, options)
        self._addresses = addresses
        self._token = token
        self._room_hint = room_hint
        self._callbacks = callbacks
        self._options = options
        self._plan = ReconnectPlan(
            Backoff(options.backoff_base, options.backoff_cap, uniform=options.uniform),
            options.clock,
            fresh_tokens=not isinstance(token, str),
            stable_after=options.stable_after,
        )
        self._connection: Connection | None = None
        self._welcome: Welcome | None = None
        self._failure: KeeplineError | None = None
        self._runner: asyncio.Task[None] | None = None
        self._patience: asyncio.Timeout | None = None

    @property
    def welcome(self) -> Welcome:
        """The last welcome. Raises RuntimeError before the first one."""
        if self._welcome is None:
            raise RuntimeError("the client has not been welcomed yet")
        return self._welcome

    async def start(self) -> None:
        """Connect, and wait for the first welcome. Raises ConnectFailed, ConnectionClosed."""
        self._callbacks.begin()
        self._runner = asyncio.create_task(self._run(), name="keepline-client")
        try:
            async with asyncio.timeout(self._options.first_connect_timeout) as self._patience:
                await self.ready.wait()
        except TimeoutError:
            why = f": {self._failure}" if self._failure else ""
            raise ConnectFailed(f"no node could be reached within the timeout{why}") from self._failure
        finally:
            self._patience = None

    async def stop(self, error: ConnectionClosed) -> None:
        """Close the connection for good."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner], timeout=2 * self._options.close_timeout)
        self._finish(error, by_server=False)

    async def request(self, frame: Frame, ready: ReadyEvent, *, repeatable: bool) -> Frame:
        """Send the frame once `ready` is set, and return the answer. Retries a repeatable one on further connections.

        Raises RequestFailed, RequestTimedOut, ConnectionLost, and the error of `ready`.
        """
        try:
            async with asyncio.timeout(self._options.request_timeout):
                while True:
                    await ready.wait()
                    if (connection := self._connection) is None:
                        raise ConnectionLost("the connection was lost")
                    await connection.paced()
                    if connection is not self._connection or not ready.is_set:
                        continue
                    try:
                        return await connection.request(frame)
                    except ConnectionLost:
                        self._detach(connection)
                        if not repeatable:
                            raise
        except TimeoutError as error:
            raise RequestTimedOut(f"no answer to {frame['type']}") from error

    # --- from one connection to the next ---

    async def _run(self) -> None:
        """Reconnect until that is not allowed any more."""
        try:
            while (delay := await self._connect_once()) is not None:
                self._callbacks.enter(State.RECONNECTING if self._welcome else State.CONNECTING)
                await self._options.sleep(delay)
        except Exception as error:
            _log.exception("the client failed")
            self._finish(ConnectionClosed(INTERNAL_ERROR, f"the client failed: {error!r}"), by_server=True)

    async def _connect_once(self) -> float | None:
        """One connection from beginning to end. Returns the seconds until the next one; None if there must be none."""
        try:
            close = await self._live_through()
        except ConnectFailed as error:
            self._finish(error, by_server=True)
            return None
        except KeeplineError as error:
            return self._after_failure(error)
        delay = self._plan.after_close(close)
        if delay is None:
            self._finish(ConnectionClosed(close.code, close.reason), by_server=True)
        elif close.code == UNAUTHORIZED:
            self._tell(RequestFailed("unauthorized", close.reason))
        return delay

    def _after_failure(self, error: KeeplineError) -> float:
        """Report a failed attempt. Returns the seconds until the next one."""
        self._tell(error)
        told = error.retry_after if isinstance(error, RequestFailed | AttemptFailed) else None
        return self._plan.after_failure(told)

    def _tell(self, error: KeeplineError) -> None:
        self._failure = error
        self._callbacks.failed(error)

    async def _live_through(self) -> Close:
        """Run one connection and, after a goodbye, the next, until one ends for another reason."""
        opened = await self._open()
        while not isinstance(opened, Close):
            opened = await self._live_on(opened)
        return opened

    async def _open(self) -> Connection | Close:
        """Connect and say hello. Returns the connection that carries the calls from now on, or how it was closed."""
        token = await _fetched(self._token, self._options.request_timeout)
        url = self._addresses.next(self.calls.any_room() or self._room_hint)
        connection = await Connection.open(url, self._options)
        # From this hello on, frames of the previous connection, if there is one, are ignored.
        self.calls.hold_back()
        try:
            resume = self._welcome.resume if self._welcome else None
            answer = await connection.hello(token, resume, self._on_queued)
            if not isinstance(answer, Close):
                self._on_welcome(connection, answer)
                return connection
        except BaseException:
            await connection.close()
            raise
        await connection.close()
        return answer

    async def _live_on(self, connection: Connection) -> Connection | Close:
        """Read until the connection ends, or until the next one has taken over."""
        goodbye = Goodbye(self._options.sleep)
        restoring = asyncio.create_task(self._restore(connection), name="keepline-restore")
        reading = asyncio.create_task(
            connection.run(lambda frame: self._on_frame(frame, goodbye)), name="keepline-read"
        )
        moving = asyncio.create_task(self._move(goodbye), name="keepline-move")
        try:
            await asyncio.wait({reading, moving}, return_when=asyncio.FIRST_COMPLETED)
            if goodbye.is_due:
                # A connection that the next one takes over is closed, possibly before the next one knows it.
                await asyncio.wait({moving}, timeout=self._options.request_timeout)
            following = moving.result() if moving.done() else None
            if following is None:
                return _ours(await reading) if goodbye.is_due else await reading
            await asyncio.wait({reading}, timeout=OVERLAP_SECONDS)
            return following
        finally:
            for task in (restoring, reading, moving):
                task.cancel()
            self._detach(connection)
            await connection.close()
            await asyncio.gather(restoring, reading, moving, return_exceptions=True)

    async def _restore(self, connection: Connection) -> None:
        try:
            await self.calls.restore(connection)
        except Exception:
            _log.exception("the calls could not be restored")
            connection.abort()

    async def _move(self, goodbye: Goodbye) -> Connection | None:
        """After a goodbye's time, open the next connection while this one still works; None if that is not allowed."""
        await goodbye.due()
        while True:
            try:
                opened = await self._open()
            except KeeplineError as error:
                delay = self._after_failure(error)
            else:
                if not isinstance(opened, Close):
                    return opened
                if opened.come_back in (ComeBack.NEVER, ComeBack.FRESH_TOKEN):
                    self.calls.go_on()
                    return None
                delay = self._plan.after_failure()
            self.calls.go_on()
            await self._options.sleep(delay)

    # --- what a connection brings ---

    def _on_queued(self) -> None:
        """The server has queued the hello: extend the wait for the first connection, too."""
        patience = self._patience
        if patience is not None and (ends_at := patience.when()) is not None:
            more = asyncio.get_running_loop().time() + self._options.request_timeout
            patience.reschedule(max(ends_at, more))

    def _on_welcome(self, connection: Connection, welcome: Welcome) -> None:
        self._plan.welcomed()
        if not welcome.resumed:
            self.calls.lose()  # if another connection held them until now
        self._connection, self._welcome = connection, welcome
        if welcome.resumed:
            self.calls.resumed(connection, welcome)
        self.ready.set()
        self._callbacks.enter(State.CONNECTED)

    def _on_frame(self, frame: Frame, goodbye: Goodbye) -> None:
        kind = frame["type"]
        if kind == "joined" and self._connection is not None:
            self.calls.joined(self._connection, Membership.parse(frame))
        elif kind == "goodbye":
            seconds = frame["reconnect_after_ms"] / 1000
            self._plan.goodbye(seconds)
            goodbye.received(seconds)
        elif kind == "ice":
            self._on_ice(tuple(IceServer.parse(server) for server in frame["ice_servers"]))
        else:
            self.calls.receive(frame)

    def _on_ice(self, ice_servers: tuple[IceServer, ...]) -> None:
        self._welcome = replace(self.welcome, ice_servers=ice_servers)
        self.calls.notify(IceServersChanged(ice_servers))

    def _detach(self, connection: Connection) -> None:
        """Prevent sending on a connection that is gone."""
        if self._connection is connection:
            self._connection = None
            self.ready.clear()
            self.calls.lose()

    def _finish(self, error: KeeplineError, *, by_server: bool) -> None:
        self.ready.fail(error)
        self.calls.close(error, by_server=by_server)
        self._callbacks.enter(State.CLOSED)


def _ours(close: Close) -> Close:
    """The close of a connection that was about to be replaced: if it was taken over, then by ourselves."""
    return Close(ABNORMAL_CLOSURE, "lost while moving") if close.code == REPLACED else close


async def _fetched(token: TokenSource, seconds: float) -> str:
    if isinstance(token, str):
        return token
    try:
        async with asyncio.timeout(seconds):
            return await token()
    except Exception as error:
        raise TokenUnavailable(f"no token for the next connection: {error!r}") from error
