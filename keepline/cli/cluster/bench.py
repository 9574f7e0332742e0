"""`keepline bench`: test calls on a running cluster, to measure how it relays signals as seen by clients.

All clients are in this process, so a single clock times each signal from one to the other: through the sender's SDK,
the network, one node or two, and the receiver's SDK.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.table import Table

from keepline.cli.base.errors import CommandError, UsageError
from keepline.cli.cluster.access import ListedNode, NodeSilent, Reach
from keepline.cli.local.layout import WILDCARDS
from keepline.client import Call, Keepline, KeeplineError, Options, SignalReceived, State
from keepline.ops import postgres
from keepline.ops.postgres.users_table import UsersTable, users_table_of

FRAMES_A_SECOND = 40
"""Maximum rate of one client. By default a node accepts 50 frames a second from a connection."""

_AT_ONCE = 16
_MEETING_SECONDS = 30.0
_LATE_SECONDS = 2.0
"""How long to wait for signals after the last one was sent."""

_STORED_SECONDS = 30.0
_POLL_SECONDS = 0.1
_ROUTES = ("one_node", "two_nodes")

_ROWS = {
    "connect_ms": "connecting and joining",
    "one_node_ms": "signals on one node",
    "two_nodes_ms": "signals over two nodes",
    "late_ms": "delayed by this command itself",
}

T = TypeVar("T")
Mint = Callable[[uuid.UUID], str]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """The load: number of calls, total signals per second (`rate`), and duration (`seconds`)."""

    calls: int
    rate: float
    seconds: float

    def check(self) -> None:
        """Raise UsageError for a load that nodes would refuse."""
        most = 2 * self.calls * FRAMES_A_SECOND
        if self.rate > most:
            raise UsageError(
                f"{self.calls} calls send {most} signals a second at most, because nodes limit what a connection"
                f" sends: use more --calls, or a --rate of up to {most}"
            )


@dataclass(slots=True)
class _Member:
    user: uuid.UUID
    client: Keepline
    call: Call
    route: str = ""
    sent: int = 0
    seconds: list[float] = field(default_factory=list)

    async def listen(self) -> None:
        """Time received signals until cancelled."""
        now = asyncio.get_running_loop().time
        async for event in self.call.events():
            if isinstance(event, SignalReceived):
                self.seconds.append(now() - event.data["app"]["at"])

    async def speak(self, every: float, until: float, late: list[float]) -> None:
        """Send a signal every `every` seconds, starting at a random time in the first interval, and record the delay of
        each.
        """
        now = asyncio.get_running_loop().time
        due = now() + random.uniform(0, every)  # noqa: S311 - so that not all speak at once
        while due < until:
            await asyncio.sleep(due - now())
            late.append(max(0.0, now() - due))
            self.call.signal(app={"at": now()})
            self.sent += 1
            due += every


async def bench(
    reach: Reach, load: Load, urls: Sequence[str], mint: Mint, *, users: bool, say: Say
) -> dict[str, Any]:
    """Run the load on the cluster, and return the results as JSON types.

    Clients connect to `urls`, or to each node's own address if there are none. Calls are spread evenly over all pairs
    of these. With `users`, the clients' users are first inserted into Postgres, and deleted at the end together with
    all data of their calls. Raises UsageError, CommandError.
    """
    load.check()
    check_users(reach, users=users)
    node, found = await serving(reach)
    places = urls or [clients_url(each) for each in found]
    people = [(uuid.uuid4(), uuid.uuid4()) for _ in range(load.calls)]
    async with AsyncExitStack() as stack:
        rooms: list[str] = []
        if users:
            await stack.enter_async_context(made_up_users(reach, people, rooms, say))
        stack.push_async_callback(end_rooms, reach, node, rooms)
        say(f"opening {load.calls} calls through {', '.join(places)}")
        for pair in people:
            rooms.append(await opened(reach, node, pair))
        opening: list[float] = []
        turns = asyncio.Semaphore(_AT_ONCE)
        members = await _all(
            _joined(stack, turns, place_of(places, number, side), mint, user, room, opening)
            for number, (pair, room) in enumerate(zip(people, rooms, strict=True))
            for side, user in enumerate(pair)
        )
        await _met(members)
        return await _measured(load, members, opening, say)


def check_users(reach: Reach, *, users: bool) -> None:
    """Raise UsageError when users are to be made, and there is nowhere to make them."""
    if users and reach.pool is None:
        raise UsageError(
            "set DATABASE_URL, so that the users of the calls can be made and removed again; or --no-users, when the"
            " cluster has no Postgres, or makes users that it does not know (KEEPLINE_CREATE_USERS)"
        )


def place_of(places: Sequence[str], number: int, side: int) -> str:
    """The URL for side 0 or 1 of a call, going through the pairs of URLs in turn."""
    return places[(number + side * (number // len(places))) % len(places)]


async def _measured(load: Load, members: list[_Member], opening: list[float], say: Say) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    for one, other in zip(members[::2], members[1::2], strict=True):
        one.route = other.route = _ROUTES[one.client.node != other.client.node]
    say(f"{load.rate:g} signals a second for {load.seconds:g} s")
    late: list[float] = []
    listening = [asyncio.create_task(member.listen()) for member in members]
    try:
        began = loop.time()
        every = len(members) / load.rate
        await _all(member.speak(every, began + load.seconds, late) for member in members)
        took = loop.time() - began
        await until(lambda: _received(members) >= _sent(members), _LATE_SECONDS)
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    sent, received = _sent(members), _received(members)
    return {
        "calls": load.calls,
        "seconds": round(took, 3),
        "sent": sent,
        "received": received,
        "lost": sent - received,
        "rate": round(received / took, 1),
        "connect_ms": distribution(opening),
        "one_node_ms": distribution(_seconds(members, "one_node")),
        "two_nodes_ms": distribution(_seconds(members, "two_nodes")),
        "late_ms": distribution(late),
    }


def render(found: dict[str, Any]) -> RenderableType:
    """The results in a form for people."""
    table = Table(box=None, pad_edge=False)
    for name in ("ms", "count", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="left" if name == "ms" else "right")
    for key, name in _ROWS.items():
        if (row := found[key]) is not None:
            times = [f"{row[part]:.1f}" for part in ("p50", "p90", "p99", "max")]
            table.add_row(name, str(row["count"]), *times)
    lost = f"[bold red]{found['lost']} lost[/]" if found["lost"] else "none lost"
    sent = f"{found['sent']} signals in {found['seconds']:g} s, {found['rate']:g} a second"
    return Group(f"{found['calls']} calls, {sent}, {lost}", table)


def distribution(seconds: Sequence[float]) -> dict[str, float] | None:
    """Count, and in ms median, 90th and 99th percentile and maximum (nearest rank); None without values."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        "count": len(ordered),
        **{name: round(ordered[ceil(part * len(ordered)) - 1] * 1_000, 3) for name, part in ranks.items()},
    }


