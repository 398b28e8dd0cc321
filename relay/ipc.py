"""The link between two processes of the relay: requests, replies and notifications over a socket pair.

A frame is a length and a packed tuple. `PICKLE` takes any value, and is for processes that trust each other: unpickling
can run any code. `JSON` takes JSON's values, and is for a process that the public reaches.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, cast

_HEADER = struct.Struct(">I")
_REQUEST, _REPLY, _FAILURE, _NOTIFICATION = range(4)
"""kinds of frames"""
_READ_BYTES = 262_144

RequestHandler = Callable[[str, Any], Awaitable[Any]]
NotificationHandler = Callable[[str, Any], None]


class LinkLost(Exception):
    """The peer is gone, or didn't reply in time. Whether it did what was asked is unknown."""


class RemoteError(Exception):
    """The peer's handler failed with an exception that can't be packed. The text is that exception's name."""


Frame = tuple[int, int, str, Any]
"""kind of frame, number of the request, kind of message, value"""


class Packing(Protocol):
    """How a frame becomes bytes."""

    most_bytes: int
    """a longer frame ends the link"""

    def pack(self, frame: Frame) -> bytes: ...

    def unpack(self, packed: memoryview) -> Frame:
        """Raises ValueError, or what the library raises, if it is no frame."""

    def pack_failure(self, number: int, error: Exception) -> bytes:
        """The frame with which a request fails."""


class _Pickle:
    most_bytes = 2**32 - 1

    def pack(self, frame: Frame) -> bytes:
        return pickle.dumps(frame, protocol=5)

    def unpack(self, packed: memoryview) -> Frame:
        return cast(Frame, pickle.loads(packed))  # noqa: S301 - see the module's docstring

    def pack_failure(self, number: int, error: Exception) -> bytes:
        try:
            packed = self.pack((_FAILURE, number, "", error))
            pickle.loads(packed)  # noqa: S301 - our own; some exceptions can be pickled but not unpickled
        except Exception:  # noqa: BLE001 - the request must be answered in any case
            packed = self.pack((_FAILURE, number, "", RemoteError(type(error).__name__)))
        return packed


class Attached(NamedTuple):
    """A value of JSON with bytes beside it, which go over the link as they are."""

    value: Any
    content: bytes


class _Json:
    most_bytes = 8_000_000
    """a webhook's body of 5 MiB, and what goes with it"""

    def pack(self, frame: Frame) -> bytes:
        frame_kind, number, kind, value = frame
        content = b""
        if isinstance(value, Attached):
            value, content = value
        text = json.dumps((frame_kind, number, kind, value), separators=(",", ":")).encode()
        return b"".join((_HEADER.pack(len(text)), text, content))

    def unpack(self, packed: memoryview) -> Frame:
        (length,) = _HEADER.unpack_from(packed)
        end = _HEADER.size + length
        content = bytes(packed[end:])
        match json.loads(bytes(packed[_HEADER.size : end])):
            case [int() as frame, int() as number, str() as kind, value] if _REQUEST <= frame <= _NOTIFICATION:
                if frame == _FAILURE:
                    return frame, number, kind, RemoteError(str(value))
                return frame, number, kind, Attached(value, content) if content else value
        raise ValueError("not a frame")

    def pack_failure(self, number: int, error: Exception) -> bytes:
        return self.pack((_FAILURE, number, "", type(error).__name__))


PICKLE: Packing = _Pickle()
JSON: Packing = _Json()


class Link(asyncio.BufferedProtocol):
    """One end of the link: `ask` sends a request and returns its reply, `notify` expects none."""

    def __init__(
        self,
        on_request: RequestHandler,
        on_notification: NotificationHandler,
        on_lost: Callable[[], None],
        packing: Packing = PICKLE,
    ) -> None:
        """`on_request` serves the peer's requests, each in a task. The peer gets its result or its exception.
        `on_lost` is called once, when the peer is gone."""
        self._on_request = on_request
        self._on_notification = on_notification
        self._on_lost = on_lost
        self._packing = packing
        self._transport: asyncio.Transport | None = None
        self._incoming = bytearray()
        self._buffer = bytearray(_READ_BYTES)
        self._outgoing: list[bytes] = []
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        on_request: RequestHandler,
        on_notification: NotificationHandler,
        on_lost: Callable[[], None],
        packing: Packing = PICKLE,
    ) -> Link:
        """A link over a connected stream socket, which it closes at its end."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        made = cls(on_request, on_notification, on_lost, packing)
        _, link = await loop.create_unix_connection(lambda: made, sock=sock)
        return link

    async def ask(self, kind: str, value: Any = None, *, within_s: float | None = None, heavy: bool = False) -> Any:
        """The peer's reply. `heavy`: pack it on a thread, because its size would block the loop.

        Raises LinkLost, also when no reply comes within `within_s`, or what the peer's handler raised (RemoteError
        where that can't be packed).
        """
        if self._transport is None or self._transport.is_closing():
            raise LinkLost
        self._next += 1
        number = self._next
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = future
        frame = (_REQUEST, number, kind, value)
        # A plain timer: asyncio.timeout takes as long as the classification of a message.
        timer = self._loop.call_later(within_s, _time_out, future) if within_s is not None else None
        try:
            self._send(await asyncio.to_thread(self._packing.pack, frame) if heavy else self._packing.pack(frame))
            return await future
        finally:
            self._pending.pop(number, None)
            if timer is not None:
                timer.cancel()

    def notify(self, kind: str, value: Any = None) -> None:
        """Send a notification. It is dropped when the peer is gone."""
        self._send(self._packing.pack((_NOTIFICATION, 0, kind, value)))

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
        except Exception as error:  # noqa: BLE001 - the stream is out of step: the link ends
            self._failed(error)
            if self._transport is not None:
                self._transport.abort()

    def _read(self, nbytes: int) -> None:
        self._incoming += memoryview(self._buffer)[:nbytes]
        start = 0
        while len(self._incoming) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._incoming, start)
            if size > self._packing.most_bytes:
                raise ValueError("a frame is too long")
            end = start + _HEADER.size + size
            if len(self._incoming) < end:
                break
            with memoryview(self._incoming) as view:
                frame = self._packing.unpack(view[start + _HEADER.size : end])
            start = end
            self._handle(*frame)
        if start:
            del self._incoming[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        for future in self._pending.values():
            if not future.done():
                future.set_exception(LinkLost())
        self._on_lost()

    # frames

    def _handle(self, frame_kind: int, number: int, kind: str, value: Any) -> None:
        if frame_kind == _REQUEST:
            task = asyncio.create_task(self._serve(number, kind, value), name=f"serve {kind}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        if frame_kind == _NOTIFICATION:
            try:
                self._on_notification(kind, value)
            except Exception as error:  # noqa: BLE001 - the peer expects no reply, and more frames follow
                self._failed(error)
            return
        future = self._pending.get(number)
        if future is None or future.done():
            return
        if frame_kind == _REPLY:
            future.set_result(value)
        else:
            future.set_exception(value)

    def _failed(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": "a frame of the other process could not be handled", "exception": error}
        )

    async def _serve(self, number: int, kind: str, value: Any) -> None:
        try:
            packed = self._packing.pack((_REPLY, number, "", await self._on_request(kind, value)))
        except Exception as error:  # noqa: BLE001 - the peer raises it
            packed = self._packing.pack_failure(number, error)
        self._send(packed)

    def _send(self, packed: bytes) -> None:
        """Frames of one iteration of the loop are written together."""
        if self._transport is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += (_HEADER.pack(len(packed)), packed)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(outgoing)


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(LinkLost())
