"""The PROXY header (v1 and v2) in front of a connection, read with aiosmtpd's parser."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from aiosmtpd.proxy_protocol import V2_CMD, get_proxy

from relay.intake.connection import Hangup, TimedOut, Wire
from relay.intake.policy import Peer, peer_at

_MAX_V1_BYTES = 107
"""The specification's longest line."""


class BadProxyHeader(Exception):
    """What came isn't a PROXY header, or not in time: the connection is closed without a word, as the specification
    wants it."""


async def read_proxied_peer(wire: Wire, peer: Peer, timeout_s: float) -> Peer:
    """The source that the proxy `peer` names; `peer` itself for the proxy's own checks (LOCAL, UNKNOWN).

    Raises BadProxyHeader.
    """
    try:
        header = await get_proxy(_Reader(wire, wire.loop.time() + timeout_s))
    except (Hangup, TimedOut):
        raise BadProxyHeader from None
    if not header.valid:
        raise BadProxyHeader
    source = header.src_addr
    if header.command == V2_CMD.LOCAL or not isinstance(source, IPv4Address | IPv6Address):
        return peer
    return peer_at(str(source), proxied=True)


class _Reader:
    """The three methods of a stream reader that the parser calls, all within one deadline."""

    def __init__(self, wire: Wire, deadline: float) -> None:
        self._wire = wire
        self._deadline = deadline

    async def read(self, n: int = -1) -> bytes:
        return await self._wire.read_raw(n if n > 0 else 1, self._deadline)

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
