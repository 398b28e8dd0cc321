"""Group commit: the operations that wait while a transaction runs go into the next one together.

`GroupWriter` owns the one writing connection. An operation is applied in whole or not at all, whether or not its caller
still waits.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from relay.store.base import StoreError
from relay.store.sqlite.commit import ApplyBatch, Failed, Tx, Write, checkpoint, commit
from relay.store.sqlite.in_place import InPlace
from relay.store.sqlite.thread import WorkThread

T = TypeVar("T")
Committed = tuple[list[Any], list[Tx]]
"""what `commit` returns"""

GROUP_OPERATIONS = 16
GROUP_BYTES = 1_000_000
"""A transaction's bounds: an express message that comes while one runs waits no longer than this takes to write, and
then behind as many callers that all wake at once. More would save little: at 16, the disk's share is 16 us each."""
_EXPRESS_OPERATIONS = 16
_BESIDE_EXPRESS_OPERATIONS = 4
_BESIDE_EXPRESS_BYTES = 64_000

_CHECKPOINT_IDLE_PAGES = 1000
_CHECKPOINT_BUSY_PAGES = 3000

_IN_PLACE_BYTES = 64_000
"""What is larger is committed on the thread."""

_LOG = logging.getLogger(__name__)


class Operation(Generic[T]):
    """Something to write, and the future of its caller. `abandoned` is called with a result that no caller takes any
    more; such an operation is skipped if its caller has gone before it began. `batch`: see `commit.Write`.
    `in_place`: it is quick enough to be committed on the event loop."""

    __slots__ = ("abandoned", "future", "in_place", "size_bytes", "write")

    def __init__(
        self,
        apply: Callable[[Tx], T],
        *,
        size_bytes: int = 0,
        abandoned: Callable[[T], None] | None = None,
        batch: tuple[ApplyBatch, Any] | None = None,
        in_place: bool = False,
    ) -> None:
        self.write = Write(apply, batch)
        self.in_place = in_place
        self.size_bytes = size_bytes
        self.abandoned = abandoned
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    @property
    def is_unwanted(self) -> bool:
        return self.abandoned is not None and self.future.cancelled()

    def finish(self, outcome: Any) -> None:
        """`outcome`: the result or `Failed`."""
        if isinstance(outcome, Failed):
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


