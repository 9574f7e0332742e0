"""PROXY headers: what each version says, where they end, and that nothing else gets through."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signal_node.transport.proxy_header import (
    FIRST_BYTES,
    MAX_BLOCK,
    MAX_LINE,
    NO_HEADER,
    BadHeader,
    Header,
    read_header,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
TCP4, UDP4, TCP6, UNIX = 0x11, 0x12, 0x21, 0x31
REQUEST = b"GET /v1 HTTP/1.1\r\n"
CLIENT_4, CLIENT_6 = "198.51.100.7", "2001:db8:1:2::7"
BEGINNINGS = (
    b"PROXY ",
    b"PROXY TCP4 ",
    b"PROXY TCP6 ",
    b"PROXY UNKNOWN ",
    SIGNATURE,
    SIGNATURE + b"\x21\x11",
)


def block(command: int, kind: int, content: bytes, size: int | None = None) -> bytes:
    """A header of version 2; `size` is what it says of its content, if that is not true."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(content) if size is None else size) + content


def packed(client: str) -> bytes:
    """A client's address, one of ours, and their ports."""
    source = ipaddress.ip_address(client)
    return source.packed + bytes(len(source.packed)) + struct.pack("!HH", 4711, 443)


HEADERS = {
    "text, IPv4": (b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\r\n", CLIENT_4),
    "text, IPv6": (b"PROXY TCP6 2001:db8:1:2::7 2001:DB8::1 65535 0\r\n", CLIENT_6),
    "text, unknown": (b"PROXY UNKNOWN\r\n", None),
    "text, unknown with more": (b"PROXY UNKNOWN \xff ffff: 65535 65535\r\n", None),
    "text, the longest": (b"PROXY UNKNOWN".ljust(MAX_LINE - 2) + b"\r\n", None),
    "binary, IPv4": (block(PROXY, TCP4, packed(CLIENT_4)), CLIENT_4),
    "binary, IPv6": (block(PROXY, TCP6, packed(CLIENT_6)), CLIENT_6),
    "binary, a datagram": (block(PROXY, UDP4, packed(CLIENT_4)), CLIENT_4),
    "binary, extensions": (block(PROXY, TCP4, packed(CLIENT_4) + b"\x04\x00\x02\r\n"), CLIENT_4),
    "binary, the longest": (block(PROXY, TCP4, packed(CLIENT_4).ljust(MAX_BLOCK, b"\0")), CLIENT_4),
    "binary, a Unix socket": (block(PROXY, UNIX, bytes(216)), None),
    "binary, unspecified": (block(PROXY, 0x00, b"whatever"), None),
    "binary, unspecified protocol": (block(PROXY, 0x10, packed(CLIENT_4)), None),
    "binary, local": (block(LOCAL, 0x00, b""), None),
    "binary, local with a block to be ignored": (block(LOCAL, 0xFF, b"\1\2\3"), None),
}

BROKEN = {
    "a line without an end": b"PROXY UNKNOWN".ljust(MAX_LINE),
    "an end a byte too late": b"PROXY UNKNOWN".ljust(MAX_LINE - 1) + b"\r\n",
    "an end without CR": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2\n".ljust(MAX_LINE),
    "no family": b"PROXY \r\n",
    "another family": b"PROXY TCP5 198.51.100.7 192.0.2.1 1 2\r\n",
    "small letters": b"PROXY tcp4 198.51.100.7 192.0.2.1 1 2\r\n",
    "too few fields": b"PROXY TCP4 198.51.100.7 192.0.2.1 1\r\n",
    "too many fields": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 2 3\r\n",
    "two spaces": b"PROXY TCP4  198.51.100.7 192.0.2.1 1 2\r\n",
    "an address of the other family": b"PROXY TCP4 2001:db8::7 192.0.2.1 1 2\r\n",
    "a destination of the other family": b"PROXY TCP6 2001:db8::7 192.0.2.1 1 2\r\n",
    "an octet too much": b"PROXY TCP4 198.51.100.7.1 192.0.2.1 1 2\r\n",
    "a leading zero": b"PROXY TCP4 198.51.100.07 192.0.2.1 1 2\r\n",
    "a scope": b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
    "a name": b"PROXY TCP4 client.example 192.0.2.1 1 2\r\n",
    "letters of another script": "PROXY TCP4 198.51.100.٧ 192.0.2.1 1 2\r\n".encode(),
    "a port too high": b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 2\r\n",
    "a negative port": b"PROXY TCP4 198.51.100.7 192.0.2.1 -1 2\r\n",
    "a port with a zero before": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 02\r\n",
    "version 1 in binary": block(0x11, TCP4, packed(CLIENT_4)),
    "version 3": block(0x31, TCP4, packed(CLIENT_4)),
    "an unknown command": block(0x22, TCP4, packed(CLIENT_4)),
    "an unknown family": block(PROXY, 0x41, packed(CLIENT_4)),
    "an unknown protocol": block(PROXY, 0x13, packed(CLIENT_4)),
    "a block too short for IPv4": block(PROXY, TCP4, packed(CLIENT_4)[:-1]),
    "a block too short for IPv6": block(PROXY, TCP6, packed(CLIENT_4)),
    "a block too short for a Unix socket": block(PROXY, UNIX, bytes(215)),
    "a block that is too long": block(PROXY, TCP4, b"", MAX_BLOCK + 1),
}

each = pytest.mark.parametrize


@each(("header", "source"), HEADERS.values(), ids=HEADERS)
def test_a_header_names_the_client_and_ends_where_the_request_begins(
    header: bytes, source: str | None
) -> None:
    assert read_header(header + REQUEST) == Header(len(header), source)
    assert read_header(header) == Header(len(header), source)


@each("header", [header for header, _ in HEADERS.values()], ids=HEADERS)
def test_a_header_that_is_not_whole_is_waited_for(header: bytes) -> None:
    assert {read_header(header[:end]) for end in range(len(header))} == {None}


@each("header", BROKEN.values(), ids=BROKEN)
def test_what_begins_like_a_header_and_is_none(header: bytes) -> None:
    with pytest.raises(BadHeader):
        read_header(header + REQUEST)


@each("data", [REQUEST, b"POST / HTTP/1.1\r\n", b"PROXY\r\n", b"PROXYTCP4", b"\r\n\r\n\r\n", b"\x16\x03\x01"])
def test_what_does_not_begin_like_a_header(data: bytes) -> None:
    assert read_header(data) is NO_HEADER


def test_no_handshake_begins_like_a_header() -> None:
    assert REQUEST[:1] not in FIRST_BYTES
    assert all(header[:1] in FIRST_BYTES for header, _ in HEADERS.values())


@given(st.one_of(st.binary(max_size=300), st.builds(bytes.__add__, st.sampled_from(BEGINNINGS), st.binary())))
@example(b"")
def test_garbage_has_no_answer_but_the_four(data: bytes) -> None:
    """More bytes never change an answer: whatever comes in pieces is understood as if it came at once."""
    decided: Header | BadHeader | None = None
    for end in range(1, len(data) + 1):
        try:
            found: Header | BadHeader | None = read_header(data[:end])
        except BadHeader as bad:
            found = bad
        if decided is None:
            decided = found
        elif isinstance(decided, Header):
            assert found == decided
        else:
            assert str(found) == str(decided)
    if decided is None:
        assert len(data) < 16 + MAX_BLOCK
    elif isinstance(decided, Header):
        assert decided.size <= len(data)
        assert decided.source is None or str(ipaddress.ip_address(decided.source)) == decided.source


@given(st.ip_addresses(), st.binary(max_size=MAX_BLOCK - 36))
def test_every_address_is_read_back(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, extensions: bytes
) -> None:
    kind = TCP4 if client.version == 4 else TCP6
    text = f"PROXY TCP{client.version} {client} {client} 1 2\r\n".encode()
    binary = block(PROXY, kind, packed(str(client)) + extensions)
    assert read_header(text) == Header(len(text), str(client))
    assert read_header(binary) == Header(len(binary), str(client))
