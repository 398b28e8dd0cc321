"""Group commit: all writing that waits while a transaction runs goes into the next one together.

`GroupWriter` owns the one writing connection. An operation is a function of a `Tx`, run on the connection's thread;
it is applied in whole or not at all, and whether its caller still waits makes no difference to that.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import aiosqlite

from relay.store.base import StoreError

T = TypeVar("T")
_C = TypeVar("_C", bound="Connection")

GROUP_OPERATIONS = 16
GROUP_BYTES = 1_000_000
"""A transaction's bounds: an express message that comes while one runs waits no longer than this takes to write, and
then behind as many callers that all wake at once. More would save little: at 16, the disk's share is 16 us each."""
_EXPRESS_OPERATIONS = 16
_BESIDE_EXPRESS_OPERATIONS = 4
_BESIDE_EXPRESS_BYTES = 64_000

_CHECKPOINT_IDLE_PAGES = 1000
_CHECKPOINT_BUSY_PAGES = 3000

_IN_PLACE_SHARE = 5
"""One part in so many of the loop's time, at most, goes into commits in place,"""
_IN_PLACE_BYTES = 64_000
"""none of which is larger,"""
_SLOW_S = 0.01
_SLOW_FOR_S = 5.0
"""and none for so long after one that took longer than the other."""

_THREAD_ENDS_WITHIN_S = 1.0

_LOG = logging.getLogger(__name__)
# At DEBUG it would log every function with its arguments.
logging.getLogger("aiosqlite").setLevel(logging.INFO)


