"""Delivered events, on their way from the feedback process to the lanes that prefer the fastest upstream."""

from __future__ import annotations

from collections.abc import Sequence

from relay.delivery.engine import Engine
from relay.delivery.fastest import Sample, preferring
from relay.feedback.counts import Arrival
from relay.service.current import Current
from relay.workers import messages
from relay.workers.fleet import Workers


class Arrivals:
    def __init__(self, engine: Engine, workers: Workers, current: Current) -> None:
        self._engine = engine
        self._workers = workers
        self._current = current

    def found(self, domain: str, provider: str) -> None:
        """The mailbox provider of a domain, by its MX records."""
        self._engine.providers.learn(domain, provider)
        self._workers.notify(messages.PROVIDER, (domain, provider))

    def learn(self, arrivals: Sequence[Arrival]) -> None:
        """What arrived just now. The main process learns of all lanes, for `explain`; workers send the bulk lanes."""
        config = self._current.config
        lanes = preferring(config)
        if not lanes:
            return
        now = self._engine.clock.now()
        samples = [
            Sample(one.lane, one.upstream, one.provider, "delivered", one.after_s, now)
            for one in arrivals
            if one.lane in lanes
        ]
        self._engine.paces.learn(samples)
        if of_bulk := [sample for sample in samples if not config.lanes[sample.lane].express]:
            self._workers.notify(messages.LEARN, of_bulk)