def _sent(members: list[_Member]) -> int:
    return sum(member.sent for member in members)


def _received(members: list[_Member]) -> int:
    return sum(len(member.seconds) for member in members)


def _seconds(members: list[_Member], route: str) -> list[float]:
    return [seconds for member in members if member.route == route for seconds in member.seconds]


async def serving(reach: Reach) -> tuple[ListedNode, list[ListedNode]]:
    """A node for room requests, and all nodes that accept clients. Raises CommandError."""
    ready = [node for node in await reach.nodes() if node.beat is not None and node.beat["state"] == "ready"]
    if not ready:
        raise CommandError("no node accepts clients: see keepline status")
    return ready[0], ready


def clients_url(node: ListedNode) -> str:
    """A node's URL for clients, according to its heartbeat."""
    assert node.beat is not None
    host = node.beat["host"]
    if host in WILDCARDS:
        host = urlsplit(node.url or "").hostname or host
    return f"ws://[{host}]:{node.beat['port']}/v1" if ":" in host else f"ws://{host}:{node.beat['port']}/v1"


def _users_table(reach: Reach) -> UsersTable | None:
    try:
        return users_table_of(reach.environ)
    except ValueError as error:
        raise UsageError(str(error)) from None


@asynccontextmanager
async def made_up_users(
    reach: Reach, people: list[tuple[uuid.UUID, uuid.UUID]], rooms: list[str], say: Say
) -> AsyncIterator[None]:
    """Have the users in Postgres while the context is open; then delete them and all rows that refer to them."""
    table = _users_table(reach)
    if table is None:
        yield
        return
    ids = [user for pair in people for user in pair]
    make = f"INSERT INTO {table.table} ({table.key}) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING"
    await in_postgres(reach, make, ids)
    try:
        yield
    finally:
        say("waiting for Postgres to record the ended calls")

        async def stored() -> bool:
            query = "SELECT count(*) FROM active_rooms WHERE room_id = ANY ($1::uuid[]) AND status = 'ended'"
            return bool(await in_postgres(reach, query, rooms) == len(rooms))

        if await until(stored, _STORED_SECONDS):
            remove = f"DELETE FROM {table.table} WHERE {table.key} = ANY ($1::uuid[])"  # noqa: S608
            await in_postgres(reach, remove, ids)
        else:
            say(
                f"Postgres did not get them in {_STORED_SECONDS:g} s: {len(ids)} test users remain in the table"
            )


