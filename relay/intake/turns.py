"""Turns: only a few sessions proceed in each iteration of the event loop, those of codes first.

A session whose last message was a code proceeds at once. Others wait for a turn with each message: new sessions before
those that bring bulk mail, and of new sessions those whose content is there before those that begin. A code's next
byte is then never far away. While no session waits, a turn costs nothing.

A session that has had many commands since its last message takes turns for each command, too. All such sessions share
COMMANDS; then the loop rests, and the interpreter's lock is free for the thread that commits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Literal

PER_ROUND = 4
COMMANDS = 64
"""About a millisecond's worth."""
REST_S = 0.002
"""uvloop counts whole milliseconds: at least one of these is a real rest."""
_YIELD_AFTER = 16
"""Turns."""
_YIELD_WITHIN_S = 0.04
"""Turns that took longer than this together left time for other threads."""
_YIELD_S = 0.000_05
Priority = Literal["express", "new", "bulk"]
_Kind = Literal["received", "new", "bulk"]
"""`received`: a new session whose first content is there"""
_KINDS: tuple[_Kind, ...] = ("received", "new", "bulk")
"""the first go first"""
_Queue = deque[asyncio.Future[None]]


class Turns:
    """One for all sessions of a server. A round is an iteration of the event loop."""

    def __init__(self, per_round: int = PER_ROUND, *, commands: int = COMMANDS, rest_s: float = REST_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._per_round = per_round
        self._left = per_round
        """turns left in this round"""
        self._messages: dict[_Kind, _Queue] = {"received": deque(), "new": deque(), "bulk": deque()}
        self._in_round = False
        self._used = 0
        """turns since other threads had the interpreter's lock"""
        self._used_since = 0.0
        self._per_rest = commands
        self._rest_s = rest_s
        self._commands_left = commands
        self._commands: dict[Priority, _Queue] = {"express": deque(), "new": deque(), "bulk": deque()}
        self._resting = False
        self.held_back_s = 0.0
        """how long sessions have waited for turns, in all"""

    @property
    def waiting(self) -> int:
        """How many sessions wait for a turn."""
        return sum(map(len, (*self._messages.values(), *self._commands.values())))

    async def for_message(self, priority: Priority, *, received: bool = False) -> None:
        """Return when the session may go on with a message. `received`: its content is there."""
        if priority == "express":
            return
        self.count()
        kind: _Kind = "received" if received and priority == "new" else priority
        if self._left and not any(self._messages[each] for each in _KINDS[: _KINDS.index(kind) + 1]):
            self._left -= 1
            return
        await self._wait(self._messages[kind])

    def count(self) -> None:
        """Count a turn, and begin a round where none is under way. A session's greeting counts, and never waits."""
        self._used += 1
        if not self._in_round:
            self._in_round = True
            self._left = self._per_round
            self._loop.call_soon(self._end_round)

    def use_command(self) -> bool:
        """Whether a session past its free commands may have one more at once; else `for_command` waits for it."""
        if not self._commands_left or self._resting:
            return False
        self._commands_left -= 1
        return True

    async def for_command(self, priority: Priority) -> None:
        """Return when such a session may have its next command: after a rest, sessions of codes first."""
        if not self._resting:
            self._resting = True
            self._loop.call_later(self._rest_s, self._end_rest)
        await self._wait(self._commands[priority])

    async def _wait(self, queue: _Queue) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        queue.append(turn)
        began = time.monotonic()  # finer than the loop's time
        await turn
        self.held_back_s += time.monotonic() - began

    def _end_round(self) -> None:
        if self._used >= _YIELD_AFTER:
            self._yield_lock()
        # One turn for bulk mail first: whatever new sessions do, it goes on.
        granted = _grant(self._messages["bulk"], 1)
        for kind in _KINDS:
            granted += _grant(self._messages[kind], self._per_round - granted)
        self._left = self._per_round - granted
        self._used += granted
        self._in_round = granted > 0
        if self._in_round:
            self._loop.call_soon(self._end_round)

    def _yield_lock(self) -> None:
        """Let another thread have the interpreter's lock. A busy loop releases it for less time than a thread needs to
        wake up, so the store's thread would never get it."""
        now = time.monotonic()
        if now - self._used_since < _YIELD_WITHIN_S:
            time.sleep(_YIELD_S)
        self._used, self._used_since = 0, now

    def _end_rest(self) -> None:
        granted = 0
        for queue in self._commands.values():
            granted += _grant(queue, self._per_rest - granted)
        self._commands_left = self._per_rest - granted
        self._resting = any(self._commands.values())
        if self._resting:
            self._loop.call_later(self._rest_s, self._end_rest)


def _grant(queue: _Queue, most: int) -> int:
    """Give turns to the first `most` sessions that still wait; returns how many got one."""
    granted = 0
    while queue and granted < most:
        turn = queue.popleft()
        if not turn.done():
            turn.set_result(None)
            granted += 1
    return granted
