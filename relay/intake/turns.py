"""Who goes on when many want to: a few sessions a round of the loop, so that a code's next byte is never far away.

A session whose last message was a code goes on at once. One that is new waits its turn, one that brought bulk mail
waits behind those; whatever comes in meanwhile is only put into a buffer. With nobody waiting a turn costs nothing.

Commands count, too, once a session has had many since its last message. All sessions together have so many in one go;
then the loop rests, and with it the interpreter's lock is free for the thread that commits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Literal

PER_ROUND = 4
COMMANDS = 64
"""of all sessions in one go: about a millisecond"""
REST_S = 0.002
"""after those. uvloop counts whole milliseconds: at least one of these is a real rest."""
_YIELD_AFTER = 16
"""turns"""
_YIELD_WITHIN_S = 0.04
"""turns that took longer than that all together left time for others"""
_YIELD_S = 0.000_05
Priority = Literal["express", "new", "bulk"]


class Turns:
    """One for a server."""

    def __init__(self, per_round: int = PER_ROUND, *, commands: int = COMMANDS, rest_s: float = REST_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._per_round = per_round
        self._left = per_round
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {"new": deque(), "bulk": deque()}
        self._running = False
        self._used = 0
        """turns since other threads had the interpreter"""
        self._used_since = 0.0
        self._commands = commands
        self._rest_s = rest_s
        self._commands_left = commands
        self._talking: dict[Priority, deque[asyncio.Future[None]]] = {
            "express": deque(), "new": deque(), "bulk": deque(),
        }  # fmt: skip
        """sessions whose next command waits"""
        self._resting = False
        self.held_back_s = 0.0
        """what sessions waited, all together"""

    @property
    def waiting(self) -> int:
        """Sessions whose turn hasn't come."""
        return sum(map(len, self._waiting.values())) + sum(map(len, self._talking.values()))

    async def take(self, priority: Priority) -> None:
        """Return when the session may go on with a message."""
        if priority == "express":
            return
        self.begin()
        if self._left and not self._waiting["new"] and (priority == "new" or not self._waiting["bulk"]):
            self._left -= 1
            return
        await self._turn(self._waiting[priority])

    def begin(self) -> None:
        """A session begins something: see to it that there are rounds."""
        self._used += 1
        if not self._running:
            self._running = True
            self._left = self._per_round
            self._loop.call_soon(self._round)

    def has_command(self) -> bool:
        """Whether a session that has had many commands may have one more at once; else it waits for `command`."""
        if not self._commands_left or self._resting:
            return False
        self._commands_left -= 1
        return True

    async def command(self, priority: Priority) -> None:
        """Return when such a session may have its next command: behind a rest, codes' sessions first."""
        if not self._resting:
            self._resting = True
            self._loop.call_later(self._rest_s, self._rested)
        await self._turn(self._talking[priority])

    async def _turn(self, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        queue.append(turn)
        began = time.monotonic()  # finer than the loop's time
        await turn
        self.held_back_s += time.monotonic() - began

    def _round(self) -> None:
        """Called once for each round of the loop in which somebody took or waits for a turn."""
        if self._used >= _YIELD_AFTER:
            self._yield()
        # One of bulk mail's first: whatever new sessions do, it goes on.
        granted = _grant(self._waiting["bulk"], 1)
        granted += _grant(self._waiting["new"], self._per_round - granted)
        granted += _grant(self._waiting["bulk"], self._per_round - granted)
        self._left = self._per_round - granted
        self._used += granted
        self._running = granted > 0
        if self._running:
            self._loop.call_soon(self._round)

    def _yield(self) -> None:
        """Rounds follow each other without a rest, and a loop that only looks for what is new lets go of the
        interpreter's lock for less time than another thread takes to wake up: the store's would get it never."""
        now = time.monotonic()
        if now - self._used_since < _YIELD_WITHIN_S:
            time.sleep(_YIELD_S)
        self._used, self._used_since = 0, now

    def _rested(self) -> None:
        granted = 0
        for queue in self._talking.values():
            granted += _grant(queue, self._commands - granted)
        self._commands_left = self._commands - granted
        self._resting = any(self._talking.values())
        if self._resting:
            self._loop.call_later(self._rest_s, self._rested)


def _grant(waiting: deque[asyncio.Future[None]], most: int) -> int:
    granted = 0
    while waiting and granted < most:
        turn = waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            granted += 1
    return granted
