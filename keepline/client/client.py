"""The client: the object that an application uses. `Connector` does the work behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from keepline.client.active_call import ActiveCall
from keepline.client.addresses import Addresses
from keepline.client.app_callbacks import AppCallbacks, State
from keepline.client.call import Call
from keepline.client.close_codes import NORMAL_CLOSURE
from keepline.client.connector import Connector, TokenSource
from keepline.client.errors import CallEnded, ConnectionClosed, KeeplineError, RequestTimedOut
from keepline.client.limits import REASON_LENGTH, check_text, room_id_of
from keepline.client.models import IceServer, Membership
from keepline.client.options import Options

_DEFAULTS = Options()


class Keepline:
    """A user's connection to the cluster. Use it as an async context manager.

    Entering waits for the first welcome. Leaving closes the connection, which peers see as a loss: call `end` or
    `leave` on the calls first. In between, it reconnects and rejoins automatically, as long as the protocol allows.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: TokenSource,
        *,
        room_hint: str | None = None,
        on_state: Callable[[State], None] | None = None,
        on_error: Callable[[KeeplineError], None] | None = None,
        options: Options = _DEFAULTS,
    ) -> None:
        """Take an address such as `wss://signal.example.org/v1`, or several to be tried in turn, and a token.

        A function that fetches tokens is called for every connection. With a fixed string, a token that expires ends
        the client at its next reconnect. `room_hint` helps a load balancer to bring both peers of a call to one node.
        `on_state` is called with each new state, and `on_error` with the error of each failed attempt to connect
        (AttemptFailed has its HTTP status); their exceptions are logged. Raises ValueError for an invalid address.
        """
        self._options = options
        self._callbacks = AppCallbacks(on_state, on_error)
        self._connector = Connector(Addresses(url), token, room_hint, self._callbacks, options)

    async def __aenter__(self) -> Self:
        """Connect. Raises ConnectFailed if no node answers in time, ConnectionClosed if one refuses."""
        try:
            await self._connector.start()
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
        """The current state of the client."""
        return self._callbacks.state

    @property
    def user(self) -> str:
        """The user that the token identifies. Raises RuntimeError before the first welcome."""
        return self._connector.welcome.user

    @property
    def node(self) -> str:
        """The name of the node of the last connection, for logs. Raises RuntimeError before the first
        welcome.
        """
        return self._connector.welcome.node

    @property
    def rooms(self) -> tuple[Membership, ...]:
        """The user's live rooms at the last welcome. Raises RuntimeError before the first one."""
        return self._connector.welcome.rooms

    @property
    def ice_servers(self) -> tuple[IceServer, ...]:
        """The current STUN and TURN servers. Raises RuntimeError before the first welcome."""
        return self._connector.welcome.ice_servers

    async def join(self, room_id: str) -> Call:
        """Take this user's side of a room. Joining a room again returns another handle on the same call, unless that
        call is being left: then it is a new call.

        Raises RequestFailed (`not_a_member`, `room_not_found`, `room_ended`, …), RequestTimedOut, CallEnded if the room
        ended at that very moment, or ConnectionClosed.
        """
        room_id = room_id_of(room_id)
        active = await self._active_call(room_id)
        if active is None:
            with self._connector.calls.expecting(room_id):
                frame = {"type": "join", "room": room_id}
                await self._connector.request(frame, self._connector.ready, repeatable=True)
            active = self._connector.calls.get(room_id)
            if active is None:  # it ended after the answer was sent
                raise CallEnded("room_ended")
        return Call(active)

    async def report(self, room_id: str, reason: str) -> None:
        """Report the other member of a room to the app's moderators, like `Call.report` for a call.

        Raises RequestFailed (`not_a_member`, `room_not_found`, `rate_limited`, …), RequestTimedOut or ConnectionClosed.
        """
        check_text("reason", reason, REASON_LENGTH)
        frame = {"type": "report", "room": room_id_of(room_id), "reason": reason}
        await self._connector.request(frame, self._connector.ready, repeatable=True)

    async def close(self) -> None:
        """Close the connection and end all iterators. May be called more than once."""
        await self._connector.stop(ConnectionClosed(NORMAL_CLOSURE, "closed by the application"))

    async def _active_call(self, room_id: str) -> ActiveCall | None:
        """The current call in a room. Waits for one that is being left, so that the next call follows it."""
        try:
            async with asyncio.timeout(self._options.request_timeout):
                while (active := self._connector.calls.get(room_id)) is not None and active.departing:
                    await active.departed()
        except TimeoutError as error:
            raise RequestTimedOut("the call before this one is still being left") from error
        return active
