"""What befalls the cluster. Each fault is a coroutine that begins it, and ends it after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.simulation.server import Data
from tests.simulation.world import World

Fault = Callable[[World], Awaitable[None]]


async def node_killed(world: World) -> None:
    """A node is killed, and started again soon or late, under its old name or a new one."""
    if not world.nodes:
        return
    node = world.random.choice(world.nodes)
    world.kill_node(node)
    await asyncio.sleep(world.random.choice((0.1, 1.0, 8.0)) * world.random.random())
    world.start_node(node.name if world.random.random() < 0.5 else None)


async def all_nodes_killed(world: World) -> None:
    """Everything that is in memory is gone."""
    names = [node.name for node in world.nodes]
    for node in list(world.nodes):
        world.kill_node(node)
    await asyncio.sleep(world.random.uniform(0.1, 3.0))
    for name in names:
        world.start_node(name)


async def node_drained(world: World) -> None:
    """A node is told to stop, another one takes its place."""
    if not world.nodes:
        return
    node = world.random.choice(world.nodes)
    if not node.ready:
        return
    world.trace.note(node.name, "is told to stop")
    node.spawn(node.drain())
    world.start_node()
    await asyncio.sleep(5.0)
    world.sweep_up()


async def node_frozen(world: World) -> None:
    """A node does nothing for a while, and then goes on as if nothing had been."""
    if not world.nodes:
        return
    node = world.random.choice(world.nodes)
    seconds = world.random.choice((0.5, 3.0, 12.0)) * world.random.uniform(0.5, 1.0)
    world.trace.note(node.name, f"freezes for {seconds:.1f} s")
    world.loop.freeze(node.process)
    await asyncio.sleep(seconds)
    if node.alive:
        world.trace.note(node.name, "thaws")
        world.loop.thaw(node.process)
        node.thawed_at = world.loop.time()


async def node_copied(world: World) -> None:
    """A second process is started under the name of a node that lives, as from a copied file."""
    living = [node for node in world.nodes if node.ready and not node.doubted]
    if not living:
        return
    node = world.random.choice(living)
    copy = world.start_node(node.name)
    while copy.alive and not copy.accepting and not node.doubted:
        await asyncio.sleep(0.1)
    if copy.accepting and node.ready and not node.doubted:
        world.trace.violate(f"two processes are {node.name}")
    await asyncio.sleep(5.0)  # one that was silent for long has lost its name, and ends
    world.sweep_up()


async def redis_clock_set(world: World) -> None:
    """The time of day of Redis' machine is set, for all its keys as well."""
    step = world.random.choice((-3600.0, -20.0, 20.0, 3600.0))
    world.trace.note("redis", f"has its clock set by {step:+.0f} s")
    world.redis.clock_off += step


async def redis_away(world: World) -> None:
    """Redis is stopped, and started again with all its data."""
    world.trace.note("redis", "is away")
    world.redis.stop()
    await asyncio.sleep(world.random.choice((0.3, 2.0, 9.0)) * world.random.random())
    world.trace.note("redis", "is back")
    world.redis.start(world.redis.server.data)


async def redis_stalled(world: World) -> None:
    """Redis answers nothing for a while, and then everything."""
    world.trace.note("redis", "stalls")
    world.redis.conditions.stalled = True
    await asyncio.sleep(world.random.choice((0.5, 4.0, 8.0)) * world.random.random())
    world.trace.note("redis", "goes on")
    world.redis.resume()


async def redis_flaky(world: World) -> None:
    """Connections break, before or after what was asked is done."""
    conditions = world.redis.conditions
    conditions.lost_requests = world.random.choice((0.0, 0.2))
    conditions.lost_answers = world.random.choice((0.1, 0.4))
    world.trace.note("redis", "is flaky")
    await asyncio.sleep(world.random.uniform(0.5, 5.0))
    conditions.lost_requests = conditions.lost_answers = 0.0
    world.trace.note("redis", "is no longer flaky")


async def redis_slow(world: World) -> None:
    """Everything takes long, and overtakes."""
    conditions = world.redis.conditions
    usual = conditions.delay
    conditions.delay = (0.001, world.random.choice((0.05, 0.5)))
    world.trace.note("redis", "is slow")
    await asyncio.sleep(world.random.uniform(0.5, 5.0))
    conditions.delay = usual
    world.trace.note("redis", "is quick again")


