"""How a client is let in: its token is looked at, it takes its user, and a resumed one its sides."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

import structlog

from keepline.ops import logs
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.record import Room, SideNumber
from signal_node.ice.servers import IceServers
from signal_node.limits.address_limits import AddressLimits
from signal_node.protocol import frames
from signal_node.protocol.session import Authenticate, Session
from signal_node.rooms.journal import Done, JournalFull
from signal_node.signaling.crowding import Crowding
from signal_node.signaling.node import Node
from signal_node.signaling.work import AWAY, RETRY_AFTER_MS, STORED_SECONDS, Work
from signal_node.transport.connection import Connection
from signal_node.users.ownership import Taken
from signal_node.users.tokens import KeysUnavailable, Unauthorized, Verifier

AUTHENTICATE_SECONDS = 10.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LoginCounts:
    """What became of hellos."""

    accepted: int = 0
    refused: int = 0
    resumed: int = 0
    stale: int = 0
    resume_unavailable: int = 0


class Login:
    """Answers hellos."""

    def __init__(
        self, node: Node, verifier: Verifier, ice: IceServers, limits: AddressLimits, work: Work
    ) -> None:
        self.counts = LoginCounts()
        self._node = node
        self._verifier = verifier
        self._ice = ice
        self._limits = limits
        self._work = work
        self.crowding = Crowding()

    def begin(self, connection: Connection, effect: Authenticate) -> None:
        """Begin to let a client in. Frames of peers wait until its hello is answered."""
        connection.answer_pending()
        self._work.begin(self._authenticate(connection, effect))

    async def _authenticate(self, connection: Connection, effect: Authenticate) -> None:
        session = connection.session
        self.crowding.came(session.id, self._node.now())
        logs.bind(session=session.id)  # what this task logs, and nothing else
        try:
            await self._limits.admit(connection)
            if session.closed():
                return
            user = await self._user_of(connection, effect)
            if user is None or session.closed():
                return
            self._limits.admit_user(connection, user)
            if session.closed():
                return
            taken = await self._take_user(user, session, effect.resume)
            held = await self._rooms_of(user, session, resumed=taken.resumed)
            if session.closed():
                return
            self.counts.accepted += 1
            _log.debug("session_welcomed", session=session.id, resumed=taken.resumed, rooms=len(held))
            welcome = session.welcomed(
                request_id=effect.request_id,
                resume=taken.resume,
                resumed=taken.resumed,
                node=self._node.id,
                ice_servers=self._ice.for_user(user, time.time()),
                rooms=held,
            )
            connection.perform(welcome)
        except Exception:
            _log.exception("hello_failed")
            connection.perform(session.postponed(effect.request_id, AWAY, RETRY_AFTER_MS))
        finally:
            self.crowding.went(session.id, self._node.now())
            connection.answered()

    async def _user_of(self, connection: Connection, effect: Authenticate) -> str | None:
        session = connection.session
        try:
            async with asyncio.timeout(AUTHENTICATE_SECONDS):
                return await self._verifier.user_of(effect.token)
        except Unauthorized as error:
            self.counts.refused += 1
            await self._limits.login_failed(connection)
            connection.perform(session.refused(effect.request_id, str(error)))
        except (KeysUnavailable, TimeoutError) as error:
            connection.perform(session.postponed(effect.request_id, str(error), RETRY_AFTER_MS))
        return None

    async def _take_user(self, user: str, session: Session, resume: str | None) -> Taken:
        """Make the user this session's; whoever held it is closed. Without Redis only this node's can be known."""
        here = self._node.clients.session_of(user)
        try:
            async with asyncio.timeout(STORED_SECONDS):
                taken = await self._node.users.take(user, session.id, resume)
            if resume is not None:
                self.counts.resumed += taken.resumed
                self.counts.stale += not taken.resumed
        except (StoreUnavailable, TimeoutError) as error:
            self.counts.resume_unavailable += resume is not None
            _log.warning("take_user_unavailable", error=str(error))
            taken = Taken(secrets.token_urlsafe(24), None if here is None else self._node.id, here, False)
        if session.closed():
            self.let_go(user, session.id)
        else:
            session.user = user
            self._node.clients.took(user, session.id)
        if taken.session is not None and taken.node is not None and taken.session != session.id:
            self._node.replace(taken.node, taken.session)
        return taken

    def let_go(self, user: str, session: str) -> None:
        """The session is over: nobody holds the user, unless another session has taken it."""
        self._node.users.let_go(user, session)
        self._work.begin(self._release(user, session))

    async def _release(self, user: str, session: str) -> None:
        try:
            await self._node.users.release(user, session)
        except StoreUnavailable as error:
            _log.warning("release_user_unavailable", error=str(error))

    async def _rooms_of(self, user: str, session: Session, *, resumed: bool) -> list[frames.HeldRoom]:
        """The user's live rooms. A resumed session takes the sides that the one before it held or lost."""
        rooms: list[frames.HeldRoom] = []
        try:
            async with asyncio.timeout(STORED_SECONDS):
                for room in await self._node.store.rooms_of(user):
                    held = await self._room_of(user, room, session, resumed)
                    if held is not None:
                        rooms.append(held)
        except (StoreUnavailable, BadRecord, JournalFull, TimeoutError) as error:
            _log.warning("rooms_of_user_unavailable", error=str(error))
        return rooms

    async def _room_of(
        self, user: str, room: Room, session: Session, resumed: bool
    ) -> frames.HeldRoom | None:
        side = room.side_of(user)
        if side is None:
            return None
        if not resumed:
            _, messages = await self._node.store.load(room.room_id)
            return frames.held_room(room, messages, side)
        if room.side(side).came and not room.side(side).left:
            return await self._take_side(room.room_id, side, session)
        return None

    async def _take_side(self, room_id: str, side: SideNumber, session: Session) -> frames.HeldRoom | None:
        room, messages = await self._node.store.load(room_id)
        if session.closed():
            return None
        outcome = await self._node.executed(
            room, room_id, commands.Join(side, self._node.id, session.id), session.id
        )
        if not isinstance(outcome, Done):
            return None
        self._node.negotiation_log.note(room_id, side, session.id, "resumed", self._node.now())
        return frames.held_room(outcome.room, await self._node.store.chat_of(outcome.room, messages), side)
