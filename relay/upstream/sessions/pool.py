"""The sessions of one lane to one upstream: opened when they are waited for, lent to attempts, kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Generic

from relay.mail.reply import Reply
from relay.upstream.base import Upstream
from relay.upstream.depth import Depth
from relay.upstream.quota import SessionQuota
from relay.upstream.results import OpenFailed
from relay.upstream.sessions.certificate import certificate_end, replace_at
from relay.upstream.sessions.kept import S
from relay.upstream.sessions.loans import Loans
from relay.upstream.sessions.openings import CLOSE_WITHIN_S, Openings
from relay.upstream.sessions.waiters import BEHIND_OTHERS, KEPT, NEW, Waiters, Wants

_SHUTTING_DOWN = Reply.own(451, "4.3.2", "shutting down")
NO_SESSION = Reply.own(451, "4.4.5", "no session free in time")
WORN_SHARE = 10
"""A session is worn when a tenth of its messages is left: its successor is opened then."""


class Pool(Generic[S]):
    """`acquire` a session (or `take`), use it for one transaction, `release` it. A QuotaClient."""

    def __init__(
        self, upstream: Upstream, quota: SessionQuota, opened: Callable[[float], Awaitable[S]], *, open_within_s: float
    ) -> None:
        """`upstream` has the circuit and the window, and learns what the pool meets. `opened` opens a session within so
        many seconds, or raises OpenFailed."""
        sessions = upstream.config.sessions
        self.express = upstream.express
        self.reserved = sessions.least if upstream.express else 0
        self.depth = Depth(sessions.depth if upstream.express else 1)
        self.sessions: set[S] = set()
        self.idle: list[S] = []
        self.loans: Loans[S] = Loans()
        self.openings: Openings[S] = Openings(upstream, quota, opened, self._opened, open_within_s=open_within_s)
        self.is_closing = False
        self.on_change: Callable[[], None] = lambda: None
        """called when a session was opened, or is worn"""
        self.on_out_of_step: Callable[[], None] = lambda: None
        """called when a reply came over a session that nothing asked for"""
        self.on_closed: Callable[[S], None] = lambda _: None
        """called when a session has gone"""
        self._upstream = upstream
        self._most_messages = sessions.messages
        self._quota = quota
        self.waiting: Waiters[S] = Waiters()
        self._empty = asyncio.Event()

    def start(self) -> None:
        # Not before: places would be kept for a pool that a reload built in vain.
        self._quota.join(self)

    async def close(self) -> None:
        """Close every session with QUIT. Transactions under way are cut off."""
        self.is_closing = True
        await self.openings.cancel()
        self.waiting.fail(OpenFailed("connect", _SHUTTING_DOWN))
        for session in list(self.sessions):
            session.quit()
        if self.sessions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_WITHIN_S)
        for session in list(self.sessions):
            session.abort()
        self._quota.leave(self)

    @property
    def session_count(self) -> int:
        """Sessions open or opening (QuotaClient)."""
        return len(self.sessions) + len(self.openings)

    def is_worn(self, session: S) -> bool:
        """It nears its last message, or the end of its certificate."""
        most = self._most_messages
        few_left = session.transactions > 0 and most - session.transactions <= max(1, most // WORN_SHARE)
        return few_left or time.monotonic() >= session.replace_at

    def take_idle(self) -> S | None:
        """An idle session, the one used last first: the others may grow old and be replaced. A worn one comes last."""
        while self.idle:
            fresh = next((session for session in reversed(self.idle) if not self.is_worn(session)), self.idle[-1])
            self.idle.remove(fresh)
            if fresh.usable:
                self.loans.lend(fresh)
                return fresh
            fresh.abort()  # closing, or part of a reply came that nothing asked for
        return None

    def take(self, wants: Wants = "any") -> S | None:
        """A session that can be used at once; None: there is none."""
        if wants == "new":
            return None
        session = self.take_idle()
        if session is None and wants == "any":
            session = min(filter(self._has_room, self.sessions), key=lambda one: one.depth, default=None)
            if session is not None:
                self.loans.lend(session)
                if self.session_count < len(self.loans) and self._upstream.circuit.state == "closed":
                    # The next messages share themselves among more sessions.
                    asyncio.get_running_loop().call_soon(self.open_one)
        return session

    async def acquire(self, *, within_s: float, wants: Wants = "any") -> S:
        """A session, opened if need be. Raises OpenFailed."""
        session = self.take(wants)
        if session is not None:
            return session
        if self.is_closing:
            raise OpenFailed("connect", _SHUTTING_DOWN)
        waiter = self.waiting.add(wants)
        try:
            self.on_capacity()
            if wants == "new" and not self.openings and not self.close_idle():
                waiter.wants = "own"  # all places are in use
            async with asyncio.timeout(within_s):
                session = await waiter.session
        except BaseException as error:
            if (unused := self.waiting.remove(waiter)) is not None:
                self.loans.end(unused, promised=True)
                self._offer(unused)
            if isinstance(error, TimeoutError):
                raise OpenFailed("connect", NO_SESSION) from error
            raise
        self.loans.lend(session)
        return session

    def release(self, session: S) -> None:
        """The caller's transaction is over: keep the session if it can carry another."""
        self.loans.end(session)
        self._offer(session)
        if self.is_worn(session):
            self.on_change()

    def close_idle(self) -> bool:
        """Close the session that was idle longest; False: there is none (QuotaClient)."""
        for session in list(self.idle):
            self.idle.remove(session)
            if session.usable:
                session.quit()
                return True
            session.abort()
        return False

    def on_capacity(self) -> None:
        """Open as many sessions as are waited for, as far as quota and window go (QuotaClient). A probe that is due
        comes first: no attempt waits for it, so a place that was given for it would go back unused."""
        self.probe(time.monotonic())
        # While a probe is under way, all attempts wait for its end.
        half_open = self._upstream.circuit.state == "half-open"
        while not half_open and len(self.openings) < len(self.waiting) and self.open_one():
            pass

    def probe(self, now: float) -> None:
        """Open a session to probe an open circuit, when that is due."""
        circuit = self._upstream.circuit
        due = circuit.state == "open" and now >= circuit.probe_at and not self.openings
        if due and self.open_one():
            circuit.probing()

    def open_one(self, *, ahead: bool = False) -> bool:
        """Begin to open a session; False: quota or window allow none. `ahead`: none waits for it, so no other lane is
        to give up a place."""
        if self.is_closing or self.session_count >= self._upstream.window.sessions(time.monotonic()):
            return False
        if not self._quota.acquire(self, ahead=ahead):
            return False
        self.openings.begin()
        return True

    def _opened(self, session: S) -> None:
        self.sessions.add(session)
        session.on_closed, session.on_free, session.on_room = self._closed, self._offer, self._offer
        session.reads_ahead = lambda: self.depth.is_proven
        try:
            ends_at = certificate_end(session)
            self._upstream.certificates.note(self._upstream.via, ends_at)
            session.replace_at = min(replace_at(ends_at), time.monotonic() + session.lives_s)
            self.depth.opened(time.monotonic() - session.opening.began_at)
            self._upstream.window.opened(len(self.sessions))
            self._upstream.connected()
            self._keep(session)
            self.on_change()
        except BaseException:
            session.abort()
            raise

    def _has_room(self, session: S) -> bool:
        """Another message may stand behind those that the session carries."""
        users = self.loans.count(session)
        begun = users <= session.depth  # else an attempt has it that hasn't begun yet
        left = session.transactions < self._most_messages
        allowed = users > 0 and self.depth.allows_behind(time.monotonic(), users)
        return allowed and begun and left and session.has_room and not self.is_closing

    def _offer(self, session: S) -> None:
        """Give the session to an attempt that waits, or keep it, unless it carries something and has no room."""
        if self.loans.count(session):
            if self.waiting and self._has_room(session) and self.waiting.supply(session, BEHIND_OTHERS):
                self.loans.promise(session)
        elif session.usable:
            self._keep(session)
        elif session.state == "idle":
            session.abort()

    def _keep(self, session: S) -> None:
        """An idle session goes to an attempt that waits, else it is kept, unless it must close."""
        # One that has just been answered is as good as new to an attempt for which none is being opened.
        is_new = session.transactions == 0 or not self.openings
        worn_out = session.transactions >= self._most_messages
        if self.is_closing or worn_out or self._quota.must_close(self):
            session.quit()
        elif self.waiting.supply(session, NEW if is_new else KEPT):
            self.loans.promise(session)
        else:
            self.idle.append(session)

    def _closed(self, session: S) -> None:
        self.sessions.discard(session)
        self.loans.forget(session)
        if not self.sessions:
            self._empty.set()
        if session in self.idle:
            self.idle.remove(session)
        try:
            if session.is_out_of_step:
                self.on_out_of_step()
            self.on_closed(session)
        finally:
            self._quota.release()
