"""The node: performs what sessions and rooms decide.

The path of a signal is `relay`, and is all there is to it: two look-ups in memory, then the peer's connection or the
bus. Everything that takes time (a token, a join, a commit) goes through tasks or callbacks beside it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from keepline.room import commands
from keepline.room.codec import BadRecord
from keepline.room.record import Message, Room, SideNumber, Status, other
from keepline.room.state import IllegalTransition
from signal_node import closes, wire
from signal_node.archive import Archive, Archived, ArchiveUnavailable
from signal_node.auth import KeysUnavailable, Unauthorized, Verifier
from signal_node.bus import Bus
from signal_node.clients import Clients
from signal_node.connection import Connection
from signal_node.ice import IceServers
from signal_node.rooms import Done, JournalFull, NotStored, OnDone, Outcome, Rooms
from signal_node.routing import decode_notice
from signal_node.scripts import StoreUnavailable
from signal_node.session import Act, Authenticate, Effect, Join, Relay, RequestId, Session
from signal_node.store import RoomStore
from signal_node.users import Taken, Users
from signal_node.wire import ErrorCode

AUTHENTICATE_SECONDS = 10.0
TAKEOVER_SECONDS = 2.0
"""How long a connection that took over a user has to take its sides, before the old one's count as lost."""

RETRY_AFTER_MS = 1_000
ARCHIVE_SECONDS = 2.0

