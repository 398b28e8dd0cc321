"""Writes down what became of a lane's messages. It tries again while the store fails, and loses no outcome.

What is written is made in `settlement`, which is pure.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable

from relay.clock import steady
from relay.config.model import Lane as LaneConfig
from relay.delivery.ladder import retry_at
from relay.delivery.message import Job
from relay.delivery.services import STORE_RETRY_S, Services
from relay.delivery.settlement import Moment, conclude, has_slow_dsn, notification, put_off, settlement
from relay.store.base import StoreError
from relay.store.model import NewMessage, Settlement


class Settler:
    def __init__(
        self,
        lane: str,
        config: LaneConfig,
        services: Services,
        *,
        wake: Callable[[str, float], None],
        after_deferral: Callable[[Job], Awaitable[None]],
    ) -> None:
        """`wake` tells a lane, by name, when mail in the store is due; `after_deferral` is awaited once a message
        waits in the store again."""
        self._lane = lane
        self._config = config
        self._services = services
        self._wake = wake
        self._after_deferral = after_deferral
        self._unsettled: dict[str, list[Settlement]] = {}
        """messages that a drain should have given back while the store failed, with their unwritten outcomes"""

    async def settle(self, job: Job) -> None:
        """Write what the job has gathered, and try until the store takes it: what was sent must be known."""
        settled = settlement(job, await self._dsn(job))
        if not settled.updates and not settled.attempts:
            return
        while True:
            writing = asyncio.ensure_future(self._services.store.settle(settled))
            job.settling = settled, writing
            try:
                await asyncio.shield(writing)
                break
            except StoreError as error:
                self._services.events.on_error("settle", error)
                await asyncio.sleep(STORE_RETRY_S)
        job.settling = None
        self._services.events.on_settled(self._lane, job, settled)
        bad_addresses, job.bad_addresses = job.bad_addresses, []
        for one in bad_addresses:
            self._services.report_bad_address(one)
        for bounce in settled.bounces:
            self._wake(bounce.lane, bounce.accepted_at)
        due = [update.next_at for update in settled.updates if update.next_at is not None]
        if due:
            self._wake(self._lane, min(due))
            await self._after_deferral(job)

    async def finish(self, job: Job) -> None:
        """The job's round is over: write its outcome, and give back what the end of the relay leaves unsent."""
        if not await job.was_stored():
            return
        conclude(job, self._config, self._moment())
        job.timings_ms["sign"] = job.sign_ms
        await self.settle(job)
        if job.pending:
            await self._give_back_settled(job, [])

    async def last_resort(self, job: Job) -> None:
        """After a fault of the relay's own: write what was achieved and defer the rest, without a look at the content.
        Where that fails too, give the message back to the store, due at its next step."""
        if not await job.was_stored():
            return
        try:
            put_off(job, self._config, self._moment())
            await self.settle(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must be given back
            self._services.events.on_error("delivery", error)
            step = min((one.step for one in job.queued.due), default=0)
            due_at = retry_at(self._services.clock.now(), self._config.retry_s, step, 1.0)
            if await self.give_back(job, due_at):
                self._wake(self._lane, due_at)

    async def abort(self, job: Job) -> None:
        """A drain ran out of time: write what is known of the job, and give the rest back for the next start."""
        if not job.is_stored:
            return
        unwritten: list[Settlement] = []
        if job.settling is not None:
            settled, writing = job.settling
            try:
                await writing
            except StoreError:
                unwritten.append(settled)
        settled = settlement(job, await self._dsn(job))
        if settled.updates or settled.attempts:
            unwritten.append(settled)
        await self._give_back_settled(job, unwritten)

    async def give_back(self, job: Job, due_at: float | None = None) -> bool:
        """Give a message back to the store, due then (seconds since the epoch; None: at once). False: it failed."""
        try:
            await self._services.store.unclaim(job.queued.id, due_at)
        except StoreError as error:
            self._services.events.on_error("unclaim", error)
            return False
        return True

    async def give_back_waiting(self, jobs: Iterable[Job], within_s: float, given_back: Callable[[], None]) -> None:
        """Give back messages that were never begun; one that is still being stored has so many seconds for it.
        `given_back` is called after each."""
        for job in jobs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await job.put_over.wait()
            if job.is_stored:
                await self._give_back_settled(job, [])
                given_back()

    async def retry_settlements(self) -> bool:
        """After a drain: write what the store refused then. False: it still refuses."""
        return all([await self._flush_unsettled(message_id) for message_id in list(self._unsettled)])

    async def _give_back_settled(self, job: Job, settlements: list[Settlement]) -> None:
        """Write the settlements, then give the message back; what fails is left to `retry_settlements`."""
        self._unsettled[job.queued.id] = settlements
        await self._flush_unsettled(job.queued.id)

    async def _flush_unsettled(self, message_id: str) -> bool:
        settlements = self._unsettled[message_id]
        try:
            while settlements:
                await self._services.store.settle(settlements[0])
                del settlements[0]
        except StoreError as error:
            self._services.events.on_error("settle", error)
            return False
        try:
            await self._services.store.unclaim(message_id)
        except StoreError as error:
            self._services.events.on_error("unclaim", error)
            return False
        del self._unsettled[message_id]
        return True

    def mark_final(self, job: Job) -> None:
        """Write, durably, that the final dot is about to leave; then open the gate for it."""
        job.marking = asyncio.create_task(self._mark_final(job), name=f"mark {job.queued.id}")

    async def _mark_final(self, job: Job) -> None:
        carried = job.carried
        try:
            await self._services.store.mark_final(job.queued.id, carried)
        except Exception as error:  # noqa: BLE001 - nothing awaits this task
            # Unmarked, the content may not leave: the attempt runs into its deadline, and the message waits.
            self._services.events.on_error("mark", error)
            return
        if job.carried == carried:
            job.gate.marked()

    async def _dsn(self, job: Job) -> NewMessage | None:
        """One that can't be made is reported and left out: the outcome that it is about must be written all the same.
        The job keeps what it has gathered, in case this is cancelled."""
        try:
            if has_slow_dsn(job):
                return await asyncio.to_thread(notification, job, self._services.bounces)
            return notification(job, self._services.bounces)
        except Exception as error:  # noqa: BLE001 - see above
            self._services.events.on_error("dsn", error)
            return None

    def _moment(self) -> Moment:
        return Moment(self._services.clock.now(), steady(), random.random())  # noqa: S311
