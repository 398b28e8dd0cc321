"""What delivery reports, turned into log lines and metrics."""

from __future__ import annotations

from collections import Counter

from relay.clock import Clock
from relay.delivery.fastest import Paces, Sample
from relay.delivery.message import Job
from relay.delivery.traces import trace_attempt, trace_end, trace_settlement
from relay.mail.outcome import Outcome
from relay.mail.reply import is_own
from relay.observe.maillog import MailLog
from relay.store.model import RecipientUpdate, Settlement, State
from relay.upstream.attempt import Report
from relay.upstream.phases import PHASES, RARE_PHASES

_ANSWERED = ("sent", "bounced")
"""states of a recipient in which its reply is the answer to it"""
_COUNTED = frozenset((*PHASES, *RARE_PHASES))


class DeliveryEvents:
    """delivery's `Events`."""

    def __init__(self, log: MailLog, clock: Clock, paces: Paces | None = None) -> None:
        """`paces`: learn how fast upstreams are, from messages of lanes that prefer the fastest."""
        self._log = log
        self._clock = clock
        self._paces = paces

    def on_attempt(self, lane: str, job: Job, report: Report) -> None:
        for code in report.codes:
            self._log.reply(report.upstream, code)
        # Phases of 0 ms are left out, so that a warm session does not add zeros to the connect histogram.
        timings_ms = {phase: spent_ms for phase, spent_ms in report.timings_ms.items() if spent_ms > 0.0}
        outcomes: dict[tuple[Outcome, int | None], int] = {}
        for result in report.results:
            key = result.outcome, None if result.reply.is_own else result.reply.code
            outcomes[key] = outcomes.get(key, 0) + 1
        for (outcome, answered), recipients in outcomes.items():
            self._log.attempted(
                job.queued.id,
                lane,
                report.upstream,
                outcome,
                recipients=recipients,
                code=answered,
                timings_ms=timings_ms,
            )
            if outcome == "ambiguous":
                self._log.ambiguous(job.queued.id, lane, report.upstream, recipients=recipients)
        if self._log.tracing is not None:
            trace_attempt(self._log.tracing, lane, job, report)

    def on_settled(self, lane: str, job: Job, settlement: Settlement) -> None:
        states: Counter[tuple[State, str | None, int | None]] = Counter()
        for update in settlement.updates:
            states[update.state, update.upstream, _code(update) if update.state in _ANSWERED else None] += 1
        for (state, upstream, code), recipients in states.items():
            self._settled(lane, job, state, upstream, code, recipients)
        due: dict[int | None, list[float]] = {}
        for update in settlement.updates:
            if update.next_at is not None:
                due.setdefault(_code(update), []).append(update.next_at)
        for code, times in due.items():
            wait_s = max(0.0, min(times) - self._clock.now())
            self._log.deferred(job.queued.id, lane, recipients=len(times), code=code, retry_in_s=wait_s)
        if self._log.tracing is not None:
            trace_settlement(self._log.tracing, lane, job, settlement)
        self._log.on_event()

    def _settled(
        self, lane: str, job: Job, state: State, upstream: str | None, code: int | None, recipients: int
    ) -> None:
        id_ = job.queued.id
        match state:
            case "sent" if upstream is not None:
                total_s = job.timings_ms.get("total", 0.0) / 1000.0
                ranking = job.ranking if job.queued.due and not any(one.step for one in job.queued.due) else None
                self._log.sent(
                    *(id_, lane, upstream),
                    recipients=recipients,
                    total_s=total_s,
                    code=code,
                    preferred=None if ranking is None else ranking.names[0],
                    because=None if ranking is None else ranking.why,
                    exemplar=self._log.exemplar(id_, job.queued.trace),
                )
                if job.provider and self._paces is not None:
                    self._paces.learn([Sample(lane, upstream, job.provider, "sent", total_s, self._clock.now())])
                # The attempts' phases were counted in `on_attempt`.
                of_the_message = {phase: ms for phase, ms in job.timings_ms.items() if phase not in _COUNTED}
                self._log.metrics.observe_phases(lane, of_the_message)
            case "bounced":
                self._log.bounced(id_, lane, recipients=recipients, code=code)
            case "expired":
                self._log.expired(id_, lane, recipients=recipients)
            case "suppressed":
                self._log.suppressed(id_, lane, recipients=recipients)
            case "superseded":
                self._log.superseded(id_, lane, by=job.superseded_by, recipients=recipients)
            case _:
                pass

    def on_superseded(self, lane: str, message_id: str, by: str) -> None:
        self._log.superseded(message_id, lane, by=by)
        if self._log.tracing is not None:
            trace_end(self._log.tracing, lane, message_id, "superseded", 1)
        self._log.on_event()

    def on_expired(self, lane: str, message_id: str, recipients: int) -> None:
        self._log.expired(message_id, lane, recipients=recipients)
        if self._log.tracing is not None:
            trace_end(self._log.tracing, lane, message_id, "expired", recipients)
        self._log.on_event()

    def on_error(self, where: str, error: BaseException) -> None:
        self._log.trouble(where, error)

    def down(self, lane: str, upstream: str, reason: str) -> None:
        self._log.down(lane, upstream, reason)

    def up(self, lane: str, upstream: str) -> None:
        self._log.up(lane, upstream)

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        self._log.on_demand(lane, upstream, after_s)

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        self._log.one_at_a_time(lane, upstream, reason)

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        self._log.way_down(lane, upstream, way, reason)

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        self._log.way_up(lane, upstream, way)


def _code(update: RecipientUpdate) -> int | None:
    """What an upstream answered; None: the relay's own reason."""
    reply = update.reply or ""
    return int(reply[:3]) if reply[:3].isdecimal() and not is_own(reply) else None
