"""Which upstreams of the running lanes the lanes of a newer configuration go on with, and which are new."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from relay.config.model import Lane as LaneConfig
from relay.delivery.lane import Lane
from relay.upstream.auto import AutoUpstream
from relay.upstream.base import Upstream
from relay.upstream.http.upstream import HttpUpstream
from relay.upstream.limits import UpstreamLimits
from relay.upstream.smtp.upstream import SmtpUpstream
from relay.upstream.standing import Watcher
from relay.upstream.target import Target

_KINDS: Mapping[str, type[SmtpUpstream | HttpUpstream | AutoUpstream]] = {
    "smtp": SmtpUpstream,
    "api": HttpUpstream,
    "auto": AutoUpstream,
}


class Watch:
    """Watches the upstreams of a configuration's lanes, while these are in force."""

    def __init__(self, events: Watcher, lane: Callable[[str], Lane]) -> None:
        """`lane` finds one by its name."""
        self.is_in_force = False
        self._events = events
        self._lane = lane

    def down(self, lane: str, upstream: str, reason: str) -> None:
        """An upstream's circuit opened."""
        if self.is_in_force:
            self._events.down(lane, upstream, reason)

    def up(self, lane: str, upstream: str) -> None:
        """It closed again: what was deferred is due."""
        if self.is_in_force:
            self._events.up(lane, upstream)
            self._lane(lane).feeder.on_upstream_recovered()

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        """It closes idle sessions at once."""
        if self.is_in_force:
            self._events.on_demand(lane, upstream, after_s)

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        """It can't take messages behind each other."""
        if self.is_in_force:
            self._events.one_at_a_time(lane, upstream, reason)

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        """Its API or its SMTP server is down; mail goes by the other."""
        if self.is_in_force:
            self._events.way_down(lane, upstream, way, reason)

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        """That one is back."""
        if self.is_in_force:
            self._events.way_up(lane, upstream, way)
            self._lane(lane).feeder.on_upstream_recovered()


class Succession:
    """`upstream` for each lane and name while the lanes are built, which changes nothing; `begin` when they are in
    force."""

    def __init__(
        self,
        running: Iterable[Lane],
        targets: Mapping[str, Target],
        limits: Mapping[str, UpstreamLimits],
        watcher: Watcher,
    ) -> None:
        """`running`: the lanes to be replaced; none at the start. `watcher`: of all upstreams."""
        self._running = {(lane.name, upstream.name): upstream for lane in running for upstream in lane.upstreams}
        self._targets = targets
        self._limits = limits
        self._watcher = watcher
        self._taken_over: dict[Upstream, float] = {}
        """with the seconds in which each session is to be opened"""
        self._new: dict[Upstream, Upstream | None] = {}
        """with the one that each replaces"""

    def upstream(self, lane: str, config: LaneConfig, name: str) -> Upstream:
        """The running one, where nothing of it changes; else a new one, not started."""
        target, limits = self._targets[name], self._limits[name]
        running = self._running.get((lane, name))
        if running is not None and running.serves(target, limits, express=config.express):
            self._taken_over[running] = config.attempt_s
            return running
        kind: type[SmtpUpstream | HttpUpstream | AutoUpstream] = _KINDS[target.config.via]
        new = kind(lane, target, limits, express=config.express, open_within_s=config.attempt_s, watcher=self._watcher)
        self._new[new] = running
        return new

    def new(self) -> Sequence[Upstream]:
        """Those of express lanes that no running one serves for."""
        return [upstream for upstream in self._new if upstream.express]

    async def opened(self, new: Upstream, within_s: float) -> None:
        """Return when it has an open session or is down, at the latest after `within_s` seconds. Where it has no place
        for one, an idle session of the upstream that it replaces gives way, if that has another."""
        before = self._new[new]
        has_place = new.is_connected or new.counts()["opening"]
        if before is not None and not has_place and before.counts()["idle"] > 1:
            before.close_idle()
        await new.opened(within_s)

    def begin(self) -> None:
        """The lanes are in force: they watch their upstreams from now on, and learn what has become of new ones."""
        for upstream, open_within_s in self._taken_over.items():
            upstream.take_over(self._targets[upstream.name], open_within_s=open_within_s, watcher=self._watcher)
        for new, before in self._new.items():
            self._compare(new, before)
        self._running, self._taken_over, self._new = {}, {}, {}

    def _compare(self, new: Upstream, before: Upstream | None) -> None:
        """Report an upstream that is down or up, where that is news."""
        was_down = before is not None and before.circuit.state != "closed"
        if new.circuit.state != "closed":
            if not was_down:
                self._watcher.down(new.lane, new.name, new.circuit.reason)
        elif was_down and before is not None:
            if new.is_connected:
                self._watcher.up(new.lane, new.name)
            else:
                _doubt(new, before.circuit.reason)


def _doubt(new: Upstream, reason: str) -> None:
    """Another configuration of it was down. Only a connection shows that this one isn't: a probe for that is under way
    when this returns, or begins as soon as there is a place for it."""
    new.circuit.doubt(time.monotonic(), reason)
    if new.counts()["opening"]:
        new.circuit.probing()
    new.urge()
