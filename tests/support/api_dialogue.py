"""One connection of the scripted HTTP server: reads its requests strictly, and does to each what the script says."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import select
import socket
import traceback
from collections.abc import Callable
from typing import assert_never

import h11

from tests.support.api_script import (
    Action,
    Answer,
    AtHead,
    Bomb,
    CloseAfter,
    CloseBefore,
    CloseWhileReading,
    Early,
    Endless,
    Hang,
    IdleClose,
    Raw,
    Redirect,
    Reply,
    Request,
    Reset,
    Slow,
    StopReading,
    Taken,
    WhileReading,
    encode_head,
    gzip_bomb,
)
from tests.support.wire import Wire

MAX_HEAD_BYTES = 65_536
LINGER_S = 1.0
"""how long a client may go on sending behind an answer that ends the connection"""
HAS_CONTENT = frozenset({"POST", "PUT", "PATCH"})
"""Methods that need a Content-Length, even of 0 (RFC 9110 8.6)."""
NOT_STRICT = re.compile(rb"(?<!\r)\n|\r(?!\n)|\r\n[ \t]")
"""A bare LF or CR, or a folded field: h11 reads them, a client must not send them (RFC 9112 2.2, 5.2)."""


class BadRequest(Exception):
    """The client's request is no good HTTP/1.1."""


class HttpWire(Wire):
    """A connection that is read as its bytes come."""

    async def read(self) -> bytes:
        """What came, at least a byte. Raises Lost."""
        while not self._buffer:
            await self._more(None)
        return self._take(len(self._buffer))[0]

    async def comes_within(self, seconds: float) -> bool:
        """Whether a byte comes so soon. Raises Lost."""
        try:
            while not self._buffer:
                await self._more(seconds)
        except TimeoutError:
            return False
        return True

    async def lost_within(self, seconds: float) -> None:
        """Until the peer leaves, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.until_lost()

    @property
    def has_unread(self) -> bool:
        return bool(self._buffer)

    @property
    def arrived_at(self) -> float:
        """When the oldest bytes came that aren't read, or else the last that were."""
        times = [at for end, at in self._arrivals if end > self._taken] or [at for _, at in self._arrivals][-1:]
        return times[0] if times else asyncio.get_running_loop().time()

    async def until_gone(self) -> None:
        """Read nothing, until the peer has ended the connection. Linux only."""
        self.hold()
        sock: socket.socket | None = self.transport.get_extra_info("socket") if self.transport else None
        if sock is None or sock.fileno() < 0:
            return
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        while not poll.poll(0):
            await asyncio.sleep(0.02)


class RequestReader:
    """One request while it comes in."""

    def __init__(self, wire: HttpWire, connection: int) -> None:
        self._wire = wire
        self._connection = connection
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head: h11.Request | None = None
        self._raw = b""
        self._body = bytearray()
        self._first = self._last = 0.0
        self._whole = False

    @property
    def has_begun(self) -> bool:
        """Whether the head is there."""
        return self._head is not None

    @property
    def wants_close(self) -> bool:
        return any(one.strip().lower() == "close" for v in self.request.values("connection") for one in v.split(","))

    @property
    def request(self) -> Request:
        """What is there of it."""
        assert self._head is not None
        return Request(
            self._head.method.decode("ascii"),
            self._head.target.decode("ascii"),
            [(name.decode("ascii"), value.decode("latin-1")) for name, value in self._head.headers],
            bytes(self._body),
            self._connection,
            self._first,
            self._last,
            self._whole,
        )

    async def read_head(self) -> Request:
        """Raises BadRequest and Lost."""
        event = await self._next()
        assert isinstance(event, h11.Request)
        self._head = event
        if NOT_STRICT.search(self._raw.partition(b"\r\n\r\n")[0]):
            raise BadRequest("a bare CR or LF, or a folded field")
        if event.http_version != b"1.1":
            raise BadRequest("not HTTP/1.1")
        request = self.request
        if request.values("transfer-encoding"):
            raise BadRequest("a chunked body")
        if request.values("expect"):
            raise BadRequest("Expect")
        if request.method in HAS_CONTENT and not request.values("content-length"):
            raise BadRequest("no Content-Length")
        return request

    async def read_body(self, most: int | None = None) -> Request:
        """All of it, or what there is once `most` bytes came. Raises BadRequest and Lost."""
        while not self._whole and (most is None or len(self._body) < most):
            match await self._next():
                case h11.Data(data=data):
                    self._body += data
                case h11.EndOfMessage():
                    self._whole = True
        return self.request

    def check_nothing_behind(self) -> None:
        """Nothing may follow before the answer. Raises BadRequest."""
        if self._wire.has_unread or self._parser.trailing_data[0]:
            raise BadRequest("a pipelined request")

    async def _next(self) -> h11.Event:
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                if not self.has_begun and self._wire.has_unread and not self._raw:
                    self._first = self._wire.arrived_at
                data = await self._wire.read()
                self._last = self._wire.arrived_at
                if not self.has_begun:
                    self._first = self._first or self._last
                    self._raw += data
                self._parser.receive_data(data)
        except h11.RemoteProtocolError as exc:
            raise BadRequest(str(exc)) from exc
        assert not isinstance(event, type)
        return event


