"""One try at one upstream: a session, the transaction, and what it says about both."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from relay.clock import steady
from relay.config.model import Lane
from relay.delivery.fitting import fitted, load_of
from relay.delivery.message import Job
from relay.delivery.phases import Phases
from relay.delivery.verdict import condemns
from relay.mail.redact import redact, redact_reply
from relay.store.model import OpenRecipient
from relay.upstream.results import TROUBLE, OpenFailed, Outcome, Result
from relay.upstream.smtp.pool import NO_SESSION, Pool
from relay.upstream.smtp.session import Opening, Progress, Report, Session, Terms


class Tried(NamedTuple):
    """How a try went, for every recipient it was about."""

    upstream: str
    started_at: float
    """time.monotonic"""
    session: Literal["warm", "new", "none"]
    """`warm`, `new`, or `none` when none could be had"""
    results: tuple[Result, ...]
    timings_ms: dict[str, float]
    """phases, one behind the other: together they are how long it took"""
    codes: tuple[int, ...]
    dsn: bool
    error: Exception | None = None
    """a fault of the relay's own that ended it"""

    @property
    def ended_at(self) -> float:
        """time.monotonic: when the upstream had answered, or it was given up."""
        return self.started_at + sum(self.timings_ms.values()) / 1000.0


async def attempt(job: Job, pool: Pool, due: Sequence[OpenRecipient], lane: Lane, progress: Progress) -> Tried:
    """Hand `due` recipients over to the pool's upstream. Never raises for what happens there.

    A kept session that turns out dead before the upstream said a word costs nothing but another session: the same
    upstream is asked again on it, at once.
    """
    pool.under_way += 1
    started = time.monotonic()
    try:
        return await _attempt(job, pool, due, lane, progress)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not undo what another attempt achieves
        positions = [one.position for one in due]
        tried = _unopened(pool.name, started, positions, OpenFailed("mail", TROUBLE), Phases(started))
        if progress.content_sent:
            unknown = tuple(Result(position, "ambiguous", TROUBLE, "dot") for position in positions)
            tried = tried._replace(results=unknown)
        return tried._replace(error=error)
    finally:
        pool.under_way -= 1


async def _attempt(job: Job, pool: Pool, due: Sequence[OpenRecipient], lane: Lane, progress: Progress) -> Tried:
    started = time.monotonic()
    phases = Phases(started)
    await pool.pace()
    paced_at = time.monotonic()
    if pool.has_rate:
        phases.until(paced_at, "rate")
    now = steady()
    before = paced_at + min(lane.attempt_s, job.deadline - now)
    load = await load_of(job, due, _deliver_by_s(job, paced_at))
    positions = [one.position for one in due]
    withdrawn = job.gate.refusal(now)
    if withdrawn is not None:  # while it waited for the upstream's rate
        return _unopened(pool.name, started, positions, OpenFailed("mail", withdrawn), phases)
    unsigned = frozenset(pool.target.config.unsigned_headers)
    fresh = False
    while True:
        try:
            session = pool.take()
            fresh = session is None
            if session is None:
                session = await pool.get(within_s=max(0.0, before - time.monotonic()))
                fresh = session.sent == 0
        except OpenFailed as failure:
            return _unopened(pool.name, started, positions, failure, phases)
        phases.opened(time.monotonic(), session.opening if fresh else Opening())
        try:
            carried, form = await fitted(job, load, session.capabilities, unsigned)
            if form != "as it is":
                phases.until(time.monotonic(), "encode")
            terms = Terms(before, lane.final_s, progress)
            report = await session.transact(carried, partial(job.parts, unsigned, form), job.gate, terms)
            phases.told(report)
        except BaseException:
            # It is lent to this attempt alone: left as it is, it would be busy for good.
            session.abort()
            raise
        error = _given_back(pool, session, report, load.size_bytes)
        if _was_dead(report, fresh) and time.monotonic() < before:
            job.gate.release(session)
            progress.content_sent = False
            continue
        try:
            _mind_the_account(job, pool, report)
        except Exception as fault:  # noqa: BLE001 - what the upstream said of the mail holds all the same
            error = error or fault
        kind: Literal["warm", "new"] = "new" if fresh else "warm"
        return Tried(pool.name, started, kind, report.results, phases.ms, report.codes, report.dsn, error)


def _given_back(pool: Pool, session: Session, report: Report, size_bytes: int) -> Exception | None:
    """The session's transaction is over. A fault here changes nothing of what the upstream said: it is returned."""
    try:
        pool.put(session, report, size_bytes)
    except Exception as error:  # noqa: BLE001 - see above
        session.abort()
        return error
    return None


def _mind_the_account(job: Job, pool: Pool, report: Report) -> None:
    """Credentials that are no good serve no other message either: none is sent to find that out again."""
    bad = condemns(report.results)
    if bad is None:
        if report.answered:
            pool.circuit.taken()
        return
    # It may quote the mail that it is about.
    quoted = redact(redact_reply(bad.reply.text, job.queued.content))
    reason = OpenFailed(bad.phase, bad.reply._replace(text=quoted), said=True)
    if bad.phase == "mail":
        pool.condemn(reason)
    else:
        pool.turned_away(reason, job.queued.id)


def _deliver_by_s(job: Job, now: float) -> int | None:
    """What is left of the app's DELIVERBY, whole seconds (RFC 2852 4.1.3: each hop passes on what remains)."""
    by = job.queued.envelope.deliver_by
    if by is None:
        return None
    left = by.seconds - math.ceil(now - job.final_dot)
    return max(left, 1) if by.mode == "R" else left


def _was_dead(report: Report, fresh: bool) -> bool:
    """The kept session broke off before any reply, or with 421 to MAIL: nothing was handed over, nobody was asked."""
    if fresh or any(result.outcome not in ("abandoned", "deferred") for result in report.results):
        return False
    return (report.lost and report.answered == 0) or report.codes == (421,)


def _unopened(upstream: str, started: float, positions: Sequence[int], failure: OpenFailed, phases: Phases) -> Tried:
    outcome: Outcome = "abandoned"
    if failure.said:
        outcome = "refused" if failure.reply.permanent else "deferred"
    results = tuple(Result(position, outcome, failure.reply, failure.phase) for position in positions)
    opening = failure.phase != "mail" and failure.reply != NO_SESSION
    phases.until(time.monotonic(), "connect" if opening else "session")
    codes = (failure.reply.code,) if failure.said else ()
    return Tried(upstream, started, "none", results, phases.ms, codes, dsn=False)
