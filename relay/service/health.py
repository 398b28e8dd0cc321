"""The relay's health and the operator's actions, as the HTTP service asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from relay.delivery.engine import Engine
from relay.intake.admission import Admission
from relay.intake.server import IntakeServer
from relay.observe.metrics import Family
from relay.observe.pressure import IntakeLoad, QueueFill
from relay.service.current import Current
from relay.store.base import StoreError
from relay.store.model import Action, Selection
from relay.web.backend import LaneHealth, UpstreamHealth, UpstreamState
from relay.workers.fleet import Workers
from relay.workers.link import LinkLost
from relay.workers.messages import UpstreamStatus
from relay.workers.transfer import Forwarder

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
        self, current: Current, admission: Admission, engine: Engine, workers: Workers, intake: IntakeServer
    ) -> None:
        self.starting, self.draining = True, False
        self._current = current
        self._admission = admission
        self._engine = engine
        self._workers = workers
        self._intake = intake

    def reasons(self) -> Sequence[str]:
        """Why no mail can be taken now; empty: it can."""
        phase = ["draining"] if self.draining else ["starting"] if self.starting else []
        return [*phase, *self._admission.reasons()]

    def lanes(self) -> Mapping[str, LaneHealth]:
        """Each lane's upstreams, as all processes together see them."""
        config = self._current.config
        health: dict[str, dict[str, UpstreamHealth]] = {name: {} for name in config.lanes}
        for lane in self._engine.delivery.lanes():
            for pool in lane.upstreams:
                _merge(health[lane.name], pool.name, UpstreamStatus.of(pool))
        for status in self._workers.statuses():
            for name, upstreams in status.lanes.items():
                for upstream, seen in upstreams.items():
                    if name in health:
                        _merge(health[name], upstream, seen)
        for name, merged in health.items():
            for upstream in config.lanes[name].upstreams:
                merged.setdefault(upstream, UpstreamHealth("untried"))  # no worker has reported it yet
        return health

    def queue(self) -> QueueFill:
        return self._admission.fill()

    def intake(self) -> IntakeLoad:
        return self._intake.load()

    async def others(self) -> Sequence[Family]:
        """The workers' metrics."""
        return await self._workers.metrics()


def waiting_mail(engine: Engine, workers: Workers) -> tuple[int, int]:
    """How many messages are unfinished in all store files, and their bytes."""
    ours, theirs = engine.store.size(), workers.size()
    return ours[0] + theirs[0], ours[1] + theirs[1]


class Operator:
    """The web's `Controller`: carries out an operator's actions in all store files."""

    def __init__(self, engine: Engine, workers: Workers, forwarder: Forwarder) -> None:
        self._engine = engine
        self._workers = workers
        self._forwarder = forwarder

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """The ids of the messages that changed. Raises StoreError."""
        try:
            async with self._forwarder.still():
                ours, theirs = await asyncio.gather(
                    self._engine.delivery.act(action, selection), self._workers.act(action, selection)
                )
        except LinkLost as error:
            raise StoreError("a process for bulk mail does not answer; try again") from error
        return list(dict.fromkeys([*ours, *theirs]))  # a message that is being moved may be in two files


def _merge(upstreams: dict[str, UpstreamHealth], name: str, seen: UpstreamStatus) -> None:
    """Add one process's view of an upstream: the worst state, the sums of sessions and windows."""
    state, sessions = _STATES[seen.circuit], dict(seen.sessions)
    reason, window, reply_text = seen.reason or None, seen.window, seen.reply_text or None
    before = upstreams.get(name)
    if before is not None:
        state = min(state, before.state, key=_WORST_FIRST.index)
        sessions = {
            kind: sessions.get(kind, 0) + before.sessions.get(kind, 0) for kind in {*sessions, *before.sessions}
        }
        reason, reply_text = before.reason or reason, before.reply_text or reply_text
        if before.window is not None:
            window = before.window + (window or 0)
    upstreams[name] = UpstreamHealth(state, sessions, reason, window, reply_text)
