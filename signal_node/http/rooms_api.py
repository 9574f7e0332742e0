"""The HTTP API for the app's backend: open, read and end rooms; disconnect users. Bearer service key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar
from uuid import UUID, uuid4

from aiohttp import web
from msgspec import Meta, Struct

from keepline.ops.http import HttpError
from keepline.ops.redis.scripts import StoreUnavailable
from keepline.room import commands
from keepline.room.record import ChatMode, EndReason, Message, Room
from keepline.room.rules import MAX_DURATION_SECONDS, MIN_DURATION_SECONDS
from keepline.room.state import IllegalTransition
from signal_node.http.bodies import decode_body
from signal_node.http.idempotency import HEADER, MAX_KEY, IdempotencyKeys
from signal_node.http.service_key import ServiceKey
from signal_node.protocol import snapshots
from signal_node.rooms.store import RoomStore
from signal_node.rooms.timely import AnotherRoom, NoSuchRoom, TimelyChanges
from signal_node.signaling.takeover import Takeover
from signal_node.users.ownership import Users

T = TypeVar("T")


class OpenRoom(Struct, forbid_unknown_fields=True):
    """The body of POST /v1/rooms."""

    user_1: UUID
    user_2: UUID
    chat_mode: Literal["video", "text"] = "video"
    duration_seconds: Annotated[int, Meta(ge=0, le=MAX_DURATION_SECONDS)] = 0


class RoomsApi:
    """The routes for one node."""

    def __init__(
        self,
        store: RoomStore,
        timely: TimelyChanges,
        idempotency: IdempotencyKeys,
        users: Users,
        takeover: Takeover,
        service_key: str | None,
        min_duration_seconds: int = MIN_DURATION_SECONDS,
        why_not_written: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`why_not_written()` is why a write to Redis would have to wait now; None if it would not."""
        self._why_not_written = why_not_written
        self._store = store
        self._timely = timely
        self._idempotency = idempotency
        self._users = users
        self._takeover = takeover
        self._key = ServiceKey(service_key)
        self._min_duration_seconds = min_duration_seconds

    def routes(self) -> list[web.RouteDef]:
        """All routes, each with the service key."""
        return [
            web.post("/v1/rooms", self._key.guarded(self._open)),
            web.get("/v1/rooms", self._key.guarded(self._list)),
            web.get("/v1/rooms/{room_id}", self._key.guarded(self._get)),
            web.delete("/v1/rooms/{room_id}", self._key.guarded(self._delete)),
            web.post("/v1/users/{user_id}/disconnect", self._key.guarded(self._disconnect)),
        ]

    async def _open(self, request: web.Request) -> web.Response:
        body = decode_body(await request.read(), OpenRoom)
        if 0 < body.duration_seconds < self._min_duration_seconds:
            raise HttpError(
                400,
                "bad_request",
                f"duration_seconds must be 0 for no limit, or {self._min_duration_seconds} to {MAX_DURATION_SECONDS}",
            )
        self._require_redis()
        room_id = await self._room_id(request.headers.get(HEADER))
        command = commands.Open(
            room_id, str(body.user_1), str(body.user_2), ChatMode(body.chat_mode), body.duration_seconds
        )
        try:
            room = await self._timely.open(command, _gone(request))
        except IllegalTransition as error:
            raise HttpError(400, "bad_request", str(error)) from None
        except AnotherRoom:
            raise HttpError(
                409, "conflict", f"another room was opened with this {HEADER}; use a new one"
            ) from None
        return _answer(room, [], status=201)

    async def _room_id(self, key: str | None) -> str:
        """The id of the room to open: the same one for the same key."""
        if key is None:
            return str(uuid4())
        if not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            raise HttpError(
                400, "bad_request", f"{HEADER} should be 1 to {MAX_KEY} printable ASCII characters"
            )
        return await self._idempotency.room_id(key)

    async def _list(self, request: web.Request) -> web.Response:
        user = _uuid(request.query.get("user", ""), "user")
        rooms = await self._store.rooms_of(user)
        loaded = [await self._store.load(room.room_id) for room in rooms]
        return _json(
            {"rooms": [snapshots.snapshot(room, lines) for room, lines in loaded if room is not None]}
        )

    async def _get(self, request: web.Request) -> web.Response:
        return _answer(*await self._load(request.match_info["room_id"]))

    def _require_redis(self) -> None:
        """Refuse at once what would have to wait, so that it is not carried out after its caller has given up."""
        why_not = self._why_not_written()
        if why_not is not None:
            raise StoreUnavailable(why_not)

    async def _delete(self, request: web.Request) -> web.Response:
        self._require_redis()
        room_id = _uuid(request.match_info["room_id"], "room")
        try:
            return _answer(*await self._timely.end(room_id, EndReason.DELETED, _gone(request)))
        except NoSuchRoom:
            raise _not_found() from None

    async def _load(self, room_id: str) -> tuple[Room, list[Message]]:
        room, messages = await self._store.load(_uuid(room_id, "room"))
        if room is None:
            raise _not_found()
        return room, messages

    async def _disconnect(self, request: web.Request) -> web.Response:
        user = _uuid(request.match_info["user_id"], "user")
        holder = await self._users.holder(user)
        if holder is not None:
            self._takeover.disconnect(*holder)
        return _json({"disconnected": holder is not None}, status=202)


def _gone(request: web.Request) -> Callable[[], bool]:
    """Whether who sent a request has closed its connection since."""
    return lambda: request.transport is None or request.transport.is_closing()


def _not_found() -> HttpError:
    return HttpError(404, "room_not_found", "there is no such room")


def _uuid(value: str, name: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise HttpError(400, "bad_request", f"{name} is not a UUID") from None


def _answer(room: Room, messages: list[Message], status: int = 200) -> web.Response:
    return _json(snapshots.snapshot(room, messages), status=status)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=snapshots.to_json(value), status=status, content_type="application/json")
