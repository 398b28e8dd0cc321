"""Where a command line ends and where DATA ends, on bytes as they come in. Pure.

Both end in one way only (RFC 5321 2.3.8 and 4.1.1.4): a line at CRLF, DATA at CRLF.CRLF. Whoever takes a bare LF or
CR for a line's end where the next server does not lets mail be smuggled behind the dot.
"""

from __future__ import annotations

from relay.intake.spool import Body, Large

_END_OF_DATA = b"\r\n.\r\n"
_UNDECIDED = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
"""What the end of DATA, or a stuffed dot, may begin with, longest first."""

MAX_COMMAND_BYTES = 998
"""A command line without its CRLF, parameters of MAIL and RCPT aside."""
MAX_PARAMETERS_BYTES = 3_000
"""RFC 3461 allows ENVID 100 and ORCPT 500 characters (each may be three octets in xtext), RFC 4954 AUTH= 500; apps take
more than that for AUTH=."""
MAX_AUTH_BYTES = 12_288
"""RFC 4954 section 4: what an initial response may come to."""


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
        """The content is longer than the limit: it was dropped."""
        return self.body.size_bytes > self._limit_bytes

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes. None: more must come; else the end was seen, and these are the bytes behind it."""
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
        """What was collected: complete once `feed` has returned bytes. Raises SpoolFull."""
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
