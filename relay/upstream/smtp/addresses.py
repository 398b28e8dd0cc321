"""Where an upstream's name leads: looked up now and then, remembered, and connected to the way of RFC 8305.

A name has several addresses, and any of them may be a black hole: an IPv6 address without a way there, one of several
A records. So a connection is begun to the next one when the last didn't come about within `NEXT_AFTER_S`, and the one
that served is tried first the next time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohappyeyeballs import AddrInfoType, start_connection

NEXT_AFTER_S = 0.25
"""RFC 8305 5: the Connection Attempt Delay"""
FRESH_FOR_S = 60.0
AGAIN_AFTER_S = 5.0
"""how long a look-up that failed is not made again while earlier addresses are known"""

LookUp = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]
Peer = tuple[str, int]
"""host and port as `getpeername` has them"""


async def look_up(host: str, port: int) -> Sequence[AddrInfoType]:
    """The system's answer. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Addresses:
    """Those of one upstream, shared by all its lanes in this process. `connected` opens a socket; `served` and `failed`
    tell what became of it."""

    def __init__(self, host: str, port: int, look_up: LookUp = look_up) -> None:
        self._host = host
        self._port = port
        self._look_up = look_up
        self._found: Sequence[AddrInfoType] = ()
        """the last answer that had any: it serves while look-ups fail"""
        self._failure: OSError = socket.gaierror(socket.EAI_NONAME, "name or service not known")
        self._stale_at = 0.0
        """time.monotonic"""
        self._looking: asyncio.Task[None] | None = None
        self._good: Peer | None = None
        self._failed_at: dict[Peer, float] = {}

    async def connected(self) -> socket.socket:
        """A socket to the first address that answers; non-blocking, the caller's to close. Raises OSError."""
        known = await self._known()
        try:
            connection = await start_connection(known, happy_eyeballs_delay=NEXT_AFTER_S, interleave=1)
        except (OSError, RuntimeError) as error:  # RuntimeError is uvloop's
            self._stale_at = 0.0  # it may have moved
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    def served(self, peer: Peer) -> None:
        """A session was opened there."""
        self._good = peer
        self._failed_at.pop(peer, None)

    def failed(self, peer: Peer) -> None:
        """It took the connection and then carried no session: the others are tried before it, the next time."""
        if self._good == peer:
            self._good = None
        self._failed_at[peer] = time.monotonic()

    async def _known(self) -> Sequence[AddrInfoType]:
        """The one that served last first, those that failed last."""
        if not self._found:
            self._found = _numeric(self._host, self._port)
            self._stale_at = float("inf") if self._found else self._stale_at
        if not self._found:
            # Shielded: the caller has a deadline, and the answer is good for the next.
            await asyncio.shield(self._looked_up())
            if not self._found:
                raise self._failure.with_traceback(None)
        elif time.monotonic() >= self._stale_at:
            self._looked_up()
        return sorted(self._found, key=self._rank)

    def _rank(self, address: AddrInfoType) -> tuple[bool, float]:
        peer: Peer = address[4][:2]
        return peer != self._good, self._failed_at.get(peer, 0.0)

    def _looked_up(self) -> asyncio.Task[None]:
        """One look-up at a time; in the background where addresses are known."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name=f"look up {self._host}")
        return self._looking

    async def _look(self) -> None:
        try:
            found = await self._look_up(self._host, self._port)
        except (OSError, UnicodeError) as error:  # UnicodeError: what idna makes of an impossible name
            self._failure = error if isinstance(error, OSError) else self._failure
            found = ()
        if found:
            self._found = found
            peers = {address[4][:2] for address in found}
            self._failed_at = {peer: at for peer, at in self._failed_at.items() if peer in peers}
        self._stale_at = time.monotonic() + (FRESH_FOR_S if found else AGAIN_AFTER_S)


def _numeric(host: str, port: int) -> Sequence[AddrInfoType]:
    """What isn't a name needs no look-up, and no thread for it; empty for a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