class GroupWriter:
    """Takes operations from any task and commits them in groups, express ones first."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: WorkThread,
        *,
        explain: Callable[[Exception], Exception],
        committed: Callable[[Tx], None],
    ) -> None:
        """`thread`: runs the commits, but for those in place. `explain`: turns what SQLite raises into the store's own
        error. `committed`: called with each transaction that is durable, before the callers get their results."""
        self._connection = connection
        self._thread = thread
        self._explain = explain
        self._committed = committed
        self._express: deque[Operation[Any]] = deque()
        self._others: deque[Operation[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._busy = False
        """a commit or a checkpoint runs"""
        self._woken = False
        self._in_place = InPlace()
        self._closing = False
        self._written: asyncio.Future[None] | None = None
        """while closing: done when all is written"""
        self._pages = 0

    def submit(self, operation: Operation[T], *, express: bool = False) -> Operation[T]:
        """Queue an operation; an express one is under way before this returns, and perhaps done. Raises StoreError
        once the writer is closing."""
        if self._closing:
            raise StoreError("the store is closed")
        if express:
            self._express.append(operation)
            self._in_place.code_came()
            if not operation.in_place:
                self._next()
            elif self._may_go_at_once():
                self._commit_in_place(self._next_group())
            else:
                self._wake()
        else:
            self._others.append(operation)
            self._wake()
        return operation

    def follow_up(self, apply: Callable[[Tx], Any]) -> None:
        """Queue what follows from an earlier operation and has no caller, also while closing. A failure is logged: the
        next start makes up for it."""
        operation = Operation(apply)
        operation.future.add_done_callback(_log_failure)
        self._others.append(operation)
        self._wake()

    async def close(self) -> None:
        """Write what waits, then close the connection."""
        self._closing = True
        try:
            if self._busy or self._express or self._others:
                self._written = self._written or self._loop.create_future()
                await asyncio.shield(self._written)
        finally:
            await self._thread.close(self._connection.close)

    # One transaction at a time runs; the operations that come meanwhile wait and go together.

    def _wake(self) -> None:
        """In the loop's next turn: others that come in this one go into the same transaction."""
        if not (self._busy or self._woken):
            self._woken = True
            self._in_place.turn_asked()
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._woken = False
        if self._busy:
            return
        small = self._next_group(in_place=True) if self._in_place.at_turn() else []
        if small:
            self._commit_in_place(small)
            return
        group = self._next_group()
        if group:
            self._busy = True
            committing = self._begin(partial(self._commit, group))
            committing.add_done_callback(lambda done: self._finish(group, *self._outcome(group, done.result)))
        elif self._written is not None and not self._written.done():
            self._written.set_result(None)

    def _may_go_at_once(self) -> bool:
        """The one express operation that waits can be committed here and now."""
        alone = not (self._busy or self._others or len(self._express) > 1)
        return alone and self._express[0].size_bytes <= _IN_PLACE_BYTES and self._in_place.now()

    def _commit_in_place(self, group: list[Operation[Any]]) -> None:
        self._busy = True
        began = time.monotonic()
        outcome = self._outcome(group, partial(self._commit, group))
        self._in_place.took(began)
        self._finish(group, *outcome)

    def _commit(self, group: list[Operation[Any]]) -> Committed:
        return commit(self._connection, [operation.write for operation in group], self._explain)

    def _outcome(self, group: list[Operation[Any]], result: Callable[[], Committed]) -> Committed:
        """A commit's result; if the commit could not even be tried, each operation has failed."""
        try:
            return result()
        except asyncio.CancelledError:  # the loop ends
            return [Failed(StoreError("the store is closed"))] * len(group), []
        except Exception as error:  # noqa: BLE001 - it is handed to the callers
            return [Failed(self._explain(error))] * len(group), []

    def _finish(self, group: list[Operation[Any]], outcomes: list[Any], committed: list[Tx]) -> None:
        """Callers first, then a checkpoint if one is due, then the next group."""
        try:
            for tx in committed:
                self._committed(tx)
            for operation, outcome in zip(group, outcomes, strict=True):
                operation.finish(outcome)
        finally:
            # Even if a callback raised, the next ones are written.
            if self._checkpoint_is_due(group):
                self._begin(partial(checkpoint, self._connection)).add_done_callback(self._free)
            else:
                self._free()

    def _begin(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Hand it to the thread; if that fails, the future has the error."""
        try:
            return self._thread.begin(function)
        except Exception as error:  # noqa: BLE001 - it is handed to what waits for the future
            failed: asyncio.Future[T] = self._loop.create_future()
            failed.set_exception(error)
            return failed

    def _free(self, checkpointed: asyncio.Future[Any] | None = None) -> None:
        if checkpointed is not None and not checkpointed.cancelled():
            checkpointed.exception()  # retrieved: `checkpoint` logs what can go wrong
        self._busy = False
        waiting = self._express or self._others
        if waiting and waiting[0].in_place and self._in_place.codes_are_about():
            self._wake()  # in a busy loop it is committed in place
        else:
            self._next()

    def _next_group(self, *, in_place: bool = False) -> list[Operation[Any]]:
        """What is committed next, express ones first. `in_place`: as far as it is quick enough for that."""
        group: list[Operation[Any]] = []
        most_bytes = _IN_PLACE_BYTES if in_place else GROUP_BYTES
        _move(self._express, group, operations=_EXPRESS_OPERATIONS, size_bytes=most_bytes, in_place=in_place)
        if group:
            most, most_bytes = _BESIDE_EXPRESS_OPERATIONS, _BESIDE_EXPRESS_BYTES
        else:
            most = 0 if self._express else GROUP_OPERATIONS
        _move(self._others, group, operations=most, size_bytes=most_bytes, in_place=in_place)
        return group

    def _checkpoint_is_due(self, group: list[Operation[Any]]) -> bool:
        """Is a checkpoint due? It runs after the callers' results, and so never inside of a commit."""
        self._pages += 6 + 2 * len(group) + sum(operation.size_bytes for operation in group) // 4096
        idle = not self._express and not self._others
        if self._pages <= (_CHECKPOINT_IDLE_PAGES if idle else _CHECKPOINT_BUSY_PAGES):
            return False
        self._pages = 0
        return True


def _move(
    source: deque[Operation[Any]],
    group: list[Operation[Any]],
    *,
    operations: int,
    size_bytes: int,
    in_place: bool = False,
) -> None:
    """Move what fits to the group, in order; the first of all fits whatever its size, but not if `in_place`."""
    while source and operations:
        if source[0].size_bytes > size_bytes and (group or in_place):
            return
        if in_place and not source[0].in_place:
            return
        operation = source.popleft()
        if operation.is_unwanted:
            continue
        group.append(operation)
        operations -= 1
        size_bytes -= operation.size_bytes


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _LOG.warning("a follow-up write failed: %s", error)
