"""What a connection may cost: budgets, turns, stalls, on a clock that stands still."""

from __future__ import annotations

import json

import pytest
from websockets.frames import Frame, Opcode

from keepline.ops.budget import MAX_PAUSE_SECONDS, Budget
from signal_node.protocol import close_codes
from signal_node.protocol.effects import JoinRequest
from signal_node.protocol.session import SessionLimits
from signal_node.transport.budget import COSTS, Allowances
from signal_node.transport.connection import AT_ONCE_BYTES, MAX_DISCARDED, MAX_JOINS
from signal_node.transport.framing import SLICE_FRAMES
from signal_node.transport.outgoing import MAX_HELD_BYTES
from tests.unit.signal_node.calls import ROOM, USER_1
from tests.unit.signal_node.sockets import Browser, Notes, StillLoop, new_clients

TYPING = {"type": "typing", "room": ROOM}


class Place:
    """A node's clients, and what the loop does in a round."""

    def __init__(self, **settings: object) -> None:
        self.loop = StillLoop()
        self.notes = Notes()
        self.notes.clients = self.clients = new_clients(self.loop, **settings)

    def ready(self) -> Browser:
        browser = Browser(self.clients, self.notes, self.loop)
        browser.is_ready(USER_1)
        browser.connection.session.rooms.hold(ROOM, 1)
        return browser


def frames(opcode: Opcode, count: int, data: bytes = b"") -> bytes:
    return Frame(opcode, data).serialize(mask=True) * count


TYPING_TEXT = json.dumps(TYPING).encode()


def browser_frames(count: int, data: bytes = TYPING_TEXT) -> bytes:
    return frames(Opcode.TEXT, count, data)


def is_paused(browser: Browser) -> bool:
    return browser.pipe.paused


# --- a budget ---


def test_a_budget_lets_a_burst_through_and_then_its_rate() -> None:
    budget = Budget(rate=10, burst=100)
    assert budget.spend(100, 1_000.0) == 0
    assert budget.spend(5, 1_000.0) == 0.5
    assert budget.spend(0, 1_000.25) == 0.25
    assert budget.spend(0, 1_000.5) == 0
    assert budget.spend(100, 1_100.0) == 0, "full again, and no more than full"
    assert budget.spend(1, 1_100.0) == 0.1


def test_nobody_pauses_for_ever() -> None:
    budget = Budget(rate=10, burst=100)
    assert budget.spend(1e9, 1_000.0) == MAX_PAUSE_SECONDS
    assert budget.spend(0, 1_000.0 + MAX_PAUSE_SECONDS) == 0


def test_work_counts_for_the_address_as_well() -> None:
    address = Budget(rate=20, burst=100)
    first, second = Budget(10, 100, address), Budget(10, 100, address)
    assert first.spend(80, 1_000.0) == 0
    assert second.spend(40, 1_000.0) == 1.0, "its own budget would have borne that"
    assert Budget(10, 100).spend(40, 1_000.0) == 0, "others have nothing to do with it"


# --- control frames and fragments ---


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_more_control_frames_than_the_burst_close_the_connection(opcode: Opcode) -> None:
    place = Place()
    browser = place.ready()
    browser.connection.data_received(frames(opcode, 200))
    for _ in range(10):
        place.loop.tick()
    assert 4429 not in browser.frames(), "that is the burst"
    browser.connection.data_received(frames(opcode, 1))
    assert browser.frames()[-1] == 4429
    assert browser.connection.closed_as is close_codes.RATE_LIMITED


def test_more_fragments_than_the_burst_close_the_connection() -> None:
    place = Place()
    browser = place.ready()
    start = Frame(Opcode.TEXT, b"x", fin=False).serialize(mask=True)
    browser.connection.data_received(start + Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 200)
    for _ in range(10):
        place.loop.tick()
    assert browser.frames() == [4429]


