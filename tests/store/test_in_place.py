"""Commits in place, on the event loop: which are, and which are left to the thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.sqlite.commit import Tx
from relay.store.sqlite.group import Operation
from tests.store.test_group import Bench, bench


@pytest.fixture(autouse=True)
def whatever_the_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit is slow, and a code that came is not long ago."""
    monkeypatch.setattr("relay.store.sqlite.in_place.SLOW_S", 60.0)
    monkeypatch.setattr("relay.store.sqlite.in_place._CODES_FOR_S", 60.0)


def noted(on: Bench, name: str, *, in_place: bool = True) -> Operation[str]:
    """Its result: the thread that wrote it."""

    def apply(tx: Tx) -> str:
        tx.execute("INSERT INTO names VALUES (?)", (name,))
        tx.messages += 1
        on.order.append(name)
        return threading.current_thread().name

    return Operation(apply, in_place=in_place)


async def written_by(*operations: Operation[str]) -> set[str]:
    async with asyncio.timeout(5):
        return {await each.future for each in operations}


LOOP = {threading.main_thread().name}
THREAD = {"names"}
BUSY_S = 0.005
"""so long the loop is busy with something else"""


async def test_beside_a_busy_loop_codes_are_written_in_place_and_together(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first, *later = (noted(on, f"code {n}") for n in range(6))
        on.writer.submit(first, express=True)
        assert first.future.done()
        for each in later:
            on.writer.submit(each, express=True)
        time.sleep(BUSY_S)
        assert await written_by(*later) == LOOP
        assert on.groups == [1, 5]


async def test_beside_an_idle_loop_the_second_code_is_left_to_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.sqlite.in_place.BUSY_TURN_S", 60.0)
    async with bench(tmp_path) as on:
        on.writer.submit(noted(on, "first"), express=True)
        second = on.writer.submit(noted(on, "second"), express=True)
        assert await written_by(second) == THREAD


async def test_what_would_hold_up_the_next_code_is_written_in_place_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.writer.submit(noted(on, "code"), express=True)
        settled = [on.writer.submit(noted(on, f"settled {n}")) for n in range(20)]
        time.sleep(BUSY_S)
        assert await written_by(*settled[:16]) == LOOP


async def test_without_codes_a_busy_loop_leaves_all_to_the_thread(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        bulk = on.writer.submit(noted(on, "bulk"))
        time.sleep(BUSY_S)
        assert await written_by(bulk) == THREAD


async def test_what_takes_long_is_never_written_in_place_and_never_left_out(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.writer.submit(noted(on, "first"), express=True)
        codes = [on.writer.submit(noted(on, f"code {n}"), express=True) for n in range(3)]
        long = on.writer.submit(noted(on, "long", in_place=False))
        behind = on.writer.submit(noted(on, "behind"))
        time.sleep(BUSY_S)
        assert await written_by(*codes) == LOOP
        assert await written_by(long, behind) == THREAD
        assert on.order[-2:] == ["long", "behind"]


async def test_an_express_operation_for_the_thread_waits_behind_nothing_written_in_place(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        held = await on.hold()
        settled = [on.writer.submit(noted(on, f"settled {n}")) for n in range(20)]
        mark = on.writer.submit(noted(on, "mark", in_place=False), express=True)
        on.gate.set()
        time.sleep(BUSY_S)
        await held
        time.sleep(BUSY_S)
        assert await written_by(mark) == THREAD
        await written_by(*settled)
        assert on.order[:2] == ["first", "mark"]


async def test_behind_slow_commits_in_a_row_the_thread_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.sqlite.in_place.SLOW_S", -1.0)  # as if every one were
    monkeypatch.setattr("relay.store.sqlite.in_place.SHARE", 1)
    async with bench(tmp_path) as on:
        for n in range(2):
            assert on.writer.submit(noted(on, f"code {n}"), express=True).future.done()
        alone = on.writer.submit(noted(on, "code 2"), express=True)
        time.sleep(BUSY_S)
        assert await written_by(alone) == THREAD


async def test_a_statement_of_its_own_is_never_added_to_a_transaction_that_was_left_open(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.connection.execute("BEGIN IMMEDIATE")
        code = on.writer.submit(on.operation("code", in_place=True), express=True)
        assert await code.future == "code"
        with closing(sqlite3.connect(tmp_path / "names.db")) as reader:
            assert reader.execute("SELECT name FROM names").fetchall() == [("code",)]


async def test_whatever_goes_wrong_in_place_the_next_one_is_written(tmp_path: Path) -> None:
    def broken(_: Tx) -> None:
        raise MemoryError

    async with bench(tmp_path) as on:
        bad = on.writer.submit(Operation(broken, in_place=True), express=True)
        with pytest.raises(MemoryError):
            await bad.result()
        on.committed_raises = MemoryError()
        await asyncio.sleep(0.05)  # until the next one may be written in place
        with pytest.raises(MemoryError):
            on.writer.submit(on.operation("untold", in_place=True), express=True)
        on.committed_raises = None
        async with asyncio.timeout(5):
            assert await on.submit("next", express=True) == "next"


async def test_what_is_large_is_not_written_in_place(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        small = on.writer.submit(on.operation("small", in_place=True), express=True)
        assert small.future.done()
        await asyncio.sleep(0.05)  # until the next one may be written in place
        large = on.writer.submit(on.operation("large", in_place=True, size_bytes=100_000), express=True)
        assert not large.future.done()
        assert await large.future == "large"
