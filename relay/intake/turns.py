"""Who goes on when many want to: a few sessions a round of the loop, so that a code's next byte is never far away.

A session whose last message was a code goes on at once. One that is new waits its turn, one that brought bulk mail
waits behind those; whatever comes in meanwhile is only put into a buffer. With nobody waiting a turn costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Literal

PER_ROUND = 4
Standing = Literal["express", "new", "bulk"]


class Turns:
    """One for a server."""

    def __init__(self, per_round: int = PER_ROUND) -> None:
        self._loop = asyncio.get_running_loop()
        self._per_round = per_round
        self._left = per_round
        self._waiting: dict[Standing, deque[asyncio.Future[None]]] = {"new": deque(), "bulk": deque()}
        self._running = False
        self.held_back_s = 0.0
        """what sessions waited, all together"""

    @property
    def waiting(self) -> int:
        """Sessions whose turn hasn't come."""
        return sum(map(len, self._waiting.values()))

    async def take(self, standing: Standing) -> None:
        """Return when the session may go on."""
        if standing == "express":
            return
        if not self._running:
            self._running = True
            self._left = self._per_round
            self._loop.call_soon(self._round)
        if self._left and not self._waiting["new"] and (standing == "new" or not self._waiting["bulk"]):
            self._left -= 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting[standing].append(turn)
        began = time.monotonic()  # finer than the loop's time
        await turn
        self.held_back_s += time.monotonic() - began

    def _round(self) -> None:
        """Called once for each round of the loop in which somebody took or waits for a turn."""
        # One of bulk mail's first: whatever new sessions do, it goes on.
        granted = self._grant("bulk", 1)
        granted += self._grant("new", self._per_round - granted)
        granted += self._grant("bulk", self._per_round - granted)
        self._left = self._per_round - granted
        self._running = granted > 0
        if self._running:
            self._loop.call_soon(self._round)

    def _grant(self, standing: Standing, most: int) -> int:
        waiting, granted = self._waiting[standing], 0
        while waiting and granted < most:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                granted += 1
        return granted
