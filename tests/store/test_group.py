"""Group commit: who is written with whom, in which order, and what one's failure means to the others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.store.base import StoreError
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.group import GROUP_BYTES, GROUP_OPERATIONS, GroupWriter, Operation
from relay.store.sqlite.thread import WorkThread


def explain(error: Exception) -> Exception:
    return StoreError(str(error)) if isinstance(error, sqlite3.Error) else error


class Bench:
    """A writer on a table of names, whose transactions can be held up."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.groups: list[int] = []
        """the number of the operations of each committed transaction"""
        self.order: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.connection = connection
        self.thread = WorkThread("names")
        self.joint: list[list[str]] = []
        """what was applied together, also where that was undone"""
        self.committed_raises: Exception | None = None
        self.writer = GroupWriter(connection, self.thread, explain=explain, committed=self._committed)

    def operation(self, name: str, *, size_bytes: int = 0, in_place: bool = False) -> Operation[str]:
        def apply(tx: Tx) -> str:
            self.begun.set()
            self.gate.wait(5)
            tx.execute("INSERT INTO names VALUES (?)", (name,))
            tx.messages += 1
            self.order.append(name)
            return name

        return Operation(apply, size_bytes=size_bytes, in_place=in_place)

    def alike(self, name: str, *, fails: bool = False, other_kind: bool = False) -> Operation[None]:
        """One that is applied in a batch with others of its kind; those named `!` can't be, and with `fails` not alone
        either."""

        def apply(tx: Tx) -> None:
            if fails:
                raise ValueError(name)
            tx.execute("INSERT INTO names VALUES (?)", (name,))
            tx.messages += 1
            self.order.append(name)

        return Operation(apply, batch=(self._insert_others if other_kind else self._insert_all, name))

    def _insert_all(self, tx: Tx, names: Sequence[str]) -> None:
        self.joint.append(list(names))
        for name in names:
            tx.execute("INSERT INTO names VALUES (?)", (name,))
            tx.messages += 1
            if name.startswith("!"):
                raise KeyError(name)
            self.order.append(name)

    def _insert_others(self, tx: Tx, names: Sequence[str]) -> None:
        self._insert_all(tx, names)

    async def written_while_held(self, *operations: Operation[Any]) -> list[Any]:
        """Their outcomes, having waited for a transaction that was under way."""
        first = await self.hold()
        submitted = [self.writer.submit(operation) for operation in operations]
        self.gate.set()
        async with asyncio.timeout(5):
            await first
            return await asyncio.gather(*(each.future for each in submitted), return_exceptions=True)

    async def names(self) -> list[str]:
        rows = await self.thread.run(self.connection.execute("SELECT name FROM names ORDER BY rowid").fetchall)
        return [name for (name,) in rows]

    def submit(self, name: str, *, size_bytes: int = 0, express: bool = False) -> asyncio.Future[str]:
        return self.writer.submit(self.operation(name, size_bytes=size_bytes), express=express).future

    async def hold(self) -> asyncio.Future[str]:
        """A transaction is under way until the gate opens."""
        self.gate.clear()
        self.begun.clear()
        first = self.submit("first")
        await self.begins()
        return first

    async def begins(self) -> None:
        """Wait until the thread has begun an operation."""
        async with asyncio.timeout(5):
            while not self.begun.is_set():
                await asyncio.sleep(0.001)
        self.begun.clear()

    def _committed(self, tx: Tx) -> None:
        if self.committed_raises is not None:
            raise self.committed_raises
        self.groups.append(tx.messages)


@asynccontextmanager
async def bench(path: Path) -> AsyncIterator[Bench]:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path / "names.db", isolation_level=None, check_same_thread=False)
        connection.execute("CREATE TABLE names (name TEXT PRIMARY KEY)")
        return connection

    made = Bench(connect())
    try:
        yield made
    finally:
        made.gate.set()
        await made.writer.close()


