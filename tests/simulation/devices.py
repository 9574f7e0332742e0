"""Clients: each user has one device at a time, which does what the SDKs do and what people do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from keepline.room.chat_keys import MAX_CHAT_KEYS
from tests.simulation.knowledge import Knowledge
from tests.simulation.loop import SimulationLoop
from tests.simulation.nodes import SimulatedNode
from tests.simulation.trace import Trace
from tests.simulation.wire_link import Wire

NEVER = {4400, 4403, 4409, 4413}
"""Closes after which a client must not come back by itself."""

RETRY_SECONDS = (0.2, 1.5)

_PRESENCE = {"joined": "joined", "reconnected": "joined"}


@dataclass(slots=True)
class View:
    """What a client knows of a room. `wanted`: it is to be in it.

    `shown` are the lines of chat that it was shown on this connection; `in_part`: it joined while its node was
    without Redis, or Redis had lost its data and Postgres was away: perhaps without all of the chat.
    """

    room_id: str
    wanted: bool = True
    joined: bool = False
    asked: bool = False
    peer: str = "absent"
    ended: bool = False
    heard: int = 0
    shown: set[int] = field(default_factory=set)
    in_part: bool = False
    signals: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Request:
    """What was asked and is not answered."""

    kind: str
    room_id: str | None = None
    text: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Outside:
    """What all devices of a run share."""

    loop: SimulationLoop
    random: Random
    trace: Trace
    knowledge: Knowledge
    pick_node: Callable[[], SimulatedNode | None]
    token_of: Callable[[str], str]
    has_all: Callable[[str], bool]


class Device:
    """A user's client: keeps its connection, joins what it is to be in, and notes what it is told."""

    def __init__(self, user: str, name: str, host: str, outside: Outside) -> None:
        self.user = user
        self.host = host
        self.name = name
        self.views: dict[str, View] = {}
        self.wire: Wire | None = None
        self.node: SimulatedNode | None = None
        self.session: str | None = None
        self.gone = False
        self._out = outside
        self._resume: str | None = None
        self._requests: dict[str, Request] = {}
        self._unanswered: dict[
            str, Request
        ] = {}  # lines of chat of which nobody said whether they are stored
        self._count = 0

    # --- what people do ---

    def start(self) -> None:
        """Connect, and stay connected."""
        self._connect()

    def want(self, room_id: str) -> None:
        """Be in a room from now on."""
        self.views.setdefault(room_id, View(room_id)).wanted = True
        self._join_wanted()

    def act(self, room_id: str, kind: str, **fields: Any) -> None:
        """Send a request about a room that is joined."""
        view = self.views.get(room_id)
        if self.session is None or view is None or not view.joined:
            return
        if kind == "leave":
            view.wanted = False
        self._ask(kind, room_id, **fields)

    def write(self, room_id: str) -> None:
        """Write a line that was never written before; it is asked for again until there is an answer.

        Not beyond as many as a room knows by their keys: older ones may come twice.
        """
        if sum(line.room_id == room_id for line in self._unanswered.values()) >= MAX_CHAT_KEYS:
            return
        text = f"{self.name}: {self._out.random.getrandbits(32):08x}"
        self.act(room_id, "chat", text=text, key=text)

    def signal(self, room_id: str, data: str) -> None:
        """Send the peer a signal."""
        if self.session is not None and self.wire is not None:
            self.wire.send({"type": "signal", "room": room_id, "data": data})

    def drop(self, *, noticed: bool) -> None:
        """The network takes the connection away."""
        if self.wire is not None:
            self._note(f"loses its connection, {'' if noticed else 'not '}noticed by the node")
            self.wire.drop(noticed=noticed)

    def stop(self) -> None:
        """The device is switched off."""
        self.gone = True
        self.drop(noticed=True)

    def is_in(self, room_id: str) -> bool:
        """Whether it has joined the room, as far as it knows."""
        return room_id in self.views and self.views[room_id].joined

    # --- the connection ---

    def _connect(self) -> None:
        if self.gone or self.wire is not None:
            return
        node = self._out.pick_node()
        if node is None:
            self._later(self._connect)
            return
        self.node = node
        self._note(f"connects to {node.name}")
        wire = node.connect(
            self.host, lambda frame: self._frame(wire, frame), lambda code: self._closed(wire, code)
        )
        self.wire = wire
        hello = {"type": "hello", "token": self._out.token_of(self.user)}
        if self._resume is not None:
            hello["resume"] = self._resume
        self._send(Request("hello"), hello)

    def _closed(self, wire: Wire, code: int) -> None:
        if wire is not self.wire:
            return
        self._note(f"is closed with {code}")
        self.wire = self.session = None
        self._requests.clear()
        for view in self.views.values():
            view.joined = view.asked = False
            view.heard = 0
            view.shown.clear()
        if code in NEVER:
            self.gone = True
        else:
            self._later(self._connect)

    def _later(self, work: Callable[[], None]) -> None:
        self._out.loop.call_later(self._out.random.uniform(*RETRY_SECONDS), work)

    def _ask(self, kind: str, room_id: str, **fields: Any) -> None:
        request = Request(kind, room_id, fields.get("text"), fields.get("key"))
        if request.key is not None:
            self._unanswered[request.key] = request
        self._send(request, {"type": kind, "room": room_id, **fields})

    def _ask_again(self, room_id: str) -> None:
        if self.session is None:
            return
        for line in list(self._unanswered.values()):
            if line.room_id == room_id and line not in self._requests.values():
                self._ask(line.kind, room_id, text=line.text, key=line.key)

    def _send(self, request: Request, frame: dict[str, Any]) -> None:
        if self.wire is None:
            return
        self._count += 1
        request_id = f"{self._count}"
        self._requests[request_id] = request
        self.wire.send({**frame, "id": request_id})

    def _join_wanted(self) -> None:
        if self.session is None:
            return
        for view in self.views.values():
            if view.wanted and not (view.joined or view.asked or view.ended):
                view.asked = True
                self._ask("join", view.room_id)

    # --- what it is told ---

    def _frame(self, wire: Wire, frame: dict[str, Any]) -> None:
        if wire is not self.wire:
            return
        self._note(_short(frame))
        request = None
        if "id" in frame:
            request = self._requests.pop(frame["id"], None)
            if request is None:
                self._out.trace.violate(f"{self.name} got an answer to nothing: {_short(frame)}")
                return
        handler = getattr(self, f"_on_{frame['type']}", None)
        if handler is not None:
            handler(frame, request)

    def _on_welcome(self, frame: dict[str, Any], request: Request) -> None:
        self.session = frame["session"]
        self._resume = frame["resume"]
        for held in frame["rooms"]:
            if frame["resumed"]:
                room_id = held["room"]["room_id"]
                self._is_in(self.views.setdefault(room_id, View(room_id)), held)
        self._join_wanted()

    def _on_joined(self, frame: dict[str, Any], request: Request) -> None:
        self._is_in(self.views[frame["room"]["room_id"]], frame)

    def _is_in(self, view: View, held: dict[str, Any]) -> None:
        if view.ended:
            self._out.knowledge.lives_again(self.name, view.room_id)
            view.ended = False
        view.joined, view.asked = True, False
        view.peer = held["peer"]
        lines = held["room"]["messages"]
        self._out.knowledge.snapshot_shown(self.name, view.room_id, lines)
        view.shown = {line["seq"] for line in lines}
        troubled = self.node is not None and self.node.troubled
        view.in_part = troubled or not self._out.has_all(view.room_id)
        self._ask_again(view.room_id)

    def _on_ok(self, frame: dict[str, Any], request: Request) -> None:
        if request.kind == "chat" and request.room_id is not None:
            line = frame["message"]
            self._unanswered.pop(request.key or "", None)
            self._out.knowledge.line_acknowledged(request.room_id, line)
            self.views[request.room_id].shown.add(line["seq"])
        if request.kind == "leave" and request.room_id is not None:
            self.views[request.room_id].joined = False
            self._join_wanted()

    def _on_error(self, frame: dict[str, Any], request: Request | None) -> None:
        if request is None:
            return
        if request.kind == "hello":
            if self.wire is not None:
                self.wire.drop(noticed=True)
            return
        view = self.views[request.room_id or ""]
        code = frame["code"]
        if request.key is not None:
            self._line_refused(request, code)
        if code == "room_ended":
            view.joined, view.ended = False, True
            self._ask_again(view.room_id)
        elif code == "room_not_found":
            self._out.knowledge.not_found(self.name, view.room_id)
            view.joined, view.ended = False, True
        elif request.kind == "join":
            self._later(lambda: self._retry(view))
        elif code == "not_a_member" and view.joined:
            view.joined = False
            self._join_wanted()

    def _line_refused(self, line: Request, code: str) -> None:
        if code == "room_ended" and line.room_id is not None and line.text is not None:
            del self._unanswered[line.text]
            self._out.knowledge.line_refused(self.name, line.room_id, line.text)
        elif code == "unavailable" and line.room_id is not None:
            room_id = line.room_id
            self._later(lambda: self._ask_again(room_id))

    def _retry(self, view: View) -> None:
        view.asked = False
        self._join_wanted()

    def _on_peer(self, frame: dict[str, Any], request: None) -> None:
        view = self.views.get(frame["room"])
        if view is not None:
            view.peer = _PRESENCE.get(frame["state"], frame["state"])

    def _on_chat(self, frame: dict[str, Any], request: None) -> None:
        view, line = self.views[frame["room"]], frame["message"]
        if line["seq"] <= view.heard:
            self._out.knowledge.told_twice(self.name, view.room_id, line)
        view.heard = line["seq"]
        view.shown.add(line["seq"])
        self._out.knowledge.line_shown(self.name, view.room_id, line)

    def _on_ended(self, frame: dict[str, Any], request: None) -> None:
        view = self.views[frame["room"]]
        view.joined, view.ended = False, True
        self._ask_again(view.room_id)

    def _on_signal(self, frame: dict[str, Any], request: None) -> None:
        self.views[frame["room"]].signals.add(frame["data"])

    def _note(self, what: str) -> None:
        self._out.trace.note(self.name, what)


def _short(frame: dict[str, Any]) -> str:
    room = frame.get("room")
    if isinstance(room, dict):
        room = f"{room['room_id'][:8]} v{room['version']} {room['status']}"
    elif room is not None:
        room = room[:8]
    rest = {
        name: value["seq"] if name == "message" and isinstance(value, dict) else value
        for name, value in frame.items()
        if name
        in ("id", "state", "code", "reason", "peer", "action", "resumed", "message", "session", "data")
    }
    return f"< {frame['type']} {room or ''} {rest or ''}".rstrip()
