"""`otp-relay store check|backup|compact`."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.model import Selection
from relay.store.sqlite import maintenance
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, claim, ids, message
from tests.store.command import CONFIG, filled, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "relay.yaml").write_text(CONFIG)
    return tmp_path / "relay.db"


async def test_a_sound_store_is_all_well_also_beside_a_running_relay(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await filled(path)
    store = await open_store(path, now=lambda: NOW)
    await store.put(message(content=b"x" * 1_200_000), claimed=False)
    assert run(path, "check") == 0
    await store.close()
    assert capsys.readouterr().out == f"{path}: all well\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DELETE FROM body", "open messages without their content: "),
        ("UPDATE message SET body = NULL", "finished messages with open recipients: "),
        ("DELETE FROM message", "recipients without a message: "),
    ],
)
async def test_a_contradiction_is_named_with_its_message(
    path: Path, capsys: pytest.CaptureFixture[str], damage: str, says: str
) -> None:
    (message_id,) = await filled(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    assert run(path, "check") == 1
    assert f"{path}: {says}{message_id}\n" in capsys.readouterr().err


async def test_a_damaged_page_is_found(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await filled(path, finished=20)
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 2000)
    assert run(path, "check") == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("words", [["check"], ["backup", "copy.db"], ["compact"]])
async def test_what_is_no_store_is_one_line_and_exit_1(
    path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    path.write_text("dear diary\n" * 1000)
    assert run(path, *words) == 1
    assert capsys.readouterr().err == f"otp-relay: {path}: not a store of otp-relay\n"


async def test_a_backup_taken_beside_a_running_relay_is_a_store(path: Path) -> None:
    (message_id,) = await filled(path)
    store = await open_store(path, now=lambda: NOW)
    second = message()
    await store.put(second, claimed=False)
    copy = path.with_name("copy.db")
    assert run(path, "backup", str(copy)) == 0
    await store.put(message(), claimed=False)
    await store.close()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert maintenance.check(copy) == []
    restored = await open_store(copy, now=lambda: NOW)
    assert ids(await restored.search(Selection())) == [second.id, message_id]
    assert len(await claim(restored)) == 2
    await restored.close()


async def test_a_backup_overwrites_nothing_and_leaves_no_half_of_one(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await filled(path)
    taken = path.with_name("taken")
    taken.write_text("mine")
    assert run(path, "backup", str(taken)) == 1
    assert run(path, "backup", str(taken / "copy.db")) == 1
    assert taken.read_text() == "mine"
    assert capsys.readouterr().err == (
        f"otp-relay: {taken}: exists already\notp-relay: {taken}/copy.db: Not a directory\n"
    )


async def test_compacting_gives_space_back_and_keeps_the_mail(path: Path) -> None:
    (message_id,) = await filled(path, finished=30)
    before = path.stat().st_size
    assert run(path, "compact") == 0
    assert path.stat().st_size < before / 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store = await open_store(path, now=lambda: NOW)
    assert [queued.id for queued in await claim(store)] == [message_id]
    assert len(await store.search(Selection())) == 31
    await store.close()


async def test_a_running_relays_store_is_not_compacted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = await open_store(path, now=lambda: NOW)
    assert run(path, "compact") == 1
    await store.close()
    assert capsys.readouterr().err == f"otp-relay: {path}: in use by another relay (pid {os.getpid()})\n"
