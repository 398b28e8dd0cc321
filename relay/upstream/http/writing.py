"""What leaves by an HTTP connection, and whether all of it has.

A request counts as handed over once nothing of it waits in this process or, unsent, in the kernel: a server that
stopped reading before that can't have taken the mail.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

PIECE_BYTES = 65_536
"""a body is written in such pieces, each once the one before has gone to the kernel"""
UNSENT_BYTES = 16_384
"""the kernel takes more only when no more than this waits to be sent"""
_SIOCOUTQNSD = 0x894B
"""Linux: bytes in the send queue that were never sent"""


class Writing:
    """The writing side of one transport. The protocol passes on `pause` and `resume`."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._drained: asyncio.Future[None] | None = None
        """while the transport holds bytes that the kernel didn't take"""
        self._is_lost = False
        # Not 0: uvloop's TLS transport would pause for an empty buffer, and never resume.
        transport.set_write_buffer_limits(high=1, low=0)
        connection: socket.socket | None = transport.get_extra_info("socket")
        self._connection = connection
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def pause(self) -> None:
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def lost(self) -> None:
        """The connection has gone; what the transport held never left."""
        self._is_lost = True

    async def write(
        self, head: bytes, body: bytes, over: asyncio.Future[None], is_early: Callable[[], bool], deadline: float
    ) -> bool:
        """Write a request. False: the end (`over`), an early answer or the deadline (time.monotonic) came before its
        last piece was written."""
        if len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
            return True
        self._transport.write(head)
        view = memoryview(body)
        for at in range(0, len(body), PIECE_BYTES):
            await self._drain(over, deadline)
            if self._drained is not None or over.done() or is_early():
                return False
            self._transport.write(view[at : at + PIECE_BYTES])
        return True

    async def _drain(self, over: asyncio.Future[None], deadline: float) -> None:
        """Return when the kernel has taken all, or at the deadline."""
        while self._drained is not None and not over.done() and (left_s := deadline - time.monotonic()) > 0:
            await asyncio.wait((self._drained, over), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def has_unsent(self) -> bool:
        """Whether bytes of the request never left this machine."""
        if self._drained is not None:
            return True
        if self._connection is None or self._is_lost:
            return False
        with suppress(OSError, ValueError):
            raw = fcntl.ioctl(self._connection.fileno(), _SIOCOUTQNSD, struct.pack("i", 0))
            return bool(struct.unpack("i", raw)[0])
        return False
