"""The client: keeps one connection to the cluster alive, and its calls on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import quote

from keepline.client.call import Call
from keepline.client.calls import Calls
from keepline.client.closes import ABNORMAL_CLOSURE, INTERNAL_ERROR, NORMAL_CLOSURE, REPLACED, Close, ComeBack
from keepline.client.connection import Connection
from keepline.client.errors import (
    CallEnded,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    KeeplineError,
    RequestFailed,
    RequestTimedOut,
    TokenUnavailable,
)
from keepline.client.events import IceServersChanged
from keepline.client.farewell import Farewell
from keepline.client.frames import Frame
from keepline.client.gate import Gate
from keepline.client.models import IceServer, Membership, Welcome
from keepline.client.options import Options
from keepline.client.reconnect import ReconnectPlan
from keepline.ops.backoff import Backoff

TokenSource = str | Callable[[], Awaitable[str]]

FAREWELL_SECONDS = 1.0
"""How long the connection before is read after the next one has taken over: what is on its way comes first."""

_DEFAULTS = Options()
_log = logging.getLogger(__name__)


class State(Enum):
    """What the client is doing."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class Keepline:
    """A user's connection to the cluster. Use it as an async context manager.

    Entering waits for the first welcome; leaving closes the connection, which the peers see as a loss: `end`
    or `leave` the calls first. In between it reconnects and rejoins by itself, for as long as the protocol
    allows.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: TokenSource,
        *,
        room_hint: str | None = None,
        on_state: Callable[[State], None] | None = None,
        options: Options = _DEFAULTS,
    ) -> None:
        """Take an address such as `wss://signal.example.org/v1`, or several to be tried in turn, and a token.

        A function that fetches tokens is called for every connection; with a fixed string a token that
        expires ends the client at its next reconnect. `room_hint` helps a load balancer to bring both ends of
        a call to one node. `on_state` is called with each new state; what it raises is logged.
        """
        self._urls = (url,) if isinstance(url, str) else tuple(url)
        if not self._urls:
            raise ValueError("at least one url is required")
        self._token = token
        self._room_hint = room_hint
        self._on_state = on_state
        self._options = options
        self._plan = ReconnectPlan(
            Backoff(options.backoff_base, options.backoff_cap, uniform=options.uniform),
            options.clock,
            fresh_tokens=not isinstance(token, str),
        )
        self._attempts = 0
        self._state = State.CONNECTING
        self._gate = Gate()
        self._calls = Calls(self._request, self._gate, options)
        self._connection: Connection | None = None
        self._welcome: Welcome | None = None
        self._failure: KeeplineError | None = None
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises ConnectFailed when no node answers in time, ConnectionClosed when one refuses."""
        self._tell_state()
        self._runner = asyncio.create_task(self._run(), name="keepline-client")
        try:
            async with asyncio.timeout(self._options.first_connect_timeout):
                await self._gate.passed()
        except TimeoutError:
            await self.close()
            raise ConnectFailed("no node could be reached within the timeout") from self._failure
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def state(self) -> State:
        """What the client is doing now."""
        return self._state

    @property
    def user(self) -> str:
        """The user that the token stands for. Raises RuntimeError before the first welcome."""
        return self._welcomed().user

    @property
    def node(self) -> str:
        """The name of the node of the last connection, for logs. Raises RuntimeError before the first
        welcome.
        """
        return self._welcomed().node

    @property
    def rooms(self) -> tuple[Membership, ...]:
        """The user's live rooms at the last welcome. Raises RuntimeError before the first one."""
        return self._welcomed().rooms

    @property
    def ice_servers(self) -> tuple[IceServer, ...]:
        """The STUN and TURN servers to use now. Raises RuntimeError before the first welcome."""
        return self._welcomed().ice_servers

    async def join(self, room_id: str) -> Call:
        """Take this user's side of a room. Joining a room again gives another handle on the same call.

        Raises RequestFailed (`not_a_member`, `room_not_found`, `room_ended`, …), RequestTimedOut, CallEnded
        when the room ended at that very moment, or ConnectionClosed.
        """
        link = self._calls.get(room_id)
        if link is None:
            with self._calls.expecting(room_id):
                await self._request({"type": "join", "room": room_id}, self._gate, repeatable=True)
            link = self._calls.get(room_id)
            if link is None:  # it ended between the answer and now
                raise CallEnded("room_ended")
        return Call(link)

    async def report(self, room_id: str, reason: str) -> None:
        """Tell the app's moderators about the other member of a room, as `Call.report` does of a call at hand.

        Raises RequestFailed (`not_a_member`, `room_not_found`, `rate_limited`, …), RequestTimedOut or
        ConnectionClosed.
        """
        frame = {"type": "report", "room": room_id, "reason": reason}
        await self._request(frame, self._gate, repeatable=True)

    async def close(self) -> None:
        """Close the connection and end all iterators. May be called more than once."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner], timeout=2 * self._options.close_timeout)
        self._finish(ConnectionClosed(NORMAL_CLOSURE, "closed by the application"), by_server=False)

    async def _run(self) -> None:
        """Connect again and again until that is not allowed any more."""
        try:
            while (delay := await self._connect_once()) is not None:
                self._set_state(State.RECONNECTING if self._welcome else State.CONNECTING)
                await self._options.sleep(delay)
        except Exception as error:
            _log.exception("the client failed")
            self._finish(ConnectionClosed(INTERNAL_ERROR, f"the client failed: {error!r}"), by_server=True)

    async def _connect_once(self) -> float | None:
        """One connection from beginning to end: seconds until the next one, None if there must be none."""
        try:
            close = await self._live_through()
        except RequestFailed as error:
            self._failure = error
            return max(error.retry_after or 0.0, self._plan.after_failure())
        except KeeplineError as error:
            self._failure = error
            return self._plan.after_failure()
        delay = self._plan.after_close(close)
        if delay is None:
            self._finish(ConnectionClosed(close.code, close.reason), by_server=True)
        return delay

    async def _live_through(self) -> Close:
        """Live on one connection, and after a goodbye on the next, until one ends for another reason."""
        opened = await self._open()
        while not isinstance(opened, Close):
            opened = await self._live_on(opened)
        return opened

    async def _open(self) -> Connection | Close:
        """Connect and say hello: the connection that carries the calls from now on, or how it was closed."""
        token = await self._fetch_token()
        connection = await Connection.open(self._next_url(), self._options)
        # From this hello on the connection before, if there is one, is heard no more.
        self._calls.hold_back()
        try:
            answer = await connection.hello(token, self._welcome.resume if self._welcome else None)
            if not isinstance(answer, Close):
                self._on_welcome(connection, answer)
                return connection
        except BaseException:
            await connection.close()
            raise
        await connection.close()
        return answer

    async def _live_on(self, connection: Connection) -> Connection | Close:
        """Read until the connection ends, or until the next one has taken over from it."""
        farewell = Farewell(self._options.sleep)
        restoring = asyncio.create_task(self._calls.restore(connection), name="keepline-restore")
        reading = asyncio.create_task(
            connection.run(lambda frame: self._on_frame(frame, farewell)), name="keepline-read"
        )
        moving = asyncio.create_task(self._move(farewell), name="keepline-move")
        try:
            await asyncio.wait({reading, moving}, return_when=asyncio.FIRST_COMPLETED)
            if farewell.is_due:
                # A connection from which the next one takes over is closed, perhaps before that one knows.
                await asyncio.wait({moving}, timeout=self._options.request_timeout)
            following = moving.result() if moving.done() else None
            if following is None:
                return _ours(await reading) if farewell.is_due else await reading
            await asyncio.wait({reading}, timeout=FAREWELL_SECONDS)
            return following
        finally:
            for task in (restoring, reading, moving):
                task.cancel()
            self._detach(connection)
            await connection.close()
            await asyncio.gather(restoring, reading, moving, return_exceptions=True)

    async def _move(self, farewell: Farewell) -> Connection | None:
        """Once a goodbye's time has come, open the next connection while this one works; None when it may not be."""
        await farewell.due()
        while True:
            try:
                opened = await self._open()
            except KeeplineError as error:
                self._failure = error
            else:
                if not isinstance(opened, Close):
                    return opened
                if opened.come_back in (ComeBack.NEVER, ComeBack.FRESH_TOKEN):
                    await self._calls.go_on()
                    return None
            await self._calls.go_on()
            await self._options.sleep(self._plan.after_failure())

    async def _fetch_token(self) -> str:
        if isinstance(self._token, str):
            return self._token
        try:
            async with asyncio.timeout(self._options.request_timeout):
                return await self._token()
        except Exception as error:
            raise TokenUnavailable("the token source gave no token for the next connection") from error

    def _next_url(self) -> str:
        url = self._urls[self._attempts % len(self._urls)]
        self._attempts += 1
        hint = self._calls.any_room() or self._room_hint
        return url if hint is None else f"{url}{'&' if '?' in url else '?'}room={quote(hint, safe='')}"

    def _on_welcome(self, connection: Connection, welcome: Welcome) -> None:
        self._plan.welcomed()
        if not welcome.resumed:
            self._calls.lose()  # where another connection held them until now
        self._connection, self._welcome = connection, welcome
        if welcome.resumed:
            self._calls.resumed(connection, welcome)
        self._gate.open()
        self._set_state(State.CONNECTED)

    def _on_frame(self, frame: Frame, farewell: Farewell) -> None:
        kind = frame["type"]
        if kind == "joined" and self._connection is not None:
            self._calls.joined(self._connection, Membership.parse(frame))
        elif kind == "goodbye":
            seconds = frame["reconnect_after_ms"] / 1000
            self._plan.goodbye(seconds)
            farewell.said(seconds)
        elif kind == "ice":
            self._on_ice(tuple(IceServer.parse(server) for server in frame["ice_servers"]))
        else:
            self._calls.receive(frame)

    def _on_ice(self, ice_servers: tuple[IceServer, ...]) -> None:
        self._welcome = replace(self._welcomed(), ice_servers=ice_servers)
        self._calls.notify(IceServersChanged(ice_servers))

    def _detach(self, connection: Connection) -> None:
        """Let nothing be sent on a connection that is gone."""
        if self._connection is connection:
            self._connection = None
            self._gate.shut()
            self._calls.lose()

    async def _request(self, frame: Frame, gate: Gate, *, repeatable: bool) -> Frame:
        try:
            async with asyncio.timeout(self._options.request_timeout):
                while True:
                    await gate.passed()
                    if (connection := self._connection) is None:
                        raise ConnectionLost("the connection was lost")
                    try:
                        return await connection.request(frame)
                    except ConnectionLost:
                        self._detach(connection)
                        if not repeatable:
                            raise
        except TimeoutError as error:
            raise RequestTimedOut(f"no answer to {frame['type']}") from error

    def _finish(self, error: ConnectionClosed, *, by_server: bool) -> None:
        self._gate.bar(error)
        self._calls.close(error, by_server=by_server)
        self._set_state(State.CLOSED)

    def _welcomed(self) -> Welcome:
        if self._welcome is None:
            raise RuntimeError("the client has not been welcomed yet")
        return self._welcome

    def _set_state(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._tell_state()

    def _tell_state(self) -> None:
        if self._on_state is None:
            return
        try:
            self._on_state(self._state)
        except Exception:
            _log.exception("on_state failed for %s", self._state)


def _ours(close: Close) -> Close:
    """The close of a connection that we were about to leave: if it was replaced, then by ourselves."""
    return Close(ABNORMAL_CLOSURE, "lost while moving") if close.code == REPLACED else close
