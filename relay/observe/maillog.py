"""One function for each event of mail: it moves the metrics and writes one line.

Lines are logfmt on the logger `relay.mail`: message ids, lanes, upstreams, codes, counts and times. They never contain
an address, a subject, a reply's text (it may quote either), content or a credential. The store's log has what may be
kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from relay.observe.metrics import NO_RULE, NO_UPSTREAM, Metrics
from relay.observe.objectives import Objectives
from relay.observe.policylog import PolicyLog
from relay.observe.recent import NEVER_S, Failure, Recent
from relay.observe.tracing import Tracing, exemplar_of


class MailLog(PolicyLog):
    """Events of mail, beside those of the relay. Also the intake's observer (`rejected`)."""

    def __init__(
        self,
        metrics: Metrics,
        recent: Recent,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(metrics, logger)
        self.recent = recent
        self.listeners: list[Callable[[], None]] = []
        """each is called when the store has new events of messages"""
        self.objectives = Objectives()
        """in force"""
        self.tracing: Tracing | None = None
        """None: it is off"""
        self._clock = clock

    # intake

    def rejected(self, reason: str, client: str | None = None, listener: str | None = None) -> None:
        """A connection, a command or a message was refused. `client`: its IP address. `listener`: the listener's
        address."""
        self.metrics.count_rejected(reason)
        self.line(logging.INFO, "rejected", reason=reason, client=client, listener=listener)

    def accepted(
        self, message_id: str, lane: str, rule: str | None, *, recipients: int, size_bytes: int,
        timings_ms: Mapping[str, float], detected: str | None = None, parts: int | None = None,
        client: str | None = None, listener: str | None = None,
    ) -> None:  # fmt: skip
        """The message is stored; the app's 250 follows. `detected`: by the content detector, if a rule asked it.
        `parts`: of a split message, whose entry this is; None: it isn't split. `client`, `listener`: see `rejected`."""
        self.metrics.accepted[lane, rule or NO_RULE].inc()
        if detected is not None:
            self.metrics.detected[detected,].inc()
        self.metrics.observe_phases(lane, timings_ms)
        self.line(
            logging.INFO, "accepted",
            id=message_id, lane=lane, rule=rule, recipients=recipients, size=size_bytes, content=detected, parts=parts,
            client=client, listener=listener,
        )  # fmt: skip
        self.on_event()

    def part(self, message_id: str, lane: str, rule: str | None, *, entry: str, recipients: int) -> None:
        """A further part of a split message is stored. `entry`: the id by which the app knows the message."""
        self.metrics.accepted[lane, rule or NO_RULE].inc()
        self.line(logging.INFO, "part", id=message_id, part_of=entry, lane=lane, rule=rule, recipients=recipients)

    def on_event(self) -> None:
        """The store has new events of messages."""
        for listener in self.listeners:
            listener()

    def unsigned(self, message_id: str, lane: str, reason: str) -> None:
        """The message is sent without a DKIM signature, although its domain has keys."""
        self.line(logging.WARNING, "unsigned", id=message_id, lane=lane, reason=reason)

    # delivery

    def attempted(
        self, message_id: str, lane: str, upstream: str, outcome: str, *, recipients: int = 1,
        code: int | None = None, timings_ms: Mapping[str, float],
    ) -> None:  # fmt: skip
        """One attempt at one upstream had this outcome for these recipients."""
        self.metrics.recipients[lane, upstream, outcome].inc(recipients)
        self.metrics.observe_phases(lane, timings_ms)
        values = {"id": message_id, "lane": lane, "upstream": upstream, "outcome": outcome}
        self.line(logging.DEBUG, "attempted", **values, recipients=recipients, code=code)

    def reply(self, upstream: str, code: int) -> None:
        """An upstream sent a reply."""
        self.metrics.count_reply(upstream, code)

    def sent(
        self, message_id: str, lane: str, upstream: str, *, recipients: int = 1, total_s: float,
        code: int | None = None, preferred: str | None = None, because: str | None = None,
        exemplar: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """The upstream accepted the message. `total_s`: from the app's final dot to the upstream's reply. `preferred`:
        the upstream that was to be asked first, in a lane that prefers the fastest, and why. `exemplar`: the trace."""
        delivery = self.metrics.delivery[lane, upstream]
        for _ in range(recipients):
            delivery.observe(total_s, exemplar)
        objective = self.objectives.get(lane)
        if objective is not None and upstream not in objective.reporting:
            self.metrics.count_objective(lane, is_good=total_s <= objective.within_s, count=recipients)
        self._note(lane, recipients, total_s)
        total_ms = total_s * 1000
        values = {"id": message_id, "lane": lane, "upstream": upstream, "recipients": recipients}
        self.line(logging.INFO, "sent", **values, total_ms=total_ms, code=code, preferred=preferred, because=because)

    def deferred(
        self, message_id: str, lane: str, *, recipients: int = 1, code: int | None = None, retry_in_s: float
    ) -> None:
        """Each upstream failed or its circuit is open; the message waits for the next step of the retry ladder."""
        wait_ms = retry_in_s * 1000
        self.line(
            logging.INFO, "deferred", id=message_id, lane=lane, recipients=recipients, code=code, retry_in_ms=wait_ms
        )

    def ambiguous(self, message_id: str, lane: str, upstream: str, *, recipients: int = 1) -> None:
        """The final dot was sent and no reply came: the upstream may have accepted the message."""
        self.line(logging.WARNING, "ambiguous", id=message_id, lane=lane, upstream=upstream, recipients=recipients)

    def recovered(self, message_id: str, lane: str, state: str, *, recipients: int) -> None:
        """A start found the message as being sent when the relay ended, and set it to `state`. An upstream may have
        accepted it."""
        self.line(logging.WARNING, "recovered", id=message_id, lane=lane, state=state, recipients=recipients)

    # final outcomes without delivery

    def bounced(self, message_id: str, lane: str, *, recipients: int = 1, code: int | None = None) -> None:
        """An upstream refused the recipients permanently (counted as the attempt's outcome)."""
        self._note(lane, recipients, NEVER_S, "bounced")
        self.line(logging.WARNING, "bounced", id=message_id, lane=lane, recipients=recipients, code=code)

    def expired(self, message_id: str, lane: str, *, recipients: int = 1) -> None:
        """The message is too old to be sent."""
        if lane in self.objectives:
            self.metrics.count_objective(lane, is_good=False, count=recipients)
        self._note(lane, recipients, NEVER_S, "expired")
        self.metrics.recipients[lane, NO_UPSTREAM, "expired"].inc(recipients)
        self.line(logging.WARNING, "expired", id=message_id, lane=lane, recipients=recipients)

    def suppressed(self, message_id: str, lane: str, *, recipients: int = 1) -> None:
        """These recipients get no mail of the lane. If those are all, the message was refused, and isn't stored."""
        self.metrics.suppressed[(lane,)].inc(recipients)
        self.line(logging.INFO, "suppressed", id=message_id, lane=lane, recipients=recipients)

    def superseded(self, message_id: str, lane: str, *, by: str | None = None, recipients: int = 1) -> None:
        """A newer message replaces this one."""
        self.metrics.recipients[lane, NO_UPSTREAM, "superseded"].inc(recipients)
        self.line(logging.INFO, "superseded", id=message_id, lane=lane, by=by, recipients=recipients)

    def exemplar(self, message_id: str, trace: str | None) -> dict[str, str] | None:
        """What points from an observation to the message's trace; None: it isn't recorded. `trace`: the app's
        traceparent."""
        return exemplar_of(self.tracing, message_id, trace)

    def _note(self, lane: str, recipients: int, total_s: float, failure: Failure | None = None) -> None:
        now = self._clock()
        for _ in range(recipients):
            self.recent.note(lane, now, total_s, failure)
