"""A lane's upstreams: which of them a message may go to now, and from when to when the lane uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.delivery.backlog import RouteKey
from relay.delivery.fastest import Preference, Ranking
from relay.delivery.message import Job
from relay.upstream.base import Upstream


class LaneUpstreams:
    def __init__(
        self, default: Sequence[str], all_of_them: Sequence[Upstream], preference: Preference | None = None
    ) -> None:
        """`default`: names, in order, for messages whose rule names none. `preference`: of a lane that prefers the
        fastest."""
        self._default = default
        self._preference = preference
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
        closed = [each for each in named if each.circuit.state == "closed"] or [
            each for each in named if each.is_urged()
        ]
        if (ranking := self.ranking(route, closed)) is not None:
            closed = [self._by_name[name] for name in ranking.names]
        turn = route.step % len(closed) if closed else 0
        return sorted(closed[turn:] + closed[:turn], key=_is_untried)

    def ranking(self, route: RouteKey, upstreams: Sequence[Upstream]) -> Ranking | None:
        """The order for a route; None: the lane doesn't prefer the fastest, or there is no choice."""
        if self._preference is None or len(upstreams) < 2:
            return None
        # In the configured order, however these are ordered: it decides where nothing is known.
        names = tuple(one.name for one in self.named(route.upstreams) if one in upstreams)
        return self._preference.rank(names, route.provider, explores=route.explores)

    def prepare(self, job: Job) -> None:
        """Find out what decides about a new job's upstreams, besides its rule."""
        if self._preference is not None:
            due = job.queued.due
            job.provider = self._preference.label(due[0].recipient.address) if due else ""
            job.explores = self._preference.explores()


def _is_untried(upstream: Upstream) -> bool:
    """A code doesn't wait for the first session of an upstream that may not be there, while another one is."""
    return upstream.express and not upstream.circuit.tried
