"""An upstream that speaks SMTP: `send` finds a session, fits the message to it and transacts."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from relay.clock import steady
from relay.mail.outcome import Outcome
from relay.upstream.base import Finish, Load, Progress, Report, Terms, Upstream, Watcher
from relay.upstream.gate import Gate
from relay.upstream.limits import UpstreamLimits
from relay.upstream.phases import Phases
from relay.upstream.results import TROUBLE, OpenFailed, Result
from relay.upstream.smtp.connect import Target
from relay.upstream.smtp.fitting import fitted
from relay.upstream.smtp.lessons import adapt_window, learn_depth, lost_step, mind_the_account, was_never_handed_over
from relay.upstream.smtp.maintenance import Maintenance
from relay.upstream.smtp.pool import NO_SESSION, Pool
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Opening, Session
from relay.upstream.smtp.waiters import Wants
from relay.upstream.warm import Warm


class SmtpUpstream(Upstream):
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
        super().__init__(lane, target.name, target.config, express=express, watcher=watcher)
        self.pool = Pool(self, target, limits.quota, open_within_s=open_within_s)
        self.pool.on_out_of_step = lambda: lost_step(self, self.pool.depth)
        self.maintenance = Maintenance(self, self.pool)
        self._target = target
        self._limits = limits
        self._finish = Finish.of(target.config)

    def serves(self, target: Target, limits: UpstreamLimits, *, express: bool) -> bool:
        """Whether a lane of a newer configuration may go on with this upstream, its sessions and what was learnt of
        it."""
        return self.express == express and self._limits.quota is limits.quota and self._target.is_same(target)

    def take_over(self, target: Target, *, open_within_s: float, watcher: Watcher) -> None:
        """A lane of a newer configuration goes on with it (`serves`). An open circuit is probed at once: the reload may
        be meant for it."""
        self._watcher = watcher
        self._target = replace(target, addresses=self._target.addresses)  # which address served last is known
        self.pool.openings.use(self._target, open_within_s)
        self.urge()

    async def opened(self, within_s: float) -> None:
        """Return when there is an open session, or when none can be opened; at the latest after `within_s` seconds. It
        gets a place before all that is opened ahead of need."""
        if self.config.sessions.warm == 0:
            return
        with suppress(OpenFailed):
            self.pool.release(await self.pool.acquire(within_s=within_s))

    def start(self) -> None:
        self.pool.start()
        self.maintenance.start()
        if self.config.sessions.warm == 0 or not self.express:
            self.settled.set()

    async def close(self) -> None:
        self.maintenance.stop()
        await self.pool.close()

    def counts(self) -> dict[str, int]:
        idle = len(self.pool.idle)
        return {"idle": idle, "busy": len(self.pool.sessions) - idle, "opening": len(self.pool.openings)}

    @property
    def is_connected(self) -> bool:
        return bool(self.pool.sessions)

    def probe(self, now: float) -> None:
        self.pool.probe(now)

    def warm(self) -> Warm:
        warm, depth = self.maintenance.warm(), self.pool.depth
        if self.express and self.config.sessions.depth > 1 and depth.now(time.monotonic()) == 1:
            return warm._replace(reason=f"{warm.reason}; one message at a time on each: {depth.reason}")
        return warm

    def fail_waiting(self, failure: OpenFailed) -> None:
        self.pool.waiting.fail(failure)

    async def send(self, load: Load, gate: Gate, terms: Terms) -> Report:
        """See `Upstream.send`. If a kept session is lost before the content has left, another one to the same upstream
        is used at once."""
        self.under_way += 1
        phases = Phases(started_at := time.monotonic())
        try:
            return await self._send(load, gate, terms, started_at, phases)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not undo what another attempt achieved
            outcome: Outcome = "ambiguous" if terms.progress.content_sent else "abandoned"
            phase: Literal["dot", "mail"] = "dot" if terms.progress.content_sent else "mail"
            results = tuple(Result(position, outcome, TROUBLE, phase) for position, _ in load.recipients)
            phases.until(time.monotonic(), "session")
            return Report(self.name, started_at, "none", results, phases.ms, error=error)
        finally:
            self.under_way -= 1

    async def _send(self, load: Load, gate: Gate, terms: Terms, started_at: float, phases: Phases) -> Report:
        paced_at = started_at
        if self._limits.rate is not None:
            await self._limits.rate.pace(express=self.express)
            phases.until(paced_at := time.monotonic(), "rate")
        now = steady()
        deadline = paced_at + min(terms.attempt_s, gate.deadline - now)
        withdrawn = gate.refusal(now)
        if withdrawn is not None:  # while it waited for the rate
            return self._without_session(load, OpenFailed("mail", withdrawn), started_at, phases)
        wants: Wants = "own" if terms.own_session else "any"
        codes: tuple[int, ...] = ()
        while True:
            try:
                session, is_new = await self._session(deadline, wants)
            except OpenFailed as failure:
                return self._without_session(load, failure, started_at, phases)
            _record_opening(phases, time.monotonic(), session.opening if is_new else Opening())
            before = phases.copy()
            sent = await self._transact(session, load, gate, terms, deadline, phases)
            error = self._learn(session, load, sent, terms.progress, is_new=is_new)
            may_repeat = not is_new or sent.out_of_step
            if may_repeat and was_never_handed_over(sent) and time.monotonic() < deadline:
                if terms.progress.content_sent:
                    gate.reopen()
                terms.progress.again()
                # What the lost session took was a wait for a session.
                phases, codes = before, (*codes, *sent.codes)
                phases.until(sent.ended_at, "session")
                # Others may have died with it. A second one is no accident: nothing but a fresh one is used then.
                wants = "own" if wants == "any" else "new"
                continue
            kind: Literal["new", "warm"] = "new" if is_new else "warm"
            codes = (*codes, *sent.codes)
            return Report(self.name, started_at, kind, sent.results, phases.ms, codes, sent.dsn, error)

    async def _session(self, deadline: float, wants: Wants) -> tuple[Session, bool]:
        """A kept session or a new one, and whether it is new. Raises OpenFailed."""
        if self.express:
            self.maintenance.note_demand(self.under_way)
        session = self.pool.take(wants)
        if session is not None:
            return session, False
        session = await self.pool.acquire(within_s=max(0.0, deadline - time.monotonic()), wants=wants)
        return session, session.transactions == 0

    async def _transact(
        self, session: Session, load: Load, gate: Gate, terms: Terms, deadline: float, phases: Phases
    ) -> TransactionReport:
        try:
            mail, parts, form = await fitted(load, session.capabilities, self._finish)
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

    def _without_session(self, load: Load, failure: OpenFailed, started_at: float, phases: Phases) -> Report:
        outcome: Outcome = "abandoned"
        if failure.from_upstream:
            outcome = "refused" if failure.reply.permanent else "deferred"
        results = tuple(Result(position, outcome, failure.reply, failure.phase) for position, _ in load.recipients)
        opening = failure.phase != "mail" and failure.reply != NO_SESSION
        phases.until(time.monotonic(), "connect" if opening else "session")
        codes = (failure.reply.code,) if failure.from_upstream else ()
        return Report(self.name, started_at, "none", results, phases.ms, codes)


def _record_opening(phases: Phases, at: float, opening: Opening) -> None:
    """A session was waited for until `at`. Its opening may have begun before the wait, and ended before its hand-over:
    only the part that was waited for counts, and the rest is a wait for a session."""
    for phase, ended in opening.ends():
        if phases.at < ended <= at:
            phases.until(min(opening.began_at, at), "session")
            phases.until(ended, phase)
    phases.until(at, "session")
