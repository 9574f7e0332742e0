"""What operators' commands read, where the keys are spread over three servers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keepline.cli.cluster.access import Reach, reach
from keepline.cli.cluster.problems import disorders
from keepline.cli.cluster.rooms import Filter, list_rooms, views_of
from keepline.cli.cluster.status import status
from keepline.cli.cluster.survey import survey
from keepline.cli.cluster.trace import timeline
from keepline.room import keys
from signal_node.rooms.store import Committed, RoomStore
from tests.contract.changes import change
from tests.helpers.redis_cluster import running_cluster
from tests.unit.signal_node.calls import opening

PARTITIONS = 16
ROOMS = 40


@pytest.fixture
async def cluster(server_folder: Path) -> AsyncIterator[Reach]:
    async with (
        running_cluster(server_folder / "operators-cluster", replicas=False) as servers,
        reach({"REDIS_URL": servers.url, "KEEPLINE_SERVICE_KEY": "k" * 16}) as reached,
    ):
        yield reached


async def test_all_rooms_of_all_servers_are_looked_at(cluster: Reach) -> None:
    store = RoomStore(cluster.redis, PARTITIONS, 60_000)
    rooms = {str(uuid.uuid4()) for _ in range(ROOMS)}
    results = await store.commit([change(None, opening(room)) for room in rooms])
    assert results == [Committed()] * ROOMS
    gone = str(uuid.uuid4())
    held = keys.held(store.partition_of(gone), "node-9")
    await cluster.redis.sadd(held, gone)

    seen: list[int] = []
    listing = await list_rooms(cluster, Filter(), ROOMS, seen.append)
    assert {room.room_id for room in listing.rooms} == rooms
    assert (listing.total, seen[-1]) == (ROOMS, ROOMS)
    looked = await survey(cluster, seen.append)
    assert looked.rooms.keys() == rooms == looked.deadlines.keys()
    assert len(looked.servers) == 3
    found = {(finding.kind, finding.where) for finding in disorders(looked)}
    assert found >= {("no-node", "cluster"), ("orphan-held", gone)}

    room = next(iter(rooms))
    assert [line.what for line in (await timeline(cluster, room)).lines] == ["open"]
    (view,) = await views_of(cluster, room)
    assert view.fields is not None
    assert (view.place, view.fields["version"]) == ("Redis", 1)
    assert "no node is running" in (await status(cluster))["problems"]
