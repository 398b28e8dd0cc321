"""Integrity checks before a store file is used. They change nothing; `maintenance.check` reads all of the file."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path

from relay.store.base import StoreDamaged
from relay.store.sqlite import files

QUICKLY_READ_BYTES = 32_000_000
"""a file up to this size is checked whole at a start, which takes some 2 ms a megabyte"""

# https://sqlite.org/fileformat2.html#walformat and https://sqlite.org/walformat.html#walidxfmt
_HEADER = struct.Struct(">8I")  # magic, version, page size, checkpoints, salt (2), checksum (2)
_FRAME = struct.Struct(">6I")  # page, pages of the file after a commit (else 0), salt (2), checksum (2)
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # in which order of bytes the checksums are made
_INDEX_FRAMES_AT = 16


def inspect(path: Path) -> None:
    """Raises StoreDamaged; StoreError where it can't be read. No other process may write to it meanwhile."""
    with files.explained(path):
        with closing(files.connect_reader(path)) as connection:
            connection.execute("SELECT 1 FROM message LIMIT 1").fetchone()  # here SQLite reads its log
            if path.stat().st_size <= QUICKLY_READ_BYTES:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise StoreDamaged(f"{path}: damaged: {found.strip().splitlines()[-1]}")
        # Only now: closing a descriptor of one's own drops the locks of a connection that is open (POSIX locks).
        if (wrong := damaged_log(path)) is not None:
            raise StoreDamaged(f"{path}: damaged: {wrong}")


def verify_if_unlocked(path: Path) -> None:
    """`files.check`, and `inspect` unless a relay runs on the file. Raises StoreError, StoreDamaged."""
    with files.explained(path):
        files.check(path)
    if files.holder(path) is None:
        inspect(path)


def damaged_log(path: Path) -> str | None:
    """What is wrong with the write-ahead log of a file that was just read from; None: no damage was found.

    SQLite ignores a log from its first invalid frame on, because that is how a power loss ends one. But the relay
    syncs each transaction before it writes the next. So after a power loss at most one transaction is invalid. An
    invalid header before frames, or two commits behind an invalid frame, are damage.
    """
    log, index = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    if not log.exists() or log.stat().st_size <= _HEADER.size:
        return None
    with log.open("rb") as file:
        raw = file.read(_HEADER.size)
        magic, _, page_bytes, _, *salt, sum_1, sum_2 = _HEADER.unpack(raw)
        if magic not in _MAGIC or _checksum(raw[:24], _MAGIC[magic]) != (sum_1, sum_2):
            return f"the header of its log ({log.name}) can't be read" if any(file.read(_FRAME.size)) else None
        with index.open("rb") as taken:
            (frames,) = struct.unpack_from("=I", taken.read(_INDEX_FRAMES_AT + 4), _INDEX_FRAMES_AT)
        size_bytes, commits, at = log.stat().st_size, 0, frames
        while (place := _HEADER.size + at * (_FRAME.size + page_bytes)) + _FRAME.size + page_bytes <= size_bytes:
            file.seek(place)
            _, committed, *frame_salt, _, _ = _FRAME.unpack(file.read(_FRAME.size))
            commits += bool(committed) and frame_salt == salt
            at += 1
    if commits > 1:
        return f"its log ({log.name}) can't be read past frame {frames}, and {commits} commits stand behind it"
    return None


def _checksum(data: bytes, order: str) -> tuple[int, int]:
    one = two = 0
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
