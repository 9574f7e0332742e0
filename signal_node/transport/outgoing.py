"""Output to one client.

All output to a connection in one tick of the event loop leaves in one write: `Writer` collects the connections with
pending output and flushes them at the end of the tick. Most packets hold a single frame. Its signal is written at once
instead, because there is nothing to share the write with. The amount of unread data is limited; a peer that sends more
is told to wait.
"""

from __future__ import annotations

import asyncio

from signal_node.transport.websocket import WebSocket

MAX_HELD_FRAMES = 1_000
"""Maximum number of frames from peers that wait for the answer to a join."""

MAX_HELD_BYTES = 1_048_576

LARGE_ANSWER = 65_536
"""Size above which an answer does not count as unread data: snapshots of rooms with a long chat."""


class Writer:
    """Flushes the connections with pending data once per tick."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Outgoing] = []
        self.at_once = False  # a packet with a single frame is being read

    def add(self, outgoing: Outgoing) -> None:
        """Flush `outgoing` at the end of this tick."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(outgoing)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for outgoing in waiting:
            outgoing.flush()


class Outgoing:
    """The frames that wait to be written to one client."""

    __slots__ = (
        "_answers",
        "_dirty",
        "_held",
        "_held_bytes",
        "_largest_answer",
        "_max_bytes",
        "_room",
        "_transport",
        "_websocket",
        "_writer",
        "pending_answers",
    )

    def __init__(self, websocket: WebSocket, writer: Writer, max_bytes: int) -> None:
        """`max_bytes` limits the unread bytes from peers."""
        self._websocket = websocket
        self._writer = writer
        self._max_bytes = max_bytes
        self._transport: asyncio.Transport | None = None
        self._dirty = False
        self.pending_answers = 0
        self._largest_answer = LARGE_ANSWER
        self._answers = 0  # size of the largest of them, which may be unread in addition to the limit
        self._room = max_bytes  # bytes that peers may send before the unread data is counted again
        self._held: list[bytes] = []
        self._held_bytes = 0

    def connected(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        self._transport = transport
        transport.set_write_buffer_limits(high=2 * self._max_bytes)

    def lost(self) -> None:
        """The client is gone."""
        self._transport = None
        self._held.clear()

    def answer(self, data: bytes) -> None:
        """Send a frame that answers the client."""
        if len(data) > self._largest_answer:
            self._make_room(len(data))
        self._websocket.send(data)
        self.wake()

    def relay(self, data: bytes) -> bool:
        """Send a frame from the peer; False if too much is unread, so the peer has to wait."""
        if self._room <= 0 and not self._has_room():
            return False
        self._room -= len(data)
        if self.pending_answers or self._dirty or not self._writer.at_once:
            self.forward(data)
        elif (transport := self._transport) is not None and not transport.is_closing():
            transport.write(self._websocket.frame(data))
        return True

    def forward(self, data: bytes) -> None:
        """Send a frame from the peer or the room. If the answer to a join is pending, hold it back until `joined`."""
        if self.pending_answers:
            if len(self._held) < MAX_HELD_FRAMES and self._held_bytes < MAX_HELD_BYTES:
                self._held.append(data)
                self._held_bytes += len(data)
            return
        self._websocket.send(data)
        if not self._dirty:
            self.wake()

    def hold_back(self) -> None:
        """Hold back frames of the room until an answer has been written."""
        self.pending_answers += 1

    def answered(self) -> None:
        """An answer has been written. After the last one, send the frames that were held back."""
        self.pending_answers -= 1
        if not self.pending_answers:
            held, self._held, self._held_bytes = self._held, [], 0
            for data in held:
                self._websocket.send(data)
            self.wake()

    def wake(self) -> None:
        """The websocket has something to send."""
        if not self._dirty:
            self._dirty = True
            self._writer.add(self)

    def flush(self) -> None:
        """Write the pending data in one write."""
        self._dirty = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        chunks = self._websocket.to_send()
        if not chunks:
            return
        transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if not chunks[-1] and transport.can_write_eof():
            # Do not close() here: data that the client is still sending would be answered with a reset, which could
            # overtake the close frame. The client closes; if it does not, the sweep does.
            transport.write_eof()

    def _make_room(self, answer: int) -> None:
        """Allow an answer in addition to the limit: a client that requested a long chat is not slow because of it."""
        self._largest_answer = self._answers = answer
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=2 * self._max_bytes + answer)

    def _has_room(self) -> bool:
        """Count the unread data again: most of it has probably been read."""
        if self._dirty:
            self.flush()
        if self._transport is not None:
            self._room = self._max_bytes + self._answers - self._transport.get_write_buffer_size()
        return self._room > 0
