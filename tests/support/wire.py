"""An accepted connection as bytes with arrival times: read up to a mark, write, close, reset, secure."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

SO_ATTACH_FILTER = 26
"""linux/socket.h"""
BPF_RET_K = 6
"""linux/filter.h"""


class Lost(Exception):
    """The peer left, or we ended the connection."""


class Wire(asyncio.Protocol):
    """One accepted connection; `serve(self)` runs as its task."""

    def __init__(
        self,
        serve: Callable[[Wire], Coroutine[Any, Any, None]],
        tasks: set[asyncio.Task[None]],
        *,
        held: bool = False,
    ) -> None:
        """`held`: begins without reading, for a handshake that comes first."""
        self._serve = serve
        self._held = held
        self._tasks = tasks
        self._buffer = bytearray()
        self._taken = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        self._moved = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self.transport is None:
            task = asyncio.get_running_loop().create_task(self._serve(self), name="upstream session")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.transport = transport
        if self._held:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrivals.append((self._taken + len(self._buffer), asyncio.get_running_loop().time()))
        self._moved.set()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._moved.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read_until(self, mark: bytes, within_s: float | None = None) -> tuple[bytes, float]:
        """The bytes up to and with `mark`, and when its last byte came. Raises Lost; TimeoutError after
        `within_s` in which nothing at all came."""
        searched = 0
        while (at := self._buffer.find(mark, max(0, searched - len(mark) + 1))) < 0:
            searched = len(self._buffer)
            await self._more(within_s)
        return self._take(at + len(mark))

    async def read_exactly(self, size: int) -> tuple[bytes, float]:
        while len(self._buffer) < size:
            await self._more(None)
        return self._take(size)

    async def until_lost(self) -> None:
        """Swallow what comes until the peer leaves."""
        self.release()
        while not self._ended:
            self._take(len(self._buffer))
            self._moved.clear()
            await self._moved.wait()

    async def _more(self, within_s: float | None) -> None:
        if self._ended:
            raise Lost
        self._moved.clear()
        async with asyncio.timeout(within_s):
            await self._moved.wait()

    def _take(self, size: int) -> tuple[bytes, float]:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._taken += size
        while len(self._arrivals) > 1 and self._arrivals[0][0] < self._taken:
            self._arrivals.popleft()
        at = self._arrivals[0][1] if self._arrivals else asyncio.get_running_loop().time()
        return data, at

    async def write(self, data: bytes) -> None:
        if self._ended or self.transport is None:
            raise Lost
        self.transport.write(data)
        await self._writable.wait()

    def write_now(self, data: bytes) -> None:
        if not self._ended and self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """RST instead of FIN: what the peer had not read yet is lost to it."""
        if self.transport is None or self._ended:
            return
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def swallow(self) -> None:
        """From now on the network loses what the peer sends: it gets neither ACK nor RST. Linux only."""
        sock: socket.socket | None = self.transport.get_extra_info("socket") if self.transport else None
        assert sock is not None
        # A BPF program of one instruction that takes 0 bytes of each packet, before TCP sees it.
        program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET_K, 0, 0, 0))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))

    def hold(self) -> None:
        """Leave what comes next to the handshake."""
        if self.transport is not None:
            self.transport.pause_reading()

    def release(self) -> None:
        """Read on: there is no handshake after all."""
        if self.transport is not None and not self._ended:
            self.transport.resume_reading()

    def put_back(self, data: bytes) -> None:
        """Undo a read."""
        self._buffer[:0] = data
        self._taken -= len(data)

    async def secure(self, context: ssl.SSLContext) -> None:
        """TLS from here on. What came in clear behind the STARTTLS is dropped (RFC 3207 4.2). Raises Lost."""
        assert self.transport is not None
        self._buffer.clear()
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(self.transport, self, context, server_side=True, ssl_handshake_timeout=10.0)
        except (ssl.SSLError, OSError, EOFError) as exc:
            raise Lost from exc
        if secured is None:  # the peer left just then
            raise Lost
        assert isinstance(secured, asyncio.Transport)
        self.transport = secured
