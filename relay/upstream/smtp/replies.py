"""Parses an upstream's replies from a byte stream (RFC 5321 4.2): pure, incremental, bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.mail.reply import Reply

MAX_LINE_BYTES = 2_048
"""RFC 5321 4.5.3.1.5 allows 512. Servers exceed it, but not by this much."""
MAX_REPLY_BYTES = 32_768
MAX_REPLY_LINES = 500

# The first digit is 2..5; a code alone on its line is legal (RFC 5321 4.2). The text may be anything.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class ProtocolError(Exception):
    """What came isn't an SMTP reply. The rest of the stream can't be trusted."""


class ReplyReader:
    """Segments in, whole replies out. After ProtocolError it must not be used again."""

    __slots__ = ("_buffer", "_code", "_lines", "_size")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._code = 0
        self._lines: list[str] = []
        self._size = 0

    @property
    def idle(self) -> bool:
        """No partial reply is buffered."""
        return not self._buffer and not self._lines

    @property
    def begins_421(self) -> bool:
        """The partial reply is a 421 (RFC 5321 3.8), which answers no command."""
        return not self._lines and self._buffer.startswith(b"421")

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that `data` completes, in order. ProtocolError comes after the replies before the bad line."""
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            if end > MAX_LINE_BYTES:
                raise ProtocolError("a reply line is too long")
            # A bare LF ends a line, too: old servers send it, and it can smuggle no reply.
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            reply = self._line(line)
            if reply is not None:
                yield reply
        if len(self._buffer) > MAX_LINE_BYTES:
            raise ProtocolError("a reply line is too long")

    def _line(self, line: bytes) -> Reply | None:
        found = _LINE.fullmatch(line)
        if found is None:
            raise ProtocolError("not an SMTP reply")
        code = int(found[1])
        if self._lines and code != self._code:
            raise ProtocolError("the code changes within one reply")
        self._size += len(line)
        if self._size > MAX_REPLY_BYTES or len(self._lines) >= MAX_REPLY_LINES:
            raise ProtocolError("a reply is too long")
        self._code = code
        self._lines.append(_CONTROLS.sub(" ", (found[3] or b"").decode("utf-8", "replace")).strip())
        if found[2] == b"-":
            return None
        text = _join(self._lines)
        self._lines, self._size = [], 0
        return Reply(code, text)


def _join(lines: list[str]) -> str:
    """The lines as one text. An enhanced code that each line repeats (RFC 2034 4) is kept once."""
    if len(lines) == 1:
        return lines[0]
    head = lines[0].split(" ", 1)[0]
    rest = [line.removeprefix(head + " ") if head.count(".") == 2 else line for line in lines[1:]]
    return " ".join(part for part in [lines[0], *rest] if part)
