"""What the limits of its lane would do to a message now, for `explain`."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.mail.envelope import Envelope, Recipient
from relay.policy.check import Refuse
from relay.policy.limiter import Incoming, Limiter, client_of, facts_of
from relay.policy.limits import NEVER, Demand, demands_of, free_at
from relay.policy.suppression import KEY_BYTES
from relay.store.base import StoreError
from relay.store.merge import shards
from relay.store.sqlite.limits import admissions
from relay.store.sqlite.suppressions import OfflineSuppressions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from relay.config.model import Config
    from relay.mail.message import Message
    from relay.routing.facts import Facts
    from relay.routing.router import Route

_KINDS = {"per_recipient": "recipient", "resend_after": "recipient", "per_client": "client", "per_sender": "sender"}


class Limited(NamedTuple):
    """The route that is left, and what the limits say."""

    route: Route
    reasons: tuple[str, ...]
    """as events of the kind `limited` have them"""
    refusal: str | None
    counters: list[dict[str, Any]]
    """how much of each limit of the first route's lane is used; empty where the store can't be read"""


class _Silent:
    def limited(self, message_id: str, lane: str, limit: str, action: str, wait_s: float | None = None) -> None:
        pass

    def limits_full(self, entries: int) -> None:
        pass


def limited(config: Config, facts: Facts, message: Message, route: Route, demoted: Route) -> Limited:
    """Reads the store's files, whether a relay runs or not. It doesn't know the texts of earlier mail. `demoted`: see
    `Router.demoted`."""
    salt = _salt(config.store)
    limiter = Limiter(_Silent(), lambda: salt)
    with suppress(StoreError):  # then nothing is known of earlier mail
        files = [path for path in (config.store, *shards(config.store)) if path.exists()]
        limiter.admissions.restore_all(admissions(files))
    envelope = Envelope(facts.sender, tuple(map(Recipient, facts.recipients)))
    now = time.time()
    incoming = Incoming(
        id="",
        envelope=envelope,
        message=message,
        is_whole=False,
        client=client_of(message, facts.user, facts.client),
        sender=facts.sender or next(iter(facts.from_addresses), ""),
        now=now,
    )
    lane = config.lanes[route.lane]
    demands = demands_of(facts_of(route, incoming), lane.limits, salt)
    counters = [_counter(demand, limiter.admissions.times(demand.key), now) for demand in demands]
    placed = limiter.place(config, route, demoted, incoming)
    if isinstance(placed, Refuse):
        return Limited(route, (), str(placed.reply), counters)
    return Limited(placed.route, placed.limited, None, counters)


def _counter(demand: Demand, times: Sequence[float], now: float) -> dict[str, Any]:
    free = free_at(demand, times, now)
    return {
        "limit": demand.limit,
        "of": _KINDS[demand.limit],
        "windows": [
            {
                "count": window.count,
                "period_ms": window.period_s * 1000,
                "used": sum(one > now - window.period_s for one in times),
            }
            for window in demand.windows
        ],
        "wait_ms": None if free == NEVER else round(max(0.0, free - now) * 1000),
    }


def _salt(store: Path) -> bytes:
    """What the store hashes keys with; any, where there is no store."""
    with suppress(StoreError), closing(OfflineSuppressions(store)) as entries:
        return entries.hash_key or bytes(KEY_BYTES)
    return bytes(KEY_BYTES)
