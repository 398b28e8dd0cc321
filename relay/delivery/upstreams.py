"""A lane's upstreams: which of them a message may go to now, and from when to when the lane uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.delivery.backlog import RouteKey
from relay.upstream.base import Upstream


class LaneUpstreams:
    def __init__(self, default: Sequence[str], all_of_them: Sequence[Upstream]) -> None:
        """`default`: names, in order, for messages whose rule names none."""
        self._default = default
        self._by_name = {upstream.name: upstream for upstream in all_of_them}
        self._joined: list[Upstream] = []

    def named(self, names: Sequence[str]) -> list[Upstream]:
        """What a message's rule named; where a reload has removed all of that, the lane's own."""
        known = [name for name in names if name in self._by_name] or self._default
        return [self._by_name[name] for name in known]

    def join(self, upstream: Upstream) -> None:
        """Use one of them. It is started, if no other lane has done so."""
        if upstream not in self._joined:
            self._joined.append(upstream)
            upstream.users.join()

    async def leave(self) -> None:
        """Use none of them any more. Those that no other lane uses are closed."""
        joined, self._joined = self._joined, []
        await asyncio.gather(*(upstream.users.leave() for upstream in joined))

    async def warmed(self) -> None:
        """Return when the upstream that the next message goes to has an open session, or when all are down."""
        for upstream in self.named(()):
            await upstream.settled.wait()
            if upstream.is_connected:
                return

    def available(self, route: RouteKey) -> list[Upstream]:
        """Those whose circuit is closed, in order of preference, rotated by the ladder's step; untried ones last."""
        named = self.named(route.upstreams)
        # An operator asked for a try now: it waits for how the probe ends.
        closed = [each for each in named if each.circuit.state == "closed"] or [each for each in named if each.urged]
        turn = route.step % len(closed) if closed else 0
        return sorted(closed[turn:] + closed[:turn], key=_is_untried)


def _is_untried(upstream: Upstream) -> bool:
    """A code doesn't wait for the first session of an upstream that may not be there, while another one is."""
    return upstream.express and not upstream.circuit.tried
