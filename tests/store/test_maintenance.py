"""`otp-relay store` and damage, over all files of a store: the main one and those of the bulk processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from relay.store import maintenance
from relay.store.base import StoreDamaged, StoreError
from relay.store.merge import shard
from relay.store.model import Selection
from relay.store.sqlite import integrity
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, exported, ids, message
from tests.store.command import CONFIG, filled, run


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store with two bulk processes."""
    (tmp_path / "relay.yaml").write_text(CONFIG)
    main = tmp_path / "relay.db"
    for each in (main, shard(main, 1), shard(main, 2)):
        await filled(each, finished=20)
    return main


def test_check_reads_every_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "check") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{each}: all well" for each in (path, shard(path, 1), shard(path, 2))
    ]


def test_check_names_the_file_in_which_something_is_wrong(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(shard(path, 2))) as connection, connection:
        connection.execute("DELETE FROM body")
    assert run(path, "check") == 1
    said = capsys.readouterr()
    assert f"{shard(path, 2)}: open messages without their content: " in said.err
    assert f"{path}: all well" in said.out


def test_compact_rewrites_every_file(path: Path) -> None:
    before = [each.stat().st_size for each in maintenance.files(path)]
    assert run(path, "compact") == 0
    assert all(each.stat().st_size < was / 2 for each, was in zip(maintenance.files(path), before, strict=True))
    assert all(not wrong for wrong in maintenance.check(path).values())


async def test_nothing_is_compacted_while_a_bulk_process_still_has_its_file(path: Path) -> None:
    before = [each.stat().st_size for each in maintenance.files(path)]
    store = await open_store(shard(path, 1), now=lambda: NOW)
    with pytest.raises(StoreError, match=r"relay-bulk1\.db: in use by another relay"):
        await asyncio.to_thread(maintenance.compact, path)
    await store.close()
    assert [path.stat().st_size, shard(path, 2).stat().st_size] == [before[0], before[2]]


def test_a_backup_is_a_store_of_as_many_files(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copies" / "monday.db"
    copy.parent.mkdir()
    assert run(path, "backup", str(copy)) == 0
    assert {each.name for each in copy.parent.iterdir()} == {"monday.db", "monday-bulk1.db", "monday-bulk2.db"}
    assert {stat.S_IMODE(each.stat().st_mode) for each in copy.parent.iterdir()} == {0o600}
    assert all(not wrong for wrong in maintenance.check(copy).values())


def test_a_backup_that_would_overwrite_one_of_its_files_leaves_none(path: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "monday-bulk2.db").write_text("mine")
    assert run(path, "backup", str(copies / "monday.db")) == 1
    assert [each.name for each in copies.iterdir()] == ["monday-bulk2.db"]
    assert (copies / "monday-bulk2.db").read_text() == "mine"


async def test_a_message_that_moves_meanwhile_is_in_at_least_one_copy(tmp_path: Path) -> None:
    """Both ways: what waited for a bulk process, and what a bulk process gives back."""
    main = tmp_path / "relay.db"
    moving = {*(await filled(main, 3)), *(await filled(shard(main, 1), 3))}
    stores = [await open_store(each, now=lambda: NOW) for each in (main, shard(main, 1))]
    stop = asyncio.Event()
    # A lane is one process's at a time: no message ever goes both ways at once.
    moving_one = asyncio.Lock()

    moved: list[str] = []

    async def move(source: SqliteStore, target: SqliteStore) -> None:
        while not stop.is_set():
            async with moving_one:
                for message_id in await source.messages_for_other_lanes((), limit=1):
                    await target.import_message(await exported(source, message_id))
                    await source.delete_transferred(message_id)
                    moved.append(message_id)

    def found() -> set[str]:
        with maintenance.snapshots((main, shard(main, 1))) as connections:
            return {row[0] for each in connections for row in each.execute("SELECT id FROM message")}

    movers = [asyncio.create_task(move(*stores)), asyncio.create_task(move(*reversed(stores)))]
    try:
        looks = 0
        while looks < 100 or len(moved) <= 20:
            looks += 1
            assert await asyncio.to_thread(found) == moving
    finally:
        stop.set()
        await asyncio.gather(*movers)
        for store in stores:
            await store.close()


# damage


async def killed(path: Path, messages: int) -> None:
    """A store as a kill leaves it: all is in its log. It is copied, which is the same and takes no process."""
    store = await open_store(path.with_name("living.db"), now=lambda: NOW)
    for _ in range(messages):
        await store.put(message(content=os.urandom(500)), claimed=False)
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(f"living.db{suffix}"), path.with_name(f"{path.name}{suffix}"))
    await store.close()


def overwritten(path: Path, at: int, length: int = 200) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * length)


FRAME = 24 + 4096
DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "the header": ("", lambda path: overwritten(path, 0)),
    "a page in the middle": ("", lambda path: overwritten(path, 5 * 4096 + 8, 2000)),
    "its second half": ("", lambda path: os.truncate(path, path.stat().st_size // 8192 * 4096)),
    "the log's header": ("-wal", lambda path: overwritten(path, 4, 8)),
    "the log's first commit": ("-wal", lambda path: overwritten(path, 32 + 24 + 1000)),
    "a commit in the middle of the log": ("-wal", lambda path: overwritten(path, 32 + 20 * FRAME + 24)),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_damaged_store_is_not_begun_with_and_stays_as_it_is(tmp_path: Path, what: str) -> None:
    suffix, damage = DAMAGE[what]
    path = tmp_path / "relay.db"
    if suffix:
        await killed(path, 20)
    else:
        await filled(path, finished=20)
    damage(path.with_name(path.name + suffix))
    before = {each.name: each.read_bytes() for each in (path, path.with_name(path.name + "-wal")) if each.exists()}
    with pytest.raises(StoreDamaged, match=rf"^{path}: (damaged: .|not a store)"):
        await open_store(path, now=lambda: NOW)
    assert {name: path.with_name(name).read_bytes() for name in before} == before


async def test_a_log_that_was_cut_off_while_it_was_written_is_read_up_to_there(tmp_path: Path) -> None:
    """As a power loss leaves it: the last commit, which nobody was told of, isn't whole."""
    path = tmp_path / "relay.db"
    await killed(path, 20)
    log = path.with_name(path.name + "-wal")
    overwritten(log, log.stat().st_size - FRAME + 24 + 100)
    store = await open_store(path, now=lambda: NOW)
    assert len(ids(await store.search(Selection(limit=100)))) == 19
    await store.close()


async def test_a_sound_log_is_no_damage_whatever_was_written_before_it(tmp_path: Path) -> None:
    """Frames of the log's earlier life stand behind its end."""
    path = tmp_path / "relay.db"
    store = await open_store(path, now=lambda: NOW)
    for _ in range(5):
        await asyncio.gather(*(store.put(message(content=os.urandom(9_000)), claimed=False) for _ in range(300)))
        integrity.verify_if_unlocked(path)
        for suffix in ("", "-wal"):
            shutil.copy(path.with_name(f"relay.db{suffix}"), path.with_name(f"copy.db{suffix}"))
        path.with_name("copy.db-shm").unlink(missing_ok=True)
        integrity.inspect(path.with_name("copy.db"))
    await store.close()
