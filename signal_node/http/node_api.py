"""The API of a single node for the `keepline` command: drain, memory content, repairs.

It needs the service key, like the HTTP API. No answer contains session descriptions or chat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Struct

from keepline.ops.http import HttpError, json_response
from keepline.room.codec import record_to_dict
from keepline.room.record import Room
from signal_node.http.bodies import decode_body
from signal_node.http.repairs import Repairs
from signal_node.http.service_key import ServiceKey
from signal_node.rooms.cache import Rooms
from signal_node.signaling.drain import Drains
from signal_node.signaling.local_sessions import LocalSessions
from signal_node.telemetry.negotiation_log import Moment, NegotiationLog

BATCH = 500
"""Number of rooms that are read at once."""


class DrainNode(Struct, forbid_unknown_fields=True):
    """The body of POST /v1/node/drain. Without `seconds`, the node's own drain window."""

    seconds: Annotated[float, Meta(ge=0, le=3600)] | None = None


class NodeApi:
    """The routes for one node."""

    def __init__(
        self,
        node: str,
        sessions: LocalSessions,
        rooms: Rooms,
        negotiation_log: NegotiationLog,
        drains: Drains,
        repairs: Repairs,
        service_key: str | None,
        *,
        status: Callable[[], Mapping[str, Any]],
        now: Callable[[], int],
    ) -> None:
        """`status()` is the content of the heartbeat. `now()` is the cluster's time in ms since 1970."""
        self._node = node
        self._sessions = sessions
        self._rooms = rooms
        self._negotiation_log = negotiation_log
        self._drains = drains
        self._repairs = repairs
        self._key = ServiceKey(service_key)
        self._status = status
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """All routes, each with the service key."""
        guarded = self._key.guarded
        return [
            web.get("/v1/node", guarded(self._overview)),
            web.get("/v1/node/rooms/{room_id}", guarded(self._room)),
            web.get("/v1/node/drain", guarded(self._drain)),
            web.post("/v1/node/drain", guarded(self._begin_drain)),
            web.delete("/v1/node/drain", guarded(self._undo_drain)),
            self._repairs.route(self._key),
        ]

    async def _overview(self, _: web.Request) -> web.Response:
        now = self._now()
        rooms = await self._cached()
        return json_response(
            {
                "node": self._node,
                "now": now,
                "status": self._status(),
                "sessions": self._sessions.ids(),
                "rooms": rooms,
            }
        )

    async def _cached(self) -> dict[str, dict[str, Any]]:
        """The cached rooms, with pauses between batches for signals."""
        rooms, found = self._rooms, {}
        for number, room_id in enumerate(rooms.ids(), start=1):
            room = rooms.get(room_id)
            if room is not None:
                found[room_id] = {"version": room.version, "settled": rooms.at_rest(room_id) is not None}
            if number % BATCH == 0:
                await asyncio.sleep(0)
        return found

    async def _room(self, request: web.Request) -> web.Response:
        room_id = request.match_info["room_id"]
        room = self._rooms.get(room_id)
        return json_response(
            {
                "node": self._node,
                "room": None if room is None else record_to_dict(room),
                "settled": self._rooms.at_rest(room_id) is not None,
                "here": [] if room is None else self._sides_here(room),
                "moments": [self._moment(moment) for moment in self._negotiation_log.of(room_id)],
            }
        )

    def _sides_here(self, room: Room) -> list[int]:
        """The sides whose session is open on this node."""
        sessions = enumerate((side.session for side in room.sides), start=1)
        return [number for number, session in sessions if session is not None and self._sessions.has(session)]

    def _moment(self, moment: Moment) -> dict[str, Any]:
        """An event with its times in ms since 1970."""
        now, loop_now = self._now(), asyncio.get_running_loop().time()
        return {
            "at": now - round((loop_now - moment.at) * 1_000),
            "until": now - round((loop_now - moment.until) * 1_000),
            "side": moment.side,
            "session": moment.session,
            "what": moment.what,
            "count": moment.count,
        }

    async def _drain(self, _: web.Request) -> web.Response:
        return json_response(self._drains.report())

    async def _begin_drain(self, request: web.Request) -> web.Response:
        body = decode_body(await request.read() or b"{}", DrainNode)
        self._drains.begin(body.seconds)
        return json_response(self._drains.report(), 202)

    async def _undo_drain(self, _: web.Request) -> web.Response:
        try:
            await self._drains.undo()
        except OSError as error:
            raise HttpError(503, "unavailable", f"cannot reopen the client port: {error}") from None
        return json_response(self._drains.report())
