"""The sessions of one lane to one upstream: kept, reused, replaced before they grow old, never lent."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

from relay.config.model import Upstream
from relay.mail.reply import Reply
from relay.upstream.base import Watcher
from relay.upstream.circuit import Circuit
from relay.upstream.quota import SessionQuota
from relay.upstream.rate import Limiter, RateLimiter
from relay.upstream.results import LOST, TIMED_OUT, OpenFailed, Phase
from relay.upstream.smtp.connect import Target, open_session
from relay.upstream.smtp.redaction import operators_words
from relay.upstream.smtp.session import Session, TransactionReport
from relay.upstream.window import Window, says_so, throttles

TEND_EVERY_S = 0.5
CLOSE_WITHIN_S = 1.0
TENDS_IN_IDLE_TIME = 8
LEARNED_SHARE = 0.6
"""An upstream that closed an idle session after 10 s sees the next ones retired after 6."""
LEARNED_FLOOR_S = 0.5
FORGETS = 1.05
"""Each session that was retired in time is a reason to keep the next a little longer."""
TIMED_UP_TO_BYTES = 65_536
"""The answer to more than this is late because of its way there."""
_AT_THE_DOOR: tuple[Phase, ...] = ("connect", "greeting", "ehlo")
"""where an upstream that has enough of us may say so in any way it likes"""
NO_SESSION = Reply.own(451, "4.4.5", "no session free in time")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the lanes of one upstream have in common: its sessions' quota and its rate."""

    quota: SessionQuota
    rate: Limiter | None

    @staticmethod
    def of(config: Upstream) -> Whole:
        """For an upstream that only this process uses, or lends."""
        return Whole(SessionQuota(config.sessions.max), RateLimiter(config.rate) if config.rate is not None else None)


@dataclass(frozen=True, slots=True)
class Whole(Shared):
    """A `Shared` that is all in this process."""

    quota: SessionQuota
    rate: RateLimiter | None

    def follow(self, config: Upstream) -> Whole:
        """For another configuration of the same upstream: what is open counts, for the old lanes too, while these end.
        Nothing changes before it is `put_in_force`."""
        if config.rate is None:
            return Whole(self.quota, None)
        return Whole(self.quota, self.rate or RateLimiter(config.rate))

    def put_in_force(self, config: Upstream) -> None:
        """Its limits from now on."""
        self.quota.resize(config.sessions.max)
        if self.rate is not None and config.rate is not None:
            self.rate.change(config.rate)


