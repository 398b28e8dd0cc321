"""The spool: a content that comes in is in memory while it is small, and in a sealed file from then on."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

from relay.mail.reply import Reply
from relay.policy.check import FULL, UNWRITABLE
from relay.store.codec import SEAL_BYTES, Sealed

IN_MEMORY_BYTES = 256_000
ALWAYS_BYTES = 16_384
"""A content up to this stays in memory, however much others use: no code waits for a file or is refused."""
PIECE_BYTES = ALWAYS_BYTES
"""A file is sealed in pieces of this size; the last one is shorter. Less than one waits in memory to be sealed."""


class SpoolFailed(OSError):
    """A content could not be written to the spool, or what was read from it is not what was written (EIO)."""

    @property
    def reply(self) -> Reply:
        """To the client: try again, for want of space or because the disk failed."""
        return UNWRITABLE if self.errno == errno.EIO else FULL


@dataclass(frozen=True, slots=True)
class Large:
    """A content in a spool file. Closing its `Body` deletes the file."""

    head: bytes = field(repr=False)
    """its first bytes: the header section, which rules look at, is in there"""
    path: Path
    size_bytes: int
    codec: Sealed = field(repr=False)
    """with a key for this file alone, which is never written"""

    def pieces(self) -> Iterator[bytes]:
        """The content, piece by piece. Raises OSError; SpoolFailed where the file isn't what was written."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            left = self.size_bytes
            for number in range(-(-self.size_bytes // PIECE_BYTES)):
                try:
                    piece = self.codec.open(file.read(PIECE_BYTES + SEAL_BYTES), str(number), self.codec.key_id)
                except ValueError:
                    raise SpoolFailed(errno.EIO, "a content in the spool is not what came in") from None
                left -= len(piece)
                yield piece
            if left or file.read(1):
                raise SpoolFailed(errno.EIO, "a content in the spool has another length than what came in")

    def read(self) -> bytes:
        """The whole content. Raises as `pieces` does."""
        return b"".join(self.pieces())


class Budget:
    """The memory for contents that come in (`limits.memory`), in bytes, of all sessions together."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = sys.maxsize) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int, *, complete: bool = False) -> bool:
        """Use so many bytes more. False: there is no room. A quarter is reserved for contents that are `complete`, so
        that they can be stored however many others are stuck halfway."""
        limit_bytes = self.limit_bytes if complete else self.limit_bytes // 4 * 3
        if self.used_bytes + size_bytes > limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True


class Body:
    """A content while it comes in: `write` its pieces, take its `content`, `close` it once that is stored."""

    __slots__ = ("_budget", "_failure", "_file", "_folder", "_held_bytes", "_memory", "size_bytes")

    def __init__(self, folder: Path | None = None, *, budget: Budget | None = None) -> None:
        """`folder`: of the spool; None: contents stay in memory, whatever their size."""
        self._folder = folder
        self._budget = budget or Budget()
        self._held_bytes = 0
        """how much of the budget it uses"""
        self._memory = BytesIO()
        self._file: _File | None = None
        self._failure: OSError | None = None
        self.size_bytes = 0

    @property
    def large(self) -> bool:
        """Is it in a file?"""
        return self._file is not None

    def write(self, piece: bytes) -> None:
        """Never raises. Where a piece can't be written, `content` raises."""
        self.size_bytes += len(piece)
        if self._failure is not None:
            return
        try:
            if self._file is not None:
                self._file.write(piece)
            elif (self._folder is None or self.size_bytes <= IN_MEMORY_BYTES) and self._fits(len(piece)):
                self._memory.write(piece)
            else:
                self._move(piece)
        except OSError as error:
            self.close()
            self._failure = error

    def content(self) -> bytes | Large:
        """What came in, once all of it has. Raises SpoolFailed."""
        if self._failure is not None:
            raise SpoolFailed(*self._failure.args) from self._failure
        if self._file is None:
            return self._memory.getvalue()
        try:
            self._file.finish()
        except OSError as error:
            raise SpoolFailed(*error.args) from error
        content = Large(self._memory.getvalue(), self._file.path, self.size_bytes, self._file.codec)
        lacking = min(self.size_bytes, IN_MEMORY_BYTES) - len(content.head)
        if lacking > 0:
            if not self._fits(lacking, complete=True):
                raise SpoolFailed(errno.ENOMEM, "limits.memory is used up")
            if self.size_bytes <= IN_MEMORY_BYTES:
                return content.read()
            return replace(content, head=_first(content.pieces(), IN_MEMORY_BYTES))
        return content

    def close(self) -> None:
        """Free its memory and delete its file."""
        self._memory = BytesIO()
        self._budget.used_bytes -= self._held_bytes
        self._held_bytes = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _fits(self, size_bytes: int, *, complete: bool = False) -> bool:
        if self.size_bytes <= ALWAYS_BYTES:
            self._budget.used_bytes += size_bytes
        elif not self._budget.take(size_bytes, complete=complete):
            return False
        self._held_bytes += size_bytes
        return True

    def _move(self, piece: bytes) -> None:
        """Write what memory has to a file, then `piece`. Memory keeps the content's head. Raises OSError."""
        if self._folder is None:
            raise SpoolFailed(errno.ENOENT, "there is no spool")
        self._file = _File(self._folder)
        self._file.write(self._memory.getvalue())
        self._file.write(piece)
        # The head has its full length also where a client sends line by line at first.
        more = piece[: IN_MEMORY_BYTES - self._memory.tell()]
        if self._fits(len(more)):
            self._memory.write(more)


class _File:
    """A file of the spool being written."""

    __slots__ = ("_descriptor", "_pieces", "_unsealed", "codec", "path")

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self.path = folder / secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self.codec = Sealed([secrets.token_bytes(32)], "the spool")
        self._unsealed = bytearray()
        self._pieces = 0

    def write(self, data: bytes) -> None:
        """Seal and write the pieces that are whole by now. Raises OSError."""
        self._unsealed += data
        whole = len(self._unsealed) // PIECE_BYTES * PIECE_BYTES
        self._write(range(0, whole, PIECE_BYTES))
        del self._unsealed[:whole]

    def finish(self) -> None:
        """Write the last piece. Raises OSError."""
        if self._unsealed:
            self._write(range(1))
            self._unsealed.clear()

    def _write(self, starts: range) -> None:
        sealed = bytearray()
        for start in starts:
            piece = bytes(self._unsealed[start : start + PIECE_BYTES])
            sealed += self.codec.seal(piece, str(self._pieces))
            self._pieces += 1
        left = memoryview(sealed)
        while left:
            # On a disk that is nearly full, a write may be short without an error.
            left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        with suppress(OSError):
            os.unlink(self.path)
        with suppress(OSError):
            os.close(self._descriptor)


def open_spool(store: Path) -> Path:
    """The folder beside the store, this user's alone and empty: what a killed relay left there was never acknowledged.
    Raises OSError."""
    folder = store.with_name(f"{store.stem}-spool")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # Opened first and looked at then, so that nothing else can be put in its place in between.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(descriptor, 0o700)
        for left in os.listdir(descriptor):
            os.unlink(left, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return folder


def _first(pieces: Iterator[bytes], size_bytes: int) -> bytes:
    begin = bytearray()
    for piece in pieces:
        begin += piece
        if len(begin) >= size_bytes:
            break
    return bytes(begin[:size_bytes])
