"""The ports of a cluster on this machine, and the environment of its programs. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

from keepline.cli.base.credentials import Credentials
from keepline.cli.base.errors import UsageError

LOOPBACK = "127.0.0.1"
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
MOST = 50
_BLOCK = 10
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Plan:
    """Ports of `nodes` nodes and `persisters` persisters, in blocks of ten from `port` on.

    Block i: +0 clients of node i, +1 its ops port, +5 ops port of persister i. First block only: +3 demo page, +4 the
    same over TLS, +6 Redis, +7 PostgreSQL. Clients and the demo page listen on `host`, everything else on loopback.
    `lan` is the address of the page over TLS for other machines; None if there is none.
    """

    nodes: int = 2
    persisters: int = 1
    port: int = 8080
    host: str = LOOPBACK
    lan: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MOST or not 0 <= self.persisters <= MOST:
            raise UsageError(f"--nodes must be 1 to {MOST}, --persisters 0 to {MOST}")
        highest = self.port + _BLOCK * max(self.nodes, self.persisters) - 1
        if not self.port >= 1 or highest > _LAST_PORT:
            raise UsageError(f"--port must be 1 to {_LAST_PORT - (highest - self.port)} for that many")

    def node_port(self, index: int) -> int:
        """Port of node `index`, from 0, for clients."""
        return self.port + _BLOCK * index

    def node_ops_port(self, index: int) -> int:
        """Port of node `index`, from 0, for health, metrics and the HTTP API."""
        return self.port + _BLOCK * index + 1

    def persister_ops_port(self, index: int) -> int:
        """Port of persister `index`, from 0, for health and metrics."""
        return self.port + _BLOCK * index + 5

    @property
    def demo_port(self) -> int:
        """Port of the demo page."""
        return self.port + 3

    @property
    def lan_port(self) -> int:
        """Port of the demo page over TLS."""
        return self.port + 4

    @property
    def redis_port(self) -> int:
        """Port of the Redis that is started here."""
        return self.port + 6

    @property
    def postgres_port(self) -> int:
        """Port of the PostgreSQL that is started here."""
        return self.port + 7

    @property
    def own_host(self) -> str:
        """The address of `host` for programs on this machine."""
        return LOOPBACK if self.host in WILDCARDS else self.host

    def node_name(self, index: int) -> str:
        """Name of node `index`, from 0."""
        return f"node-{index + 1}"

    def persister_name(self, index: int) -> str:
        """Name of persister `index`, from 0."""
        return f"persister-{index + 1}"

    def listeners(self, *, redis: bool, postgres: bool) -> list[tuple[str, str, int]]:
        """Every (name, host, port) that the cluster needs, including the servers that are started here."""
        taken = [(self.node_name(i), self.host, self.node_port(i)) for i in range(self.nodes)]
        taken += [(self.node_name(i), LOOPBACK, self.node_ops_port(i)) for i in range(self.nodes)]
        taken += [
            (self.persister_name(i), LOOPBACK, self.persister_ops_port(i)) for i in range(self.persisters)
        ]
        taken += [("the demo page", self.host, self.demo_port)]
        taken += [("the demo page over TLS", self.lan, self.lan_port)] if self.lan else []
        taken += [("redis", LOOPBACK, self.redis_port)] if redis else []
        taken += [("postgres", LOOPBACK, self.postgres_port)] if postgres else []
        return taken


def shared_environment(
    environ: Mapping[str, str], credentials: Credentials, redis_url: str, database_url: str
) -> dict[str, str]:
    """The user's environment, plus what all programs of the cluster need."""
    defaults = {
        # The programs have no clients to wait for, and a developer waits for the prompt.
        "KEEPLINE_DRAIN_SECONDS": "2",
        "KEEPLINE_CREATE_USERS": "true",
    }
    return {
        **environ,
        **_unless_set(defaults, environ),
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "KEEPLINE_OPS_HOST": LOOPBACK,
        "KEEPLINE_AUTH_SECRET": credentials.auth_secret,
        "KEEPLINE_SERVICE_KEY": credentials.service_key,
    }


def node_environment(plan: Plan, index: int, shared: Mapping[str, str]) -> dict[str, str]:
    """Environment of node `index`, from 0."""
    defaults = {
        # The user may open the demo page under any name of this machine.
        "KEEPLINE_ORIGINS": "*",
        # No load balancer has to notice that a node is stopping.
        "KEEPLINE_DRAIN_LINGER_SECONDS": "0",
        # The second user of a demo call needs time: the link has to be sent, read and opened first.
        "KEEPLINE_NO_SHOW_SECONDS": "600",
    }
    return {
        **shared,
        **_unless_set(defaults, shared),
        "KEEPLINE_HOST": plan.host,
        "KEEPLINE_PORT": str(plan.node_port(index)),
        "KEEPLINE_OPS_PORT": str(plan.node_ops_port(index)),
        "KEEPLINE_NODE_ID": plan.node_name(index),
    }


def _unless_set(defaults: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The defaults that the user did not set. Empty counts as not set, as it does for the programs."""
    return {name: value for name, value in defaults.items() if not environ.get(name)}


def persister_environment(plan: Plan, index: int, shared: Mapping[str, str]) -> dict[str, str]:
    """Environment of persister `index`, from 0."""
    return {
        **shared,
        "KEEPLINE_OPS_PORT": str(plan.persister_ops_port(index)),
        "KEEPLINE_WORKER_ID": plan.persister_name(index),
    }