async def in_postgres(reach: Reach, query: str, value: Any) -> Any:
    """What a query gives. Raises CommandError."""
    assert reach.pool is not None
    try:
        return await reach.pool.fetchval(query, value)
    except postgres.ERRORS as error:
        raise CommandError(
            f"Postgres refuses the users of the calls: {reach.pool.in_words(error)}"
        ) from error


async def opened(reach: Reach, node: ListedNode, pair: tuple[uuid.UUID, uuid.UUID]) -> str:
    """Open a room for two users. Raises CommandError."""
    body = {"user_1": str(pair[0]), "user_2": str(pair[1]), "chat_mode": "video", "duration_seconds": 0}
    try:
        room: str = (await reach.ask(node, "/v1/rooms", method="POST", body=body))["room_id"]
    except NodeSilent as silence:
        raise CommandError(f"{node.name}: {silence}") from None
    return room


async def end_rooms(reach: Reach, node: ListedNode, rooms: list[str]) -> None:
    """End all calls, if the node allows it."""
    for room in rooms:
        try:
            await reach.ask(node, f"/v1/rooms/{room}", method="DELETE")
        except (NodeSilent, CommandError):
            continue


async def _joined(
    stack: AsyncExitStack,
    turns: asyncio.Semaphore,
    url: str,
    mint: Mint,
    user: uuid.UUID,
    room: str,
    opening: list[float],
) -> _Member:
    now = asyncio.get_running_loop().time
    async with turns:
        began = now()
        try:
            client = Keepline(
                url, mint(user), room_hint=room, options=Options(first_connect_timeout=_MEETING_SECONDS)
            )
            await stack.enter_async_context(client)
            call = await client.join(room)
        except KeeplineError as error:
            raise CommandError(
                f"{url} refuses a client: {error}. From one address a cluster takes"
                " KEEPLINE_LIMIT_CONNECTIONS_PER_IP connections (100)"
            ) from error
        opening.append(now() - began)
    return _Member(user, client, call)


async def _met(members: list[_Member]) -> None:
    def all_met() -> bool:
        return all(
            member.client.state is State.CONNECTED and member.call.peer == "joined" for member in members
        )

    if not await until(all_met, _MEETING_SECONDS):
        raise CommandError(f"not all members met within {_MEETING_SECONDS:g} s: see keepline status")


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
    """Wait for a condition, at most that many seconds, and return whether it became true."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds
    while True:
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return True
        if loop.time() >= give_up_at:
            return False
        await asyncio.sleep(_POLL_SECONDS)


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all concurrently. The first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except* (CommandError, KeeplineError) as errors:
        first = errors.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise (
            first if isinstance(first, CommandError) else CommandError(f"a call was cut off: {first}")
        ) from None
    return [task.result() for task in tasks]