class ApiDialogue:
    """Reads and answers one connection's requests until it ends."""

    def __init__(
        self,
        wire: HttpWire,
        connection: int,
        choose: Callable[[], Answer],
        at_head: AtHead | None,
        noted: Callable[[Request], None],
        fault: Callable[[str], None],
    ) -> None:
        """`choose`: the answer to the next request. `noted`: told of each request. `fault`: told of what is wrong."""
        self._wire = wire
        self._connection = connection
        self._choose = choose
        self._at_head = at_head
        self._noted = noted
        self._fault = fault

    async def run(self) -> None:
        """Raises Lost."""
        try:
            while await self._exchange():
                pass
        except BadRequest as exc:
            self._fault(f"connection {self._connection}: {exc}")
            await self._wire.write(Reply(400, {"message": str(exc)}).encode(close=True))
            # What the client still sends is dropped for a while: an RST would destroy the answer.
            await self._wire.lost_within(LINGER_S)

    async def _exchange(self) -> bool:
        """One request and its answer; whether the connection is kept."""
        reader = RequestReader(self._wire, self._connection)
        head = await reader.read_head()
        answer: Answer | None = self._at_head(head) if self._at_head is not None else None
        if answer is None:
            answer = self._choose()
        try:
            if isinstance(answer, StopReading | CloseWhileReading):
                await reader.read_body(answer.after_bytes)
            elif not isinstance(answer, Early):
                await reader.read_body()
        finally:
            self._noted(reader.request)
        if isinstance(answer, StopReading | CloseWhileReading | Early):
            await self._cut_short(answer, reader)
            return False
        action = await self._resolve(answer, reader.request)
        reader.check_nothing_behind()
        return await self._perform(action, keep=not reader.wants_close)

    async def _cut_short(self, action: WhileReading, reader: RequestReader) -> None:
        match action:
            case StopReading():
                await self._wire.until_gone()
            case CloseWhileReading():
                self._wire.hold()
                self._wire.close()
            case Early(status, body, reads_on):
                await self._wire.write(Reply(status, body).encode(close=True))
                if reads_on:
                    await reader.read_body()
                else:
                    self._wire.hold()
            case _:
                assert_never(action)

    async def _resolve(self, answer: Answer, request: Request) -> Reply | Action:
        """What a callable says, or the answer itself. What it raises is a fault, and resets the connection."""
        if isinstance(answer, Taken):
            await self._resolve(answer.by, request)
            return answer.then
        if not callable(answer):
            return answer
        try:
            action = answer(request)
            return await action if inspect.isawaitable(action) else action
        except Exception:
            self._fault(f"connection {self._connection}: {traceback.format_exc()}")
            return Reset()

    async def _perform(self, action: Reply | Action, *, keep: bool) -> bool:
        """Answer; whether the connection is kept."""
        match action:
            case Reply():
                await self._wire.write(action.encode(close=not keep))
                return keep
            case Redirect(url, status):
                await self._wire.write(Reply(status, b"", [("Location", url)]).encode(close=not keep))
                return keep
            case Bomb(size_bytes, status):
                body = gzip_bomb(-(-size_bytes >> 20))
                await self._wire.write(Reply(status, body, [("Content-Encoding", "gzip")]).encode(close=not keep))
                return keep
            case Slow():
                await self._drip(action)
                return keep
            case Raw(data, close):
                await self._wire.write(data)
                return not close
            case IdleClose(after_s, reply):
                await self._wire.write(reply.encode())
                return await self._wire.comes_within(after_s)
            case _:
                await self._end(action)
                return False

    async def _end(self, action: Action) -> None:
        """The actions that end the connection."""
        match action:
            case Hang():
                await self._wire.until_lost()
            case Reset():
                self._wire.reset()
            case CloseBefore():
                self._wire.close()
            case CloseAfter(reply):
                await self._wire.write(reply.encode(close=True))
            case Endless():
                await self._pour(action)
            case _:
                self._fault(f"{action} is for a list or for `at_head`: the body has been read")
                self._wire.reset()

    async def _drip(self, slow: Slow) -> None:
        head = encode_head(slow.status, [("Content-Length", str(len(slow.body)))])
        if not slow.head:
            await self._wire.write(head)
        for byte in head * slow.head + slow.body:
            await asyncio.sleep(slow.pause_s)
            await self._wire.write(bytes([byte]))

    async def _pour(self, endless: Endless) -> None:
        """Until the client leaves, which raises Lost."""
        head = encode_head(endless.status, endless.headers)
        block = b" " * 16_384
        if endless.part == "head":
            head, block = head.removesuffix(b"\r\n"), b"X-More: and more\r\n" * 64
        elif any(name.lower() == "transfer-encoding" for name, _ in endless.headers):
            block = b"%x\r\n%b\r\n" % (len(block), block)
        await self._wire.write(head)
        while True:
            await self._wire.write(block)
            await asyncio.sleep(0)
