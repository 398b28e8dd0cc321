"""A start looks at no more than it has to, however much waits: counted in steps of SQLite's virtual machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from relay.store.sqlite import operate, schema, transfer
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, message

LANES = ("bulk", "otp")


async def steps(path: Path, waiting: int, work: Callable[[sqlite3.Connection], object]) -> int:
    store = await open_store(path, now=lambda: NOW)
    for number in range(waiting):
        await store.put(message(lane=LANES[number % 2]), claimed=False)
    await store.close()
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with closing(schema.connect_writer(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.set_progress_handler(step, 1)
        work(connection)
        connection.set_progress_handler(None, 1)
        connection.execute("ROLLBACK")
    return count


@pytest.mark.parametrize(
    "work",
    [
        lambda connection: operate.recover(Tx(connection), NOW, ()),
        lambda connection: operate.adopt(Tx(connection), LANES, "bulk", 200),
        partial(transfer.messages_for_other_lanes, lanes=LANES, limit=50, after=""),
    ],
    ids=["recover", "adopt", "other lanes"],
)
async def test_a_start_takes_the_same_steps_however_much_waits(
    tmp_path: Path, work: Callable[[sqlite3.Connection], object]
) -> None:
    few = await steps(tmp_path / "few.db", 4, work)
    assert 0 < few < 500
    assert await steps(tmp_path / "many.db", 100, work) == few
