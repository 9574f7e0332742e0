"""Logs clients in: checks the token, takes the user, and for a resumed session the sides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from keepline.ops import logs
from keepline.ops.redis.scripts import StoreUnavailable
from signal_node.ice.servers import IceServers
from signal_node.limits.address_limits import AddressLimits
from signal_node.protocol import close_codes
from signal_node.protocol.effects import Authenticate
from signal_node.protocol.session import Session
from signal_node.signaling.admission import Admission
from signal_node.signaling.admission_queue import Line
from signal_node.signaling.local_sessions import LocalSessions
from signal_node.signaling.rooms_of_users import RoomsOfUsers
from signal_node.signaling.takeover import Takeover
from signal_node.signaling.work import AWAY, RETRY_AFTER_MS, STORED_SECONDS, Work
from signal_node.transport.connection import Connection
from signal_node.transport.connections import Connections
from signal_node.users.ownership import Taken, Users
from signal_node.users.tokens import KeysUnavailable, Unauthorized, Verifier

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LoginCounts:
    """Results of hellos."""

    accepted: int = 0
    refused: int = 0
    resumed: int = 0
    stale: int = 0
    outdated: int = 0
    resume_unavailable: int = 0


@dataclass(eq=False, slots=True)
class Hello:
    """A client that asks to log in (`admission.Visit`)."""

    login: Login
    connection: Connection
    effect: Authenticate

    @property
    def line(self) -> Line:
        """Clients that return to a call come before new ones."""
        return Line.NEW if self.effect.resume is None else Line.RESUME

    async def serve(self) -> None:
        """Let the client in, or say why not. Frames of peers wait until its hello is answered."""
        self.connection.outgoing.hold_back()
        await self.login.authenticate(self.connection, self.effect)

    def refuse(self, message: str, retry_after_ms: int) -> None:
        """The client may send hello again on the same connection."""
        session, request_id = self.connection.session, self.effect.request_id
        self.connection.hello_due_in(retry_after_ms / 1_000)
        self.connection.perform(session.postponed(request_id, message, retry_after_ms))

    def tell_queued(self, ahead: int, wait_ms: int) -> None:
        """Tell the client that it waits, which also extends its patience."""
        self.connection.perform(self.connection.session.queued(ahead, wait_ms))


class Login:
    """Answers hellos."""

    def __init__(
        self,
        node: str,
        clients: Connections,
        sessions: LocalSessions,
        users: Users,
        takeover: Takeover,
        rooms: RoomsOfUsers,
        verifier: Verifier,
        ice: IceServers,
        limits: AddressLimits,
        work: Work,
        admission: Admission,
        *,
        is_live: Callable[[str], bool],
    ) -> None:
        """`is_live(node)` is whether a node has been seen recently."""
        self.counts = LoginCounts()
        self._node = node
        self._clients = clients
        self._sessions = sessions
        self._users = users
        self._takeover = takeover
        self._rooms = rooms
        self._verifier = verifier
        self._ice = ice
        self._limits = limits
        self._work = work
        self._admission = admission
        self._is_live = is_live

    def begin(self, connection: Connection, effect: Authenticate) -> None:
        """Let a client in when it is its turn."""
        self._clients.strangers.known(connection)
        self._admission.ask(Hello(self, connection, effect))

    def gone(self, connection: Connection) -> None:
        """A connection has closed: its session no longer holds a user."""
        session = connection.session
        if session.user:
            self.session_over(session.user, session.id)

    async def authenticate(self, connection: Connection, effect: Authenticate) -> None:
        """Answer a hello."""
        session = connection.session
        logs.bind(session=session.id)  # applies to this task's log lines only
        try:
            await self._let_in(connection, effect)
        except Exception:
            _log.exception("hello_failed")
            connection.perform(session.postponed(effect.request_id, AWAY, RETRY_AFTER_MS))
        finally:
            connection.answered()

    async def _let_in(self, connection: Connection, effect: Authenticate) -> None:
        """Three round trips to Redis: the address and the user's rooms, the user and the records, the sides."""
        session = connection.session
        if session.closed():
            return
        user = await self._user_of(effect.token)
        index = self._rooms.ask(user) if isinstance(user, str) else None
        await self._limits.admit(connection, lambda: self._is_known(user, effect.resume))
        if session.closed():
            return
        if index is None or not isinstance(user, str):
            await self._turn_away(connection, effect, user)
            return
        self._limits.admit_user(connection, user)
        if session.closed():
            return
        asked = await self._rooms.records(user, index)
        taken = await self._take_user(user, session, effect.resume)
        if taken.outdated:
            self.counts.outdated += 1
            connection.close(close_codes.REPLACED)
            return
        held = await self._rooms.of(user, asked, session, resumed=taken.resumed)
        if session.closed():
            return
        self.counts.accepted += 1
        _log.debug("session_welcomed", session=session.id, resumed=taken.resumed, rooms=len(held))
        welcome = session.welcomed(
            request_id=effect.request_id,
            resume=taken.resume,
            resumed=taken.resumed,
            node=self._node,
            ice_servers=self._ice.for_user(user, time.time()),
            rooms=held,
        )
        connection.perform(welcome)

    # --- who it is ---

    async def _user_of(self, token: str) -> str | Unauthorized | KeysUnavailable:
        """The user of a token, or why there is none."""
        try:
            return self._verifier.user_lately(token) or await self._verifier.user_of(token)
        except (Unauthorized, KeysUnavailable) as error:
            return error

    async def _is_known(self, user: object, resume: str | None) -> bool:
        """Whether a client has a valid token and a resume secret of its user."""
        if resume is None or not isinstance(user, str):
            return False
        try:
            async with asyncio.timeout(STORED_SECONDS):
                return await self._users.recognizes(user, resume)
        except (StoreUnavailable, TimeoutError):
            return False

    async def _turn_away(self, connection: Connection, effect: Authenticate, why: object) -> None:
        session = connection.session
        if isinstance(why, Unauthorized):
            self.counts.refused += 1
            self._limits.log.token_refused(connection.address, session.id, str(why))
            if why.is_guess:
                await self._limits.login_failed(connection)
            connection.perform(session.refused(effect.request_id, str(why)))
        else:
            connection.perform(session.postponed(effect.request_id, str(why), RETRY_AFTER_MS))

    # --- the user ---

    async def _take_user(self, user: str, session: Session, resume: str | None) -> Taken:
        """Assign the user to this session, and close the session that held it, unless the client is outdated."""
        taken = await self._taken(user, session, resume)
        if taken.outdated:
            return taken
        if session.closed():
            self.session_over(user, session.id)
        else:
            session.user = user
            self._clients.took(user, session.id)
        if taken.session is not None and taken.node is not None and taken.session != session.id:
            self._takeover.replace(taken.node, taken.session)
        return taken

    async def _taken(self, user: str, session: Session, resume: str | None) -> Taken:
        """Without Redis, only this node's own state is known. Redis is told once it is back."""
        users = self._users
        try:
            async with asyncio.timeout(STORED_SECONDS):
                taken = await users.take(user, session.id, resume)
                if taken.outdated and self._is_gone(taken):
                    taken = await users.take(user, session.id, resume, dead=taken.session)
        except (StoreUnavailable, TimeoutError) as error:
            self.counts.resume_unavailable += resume is not None
            _log.warning("take_user_unavailable", error=str(error))
            here = self._clients.session_of(user)
            secret = users.take_alone(user, session.id)
            return Taken(secret, None if here is None else self._node, here, "taken")
        if resume is not None and not taken.outdated:
            self.counts.resumed += taken.resumed
            self.counts.stale += not taken.resumed
        return taken

    def _is_gone(self, taken: Taken) -> bool:
        """Whether the session that holds a user is known to be gone: its node died, or has lost it."""
        if taken.node == self._node:
            return taken.session is not None and not self._sessions.stays(taken.session)
        return taken.node is not None and not self._is_live(taken.node)

    def session_over(self, user: str, session: str) -> None:
        """The session has ended: nobody holds the user, unless another session has taken it."""
        self._users.forget(user, session)
        self._work.begin(self._release(user, session))

    async def _release(self, user: str, session: str) -> None:
        try:
            await self._users.release(user, session)
        except StoreUnavailable as error:
            _log.warning("release_user_unavailable", error=str(error))
            self._users.release_later(user, session)
