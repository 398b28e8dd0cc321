"""Where a content is while it comes in: in memory while it is small, in a file of its own from then on."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, AEADEncryptionContext

IN_MEMORY_BYTES = 256_000
ALWAYS_BYTES = 16_384
"""A content up to this stays in memory, whatever others use: a code doesn't wait for a file, nor is it refused."""
_CHUNK_BYTES = 262_144
_NONCE = bytes(12)
"""A key encrypts one file and no other, so its only nonce may be any."""


class SpoolFull(OSError):
    """The disk took no more, or gave back something else than it was given."""


class Seal(NamedTuple):
    """What opens an encrypted file: AES-256-GCM as one stream."""

    key: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class Large:
    """A content in a file, which is gone once its `Body` is closed."""

    head: bytes = field(repr=False)
    """how it begins: what rules look at is in there"""
    path: Path
    size_bytes: int
    seal: Seal | None = field(default=None, repr=False)

    def open(self) -> Reading:
        """Read it from its beginning. Raises OSError."""
        return Reading(self)

    def read(self) -> bytes:
        """All of it. Raises OSError, SpoolFull where that isn't what came in."""
        whole = BytesIO()
        with self.open() as file:
            while piece := file.read(_CHUNK_BYTES):
                whole.write(piece)
        return whole.getvalue()


class Reading:
    """A `Large` being read. Its end is only told once all that came in was read, and nothing else."""

    def __init__(self, content: Large) -> None:
        self._file: IO[bytes] = open(os.open(content.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")  # noqa: SIM115
        self._left = content.size_bytes
        self._decryptor = None if content.seal is None else _decryptor(content.seal)

    def read(self, size_bytes: int) -> bytes:
        """The next so many bytes, fewer before the end, none there. Raises OSError; SpoolFull where the file isn't
        what was written."""
        piece = self._file.read(size_bytes)
        self._left -= len(piece)
        if self._decryptor is not None:
            piece = self._decryptor.update(piece)
        if not piece:
            self._check()
        return piece

    def _check(self) -> None:
        from cryptography.exceptions import InvalidTag

        if self._left != 0:
            raise SpoolFull(errno.EIO, "a content in the spool has another length than what came in")
        if self._decryptor is not None:
            try:
                self._decryptor.finalize()
            except InvalidTag:
                raise SpoolFull(errno.EIO, "a content in the spool is not what came in") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Budget:
    """How many bytes of contents that come in may be in memory, all sessions together."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = sys.maxsize) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int, *, complete: bool = False) -> bool:
        """Whether there is room for so many. A quarter is kept for contents that are `complete`: however many hang
        in the middle of theirs, others can be stored."""
        limit_bytes = self.limit_bytes if complete else self.limit_bytes // 4 * 3
        if self.used_bytes + size_bytes > limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True


class Body:
    """`write` what comes, `content` when all has come, `close` when it is stored. `folder` None: always in memory."""

    __slots__ = ("_budget", "_failed", "_file", "_folder", "_held_bytes", "_memory", "_sealed", "size_bytes")

    def __init__(self, folder: Path | None = None, *, sealed: bool = False, budget: Budget | None = None) -> None:
        """`sealed`: what is in the file is encrypted, with a key that is in memory only."""
        self._folder = folder
        self._sealed = sealed
        self._budget = budget or Budget()
        self._held_bytes = 0
        """of the budget"""
        self._memory = BytesIO()
        self._file: _File | None = None
        self._failed = False
        self.size_bytes = 0

    @property
    def large(self) -> bool:
        """It is in a file by now."""
        return self._file is not None

    def write(self, piece: bytes) -> None:
        """Never raises: `content` raises what couldn't be written."""
        self.size_bytes += len(piece)
        if self._failed:
            return
        try:
            if self._file is not None:
                self._file.write(piece)
            elif (self._folder is None or self.size_bytes <= IN_MEMORY_BYTES) and self._fits(len(piece)):
                self._memory.write(piece)
            else:
                self._move(piece)
        except OSError:
            self.close()
            self._failed = True

    def content(self) -> bytes | Large:
        """Raises SpoolFull."""
        if self._failed:
            raise SpoolFull
        if self._file is None:
            return self._memory.getvalue()
        content = Large(self._memory.getvalue(), self._file.path, self.size_bytes, self._file.finish())
        lacking = min(self.size_bytes, IN_MEMORY_BYTES) - len(content.head)
        if lacking > 0:
            if not self._fits(lacking, complete=True):
                raise SpoolFull
            if self.size_bytes <= IN_MEMORY_BYTES:
                return content.read()
            with content.open() as file:
                return Large(file.read(IN_MEMORY_BYTES), content.path, content.size_bytes, content.seal)
        return content

    def close(self) -> None:
        """Nothing of it is needed any more."""
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
        """Into a file, and on with `piece`. What memory has stays there: it is how the content begins. Raises
        OSError."""
        if self._folder is None:
            raise SpoolFull
        self._file = _File(self._folder, sealed=self._sealed)
        self._file.write(self._memory.getvalue())
        self._file.write(piece)
        # Clients may send line by line at first: the head that is kept has its full length all the same.
        more = piece[: IN_MEMORY_BYTES - self._memory.tell()]
        if self._fits(len(more)):
            self._memory.write(more)


class _File:
    """A file of the spool being written."""

    __slots__ = ("_descriptor", "_encryptor", "_key", "path")

    def __init__(self, folder: Path, *, sealed: bool) -> None:
        """Raises OSError."""
        self.path = folder / secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        self._key = secrets.token_bytes(32)
        self._encryptor = _encryptor(self._key) if sealed else None

    def write(self, piece: bytes) -> None:
        """All of it. Raises OSError."""
        left = memoryview(piece if self._encryptor is None else self._encryptor.update(piece))
        while left:
            # On a disk that is nearly full less than all is written, and that is no error to the kernel.
            left = left[os.write(self._descriptor, left) :]

    def finish(self) -> Seal | None:
        """What opens it; None: it is in clear."""
        if self._encryptor is None:
            return None
        self._encryptor.finalize()
        return Seal(self._key, self._encryptor.tag)

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


def _encryptor(key: bytes) -> AEADEncryptionContext:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.GCM(_NONCE)).encryptor()


def _decryptor(seal: Seal) -> AEADDecryptionContext:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(seal.key), modes.GCM(_NONCE, seal.tag)).decryptor()
