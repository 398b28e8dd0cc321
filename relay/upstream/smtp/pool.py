"""The sessions of one lane to one upstream: opened when they are waited for, lent for one transaction, kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from relay.mail.reply import Reply
from relay.upstream.base import Upstream
from relay.upstream.quota import SessionQuota
from relay.upstream.results import OpenFailed, Phase
from relay.upstream.smtp.connect import Target, open_session
from relay.upstream.smtp.session import Session
from relay.upstream.window import is_throttling_text

CLOSE_WITHIN_S = 1.0
_CONNECT_PHASES: tuple[Phase, ...] = ("connect", "greeting", "ehlo")
"""In these phases a failure may mean "too many sessions", whatever the reply says."""
_SHUTTING_DOWN = Reply.own(451, "4.3.2", "shutting down")
NO_SESSION = Reply.own(451, "4.4.5", "no session free in time")


class Pool:
    """`acquire` a session (or `take_idle`), use it for one transaction, `release` it. A QuotaClient."""

    def __init__(self, upstream: Upstream, target: Target, quota: SessionQuota, *, open_within_s: float) -> None:
        """`upstream` has the circuit and the window, and learns what the pool meets."""
        self.express = upstream.express
        warm = target.config.sessions.warm
        self.warm = (warm if isinstance(warm, int) else 1) if upstream.express else 0
        self.reserved = max(1, self.warm) if upstream.express else 0
        self.sessions: set[Session] = set()
        self.idle: list[Session] = []
        self.lent: dict[Session, asyncio.Task[Any] | None] = {}
        """sessions in use, each with the task that uses it"""
        self.openings: set[asyncio.Task[None]] = set()
        self.is_closing = False
        self.on_closed: Callable[[Session], None] = lambda _: None
        """called when a session has gone"""
        self._upstream = upstream
        self._target = target
        self._quota = quota
        self._open_within_s = open_within_s
        self._waiting: deque[asyncio.Future[Session]] = deque()
        self._empty = asyncio.Event()

    def start(self) -> None:
        # Not before: places would be kept for a pool that a reload built in vain.
        self._quota.join(self)

    def open_with(self, target: Target, open_within_s: float) -> None:
        """Open sessions by these from now on."""
        self._target, self._open_within_s = target, open_within_s

    async def close(self) -> None:
        """Close every session with QUIT. Transactions under way are cut off."""
        self.is_closing = True
        for task in self.openings:
            task.cancel()
        if self.openings:
            # With a deadline: Python 3.11's wait_for, which aiosmtplib uses, may swallow a cancellation.
            await asyncio.wait(self.openings, timeout=CLOSE_WITHIN_S)
        self.fail_waiting(OpenFailed("connect", _SHUTTING_DOWN))
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

    def take_idle(self) -> Session | None:
        """An idle session, the one used last first: the others may grow old and be replaced."""
        while self.idle:
            session = self.idle.pop()
            if session.usable:
                self.lent[session] = asyncio.current_task()
                return session
            session.abort()  # closing, or part of a reply came that nothing asked for
        return None

    async def acquire(self, *, within_s: float) -> Session:
        """A session, opened if need be. Raises OpenFailed."""
        session = self.take_idle()
        if session is not None:
            return session
        if self.is_closing:
            raise OpenFailed("connect", _SHUTTING_DOWN)
        waiter: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            self.on_capacity()
            async with asyncio.timeout(within_s):
                session = await waiter
        except BaseException as error:
            self._stop_waiting(waiter)
            if isinstance(error, TimeoutError):
                raise OpenFailed("connect", NO_SESSION) from error
            raise
        self.lent[session] = asyncio.current_task()
        return session

    def _stop_waiting(self, waiter: asyncio.Future[Session]) -> None:
        """A session that was supplied meanwhile is for the next waiter."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if not waiter.done():
            waiter.cancel()
        elif not waiter.cancelled() and waiter.exception() is None:
            self._supply(waiter.result())

    def fail_waiting(self, failure: OpenFailed) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(failure)

    def release(self, session: Session) -> None:
        """The transaction is over: keep the session if it can carry another."""
        self.lent.pop(session, None)
        if session.usable:
            self._keep(session)
        elif session.state == "idle":
            session.abort()

    def close_idle(self) -> bool:
        """Close an idle session; False: there is none (QuotaClient)."""
        session = self.take_idle()
        if session is None:
            return False
        session.quit()
        return True

    def on_capacity(self) -> None:
        """Open as many sessions as are waited for, as far as quota and window go (QuotaClient). A probe that is due
        comes first: no attempt waits for it, so a place that was given for it would go back unused."""
        self.probe(time.monotonic())
        # While a probe is under way, all attempts wait for its end.
        half_open = self._upstream.circuit.state == "half-open"
        while not half_open and len(self.openings) < len(self._waiting) and self.open_one():
            pass

    def probe(self, now: float) -> None:
        """Open a session to probe an open circuit, when that is due."""
        circuit = self._upstream.circuit
        due = circuit.state == "open" and now >= circuit.probe_at and not self.openings
        if due and self.open_one():
            circuit.probing()

    def open_one(self) -> bool:
        """Begin to open a session; False: quota or window allow none."""
        if self.is_closing or self.session_count >= self._upstream.window.sessions(time.monotonic()):
            return False
        if not self._quota.acquire(self):
            return False
        task = asyncio.create_task(self._open(), name=f"open {self._upstream.lane}/{self._upstream.name}")
        self.openings.add(task)
        task.add_done_callback(self._never_opened)
        return True

    def _never_opened(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs nothing of its own, not even its `finally`."""
        if task in self.openings:
            self.openings.discard(task)
            self._quota.release()

    async def _open(self) -> None:
        session = None
        try:
            session = await open_session(self._target, timeout_s=self._open_within_s, express=self.express)
        except OpenFailed as failure:
            self._open_failed(failure)
        except Exception as error:  # noqa: BLE001 - else attempts would wait for nothing, and no probe would follow
            fault = Reply.own(451, "4.3.0", f"internal error: {type(error).__name__}")
            self._upstream.condemn(OpenFailed("connect", fault))
        finally:
            self._upstream.urged = False
            self.openings.discard(cast(asyncio.Task[None], asyncio.current_task()))
            if session is None:
                self._quota.release()
        if session is not None:
            self.sessions.add(session)
            session.on_closed = self._closed
            session.on_free = self._keep
            try:
                self._upstream.window.opened(len(self.sessions))
                self._upstream.connected()
                self._keep(session)
            except BaseException:
                session.abort()
                raise

    def _open_failed(self, failure: OpenFailed) -> None:
        upstream, now = self._upstream, time.monotonic()
        refused = failure.reply.transient and failure.phase in ("greeting", "ehlo", "auth")
        others = self.session_count - 1
        closed = upstream.circuit.state == "closed"
        if closed and ((refused and others) or (self.sessions and failure.phase in _CONNECT_PHASES)):
            # It serves other sessions of ours, or may yet: this is one too many, not a dead host.
            upstream.window.refused(now, others)
        elif closed and refused and not self.express and is_throttling_text(failure.reply):
            # It serves codes, or another process of ours.
            upstream.circuit.tried = True
            upstream.window.throttled(now)
            self.fail_waiting(failure)
        else:
            upstream.condemn(failure)

    def _keep(self, session: Session) -> None:
        """An idle session goes to an attempt that waits, else it is kept, unless it must close."""
        worn_out = session.transactions >= self._target.config.sessions.messages
        if self.is_closing or worn_out or self._quota.must_close(self):
            session.quit()
        else:
            self._supply(session)

    def _supply(self, session: Session) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(session)
                return
        if session.usable:
            self.idle.append(session)
        else:
            session.abort()

    def _closed(self, session: Session) -> None:
        self.sessions.discard(session)
        self.lent.pop(session, None)
        if not self.sessions:
            self._empty.set()
        if session in self.idle:
            self.idle.remove(session)
        try:
            self.on_closed(session)
        finally:
            self._quota.release()
