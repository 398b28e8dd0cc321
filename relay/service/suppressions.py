"""The suppressed addresses of a running relay: written to the main store file first, then to every process's copy."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from relay.delivery.engine import Engine
from relay.policy.suppression import BadAddress, Cause, Change, hash_of, shown_hash
from relay.service.current import Current
from relay.store.base import StoreError
from relay.store.suppressions import Suppression, SuppressionQuery, WantedSuppression
from relay.workers import messages
from relay.workers.fleet import Workers

STEP = 200
"""rows at a time, so that codes go on in between"""
MOST_WAITING = 10_000
"""bad addresses that wait while the store fails; the oldest are forgotten, the next reply tells of them again"""
RETRY_S = 1.0
PRUNE_EVERY_S = 60.0


class SuppressionKeeper:
    """`start`, and `stop` before the engine is closed."""

    def __init__(self, engine: Engine, workers: Workers, current: Current) -> None:
        self._engine = engine
        self._workers = workers
        self._current = current
        self._waiting: deque[BadAddress] = deque(maxlen=MOST_WAITING)
        self._has_some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_blanked = False

    async def start(self) -> None:
        """Read all entries. Raises StoreError."""
        engine = self._engine
        self._hash_key = await engine.store.suppressions.hash_key()
        await engine.load_suppressions(self._current.config.store)
        self._task = engine.supervisor.run_forever("suppressions", self._run)

    async def stop(self) -> None:
        """Write what upstreams' last replies said."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._write_waiting()

    async def add(
        self,
        address: str,
        cause: Cause,
        reason: str,
        *,
        upstream: str | None = None,
        at: float | None = None,
        lane: str | None = None,
        until: float | None = None,
        unnamed: bool = False,
    ) -> bool:
        """Suppress an address because of something that happened to mail of `lane`. `unnamed`: the address itself isn't
        kept. `reason`: an ESP's words, or an enhanced code. `at`: when, in seconds since the epoch; None: now. A bounce
        of an express lane's mail counts for the lane's `suppress_for`. Durable when it returns. False: that was known.
        Raises StoreError."""
        now = self._engine.clock.now()
        at = now if at is None else max(0.0, min(at, now))  # another machine's clock may be wrong
        if until is None and cause == "bounce":
            until = self._bounce_until(lane, at)
        row = Suppression.of(
            address,
            cause,
            reason,
            hash_key=self._hash_key,
            at=at,
            upstream=upstream,
            until=until,
            hashed=unnamed or self._is_hashed(),
        )
        return bool(await self._write([row]))

    async def add_by_hand(self, wanted: Sequence[WantedSuppression]) -> Sequence[str]:
        """The addresses that are new, or have another reason or end now. Raises StoreError."""
        now, changed = self._engine.clock.now(), []
        for start in range(0, len(wanted), STEP):
            rows = [one.row(self._hash_key, now, hashed=self._is_hashed()) for one in wanted[start : start + STEP]]
            changed += [row.address or shown_hash(row.key) for row in await self._write(rows)]
        return changed

    async def remove(self, addresses: Sequence[str]) -> Sequence[str]:
        """Let these be mailed again, whatever the cause was. Returns those that were suppressed. Raises StoreError."""
        hashes = {self.hash_of(address): address for address in addresses}
        keys = await self._engine.store.suppressions.remove(list(hashes))
        self._tell(Change(removed=keys))
        return list(dict.fromkeys(hashes[key & ~3] for key in keys))

    async def listing(self, query: SuppressionQuery) -> Sequence[Suppression]:
        """Newest first. Raises StoreError."""
        return await self._engine.store.suppressions.listing(query)

    async def erase(self, address: str) -> int:
        """Forget an address, which goes on being suppressed. Returns how many entries changed. Raises StoreError."""
        return await self._engine.store.suppressions.erase(self.hash_of(address), address)

    def hash_of(self, address: str) -> int:
        return hash_of(address, self._hash_key)

    def report(self, bad: BadAddress) -> None:
        """An upstream refused an address for good: it is written soon."""
        self._waiting.append(bad)
        self._has_some.set()

    async def _run(self) -> None:
        while True:
            await self._blank()
            try:
                async with asyncio.timeout(PRUNE_EVERY_S):
                    await self._has_some.wait()
            except TimeoutError:
                await self._prune()
            if not await self._write_waiting():
                await asyncio.sleep(RETRY_S)

    async def _write_waiting(self) -> bool:
        """False: the store fails; what couldn't be written waits."""
        self._has_some.clear()
        while self._waiting:
            bad = self._waiting[0]
            try:
                await self.add(bad.address, "bounce", bad.code, upstream=bad.upstream, at=bad.at, lane=bad.lane)
            except StoreError as error:
                self._engine.log.trouble("suppress", error)
                self._has_some.set()
                return False
            if self._waiting and self._waiting[0] is bad:
                self._waiting.popleft()
        return True

    async def _blank(self) -> None:
        """Forget the addresses that were kept before hashed ones were asked for."""
        if not self._is_hashed():
            self._is_blanked = False
        elif not self._is_blanked:
            try:
                await self._engine.store.suppressions.blank_readable()
                self._is_blanked = True
            except StoreError as error:
                self._engine.log.trouble("hash", error)

    async def _prune(self) -> None:
        try:
            while keys := await self._engine.store.suppressions.prune(self._engine.clock.now()):
                self._tell(Change(removed=keys))
        except StoreError as error:
            self._engine.log.trouble("prune", error)

    async def _write(self, rows: Sequence[Suppression]) -> Sequence[Suppression]:
        changed = await self._engine.store.suppressions.add(rows)
        self._tell(Change(added=[row.entry() for row in changed]))
        return changed

    def _tell(self, change: Change) -> None:
        if change.added or change.removed:
            self._engine.suppressions.apply(change)
            self._workers.notify(messages.SUPPRESS, change)

    def _bounce_until(self, lane: str | None, at: float) -> float | None:
        config = self._current.config.lanes.get(lane) if lane is not None else None
        if config is None or not config.express or config.suppress_for_s is None:
            return None
        return at + config.suppress_for_s

    def _is_hashed(self) -> bool:
        return self._current.config.log.addresses == "hashed"
