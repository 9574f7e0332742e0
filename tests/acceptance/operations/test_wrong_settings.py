"""A program with a wrong environment names all that is wrong, and what was expected, before it starts anything."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from tests.helpers.ports import free_block, is_free

STOP_SECONDS = 30.0
INHERITED = {"PATH", "PYTHONPATH", "HOME", "VIRTUAL_ENV", "LANG"}
SECRET = "a secret of the test that nobody should ever see in an error"

# Name, wrong value and what the line about it has to say, besides the name.
WRONG_EVERYWHERE = [
    ("REDIS_URL", f"http://:{SECRET}@127.0.0.1", "redis://"),
    ("DATABASE_URL", f"mysql://root:{SECRET}@127.0.0.1", "postgresql://"),
    ("KEEPLINE_OPS_PORT", "eighty", "integer"),
    ("KEEPLINE_LOG_FORMAT", "xml", "'json' or 'text'"),
    ("KEEPLINE_LOG_LEVEL", "loud", "'debug'"),
    ("KEEPLINE_CREATE_USERS", "perhaps", "boolean"),
    ("KEEPLINE_DRAIN_SECONDS", "-1", "greater than or equal to 0"),
]
WRONG_IN_A_NODE = [
    ("KEEPLINE_PORT", "70000", "65535"),
    ("KEEPLINE_NODE_ID", "node 1", "A-Z"),
    ("KEEPLINE_AUTH_SECRET", SECRET[:31], "at least 32 bytes"),
    ("KEEPLINE_SERVICE_KEY", SECRET[:15], "at least 16 bytes"),
    ("KEEPLINE_JWKS_URL", "keys.json", "https://"),
    ("KEEPLINE_ORIGINS", "https://app.example/path", "without a path"),
    ("KEEPLINE_TRUSTED_PROXIES", "10.0.0.0/8, somewhere", "10.0.0.0/8"),
    ("KEEPLINE_STUN_URLS", "turn:turn.example", "stun:"),
    ("KEEPLINE_TURN_SECRET", SECRET, "KEEPLINE_TURN_URLS: required"),
    ("KEEPLINE_GRACE_SECONDS", "soon", "number"),
    ("KEEPLINE_LIMIT_FRAME_BYTES", "0", "1024"),
    ("KEEPLINE_LIMIT_OUTGOING_BYTES", "1MB", "integer"),
]
WRONG_IN_A_PERSISTER = [
    ("KEEPLINE_WORKER_ID", "worker/1", "A-Z"),
    ("KEEPLINE_BATCH_ENTRIES", "0", "1"),
    ("KEEPLINE_CLAIM_IDLE_SECONDS", "never", "number"),
]

Setting = tuple[str, str, str]


class Surroundings:
    """What a program would talk to or take, if it started: a server that nobody may call, and two ports."""

    def __init__(self, server: asyncio.Server) -> None:
        self.calls = 0
        self.port = free_block(2)
        self._address = "{}:{}".format(*server.sockets[0].getsockname())

    def environment(self) -> dict[str, str]:
        """A good one for either program."""
        return {name: value for name, value in os.environ.items() if name in INHERITED} | {
            "REDIS_URL": f"redis://{self._address}",
            "DATABASE_URL": f"postgresql://{self._address}/keepline",
            "KEEPLINE_AUTH_SECRET": SECRET,
            "KEEPLINE_HOST": "127.0.0.1",
            "KEEPLINE_PORT": str(self.port),
            "KEEPLINE_OPS_PORT": str(self.port + 1),
        }

    @property
    def touched(self) -> bool:
        """Whether the program has called the server or listens."""
        return self.calls > 0 or not (is_free(self.port) and is_free(self.port + 1))


@pytest.fixture
async def around() -> AsyncIterator[Surroundings]:
    def called(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        surroundings.calls += 1
        writer.close()

    async with await asyncio.start_server(called, "127.0.0.1", 0, family=socket.AF_INET) as server:
        surroundings = Surroundings(server)
        yield surroundings


async def refusal_of(program: str, around: Surroundings, changes: dict[str, str]) -> list[str]:
    """The lines that the program leaves on stderr; it exits 2 and has touched nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program),
        env={name: value for name, value in (around.environment() | changes).items() if value},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ended = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(STOP_SECONDS):
            while not ended.done():
                await asyncio.wait([ended], timeout=0.02)
                assert not around.touched, "something was started"
            stdout, stderr = await ended
    finally:
        if process.returncode is None:
            process.kill()
            await ended
    assert (process.returncode, stdout) == (2, b""), stderr.decode()
    assert SECRET[:15] not in stderr.decode()
    return stderr.decode().splitlines()


def about(name: str, lines: list[str]) -> str:
    """The one line about a variable."""
    (line,) = (line for line in lines if line.strip().startswith(f"{name}:"))
    return line


@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        ("signal_node", [*WRONG_EVERYWHERE, *WRONG_IN_A_NODE]),
        ("persister", [*WRONG_EVERYWHERE, *WRONG_IN_A_PERSISTER]),
    ],
    ids=["signal_node", "persister"],
)
async def test_all_wrong_settings_are_named_at_once(
    around: Surroundings, program: str, wrong: list[Setting]
) -> None:
    lines = await refusal_of(program, around, {name: value for name, value, _ in wrong})
    assert lines[0] == f"{len(wrong)} problems in the environment:"
    assert len(lines) == 1 + len(wrong)
    for name, value, expected in wrong:
        line = about(expected.split(":")[0] if expected.startswith("KEEPLINE_") else name, lines)
        assert expected in line
        assert SECRET[:15] in value or "URL" in name or repr(value) in line, "it shows what it got"


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        (
            "signal_node",
            {"REDIS_URL": "REDIS_URL", "KEEPLINE_AUTH_SECRET": "KEEPLINE_AUTH_SECRET or KEEPLINE_JWKS_URL"},
        ),
        ("persister", {"REDIS_URL": "REDIS_URL", "DATABASE_URL": "DATABASE_URL"}),
    ],
    ids=["signal_node", "persister"],
)
async def test_what_is_missing_is_named(around: Surroundings, program: str, missing: dict[str, str]) -> None:
    lines = await refusal_of(program, around, dict.fromkeys(missing, ""))
    assert lines[0] == "2 problems in the environment:"
    for name in missing.values():
        assert "required" in about(name, lines)


async def test_turn_needs_both_its_parts(around: Surroundings) -> None:
    lines = await refusal_of("signal_node", around, {"KEEPLINE_TURN_URLS": "turn:turn.example:3478"})
    assert lines[0] == "1 problem in the environment:"
    assert "required when KEEPLINE_TURN_URLS is set" in about("KEEPLINE_TURN_SECRET", lines)
