"""Redis and PostgreSQL for a cluster on this machine: started here or set by the user."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from keepline.cli.base.errors import CommandError
from keepline.cli.local.layout import Plan
from keepline.cli.local.postgres import Postgres, connect_once
from keepline.cli.local.servers import Server, Valkey, ping
from keepline.cli.local.supervisor import Supervisor
from keepline.ops.postgres import ERRORS, in_words

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Backends:
    """URLs of the servers, and those that were started here."""

    redis_url: str
    valkey: Valkey | None
    database_url: str
    postgres: Postgres | None

    def describe(self) -> dict[str, Any]:
        """Their part of the output of `--json`."""
        return {
            "redis": {"url": self.redis_url, "pid": self.valkey and self.valkey.pid},
            "postgres": {"url": self.database_url, "pid": self.postgres and self.postgres.pid},
        }


async def start_backends(
    plan: Plan, data: Path, environ: Mapping[str, str], supervisor: Supervisor, say: Say
) -> Backends:
    """Start the servers that `environ` does not set. Raises CommandError if one that it sets does not answer."""
    redis_url, database_url = environ.get("REDIS_URL"), environ.get("DATABASE_URL")
    valkey = postgres = None
    if redis_url:
        await _require("REDIS_URL", ping(redis_url))
    else:
        say("starting Redis")
        valkey = Valkey(data / "redis", port=plan.redis_port, log=data / "logs" / "redis.log")
        redis_url = await _run(valkey, supervisor)
    if database_url:
        await _require("DATABASE_URL", connect_once(database_url))
    else:
        say("starting PostgreSQL")
        postgres = Postgres(data / "postgres", port=plan.postgres_port, log=data / "logs" / "postgres.log")
        database_url = await _run(postgres, supervisor)
    return Backends(redis_url, valkey, database_url, postgres)


async def _run(server: Server, supervisor: Supervisor) -> str:
    await supervisor.start(server)
    supervisor.watch(server)
    return server.url


async def _require(variable: str, attempt: Awaitable[None]) -> None:
    try:
        await attempt
    except (ValueError, RedisError, *ERRORS) as error:
        problem = in_words(error)
        raise CommandError(
            f"the server of {variable} does not answer ({problem}): "
            f"start it, or unset {variable} to let keepline up start one"
        ) from None
