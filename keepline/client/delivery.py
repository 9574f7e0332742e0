"""Reliable signals between two SDKs: numbers, acknowledgements, retransmission, order. No I/O; time is an argument.

docs/delivery.md describes the state machine. clients/js/src/delivery.js implements the same one, and both run
tests/vectors/delivery/. The caller fetches outgoing frames from `next`, one at a time: after every event, and at
`wake_at`.
"""

# Theory of operation
# ===================
#
# A stream is one direction between two instances of an SDK. Its name is `r1.<instance>.<epoch>`. The prefix says that
# its sender retransmits and acknowledges. The instance is random for each call object, so a reloaded page is another
# instance. The epoch grows when the *peer* turns out to be another instance, which cannot know what came before. So
# both ends of a stream start at 1, without a handshake.
#
# The peer has a `kind`:
#
#   UNKNOWN   Nothing has arrived from it. Signals are sent once and kept. Only presence notes are retransmitted,
#             because a client without an SDK cannot recognise duplicates. After the last note the peer is PLAIN.
#   PLAIN     Its streams have other names or none: an older SDK, or no SDK. A signal counts as delivered when it is
#             passed to the connection: at most once, as the cluster delivers it.
#   RELIABLE  Signals are kept until they are acknowledged. They are retransmitted after a timeout, and at once when
#             either side returns.
#
# Each side sends the presence note `{"here": <the peer's stream, or null>}` when both are present. It is an ordinary
# signal, so it is retransmitted until it arrives. It lets two SDKs recognise each other even if neither app sends
# anything.

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from keepline.client.frames import encode
from keepline.client.incoming import Incoming
from keepline.client.outbox import Outbox, Ticket
from keepline.client.retransmission_timeout import RetransmissionTimeout

WINDOW = 64
WINDOW_BYTES = 512 * 1024
PROBES_MS = (1_000, 2_000, 4_000)
"""Waits for the reply to a presence note before it is retransmitted. After the last wait the peer counts as plain."""

_STREAM = re.compile(r"r1\.([^.]+)\.(\d{1,9})")


class PeerKind(Enum):
    """What the peer is known to support."""

    UNKNOWN = "unknown"
    PLAIN = "plain"
    RELIABLE = "reliable"


@dataclass(slots=True)
class _Sent:
    n: int
    text: bytes
    ticket: Ticket | None
    is_note: bool
    sent_at: float
    times: int = 1


@dataclass(slots=True)
class DeliveryCounts:
    """The cost of reliable delivery. `bytes` counts the first transmission of each signal; all else is overhead."""

    signals: int = 0
    bytes: int = 0
    resent: int = 0
    duplicates: int = 0
    acknowledgements: int = 0
    notes: int = 0
    overhead_bytes: int = 0


@dataclass(slots=True)
class Received:
    """The result of a signal: `data` for the app, in order. `changed`: the peer is a new instance."""

    data: list[Any] = field(default_factory=list)
    changed: bool = False


