"""One round of a message: upstreams in order, until every recipient has a final outcome or no upstream is left.

A refusal, a loss before the final dot or a 4yz goes to the next upstream at once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from relay.clock import steady
from relay.config.model import Lane
from relay.delivery import repeat
from relay.delivery.attempt import attempt, load_of
from relay.delivery.hedge import race
from relay.delivery.message import Job, Pending
from relay.delivery.suppressing import note_bad_address
from relay.delivery.verdict import Verdict, judge
from relay.mail.dsn import wants_success
from relay.mail.redact import RefusedContent, redact_reply
from relay.mail.reply import Reply
from relay.store.model import Attempt, OpenRecipient, RecipientUpdate, State
from relay.upstream.attempt import Progress, Report
from relay.upstream.base import Upstream
from relay.upstream.phases import RARE_PHASES
from relay.upstream.results import Result

REDIRECTED = "one copy went to the redirect address instead of the recipients"
REFUSED_REDIRECTED = "the reply is about the redirect address"
"""on the time line"""

Settle = Callable[[Job], Awaitable[None]]
OnAttempt = Callable[[Job, Report], None]


class Round:
    """`run` leaves in `job.updates` and `job.attempts` what is to be settled, and in `job.pending` who still waits."""

    def __init__(
        self, job: Job, lane: Lane, epoch: Callable[[float], float], settle: Settle, on_attempt: OnAttempt
    ) -> None:
        """`epoch` turns time.monotonic into seconds since the epoch; `settle` writes an interim outcome; `on_attempt`
        is called once for every attempt (metrics, log)."""
        self._job = job
        self._lane = lane
        self._epoch = epoch
        self._settle = settle
        self._on_attempt = on_attempt
        self._first_at: float | None = None
        """when the first attempt of this round began"""

    async def run(self, upstreams: Sequence[Upstream], *, complete: bool = True) -> None:
        """`complete`: these are all the upstreams that the message may go to, none left out because it is down."""
        job = self._job
        complete = complete and bool(upstreams) and all(one.ways_down is None for one in upstreams)
        for one in job.pending.values():
            one.unsupported_everywhere = complete
        ways = [way for upstream in upstreams for way in await upstream.ways(load_of(job))] if job.pending else []
        for turn in repeat.turns(job.pending.values(), ways, self._epoch(time.monotonic())):
            for position in () if turn.ways else turn.positions:
                repeat.wait(job.pending[position])
            await self._group(turn.positions, list(turn.ways))

    async def _group(self, positions: Sequence[int], ways: list[Upstream]) -> None:
        """Recipients that the same ways are asked for, as many at once as an attempt may have."""
        job = self._job
        repeated: set[Upstream] = set()
        job.gate.unmark()
        while ways:
            due = [job.pending[position].open for position in positions if position in job.pending]
            if not due or job.withdrawn(steady()) is not None:
                return
            load = load_of(job, due)
            most = ways[0].most_recipients(load)
            if len(load.recipients) > most:
                for first in range(0, len(due), most):
                    await self._group([one.position for one in due[first : first + most]], list(ways))
                return
            job.gate.reopen()
            job.carried = tuple(one.position for one in due)
            able = [way for way in ways if way.most_recipients(load) >= len(load.recipients)]
            reports = await self._ask(due, able)
            if self._first_at is None:
                self._first_at = min(report.started_at for report in reports)
            # Reports of a race are in another order than the attempts began in.
            by_start = sorted(range(len(reports)), key=lambda index: reports[index].started_at)
            for index, report in enumerate(reports):
                self._record(report, by_start.index(index) + 1)
                is_to_repeat = any(job.pending[at].repeat is not None for at in positions if at in job.pending)
                ways[:] = repeat.ways_after(report, ways, repeated, is_to_repeat=is_to_repeat)
            for one in due:
                job.tries[one.position] += len(reports)
            job.carried = ()
            if job.pending and any(update.state == "sent" for update in job.updates):
                # Some recipients were accepted and others go on: that must be known before anything else is sent.
                await self._settle(job)

    async def _ask(self, due: Sequence[OpenRecipient], upstreams: Sequence[Upstream]) -> list[Report]:
        """An attempt at the first upstream; with `hedge`, at the next ones beside it, or once more at the only one."""
        job, lane = self._job, self._lane
        if lane.hedge_s is None:
            return [await attempt(job, upstreams[0], due, lane, Progress())]
        return await race(job, lane, due, upstreams, lane.hedge_s)

    def _record(self, report: Report, number: int) -> None:
        """`number`: the attempt's own among those that ran together, from 1."""
        job = self._job
        error = report.error
        refused = RefusedContent(job.queued.content)
        for result in report.results:
            try:
                reply = redact_reply(str(result.reply), b"" if result.reply.positive else refused)
            except Exception as fault:  # noqa: BLE001 - the recipient's outcome must be known all the same
                reply, error = _without_text(result.reply), error or fault
            job.attempts.append(
                Attempt(
                    result.position,
                    job.tries[result.position] + number,
                    report.upstream,
                    self._epoch(report.started_at),
                    report.session,
                    result.outcome,
                    reply,
                    report.timings_ms,
                    report.via,
                )
            )
            # In a race, another attempt may have brought the recipient's outcome already.
            pending = job.pending.get(result.position)
            if pending is not None:
                self._apply(report, result, pending, reply)
        self._on_attempt(job, report if error is report.error else report._replace(error=error))

    def _apply(self, report: Report, result: Result, pending: Pending, reply: str) -> None:
        """What an attempt means for the recipient."""
        job = self._job
        verdict = judge(result)
        if verdict is not Verdict.UNSUPPORTED:
            pending.unsupported_everywhere = False
        pending.repeat = repeat.after(pending.repeat, report, verdict, self._epoch(report.ended_at), self._lane)
        if verdict is Verdict.UNKNOWN and pending.repeat is None and self._lane.on_ambiguous == "hold":
            self._end(pending, "ambiguous", report.upstream, reply)
            return
        match verdict:
            case Verdict.DELIVERED:
                if not report.dsn and wants_success(pending.open.recipient):
                    job.relayed.add(result.position)
                job.timings_ms.update(self._timings_ms(report))
                job.went_unsigned |= not report.is_signed
                if report.redirected:
                    job.note = REDIRECTED
                self._end(pending, "sent", report.upstream, reply, sent_at=self._epoch(report.ended_at))
            case Verdict.PERMANENT_FAILURE:
                if report.redirected:
                    job.note = REFUSED_REDIRECTED
                else:
                    note_bad_address(job, job.queued.lane, report.upstream, result, self._epoch(report.ended_at))
                self._end(pending, "bounced", report.upstream, reply)
            case Verdict.TRY_NEXT | Verdict.UNSUPPORTED | Verdict.UNKNOWN:
                pending.last, pending.upstream = reply, report.upstream
                pending.is_unknown = verdict is Verdict.UNKNOWN or pending.repeat is not None
            case Verdict.EXPIRED:
                self._end(pending, "expired", None, reply)
            case Verdict.SUPERSEDED:
                self._end(pending, "superseded", None, reply)
            case Verdict.WITHDRAWN:
                pass

    def _timings_ms(self, report: Report) -> dict[str, float]:
        """The message's phases, in milliseconds. But for `send` and `total` they don't overlap: they reach from the
        app's final dot to this attempt's end."""
        job, first_at = self._job, self._first_at or report.started_at
        came_s, earlier_s = job.offered_at - job.final_dot, report.started_at - first_at
        phases = {"accept": came_s * 1000.0, "wait": (first_at - job.offered_at) * 1000.0}
        if job.is_claimed:
            # The time before it was claimed is no part of its acceptance, nor of this round.
            phases["accept"], earlier_s = 0.0, earlier_s + came_s
        if earlier_s > 0.0:
            phases["earlier"] = earlier_s * 1000.0
        if len(job.queued.envelope.recipients) > 1:
            # Phases of a recipient that was sent to before are none of this one's.
            phases = dict.fromkeys(("earlier", *RARE_PHASES), 0.0) | phases
        sent_ms = {"send": sum(report.timings_ms.values()), "total": (report.ended_at - job.final_dot) * 1000.0}
        return phases | report.timings_ms | sent_ms

    def _end(
        self, pending: Pending, state: State, upstream: str | None, reply: str, sent_at: float | None = None
    ) -> None:
        position = pending.open.position
        self._job.updates.append(
            RecipientUpdate(position, state, upstream=upstream, reply=reply, sent_at=sent_at, step=pending.open.step)
        )
        del self._job.pending[position]


def _without_text(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced or ''}".rstrip()
