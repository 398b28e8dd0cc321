"""A content as DATA or BDAT carries it, prepared piece by piece: searching 25 MB for dots at once takes 20 ms,
which would delay every code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PIECE_BYTES = 262_144


class Outgoing:
    """`parts`, which each begin a line and together end in CRLF, framed for BDAT (`is_chunked`) or DATA. True while
    something is left; iterating takes all of it."""

    def __init__(self, parts: Sequence[bytes], *, is_chunked: bool) -> None:
        self.size_bytes = sum(map(len, parts))
        """without the framing"""
        self._pieces = self._counted(parts) if is_chunked else _stuffed(parts)
        self._next: bytes | memoryview | None = next(self._pieces, None)

    def __bool__(self) -> bool:
        return self._next is not None

    def take(self) -> bytes | memoryview:
        """The next piece, of about `PIECE_BYTES`. There must be one."""
        assert self._next is not None, "all of it was taken"
        taken, self._next = self._next, next(self._pieces, None)
        return taken

    def __iter__(self) -> Iterator[bytes | memoryview]:
        while self:
            yield self.take()

    def _counted(self, parts: Sequence[bytes]) -> Iterator[bytes | memoryview]:
        yield b"BDAT %d LAST\r\n" % self.size_bytes
        for part in parts:
            if len(part) <= PIECE_BYTES:
                yield part
                continue
            whole = memoryview(part)
            for at in range(0, len(part), PIECE_BYTES):
                yield whole[at : at + PIECE_BYTES]


def _stuffed(parts: Sequence[bytes]) -> Iterator[bytes]:
    """For DATA: a dot that begins a line is doubled (RFC 5321 4.5.2)."""
    for part in parts:
        if part.startswith(b"."):
            yield b"."
        at = 0
        while at < len(part):
            behind = _cut(part, at)
            piece = part[at:behind]
            yield piece.replace(b"\r\n.", b"\r\n..") if b"\r\n." in piece else piece
            at = behind
    yield b".\r\n"


def _cut(part: bytes, at: int) -> int:
    """The end of the piece that begins at `at`: never inside of what is to be replaced."""
    behind = at + PIECE_BYTES
    if behind >= len(part):
        return len(part)
    for back in (1, 2):
        if part.startswith(b"\r\n.", behind - back):
            return behind - back
    return behind
