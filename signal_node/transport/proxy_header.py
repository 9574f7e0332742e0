"""The PROXY protocol header, with which a TCP load balancer reports the client's address.

Sections 2.1 and 2.2 of https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt: one line of text (version 1) or a
binary block (version 2), before the first byte of the client. This module does no I/O. It does not decide whose header
is trusted, either: anyone can send one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

FIRST_BYTES = b"P\r"
"""The first bytes of a header of either version. No WebSocket handshake starts with them."""

MAX_LINE = 107
"""Maximum bytes of a version 1 header, including its end of line, according to the specification."""

MAX_BLOCK = 1_024
"""Maximum bytes of a version 2 header after the first 16. Addresses take at most 216 of them; the rest are extensions
(TLVs), which are skipped. Everything that HAProxy can add, except whole certificates, is about 600 bytes.
"""

_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_VERSION_2, _LOCAL, _PROXY = 2, 0, 1
_STREAM, _DATAGRAM = 1, 2
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}", re.ASCII)
_MAX_PORT = 65_535

_FAMILIES: dict[bytes, type[IPv4Address | IPv6Address]] = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
_BLOCKS: dict[int, tuple[int, type[IPv4Address | IPv6Address] | None]] = {
    0: (0, None),  # unspecified
    1: (12, IPv4Address),
    2: (36, IPv6Address),
    3: (216, None),  # a Unix socket
}
"""By address family of version 2: the size of the two addresses and ports, and the type of the addresses."""


class BadHeader(Exception):
    """The data started like a PROXY header, but is not a valid one."""


@dataclass(frozen=True, slots=True)
class Header:
    """A complete header: its size in bytes, and the IP address of the client.

    `source` is None if the proxy speaks for itself, or for a client without an IP address.
    """

    size: int
    source: str | None = None


NO_HEADER = Header(0)


def read_header(data: bytes) -> Header | None:
    """Parse the header at the start of a connection's data; None while it is incomplete.

    Returns `NO_HEADER` if the data is something else. Raises BadHeader, at the latest when the size limit of its
    version is reached.
    """
    if data.startswith(_LINE):
        return _line(data)
    if data.startswith(_SIGNATURE):
        return _block(data)
    return None if _LINE.startswith(data) or _SIGNATURE.startswith(data) else NO_HEADER


def _line(data: bytes) -> Header | None:
    """Version 1: `PROXY TCP4 192.0.2.1 192.0.2.9 4711 443`, or `PROXY UNKNOWN` and anything, and CRLF."""
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise BadHeader("the line does not end")
        return None
    family, *fields = data[len(_LINE) : end].split(b" ")
    if family == b"UNKNOWN":
        return Header(end + 2)
    if family not in _FAMILIES or len(fields) != 4:
        raise BadHeader("the line is not TCP4, TCP6 or UNKNOWN, or lacks one of its four fields")
    source, _ = (_address(field, _FAMILIES[family]) for field in fields[:2])
    for port in fields[2:]:
        if _PORT.fullmatch(port) is None or int(port) > _MAX_PORT:
            raise BadHeader("a port is not a number from 0 to 65535")
    return Header(end + 2, source)


def _address(text: bytes, family: type[IPv4Address | IPv6Address]) -> str:
    try:
        if b"%" not in text:
            return str(family(text.decode("ascii")))
    except ValueError:
        pass
    raise BadHeader("an address does not belong to the announced family")


def _block(data: bytes) -> Header | None:
    """Version 2: signature, version and command, family and protocol, size of the rest, addresses, extensions."""
    if len(data) < _FIXED:
        return None
    version, command = divmod(data[12], 16)
    if version != _VERSION_2 or command not in (_LOCAL, _PROXY):
        raise BadHeader("the version is not 2, or the command neither LOCAL nor PROXY")
    size = int.from_bytes(data[14:_FIXED], "big")
    if size > MAX_BLOCK:
        raise BadHeader(f"more than {MAX_BLOCK} bytes are announced")
    if len(data) < _FIXED + size:
        return None
    source = None if command == _LOCAL else _source(data[13], data[_FIXED : _FIXED + size])
    return Header(_FIXED + size, source)


def _source(kind: int, block: bytes) -> str | None:
    """The source address of a complete block."""
    family, protocol = divmod(kind, 16)
    if family not in _BLOCKS or protocol > _DATAGRAM:
        raise BadHeader("the family or the protocol is unknown")
    size, address = _BLOCKS[family]
    if len(block) < size:
        raise BadHeader("the block is too short for its addresses")
    if address is None or protocol < _STREAM:
        return None
    return str(address(block[: 4 if address is IPv4Address else 16]))
