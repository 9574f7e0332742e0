"""A node behind load balancers that speak the PROXY protocol: HAProxy, and ones that are played by the test."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol

from keepline.cli.base.tokens import mint
from keepline.cli.local.process import Command
from keepline.cli.local.program import Program, python
from keepline.room.keys import DEFAULT_PARTITIONS, open_connections, partition_of
from tests.helpers.haproxy import PROGRAM, running_haproxy
from tests.helpers.ports import free_block
from tests.helpers.waiting import eventually

SECRET = "only for this test, and 32 bytes"
FRAME_SECONDS = 10.0
HELLO_SECONDS = 1.0
US, TRUSTED = "127.0.0.1", "127.0.0.2"
HAPROXY = """
defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout check 2s

listen nodes
    bind 127.0.0.1:{port}
    source {TRUSTED}
    server node 127.0.0.1:{node} {how} check inter 100ms
"""


@dataclass
class Node:
    """One node, and what it knows of."""

    port: int
    program: Program
    http: aiohttp.ClientSession
    redis: Any

    async def counts(self, address: str) -> bool:
        """Whether the cluster counts open connections of an address."""
        key = open_connections(partition_of(address, DEFAULT_PARTITIONS), address)
        return bool(await self.redis.exists(key))

    async def failed_handshakes(self) -> float:
        """Connections that are gone and never were WebSockets."""
        async with self.http.get(f"{self.program.ops_url}/metrics") as response:
            found = re.search(r'closed_total\{end="handshake"\} (\S+)', await response.text())
        return float(found[1]) if found else 0.0

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log with that event."""
        lines = (json.loads(line) for line in self.program.command.log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture
async def node(redis_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that trusts one address of loopback and no other."""
    port = free_block(2)
    settings = {
        "REDIS_URL": redis_url,
        "KEEPLINE_HOST": US,
        "KEEPLINE_PORT": str(port),
        "KEEPLINE_OPS_PORT": str(port + 1),
        "KEEPLINE_AUTH_SECRET": SECRET,
        "KEEPLINE_TRUSTED_PROXIES": f"{TRUSTED}/32",
        "KEEPLINE_LIMIT_HELLO_SECONDS": f"{HELLO_SECONDS:g}",
        "KEEPLINE_DRAIN_SECONDS": "0",
        "KEEPLINE_LOG_FORMAT": "json",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEEPLINE_")}
    command = Command(
        "signal-node", python("signal_node"), tmp_path / "node.log", environment={**inherited, **settings}
    )
    program = Program(command, f"http://{US}:{port + 1}")
    async with AsyncExitStack() as stack:
        client: Any = redis.asyncio.from_url(redis_url)
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(program.stop)
        await program.start()
        await program.until_ready()
        timeout = aiohttp.ClientTimeout(total=FRAME_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        yield Node(port, program, http, client)


def socket_from(host: str, port: int, *pieces: bytes) -> socket.socket:
    """A connection from an address of loopback that has sent the pieces, each in a packet of its own."""
    connected = socket.create_connection((US, port), timeout=FRAME_SECONDS, source_address=(host, 0))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        connected.sendall(piece)
    connected.setblocking(False)
    return connected


@asynccontextmanager
async def reached(port: int, sock: socket.socket) -> AsyncIterator[ClientConnection]:
    """Do the handshake on a connection, and say hello."""
    async with connect(
        f"ws://{US}:{port}/v1",
        sock=sock,
        subprotocols=[Subprotocol("keepline.v1")],
        compression=None,
        proxy=None,
        open_timeout=FRAME_SECONDS,
        close_timeout=1.0,
    ) as websocket:
        token = mint(uuid.uuid4(), SECRET, now=time.time(), ttl=3600, environ={})
        await websocket.send(json.dumps({"type": "hello", "token": token}))
        async with asyncio.timeout(FRAME_SECONDS):
            answer = json.loads(await websocket.recv())
        assert answer["type"] == "welcome", answer
        yield websocket


def binary(command: int, kind: int, content: bytes) -> bytes:
    """A header of version 2."""
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", command, kind, len(content)) + content


def text(client: str) -> bytes:
    """A header of version 1."""
    return f"PROXY TCP4 {client} 192.0.2.1 4711 443\r\n".encode()


OF_A_CLIENT = text("198.51.100.7")
IN_BINARY = binary(
    0x21,
    0x21,
    socket.inet_pton(socket.AF_INET6, "2001:db8:1:2::7") + bytes(16) + struct.pack("!HH", 4711, 443),
)
LOCAL = binary(0x20, 0x00, b"")


async def test_a_connection_counts_for_the_address_in_its_header(node: Node) -> None:
    of_another = text("198.51.100.8")
    for pieces, address in (
        ((OF_A_CLIENT,), "198.51.100.7"),
        ((of_another[:9], of_another[9:]), "198.51.100.8"),
        ((IN_BINARY[:5], IN_BINARY[5:20], IN_BINARY[20:]), "2001:db8:1:2::/64"),
    ):
        async with reached(node.port, socket_from(TRUSTED, node.port, *pieces)):
            assert await node.counts(address), pieces
    assert not await node.counts(TRUSTED)
    for header in (b"PROXY UNKNOWN\r\n", LOCAL):
        async with reached(node.port, socket_from(TRUSTED, node.port, header)):
            assert await node.counts(TRUSTED), header


async def test_nobody_else_may_write_a_header(node: Node) -> None:
    with pytest.raises(InvalidHandshake):
        async with reached(node.port, socket_from(US, node.port, OF_A_CLIENT)):
            pass
    assert not await node.counts("198.51.100.7")
    async with reached(node.port, socket_from(US, node.port)):
        assert await node.counts(US)
    assert node.logged("proxy_header_unreadable") == []


async def ends(sock: socket.socket) -> bytes:
    """What comes on a connection until its end; a reset is one."""
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        async with asyncio.timeout(FRAME_SECONDS):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_broken_header_is_cut_off_counted_and_told_of(node: Node) -> None:
    before = await node.failed_handshakes()
    for broken in (b"PROXY TCP4 nobody\r\n", IN_BINARY[:12] + b"\x31" + IN_BINARY[13:], OF_A_CLIENT[:-2] * 3):
        assert await ends(socket_from(TRUSTED, node.port, broken)) == b""
    assert await node.failed_handshakes() == before + 3
    (line,) = node.logged("proxy_header_unreadable")
    assert (line["proxy"], line["level"]) == (TRUSTED, "warning")


async def test_a_header_that_does_not_come_to_its_end_is_not_waited_for(node: Node) -> None:
    began = time.monotonic()
    assert await ends(socket_from(TRUSTED, node.port, OF_A_CLIENT[:20])) == b""
    assert HELLO_SECONDS <= time.monotonic() - began < HELLO_SECONDS + 2.0


@pytest.mark.skipif(PROGRAM is None, reason="no haproxy on PATH")
async def test_behind_haproxy_clients_count_for_themselves(node: Node, tmp_path: Path) -> None:
    port = free_block(1)
    for client, how in (
        ("127.0.0.11", "send-proxy"),
        ("127.0.0.12", "send-proxy-v2"),
        ("127.0.0.13", "send-proxy-v2 check-send-proxy proxy-v2-options unique-id,crc32c"),
    ):
        before = await node.failed_handshakes()
        configuration = HAPROXY.format(port=port, node=node.port, how=how, TRUSTED=TRUSTED)
        async with running_haproxy(configuration, port, tmp_path):
            async with reached(node.port, socket_from(client, port)):
                assert await node.counts(client), how

            async def checked() -> bool:
                return await node.failed_handshakes() > before + 2  # noqa: B023 - awaited in the loop

            await eventually(checked, what="HAProxy has looked after the node")
            async with reached(node.port, socket_from(client, port)):
                assert not await node.counts(TRUSTED)
    assert node.logged("proxy_header_unreadable") == []
