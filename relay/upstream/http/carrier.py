"""A request that waits at its message's gate."""

from __future__ import annotations

import asyncio
import time

from relay.clock import steady
from relay.mail.reply import Reply
from relay.upstream.gate import Gate
from relay.upstream.results import TIMED_OUT


class Carrier:
    """`relay.upstream.gate.Carrier`."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._moved = asyncio.Event()

    def proceed(self) -> None:
        self._moved.set()

    def stop(self) -> None:
        self.stopped.set()

    async def passes(self, gate: Gate, deadline: float, *, needs_mark: bool) -> Reply | None:
        """None: the request may leave. A reply: why not. `deadline`: time.monotonic. `needs_mark`: see `Gate.ask`."""
        while (answer := gate.ask(self, steady(), needs_mark=needs_mark)) == "wait":
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._moved.wait()
            except TimeoutError:
                return TIMED_OUT
            self._moved.clear()
        return None if answer == "go" else gate.reason()