class Pool:
    """`get` a session, use it for one transaction, `put` it back with its report."""

    def __init__(
        self,
        lane: str,
        target: Target,
        shared: Shared,
        *,
        express: bool,
        open_within_s: float,
        watcher: Watcher,
    ) -> None:
        self.lane = lane
        self.target = target
        self.express = express
        self.warm = target.config.sessions.warm if express else 0
        self.reserved = max(1, self.warm) if express else 0
        self.circuit = Circuit()
        most = target.config.sessions.max
        self.window = Window(most, most) if express else Window(most)
        self.urged = False
        """an operator asked for a try now, and the probe that this set off is under way"""
        self._quota = shared.quota
        self._rate = shared.rate
        self._watcher = watcher
        self._open_within_s = open_within_s
        self._idle: list[Session] = []
        self._sessions: set[Session] = set()
        self._lent: dict[Session, asyncio.Task[Any] | None] = {}
        """those in use, with the task that uses each"""
        self._astray: set[Session] = set()
        """those that no task used at the last sweep"""
        self._waiting: deque[asyncio.Future[Session]] = deque()
        self._openings: set[asyncio.Task[None]] = set()
        self._idle_limit_s = target.config.sessions.idle_s
        self._closed_after_s = math.inf
        """how long the session was idle that the upstream closed last"""
        self._tender: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()

    @property
    def name(self) -> str:
        """The upstream's."""
        return self.target.name

    def start(self) -> None:
        """Open the warm sessions in the background and keep them."""
        # Not before: a pool that a reload built in vain would have places kept for it.
        self._quota.join(self)
        self._tend()

    async def close(self) -> None:
        """Take leave of the upstream. Transactions under way are cut off: drain the lane first."""
        self._closing = True
        if self._tender is not None:
            self._tender.cancel()
        for task in self._openings:
            task.cancel()
        if self._openings:
            # With a deadline: Python 3.11's wait_for, which aiosmtplib uses, may swallow a cancellation.
            await asyncio.wait(self._openings, timeout=CLOSE_WITHIN_S)
        self._fail_waiting(OpenFailed("connect", Reply.own(451, "4.3.2", "shutting down")))
        for session in list(self._sessions):
            session.quit()
        if self._sessions:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_WITHIN_S)
        for session in list(self._sessions):
            session.abort()
        self._quota.leave(self)

    def counts(self) -> dict[str, int]:
        """Sessions by state: idle, busy, opening."""
        idle = len(self._idle)
        return {"idle": idle, "busy": len(self._sessions) - idle, "opening": len(self._openings)}

    @property
    def session_count(self) -> int:
        """Sessions open or opening (QuotaClient)."""
        return len(self._sessions) + len(self._openings)

    @property
    def alive(self) -> bool:
        """At least one session is open."""
        return bool(self._sessions)

    def take(self) -> Session | None:
        """A session that is ready now, the one used last first: the others may grow old and be replaced."""
        while self._idle:
            session = self._idle.pop()
            if session.usable:
                self._lend(session)
                return session
            session.abort()  # on its way out, or with something half said on it
        return None

    async def get(self, *, within_s: float) -> Session:
        """A session, opened if need be. Raises OpenFailed."""
        session = self.take()
        if session is not None:
            return session
        if self._closing:
            raise OpenFailed("connect", Reply.own(451, "4.3.2", "shutting down"))
        waiter: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            self.on_capacity()
            async with asyncio.timeout(within_s):
                session = await waiter
        except BaseException as error:
            self._waits_no_more(waiter)
            if isinstance(error, TimeoutError):
                raise OpenFailed("connect", NO_SESSION) from error
            raise
        self._lend(session)
        return session

    def _waits_no_more(self, waiter: asyncio.Future[Session]) -> None:
        """Whatever ended the wait: what it was given meanwhile is for the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if not waiter.done():
            waiter.cancel()
        elif not waiter.cancelled() and waiter.exception() is None:
            self._supply(waiter.result())

    def _lend(self, session: Session) -> None:
        self._lent[session] = asyncio.current_task()

    @property
    def has_rate(self) -> bool:
        """May `pace` wait?"""
        return self._rate is not None

    async def pace(self) -> None:
        """Wait for the upstream's rate to allow one more message."""
        if self._rate is not None:
            await self._rate.pace(express=self.express)

    def put(self, session: Session, report: TransactionReport, size_bytes: int = 0) -> None:
        """Back from a transaction that carried `size_bytes`: learn from it, and keep the session if it is good for
        another."""
        now = time.monotonic()
        self._lent.pop(session, None)
        if not self.express:
            self._learn(session, report, now, timed=size_bytes <= TIMED_UP_TO_BYTES)
        if report.timed_out:
            self._failed(OpenFailed("session", TIMED_OUT))
        elif report.lost:
            # A kept one that is dead before its first reply has only been idle for too long.
            if report.answered or session.sent == 1:
                self._lost()
        elif report.answered and self.circuit.succeeded():
            self._watcher.up(self.lane, self.name)
        if session.usable:
            self._keep(session)
        elif session.state == "idle":
            session.abort()

    def _learn(self, session: Session, report: TransactionReport, now: float, *, timed: bool) -> None:
        """Would the upstream take more at once, or is it given too much?"""
        if any(result.outcome == "sent" for result in report.results):
            in_use = len(self._sessions) - len(self._idle)
            self.window.succeeded(now, in_use, report.data_ms / 1000.0 if timed else None)
        elif any(
            result.outcome == "deferred" and throttles(result.reply, result.phase, kept=session.sent > 1)
            for result in report.results
        ):
            self.window.throttled(now)

    def condemn(self, reason: OpenFailed) -> None:
        """The upstream turned us, not the mail, away (530, 535 in a transaction): open the circuit."""
        self._failed(reason)

    def urge(self) -> None:
        """Probe an open circuit now, whenever its probe is due."""
        now = time.monotonic()
        if self.circuit.state == "open":
            self.circuit.probe_at = min(self.circuit.probe_at, now)
            self._probe(now)
        self.urged = self.circuit.state == "half-open"

    def turned_away(self, reason: OpenFailed, message_id: str) -> None:
        """The same, said behind MAIL: it may be meant for that message alone. The second in a row opens the circuit."""
        if self.circuit.turned_away(message_id):
            self._failed(reason)

    def close_idle(self) -> bool:
        """QuotaClient: give up an idle session."""
        session = self.take()
        if session is None:
            return False
        session.quit()
        return True

    def on_capacity(self) -> None:
        """Open as many sessions as are waited for, as far as the quota goes; and a probe that is due, for which
        nobody waits: a place that was lent for it would go back unused."""
        self._probe(time.monotonic())
        # While a probe is under way, what waits waits for its end.
        while self.circuit.state != "half-open" and len(self._openings) < len(self._waiting) and self._open_one():
            pass

    # sessions come and go

    def _open_one(self) -> bool:
        if self._closing or self.session_count >= self.window.sessions(time.monotonic()):
            return False
        if not self._quota.acquire(self):
            return False
        task = asyncio.create_task(self._open(), name=f"open {self.lane}/{self.name}")
        self._openings.add(task)
        task.add_done_callback(self._never_opened)
        return True

    def _never_opened(self, task: asyncio.Task[None]) -> None:
        """Cancelled before its first step, a task runs nothing of its own, not even what it does in the end."""
        if task in self._openings:
            self._openings.discard(task)
            self._quota.release()

    async def _open(self) -> None:
        session = None
        try:
            session = await open_session(self.target, timeout_s=self._open_within_s)
        except OpenFailed as failure:
            self._open_failed(failure)
        except Exception as error:  # noqa: BLE001 - else who waits would wait for nothing, and no probe be made again
            self._failed(OpenFailed("connect", Reply.own(451, "4.3.0", f"internal error: {type(error).__name__}")))
        finally:
            self.urged = False
            self._openings.discard(cast(asyncio.Task[None], asyncio.current_task()))
            if session is None:
                self._quota.release()
        if session is not None:
            self._sessions.add(session)
            session.on_closed = self._closed
            session.on_free = self._keep
            try:
                self.window.opened(len(self._sessions))
                if self.circuit.reached():
                    self._watcher.up(self.lane, self.name)
                self._keep(session)
            except BaseException:
                session.abort()
                raise

    def _open_failed(self, failure: OpenFailed) -> None:
        said = failure.reply.transient and failure.phase in ("greeting", "ehlo", "auth")
        others = len(self._sessions) + len(self._openings) - 1
        if self.circuit.state == "closed" and ((said and others) or (self._sessions and failure.phase in _AT_THE_DOOR)):
            # It talks to us on other sessions, or may yet: this is one too many, not a dead host.
            self.window.refused(time.monotonic(), others)
        elif said and not self.express and self.circuit.state == "closed" and says_so(failure.reply):
            # It talks to somebody: to codes, or to another process of ours.
            self.circuit.tried = True
            self.window.throttled(time.monotonic())
            self._fail_waiting(failure)
        else:
            self._failed(failure)

    def _failed(self, failure: OpenFailed) -> None:
        now = time.monotonic()
        refused = failure.reply.permanent and failure.phase != "connect"
        words = operators_words(failure.reply) if failure.said else ""
        if self.circuit.failed(now, failure.reason, words=words, refused=refused):
            self._watcher.down(self.lane, self.name, failure.reason)
        self._fail_waiting(failure)

    def _fail_waiting(self, failure: OpenFailed) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(failure)

    def _lost(self) -> None:
        failure = OpenFailed("session", LOST)
        if self.circuit.lost(time.monotonic(), failure.reason):
            self._watcher.down(self.lane, self.name, failure.reason)
            self._fail_waiting(failure)

    def _keep(self, session: Session) -> None:
        """An idle session: for who waits, else for later, unless its time has come."""
        if self._closing or session.sent >= self.target.config.sessions.messages or self._quota.must_close(self):
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
            self._idle.append(session)
        else:
            session.abort()

    def _closed(self, session: Session) -> None:
        self._sessions.discard(session)
        self._lent.pop(session, None)
        if not self._sessions:
            self._empty.set()
        if session in self._idle:
            self._idle.remove(session)
        try:
            if session.closed_idle_after_s is not None and not self._closing:
                self._closed_idle(session, session.closed_idle_after_s)
        finally:
            self._quota.release()
        if not self._closing:
            self._refill()

    def _closed_idle(self, session: Session, after_s: float) -> None:
        if after_s < LEARNED_FLOOR_S:
            if session.sent == 0:
                self._lost()  # let in and shown out: opening the next at once would go on for ever
            return
        # Two in a row are a habit; one may be a server that was restarted.
        habit_s, self._closed_after_s = max(after_s, self._closed_after_s), after_s
        if habit_s < self._idle_limit_s:
            self._idle_limit_s = max(LEARNED_FLOOR_S, habit_s * LEARNED_SHARE)

    # in the background

    def _tend(self) -> None:
        """Every half second or more often: retire what grew old, refill, probe."""
        loop = asyncio.get_running_loop()
        every_s = min(TEND_EVERY_S, self._idle_limit_s / TENDS_IN_IDLE_TIME)
        self._tender = loop.call_later(every_s, self._tend)
        now = time.monotonic()
        self._sweep()
        self.on_capacity()
        if self.circuit.state == "open" and now >= self.circuit.probe_at and not self._openings:
            self.close_idle()  # its place may be the only one
            return
        for session in list(self._idle):
            if not session.usable:
                self._idle.remove(session)
                session.abort()
            elif now - session.idle_since >= self._idle_limit_s:
                self._retire(session)
        self._refill()

    def _sweep(self) -> None:
        """A net below every way in which a session may be lost: one that is neither idle nor on its way out, and whose
        attempt is over, is closed, and its place is free again. Found twice in a row, since one may just be handed
        over."""
        astray = {session for session in self._sessions if self._is_astray(session)}
        for session in astray & self._astray:
            session.abort()
        self._astray = astray

    def _is_astray(self, session: Session) -> bool:
        if session in self._idle or session.state not in ("idle", "busy"):
            return False
        user = self._lent.get(session)
        return user is None or user.done()

    def _probe(self, now: float) -> None:
        due = self.circuit.state == "open" and now >= self.circuit.probe_at and not self._openings
        if due and self._open_one():
            self.circuit.probing()

    def _retire(self, session: Session) -> None:
        """A warm session goes only when its successor stands, unless it is overdue for that."""
        young = len(self._idle) - 1 + len(self._openings)
        if self.circuit.state == "closed" and young < self.warm and self._open_one():
            return
        if len(self._idle) > self.warm or self.warm == 0 or not self._openings:
            self._idle.remove(session)
            session.quit()
            self._idle_limit_s = min(self.target.config.sessions.idle_s, self._idle_limit_s * FORGETS)

    def _refill(self) -> None:
        while (
            self.circuit.state == "closed"
            and len(self._sessions) + len(self._openings) < self.warm
            and self._open_one()
        ):
            pass
