"""Where a content is while it comes in: in memory while it is small, in a file of its own from then on."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

IN_MEMORY_BYTES = 256_000


@dataclass(frozen=True, slots=True)
class Large:
    """A content in a file, which is gone once its `Body` is closed."""

    head: bytes
    """how it begins: what rules look at is in there"""
    path: Path
    size_bytes: int

    def read(self) -> bytes:
        """All of it. Raises OSError."""
        return self.path.read_bytes()


class SpoolFull(OSError):
    """The disk took no more."""


class Body:
    """`write` what comes, `content` when all has come, `close` when it is stored. `folder` None: always in memory."""

    __slots__ = ("_failed", "_file", "_folder", "_memory", "size_bytes")

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory = BytesIO()
        self._file: IO[bytes] | None = None
        self._failed = False
        self.size_bytes = 0

    @property
    def large(self) -> bool:
        """It is in a file by now."""
        return self._file is not None

    def write(self, piece: bytes) -> None:
        """Never raises: what can't be written is told by `content`."""
        self.size_bytes += len(piece)
        if self._failed:
            return
        try:
            if self._file is not None:
                self._file.write(piece)
            elif self._folder is not None and self.size_bytes > IN_MEMORY_BYTES:
                # Unbuffered: pieces come as large as the kernel hands them over.
                self._file = tempfile.NamedTemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
                self._file.write(self._memory.getvalue())
                self._file.write(piece)
                # Clients may send line by line at first: the head that is kept has its full length all the same.
                self._memory.write(piece[: IN_MEMORY_BYTES - self._memory.tell()])
            else:
                self._memory.write(piece)
        except OSError:
            self._failed = True

    def content(self) -> bytes | Large:
        """Raises SpoolFull."""
        if self._failed:
            raise SpoolFull
        if self._file is None:
            return self._memory.getvalue()
        return Large(self._memory.getvalue(), Path(self._file.name), self.size_bytes)

    def close(self) -> None:
        """Nothing of it is needed any more."""
        self._memory = BytesIO()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def open_spool(store: Path) -> Path:
    """The folder beside the store, empty: what a killed relay left there was never acknowledged. Raises OSError."""
    folder = store.with_name(f"{store.stem}-spool")
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.iterdir():
        os.unlink(left)
    return folder
