"""Where clients come in, and where operators' commands find a node."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keepline.ops.settings import NodeSettings, SettingsError, load
from keepline.ops.tls import Certificate
from signal_node.transport.listener import RECEIVE_BYTES, Door, Listener
from signal_node.wiring.settings import advertised
from tests.helpers.certificates import self_signed
from tests.helpers.waiting import eventually

NODE = {"REDIS_URL": "redis://localhost", "KEEPLINE_AUTH_SECRET": "s" * 32}


def settings(**environ: str) -> NodeSettings:
    return load(NodeSettings, NODE | environ)


def resolving(addresses: dict[int, str]) -> Any:
    """A look-up of the own name that knows these addresses, by family."""

    def getaddrinfo(host: str, port: None, family: int) -> Any:
        if family not in addresses:
            raise OSError("no such host")
        return [(family, 1, 6, "", (addresses[family], 0))]

    return getaddrinfo


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:9000"),
        ({"KEEPLINE_OPS_HOST": "10.0.0.7"}, "http://10.0.0.7:9000"),
        ({"KEEPLINE_OPS_HOST": "::1"}, "http://[::1]:9000"),
        ({"KEEPLINE_OPS_HOST": "0.0.0.0"}, "http://172.20.0.5:9000"),
        ({"KEEPLINE_OPS_HOST": "::"}, "http://[fd00::5]:9000"),
        ({"KEEPLINE_OPS_ADVERTISE": "node-1.internal"}, "http://node-1.internal:9000"),
        ({"KEEPLINE_OPS_ADVERTISE": "node-1.internal:81"}, "http://node-1.internal:81"),
        ({"KEEPLINE_OPS_ADVERTISE": "[fd00::7]:81"}, "http://[fd00::7]:81"),
    ],
)
def test_where_the_ops_port_is(environ: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", resolving({socket.AF_INET: "172.20.0.5", socket.AF_INET6: "fd00::5"})
    )
    assert advertised(settings(**environ), 9000) == url


def test_a_host_that_does_not_know_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving({}))
    assert advertised(settings(KEEPLINE_OPS_HOST="0.0.0.0"), 9000) == "http://127.0.0.1:9000"
    assert advertised(settings(KEEPLINE_OPS_HOST="::"), 9000) == "http://[::1]:9000"


def test_a_host_that_has_only_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving({socket.AF_INET6: "fd00::7"}))
    assert advertised(settings(KEEPLINE_OPS_HOST="::"), 9000) == "http://[fd00::7]:9000"
    assert advertised(settings(), 9000, "::1") == "http://[::1]:9000", "it was bound in place of 127.0.0.1"


@pytest.mark.parametrize("address", ["http://host", "host/path", "host:many", "host:0", "user@host", ":81"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(SettingsError, match="KEEPLINE_OPS_ADVERTISE: should be a host"):
        settings(KEEPLINE_OPS_ADVERTISE=address)


# --- real sockets ---


class Sink(asyncio.Protocol):
    """Notes that it was made, and lost."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.notes.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.notes.append("lost")


def address_of(listener: Listener) -> tuple[str, int]:
    host, _, port = listener.addresses[0].rpartition(":")
    return host, int(port)


async def test_who_is_not_admitted_gets_no_protocol() -> None:
    notes: list[str] = []
    asked: list[str | None] = []

    def admits(host: str | None) -> bool:
        asked.append(host)
        return len(asked) < 2

    listener = Listener(lambda host: Sink(notes), "127.0.0.1", 0, Door(admits))
    await listener.open()
    try:
        first = await asyncio.open_connection(*address_of(listener))
        second = await asyncio.open_connection(*address_of(listener))
        assert await second[0].read() == b""
        assert asked == ["127.0.0.1"] * 2
        assert notes == ["made"]
        for _, writer in (first, second):
            writer.close()
        await eventually(lambda: notes == ["made", "lost"])
    finally:
        listener.close()


async def test_what_the_system_keeps_of_a_connection_does_not_grow() -> None:
    kept: list[int] = []

    class Measured(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            kept.append(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))

    listener = Listener(lambda host: Measured(), "127.0.0.1", 0)
    await listener.open()
    try:
        _, writer = await asyncio.open_connection(*address_of(listener))
        await eventually(lambda: kept)
        writer.close()
    finally:
        listener.close()
    assert kept == [2 * RECEIVE_BYTES], "Linux doubles what it is told; what it is not told grows"


async def test_without_descriptors_whoever_waits_is_accepted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    listener = Listener(lambda host: Sink(notes), "127.0.0.1", 0)
    await listener.open()
    accept = socket.socket.accept

    def short(self: socket.socket) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", short)
    clients = [socket.socket() for _ in range(2)]
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex(address_of(listener))
        await eventually(lambda: listener.short > 1)
        assert notes == []
        monkeypatch.setattr(socket.socket, "accept", accept)
        await eventually(lambda: notes == ["made", "made"])
    finally:
        for client in clients:
            client.close()
        listener.close()


# --- TLS ---


async def certificate_of(address: tuple[str, int], trusted: bytes) -> bytes:
    """The certificate that a client gets who trusts `trusted`; raises SSLError for any other."""
    context = ssl.create_default_context(cadata=trusted.decode().partition("-----BEGIN PRIVATE")[0])
    _, writer = await asyncio.open_connection(*address, ssl=context)
    try:
        presented = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(presented, bytes)
        return presented
    finally:
        writer.transport.abort()


async def test_a_renewed_certificate_is_for_those_who_come_then(tmp_path: Path) -> None:
    notes: list[str] = []
    file = tmp_path / "node.pem"
    first, second = self_signed("127.0.0.1"), self_signed("127.0.0.1")
    file.write_bytes(first)
    certificate = Certificate(file, None)
    listener = Listener(lambda host: Sink(notes), "127.0.0.1", 0, tls=certificate.context)
    await listener.open()
    try:
        before = await certificate_of(address_of(listener), first)
        file.write_bytes(second)
        assert await certificate_of(address_of(listener), first) == before, "not before it is told to"
        assert certificate.reload()
        assert await certificate_of(address_of(listener), second) != before
        file.write_bytes(second[: len(second) // 2])
        assert not certificate.reload()
        assert await certificate_of(address_of(listener), second) != before, "half a file changes nothing"
    finally:
        listener.close()


async def test_who_speaks_no_tls_is_gone_and_counted_no_more(tmp_path: Path) -> None:
    notes: list[str] = []
    file = tmp_path / "node.pem"
    file.write_bytes(self_signed("127.0.0.1"))
    listener = Listener(lambda host: Sink(notes), "127.0.0.1", 0, tls=Certificate(file, None).context)
    await listener.open()
    try:
        reader, writer = await asyncio.open_connection(*address_of(listener))
        writer.write(b"GET /v1 HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                await reader.read()
        await eventually(lambda: notes[-1:] == ["lost"])
        writer.close()
    finally:
        listener.close()
