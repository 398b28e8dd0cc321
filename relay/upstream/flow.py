"""Ends a connection whose packets are lost without an RST: TCP_USER_TIMEOUT (RFC 5482), on Linux.

Without it the kernel repeats them for a quarter of an hour, and an attempt waits until its deadline.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

LOST_AFTER_S = 3.0
"""how long the peer may acknowledge nothing of what was sent"""
SMALL_BYTES = 32_768
"""content that any peer's kernel acknowledges, even while its program reads nothing"""

_OPTION: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
"""None: this platform has no such option"""


def limit(connection: socket.socket) -> None:
    """End this connection once nothing was acknowledged for `LOST_AFTER_S`."""
    if _OPTION is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _OPTION, round(LOST_AFTER_S * 1000))


class FlowLimit:
    """The limit of one connection, if it has one.

    The kernel counts a closed window like a lost packet. A peer that reads slowly closes its window when much content
    is under way, so the limit is off meanwhile.
    """

    __slots__ = ("_connection", "_limit_ms", "_unanswered_bytes")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._connection: socket.socket | None = transport.get_extra_info("socket")
        self._limit_ms = 0
        self._unanswered_bytes = 0
        """content that has left since everything was answered"""
        if self._connection is not None and _OPTION is not None:
            with suppress(OSError):  # it is closed, or isn't TCP
                self._limit_ms = self._connection.getsockopt(socket.IPPROTO_TCP, _OPTION)

    def content_leaves(self, size_bytes: int) -> None:
        """Call it before a content of that size is written."""
        was_small = self._unanswered_bytes <= SMALL_BYTES
        self._unanswered_bytes += size_bytes
        if was_small and self._unanswered_bytes > SMALL_BYTES:
            self._set(0)

    def all_answered(self) -> None:
        """Call it when the peer has answered all that was sent."""
        if self._unanswered_bytes > SMALL_BYTES:
            self._set(self._limit_ms)
        self._unanswered_bytes = 0

    def _set(self, limit_ms: int) -> None:
        if self._limit_ms and self._connection is not None and _OPTION is not None:
            with suppress(OSError):  # it is closed
                self._connection.setsockopt(socket.IPPROTO_TCP, _OPTION, limit_ms)
