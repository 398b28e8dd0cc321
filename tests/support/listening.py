"""What the scripted servers of the tests have in common: they listen, keep their connections, and wait for events."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from tests.support.wire import Wire

W = TypeVar("W", bound=Wire)


class Listening(ABC, Generic[W]):
    """An async context manager. The end of the context ends all connections."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._wires: set[W] = set()
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pause()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        self._reset_all()

    @abstractmethod
    async def resume(self) -> None:
        """Listen (again) on the same port."""

    async def pause(self) -> None:
        """Stop listening: new connections are refused. Open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def changed(self) -> None:
        """Something happened that `wait_until` may wait for."""
        self._changed.set()

    async def wait_until(self, holds: Callable[[], bool], within_s: float = 10.0) -> None:
        """Until `holds()`, looked at whenever a connection moves. Else AssertionError with what was seen."""
        try:
            async with asyncio.timeout(within_s):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {self._seen()}") from None

    @abstractmethod
    def _seen(self) -> str:
        """What came, for a test that fails."""

    def _reset_all(self) -> None:
        for wire in list(self._wires):
            wire.reset()

    def _swallow_all(self) -> None:
        for wire in list(self._wires):
            wire.swallow()
