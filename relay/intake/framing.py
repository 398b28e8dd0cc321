"""Where a command line ends and where DATA ends, on bytes as they come in. Pure.

A line ends at CRLF only, DATA at CRLF.CRLF only (RFC 5321 2.3.8 and 4.1.1.4). A server that also ends them at a bare
LF or CR, where the next server doesn't, lets a client smuggle mail behind the dot.
"""

from __future__ import annotations

from relay.intake import replies
from relay.intake.spool import Body, Large
from relay.mail.reply import Reply

_END_OF_DATA = b"\r\n.\r\n"
_UNDECIDED = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
"""What the end of DATA, or a stuffed dot, may begin with, longest first."""

MAX_COMMAND_BYTES = 998
"""A command line without its CRLF, parameters of MAIL and RCPT aside."""
MAX_PARAMETERS_BYTES = 3_000
"""RFC 3461 allows ENVID 100 and ORCPT 500 characters (each may be three octets in xtext), RFC 4954 AUTH= 500; apps use
more than that for AUTH=."""
MAX_AUTH_BYTES = 12_288
"""RFC 4954 section 4: the longest initial response."""


class BadLine(Exception):
    """A command line that breaks the rules of lines. It has been skipped, or will be; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.code)
        self.reply = reply


class LineBuffer:
    """A client's input, read line by line. The lines never depend on how the segments fell."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping = False

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def read(self, size_bytes: int | None = None) -> bytes:
        """The next `size_bytes`, or fewer where there are fewer; None: all of them."""
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return data

    def clear(self) -> None:
        """Forget all of it, and begin with a new line."""
        self._buffer.clear()
        self._skipping = False

    def read_line(self, limit_bytes: int | None = None) -> bytes | None:
        """The next line without its CRLF; None while it isn't complete. Raises BadLine.

        `limit_bytes`: what the line may have; None: what its verb allows.
        """
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        if self._skipping:
            if end < 0:
                del buffer[: len(buffer) - buffer.endswith(b"\r")]
                return None
            del buffer[: end + 2]
            self._skipping = False
            end = buffer.find(b"\r\n")
        so_far = buffer if end < 0 else buffer[:end]
        limit = line_limit(so_far) if limit_bytes is None else limit_bytes
        # A bare LF spoils the line at once: a client that ends its lines so would wait for ever.
        if so_far.find(b"\n", 0, limit + 1) >= 0:
            problem = replies.BARE_LF
        elif len(so_far) - (end < 0 and so_far.endswith(b"\r")) > limit:
            problem = replies.LINE_TOO_LONG
        elif end < 0:
            return None
        else:
            del buffer[: end + 2]
            if b"\0" in so_far:
                raise BadLine(replies.NUL)
            if b"\r" in so_far:
                raise BadLine(replies.BARE_CR)
            return bytes(so_far)
        self._skipping = True
        raise BadLine(problem)


class DotDecoder:
    """Collects the content of one DATA, unstuffed, up to a limit; past it the rest is only scanned for its end."""

    def __init__(self, limit_bytes: int, body: Body | None = None) -> None:
        self._limit_bytes = limit_bytes
        self.body = body or Body()
        # DATA begins as if after a CRLF: a dot in its first line ends or is unstuffed like any other.
        self._tail = b"\r\n"
        self._begun = False

    @property
    def oversize(self) -> bool:
        """The content is longer than the limit, and was dropped."""
        return self.body.size_bytes > self._limit_bytes

    def feed(self, data: bytes) -> bytes | None:
        """Decode the next bytes. Returns None until the end has come, then the bytes behind it."""
        window = self._tail + data
        # Looking for one byte is forty times as fast as for three, and an attachment in base64 has no dot.
        plain = b"." not in window
        end = -1 if plain else window.find(_END_OF_DATA)
        if end >= 0:
            self._keep(window[: end + 2], plain=plain)
            return window[end + 5 :]
        self._tail = next((part for part in _UNDECIDED if window.endswith(part)), b"")
        self._keep(window[: -len(self._tail)] if self._tail else window, plain=plain)
        return None

    def content(self) -> bytes | Large:
        """The content, once `feed` has returned bytes. Raises SpoolFailed."""
        return self.body.content()

    def _keep(self, piece: bytes, *, plain: bool) -> None:
        if not piece or self.oversize:
            return
        # RFC 5321 4.5.2: the first dot of a line goes. A piece never ends where it could part CRLF and dot.
        if not plain:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if not self._begun:
            self._begun = True
            piece = piece[2:]  # the CRLF that DATA began as if after
        self.body.write(piece)
        if self.body.size_bytes > self._limit_bytes:
            self.body.close()


def line_limit(start: bytes | bytearray) -> int:
    """How long the command line that begins with `start` may be, in bytes without its CRLF."""
    match bytes(start[:4]).upper():
        case b"MAIL" | b"RCPT":
            return MAX_COMMAND_BYTES + MAX_PARAMETERS_BYTES
        case b"AUTH":
            return MAX_AUTH_BYTES
        case _:
            return MAX_COMMAND_BYTES
