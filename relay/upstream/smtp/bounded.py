"""aiosmtplib's protocol with bounds on what an upstream sends while a session opens.

The bounds are those of a transaction's replies (`replies`). aiosmtplib has wider ones, in its newer versions only.
"""

from __future__ import annotations

import asyncio
from typing import cast

from aiosmtplib.protocol import SMTPProtocol

from relay.upstream.smtp.replies import MAX_LINE_BYTES, MAX_REPLY_BYTES, MAX_REPLY_LINES


class BoundedProtocol(SMTPProtocol):
    """Closes the connection once more has come since the last command than one reply may have."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.overrun = False
        """a bound was exceeded"""
        self._bytes = 0
        self._lines = 0
        self._line_bytes = 0
        """of the line that isn't complete"""

    def write(self, data: bytes) -> None:
        self._bytes = self._lines = self._line_bytes = 0
        super().write(data)

    def data_received(self, data: bytes) -> None:
        self.overrun = self.overrun or self._exceeds(data)
        if not self.overrun:
            super().data_received(data)
        else:
            self.abort()

    def abort(self) -> None:
        """Close the transport, if there is one. `close` would wait until the peer has ended TLS, too."""
        if self.transport is not None:
            cast(asyncio.WriteTransport, self.transport).abort()

    def _exceeds(self, data: bytes) -> bool:
        """Whether `data` is too much behind what came before."""
        self._bytes += len(data)
        if self._bytes > MAX_REPLY_BYTES:
            return True
        *complete, rest = data.split(b"\n")
        self._lines += len(complete)
        longest = max(map(len, (*complete, rest)))
        first = self._line_bytes + len(complete[0] if complete else rest)
        self._line_bytes = len(rest) if complete else first
        return self._lines > MAX_REPLY_LINES or max(longest, first) > MAX_LINE_BYTES
