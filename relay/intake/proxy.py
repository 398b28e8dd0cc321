"""The PROXY header (v1 and v2) in front of a connection, read with aiosmtpd's parser."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv6Address

from aiosmtpd.proxy_protocol import V2_CMD, get_proxy

from relay.intake.connection import ClientDisconnected, Connection, TimedOut
from relay.intake.peer import Peer, peer_at

# The parser logs the headers that it reads.
logging.getLogger("mail.debug").disabled = True

_MAX_V1_BYTES = 107
"""The specification's longest line."""


class BadProxyHeader(Exception):
    """No PROXY header came, or not in time. The specification wants the connection closed without a reply."""


async def read_proxied_peer(connection: Connection, peer: Peer, timeout_s: float) -> Peer:
    """The client that the proxy `peer` names; `peer` itself for the proxy's own checks (LOCAL, UNKNOWN).

    Raises BadProxyHeader.
    """
    try:
        header = await get_proxy(_Reader(connection, connection.loop.time() + timeout_s))
    except (ClientDisconnected, TimedOut):
        raise BadProxyHeader from None
    if not header.valid:
        raise BadProxyHeader
    source = header.src_addr
    if header.command == V2_CMD.LOCAL or not isinstance(source, IPv4Address | IPv6Address):
        return peer
    return peer_at(str(source), proxied=True)


class _Reader:
    """The three methods of a StreamReader that the parser calls, within one deadline."""

    def __init__(self, connection: Connection, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    async def read(self, n: int = -1) -> bytes:
        return await self._connection.read_bytes(n if n > 0 else 1, self._deadline)

    async def readexactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            data += await self.read(n - len(data))
        return data

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        line = b""
        while not line.endswith(separator) and len(line) <= _MAX_V1_BYTES:
            line += await self.read(1)
        return line
