"""Requests that take time: log in, join a room, change a room.

Each request is answered once, by its own task or by the callback of its commit. None is on the path of a signal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from keepline.ops import logs
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.chat_keys import seq_of
from keepline.room.codec import BadRecord
from keepline.room.record import Message, Room, Status, other
from keepline.room.state import IllegalTransition
from signal_node.bus.inbox import InboxHealth
from signal_node.protocol.effects import (
    Act,
    Authenticate,
    Effect,
    JoinRequest,
    LineRequest,
    ReportRequest,
    Request,
)
from signal_node.protocol.error_codes import ErrorCode
from signal_node.protocol.session import Session
from signal_node.rooms.archive import Archive, Archived, ArchiveUnavailable
from signal_node.rooms.cache import Rooms
from signal_node.rooms.journal import Done, JournalFull, Outcome, ignore_outcome
from signal_node.rooms.lookups import Lookups
from signal_node.signaling.admission import Admission
from signal_node.signaling.admission_queue import Line
from signal_node.signaling.login import Login
from signal_node.signaling.reports import NoMember, NoSuchRoom, Reports, TooManyReports
from signal_node.signaling.request_errors import no_member, no_room, refusal, unavailable
from signal_node.signaling.room_commands import RoomCommands
from signal_node.signaling.work import STORED_SECONDS, Work
from signal_node.transport.connection import Connection

ARCHIVE_SECONDS = 2.0

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Join:
    """A logged-in client that asks for its side of a room (`admission.Visit`)."""

    requests: Requests
    connection: Connection
    effect: JoinRequest

    @property
    def line(self) -> Line:
        """Logged-in clients come first."""
        return Line.JOIN

    async def serve(self) -> None:
        """Answer it."""
        await self.requests.join(self.connection, self.effect)

    def refuse(self, message: str, retry_after_ms: int) -> None:
        """The client may ask again on the same connection."""
        session, effect = self.connection.session, self.effect
        error = session.answers.failed(
            ErrorCode.UNAVAILABLE, message, effect.room_id, effect.request_id, retry_after_ms
        )
        self.connection.perform(error)
        # Deferred, because it starts the connection's next join, which may be refused as well.
        asyncio.get_running_loop().call_soon(self.connection.answered)

    def tell_queued(self, ahead: int, wait_ms: int) -> None:
        """Nothing to tell: joins come first, so they do not wait long."""


class Requests:
    """The requests in progress on one node."""

    def __init__(
        self,
        node: str,
        rooms: Rooms,
        lookups: Lookups,
        room_commands: RoomCommands,
        inbox: InboxHealth,
        login: Login,
        admission: Admission,
        archive: Archive | None,
        reports: Reports,
        work: Work,
    ) -> None:
        self._node = node
        self._rooms = rooms
        self._lookups = lookups
        self._room_commands = room_commands
        self._inbox = inbox
        self._login = login
        self._admission = admission
        self._archive = archive
        self._reports = reports
        self._work = work

    def begin(self, connection: Connection, effect: Request) -> None:
        """Start a request. Frames of peers wait until a hello or a join is answered."""
        match effect:
            case Authenticate():
                self._login.begin(connection, effect)
            case JoinRequest():
                connection.outgoing.hold_back()
                self._admission.ask(Join(self, connection, effect))
            case Act():
                self._act(connection, effect)
            case LineRequest():
                self._work.begin(self._find_line(connection, effect))
            case ReportRequest():
                self._work.begin(self._report(connection, effect))

    def gone(self, connection: Connection) -> None:
        """A connection has closed, so its requests need no answer."""
        self._admission.gone(connection)
        self._login.gone(connection)

    async def join(self, connection: Connection, effect: JoinRequest) -> None:
        """Answer a join."""
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
                answer = unavailable(session, effect)
            except Exception:
                # An internal error: log it, and let the client retry instead of waiting in vain.
                _log.exception("join_failed")
                answer = unavailable(session, effect)
            connection.perform(answer)
        finally:
            connection.answered()

    async def _joined(self, session: Session, effect: JoinRequest) -> Sequence[Effect]:
        room = self._rooms.get(effect.room_id)
        if room is None:
            room = await self._stored(effect.room_id)
        if session.closed():
            return ()
        side = None if room is None else room.side_of(session.user)
        if room is None and self._inbox.just_lost:
            raise StoreUnavailable("the room may still be restored by another node; retry later")
        if room is None:
            return no_room(session, effect)
        if side is None:
            return no_member(session, effect)
        chat = self._lookups.ask_chat(room)
        join = commands.Join(side, self._node, session.id)
        outcome = await self._room_commands.executed(room, room.room_id, join, session.id)
        if not isinstance(outcome, Done):
            return refusal(session, outcome, effect.room_id, effect.request_id)
        messages = await self._lookups.chat_in(chat, outcome.room)
        return session.rooms.joined(outcome.room, messages, effect.request_id)

    async def _stored(self, room_id: str) -> Room | None:
        """The room from Redis, or as it was known here if Redis has just lost it."""
        asked = self._lookups.ask_record(room_id)
        return await self._lookups.room_in(asked, room_id) or self._rooms.known(room_id)

    async def _join_without_redis(self, session: Session, effect: JoinRequest) -> Sequence[Effect]:
        """Let a user into a room that fits on this node: from the cache, or from Postgres.

        A room fits if the other side is here or nowhere. The join waits in the journal for Redis, and is answered
        before it is stored: a call on a promise is better than none.
        """
        not_now = unavailable(session, effect)
        room = self._rooms.get(effect.room_id)
        archived = await self._archived(effect.room_id)
        known = room if room is not None or archived is None else archived.room
        if known is None or session.closed():
            return not_now
        side = known.side_of(session.user)
        if side is None:
            return no_member(session, effect)
        elsewhere = known.side(other(side)).node not in (None, self._node)
        if elsewhere or (room is None and archived is not None and archived.held[other(side) - 1]):
            return not_now
        try:
            join = commands.Join(side, self._node, session.id)
            self._rooms.execute(
                known, known.room_id, join, ignore_outcome, session.id, from_redis=room is not None
            )
        except IllegalTransition as error:
            return refusal(session, error, effect.room_id, effect.request_id)
        except JournalFull:
            return not_now
        joined = self._rooms.get(known.room_id) or known
        messages = self._known_chat(known.room_id, archived)
        return session.rooms.joined(joined, messages, effect.request_id)

    def _known_chat(self, room_id: str, archived: Archived | None) -> list[Message]:
        """The chat from Postgres and the cache, which may be incomplete."""
        lines = () if archived is None else archived.messages
        by_seq = {line.seq: line for line in (*lines, *self._rooms.lines(room_id))}
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
            if (known := _known_line(effect, outcome)) is not None:
                self._work.begin(self._find_line(connection, known))
            elif isinstance(outcome, Done):
                connection.perform(session.answers.done(effect.request_id, outcome.message))
            else:
                connection.perform(refusal(session, outcome, effect.room_id, effect.request_id))

        try:
            self._rooms.execute(None, effect.room_id, effect.command, on_done, session.id)
        except IllegalTransition as error:
            on_done(error)
        except JournalFull:
            connection.perform(unavailable(session, effect))

    async def _find_line(self, connection: Connection, effect: LineRequest) -> None:
        """Answer for a chat message that may be stored already, whatever has happened to its room since."""
        try:
            async with asyncio.timeout(STORED_SECONDS):
                answer = await self._line(connection.session, effect)
        except (StoreUnavailable, BadRecord, TimeoutError):
            answer = unavailable(connection.session, effect)
        except Exception:
            _log.exception("line_not_looked_up", room=effect.room_id)
            answer = unavailable(connection.session, effect)
        connection.perform(answer)

    async def _line(self, session: Session, effect: LineRequest) -> Sequence[Effect]:
        room_id = effect.room_id.lower()
        room = self._rooms.get(room_id) or await self._stored(room_id)
        if room is None and self._inbox.just_lost:
            raise StoreUnavailable("the room may still be restored by another node; retry later")
        if room is None:
            return no_room(session, effect)
        if room.side_of(session.user) is None:
            return no_member(session, effect)
        seq = seq_of(room, effect.key)
        line = None if seq is None else await self._line_numbered(room_id, seq)
        if line is not None:
            return session.answers.done(effect.request_id, line)
        if room.status is Status.ENDED:
            return session.answers.ended(room_id, effect.request_id, room.ended_reason)
        if seq is None and room_id not in session.rooms.held:
            return session.answers.failed(
                ErrorCode.NOT_A_MEMBER, "join the room first", room_id, effect.request_id
            )
        return unavailable(session, effect)

    async def _line_numbered(self, room_id: str, seq: int) -> Message | None:
        line = await self._lookups.line(room_id, seq)
        if line is None:
            archived = await self._archived(room_id)
            line = next((each for each in self._known_chat(room_id, archived) if each.seq == seq), None)
        return line

    async def _report(self, connection: Connection, effect: ReportRequest) -> None:
        session = connection.session
        try:
            async with asyncio.timeout(STORED_SECONDS):
                await self._reports.add(session.user, effect.room_id, effect.reason)
            answer = session.answers.done(effect.request_id, None)
        except NoSuchRoom:
            answer = no_room(session, effect)
        except NoMember:
            answer = no_member(session, effect)
        except TooManyReports as error:
            answer = session.answers.failed(
                ErrorCode.RATE_LIMITED, str(error), effect.room_id, effect.request_id, error.retry_after_ms
            )
        except (StoreUnavailable, TimeoutError):
            answer = unavailable(session, effect)
        except Exception:
            _log.exception("report_failed", room=effect.room_id)
            answer = unavailable(session, effect)
        connection.perform(answer)


def _known_line(effect: Act, outcome: Outcome) -> LineRequest | None:
    """The message to look for instead of one that was not written: an earlier attempt, or one before the room ended."""
    command = effect.command
    if not isinstance(command, commands.Post) or command.key is None:
        return None
    written = isinstance(outcome, Done) and outcome.message is None
    over = isinstance(outcome, IllegalTransition) and outcome.status is Status.ENDED
    return LineRequest(effect.room_id, command.key, effect.request_id) if written or over else None
