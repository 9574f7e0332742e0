"""Which nodes there are: names, heartbeats, leases and the cluster's time, on every server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import pytest

from keepline.ops.errors import CannotRun
from keepline.ops.redis.client import Client
from keepline.ops.redis.cluster_time import FADES, Correction, decode_correction
from keepline.room import keys
from signal_node.cluster import claim as claim_module
from signal_node.cluster.claim import claim
from signal_node.cluster.clock import Clock
from signal_node.cluster.clock_sync import ClockSync
from signal_node.cluster.registry import HEARTBEAT_TTL_MS, Namesake, Registry

STATUS: Mapping[str, Any] = {"state": "ready", "pid": os.getpid(), "ops": "http://here:1"}


def starting(registry: Registry, **status: Any) -> Any:
    """What a process does at its start."""

    async def beat(replaces: bytes) -> Namesake | None:
        return await registry.beat({**STATUS, **status}, 1, replaces)

    return claim("node-1", beat)


# --- names ---


async def test_a_name_that_lives_is_refused_and_its_node_left_alone(client: Client) -> None:
    first, second = Registry(client, "node-1"), Registry(client, "node-1")
    await starting(first)
    before = await client.get(keys.node("node-1"))

    async def beats() -> None:
        while True:
            await first.beat(STATUS, 2)
            await asyncio.sleep(0.05)

    beating = asyncio.create_task(beats())
    try:
        with pytest.raises(CannotRun, match=r"node-1 \(process \d+, http://here:1\).*KEEPLINE_NODE_ID"):
            await starting(second)
    finally:
        beating.cancel()
    assert await client.get(keys.node("node-1")) == before
    await second.leave()
    assert (await first.nodes())[0].keys() == {"node-1"}


async def test_two_that_start_at_once_are_not_both_let_in(client: Client) -> None:
    registries = [Registry(client, "node-1") for _ in range(8)]
    answers = await asyncio.gather(*(registry.beat(STATUS, 1) for registry in registries))
    assert sum(answer is None for answer in answers) == 1


async def test_a_predecessor_that_was_killed_on_this_machine_is_followed_at_once(client: Client) -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await starting(Registry(client, "node-1"), pid=process.pid)
    successor = Registry(client, "node-1")
    async with asyncio.timeout(claim_module.SILENT_SECONDS / 2):
        await starting(successor)
    assert await successor.beat(STATUS, 2) is None


async def test_a_predecessor_that_was_killed_elsewhere_is_followed_when_it_is_silent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_module, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(claim_module, "LOOK_SECONDS", 0.05)
    await starting(Registry(client, "node-1"), machine="another")
    successor = Registry(client, "node-1")
    await starting(successor)
    assert await successor.beat(STATUS, 2) is None


async def test_who_lost_its_name_meanwhile_is_told_so(client: Client) -> None:
    slow, quick = Registry(client, "node-1"), Registry(client, "node-1")
    await starting(slow)
    await client.delete(keys.node("node-1"))  # it was silent for too long
    await starting(quick)
    namesake = await slow.beat(STATUS, 3)
    assert namesake is not None
    assert namesake.status["process"] == quick.process
    assert 0 < namesake.ttl_ms <= HEARTBEAT_TTL_MS


async def test_a_heartbeat_of_an_earlier_release_is_another_process(client: Client) -> None:
    await client.set(keys.node("node-1"), b'{"state": "ready", "turn_down": {"a": 1}}', px=HEARTBEAT_TTL_MS)
    assert await Registry(client, "node-1").beat(STATUS, 1) is not None


async def test_where_a_node_is_stays_known_when_its_heartbeat_is_gone(client: Client) -> None:
    registry = Registry(client, "node-1")
    await starting(registry)
    await client.delete(keys.node("node-1"))
    assert await client.hgetall(keys.addresses()) == {b"node-1": b"http://here:1"}
    await registry.forget("node-1")
    assert await client.hgetall(keys.addresses()) == {}


# --- leases ---


async def test_a_lease_that_another_has_by_now_is_left_to_it(client: Client) -> None:
    slow, next_one, third = (Registry(client, f"node-{number}") for number in (1, 2, 3))
    assert await slow.lease(3, "recovery", 10_000)
    await client.delete(keys.lease(3, "recovery"))  # it took too long
    assert await next_one.lease(3, "recovery", 10_000)
    await slow.end_lease(3, "recovery")
    assert not await third.lease(3, "recovery", 10_000)
    await next_one.end_lease(3, "recovery")
    assert await third.lease(3, "recovery", 10_000)


async def test_a_lease_does_not_live_on_when_redis_clock_is_set_back(client: Client) -> None:
    dead, next_one = Registry(client, "node-1"), Registry(client, "node-2")
    assert await dead.lease(3, "recovery", 10_000)
    await client.pexpire(keys.lease(3, "recovery"), 3_610_000)  # as after a step of an hour
    assert not await next_one.lease(3, "recovery", 10_000)
    assert await client.pttl(keys.lease(3, "recovery")) <= 10_000
    assert not await next_one.lease(3, "recovery", 10_000)


# --- time ---


class Machine:
    """A node that hears of a Redis clock that is off by `redis_off`, as long after its start as `up`."""

    def __init__(self, client: Client, name: str) -> None:
        self.up = 1_000.0
        self.redis_off = 0.0
        self.registry = Registry(client, name)
        self.clock = Clock(lambda: self.up, lambda: 0.0)
        self.sync = ClockSync(self.registry, self.clock)
        self._time = self.registry.time
        self.registry.time = self._told  # type: ignore[method-assign]
        self._redis = 1_790_000_000.0

    async def _told(self, monotonic: Any = None) -> tuple[float, float, float, bytes | None]:
        *_, correction = await self._time()
        return self._redis + self.up + self.redis_off, self.up, self.up, correction

    async def look(self) -> bool:
        jumped = await self.sync.look()
        await self.registry.beat(STATUS, self.clock.now())
        return jumped

    @property
    def off(self) -> float:
        return self.clock.seconds() - self._redis - self.up


@pytest.mark.parametrize("step", [3_600.0, -3_600.0, 5.0])
async def test_a_step_of_redis_clock_is_taken_out_for_all_nodes_and_fades(
    client: Client, step: float
) -> None:
    machines = [Machine(client, f"node-{number}") for number in (1, 2)]
    for machine in machines:
        assert not await machine.look()
    for machine in machines:
        machine.up += 1.0
        machine.redis_off = step
        assert await machine.look(), "it is told, whoever was the first to notice"
        assert machine.off == pytest.approx(0.0, abs=0.1)
    assert sum(machine.sync.steps for machine in machines) == 1
    assert await machines[0].look() is False
    newcomer = Machine(client, "node-3")
    newcomer.up, newcomer.redis_off = 1_001.0, step
    await newcomer.look()
    assert newcomer.off == pytest.approx(0.0, abs=0.1)
    for machine in (*machines, newcomer):
        machine.up += 100.0
        for _ in range(10):
            await machine.look()
        faded = min(abs(step), 100.0 * FADES)
        assert machine.off == pytest.approx(faded if step > 0 else -faded, abs=0.1)


async def test_a_machine_that_stood_still_changes_nothing_for_others(client: Client) -> None:
    stood, went = Machine(client, "node-1"), Machine(client, "node-2")
    await stood.look()
    await went.look()
    went.up += 600.0
    await went.look()
    stood.up += 1.0
    stood.redis_off = 599.0
    assert await stood.look()
    assert await client.get(keys.clock()) is None
    assert stood.off == pytest.approx(599.0, abs=0.1)


async def test_a_correction_that_redis_has_lost_is_put_back(client: Client) -> None:
    machine = Machine(client, "node-1")
    await machine.look()
    machine.redis_off = 3_600.0
    assert await machine.look()
    await client.delete(keys.clock())
    assert not await machine.look()
    kept: Any = await client.get(keys.clock())
    assert decode_correction(kept).ahead_ms == -3_600_000
    assert machine.off == pytest.approx(0.0, abs=0.1)


def test_a_correction_that_cannot_be_read_is_none() -> None:
    assert [decode_correction(value) for value in (None, b"", b"1", b"x y")] == [Correction()] * 4
    assert decode_correction(Correction(-5, 7).encode()) == Correction(-5, 7)
