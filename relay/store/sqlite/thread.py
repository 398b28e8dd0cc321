"""A thread that runs functions in order, for what blocks: SQLite's commits and queries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from relay.store.base import StoreError

T = TypeVar("T")


class WorkThread:
    """Runs each function to its end, whether or not its caller still waits."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._is_closed = False
        # Daemon: what was acknowledged is durable, so a process that must end needn't wait for this thread.
        Thread(target=self._work, name=name, daemon=True).start()

    def begin(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Hand over a function, at once. Raises StoreError once closed."""
        if self._is_closed:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, function))
        return future

    async def run(self, function: Callable[[], T]) -> T:
        """The function's result or exception. Raises StoreError once closed."""
        return await self.begin(function)

    async def close(self, last: Callable[[], None]) -> None:
        """Run what was handed over, then `last`, and end. A second call does nothing."""
        if not self._is_closed:
            closing = self.begin(last)
            self._is_closed = True
            self._calls.put(None)
            await closing

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            result, error = None, None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - it is the caller's
                error = raised
            with suppress(RuntimeError):  # the loop has been closed
                future.get_loop().call_soon_threadsafe(_set, future, result, error)
            del call, future, function, result, error  # a large content isn't kept until the next call


def _set(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
