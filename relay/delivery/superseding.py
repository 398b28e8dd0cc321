"""In lanes with `supersede`: a newer message to the same recipient ends the older ones."""

from __future__ import annotations

from collections.abc import Callable

from relay.delivery.message import Job
from relay.delivery.services import Services


class Superseding:
    """The newest message of each key that the lane has in memory, and the end of the older ones."""

    def __init__(self, lane: str, services: Services, store_may_have_some: Callable[[], bool]) -> None:
        """`store_may_have_some`: False while no message of the lane waits in the store."""
        self._lane = lane
        self._services = services
        self._store_may_have_some = store_may_have_some
        self._newest: dict[str, Job] = {}

    async def supersede(self, key: str, newer: str, older: Job | None = None) -> None:
        """The message `newer` is stored: end the older ones in memory (`older`, by default the newest there) and in the
        store. One whose final dot has left still gets its reply, and isn't tried again. Raises StoreError."""
        if older is None:
            older = self._newest.get(key)
        if older is not None and older.queued.id < newer:
            older.supersede(newer)
        if self._store_may_have_some():
            now = self._services.clock.now()
            for message_id in await self._services.store.supersede(key, newer, now):
                self._services.events.on_superseded(self._lane, message_id, newer)

    def enter(self, job: Job) -> None:
        """The lane has the message in memory now."""
        key = job.queued.supersede_key
        if key is None:
            return
        newest = self._newest.get(key)
        if newest is None or newest.queued.id < job.queued.id:
            job.older, self._newest[key] = newest, job
        elif newest.queued.id == job.queued.id:
            # It was deferred, and is claimed again before its last job has left.
            job.older, self._newest[key] = newest.older, job
        elif newest.is_stored:
            job.supersede(newest.queued.id)
        else:
            newest.older = newest.older or job  # if the newest can't be stored, this one is still good

    def leave(self, job: Job) -> None:
        """The lane has it no more."""
        job.is_over = True
        key = job.queued.supersede_key
        if key is not None and self._newest.get(key) is job:
            if job.older is not None and not job.older.is_over:
                self._newest[key] = job.older
            else:
                del self._newest[key]
