"""The store's regular upkeep: retention, what limits count no more, what a new configuration changes, and what fell due
while the machine was suspended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from relay.clock import Clock, steady
from relay.config.model import Config
from relay.observe.maillog import MailLog
from relay.policy.admissions import MOST_ENTRIES
from relay.policy.limits import longest_s
from relay.policy.requests import REQUESTS_KEPT_S
from relay.store.base import StoreError
from relay.store.sqlite.store import SqliteStore

PRUNE_EVERY_S = 1.0
PRUNE_MESSAGES = 2_000
"""deleted at a time: twice what a busy relay accepts in a second"""
SUSPENDED_S = 0.5
"""the clock that runs in suspension is so far ahead of the other one that the machine was suspended"""


class Housekeeping:
    """`apply` each configuration; `run` as a background task."""

    def __init__(self, store: SqliteStore, clock: Clock, log: MailLog) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._is_applied = True

    async def apply(self, config: Config, wake_lanes: Callable[[], None]) -> None:
        """Hash addresses, if that is configured, and move mail of lanes that no longer exist to the default lane.
        `wake_lanes` tells all lanes that something may be due. Raises StoreError: then `run` tries it again."""
        self._config, self._wake_lanes, self._is_applied = config, wake_lanes, False
        await self._apply()

    def apply_soon(self) -> None:
        """Have `run` apply the same configuration again: mail was stored by an earlier one."""
        self._is_applied = False

    async def _apply(self) -> None:
        await self._store.hash_addresses(wanted=self._config.log.addresses == "hashed")
        adopted = await self._store.adopt(tuple(self._config.lanes), self._config.default_lane)
        if adopted:
            self._log.adopted(self._config.default_lane, adopted)
        self._is_applied = True

    async def run(self) -> None:
        """Never returns."""
        ahead_s = steady() - time.monotonic()
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            before_s, ahead_s = ahead_s, steady() - time.monotonic()
            if ahead_s - before_s > SUSPENDED_S:
                self._wake_lanes()  # the event loop's timers stood still
            if not self._is_applied:
                await self._try("adopt", self._apply_again)
            await self._try("prune", self._prune)

    async def _apply_again(self) -> None:
        await self._apply()
        self._wake_lanes()

    async def _prune(self) -> None:
        now = self._clock.now()
        await self._store.prune(now - self._config.log.keep_s, limit=PRUNE_MESSAGES)
        await self._store.limits.prune(now - longest_s(self._config), now - REQUESTS_KEPT_S, most=MOST_ENTRIES)

    async def _try(self, where: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except StoreError as error:
            self._log.trouble(where, error)
