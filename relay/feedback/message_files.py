"""The message files as the feedback process reads them: the main process's and the workers', which may come later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from relay.store.base import StoreError
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.thread import WorkThread

LOOK_EVERY_S = 1.0
"""how often it looks for files of new workers"""


class MessageFiles:
    """`open` them, then `watch` as a background task."""

    def __init__(self, paths: Callable[[], Sequence[Path]], trouble: Callable[[str, BaseException], None]) -> None:
        """`paths`: the files that exist now; raises StoreError."""
        self.by_name: dict[str, Reader] = {}
        """used on `thread` only"""
        self.thread = WorkThread("message files")
        self._paths = paths
        self._trouble = trouble

    def readers(self) -> Sequence[Reader]:
        return list(self.by_name.values())

    async def open(self) -> None:
        """Open those that aren't open. Raises StoreError."""
        for path in self._paths():
            if path.name not in self.by_name:
                self.by_name[path.name] = await self.thread.run(partial(Reader.open, path))

    async def watch(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.open()
            except StoreError as error:
                self._trouble("read", error)

    async def close(self) -> None:
        await self.thread.close(self._close)

    def _close(self) -> None:
        for reader in self.by_name.values():
            reader.close()
