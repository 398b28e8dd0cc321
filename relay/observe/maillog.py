"""One function for each thing that happens to mail: it moves the metrics and writes one line.

Lines are logfmt on the logger `relay.mail`: message ids, lanes, upstreams, codes, counts and times. Never an address, a
subject, a reply's text (it may quote either), content or a credential: those that may be kept are in the store's log.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence

from relay.observe.lines import logfmt
from relay.observe.metrics import NO_RULE, NO_UPSTREAM, Metrics
from relay.observe.recent import NEVER_S, Recent

_ADDRESS = re.compile(r"[^\s<>]*@[^\s<>]*")


class MailLog:
    """Also the door's observer (`connected`, `disconnected`, `rejected`) and the pools' watcher (`down`, `up`)."""

    def __init__(
        self,
        metrics: Metrics,
        recent: Recent,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.metrics = metrics
        self.recent = recent
        self.connections = 0
        """clients connected now"""
        self._logger = logger or logging.getLogger("relay.mail")
        self._clock = clock

    # At the door

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self) -> None:
        self.connections -= 1

    def rejected(self, reason: str) -> None:
        """A connection, a command or a message was refused."""
        self.metrics.count_rejected(reason)
        self._line(logging.INFO, "rejected", reason=reason)

    def accepted(
        self, message_id: str, lane: str, rule: str | None, *, recipients: int, size_bytes: int,
        timings_ms: Mapping[str, float],
    ) -> None:  # fmt: skip
        """Stored, and about to be answered 250."""
        self.metrics.accepted[lane, rule or NO_RULE].inc()
        self.metrics.observe_phases(lane, timings_ms)
        self._line(
            logging.INFO, "accepted", id=message_id, lane=lane, rule=rule, recipients=recipients, size=size_bytes
        )

    def unsigned(self, message_id: str, lane: str, reason: str) -> None:
        """Goes out without a DKIM signature although its domain has keys."""
        self._line(logging.WARNING, "unsigned", id=message_id, lane=lane, reason=reason)

    # On the way

    def attempted(
        self, message_id: str, lane: str, upstream: str, outcome: str, *, recipients: int = 1,
        code: int | None = None, timings_ms: Mapping[str, float],
    ) -> None:  # fmt: skip
        """One try at one upstream ended so for these recipients."""
        self.metrics.recipients[lane, upstream, outcome].inc(recipients)
        self.metrics.observe_phases(lane, timings_ms)
        self._line(
            logging.DEBUG,
            "attempted",
            id=message_id,
            lane=lane,
            upstream=upstream,
            outcome=outcome,
            recipients=recipients,
            code=code,
        )

    def reply(self, upstream: str, code: int) -> None:
        """An upstream said something."""
        self.metrics.count_reply(upstream, code)

    def sent(self, message_id: str, lane: str, upstream: str, *, recipients: int = 1, total_s: float) -> None:
        """The upstream took it. `total_s`: from the app's final dot to the reply to ours."""
        delivery = self.metrics.delivery[lane, upstream]
        now = self._clock()
        for _ in range(recipients):
            delivery.observe(total_s)
            self.recent.note(lane, now, total_s)
        self._line(
            logging.INFO,
            "sent",
            id=message_id,
            lane=lane,
            upstream=upstream,
            recipients=recipients,
            total_ms=total_s * 1000,
        )

    def deferred(
        self, message_id: str, lane: str, *, recipients: int = 1, code: int | None = None, retry_in_s: float
    ) -> None:
        """Each upstream failed, or wasn't tried since its circuit is open: the retry ladder's next step comes."""
        self._line(
            logging.INFO,
            "deferred",
            id=message_id,
            lane=lane,
            recipients=recipients,
            code=code,
            retry_in_ms=retry_in_s * 1000,
        )

    def ambiguous(self, message_id: str, lane: str, upstream: str, *, recipients: int = 1) -> None:
        """The final dot left and no reply came: nobody knows whether it was taken."""
        self._line(logging.WARNING, "ambiguous", id=message_id, lane=lane, upstream=upstream, recipients=recipients)

    def recovered(self, message_id: str, lane: str, state: str, *, recipients: int) -> None:
        """The relay ended with it in hand; a start found it, and made it `state`: an upstream may have it already."""
        self._line(logging.WARNING, "recovered", id=message_id, lane=lane, state=state, recipients=recipients)

    # The other ends

    def bounced(self, message_id: str, lane: str, *, recipients: int = 1, code: int | None = None) -> None:
        """Refused for good (counted as the attempt's outcome)."""
        self._failed(lane, recipients)
        self._line(logging.WARNING, "bounced", id=message_id, lane=lane, recipients=recipients, code=code)

    def expired(self, message_id: str, lane: str, *, recipients: int = 1) -> None:
        """Too old to be sent."""
        self._failed(lane, recipients)
        self.metrics.recipients[lane, NO_UPSTREAM, "expired"].inc(recipients)
        self._line(logging.WARNING, "expired", id=message_id, lane=lane, recipients=recipients)

    def _failed(self, lane: str, recipients: int) -> None:
        now = self._clock()
        for _ in range(recipients):
            self.recent.note(lane, now, NEVER_S)

    def superseded(self, message_id: str, lane: str, *, by: str | None = None, recipients: int = 1) -> None:
        """A newer message took its place."""
        self.metrics.recipients[lane, NO_UPSTREAM, "superseded"].inc(recipients)
        self._line(logging.INFO, "superseded", id=message_id, lane=lane, by=by, recipients=recipients)

    # Upstreams and the relay itself

    def down(self, lane: str, upstream: str, reason: str) -> None:
        """The lane's circuit to it is open."""
        said = _ADDRESS.sub("<address>", reason)
        self._line(logging.WARNING, "upstream_down", lane=lane, upstream=upstream, reason=said)

    def up(self, lane: str, upstream: str) -> None:
        self._line(logging.INFO, "upstream_up", lane=lane, upstream=upstream)

    def trouble(self, where: str, error: BaseException) -> None:
        """Something of the relay's own failed; the mail it was about waits. The error's text is ours or the system's,
        never an app's."""
        self._line(
            logging.ERROR,
            "trouble",
            where=where,
            error=type(error).__name__,
            reason=_ADDRESS.sub("<address>", str(error)),
        )

    def task_ended(self, task: str, error: BaseException | None) -> None:
        """A background task ended by `error`, or returned (None), and is begun again. The error's text may be mail."""
        self.metrics.restarts[(task.partition(" ")[0],)].inc()
        name = "returned" if error is None else type(error).__name__
        self._line(logging.ERROR, "task_restarted", task=task, error=name)

    def loop_failed(self, where: str, error: BaseException | None) -> None:
        """A callback of the event loop failed, or a task that nothing waits for: it ended, and is logged."""
        self.metrics.restarts[("loop",)].inc()
        name = None if error is None else type(error).__name__
        system = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
        self._line(logging.ERROR, "loop_failed", error=name, errno=system, where=where)

    def worker_ready(self, number: int) -> None:
        """A process for bulk mail takes mail."""
        self._line(logging.INFO, "worker_ready", worker=number)

    def reloaded(self, *, success: bool, ignored: Sequence[str] = ()) -> None:
        """The configuration was read again; without success the old one stays in force. `ignored`: keys of the new one
        that take a restart; the rest of it is in force."""
        self.metrics.reload_success.set(success and not ignored)
        level = logging.ERROR if not success else logging.WARNING if ignored else logging.INFO
        words = {"ignored": ",".join(ignored)} if ignored else {}
        self._line(level, "reloaded", success=str(success and not ignored).lower(), **words)

    def _line(self, level: int, event: str, **values: object) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, logfmt(event, **values))