_AWAY = "the cluster's memory is away; try again"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What is counted on the path of a signal: plain numbers, read when metrics are asked for."""

    relayed_here: int = 0
    relayed_across: int = 0
    received_across: int = 0
    dropped: int = 0
    logins: int = 0
    logins_failed: int = 0
    resumed: int = 0
    replaced: int = 0


class Node:
    """One signal node's behaviour. It handles connections, receives from the bus, and is the audience of rooms."""

    def __init__(
        self,
        node_id: str,
        *,
        loop: asyncio.AbstractEventLoop,
        clients: Clients,
        verifier: Verifier,
        ice: IceServers,
        archive: Archive | None = None,
    ) -> None:
        self.id = node_id
        self.counts = Counts()
        self.clients = clients
        self._loop = loop
        self._verifier = verifier
        self._ice = ice
        self._archive = archive
        self._work: set[asyncio.Task[None]] = set()
        self.rooms: Rooms
        self.store: RoomStore
        self.users: Users
        self.bus: Bus

    def connect(self, rooms: Rooms, store: RoomStore, users: Users, bus: Bus) -> None:
        """Take what in turn needs the node."""
        self.rooms, self.store, self.users, self.bus = rooms, store, users, bus

    # --- connections (connection.Handler) ---

    def accept(self) -> Connection:
        """The protocol factory of the listening socket."""
        return self.clients.accept(self)

    def opened(self, connection: Connection) -> None:
        """A client has done the handshake."""
        self.clients.opened(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone: its sides are lost, at once or when its successor has had time to take them."""
        session = connection.session
        self.clients.closed(connection)
        if session.user:
            self._let_go(session.user, session.id)
        if not session.rooms:
            return
        held = dict(session.rooms)
        if connection.closed_as is closes.REPLACED:
            self._loop.call_later(TAKEOVER_SECONDS, self._lose, session.id, held)
        else:
            self._lose(session.id, held)

    def _lose(self, session: str, held: dict[str, SideNumber]) -> None:
        for room_id, side in held.items():
            self._execute_quietly(room_id, commands.Lose(side, session))

    def relay(self, connection: Connection, relay: Relay) -> None:
        """Forward to the peer, now. Nothing is awaited here."""
        room = self.rooms.get(relay.room_id)
        if room is None:
            self.counts.dropped += 1
            return
        peer = room.side_2 if relay.side == 1 else room.side_1
        if peer.session is None or peer.node is None:
            self.counts.dropped += 1
        elif peer.node != self.id:
            self.counts.relayed_across += 1
            self.bus.send(peer.node, peer.session, relay.data)
        elif self.clients.forward(peer.session, relay.data):
            self.counts.relayed_here += 1
        else:
            self.counts.dropped += 1

    def perform(self, connection: Connection, effect: Authenticate | Join | Act) -> None:
        """Begin what takes time."""
        match effect:
            case Authenticate():
                connection.answer_pending()
                self._begin(self._authenticate(connection, effect))
            case Join():
                connection.answer_pending()
                self._begin(self._join(connection, effect))
            case Act():
                self._act(connection, effect)

    def has(self, session: str) -> bool:
        """Whether the session is open on this node."""
        return self.clients.get(session) is not None

    # --- the bus (bus.Receiver) ---

    def frame_received(self, session: str, data: bytes) -> None:
        """A frame from a peer on another node."""
        self.counts.received_across += 1
        if not self.clients.forward(session, data):
            self.counts.dropped += 1

    def replaced_received(self, session: str) -> None:
        """A session's user has connected elsewhere."""
        self.replaced(session)

    def notice_received(self, data: bytes) -> None:
        """Another node has changed a room that has a side here."""
        self.rooms.absorb(decode_notice(data))

    def frames_dropped(self, frames: int) -> None:
        """The bus had to drop frames."""
        self.counts.dropped += frames

    def inbox_gap(self) -> None:
        """The inbox may have missed something."""
        self.rooms.look_again()

    # --- rooms (rooms.Audience) ---

    def deliver(self, session: str, data: bytes) -> None:
        """Write a room's frame to a session."""
        self.clients.forward(session, data)

    def replaced(self, session: str) -> None:
        """Close the connection of a session that lost its user to a newer one."""
        connection = self.clients.get(session)
        if connection is not None:
            self.counts.replaced += 1
            connection.close(closes.REPLACED)

    def room_changed(self, before: Room | None, after: Room) -> None:
        """Sessions learn which sides they hold from the record alone."""
        ended = after.status is Status.ENDED
        numbers: tuple[SideNumber, ...] = (1, 2)
        for number in numbers:
            held = None if before is None else before.side(number)
            holds = after.side(number)
            if held is not None and held.session is not None and held.session != holds.session:
                loser = self.clients.get(held.session)
                if loser is not None:
                    loser.session.release(after.room_id, ended=ended)
                    if not ended and not holds.connected and not holds.left and not loser.framing.closing:
                        # Somebody took this node for dead. It is not, so the session takes its side again.
                        self._loop.call_soon(self._retake, after, number, held.session)
            if holds.node == self.id and holds.session is not None:
                holder = self.clients.get(holds.session)
                if holder is not None:
                    holder.session.hold(after.room_id, number)

    def _retake(self, room: Room, side: SideNumber, session: str) -> None:
        room = self.rooms.get(room.room_id) or room
        if self.has(session) and not room.side(side).connected:
            self._execute_quietly(room.room_id, commands.Join(side, self.id, session), room)

    # --- what takes time ---

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
        try:
            user = await self._user_of(connection, effect)
            if user is None or session.closed():
                return
            taken = await self._take_user(user, session, effect.resume)
            held = await self._rooms_of(user, session, resumed=taken.resumed)
            if session.closed():
                return
            self.counts.logins += 1
            self.counts.resumed += taken.resumed
            welcome = session.welcomed(
                request_id=effect.request_id,
                resume=taken.resume,
                resumed=taken.resumed,
                node=self.id,
                ice_servers=self._ice.for_user(user, time.time()),
                rooms=held,
            )
            connection.perform(welcome)
        finally:
            connection.answered()

    async def _user_of(self, connection: Connection, effect: Authenticate) -> str | None:
        session = connection.session
        try:
            async with asyncio.timeout(AUTHENTICATE_SECONDS):
                return await self._verifier.user_of(effect.token)
        except Unauthorized as error:
            self.counts.logins_failed += 1
            connection.perform(session.refused(effect.request_id, str(error)))
        except (KeysUnavailable, TimeoutError) as error:
            connection.perform(session.postponed(effect.request_id, str(error), RETRY_AFTER_MS))
        return None

    async def _take_user(self, user: str, session: Session, resume: str | None) -> Taken:
        """Make the user this session's; whoever held it is closed. Without Redis only this node's can be known."""
        here = self.clients.session_of(user)
        try:
            taken = await self.users.take(user, session.id, resume)
        except StoreUnavailable as error:
            _log.warning("take_user_unavailable", error=str(error))
            taken = Taken(secrets.token_urlsafe(24), None if here is None else self.id, here, False)
        if session.closed():
            self._let_go(user, session.id)
        else:
            session.user = user
            self.clients.took(user, session.id)
        if taken.session is not None and taken.node is not None and taken.session != session.id:
            if taken.node == self.id:
                self.replaced(taken.session)
            else:
                self.bus.replace(taken.node, taken.session)
        return taken

    def _let_go(self, user: str, session: str) -> None:
        """The session is over: nobody holds the user, unless another session has taken it."""
        self.users.let_go(user, session)
        self._begin(self._release(user, session))

    async def _release(self, user: str, session: str) -> None:
        try:
            await self.users.release(user, session)
        except StoreUnavailable as error:
            _log.warning("release_user_unavailable", error=str(error))

    async def _rooms_of(self, user: str, session: Session, *, resumed: bool) -> list[wire.HeldRoom]:
        """The user's live rooms. A resumed session takes the sides that the one before it held or lost."""
        rooms = []
        try:
            for room in await self.store.rooms_of(user):
                side = room.side_of(user)
                if side is None:
                    continue
                if resumed and room.side(side).came and not room.side(side).left:
                    rooms.append(await self._take_side(room.room_id, side, session))
                elif not resumed:
                    rooms.append(wire.held_room(room, (await self.store.load(room.room_id))[1], side))
        except (StoreUnavailable, BadRecord, JournalFull) as error:
            _log.warning("rooms_of_user_unavailable", error=str(error))
        return [room for room in rooms if room is not None]

    async def _take_side(self, room_id: str, side: SideNumber, session: Session) -> wire.HeldRoom | None:
        room, messages = await self.store.load(room_id)
        if session.closed():
            return None
        outcome = await self._executed(room, room_id, commands.Join(side, self.id, session.id), session.id)
        if not isinstance(outcome, Done):
            return None
        return wire.held_room(outcome.room, await self._up_to_date(outcome.room, messages), side)

    async def _join(self, connection: Connection, effect: Join) -> None:
        session = connection.session
        fail = partial(session.failed, room_id=effect.room_id, request_id=effect.request_id)
        try:
            room, messages = await self.store.load(effect.room_id)
            if session.closed():
                return
            side = None if room is None else room.side_of(session.user)
            if room is None:
                connection.perform(fail(ErrorCode.ROOM_NOT_FOUND, "there is no such room"))
            elif side is None:
                connection.perform(fail(ErrorCode.NOT_A_MEMBER, "the user is not a member of this room"))
            else:
                command = commands.Join(side, self.id, session.id)
                outcome = await self._executed(room, room.room_id, command, session.id)
                if isinstance(outcome, Done):
                    messages = await self._up_to_date(outcome.room, messages)
                    connection.perform(session.joined(outcome.room, messages, effect.request_id))
                else:
                    connection.perform(self._refusal(session, outcome, effect.room_id, effect.request_id))
        except StoreUnavailable:
            connection.perform(await self._join_without_redis(session, effect))
        except JournalFull:
            connection.perform(fail(ErrorCode.UNAVAILABLE, _AWAY, retry_after_ms=RETRY_AFTER_MS))
        except BadRecord as error:
            _log.error("record_unreadable", room=effect.room_id, error=str(error))
            connection.perform(fail(ErrorCode.UNAVAILABLE, "the room cannot be read"))
        finally:
            connection.answered()

    async def _up_to_date(self, room: Room, messages: list[Message]) -> list[Message]:
        """The chat, loaded again if somebody wrote between the load and the commit of a join."""
        if room.last_seq > (messages[-1].seq if messages else 0):
            _, messages = await self.store.load(room.room_id)
        return messages

    async def _join_without_redis(self, session: Session, effect: Join) -> Sequence[Effect]:
        """Let a user into a room that fits on this node: one of the cache, else one from Postgres.

        A room fits when the other side is here or nowhere. The join waits in the journal for Redis, and is answered
        before it is stored: better a call on a promise than none.
        """
        refusal = session.failed(
            ErrorCode.UNAVAILABLE, _AWAY, effect.room_id, effect.request_id, RETRY_AFTER_MS
        )
        room, messages = self.rooms.get(effect.room_id), list[Message]()
        archived = await self._archived(effect.room_id)
        if archived is not None:
            messages = archived.messages
        if room is None and archived is not None:
            side = archived.room.side_of(session.user)
            if side is not None and not archived.held[other(side) - 1]:
                room = archived.room
        side = None if room is None else room.side_of(session.user)
        if room is None or side is None or session.closed():
            return refusal
        if room.side(other(side)).node not in (None, self.id):
            return refusal
        try:
            self.rooms.execute(
                room, room.room_id, commands.Join(side, self.id, session.id), _ignore, session.id
            )
        except (IllegalTransition, JournalFull):
            return refusal
        return session.joined(self.rooms.get(room.room_id) or room, messages, effect.request_id)

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
            self.rooms.execute(None, effect.room_id, effect.command, on_done, session.id)
        except IllegalTransition as error:
            on_done(error)
        except JournalFull:
            connection.perform(
                session.failed(
                    ErrorCode.UNAVAILABLE,
                    _AWAY,
                    effect.room_id,
                    effect.request_id,
                    RETRY_AFTER_MS,
                )
            )

    def _refusal(
        self, session: Session, outcome: IllegalTransition | NotStored, room_id: str, request_id: RequestId
    ) -> Any:
        if isinstance(outcome, NotStored):
            return session.failed(ErrorCode.UNAVAILABLE, "it could not be stored", room_id, request_id)
        if outcome.status is Status.ENDED:
            return session.failed(ErrorCode.ROOM_ENDED, "the room has ended", room_id, request_id)
        if outcome.status is None:
            return session.failed(ErrorCode.ROOM_NOT_FOUND, "there is no such room", room_id, request_id)
        return session.failed(ErrorCode.BAD_REQUEST, str(outcome), room_id, request_id)

    # --- commands of others: the HTTP API, deadlines ---

    async def execute(
        self, room: Room | None, room_id: str, command: commands.Command, now: int | None = None
    ) -> Room:
        """Carry out a command and wait until it is stored. Raises IllegalTransition, NotStored, JournalFull."""
        outcome = await self._executed(room, room_id, command, None, now)
        if isinstance(outcome, Done):
            return outcome.room
        raise outcome

    async def _executed(
        self,
        room: Room | None,
        room_id: str,
        command: commands.Command,
        asker: str | None,
        now: int | None = None,
    ) -> Outcome:
        stored: asyncio.Future[Outcome] = self._loop.create_future()
        try:
            self.rooms.execute(room, room_id, command, _settling(stored), asker, now)
        except IllegalTransition as error:
            return error
        return await stored

    def _execute_quietly(self, room_id: str, command: commands.Command, room: Room | None = None) -> None:
        """Carry out a command that nobody waits for."""
        try:
            self.rooms.execute(room, room_id, command, _ignore)
        except IllegalTransition:
            pass  # the room is gone or over: there is nothing left to lose
        except JournalFull:
            _log.error("command_dropped", room=room_id, command=type(command).__name__)

    async def disconnect(self, user: str) -> bool:
        """Close the user's connection, wherever it is; False when there is none. Raises StoreUnavailable."""
        holder = await self.users.holder(user)
        if holder is None:
            return False
        node, session = holder
        if node == self.id:
            self.replaced(session)
        else:
            self.bus.replace(node, session)
        return True


def _settling(future: asyncio.Future[Outcome]) -> OnDone:
    def settle(outcome: Outcome) -> None:
        if not future.done():
            future.set_result(outcome)

    return settle


def _ignore(outcome: Outcome) -> None:
    pass