class Connection(aiosqlite.Connection):
    """A SQLite connection on a thread of its own, to which whole functions are handed."""

    def __init__(self, name: str, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.name = name
        # What was answered is durable: a process that must die need not wait for this thread.
        self._thread.daemon = True

    @classmethod
    async def open(cls: type[_C], name: str, connector: Callable[[], sqlite3.Connection]) -> _C:
        connection = cls(name, connector)
        try:
            await connection
        except BaseException:
            # Its thread is about to end, and tells the loop of it: the loop must still be there then.
            connection._thread.join(_THREAD_ENDS_WITHIN_S)
            raise
        return connection

    def begin(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Hand a function to the thread, in this very turn of the loop. It runs to its end whoever waits for it."""
        if self._connection is None:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, partial(function, self._connection)))
        return future

    def run_here(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The function's result on the calling thread. The other one must have nothing to do."""
        if self._connection is None:
            raise StoreError("the store is closed")
        return function(self._connection)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The function's result or exception."""
        return await self.begin(function)


class Tx:
    """A transaction as an operation sees it, with what its commit means for the store's running totals."""

    __slots__ = ("_connection", "execute", "executemany", "loose", "messages", "size_bytes")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.messages = 0
        """open messages more (or less)"""
        self.size_bytes = 0
        """bytes of open contents more (or less)"""
        self.loose = False
        """some body was let go that is to be wiped in transactions of their own"""

    @property
    def changes(self) -> int:
        """Rows that this connection has changed so far, those of triggers too."""
        return self._connection.total_changes


Together = Callable[[Tx, Sequence[Any]], None]
"""Applies what several operations of one kind are about, in one statement: Python's sqlite3 asks for the interpreter's
lock after each, which beside a busy loop costs more than the statement. It raises where they need more than that."""


class Operation(Generic[T]):
    """Something to write, and whoever waits for it. `abandoned` is told a result that nobody took any more;
    such an operation is skipped when its caller has gone before it began. `together`: what it is about, and what
    applies that with others of its kind; it means the same as `apply`, and its result is None. `is_one`: `apply` is a
    single statement."""

    __slots__ = ("abandoned", "apply", "future", "is_one", "size_bytes", "together")

    def __init__(
        self,
        apply: Callable[[Tx], T],
        *,
        size_bytes: int = 0,
        abandoned: Callable[[T], None] | None = None,
        together: tuple[Together, Any] | None = None,
        is_one: bool = False,
    ) -> None:
        self.apply = apply
        self.together = together
        self.is_one = is_one
        self.size_bytes = size_bytes
        self.abandoned = abandoned
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    @property
    def unwanted(self) -> bool:
        return self.abandoned is not None and self.future.cancelled()

    def finish(self, outcome: Any) -> None:
        if isinstance(outcome, _Failed):
            if not self.future.cancelled():
                self.future.set_exception(outcome.error)
        elif not self.future.cancelled():
            self.future.set_result(outcome)
        elif self.abandoned is not None:
            self.abandoned(outcome)

    async def result(self) -> T:
        try:
            return await self.future
        except asyncio.CancelledError:
            # Cancelled between the result and its pick-up.
            if self.abandoned and not self.future.cancelled() and self.future.exception() is None:
                self.abandoned(self.future.result())
            raise


class _Failed:
    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class GroupWriter:
    """Takes operations from any task and commits them in groups, express ones first.

    `explain` turns what SQLite raises into the store's own error; `committed` is told each transaction that is
    durable, before the callers are.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        explain: Callable[[Exception], Exception],
        committed: Callable[[Tx], None],
    ) -> None:
        self._connection = connection
        self._explain = explain
        self._committed = committed
        self._express: deque[Operation[Any]] = deque()
        self._others: deque[Operation[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._busy = False
        """the thread has something of ours to do"""
        self._woken = False
        self._in_place_from = 0.0
        """the loop's time from when a commit may be made in place again"""
        self._closing = False
        self._written: asyncio.Future[None] | None = None
        """while closing: done when all is written"""
        self._pages = 0

    def submit(self, operation: Operation[T], *, express: bool = False) -> Operation[T]:
        """Queue an operation; an express one is on its way before this returns, and perhaps done. Raises StoreError
        once the writer is closing."""
        if self._closing:
            raise StoreError("the store is closed")
        if express:
            self._express.append(operation)
            if not (operation.is_one and self._in_place()):
                self._next()
        else:
            self._others.append(operation)
            self._wake()
        return operation

    def follow_up(self, apply: Callable[[Tx], Any]) -> None:
        """Queue what follows from an earlier operation and nobody waits for, also while closing. What can't be
        written is logged: the next start makes up for it."""
        operation = Operation(apply)
        operation.future.add_done_callback(_log_failure)
        self._others.append(operation)
        self._wake()

    async def close(self) -> None:
        """Write what waits, then let go of the connection."""
        self._closing = True
        try:
            if self._busy or self._express or self._others:
                self._written = self._written or self._loop.create_future()
                await asyncio.shield(self._written)
        finally:
            await self._connection.close()

    # One thing at a time is with the thread; what comes meanwhile waits and goes together.

    def _wake(self) -> None:
        """In the loop's next turn: others that come in this one are written along."""
        if not (self._busy or self._woken):
            self._woken = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._woken = False
        if self._busy:
            return
        group = self._next_group()
        if group:
            self._busy = True
            self._begin(partial(self._commit, group)).add_done_callback(partial(self._done, group))
        elif self._written is not None and not self._written.done():
            self._written.set_result(None)

    def _in_place(self) -> bool:
        """Commit what waits here and now, where that is one statement and the disk has been quick: False where not.

        A commit takes half a millisecond, in which the interpreter's lock is free. To wake the thread for it, and then
        this one again, takes as long again, and much longer where every processor has something to do.
        """
        began = self._loop.time()
        if self._busy or self._others or len(self._express) > 1 or began < self._in_place_from:
            return False
        if self._express[0].size_bytes > _IN_PLACE_BYTES:
            return False
        group = self._next_group()
        self._busy = True
        outcome = self._outcome(group, partial(self._connection.run_here, partial(self._commit, group)))
        ended = self._loop.time()
        took_s = ended - began
        # A slow disk, or many codes at once: then the loop has better things to do than to wait.
        self._in_place_from = ended + (_SLOW_FOR_S if took_s > _SLOW_S else (_IN_PLACE_SHARE - 1) * took_s)
        self._tell(group, *outcome)
        return True

    def _done(self, group: list[Operation[Any]], commit: asyncio.Future[tuple[list[Any], list[Tx]]]) -> None:
        self._tell(group, *self._outcome(group, commit.result))

    def _outcome(
        self, group: list[Operation[Any]], commit: Callable[[], tuple[list[Any], list[Tx]]]
    ) -> tuple[list[Any], list[Tx]]:
        """As `_commit` gives it; what goes wrong around it is handed to those who wait."""
        try:
            return commit()
        except asyncio.CancelledError:  # the loop ends
            return [_Failed(StoreError("the store is closed")) for _ in group], []
        except Exception as error:  # noqa: BLE001 - see above
            return [_Failed(self._explain(error)) for _ in group], []

    def _tell(self, group: list[Operation[Any]], outcomes: list[Any], committed: list[Tx]) -> None:
        """Callers first, then a checkpoint if one is due, then the next group."""
        try:
            for tx in committed:
                self._committed(tx)
            for operation, outcome in zip(group, outcomes, strict=True):
                operation.finish(outcome)
        finally:
            # Whatever was wrong with one of them, the next ones are written.
            if self._checkpoint_is_due(group):
                self._begin(checkpoint).add_done_callback(self._free)
            else:
                self._free()

    def _begin(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Hand it to the thread; where that can't be, the future says so."""
        try:
            return self._connection.begin(function)
        except Exception as error:  # noqa: BLE001 - whoever waits for the future hears of it
            failed: asyncio.Future[T] = self._loop.create_future()
            failed.set_exception(error)
            return failed

    def _free(self, over: asyncio.Future[Any] | None = None) -> None:
        if over is not None and not over.cancelled():
            over.exception()  # looked at: `checkpoint` logs what can go wrong
        self._busy = False
        self._next()

    def _next_group(self) -> list[Operation[Any]]:
        group: list[Operation[Any]] = []
        _move(self._express, group, operations=_EXPRESS_OPERATIONS, size_bytes=GROUP_BYTES)
        if group:
            _move(self._others, group, operations=_BESIDE_EXPRESS_OPERATIONS, size_bytes=_BESIDE_EXPRESS_BYTES)
        else:
            _move(self._others, group, operations=GROUP_OPERATIONS, size_bytes=GROUP_BYTES)
        return group

    def _commit(
        self, group: list[Operation[Any]], connection: sqlite3.Connection, *, alone: bool = False
    ) -> tuple[list[Any], list[Tx]]:
        """On the connection's thread: an outcome for each operation, and the transactions that were committed.
        `alone`: nothing is applied together any more."""
        tx = Tx(connection)
        # A statement outside of a transaction is one, and asks for the interpreter's lock once rather than thrice.
        is_one = len(group) == 1 and group[0].is_one
        alone = alone or is_one
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")  # what failed so badly that it couldn't: nothing may be added to it
            if not is_one:
                connection.execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001 - it is handed to the operations' callers
            return [_Failed(self._explain(error)) for _ in group], []
        try:
            outcomes = [operation.apply(tx) for operation in group] if alone else _apply(group, tx)
            if not is_one:
                connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is handed to the operation's caller
            roll_back(connection)
            if alone and len(group) == 1:
                return [_Failed(self._explain(error))], []
        else:
            return outcomes, [tx]
        # One of them can't be written: each alone, so that it doesn't take its neighbours with it.
        outcomes = []
        committed = []
        for operation in group:
            outcome, done = self._commit([operation], connection, alone=True)
            outcomes += outcome
            committed += done
        return outcomes, committed

    def _checkpoint_is_due(self, group: list[Operation[Any]]) -> bool:
        """Is a checkpoint due? It runs after the answers, and so never inside of a commit."""
        self._pages += 6 + 2 * len(group) + sum(operation.size_bytes for operation in group) // 4096
        idle = not self._express and not self._others
        if self._pages <= (_CHECKPOINT_IDLE_PAGES if idle else _CHECKPOINT_BUSY_PAGES):
            return False
        self._pages = 0
        return True


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, as far as no reader needs it. SQLite then uses the log from its beginning
    again and keeps its size: to cut it would make the next commits grow it, which costs more than writing over it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error as error:
        # A full disk, say. Nothing is lost: all of it is in the log, and the next checkpoint tries again.
        _LOG.warning("the store could not move its log into its file: %s", error)


def roll_back(connection: sqlite3.Connection) -> None:
    """End an open transaction. SQLite rolls back by itself after some errors (a full disk), and not after others."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            _LOG.warning("the store could not roll back", exc_info=True)


def _move(source: deque[Operation[Any]], group: list[Operation[Any]], *, operations: int, size_bytes: int) -> None:
    """Move what fits to the group, in order; the first of all fits whatever its size."""
    while source and operations:
        if source[0].size_bytes > size_bytes and group:
            return
        operation = source.popleft()
        if operation.unwanted:
            continue
        group.append(operation)
        operations -= 1
        size_bytes -= operation.size_bytes


def _apply(group: list[Operation[Any]], tx: Tx) -> list[Any]:
    """Apply them in order; those that can be written together go together, before the next that can't."""
    outcomes: list[Any] = []
    alike: dict[Together, list[Any]] = {}
    for operation in group:
        if operation.together is not None:
            apply, item = operation.together
            alike.setdefault(apply, []).append(item)
            outcomes.append(None)
        else:
            _apply_alike(alike, tx)
            outcomes.append(operation.apply(tx))
    _apply_alike(alike, tx)
    return outcomes


def _apply_alike(alike: dict[Together, list[Any]], tx: Tx) -> None:
    for apply, items in alike.items():
        apply(tx, items)
    alike.clear()


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _LOG.warning("the store could not tidy up: %s", error)
