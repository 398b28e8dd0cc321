"""An upstream that speaks SMTP: `send` finds a session, fits the message to it and transacts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

from relay.upstream.attempt import Progress, Report, Terms
from relay.upstream.gate import Gate
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Load
from relay.upstream.phases import Phases
from relay.upstream.sessions.kept import Opening
from relay.upstream.sessions.upstream import PooledUpstream, record_opening
from relay.upstream.sessions.waiters import Wants
from relay.upstream.smtp.connect import open_session
from relay.upstream.smtp.fitting import fitted
from relay.upstream.smtp.lessons import adapt_window, learn_depth, lost_step, mind_the_account, was_never_handed_over
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from relay.upstream.standing import Watcher
from relay.upstream.target import Target
from relay.upstream.warm import Warm


class SmtpUpstream(PooledUpstream[Session]):
    """One upstream as one lane uses it, over sessions of its own."""

    def __init__(
        self,
        lane: str,
        target: Target,
        limits: UpstreamLimits,
        *,
        express: bool,
        open_within_s: float,
        watcher: Watcher,
    ) -> None:
        super().__init__(lane, target, limits, express=express, open_within_s=open_within_s, watcher=watcher)
        self.pool.on_out_of_step = lambda: lost_step(self, self.pool.depth)

    async def _open(self, within_s: float) -> Session:
        return await open_session(self._target, timeout_s=within_s, express=self.express)

    def _followed_by(self, target: Target) -> Target:
        return replace(target, addresses=self._target.addresses)  # which address served last is known

    def warm(self) -> Warm:
        warm, depth = self.maintenance.warm(), self.pool.depth
        if self.express and self.config.sessions.depth > 1 and depth.now(time.monotonic()) == 1:
            return warm._replace(reason=f"{warm.reason}; one message at a time on each: {depth.reason}")
        return warm

    async def _carry(self, load: Load, gate: Gate, terms: Terms, deadline: float, phases: Phases) -> Report:
        """If a kept session is lost before the content has left, another one to the same upstream is used at once."""
        started_at = phases.at
        wants: Wants = "own" if terms.own_session else "any"
        codes: tuple[int, ...] = ()
        while True:
            session, is_new = await self._session(deadline, wants)
            record_opening(phases, time.monotonic(), session.opening if is_new else Opening())
            before = phases.copy()
            sent = await self._transact(session, load, gate, terms, deadline, phases)
            error = self._learn(session, load, sent, terms.progress, is_new=is_new)
            may_repeat = not is_new or sent.out_of_step
            if may_repeat and was_never_handed_over(sent) and time.monotonic() < deadline:
                if terms.progress.content_sent:
                    gate.reopen()
                terms.progress.again()
                # What the lost session took was a wait for a session.
                phases.restore(before)
                codes = (*codes, *sent.codes)
                phases.until(sent.ended_at, "session")
                # Others may have died with it. A second one is no accident: nothing but a fresh one is used then.
                wants = "own" if wants == "any" else "new"
                continue
            kind: Literal["new", "warm"] = "new" if is_new else "warm"
            return Report(self.name, started_at, kind, sent.results, phases.ms, (*codes, *sent.codes), sent.dsn, error)

    async def _transact(
        self, session: Session, load: Load, gate: Gate, terms: Terms, deadline: float, phases: Phases
    ) -> TransactionReport:
        try:
            mail, parts, form = await fitted(load, session.capabilities, self.finish)
            if form != "as it is":
                phases.until(time.monotonic(), "encode")
            # Of several messages each waits for its turn anyway, and a write less for each leaves the loop to them.
            many = self.under_way > 1
            sent = await session.transact(mail, parts, gate, deadline=deadline, terms=terms, in_one_write=many)
        except BaseException:
            # It may carry others, so it isn't closed here.
            self.pool.release(session)
            raise
        left_at = sent.ended_at - sent.data_ms / 1000.0
        phases.until(left_at - sent.gate_ms / 1000.0, "envelope")
        phases.until(left_at, "gate")
        phases.until(sent.ended_at, "data")
        return sent

    def _learn(
        self, session: Session, load: Load, sent: TransactionReport, progress: Progress, *, is_new: bool
    ) -> Exception | None:
        """Learn from a transaction, and give its session back. A fault of ours is returned: it changes no result."""
        try:
            self.return_session(session, sent, len(load.original), progress, is_new=is_new)
            mind_the_account(self, load, sent)
        except Exception as error:  # noqa: BLE001 - see above
            session.abort()
            return error
        return None

    def return_session(
        self,
        session: Session,
        sent: TransactionReport,
        size_bytes: int = 0,
        progress: Progress | None = None,
        *,
        is_new: bool | None = None,
    ) -> None:
        """Learn from a transaction that carried `size_bytes`, and give the session back to the pool. `is_new`: the
        session was opened for it; default: it was the session's first."""
        is_new = session.transactions == 1 if is_new is None else is_new
        if not self.express:
            adapt_window(self, sent, size_bytes, kept=session.transactions > 1)
        learn_depth(self, self.pool.depth, sent, size_bytes)
        if sent.timed_out:
            self.timed_out(progress or Progress())
        elif sent.lost:
            # A kept session that is lost before the content has left costs a fresh one, which tells more.
            if (is_new or not was_never_handed_over(sent)) and not sent.behind:
                self.connection_lost()
        elif sent.answered:
            self.answered()
        self.pool.release(session)
