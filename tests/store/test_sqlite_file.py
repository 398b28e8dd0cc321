"""The file: what may be opened, by whom, and what is left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.base import StoreDamaged, StoreError
from relay.store.model import Selection
from relay.store.sqlite import files
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import CONTENT, NOW, claim, ids, message, settled, states


async def opened(path: Path) -> SqliteStore:
    return await open_store(path, now=lambda: NOW)


async def filled(path: Path) -> str:
    """A store at this path, closed, with one queued message."""
    store = await opened(path)
    new = message()
    await store.put(new, claimed=False)
    await store.close()
    return new.id


async def test_what_was_put_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    message_id = await filled(tmp_path / "relay.db")
    store = await opened(tmp_path / "relay.db")
    assert await states(store, message_id) == ["queued"]
    assert store.size() == (1, len(CONTENT))
    second = message()
    await store.put(second, claimed=False)  # its content has a place of its own
    assert {queued.content for queued in await claim(store)} == {second.content}
    await store.close()
    assert sorted(os.listdir(tmp_path)) == ["relay.db", "relay.db.lock"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
async def test_files_are_for_their_owner_only_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = await opened(tmp_path / "relay.db")
        await store.put(message(), claimed=False)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        os.umask(before)
        await store.close()
    assert modes.pop("relay.db.lock") & 0o177 == 0
    assert modes == {"relay.db": 0o600, "relay.db-wal": 0o600, "relay.db-shm": 0o600}


async def test_a_missing_folder_is_made_for_the_owner_only(tmp_path: Path) -> None:
    await filled(tmp_path / "var" / "lib" / "relay.db")
    assert stat.S_IMODE((tmp_path / "var" / "lib").stat().st_mode) & 0o077 == 0


async def test_a_link_leads_to_the_store(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    await filled(tmp_path / "link.db")
    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "real.db").stat().st_size > 0


async def test_an_empty_file_becomes_a_store_and_a_leftover_of_its_making_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / "relay.db").touch()
    (tmp_path / "relay.db.new").write_bytes(b"half of one")
    await filled(tmp_path / "relay.db")
    assert not (tmp_path / "relay.db.new").exists()


async def test_two_relays_refuse_each_other(tmp_path: Path) -> None:
    store = await opened(tmp_path / "relay.db")
    with pytest.raises(StoreError, match=rf"relay\.db: in use by another relay \(pid {os.getpid()}\)$"):
        await opened(tmp_path / "relay.db")
    await store.put(message(), claimed=False)
    await store.close()
    await (await opened(tmp_path / "relay.db")).close()


def a_text(path: Path) -> None:
    path.write_text("dear diary\n" * 1000)


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE message (id); INSERT INTO message VALUES (1)")


def a_folder(path: Path) -> None:
    path.mkdir()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def cut_to_nothing_much(path: Path) -> None:
    os.truncate(path, 60)


def scribbled_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE recipient")


def of_the_future(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (a_text, StoreDamaged, "not a store of otp-relay"),
        (another_database, StoreDamaged, "not a store of otp-relay"),
        (a_folder, StoreDamaged, "not a file"),
        (cut_short, StoreDamaged, "damaged: "),
        (cut_to_nothing_much, StoreDamaged, "not a store of otp-relay"),
        (scribbled_over, StoreDamaged, "damaged: "),
        (without_a_table, StoreDamaged, "damaged: tables are missing"),
        (of_the_future, StoreError, "written by a newer otp-relay"),
    ],
)
@pytest.mark.parametrize("how", ["store", "reader"])
async def test_what_is_no_store_or_a_broken_one_is_named_and_left_untouched(
    tmp_path: Path, make: object, error: type[StoreError], says: str, how: str
) -> None:
    path = tmp_path / "relay.db"
    assert callable(make)
    if make not in (a_text, another_database, a_folder):
        await filled(path)
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error) as raised:
        await opened(path) if how == "store" else Reader.open(path)
    assert str(raised.value).startswith(f"{path}: {says}")
    assert "\n" not in str(raised.value)
    assert (path.read_bytes() if path.is_file() else b"") == before
    beside = {each.name: each.stat().st_size for each in tmp_path.iterdir() if each != path}
    assert beside.pop("relay.db-wal", 0) == 0
    assert not set(beside) - {"relay.db.lock", "relay.db-shm"}
    if says.startswith("not a"):
        assert "relay.db-shm" not in beside


async def test_a_refused_store_is_not_kept_locked(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    a_text(path)
    with pytest.raises(StoreDamaged):
        await opened(path)
    path.unlink()
    await filled(path)


async def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"^[^\n]*/file: not a folder$"):
        await opened(tmp_path / "file" / "relay.db")


UNWRITABLE = """
import asyncio, os, pathlib, sys
from relay.store.base import StoreError
from relay.store.sqlite.store import open_store
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # for root nothing is unwritable
try:
    asyncio.run(open_store(pathlib.Path(sys.argv[1]), now=lambda: 0.0))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_store_that_cannot_be_written_is_an_error_of_one_line(what: str) -> None:
    folder = Path(tempfile.mkdtemp())  # not below tmp_path, which is for its owner only
    path = folder / "relay.db"
    if what == "file":
        await filled(path)
        path.chmod(0o444)
        path.with_name("relay.db.lock").chmod(0o666)
    folder.chmod(0o555 if what == "folder" else 0o777)
    # Not measured by `./check coverage`: its files are not this user's to write.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    result = subprocess.run(
        [sys.executable, "-c", UNWRITABLE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env=environment,
    )
    folder.chmod(0o700)
    shutil.rmtree(folder)
    assert result.stdout.startswith(str(path))
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


