"""A lane's upstreams, and which of them a message may go to now."""

from __future__ import annotations

from collections.abc import Sequence

from relay.delivery.backlog import RouteKey
from relay.upstream.base import Upstream


class LaneUpstreams:
    def __init__(self, default: Sequence[str], all_of_them: Sequence[Upstream]) -> None:
        """`default`: names, in order, for messages whose rule names none."""
        self._default = default
        self._by_name = {upstream.name: upstream for upstream in all_of_them}

    def named(self, names: Sequence[str]) -> list[Upstream]:
        """What a message's rule named; where a reload has removed all of that, the lane's own."""
        known = [name for name in names if name in self._by_name] or self._default
        return [self._by_name[name] for name in known]

    def available(self, route: RouteKey) -> list[Upstream]:
        """Those whose circuit is closed, in order of preference, rotated by the ladder's step."""
        named = self.named(route.upstreams)
        # An operator asked for a try now: it waits for how the probe ends.
        closed = [each for each in named if each.circuit.state == "closed"] or [each for each in named if each.urged]
        turn = route.step % len(closed) if closed else 0
        return closed[turn:] + closed[:turn]
