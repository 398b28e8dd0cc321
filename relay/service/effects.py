"""Applies what follows from ESPs' events: a recipient ends, an address is suppressed."""

from __future__ import annotations

from relay.delivery.engine import Engine
from relay.policy.suppression import CAUSES, Cause
from relay.service.suppressions import SuppressionKeeper
from relay.store.events import Effect
from relay.store.model import LateEnd
from relay.workers.fleet import Workers

NO_REASON = "reported by the upstream as undeliverable"


class Effects:
    """Each effect may be applied twice, which is the same as once."""

    def __init__(self, engine: Engine, workers: Workers, suppressions: SuppressionKeeper) -> None:
        self._engine = engine
        self._workers = workers
        self._suppressions = suppressions

    async def apply(self, effect: Effect) -> bool:
        """False: it can't be applied yet. Raises StoreError, LinkLost."""
        if effect.action == "end":
            return await self._end(effect)
        if effect.address is not None:
            cause: Cause = next((one for one in CAUSES if one == effect.cause), "bounce")
            reason, upstream = effect.reason or "", effect.upstream
            await self._suppressions.add(
                effect.address,
                cause,
                reason,
                upstream=upstream,
                at=effect.at,
                lane=effect.lane,
                unnamed=effect.action == "suppress_unnamed",
            )
        return True

    async def _end(self, effect: Effect) -> bool:
        end = LateEnd(effect.message_id, effect.position, effect.upstream, effect.reason or NO_REASON)
        ended = await self._engine.store.end_sent(end)
        if ended == "absent":
            ended = await self._workers.end_sent(end)
        return ended != "later"
