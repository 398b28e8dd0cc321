"""Keeps a pool's sessions fit in the background: warm ones open, old ones replaced, an open circuit probed."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Generic

from relay.upstream.base import Upstream
from relay.upstream.sessions.kept import S
from relay.upstream.sessions.pool import Pool
from relay.upstream.warm import CLOSES_AT_ONCE_S, Warm, WarmTarget

MAINTAIN_EVERY_S = 0.5
MAINTENANCE_PER_IDLE = 8
LEARNED_SHARE = 0.6
"""An upstream that closed idle sessions after 10 s has the next ones retired after 6."""
LEARNED_UP_TO = 0.9
LEARNED_FOR_S = 3_600.0
"""For so long the limit doesn't grow beyond that share of what was learned."""
IDLE_LIMIT_GROWTH = 1.05
"""Each session that was retired in time is a reason to keep the next a little longer."""
LEAST_IDLE_S = 0.1
"""a shorter limit would do nothing but open sessions"""
OVERDUE = 1.5
"""A session that is idle for so many times its limit, and can't be replaced, is kept open by RSET."""


class Maintenance(Generic[S]):
    """Of one pool. `idle_limit_s`: how long a session may be idle before it is replaced; learnt from the upstream."""

    def __init__(self, upstream: Upstream, pool: Pool[S]) -> None:
        sessions = upstream.config.sessions
        self._most_idle_s = self.idle_limit_s = max(LEAST_IDLE_S, sessions.idle_s)
        self.target = WarmTarget(sessions.warm if upstream.express else 0, sessions.max)
        self._upstream = upstream
        self._pool = pool
        self._closed_after_s = math.inf
        """the idle time of the session that the upstream closed last"""
        self._learned_s = math.inf
        self._learned_at = 0.0
        """the upstream closes sessions that were idle for so long; when that was learnt"""
        self._astray: set[S] = set()
        """sessions that no task used at the last sweep"""
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        pool.on_closed = self._closed
        pool.on_change = self._tend_soon

    def start(self) -> None:
        """Maintain now, and then every half second or more often."""
        every_s = min(MAINTAIN_EVERY_S, self.idle_limit_s / MAINTENANCE_PER_IDLE)
        self._timer = asyncio.get_running_loop().call_later(every_s, self.start)
        self._maintain(time.monotonic())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def warm(self) -> Warm:
        """How many sessions are kept open, and why."""
        now = time.monotonic()
        return self.target.now(now, self._upstream.window.sessions(now))

    def note_demand(self, messages: int) -> None:
        """So many messages are under way. More sessions are opened ahead, once what is to leave now has left."""
        if self.target.note(time.monotonic(), messages):
            self._tend_soon()

    def _tend_soon(self) -> None:
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._tend)

    def _tend(self) -> None:
        self._soon = False
        if self._pool.is_closing or self._upstream.circuit.state != "closed":
            return
        now = time.monotonic()
        self._refill(now)
        self._replace(now)

    def _maintain(self, now: float) -> None:
        pool, circuit = self._pool, self._upstream.circuit
        self._sweep()
        pool.on_capacity()
        if circuit.state == "open" and now >= circuit.probe_at and not pool.openings:
            pool.close_idle()  # the probe may need its place
            return
        if pool.waiting and not pool.openings and circuit.state == "closed":
            pool.close_idle()  # each that waits wants a new one, and this has its place
        for session in list(pool.idle):
            if not session.usable:
                pool.idle.remove(session)
                session.abort()
            elif now - session.idle_since >= CLOSES_AT_ONCE_S:
                self.target.stayed_open()
        self._refill(now)
        self._replace(now)

    def _is_old(self, session: S, now: float) -> bool:
        """It is to be replaced: it was idle for long, or is worn."""
        idle = session in self._pool.idle and now - session.idle_since >= self.idle_limit_s
        return idle or self._pool.is_worn(session)

    def _fresh(self, now: float) -> int:
        """Open sessions, in use or not, that need no successor."""
        return sum(session.is_open and not self._is_old(session, now) for session in self._pool.sessions)

    def _refill(self, now: float) -> None:
        """Open sessions up to the warm ones; what needs a successor doesn't count. The first one is opened alone: it
        tells whether the upstream is there."""
        pool, warm = self._pool, self.warm().sessions
        if self._upstream.express:
            pool.reserved = self.target.reserved(warm)
        there = self._fresh(now) + len(pool.openings)
        while self._upstream.circuit.state == "closed" and there < warm:
            if pool.openings and not pool.sessions:
                return
            if not pool.open_one(ahead=there >= pool.reserved):
                return
            there += 1

    def _replace(self, now: float) -> None:
        """Close old sessions whose successors are open, or can't be opened while the circuit is open. Where there is
        no place for a successor, the session that was idle longest gives way. The only one is kept open by RSET."""
        pool, warm, fresh = self._pool, self.warm().sessions, self._fresh(now)
        for session in [each for each in pool.idle if self._is_old(each, now)]:
            if fresh >= warm or self._upstream.circuit.state != "closed":
                self._retire(session)
            elif pool.openings or self._is_giving_way():
                return
            elif len(pool.idle) > 1:
                self._retire(session)
                return
            elif now - session.idle_since >= self.idle_limit_s * OVERDUE:
                pool.idle.remove(session)
                session.reset()

    def _retire(self, session: S) -> None:
        self._pool.idle.remove(session)
        session.quit()
        now = time.monotonic()
        if now - session.idle_since > self._closed_after_s:
            self._closed_after_s = math.inf  # what was closed before wasn't closed for its idle time
        learned_s = math.inf if now - self._learned_at > LEARNED_FOR_S else self._learned_s
        limit_s = min(self.idle_limit_s * IDLE_LIMIT_GROWTH, max(self.idle_limit_s, learned_s * LEARNED_UP_TO))
        self.idle_limit_s = min(self._most_idle_s, limit_s)

    def _is_giving_way(self) -> bool:
        return any(session.state == "quitting" for session in self._pool.sessions)

    def _closed(self, session: S) -> None:
        if self._pool.is_closing:
            return
        if session.closed_idle_after_s is not None:
            self._learn_idle_limit(session, session.closed_idle_after_s)
        self._tend_soon()  # the session's place comes back first

    def _learn_idle_limit(self, session: S, after_s: float) -> None:
        now = time.monotonic()
        if after_s < CLOSES_AT_ONCE_S:
            if session.transactions:
                return  # it may have carried as many as the upstream allows
            opened_at = session.opening.began_at
            if self.target.closed_at_once(now, opened_at, after_s):
                self._upstream.opens_on_demand(after_s)
            return
        self.target.stayed_open()
        # Two in a row are a habit; one may be a server that was restarted.
        habit_s, self._closed_after_s = max(after_s, self._closed_after_s), after_s
        if habit_s < self.idle_limit_s:
            self._learned_s, self._learned_at = habit_s, now
            self.idle_limit_s = habit_s * LEARNED_SHARE

    def _sweep(self) -> None:
        """A safety net: close a session that is neither idle nor closing, and whose tasks are over. It must be found
        twice in a row, since it may just be handed over."""
        astray = {session for session in self._pool.sessions if self._is_astray(session)}
        for session in astray & self._astray:
            session.abort()
        self._astray = astray

    def _is_astray(self, session: S) -> bool:
        if session in self._pool.idle or session.state not in ("idle", "busy"):
            return False
        return self._pool.loans.are_over(session)
