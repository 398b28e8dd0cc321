"""The link between the main process and a worker: requests, answers and notices over a socket pair.

Frames are pickled tuples with a length before them. Both ends are the same code of the same version, started by one
of them, over a socket that nobody else can open: what pickle would give a stranger, nobody is given.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, cast

_HEADER = struct.Struct(">I")
_REQUEST, _ANSWER, _FAILURE, _NOTICE = range(4)
_READ_BYTES = 262_144

Answer = Callable[[str, Any], Awaitable[Any]]
Notice = Callable[[str, Any], None]


class LinkLost(Exception):
    """The other process is gone; whether it did what was asked isn't known."""


class Untold(Exception):
    """The other process failed in a way that can't be brought over; the text is that failure's name."""


class Link(asyncio.BufferedProtocol):
    """`ask` and be answered; `tell` without an answer. `lost` is called once, when the other end is gone."""

    def __init__(self, answer: Answer, notice: Notice, lost: Callable[[], None]) -> None:
        """`answer` serves the other end's requests, each in a task; what it raises is raised over there."""
        self._answer = answer
        self._notice = notice
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._incoming = bytearray()
        self._buffer = bytearray(_READ_BYTES)
        self._outgoing: list[bytes] = []
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def over(cls, sock: socket.socket, answer: Answer, notice: Notice, lost: Callable[[], None]) -> Link:
        """Take over a connected stream socket."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        _, link = await loop.create_unix_connection(lambda: cls(answer, notice, lost), sock=sock)
        return link

    async def ask(self, kind: str, value: Any = None, *, within_s: float | None = None, heavy: bool = False) -> Any:
        """The other end's answer. `heavy`: large enough that packing it would hold up the loop. Raises LinkLost (also
        when no answer comes in time), or what the other end raised (Untold, where that can't be packed)."""
        if self._transport is None or self._transport.is_closing():
            raise LinkLost
        self._next += 1
        number = self._next
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = future
        frame = (_REQUEST, number, kind, value)
        # A timer of its own, for asyncio.timeout takes as long as a message's classification.
        timer = self._loop.call_later(within_s, _is_late, future) if within_s is not None else None
        try:
            self._send(await asyncio.to_thread(_packed, frame) if heavy else _packed(frame))
            return await future
        finally:
            self._pending.pop(number, None)
            if timer is not None:
                timer.cancel()

    def tell(self, kind: str, value: Any = None) -> None:
        """Say something that needs no answer; nothing happens when nobody is there."""
        self._send(_packed((_NOTICE, 0, kind, value)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports are asyncio's in all but the class.
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._read(nbytes)
        except Exception as error:  # noqa: BLE001 - what follows can't be read any more; the other end hears that
            self._failed(error)
            if self._transport is not None:
                self._transport.abort()

    def _read(self, nbytes: int) -> None:
        self._incoming += memoryview(self._buffer)[:nbytes]
        start = 0
        while len(self._incoming) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._incoming, start)
            end = start + _HEADER.size + size
            if len(self._incoming) < end:
                break
            with memoryview(self._incoming) as view:
                frame = pickle.loads(view[start + _HEADER.size : end])  # noqa: S301 - see the module's docstring
            start = end
            self._take(*frame)
        if start:
            del self._incoming[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        for future in self._pending.values():
            if not future.done():
                future.set_exception(LinkLost())
        self._lost()

    # frames

    def _take(self, sort: int, number: int, kind: str, value: Any) -> None:
        match sort:
            case 0:
                task = asyncio.create_task(self._serve(number, kind, value), name=f"serve {kind}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case 3:
                try:
                    self._notice(kind, value)
                except Exception as error:  # noqa: BLE001 - nothing waits for it over there, and more comes behind it
                    self._failed(error)
            case _:
                future = self._pending.get(number)
                if future is not None and not future.done():
                    if sort == _ANSWER:
                        future.set_result(value)
                    else:
                        future.set_exception(value)

    def _failed(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a link's reading failed", "exception": error})

    async def _serve(self, number: int, kind: str, value: Any) -> None:
        try:
            packed = _packed((_ANSWER, number, "", await self._answer(kind, value)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the asker's to handle
            packed = _failure(number, error)
        self._send(packed)

    def _send(self, packed: bytes) -> None:
        """What is said within one turn of the loop leaves together."""
        if self._transport is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += (_HEADER.pack(len(packed)), packed)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(outgoing)


def _is_late(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(LinkLost())


def _failure(number: int, error: Exception) -> bytes:
    try:
        packed = _packed((_FAILURE, number, "", error))
        pickle.loads(packed)  # noqa: S301 - our own; many exceptions can be packed and not unpacked
    except Exception:  # noqa: BLE001 - whoever asked must hear something
        packed = _packed((_FAILURE, number, "", Untold(type(error).__name__)))
    return packed


def _packed(frame: tuple[int, int, str, Any]) -> bytes:
    return pickle.dumps(frame, protocol=5)
