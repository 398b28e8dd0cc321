"""What every lane needs from the rest of the relay, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relay.clock import Clock
from relay.delivery.message import Job, Signing, SigningElsewhere
from relay.delivery.settlement import Bounces
from relay.store.base import Store
from relay.store.model import Settlement
from relay.supervise import Supervisor
from relay.upstream.base import Report


class Events(Protocol):
    """Who is told what happens to mail: log and metrics. Nothing here may raise or wait."""

    def told(self, lane: str, job: Job, tried: Report) -> None:
        """One try at one upstream is over."""

    def settled(self, lane: str, job: Job, settlement: Settlement) -> None:
        """Its outcome is durable."""

    def superseded(self, lane: str, message_id: str, by: str) -> None:
        """A message that waited in the store ended, because a newer one came."""

    def trouble(self, where: str, error: BaseException) -> None:
        """Something of ours failed; mail waits, nothing is lost."""


@dataclass(frozen=True, slots=True)
class Services:
    """Made once by the app."""

    store: Store
    clock: Clock
    sign: Signing
    bounces: Bounces
    events: Events
    wake: Callable[[str, float], None]
    """wakes another lane: a bounce was queued for it"""
    supervisor: Supervisor
    """begins background tasks, and begins them again"""
    sign_elsewhere: SigningElsewhere | None = None
    """where there is another process for that"""

    def mark(self, job: Job) -> None:
        """Write, durably, that the final dot is about to leave; then let it."""
        task = asyncio.create_task(self._mark(job), name=f"mark {job.queued.id}")
        job.marking = task

    async def _mark(self, job: Job) -> None:
        carried = job.carried
        try:
            await self.store.mark_final(job.queued.id, carried)
        except Exception as error:  # noqa: BLE001 - nothing waits for this task
            # Unmarked it may not leave: the attempt runs into its deadline, and the message waits.
            self.events.trouble("mark", error)
            return
        if job.carried == carried:
            job.gate.marked()