def test_control_frames_before_hello_count_as_well() -> None:
    place = Place()
    browser = Browser(place.clients, place.notes, place.loop)
    browser.connection.data_received(frames(Opcode.PING, 201))
    for _ in range(10):
        place.loop.tick()
    assert browser.frames()[-1] == 4429


def test_who_goes_on_after_our_close_is_cut_off() -> None:
    place = Place()
    browser = place.ready()
    browser.connection.close(close_codes.RATE_LIMITED)
    browser.connection.data_received(bytes(MAX_DISCARDED))
    assert not browser.pipe.aborted
    browser.connection.data_received(b"\0")
    assert browser.pipe.aborted


# --- turns ---


def test_others_are_read_between_two_slices_of_one() -> None:
    place = Place(limits=SessionLimits(frames_burst=1_000))
    much, little = place.ready(), place.ready()
    much.connection.data_received(browser_frames(3 * SLICE_FRAMES))
    assert len(place.notes.relayed) == SLICE_FRAMES
    assert much.pipe.paused, "the rest is enough to do"
    little.connection.data_received(browser_frames(1))
    assert len(place.notes.relayed) == SLICE_FRAMES + 1
    place.loop.tick()
    assert len(place.notes.relayed) == 2 * SLICE_FRAMES + 1
    for _ in range(2):
        place.loop.tick()
    assert len(place.notes.relayed) == 3 * SLICE_FRAMES + 1
    assert not much.pipe.paused


def test_who_goes_while_a_rest_is_left_is_not_read_any_more() -> None:
    place = Place(limits=SessionLimits(frames_burst=1_000))
    browser = place.ready()
    browser.connection.data_received(browser_frames(2 * SLICE_FRAMES))
    browser.drop()
    place.loop.tick()
    assert len(place.notes.relayed) == SLICE_FRAMES


def test_a_large_packet_waits_for_its_turn_and_stays_in_order() -> None:
    place = Place()
    browser = place.ready()
    browser.connection.data_received(browser_frames(1, b" " * AT_ONCE_BYTES + TYPING_TEXT))
    assert (place.notes.relayed, is_paused(browser)) == ([], True)
    browser.connection.data_received(browser_frames(1))
    assert place.notes.relayed == [], "what comes behind it waits as well"
    place.loop.tick()
    assert len(place.notes.relayed) == 2
    place.loop.tick()
    assert not is_paused(browser)
    browser.connection.data_received(browser_frames(1))
    assert len(place.notes.relayed) == 3, "at once again"


def test_newcomers_wait_for_their_turn_whatever_they_send() -> None:
    place = Place()
    browser = Browser(place.clients, place.notes, place.loop)
    assert browser.connection.websocket.ended_by == "lost", "the handshake is through"
    browser.connection.data_received(frames(Opcode.PING, 1))
    assert browser.connection.websocket.behind
    place.loop.tick()
    assert browser.frames() == ["pong"]


# --- work ---


def test_who_is_over_the_budget_is_read_later_and_loses_nothing() -> None:
    place = Place(work=Allowances(connection=10.0, connection_burst=5.0))
    browser = place.ready()
    browser.connection.data_received(
        browser_frames(1, b'{"type":"nonsense","id":"' + b"x" * 60_000 + b'"}') * 4
    )
    place.loop.tick()
    spent = 4 * (60_000 / 1_024 * COSTS.kib_received + COSTS.frame)
    assert is_paused(browser)
    place.loop.now += (spent - 5.0) / 10.0 - 0.1
    place.loop.tick()
    place.loop.tick()
    assert is_paused(browser)
    place.loop.now += 0.2
    for _ in range(3):
        place.loop.tick()
    assert not is_paused(browser)
    browser.send(TYPING)
    assert len(place.notes.relayed) == 1
    assert browser.connection.closed_as is None


def test_reads_from_redis_and_long_answers_are_work() -> None:
    place = Place(work=Allowances(connection=10.0, connection_burst=20.0))
    browser = place.ready()
    browser.connection.write(b"[" + b" " * 1_900 * 1_024 + b"]")
    assert not browser.pipe.paused
    browser.send(*[{"type": "join", "room": ROOM, "id": "1"}] * 3)
    assert browser.pipe.paused