async def test_a_reader_sees_what_a_running_store_commits_and_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path)
    reader = Reader.open(path)
    new = message()
    await store.put(new, claimed=False)
    assert ids(reader.search(Selection(to="USER@example.net"))) == [new.id]
    assert ids(reader.waiting(Selection())) == [new.id]
    assert reader.size() == store.size() == (1, len(CONTENT))
    assert reader.counts() == await store.counts()
    await store.claim("otp", NOW, messages=1, size_bytes=1)
    await store.settle(settled(new.id))
    assert reader.get(new.id) == await store.get(new.id)
    assert [len(rows) for rows in reader.delivery_slices(0)] == [1]
    with closing(files.connect_reader(path)) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("DELETE FROM message")
    await store.close()
    assert reader.size() == (0, 0)
    reader.close()


async def test_a_reader_reads_a_store_that_no_relay_runs_on(tmp_path: Path) -> None:
    message_id = await filled(tmp_path / "relay.db")
    reader = Reader.open(tmp_path / "relay.db")
    assert ids(reader.search(Selection())) == [message_id]
    reader.close()


async def test_a_reader_reads_what_a_killed_relay_left_in_its_log(tmp_path: Path) -> None:
    store = await opened(tmp_path / "relay.db")
    new = message()
    await store.put(new, claimed=False)
    left = tmp_path / "left"
    left.mkdir()
    for name in ("relay.db", "relay.db-wal"):
        (left / name).write_bytes((tmp_path / name).read_bytes())
    await store.close()
    log = (left / "relay.db-wal").read_bytes()
    reader = Reader.open(left / "relay.db")
    assert ids(reader.search(Selection())) == [new.id]
    reader.close()
    assert (left / "relay.db-wal").read_bytes() == log


async def test_a_reader_does_not_make_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Reader.open(tmp_path / "relay.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_file_cut_off_inside_of_a_checkpoint_is_made_whole_from_its_log(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await opened(path)
    put = [message(content=os.urandom(3000)) for _ in range(40)]
    for new in put:
        await store.put(new, claimed=False)
    left = tmp_path / "left"
    left.mkdir()
    log = (tmp_path / "relay.db-wal").read_bytes()
    (left / "relay.db-wal").write_bytes(log)
    await store.close()
    whole = path.read_bytes()
    (left / "relay.db").write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    again = await opened(left / "relay.db")
    assert {queued.content for queued in await claim(again)} == {new.content for new in put}
    await again.close()


async def test_bodies_that_a_killed_relay_left_half_written_or_half_wiped_go_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    await filled(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO loose_body VALUES (100, 3)")
        connection.executemany("INSERT INTO body VALUES (?, 'x')", [(100,), (101,)])
    store = await opened(path)
    new = message(content=b"x" * 1_200_000)
    await store.put(new, claimed=False)
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM loose_body").fetchall() == []
        assert connection.execute("SELECT id FROM body").fetchall() == [(1,), (103,), (104,), (105,)]


async def test_a_schema_step_and_its_version_are_taken_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version's step that fails leaves the store as the present one made it."""
    path = tmp_path / "relay.db"
    message_id = await filled(path)
    monkeypatch.setattr(files, "MIGRATIONS", (*files.MIGRATIONS, "1.sql"))  # its tables exist already
    with pytest.raises(StoreError, match="already exists"):
        await opened(path)
    monkeypatch.undo()
    store = await opened(path)
    assert await states(store, message_id) == ["queued"]
    await store.close()
