"""One life of a worker: its process and the link to it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Self

from relay.ipc import Link, LinkLost, NotificationHandler, RequestHandler
from relay.workers import messages
from relay.workers.spawn import Process, Started

PING_EVERY_S = 2.0
SILENT_FOR_S = 10.0
"""an event loop that doesn't turn for this long hangs; a worker on a busy machine waits for a processor, but not as
long"""
FIRST_REPLY_WITHIN_S = 60.0
"""includes the start of the interpreter"""
ENDS_WITHIN_S = 5.0
"""a worker that has lost its link finishes what it can and ends within this time"""


class Life:
    """A worker's process and link, from `begin` to `end`."""

    def __init__(self, process: Process, link: Link) -> None:
        self.link = link
        self._process = process

    @classmethod
    async def begin(
        cls,
        started: Started,
        on_request: RequestHandler,
        on_notification: NotificationHandler,
        on_lost: Callable[[], None],
    ) -> Self:
        return cls(started.process, await Link.over(started.link, on_request, on_notification, on_lost))

    async def wait_until_ended(self) -> None:
        """Wait until the process has ended. Raises LinkLost then."""
        await self._process.wait()
        raise LinkLost

    async def wait_until_hung(self) -> None:
        """Wait until its event loop doesn't turn any more. Raises LinkLost when the link is gone first."""
        patience_s = FIRST_REPLY_WITHIN_S
        while await self._replies(patience_s):
            patience_s = SILENT_FOR_S
            await asyncio.sleep(PING_EVERY_S)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Close the link, at which the process ends; kill it if it doesn't."""
        self.link.close()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), ENDS_WITHIN_S)
        finally:
            if self._process.returncode is None:
                self.kill()
                await self._process.wait()

    async def _replies(self, within_s: float) -> bool:
        """Does its event loop turn? It is asked once, and waited for in steps of a second: while this process itself
        is stopped or gets no processor, one step passes, not all of them. Raises LinkLost."""
        asking = asyncio.ensure_future(self.link.ask(messages.PING))
        try:
            for _ in range(math.ceil(within_s)):
                await asyncio.wait((asking,), timeout=1.0)
                if asking.done():
                    await asking
                    return True
            return False
        finally:
            asking.cancel()
