"""The client connections of this node, found by session and by user."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator

from keepline.ops.budget import Budget
from keepline.ops.origins import Origins
from keepline.ops.turns import Turns
from signal_node.protocol import close_codes
from signal_node.protocol.answers import Answers
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.session import SESSION_ID_BYTES, Session, SessionLimits, Stage
from signal_node.protocol.token_bucket import Bucket
from signal_node.transport.budget import Allowances
from signal_node.transport.connection import CLOSE_SECONDS, Connection, Handler
from signal_node.transport.outgoing import Writer
from signal_node.transport.stalls import Stalls
from signal_node.transport.strangers import Strangers
from signal_node.transport.websocket import MAX_HEAD_BYTES, WebSocket

MAX_STRANGERS = 5_000

LIMITED_SECONDS = 1.0
"""How long a connection that is to be refused may take to send hello."""


def new_session_id() -> str:
    """An id that no other session of the cluster has: 16 characters, 64 random bits."""
    return secrets.token_hex(SESSION_ID_BYTES // 2)


class Connections:
    """All connections, from `accept` on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        limits: SessionLimits,
        max_frame: int,
        max_outgoing: int,
        origins: Origins,
        hello_seconds: float,
        ping_seconds: float,
        pong_seconds: float,
        max_head: int = MAX_HEAD_BYTES,
        max_strangers: int = MAX_STRANGERS,
        work: Allowances | None = None,
    ) -> None:
        self._loop = loop
        self._writer = Writer(loop)
        self.turns = Turns(loop)
        self.stalls = Stalls()
        self.strangers = Strangers(max_strangers)
        self._limits = limits
        self.work = work or Allowances()
        self._max_frame = max_frame
        self._max_head = max_head
        self._max_outgoing = max_outgoing
        self._origins = origins
        self._hello_seconds = hello_seconds
        self._ping_seconds = ping_seconds
        self._pong_seconds = pong_seconds
        self._accepted: dict[Connection, None] = {}
        self._by_session: dict[str, Connection] = {}
        self.get = self._by_session.get  # connection by session, for every signal: no call in between
        self._by_user: dict[str, str] = {}
        self.errors: Counter[ErrorCode] = Counter()
        self._answers = Answers(self.errors)
        self.opened_ones = 0
        self.closed_ones: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_session)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._accepted))

    def accept(self, handler: Handler, host: str | None = None) -> Connection:
        """Create a connection for an IP address, before asyncio connects it."""
        connection = Connection(
            handler,
            Session(new_session_id(), self._limits, self._answers),
            WebSocket(self._max_frame, self._max_head),
            self._writer,
            self.turns,
            self.stalls,
            loop=self._loop,
            socket_host=host,
            budget=Budget(self.work.connection, self.work.connection_burst),
            other_frames=self.new_bucket(),
            max_outgoing=self._max_outgoing,
            origins=self._origins,
        )
        self._accepted[connection] = None
        self.strangers.came(connection)
        return connection

    def new_bucket(self) -> Bucket:
        """The frame counter of a client that has not sent any yet."""
        return Bucket(self._limits.frames_per_second, self._limits.frames_burst)

    def opened(self, connection: Connection) -> None:
        """The handshake has finished: the session can be found."""
        self._by_session[connection.session.id] = connection
        self.opened_ones += 1

    def took(self, user: str, session: str) -> None:
        """The session now holds the user."""
        self._by_user[user] = session

    def closed(self, connection: Connection) -> None:
        """Forget a closed connection."""
        session = connection.session
        self.closed_ones[connection.websocket.ended_by] += 1
        self._accepted.pop(connection, None)
        self.strangers.known(connection)
        self._by_session.pop(session.id, None)
        if self._by_user.get(session.user) == session.id:
            del self._by_user[session.user]

    def sessions(self) -> list[str]:
        """The ids of all open sessions."""
        return list(self._by_session)

    def session_of(self, user: str) -> str | None:
        """The session that holds the user on this node."""
        return self._by_user.get(user)

    def forward(self, session: str, data: bytes) -> bool:
        """Write a frame from the peer or the room; False if the session is not here."""
        connection = self._by_session.get(session)
        if connection is None:
            return False
        connection.outgoing.forward(data)
        return True

    async def run_sweep(self, seconds: float = 0.5) -> None:
        """Check for silent and slow connections until cancelled. One task for all, because a timer for each would cost
        more.
        """
        while True:
            await asyncio.sleep(seconds)
            now = self._loop.time()
            for connection in self:
                self.sweep(connection, now)

    def sweep(self, connection: Connection, now: float) -> None:
        """Close a connection whose time is up at `now`, in seconds of the event loop's clock, and ping a silent one."""
        if connection.websocket.closing:
            if connection.closing_since is None:
                connection.closing_since = now
            elif now - connection.closing_since > CLOSE_SECONDS:
                connection.abort()
        elif connection.websocket.connecting:
            if now - connection.opened_at > self._hello_seconds:
                connection.abort()
        elif connection.session.stage is Stage.NEW:
            waited = now - connection.opened_at
            if waited > LIMITED_SECONDS:
                connection.perform(connection.session.dismissed())
            if waited > self._hello_seconds:
                connection.close(close_codes.NO_HELLO)
        elif connection.pinged_at is not None:
            if now - connection.pinged_at > self._pong_seconds:
                connection.abort()
        elif now - connection.heard_at > self._ping_seconds:
            connection.ping(now)
