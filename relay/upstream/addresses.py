"""Resolves an upstream's name, caches the answer, and connects as RFC 8305 (Happy Eyeballs) asks.

A name has several addresses, and any of them may be unreachable. So the next one is tried when no connection was made
within `NEXT_AFTER_S`, and the address that served last is tried first.
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
"""pause after a look-up that failed, while earlier addresses are known"""

LookUp = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]
Peer = tuple[str, int]
"""host and port as `getpeername` has them"""


async def look_up(host: str, port: int) -> Sequence[AddrInfoType]:
    """The system resolver's answer. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Addresses:
    """The addresses of one upstream, shared by all its lanes in this process. `connected` opens a socket; call `served`
    or `failed` with what became of it."""

    def __init__(self, host: str, port: int, look_up: LookUp = look_up) -> None:
        self._host = host
        self._port = port
        self._look_up = look_up
        self._found: Sequence[AddrInfoType] = ()
        """the last answer that had addresses: it is used while look-ups fail"""
        self._failure: OSError = socket.gaierror(socket.EAI_NONAME, "name or service not known")
        self._stale_at = 0.0
        """time.monotonic"""
        self._looking: asyncio.Task[None] | None = None
        self._good: Peer | None = None
        self._failed_at: dict[Peer, float] = {}

    async def connected(self) -> socket.socket:
        """A non-blocking socket to the first address that answers; the caller closes it. Raises OSError."""
        known = await self._known()
        try:
            connection = await start_connection(known, happy_eyeballs_delay=NEXT_AFTER_S, interleave=1)
        except (OSError, RuntimeError) as error:  # RuntimeError is uvloop's
            self._stale_at = 0.0  # the host may have moved
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    def served(self, peer: Peer) -> None:
        """A session was opened to this address."""
        self._good = peer
        self._failed_at.pop(peer, None)

    def failed(self, peer: Peer) -> None:
        """The address accepted the connection, but no session was opened: the others are tried before it next time."""
        if self._good == peer:
            self._good = None
        self._failed_at[peer] = time.monotonic()

    async def _known(self) -> Sequence[AddrInfoType]:
        """The address that served last first, those that failed last."""
        if not self._found:
            self._found = _numeric(self._host, self._port)
            self._stale_at = float("inf") if self._found else self._stale_at
        if not self._found:
            # Shielded: the caller has a deadline, and the answer is useful to the next caller.
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
        """The look-up under way, or a new one."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name=f"look up {self._host}")
        return self._looking

    async def _look(self) -> None:
        try:
            found = await self._look_up(self._host, self._port)
        except (OSError, UnicodeError) as error:  # UnicodeError: idna, for an impossible name
            self._failure = error if isinstance(error, OSError) else self._failure
            found = ()
        if found:
            self._found = found
            peers = {address[4][:2] for address in found}
            self._failed_at = {peer: at for peer, at in self._failed_at.items() if peer in peers}
        self._stale_at = time.monotonic() + (FRESH_FOR_S if found else AGAIN_AFTER_S)


def _numeric(host: str, port: int) -> Sequence[AddrInfoType]:
    """The answer for a numeric address, without a look-up and its thread; empty for a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
