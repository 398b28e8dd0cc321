"""Which upstreams of the running lanes the lanes of a newer configuration go on with, and which are new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relay.config.model import Lane as LaneConfig
from relay.delivery.lane import Lane
from relay.upstream.base import Upstream, Watcher
from relay.upstream.limits import UpstreamLimits
from relay.upstream.smtp.connect import Target
from relay.upstream.smtp.upstream import SmtpUpstream


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
        self._running = {
            (lane.name, upstream.name): upstream
            for lane in running
            for upstream in lane.upstreams
            if isinstance(upstream, SmtpUpstream)
        }
        self._targets = targets
        self._limits = limits
        self._watcher = watcher
        self._taken_over: dict[SmtpUpstream, float] = {}
        """with the seconds in which each session is to be opened"""
        self._new: dict[SmtpUpstream, SmtpUpstream | None] = {}
        """with the one that each replaces"""

    def upstream(self, lane: str, config: LaneConfig, name: str) -> Upstream:
        """The running one, where nothing of it changes; else a new one, not started."""
        target, limits = self._targets[name], self._limits[name]
        running = self._running.get((lane, name))
        if running is not None and running.serves(target, limits, express=config.express):
            self._taken_over[running] = config.attempt_s
            return running
        new = SmtpUpstream(
            lane, target, limits, express=config.express, open_within_s=config.attempt_s, watcher=self._watcher
        )
        self._new[new] = running
        return new

    def is_new(self, upstream: Upstream) -> bool:
        return upstream in self._new

    def begin(self) -> None:
        """The lanes are in force: they watch their upstreams from now on, and learn what has become of new ones."""
        for upstream, open_within_s in self._taken_over.items():
            upstream.take_over(self._targets[upstream.name], open_within_s=open_within_s, watcher=self._watcher)
        for new, before in self._new.items():
            self._compare(new, before)
        self._running, self._taken_over, self._new = {}, {}, {}

    def _compare(self, new: SmtpUpstream, before: SmtpUpstream | None) -> None:
        """Report an upstream that is down or up, where that is news."""
        was_down = before is not None and before.circuit.state != "closed"
        if new.circuit.state != "closed":
            if not was_down:
                self._watcher.down(new.lane, new.name, new.circuit.reason)
        elif was_down and before is not None:
            if new.is_connected:
                self._watcher.up(new.lane, new.name)
            else:
                new.doubt(before.circuit.reason)
