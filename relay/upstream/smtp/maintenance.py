"""Keeps a pool's sessions fit in the background: warm ones open, old ones retired, an open circuit probed."""

from __future__ import annotations

import asyncio
import math
import time

from relay.upstream.base import Upstream
from relay.upstream.smtp.pool import Pool
from relay.upstream.smtp.session import Session

MAINTAIN_EVERY_S = 0.5
MAINTENANCE_PER_IDLE = 8
LEARNED_SHARE = 0.6
"""An upstream that closed idle sessions after 10 s has the next ones retired after 6."""
LEARNED_FLOOR_S = 0.5
IDLE_LIMIT_GROWTH = 1.05
"""Each session that was retired in time is a reason to keep the next a little longer."""


class Maintenance:
    """Of one pool. `idle_limit_s`: how long a session may be idle before it is replaced; learnt from the upstream."""

    def __init__(self, upstream: Upstream, pool: Pool) -> None:
        self.idle_limit_s = upstream.config.sessions.idle_s
        self._upstream = upstream
        self._pool = pool
        self._closed_after_s = math.inf
        """the idle time of the session that the upstream closed last"""
        self._astray: set[Session] = set()
        """sessions that no task used at the last sweep"""
        self._timer: asyncio.TimerHandle | None = None
        pool.on_closed = self._closed

    def start(self) -> None:
        """Maintain now, and then every half second or more often."""
        every_s = min(MAINTAIN_EVERY_S, self.idle_limit_s / MAINTENANCE_PER_IDLE)
        self._timer = asyncio.get_running_loop().call_later(every_s, self.start)
        self._maintain(time.monotonic())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _maintain(self, now: float) -> None:
        pool, circuit = self._pool, self._upstream.circuit
        self._sweep()
        pool.on_capacity()
        if circuit.state == "open" and now >= circuit.probe_at and not pool.openings:
            pool.close_idle()  # the probe may need its place
            return
        for session in list(pool.idle):
            if not session.usable:
                pool.idle.remove(session)
                session.abort()
            elif now - session.idle_since >= self.idle_limit_s:
                self._retire(session)
        self._refill()

    def _retire(self, session: Session) -> None:
        """Replace a warm session only after its replacement is connected, unless it is overdue."""
        pool = self._pool
        young = len(pool.idle) - 1 + len(pool.openings)
        if self._upstream.circuit.state == "closed" and young < pool.warm and pool.open_one():
            return
        if len(pool.idle) > pool.warm or pool.warm == 0 or not pool.openings:
            pool.idle.remove(session)
            session.quit()
            self.idle_limit_s = min(self._upstream.config.sessions.idle_s, self.idle_limit_s * IDLE_LIMIT_GROWTH)

    def _refill(self) -> None:
        """Open sessions up to the warm ones."""
        pool = self._pool
        while self._upstream.circuit.state == "closed" and pool.session_count < pool.warm and pool.open_one():
            pass

    def _closed(self, session: Session) -> None:
        if self._pool.is_closing:
            return
        if session.closed_idle_after_s is not None:
            self._learn_idle_limit(session, session.closed_idle_after_s)
        asyncio.get_running_loop().call_soon(self._refill)  # the session's place comes back first

    def _learn_idle_limit(self, session: Session, after_s: float) -> None:
        if after_s < LEARNED_FLOOR_S:
            if session.transactions == 0:
                self._upstream.connection_lost()  # closed as soon as opened: opening the next would go on for ever
            return
        # Two in a row are a habit; one may be a server that was restarted.
        habit_s, self._closed_after_s = max(after_s, self._closed_after_s), after_s
        if habit_s < self.idle_limit_s:
            self.idle_limit_s = max(LEARNED_FLOOR_S, habit_s * LEARNED_SHARE)

    def _sweep(self) -> None:
        """A safety net: close a session that is neither idle nor closing, and whose task is over. It must be found
        twice in a row, since it may just be handed over."""
        astray = {session for session in self._pool.sessions if self._is_astray(session)}
        for session in astray & self._astray:
            session.abort()
        self._astray = astray

    def _is_astray(self, session: Session) -> bool:
        if session in self._pool.idle or session.state not in ("idle", "busy"):
            return False
        user = self._pool.lent.get(session)
        return user is None or user.done()
