"""What clients ask for that takes time: to be let in, to join a room, to change one.

Each request is answered once, by its own task or by the callback of its commit; none is on the path of a signal.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from keepline.ops import logs
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.record import Message, Room, SideNumber, Status, other
from keepline.room.state import IllegalTransition
from signal_node.ice.servers import IceServers
from signal_node.limits.address_limits import AddressLimits
from signal_node.protocol import frames
from signal_node.protocol.frames import ErrorCode
from signal_node.protocol.session import Act, Authenticate, Effect, Join, Report, Request, RequestId, Session
from signal_node.rooms.archive import Archive, Archived, ArchiveUnavailable
from signal_node.rooms.journal import Done, JournalFull, NotStored, Outcome, ignore_outcome
from signal_node.signaling.node import Node
from signal_node.signaling.reports import NoMember, NoSuchRoom, Reports, TooManyReports
from signal_node.transport.connection import Connection
from signal_node.users.ownership import Taken
from signal_node.users.tokens import KeysUnavailable, Unauthorized, Verifier

AUTHENTICATE_SECONDS = 10.0
STORED_SECONDS = 3.0
"""How long a hello or a join waits for Redis before it is answered without."""

ARCHIVE_SECONDS = 2.0
RETRY_AFTER_MS = 1_000

AWAY = "the cluster's memory is away; try again"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LoginCounts:
    """What became of hellos."""

    accepted: int = 0
    refused: int = 0
    resumed: int = 0
    stale: int = 0
    resume_unavailable: int = 0


class Requests:
    """The requests under way on one node."""

    def __init__(
        self,
        node: Node,
        verifier: Verifier,
        ice: IceServers,
        archive: Archive | None,
        limits: AddressLimits,
        reports: Reports,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.counts = LoginCounts()
        self._node = node
        self._verifier = verifier
        self._ice = ice
        self._archive = archive
        self._limits = limits
        self._reports = reports
        self._loop = loop
        self._work: set[asyncio.Task[None]] = set()

    def begin(self, connection: Connection, effect: Request) -> None:
        """Begin a request. Frames of peers wait until a hello or a join is answered."""
        match effect:
            case Authenticate():
                connection.answer_pending()
                self._begin(self._authenticate(connection, effect))
            case Join():
                connection.answer_pending()
                self._begin(self._join(connection, effect))
            case Act():
                self._act(connection, effect)
            case Report():
                self._begin(self._report(connection, effect))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("request_failed", exc_info=error)

    async def aclose(self) -> None:
        """Give up what is under way."""
        work = set(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    async def _authenticate(self, connection: Connection, effect: Authenticate) -> None:
        session = connection.session
        logs.bind(session=session.id)  # what this task logs, and nothing else
        try:
            await self._limits.admit(connection)
            if session.closed():
                return
            user = await self._user_of(connection, effect)
            if user is None or session.closed():
                return
            taken = await self._take_user(user, session, effect.resume)
            held = await self._rooms_of(user, session, resumed=taken.resumed)
            if session.closed():
                return
            self.counts.accepted += 1
            _log.info("session_welcomed", session=session.id, resumed=taken.resumed, rooms=len(held))
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
        self._begin(self._release(user, session))

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
        self._node.negotiation_log.note(room_id, side, session.id, "resumed", self._loop.time())
        return frames.held_room(outcome.room, await self._up_to_date(outcome.room, messages), side)

    async def _join(self, connection: Connection, effect: Join) -> None:
        session = connection.session
        logs.bind(session=session.id, room=effect.room_id)
        try:
            try:
                async with asyncio.timeout(STORED_SECONDS):
                    answer = await self._joined(session, effect)
            except (StoreUnavailable, TimeoutError):
                answer = await self._join_without_redis(session, effect)
            except (JournalFull, BadRecord) as error:
                _log.error("join_failed", error=repr(error))
                answer = self._unavailable(session, effect)
            except Exception:
                # A fault of ours: it is logged, and the client may try again rather than wait for nothing.
                _log.exception("join_failed")
                answer = self._unavailable(session, effect)
            connection.perform(answer)
        finally:
            connection.answered()

    async def _joined(self, session: Session, effect: Join) -> Sequence[Effect]:
        room, messages = await self._node.store.load(effect.room_id)
        if session.closed():
            return ()
        if room is None:
            room = self._node.rooms.known(effect.room_id)  # Redis has just lost it
        side = None if room is None else room.side_of(session.user)
        if room is None:
            return self._no_room(session, effect)
        if side is None:
            return self._no_member(session, effect)
        join = commands.Join(side, self._node.id, session.id)
        outcome = await self._node.executed(room, room.room_id, join, session.id)
        if not isinstance(outcome, Done):
            return self._refusal(session, outcome, effect.room_id, effect.request_id)
        messages = await self._up_to_date(outcome.room, messages)
        return session.joined(outcome.room, messages, effect.request_id)

    def _no_room(self, session: Session, effect: Join | Report) -> Sequence[Effect]:
        why = "there is no such room"
        return session.failed(ErrorCode.ROOM_NOT_FOUND, why, effect.room_id, effect.request_id)

    def _no_member(self, session: Session, effect: Join | Report) -> Sequence[Effect]:
        why = "the user is not a member of this room"
        return session.failed(ErrorCode.NOT_A_MEMBER, why, effect.room_id, effect.request_id)

    def _unavailable(self, session: Session, effect: Join | Act | Report) -> Sequence[Effect]:
        return session.failed(ErrorCode.UNAVAILABLE, AWAY, effect.room_id, effect.request_id, RETRY_AFTER_MS)

    async def _up_to_date(self, room: Room, messages: list[Message]) -> list[Message]:
        """The chat as of a record, loaded again if somebody wrote between the load and the commit of a join.

        Lines after that come by themselves.
        """
        if room.last_seq > (messages[-1].seq if messages else 0):
            _, messages = await self._node.store.load(room.room_id)
        return [message for message in messages if message.seq <= room.last_seq]

    async def _join_without_redis(self, session: Session, effect: Join) -> Sequence[Effect]:
        """Let a user into a room that fits on this node: one of the cache, else one from Postgres.

        A room fits when the other side is here or nowhere. The join waits in the journal for Redis, and is answered
        before it is stored: better a call on a promise than none.
        """
        unavailable = self._unavailable(session, effect)
        room = self._node.rooms.get(effect.room_id)
        archived = await self._archived(effect.room_id)
        known = room if room is not None or archived is None else archived.room
        if known is None or session.closed():
            return unavailable
        side = known.side_of(session.user)
        if side is None:
            return self._no_member(session, effect)
        elsewhere = known.side(other(side)).node not in (None, self._node.id)
        if elsewhere or (room is None and archived is not None and archived.held[other(side) - 1]):
            return unavailable
        try:
            join = commands.Join(side, self._node.id, session.id)
            self._node.rooms.execute(
                known, known.room_id, join, ignore_outcome, session.id, from_redis=room is not None
            )
        except IllegalTransition as error:
            return self._refusal(session, error, effect.room_id, effect.request_id)
        except JournalFull:
            return unavailable
        joined = self._node.rooms.get(known.room_id) or known
        messages = self._known_chat(known.room_id, archived)
        return session.joined(joined, messages, effect.request_id)

    def _known_chat(self, room_id: str, archived: Archived | None) -> list[Message]:
        """What Postgres and the cache have of the chat, which need not be all."""
        lines = () if archived is None else archived.messages
        by_seq = {line.seq: line for line in (*lines, *self._node.rooms.lines(room_id))}
        return [by_seq[seq] for seq in sorted(by_seq)]

    async def _archived(self, room_id: str) -> Archived | None:
        if self._archive is None:
            return None
        try:
            async with asyncio.timeout(ARCHIVE_SECONDS):
                return await self._archive.load(room_id)
        except (ArchiveUnavailable, BadRecord, TimeoutError) as error:
            _log.warning("archive_unavailable", error=str(error))
            return None

    def _act(self, connection: Connection, effect: Act) -> None:
        session = connection.session

        def on_done(outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                connection.perform(session.done(effect.request_id, outcome.message))
            else:
                connection.perform(self._refusal(session, outcome, effect.room_id, effect.request_id))

        try:
            self._node.rooms.execute(None, effect.room_id, effect.command, on_done, session.id)
        except IllegalTransition as error:
            on_done(error)
        except JournalFull:
            connection.perform(self._unavailable(session, effect))

    async def _report(self, connection: Connection, effect: Report) -> None:
        session = connection.session
        try:
            async with asyncio.timeout(STORED_SECONDS):
                await self._reports.add(session.user, effect.room_id, effect.reason)
            answer = session.done(effect.request_id, None)
        except NoSuchRoom:
            answer = self._no_room(session, effect)
        except NoMember:
            answer = self._no_member(session, effect)
        except TooManyReports as error:
            answer = session.failed(
                ErrorCode.RATE_LIMITED, str(error), effect.room_id, effect.request_id, error.retry_after_ms
            )
        except (StoreUnavailable, TimeoutError):
            answer = self._unavailable(session, effect)
        except Exception:
            _log.exception("report_failed", room=effect.room_id)
            answer = self._unavailable(session, effect)
        connection.perform(answer)

    def _refusal(
        self, session: Session, outcome: IllegalTransition | NotStored, room_id: str, request_id: RequestId
    ) -> Sequence[Effect]:
        if isinstance(outcome, NotStored):
            return session.failed(ErrorCode.UNAVAILABLE, "it could not be stored", room_id, request_id)
        if outcome.status is Status.ENDED:
            return session.ended(room_id, request_id, outcome.ended_reason)
        if outcome.status is None:
            return session.failed(ErrorCode.ROOM_NOT_FOUND, "there is no such room", room_id, request_id)
        return session.failed(ErrorCode.BAD_REQUEST, str(outcome), room_id, request_id)
