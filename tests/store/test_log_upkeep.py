"""The write-ahead log: laid out, emptied, and never between a commit and the disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.store.sqlite import integrity, schema, wal

SECRET = b"Your code is 480917"
_READ_LOCK_1 = 124
"""where SQLite's reader number 1 locks the -shm (sqlite.org/walformat.html, 2.3.1)"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "relay.db"
    schema.prepare(made)
    return made


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(schema.connect_writer(path)) as connection:
        yield connection


def put(connection: sqlite3.Connection, name: str, size_bytes: int = 3_000) -> None:
    value = (SECRET * (1 + size_bytes // len(SECRET)))[:size_bytes]
    connection.execute("INSERT INTO setting VALUES (?, ?)", (name, value))


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def names_after_a_crash(path: Path) -> list[str]:
    """What is there for a start that finds the file and the log as they are now, but nothing in memory."""
    killed = path.parent / "killed"
    killed.mkdir()
    for one in (path, log_of(path)):
        shutil.copy(one, killed / one.name)
    integrity.inspect(killed / path.name)
    with closing(sqlite3.connect(killed / path.name)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM setting ORDER BY name")]


def test_a_log_is_laid_out_once_and_keeps_its_length(path: Path, writer: sqlite3.Connection) -> None:
    assert log_of(path).stat().st_size == wal.LOG_BYTES
    for number in range(20):
        put(writer, f"{number:02}")
        assert wal.empty(writer)
    assert log_of(path).stat().st_size == wal.LOG_BYTES


@pytest.mark.parametrize("size_bytes", [60, 3_000, 700_000, 9_000_000])
def test_an_emptied_log_holds_nothing_and_the_file_all(path: Path, writer: sqlite3.Connection, size_bytes: int) -> None:
    for number in range(3):
        put(writer, f"{number}", size_bytes)
    writer.execute("UPDATE setting SET value = 'gone'")
    assert SECRET in log_of(path).read_bytes()
    assert wal.empty(writer)
    assert SECRET not in log_of(path).read_bytes()
    assert log_of(path).stat().st_size == wal.LOG_BYTES
    put(writer, "3")
    assert names_after_a_crash(path) == ["0", "1", "2", "3"]


def test_a_log_that_is_being_emptied_can_be_read_after_a_crash_at_any_write(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk kept one page of a write and not another."""
    for number in range(8):
        put(writer, f"{number}", 30_000)
    torn: list[list[str]] = []
    whole = os.pwrite

    def tearing(log: int, piece: bytes, at: int) -> int:
        for page in range(0, len(piece), 4096):
            before = os.pread(log, 4096, at + page)
            whole(log, piece[page : page + 4096], at + page)
            if len(torn) < 60:
                torn.append(names_after_a_crash(path))
                shutil.rmtree(path.parent / "killed")
            whole(log, before, at + page)
        return whole(log, piece, at)

    monkeypatch.setattr(os, "pwrite", tearing)
    assert wal.empty(writer)
    assert len(torn) > 20
    assert all(names == [f"{number}" for number in range(8)] for names in torn)


class Interrupted:
    """A connection; a reader of another process is just beginning when the log was moved into the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._index = path.with_name(path.name + "-shm")
        self.reader: subprocess.Popen[bytes] | None = None

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE" and self.reader is None:
            lock = (
                f"import fcntl, os, time; shm = os.open({str(self._index)!r}, os.O_RDWR);"
                f" fcntl.lockf(shm, fcntl.LOCK_SH, 1, {_READ_LOCK_1}); print('locked', flush=True); time.sleep(60)"
            )
            self.reader = subprocess.Popen([sys.executable, "-c", lock], stdout=subprocess.PIPE)
            assert self.reader.stdout is not None
            assert self.reader.stdout.readline() == b"locked\n"
        return self._connection.execute(sql, *values)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction


def test_a_log_that_could_not_begin_anew_is_left_as_it_is(path: Path, writer: sqlite3.Connection) -> None:
    """SQLite then goes on behind what is there, and says nothing of it."""
    put(writer, "before")
    connection = Interrupted(writer, path)
    try:
        assert not wal.empty(connection)  # type: ignore[arg-type]
    finally:
        assert connection.reader is not None
        connection.reader.kill()
        connection.reader.wait()
        assert connection.reader.stdout is not None
        connection.reader.stdout.close()
    put(writer, "behind")
    assert names_after_a_crash(path) == ["before", "behind"]
    assert wal.empty(writer)


def test_what_a_stranger_writes_while_the_log_is_emptied_stays(path: Path, writer: sqlite3.Connection) -> None:
    class Beside:
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
                    put(stranger, "stranger's")
            return writer.execute(sql, *values)

        @property
        def in_transaction(self) -> bool:
            return writer.in_transaction

    put(writer, "ours")
    assert not wal.empty(Beside())  # type: ignore[arg-type]
    assert names_after_a_crash(path) == ["ours", "stranger's"]


def test_trouble_while_a_log_is_emptied_leaves_no_transaction_open(
    path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(writer, "before")

    def broken(_: int) -> None:
        raise MemoryError

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(MemoryError):
        wal.empty(writer)
    assert not writer.in_transaction
    put(writer, "behind")
    assert names_after_a_crash(path) == ["before", "behind"]