def test_changes_of_rooms_are_work() -> None:
    place = Place(work=Allowances(connection=10.0, connection_burst=20.0))
    browser = place.ready()
    line = {"type": "chat", "room": ROOM, "text": "x", "id": "1"}
    many = int(20.0 / COSTS.change) // 2 + 1
    browser.send(*[line] * many)
    assert not browser.pipe.paused
    browser.send(*[line] * many)
    place.loop.tick()
    assert browser.pipe.paused


def test_so_many_joins_of_a_connection_are_under_way() -> None:
    place = Place()
    browser = place.ready()
    begun = place.notes.begun
    place.notes.answers_later = True
    browser.send(*[{"type": "join", "room": ROOM, "id": str(n)} for n in range(MAX_JOINS + 2)])
    assert len(begun) == MAX_JOINS
    browser.connection.answered()
    assert len(begun) == MAX_JOINS + 1
    for _ in range(MAX_JOINS + 1):
        browser.connection.answered()
    assert [effect.request_id for effect in begun if isinstance(effect, JoinRequest)] == [
        str(n) for n in range(MAX_JOINS + 2)
    ]


def test_what_is_held_back_for_a_join_is_bounded_in_bytes() -> None:
    place = Place()
    browser = place.ready()
    browser.connection.outgoing.hold_back()
    for _ in range(100):
        browser.connection.outgoing.forward(b"x" * 60_000)
    browser.connection.answered()
    place.loop.tick()
    assert sum(map(len, browser.pipe.writes)) < MAX_HELD_BYTES + 100_000


# --- stalls ---


def test_what_was_sent_during_a_stall_is_no_burst() -> None:
    place = Place()
    browser, other = place.ready(), place.ready()
    place.loop.now += 12.0
    place.clients.stalls.ended(12.0, place.loop.now)
    for client in (browser, other):
        client.connection.data_received(browser_frames(600))
    for _ in range(2 * 600 // SLICE_FRAMES):
        place.loop.tick()
    assert len(place.notes.relayed) == 2 * 600
    assert browser.frames() == other.frames() == []


def test_a_stall_shows_to_those_who_are_read_before_any_timer_runs() -> None:
    place = Place()
    browser, other = place.ready(), place.ready()
    place.clients.stalls.check(place.loop.now)
    place.loop.now += 12.0
    for client in (browser, other):
        client.connection.data_received(browser_frames(600))
    for _ in range(2 * 600 // SLICE_FRAMES):
        place.loop.tick()
    assert len(place.notes.relayed) == 2 * 600
    assert browser.frames() == other.frames() == []
    place.clients.stalls.check(place.loop.now)
    assert place.clients.stalls.number == 1
    assert place.clients.stalls.seconds == pytest.approx(11.9)


def test_a_check_in_time_finds_no_stall() -> None:
    place = Place()
    browser = place.ready()
    for seconds in (0.0, 0.1, 0.3):
        place.loop.now += seconds
        place.clients.stalls.check(place.loop.now)
    place.loop.now += 0.29
    browser.connection.data_received(browser_frames(1))
    assert place.clients.stalls.number == 0


def test_a_stall_is_credited_once_and_only_just_after_it() -> None:
    place = Place()
    browser, late = place.ready(), place.ready()
    place.clients.stalls.ended(12.0, place.loop.now)
    browser.connection.data_received(browser_frames(800))
    for _ in range(800 // SLICE_FRAMES):
        place.loop.tick()
    assert browser.frames() == []
    browser.send(TYPING)
    assert [frame["code"] for frame in browser.frames()] == ["rate_limited"]
    place.loop.now += 1.1
    late.connection.data_received(browser_frames(201))
    for _ in range(201 // SLICE_FRAMES):
        place.loop.tick()
    assert [frame["code"] for frame in late.frames()] == ["rate_limited"]
