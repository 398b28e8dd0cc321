"""`prefer: fastest`: how long each upstream's mail takes to each mailbox provider, and the order that follows."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from relay.config.model import Config
from relay.mail.mailbox_provider import provider, provider_label
from relay.observe.quantiles import percentile

KEPT = 30
"""samples of one lane, upstream, provider and end"""
LEAST = 5
"""with fewer samples nothing is known"""
RECENT_S = 3 * 3600.0
"""older samples don't count"""
EXPLORED = 0.05
"""the share of messages that go to another upstream first, so that this one is known, too"""
RANKED_FOR_S = 0.5
"""an order holds for so long before it is found anew"""

End = Literal["delivered", "sent"]
"""what a time goes to: the ESP's delivered event, or the upstream's 250"""
Why = Literal["fastest", "explored", "learning"]


class Pace(NamedTuple):
    """The recent 95th percentile, from the final dot."""

    p95_s: float
    samples: int


class Ranking(NamedTuple):
    """Upstreams in the order in which they are asked, and why the first is first."""

    names: tuple[str, ...]
    why: Why
    end: End
    """what was compared"""


def rank(
    names: Sequence[str], delivered: Mapping[str, Pace], sent: Mapping[str, Pace], *, explores: bool = False
) -> Ranking:
    """The order of these upstreams, which are available, in the configuration's order. `delivered`, `sent`: what is
    known of each. Like is compared with like: delivered events where each upstream has them, else the times to the
    250. What isn't known comes last. `explores`: the least known of the others goes first."""
    end: End = "delivered" if all(name in delivered for name in names) else "sent"
    known = delivered if end == "delivered" else sent
    order = sorted(names, key=lambda name: known[name].p95_s if name in known else float("inf"))
    why: Why = "fastest" if any(name in known for name in names) else "learning"
    if explores and len(order) > 1:
        other = min(order[1:], key=lambda name: known[name].samples if name in known else 0)
        order.remove(other)
        order.insert(0, other)
        why = "explored"
    return Ranking(tuple(order), why, end)


class Sample(NamedTuple):
    """One recipient's time. `at`: seconds on the clock of `Paces`."""

    lane: str
    upstream: str
    provider: str
    end: End
    after_s: float
    at: float


def preferring(config: Config) -> frozenset[str]:
    """The lanes that prefer the fastest upstream."""
    return frozenset(name for name, lane in config.lanes.items() if lane.prefer == "fastest")


class Paces:
    """What was learnt, for all lanes of a process. Its memory is bounded: lanes and upstreams are the configuration's,
    providers the known ones and `other`."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._kept: dict[tuple[str, str, str, End], deque[tuple[float, float]]] = {}

    def learn(self, samples: Iterable[Sample]) -> None:
        """Take them in. Their lanes and upstreams are known to the configuration."""
        for one in samples:
            key = one.lane, one.upstream, provider_label(one.provider), one.end
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = deque(maxlen=KEPT)
            kept.append((one.at, one.after_s))

    def forget(self, lanes: Iterable[str]) -> None:
        """Keep what is about these lanes only."""
        staying = frozenset(lanes)
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] in staying}

    def pace(self, lane: str, upstream: str, provider: str, end: End) -> Pace | None:
        """None: there are too few samples."""
        oldest = self.now() - RECENT_S
        times_s = sorted(after_s for at, after_s in self._kept.get((lane, upstream, provider, end), ()) if at > oldest)
        p95_s = percentile(times_s, 95) if len(times_s) >= LEAST else None
        return None if p95_s is None else Pace(p95_s, len(times_s))

    def known(self, lane: str, upstream: str) -> dict[tuple[str, End], Pace]:
        """By provider and end."""
        found = {key[2:]: self.pace(*key) for key in list(self._kept) if key[:2] == (lane, upstream)}
        return {key: pace for key, pace in found.items() if pace is not None}

    def rank(self, lane: str, names: Sequence[str], provider: str, *, explores: bool) -> Ranking:
        """See `rank`."""
        delivered, sent = (
            {name: pace for name in names if (pace := self.pace(lane, name, provider, end)) is not None}
            for end in ("delivered", "sent")
        )
        return rank(names, delivered, sent, explores=explores)


class Preference:
    """The orders of one lane that prefers the fastest upstream."""

    def __init__(
        self,
        lane: str,
        paces: Paces,
        provider_of: Callable[[str], str] = provider,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`provider_of`: an address's mailbox provider. `chance`: a number from 0 to 1, drawn for each message."""
        self._provider_of = provider_of
        self._lane = lane
        self._paces = paces
        self._chance = chance
        self._ranked: dict[tuple[str, bool, tuple[str, ...]], tuple[float, Ranking]] = {}

    def label(self, address: str) -> str:
        """Of the address's mailbox provider."""
        return provider_label(self._provider_of(address))

    def explores(self) -> bool:
        """Is the next message one of those that explore?"""
        return self._chance() < EXPLORED

    def rank(self, names: tuple[str, ...], provider: str, *, explores: bool) -> Ranking:
        """The order for messages to a provider (its label)."""
        key, now = (provider, explores, names), time.monotonic()
        found = self._ranked.get(key)
        if found is None or not found[0] <= now < found[0] + RANKED_FOR_S:
            found = now, self._paces.rank(self._lane, names, provider, explores=explores)
            if len(self._ranked) >= MOST_RANKED:
                self._ranked.clear()
            self._ranked[key] = found
        return found[1]


MOST_RANKED = 500
"""orders that are remembered: providers, and which upstreams are available"""