async def test_what_waits_while_a_transaction_runs_is_committed_together(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        rest = [on.submit(f"n{n}") for n in range(10)]
        on.gate.set()
        assert await asyncio.gather(first, *rest) == ["first", *(f"n{n}" for n in range(10))]
        assert on.groups == [1, 10]


async def test_one_alone_is_written_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        assert await on.submit("a") == "a"
        assert await on.submit("b", express=True) == "b"
        assert on.groups == [1, 1]


async def test_a_group_is_bounded_in_number(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        rest = [on.submit(f"n{n}") for n in range(GROUP_OPERATIONS + 5)]
        on.gate.set()
        await asyncio.gather(first, *rest)
        assert on.groups == [1, GROUP_OPERATIONS, 5]


async def test_a_group_is_bounded_in_bytes_but_the_first_always_fits(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        sizes = [GROUP_BYTES * 9, 1, GROUP_BYTES // 2, GROUP_BYTES // 2, 1]
        rest = [on.submit(f"n{n}", size_bytes=size) for n, size in enumerate(sizes)]
        on.gate.set()
        await asyncio.gather(first, *rest)
        assert on.groups == [1, 1, 2, 2]


async def test_an_express_operation_overtakes_and_takes_few_others_along(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        bulk = [on.submit(f"bulk{n}", size_bytes=2000) for n in range(200)]
        code = on.submit("code", size_bytes=2000, express=True)
        on.gate.set()
        await asyncio.gather(first, code, *bulk)
        assert on.order[1] == "code"
        assert on.groups[1] < GROUP_OPERATIONS
        assert sum(on.groups) == 202


async def test_a_steady_stream_of_express_operations_does_not_starve_the_others(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        bulk = on.submit("bulk", size_bytes=2000)
        codes = [on.submit(f"code{n}", express=True) for n in range(200)]
        on.gate.set()
        await asyncio.gather(first, bulk, *codes)
        assert on.order.index("bulk") < 100


async def test_one_that_fails_does_not_take_its_neighbours_with_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        rest = [on.submit(name) for name in ("a", "b", "a", "c", "first")]
        on.gate.set()
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        written = [None if isinstance(outcome, StoreError) else outcome for outcome in outcomes]
        assert written == ["first", "a", "b", None, "c", None]
        assert sum(on.groups) == 4
        assert await on.submit("d") == "d"


async def test_an_error_that_is_not_the_databases_reaches_its_caller_and_no_other(tmp_path: Path) -> None:
    def broken(_: Tx) -> None:
        raise ZeroDivisionError

    async with bench(tmp_path) as on:
        first = await on.hold()
        bad, good = on.writer.submit(Operation(broken)), on.submit("good")
        on.gate.set()
        with pytest.raises(ZeroDivisionError):
            await bad.result()
        assert [await first, await good] == ["first", "good"]


async def test_a_caller_that_is_gone_before_its_turn_is_skipped_only_if_it_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        first = await on.hold()
        kept = on.submit("kept")
        skipped = on.operation("skipped")
        skipped.abandoned = on.order.append
        on.writer.submit(skipped)
        for future in (kept, skipped.future):
            future.cancel()
        on.gate.set()
        await first
        assert await on.submit("last") == "last"
        assert on.order == ["first", "kept", "last"]


async def test_a_result_that_nobody_takes_is_reported_as_abandoned(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        on.gate.clear()
        taken: list[str] = []
        operation = on.operation("a")
        operation.abandoned = taken.append
        on.writer.submit(operation)
        await on.begins()
        operation.future.cancel()
        on.gate.set()
        await on.submit("b")
        assert taken == ["a"]


async def test_a_caller_cancelled_just_when_its_result_is_there_abandons_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        taken: list[str] = []
        operation = on.operation("a")
        operation.abandoned = taken.append
        task = asyncio.create_task(operation.result())
        await asyncio.sleep(0)
        operation.finish("a")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert taken == ["a"]


async def test_what_cannot_be_tidied_up_is_logged_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as on:
        on.writer.follow_up(lambda tx: tx.execute("INSERT INTO nowhere VALUES (1)"))
        assert await on.submit("a") == "a"
    assert [record.getMessage() for record in caplog.records] == ["a follow-up write failed: no such table: nowhere"]


async def test_a_stranger_that_locks_the_file_fails_the_group_once_and_not_for_good(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        await on.submit("first")
        stranger = sqlite3.connect(tmp_path / "names.db", isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        on.connection.execute("PRAGMA busy_timeout = 50")
        outcomes = await asyncio.gather(*(on.submit(f"n{n}") for n in range(30)), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["database is locked"] * 30
        stranger.execute("ROLLBACK")
        stranger.close()
        assert await on.submit("again") == "again"


async def test_what_can_be_applied_together_is_and_in_order_before_what_cannot(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        mixed: list[Operation[Any]] = [
            on.alike("a"),
            on.alike("b"),
            on.operation("c"),
            on.operation("d"),
            on.alike("e"),
            on.alike("f"),
        ]
        assert await on.written_while_held(*mixed) == [None, None, "c", "d", None, None]
        assert on.joint == [["a", "b"], ["e", "f"]]
        assert await on.names() == ["first", "a", "b", "c", "d", "e", "f"]
        assert on.groups == [1, 6]


async def test_each_kind_is_applied_once_however_they_are_mixed(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        mixed: list[Operation[Any]] = [
            on.alike("a"),
            on.alike("x", other_kind=True),
            on.alike("b"),
            on.alike("y", other_kind=True),
        ]
        assert await on.written_while_held(*mixed) == [None] * 4
        assert on.joint == [["a", "b"], ["x", "y"]]
        assert on.groups == [1, 4]


async def test_a_group_that_is_applied_together_is_bounded_like_any(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        names = [f"n{n}" for n in range(GROUP_OPERATIONS + 3)]
        assert await on.written_while_held(*map(on.alike, names)) == [None] * len(names)
        assert on.joint == [names[:GROUP_OPERATIONS], names[GROUP_OPERATIONS:]]
        assert on.groups == [1, GROUP_OPERATIONS, 3]


@pytest.mark.parametrize("place", [0, 1, 3])
async def test_where_one_cannot_be_applied_together_each_is_applied_alone(tmp_path: Path, place: int) -> None:
    async with bench(tmp_path) as on:
        names = ["a", "b", "c"]
        names.insert(place, "!")
        assert await on.written_while_held(*map(on.alike, names)) == [None] * 4
        assert on.joint == [names]
        assert await on.names() == ["first", *names]
        assert on.groups == [1] * 5


async def test_of_those_applied_alone_one_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        some: list[Operation[Any]] = [
            on.operation("a"),
            on.alike("b"),
            on.alike("!", fails=True),
            on.alike("first"),
            on.alike("c"),
        ]
        outcomes = await on.written_while_held(*some)
        assert outcomes[0:2] == ["a", None]
        assert isinstance(outcomes[2], ValueError)
        assert isinstance(outcomes[3], StoreError)
        assert outcomes[4] is None
        assert await on.names() == ["first", "a", "b", "c"]
        assert on.groups == [1] * 4


async def test_what_was_applied_together_is_undone_where_a_later_one_fails_and_done_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as on:
        some: list[Operation[Any]] = [on.alike("a"), on.alike("b"), on.operation("first"), on.alike("c")]
        outcomes = await on.written_while_held(*some)
        assert [isinstance(each, StoreError) for each in outcomes] == [False, False, True, False]
        assert on.joint == [["a", "b"]]
        assert await on.names() == ["first", "a", "b", "c"]
        assert on.groups == [1] * 4


@pytest.mark.parametrize(("name", "order"), [("a", [["a"]]), ("!", [["!"]])])
async def test_one_that_has_nobody_to_be_with_is_written_all_the_same(
    tmp_path: Path, name: str, order: list[list[str]]
) -> None:
    async with bench(tmp_path) as on:
        await on.writer.submit(on.alike(name)).result()
        assert (on.joint, await on.names(), on.groups) == (order, [name], [1])
