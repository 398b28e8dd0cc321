"""The relay's health, as the HTTP service asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from relay.delivery.engine import Engine
from relay.intake.admission import Admission
from relay.intake.server import IntakeServer
from relay.observe.metrics import Family
from relay.observe.pressure import IntakeLoad, QueueFill
from relay.service.current import Current
from relay.service.feedback import Feedback
from relay.web.backend import LaneHealth, UpstreamHealth, UpstreamState
from relay.workers.fleet import Workers
from relay.workers.messages import UpstreamStatus

_STATES: Mapping[str, UpstreamState] = {
    "closed": "up",
    "untried": "untried",
    "open": "down",
    "half-open": "half-open",
}
_WORST_FIRST: Sequence[UpstreamState] = ("down", "half-open", "up", "untried")


class RelayHealth:
    """The web's `Health`."""

    def __init__(
        self,
        current: Current,
        admission: Admission,
        engine: Engine,
        workers: Workers,
        intake: IntakeServer,
        feedback: Feedback,
    ) -> None:
        self.draining = False
        self._current = current
        self._admission = admission
        self._engine = engine
        self._workers = workers
        self._intake = intake
        self._feedback = feedback

    def reasons(self) -> Sequence[str]:
        """Why no mail can be taken now; empty: it can."""
        return [*(["draining"] if self.draining else []), *self._admission.reasons()]

    def lanes(self) -> Mapping[str, LaneHealth]:
        """Each lane's upstreams, as all processes together see them."""
        config = self._current.config
        health: dict[str, dict[str, UpstreamHealth]] = {name: {} for name in config.lanes}
        for lane in self._engine.delivery.lanes():
            for own in lane.upstreams:
                _merge(health[lane.name], own.name, UpstreamStatus.of(own))
        for status in self._workers.statuses():
            for name, upstreams in status.lanes.items():
                for upstream_name, seen in upstreams.items():
                    if name in health:
                        _merge(health[name], upstream_name, seen)
        for name, merged in health.items():
            for upstream in config.lanes[name].upstreams:
                merged.setdefault(upstream, UpstreamHealth("untried"))  # no worker has reported it yet
            if config.lanes[name].prefer == "fastest":
                paces = self._engine.paces
                merged.update({each: replace(one, paces=paces.known(name, each)) for each, one in merged.items()})
        return health

    def queue(self) -> QueueFill:
        return self._admission.fill()

    def intake(self) -> IntakeLoad:
        return self._intake.load()

    def certificates(self) -> Mapping[str, float]:
        config, ends = self._current.config, self._current.loaded.certificate_ends
        listeners = [(str(one.address), one.cert_file) for one in config.listen if one.tls != "none"]
        if config.webhooks.address is not None:
            listeners.append((str(config.webhooks.address), config.webhooks.cert_file))
        return {address: ends[file] for address, file in listeners if file is not None and file in ends}

    async def worker_metrics(self) -> Sequence[Family]:
        """The workers' metrics. What the feedback process counted is added to this process's."""
        families, _ = await asyncio.gather(self._workers.metrics(), self._feedback.refresh_metrics())
        return families


def waiting_mail(engine: Engine, workers: Workers) -> tuple[int, int]:
    """How many messages are unfinished in all store files, and their bytes."""
    ours, theirs = engine.store.size(), workers.size()
    return ours[0] + theirs[0], ours[1] + theirs[1]


def _merge(upstreams: dict[str, UpstreamHealth], name: str, seen: UpstreamStatus) -> None:
    """Add one process's view of an upstream: the worst state, the sums of sessions and windows."""
    state, sessions = _STATES[seen.circuit], dict(seen.sessions)
    reason, window, reply_text, warm = seen.reason or None, seen.window, seen.reply_text or None, seen.warm
    ends_at = seen.certificate_ends_at
    before = upstreams.get(name)
    if before is not None:
        state = min(state, before.state, key=_WORST_FIRST.index)
        sessions = {
            kind: sessions.get(kind, 0) + before.sessions.get(kind, 0) for kind in {*sessions, *before.sessions}
        }
        reason, reply_text = before.reason or reason, before.reply_text or reply_text
        warm = before.warm or warm
        ends_at = min((one for one in (ends_at, before.certificate_ends_at) if one is not None), default=None)
        if before.window is not None:
            window = before.window + (window or 0)
    upstreams[name] = UpstreamHealth(state, sessions, reason, window, reply_text, warm, certificate_ends_at=ends_at)
