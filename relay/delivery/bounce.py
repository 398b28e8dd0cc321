"""Bounces and other status notifications, as messages of the relay's own (RFC 3461, RFC 3464)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock

from relay.clock import Clock
from relay.config.model import Config
from relay.delivery.message import Job
from relay.mail.dsn import Kind, RecipientReport, Stamp, bounce
from relay.mail.mailbox_provider import provider
from relay.mail.message import parse, subject
from relay.mail.redact import redact
from relay.store.model import NewMessage, RecipientUpdate, State
from relay.store.ulid import IdMaker

_KINDS: dict[State, Kind] = {
    "bounced": "failed",
    "suppressed": "failed",
    "expired": "expired",
    "deferred": "delayed",
    "sent": "relayed",
}


class Bouncer:
    """delivery's `Bounces`: they go out by the default lane, from the null sender."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._ids = IdMaker()
        self._making_id = Lock()
        """reports about many recipients are made on threads"""

    def __call__(
        self, job: Job, ended: Sequence[RecipientUpdate], deferred: Sequence[RecipientUpdate]
    ) -> NewMessage | None:
        """One about all of these recipients of the job's message; None: its sender is to get none."""
        reports = [self._report(job, update) for update in (*ended, *deferred)]
        now = self._clock.now()
        with self._making_id:
            id_ = self._ids.new_id(now, os.urandom(10))
        stamp = Stamp(
            self._config.hostname,
            self._clock.today(),
            f"<{id_.lower()}@{self._config.hostname}>",
            f"=_{os.urandom(12).hex()}",
        )
        queued = job.queued
        made = bounce(
            queued.envelope, reports, queued.content, stamp=stamp, arrived_at=self._clock.of_day(queued.accepted_at)
        )
        if made is None:
            return None
        lane = self._config.default_lane
        return NewMessage(
            id=id_,
            lane=lane,
            rule=None,
            envelope=made.envelope,
            content=made.content,
            client="local",
            message_id=stamp.message_id,
            subject=redact(subject(parse(made.content))),
            providers=tuple(provider(one.address) for one in made.envelope.recipients),
            accepted_at=now,
            expires_at=now + self._config.lanes[lane].expires_s,
        )

    def _report(self, job: Job, update: RecipientUpdate) -> RecipientReport:
        upstream = self._config.upstreams.get(update.upstream) if update.upstream is not None else None
        return RecipientReport(
            job.queued.envelope.recipients[update.position],
            _KINDS[update.state],
            reply=update.reply,
            remote_mta=upstream.host if upstream is not None else None,
            attempted_at=self._clock.today(),
            retry_until=self._clock.of_day(job.queued.expires_at) if update.state == "deferred" else None,
        )
