"""Attempts that wait for a session, in the order in which they came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, Literal

from relay.upstream.results import OpenFailed
from relay.upstream.sessions.kept import S

Wants = Literal["any", "own", "new"]
"""`any`: a session, also behind other messages; `own`: one that carries nothing else; `new`: one that is opened now"""

BEHIND_OTHERS: tuple[Wants, ...] = ("any",)
KEPT: tuple[Wants, ...] = ("any", "own")
NEW: tuple[Wants, ...] = ("any", "own", "new")
"""for which attempts such a session is good"""


@dataclass(eq=False, slots=True)
class Waiter(Generic[S]):
    session: asyncio.Future[S]
    wants: Wants


class Waiters(Generic[S]):
    """Its length is the number of attempts that wait."""

    def __init__(self) -> None:
        self._waiting: list[Waiter[S]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, wants: Wants) -> Waiter[S]:
        """One more; await its `session`, then `remove` it if that raised."""
        waiter: Waiter[S] = Waiter(asyncio.get_running_loop().create_future(), wants)
        self._waiting.append(waiter)
        return waiter

    def supply(self, session: S, wanted: tuple[Wants, ...]) -> bool:
        """Give the session to the first that waits for such a one. False: none does."""
        for waiter in list(self._waiting):
            if waiter.session.done():
                self._waiting.remove(waiter)
            elif waiter.wants in wanted:
                self._waiting.remove(waiter)
                waiter.session.set_result(session)
                return True
        return False

    def remove(self, waiter: Waiter[S]) -> S | None:
        """It waits no longer. Returns the session that it was given meanwhile."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if not waiter.session.done():
            waiter.session.cancel()
        elif not waiter.session.cancelled() and waiter.session.exception() is None:
            return waiter.session.result()
        return None

    def fail(self, failure: OpenFailed) -> None:
        """Let each that waits raise this."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.session.done():
                waiter.session.set_exception(failure)
