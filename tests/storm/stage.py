"""A cluster with a crowd inside and an honest pair beside it: what every scenario begins with."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import cpu_seconds
from keepline.cli.local.process import Child, Command
from tests.helpers.fleet import Fleet, running_fleet
from tests.helpers.waiting import eventually
from tests.storm.connection import Patience, Seat
from tests.storm.crowd import Crowd

ROOT = Path(__file__).parents[2]
ROOMS_AT_ONCE = 16
FILES_BESIDE = 500
"""Open files of a process beside its clients."""

CLIENTS_A_NETWORK = 50
FIRST_ADDRESS = ipaddress.IPv4Address("127.1.0.1")

_UNLIMITED = {
    # All come from one machine, and what a dead node has counted of them stays for a minute.
    "KEEPLINE_LIMIT_CONNECTIONS_PER_IP": "1000000",
    # The last ones come in long after the first.
    "KEEPLINE_NO_SHOW_SECONDS": "3600",
}


class TooFewFiles(Exception):
    """The system does not let a process open so many connections."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large it all is. `one_address`: the whole crowd comes from one, as from the Wi-Fi of a stadium."""

    clients: int
    nodes: int = 2
    seed: int = 1
    one_address: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have taken until a moment: seconds of CPU time of each node, of Redis, and of the crowd."""

    at: float
    nodes: tuple[float, ...]
    redis: float
    crowd: float


class Stage:
    """The crowd has two clients to a room. The pair signals on the last node, for as long as that lives."""

    def __init__(self, fleet: Fleet, crowd: Crowd, pair_log: Path) -> None:
        self.fleet = fleet
        self.crowd = crowd
        self._pair_log = pair_log

    def port(self, node: int) -> int:
        """Where clients reach a node."""
        return _port(self.fleet, node)

    def open_to(self, *nodes: int) -> None:
        """Let the load balancer send clients to these nodes."""
        self.crowd.ports = [self.port(node) for node in nodes]

    def begin_wave(self) -> Usage:
        """Count anew from now on; returns what everything has cost until now."""
        self.crowd.begin_wave()
        return self.usage()

    async def all_stored(self, seconds: float) -> None:
        """Wait until Postgres has everything."""

        async def read() -> bool:
            lag = await _metric_of(self.fleet, "keepline_persister_lag_entries")
            return lag + await _metric_of(self.fleet, "keepline_persister_pending_entries") == 0

        await eventually(read, timeout=seconds, interval=0.2, what="Postgres has everything")

    def usage(self) -> Usage:
        """What it has cost until now; a node that does not run costs nothing."""
        nodes = tuple(_cpu(program.pid) for program in self.fleet.programs)
        return Usage(self.crowd.loop.time(), nodes, _cpu(self.fleet.valkey.pid), time.process_time())

    def living(self) -> list[int]:
        """The nodes that run."""
        return [at for at, program in enumerate(self.fleet.programs) if program.running]

    def peak_megabytes(self, node: int) -> float:
        """The most memory that a node has held since it started."""
        status = Path(f"/proc/{self.fleet.programs[node].pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def pair_milliseconds(self, since: float, until: float) -> list[float]:
        """How long the pair's signals of that time took, in order of length."""
        lines = (line.split() for line in self._pair_log.read_text().splitlines()[:-1])
        return sorted(float(took) * 1000 for sent, took in lines if since <= float(sent) < until)


async def _metric_of(fleet: Fleet, name: str) -> float:
    async with fleet.http.get(f"{fleet.persisters[0]['http']}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def _cpu(pid: int) -> float:
    return cpu_seconds([pid]) or 0.0


def _port(fleet: Fleet, node: int) -> int:
    port = urlsplit(fleet.nodes[node].ws).port
    assert port is not None
    return port


def allow_files(clients: int) -> None:
    """Let this process and its children open a connection for each client. Raises TooFewFiles."""
    wanted = clients + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError) as error:
        raise TooFewFiles(f"{wanted} open files are needed, allowed are {hard}: see ulimit -Hn") from error


@asynccontextmanager
async def stage(size: Size, **environ: str) -> AsyncIterator[Stage]:
    """A cluster with rooms for the crowd, which has not come yet, and the pair signalling."""
    allow_files(size.clients)
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(
            running_fleet(nodes=size.nodes, environ={**_UNLIMITED, **environ})
        )
        seats = await _seats(fleet, size)
        ports = [_port(fleet, node) for node in range(size.nodes)]
        crowd = Crowd(seats, ports, size.seed, size.patience)
        stack.callback(crowd.leave)
        yield Stage(fleet, crowd, await _pair(fleet, stack))


async def _seats(fleet: Fleet, size: Size) -> list[Seat]:
    at_once = asyncio.Semaphore(ROOMS_AT_ONCE)

    async def open_room(number: int) -> list[Seat]:
        users = uuid.uuid4(), uuid.uuid4()
        async with at_once:
            room = (await fleet.open_room(*users, node=number % size.nodes))["room_id"]
        return [Seat(room, str(user), fleet.token(user), _address(2 * number, size)) for user in users]

    opened = await asyncio.gather(*(open_room(number) for number in range(size.clients // 2)))
    return [seat for seats in opened for seat in seats]


def _address(client: int, size: Size) -> str | None:
    """Other systems than Linux have one address on loopback, unless they are told."""
    if size.one_address or sys.platform != "linux":
        return None
    return str(FIRST_ADDRESS + client // CLIENTS_A_NETWORK)


async def _pair(fleet: Fleet, stack: AsyncExitStack) -> Path:
    users = uuid.uuid4(), uuid.uuid4()
    room = (await fleet.open_room(*users))["room_id"]
    log = fleet.valkey.folder.parent / "pair.txt"
    arguments = (str(_port(fleet, -1)), room, *(fleet.token(user) for user in users), str(log))
    program = (sys.executable, "-m", "tests.storm.pair", *arguments)
    pair = await Child.start(Command("pair", program, log.with_suffix(".log"), folder=ROOT))
    stack.push_async_callback(pair.kill)
    await eventually(lambda: log.exists() and log.stat().st_size, what="the pair signals")
    return log