async def redis_emptied(world: World) -> None:
    """Redis is started again without its data."""
    world.trace.note("redis", "is stopped")
    world.redis.stop()
    await asyncio.sleep(world.random.choice((0.01, 1.0, 5.0)) * world.random.random())
    world.trace.note("redis", "starts empty")
    world.redis.start(Data())
    world.data_lost()


async def redis_failed_over(world: World) -> None:
    """A replica that was behind takes over: the last writes are lost."""
    behind = world.redis.server.snapshot()
    await asyncio.sleep(world.random.choice((0.005, 0.1, 2.0)) * world.random.random())
    world.trace.note("redis", "dies")
    world.redis.stop()
    await asyncio.sleep(world.random.uniform(0.2, 3.0))
    world.trace.note("redis", "fails over to an older state")
    world.redis.start(behind)
    world.data_lost()


async def node_cut_off(world: World) -> None:
    """Between one node and Redis nothing gets through."""
    if not world.nodes:
        return
    node = world.random.choice(world.nodes)
    world.trace.note(node.name, "is cut off from Redis")
    node.link.cut = True
    await asyncio.sleep(world.random.choice((0.5, 4.0, 10.0)) * world.random.random())
    world.trace.note(node.name, "is no longer cut off")
    node.link.cut = False


async def answers_overtaken(world: World) -> None:
    """What one node asks of Redis is done, and it does not hear so; meanwhile all write, from other nodes as well."""
    if not world.nodes:
        return
    node = world.random.choice(world.nodes)
    world.trace.note(node.name, "loses answers")
    node.link.lost_answers = 0.7
    for _ in range(world.random.randint(5, 40)):
        await asyncio.sleep(world.random.uniform(0.001, 0.05))
        world.write_lines()
    node.link.lost_answers = 0.0
    world.trace.note(node.name, "loses no more answers")


async def connections_dropped(world: World) -> None:
    """The connections of one node to Redis break."""
    if world.nodes:
        node = world.random.choice(world.nodes)
        world.trace.note(node.name, "loses its connections to Redis")
        world.redis.drop_connections(node.link)


async def inbox_deaf(world: World) -> None:
    """A subscription hears nothing any more."""
    if world.nodes:
        node = world.random.choice(world.nodes)
        world.trace.note(node.name, "is deaf")
        world.redis.deafen(node.link)


async def persister_killed(world: World) -> None:
    """A persister is killed and another started."""
    if not world.persisters:
        return
    world.kill_persister()
    await asyncio.sleep(world.random.uniform(0.1, 5.0))
    world.start_persister()


async def postgres_away(world: World) -> None:
    """Postgres cannot be asked."""
    world.trace.note("postgres", "is away")
    world.postgres.away = True
    await asyncio.sleep(world.random.uniform(1.0, 15.0))
    world.trace.note("postgres", "is back")
    world.postgres.away = False


async def rows_refused(world: World) -> None:
    """A trigger refuses the rows of some rooms, until somebody changes it and replays what was put aside."""
    rooms = list(world.members)
    if not rooms:
        return
    world.postgres.refused = set(world.dice_beside.sample(rooms, world.dice_beside.randint(1, len(rooms))))
    world.trace.note("postgres", f"refuses {len(world.postgres.refused)} rooms")
    await asyncio.sleep(world.dice_beside.uniform(1.0, 15.0))
    world.postgres.refused = set()
    await world.replay_dead_letters()
    world.trace.note("postgres", "refuses nothing any more")


async def cold_start(world: World) -> None:
    """Everything but Postgres is gone at once."""
    await asyncio.gather(all_nodes_killed(world), redis_emptied(world))


FAULTS: tuple[Fault, ...] = (
    node_killed,
    node_killed,
    all_nodes_killed,
    node_drained,
    node_frozen,
    node_frozen,
    node_copied,
    redis_clock_set,
    redis_away,
    redis_stalled,
    redis_flaky,
    redis_flaky,
    redis_slow,
    redis_emptied,
    redis_failed_over,
    node_cut_off,
    answers_overtaken,
    answers_overtaken,
    connections_dropped,
    inbox_deaf,
    persister_killed,
    postgres_away,
    cold_start,
)

BESIDE: tuple[tuple[Fault, float], ...] = ((rows_refused, 0.25),)
"""Faults that come beside those, each in so many of all seeds: the others' histories stay what they were."""