class Delivery:
    """Both directions of one call, seen from one side."""

    def __init__(self, room_id: str, instance: str, limit: int, max_bytes: int) -> None:
        """`instance` is random. `limit` and `max_bytes` limit the signals that wait."""
        self.instance = instance
        self.kind = PeerKind.UNKNOWN
        self.incoming = Incoming()
        self.counts = DeliveryCounts()
        self.outdated = False
        self.frame_bytes = 65_536
        self._room_id = room_id
        self._epoch = 1
        self._last = 0
        self._outbox = Outbox(limit, max_bytes)
        self._unacked: deque[_Sent] = deque()
        self._unacked_bytes = 0
        self._resend: deque[int] = deque()
        self._note_due = False
        self._flows = False
        self._heard = True
        self._held_until = 0.0
        self._timeout = RetransmissionTimeout()
        self._timer: float | None = None
        self._repeats_to = (
            0  # after a timeout: retransmit up to here, once the oldest signal has been acknowledged
        )
        self._probes = 0

    # --- what the app and the room say ---

    @property
    def stream(self) -> str:
        """The name of our current stream to the peer."""
        return f"r1.{self.instance}.{self._epoch}"

    @property
    def flows(self) -> bool:
        """Whether both sides are present."""
        return self._flows

    def __len__(self) -> int:
        return len(self._outbox) + len(self._unacked)

    def push(self, text: bytes, ticket: Ticket) -> None:
        """Queue a signal, given as JSON. Raises SignalQueueFull."""
        self._outbox.push(text, ticket)

    def flow(self, now: float) -> None:
        """Both sides are present (again): retransmit what may have been lost in flight."""
        self._flows, self._note_due, self._probes = True, True, 0
        self._held_until = 0.0
        self._timeout.progressed()
        self._timer = None
        if self.kind is PeerKind.RELIABLE:
            self._heard = False
            self._send_again(now)

    def pause(self) -> None:
        """One side is away: everything waits."""
        self._flows = False

    def hold(self, until: float) -> None:
        """The peer reads too slowly: send nothing before `until`."""
        self._held_until = until

    def peer_left(self) -> None:
        """The peer left deliberately: the next one is another instance."""
        self._start_over()
        self.kind = PeerKind.UNKNOWN

    def fail(self, code: str) -> None:
        """The call is over: no waiting signal will arrive."""
        self._flows = False
        self._give_up(code)
        while len(self._outbox):
            self._outbox.pop()[1].settle(code)

    # --- what comes in ---

    def receive(self, stream: str | None, n: int | None, data: Any, now: float) -> Received:
        """Process a signal."""
        if stream is None or n is None:
            self._is_plain()
            return self._read(Received(), [data])
        named = _STREAM.fullmatch(stream)
        instance = named[1] if named else stream
        if not self.incoming.hears(instance):
            return Received()
        received = Received()
        if instance != self.incoming.instance:
            received.changed = self.incoming.instance is not None
            if received.changed:
                self._start_over()
            self.incoming.follow(instance)
            self._note_due = self._note_due or named is not None
        self._heard = True
        if named is None:
            self._is_plain()
            return self._read(received, [data] if self.incoming.take_plain(stream, n) else [])
        self._is_reliable(now)
        return self._read(received, self.incoming.take(stream, int(named[2]), n, data, now))

    def acknowledged(self, stream: str, n: int, now: float) -> None:
        """The peer has received everything up to `n` of one of our streams."""
        if stream != self.stream or n > self._last:
            return
        self._is_reliable(now)
        self._heard = True
        if not self._unacked or n < self._unacked[0].n:
            return
        while self._unacked and self._unacked[0].n <= n:
            sent = self._unacked.popleft()
            self._unacked_bytes -= len(sent.text)
            if sent.times == 1:
                self._timeout.measured(now - sent.sent_at)
            _settle(sent.ticket, None)
        self._timeout.progressed()
        self._timer = now + self._timeout.ms if self._unacked else None
        self._resend = deque(sent.n for sent in self._unacked if sent.n <= self._repeats_to)
        self._repeats_to = 0

    # --- what goes out ---

    def next(self, now: float) -> bytes | None:
        """The frame to write now; None if there is none before `wake_at`."""
        if not self._flows or now < self._held_until:
            return None
        self._held_until = 0.0
        ack_at = self.incoming.ack_at
        if ack_at is not None and ack_at <= now and self.kind is PeerKind.RELIABLE:
            self.counts.acknowledgements += 1
            stream, n = self.incoming.take_ack()
            return self._overhead(encode({"type": "ack", "room": self._room_id, "stream": stream, "n": n}))
        self._look_at_the_timer(now)
        if (again := self._next_again(now)) is not None:
            self.counts.resent += 1
            return self._overhead(again)
        if self._note_due:
            self._note_due = False
            self.counts.notes += 1
            return self._overhead(self._send(encode({"here": self.incoming.stream}), None, now, is_note=True))
        if self._outbox and self._has_room():
            written = self._send(*self._outbox.pop(), now, is_note=False)
            self.counts.signals += 1
            self.counts.bytes += len(written)
            return written
        return None

    def due(self, now: float) -> bool:
        """Whether `next` has a frame now."""
        if not self._flows or now < self._held_until:
            return False
        wake_at = self.wake_at()
        if wake_at is not None and wake_at <= now:
            return True
        return bool(self._resend or self._note_due or (self._outbox and self._has_room()))

    def wake_at(self) -> float | None:
        """When to call `next` even if nothing happens; None for never."""
        if not self._flows:
            return None
        ack_at = self.incoming.ack_at if self.kind is PeerKind.RELIABLE else None
        times = [at for at in (ack_at, self._timer) if at is not None]
        if not times and not self._held_until:
            return None
        return max(self._held_until, min(times, default=self._held_until))

    # --- inside ---

    def _overhead(self, written: bytes) -> bytes:
        self.counts.overhead_bytes += len(written)
        return written

    def _has_room(self) -> bool:
        """Whether a new signal may be sent. Not until the peer has been heard from: its page may have been reloaded."""
        if not self._heard:
            return False
        if not self._unacked:
            return True
        return len(self._unacked) < WINDOW and self._unacked_bytes < WINDOW_BYTES

    def _send(self, text: bytes, ticket: Ticket | None, now: float, *, is_note: bool) -> bytes:
        self._last += 1
        sent = _Sent(self._last, text, ticket, is_note, now)
        if self.kind is PeerKind.PLAIN:
            _settle(ticket, None)
            return self._written(sent)
        self._unacked.append(sent)
        self._unacked_bytes += len(text)
        if self._timer is None:
            self._set_timer(now)
        return self._written(sent)

    def _set_timer(self, now: float) -> None:
        if self.kind is PeerKind.RELIABLE:
            self._timer = now + self._timeout.ms
        elif self.kind is PeerKind.UNKNOWN:
            self._timer = now + PROBES_MS[self._probes]

    def _written(self, sent: _Sent) -> bytes:
        frame = {"type": "signal", "room": self._room_id, "stream": self.stream, "n": sent.n}
        written = encode(frame)[:-1] + b',"data":' + sent.text + b"}"
        if len(written) <= self.frame_bytes or sent.is_note:
            return written
        # The previous node had a higher limit. The number is used already, so a note takes the signal's place.
        _settle(sent.ticket, "too_large")
        self._unacked_bytes -= len(sent.text) if sent in self._unacked else 0
        sent.ticket, sent.is_note, sent.text = None, True, encode({"here": self.incoming.stream})
        self._unacked_bytes += len(sent.text) if sent in self._unacked else 0
        return self._written(sent)

    def _next_again(self, now: float) -> bytes | None:
        while self._resend:
            n = self._resend.popleft()
            if self._unacked and n >= self._unacked[0].n:
                sent = self._unacked[n - self._unacked[0].n]
                sent.times += 1
                sent.sent_at = now
                return self._written(sent)
        return None

    def _send_again(self, now: float) -> None:
        self._resend = deque(sent.n for sent in self._unacked)
        self._repeats_to = 0
        self._timer = now + self._timeout.ms if self._unacked else None

    def _look_at_the_timer(self, now: float) -> None:
        if self._timer is None or now < self._timer:
            return
        if self.kind is PeerKind.RELIABLE:
            self._timeout.passed()
            self._timer = now + self._timeout.ms
            self._resend = deque([self._unacked[0].n])
            self._repeats_to = self._last
            return
        self._probes += 1
        if self._probes == len(PROBES_MS):
            self._is_plain()
            return
        self._set_timer(now)
        self._resend = deque([sent.n for sent in self._unacked if sent.is_note][-1:])

    def _is_reliable(self, now: float) -> None:
        if self.kind is PeerKind.PLAIN:
            self._start_epoch()  # signals sent to a plain peer were not kept
        if self.kind is not PeerKind.RELIABLE:
            self.kind = PeerKind.RELIABLE
            self._timer = None
            if self._unacked:
                self._set_timer(now)

    def _is_plain(self) -> None:
        if self.kind is not PeerKind.PLAIN:
            self.kind = PeerKind.PLAIN
            self._give_up(None)

    def _start_over(self) -> None:
        """The peer is a new instance: signals in flight to the old one are lost, and numbers start at 1 again."""
        self._give_up("peer_gone")
        self._heard = True
        if self.kind is not PeerKind.PLAIN:
            self._start_epoch()

    def _start_epoch(self) -> None:
        if self._last:
            self._epoch += 1
            self._last = 0

    def _give_up(self, code: str | None) -> None:
        for sent in self._unacked:
            _settle(sent.ticket, code)
        self._unacked.clear()
        self._unacked_bytes = 0
        self._resend.clear()
        self._repeats_to = 0
        self._timer = None

    def _read(self, received: Received, signals: list[Any]) -> Received:
        """Process presence notes; pass everything else to the app."""
        for data in signals:
            if isinstance(data, dict) and "here" in data:
                self._note_read(data["here"])
            else:
                received.data.append(data)
        return received

    def _note_read(self, here: object) -> None:
        """The peer names the stream that it follows. If it is another instance, the peer has since talked to another of
        our user's devices.
        """
        if isinstance(here, str) and here.startswith(f"r1.{self.instance}."):
            return
        self.outdated = self.outdated or here is not None
        self._note_due = self._note_due or here is not None or self.kind is PeerKind.PLAIN


def _settle(ticket: Ticket | None, code: str | None) -> None:
    if ticket is not None:
        ticket.settle(code)
