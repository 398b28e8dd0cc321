"""The connection beneath a session: what is written and what was read; a timer that can be set again."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

from relay.upstream.flow import FlowLimit
from relay.upstream.smtp.outgoing import Outgoing
from relay.upstream.smtp.replies import ReplyReader

_ONE_WRITE_BYTES = 65_536
"""content up to this leaves in one write with the commands before it"""


class Wire:
    """The transport of one connection, in a session's hands."""

    __slots__ = ("_flow", "_paused", "_poll", "loop", "reader", "transport", "unsent")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.reader = ReplyReader()
        self.unsent: Outgoing | None = None
        """what is left of a large content"""
        self._flow = FlowLimit(transport)
        self._poll = _poll(transport)
        self._paused = False

    @property
    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def has_unread(self) -> bool:
        """Whether bytes, or the end, wait to be read: what came before a command left is no answer to it."""
        return self._poll is not None and not self.transport.is_closing() and bool(self._poll.poll(0))

    def write(self, out: bytes, content: Outgoing | None = None) -> None:
        """Write both. A large content leaves in pieces, as fast as the upstream reads it."""
        if self.transport.is_closing():
            return
        if content is not None:
            self._flow.content_leaves(content.size_bytes)
        if content is None:
            if out:
                self.transport.write(out)
        elif content.size_bytes <= _ONE_WRITE_BYTES:
            self.transport.write(b"".join((out, *content)))
        else:
            if out:
                self.transport.write(out)
            self.unsent = content
            self._write_unsent()

    def all_answered(self) -> None:
        """No transaction is under way any more."""
        self.unsent = None
        self._flow.all_answered()

    def pause(self, paused: bool) -> None:
        """The transport's buffer is full, or has room again."""
        self._paused = paused
        self._write_unsent()

    def _write_unsent(self) -> None:
        while self.unsent and not self._paused and not self.transport.is_closing():
            self.transport.write(self.unsent.take())


class Timer:
    """Calls back once, unless it is set again or cancelled before. It holds the callback only until then: a circle of
    references would keep a content in memory until Python looks for such circles."""

    __slots__ = ("_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def set(self, delay_s: float, on_timeout: Callable[[], None]) -> None:
        """In place of what was set before."""
        self.cancel()
        self._handle = self._loop.call_later(delay_s, on_timeout)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _poll(transport: asyncio.Transport) -> select.poll | None:
    """To ask whether there is something to read; None for a transport without a socket."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return None
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return poll
