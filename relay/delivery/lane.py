"""Schedules one lane's mail: which message goes next, to which upstreams, within slots, rate, windows and pauses.

Mail comes in two ways. `offer` takes a message that was just stored and is still in memory. Everything else waits in
the store until the lane's feeder claims it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from relay.config.model import Lane as LaneConfig
from relay.delivery.attempt import load_of
from relay.delivery.backlog import Backlog, RouteKey
from relay.delivery.drain import end_deliveries
from relay.delivery.fastest import Preference
from relay.delivery.feeder import CLAIM_MESSAGES, Feeder
from relay.delivery.message import Job
from relay.delivery.round import Round
from relay.delivery.services import Services
from relay.delivery.settlement import UNAVAILABLE
from relay.delivery.settler import Settler
from relay.delivery.superseding import Superseding
from relay.delivery.suppressing import end_suppressed
from relay.delivery.upstreams import LaneUpstreams
from relay.mail.reply import OWN
from relay.store.base import StoreError
from relay.store.model import Booking, Queued
from relay.upstream.attempt import Report
from relay.upstream.base import Upstream
from relay.upstream.gate import Gate
from relay.upstream.rate import Bucket

EXPRESS_IN_MEMORY = (2_000, 64_000_000)
BULK_IN_MEMORY = (200, 32_000_000)
"""(messages, content bytes) a lane may have in memory; the rest waits in the store"""
BULK_SETTLING = 100
"""bulk messages that are being settled while their sessions carry others already"""
LEAST_TIMER_S = 0.001
"""uvloop's timers below half a millisecond have no `when`"""


class Lane:
    def __init__(
        self,
        name: str,
        config: LaneConfig,
        upstreams: Sequence[Upstream],
        services: Services,
        wake: Callable[[str, float], None],
    ) -> None:
        """`upstreams`: this lane's own, one for each that a rule may name, in the lane's order. `wake` tells a lane, by
        name, when mail in the store is due."""
        self.name = name
        self.config = config
        self.upstreams = tuple(upstreams)
        self.booking = Booking(tuple(config.retry_s), holder=str(os.getpid()))
        self.feeder = Feeder(
            name,
            config,
            services,
            self.booking,
            has_room=self._has_room_for_batch,
            enqueue=lambda queued: self.offer(self.job(queued, claimed=True)),
        )
        self.superseding = Superseding(name, services, lambda: self.feeder.store_may_have_some)
        self.settler = Settler(name, config, services, wake=wake, after_deferral=self._after_deferral)
        self._services = services
        self._sign = partial(services.sign, express=config.express)
        preference = Preference(name, services.paces, services.providers.of) if config.prefer == "fastest" else None
        self.choice = LaneUpstreams(config.upstreams, upstreams, preference)
        self._backlog = Backlog()
        self._paused_messages = 0
        """messages of the backlog whose upstreams all asked for a pause"""
        self._active = 0
        """messages whose delivery is under way"""
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._bytes = 0
        self._most_in_memory = EXPRESS_IN_MEMORY if config.express else BULK_IN_MEMORY
        self._slots = config.concurrency or sum(_at_once(upstream) for upstream in upstreams)
        """messages sent at once, at most; for bulk, the upstreams' windows say how many now"""
        self._bucket = Bucket(config.rate, time.monotonic()) if config.rate is not None else None
        self._timer: asyncio.TimerHandle | None = None
        """when the rate or an upstream's pause lets the next message go"""
        self._draining = False
        self._pauses = 0
        self.successor: Lane | None = None
        """of a newer configuration: the store's mail is its own. It may have the same upstreams"""

    def start(self) -> None:
        """Send, and claim what the store has."""
        for upstream in self.upstreams:
            self.choice.join(upstream)
        self.feeder.start()

    def job(self, queued: Queued, *, claimed: bool = False) -> Job:
        """A message as a job of this lane. Its gate is closed, unless it was claimed from the store."""
        clock = self._services.clock
        gate = Gate(clock.steady(queued.expires_at))
        job = Job(queued, gate, self._sign, clock.monotonic(queued.accepted_at), self._services.redirect)
        self.choice.prepare(job)
        if self.config.on_ambiguous == "hold":
            gate.mark = lambda: self.settler.mark_final(job)
        if claimed:
            job.is_claimed = True
            job.on_put(stored=True)
        return job

    def has_room(self, size_bytes: int) -> bool:
        """May a new message stay in memory until it is sent? Else it is stored unclaimed, and `wake` follows."""
        messages, most_bytes = self._most_in_memory
        in_memory = len(self._backlog) + self._active
        fits = in_memory == 0 or self._bytes + size_bytes <= most_bytes
        return not self._draining and in_memory < messages and fits

    def _has_room_for_batch(self) -> bool:
        """What an upstream's pause holds up doesn't count, while there is memory for it."""
        messages, most_bytes = self._most_in_memory
        waiting = len(self._backlog)
        if self._draining or self._pauses or self._bytes >= most_bytes:
            return False
        if self._paused_messages and waiting >= messages:
            return False
        return waiting - self._paused_messages < CLAIM_MESSAGES // 2

    def offer(self, job: Job) -> None:
        """Queue a message whose recipients are claimed. Its delivery may begin before this returns."""
        self._bytes += len(job.queued.content)
        self.superseding.enter(job)
        self._backlog.push(job)
        self._pump()

    def wake(self, at: float) -> None:
        """Something in the store is due then (seconds since the epoch)."""
        newest(self).feeder.wake(at)

    async def pause(self, ids: frozenset[str] | None) -> None:
        """Begin and claim nothing until `resume`; give the waiting messages (`ids`, or all) back to the store."""
        self._pauses += 1
        await self.feeder.claim_finished()
        for job in self._backlog.remove(lambda job: job.is_stored and (ids is None or job.queued.id in ids)):
            if await self.settler.give_back(job):
                self._bytes -= len(job.queued.content)
                self.superseding.leave(job)
                self.wake(self._services.clock.now())
            else:
                self._backlog.push(job)

    def resume(self) -> None:
        """The end of one `pause`."""
        self._pauses -= 1
        self.wake(self._services.clock.now())
        self._pump()

    async def drain(self, within_s: float) -> int:
        """Begin nothing more and give what waits back to the store; what is under way may take `within_s` seconds.
        Returns the number of deliveries that took longer and were stopped."""
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
        await self.feeder.stop()
        waiting = self._backlog.remove(lambda _: True)
        giving_back = self.settler.give_back_waiting(waiting, within_s, lambda: self.wake(self._services.clock.now()))
        stopped, _ = await asyncio.gather(end_deliveries(self._tasks, within_s), giving_back)
        await self.choice.leave()
        return stopped

    def _pump(self) -> None:
        """Begin as many deliveries as may be under way, the earliest deadline first."""
        while self._backlog and self._has_slot() and not (self._draining or self._pauses):
            found = self._next(time.monotonic())
            if found is None or not self._rate_allows():
                break
            route, upstreams = found
            job = self._backlog.pop(route)
            self._active += 1
            if upstreams:
                upstreams[0].under_way += 1
                job.ranking = self.choice.ranking(route, upstreams)
            task = asyncio.create_task(self._deliver(job, upstreams), name=f"deliver {job.queued.id}")
            self._tasks[task] = job
            task.add_done_callback(self._delivered)
        self.feeder.arm()

    def _pump_in(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + max(LEAST_TIMER_S, wait_s)
        if self._timer is None or not loop.time() < self._timer.when() <= at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(at, self._pump)

    def _has_slot(self) -> bool:
        if self.config.express:
            return self._active < self._slots
        # A message that is being settled needs no session.
        sending = sum(upstream.messages() for upstream in self.upstreams)
        return sending < self._slots and self._active < self._slots + BULK_SETTLING

    def _rate_allows(self) -> bool:
        if self._bucket is None:
            return True
        wait_s = self._bucket.take(time.monotonic())
        if wait_s > 0.0:
            self._pump_in(wait_s)
        return wait_s == 0.0

    def _next(self, now: float) -> tuple[RouteKey, list[Upstream]] | None:
        """The route whose first message goes next, with the upstreams to ask; None: none may go now."""
        best: tuple[tuple[float, str], RouteKey, list[Upstream]] | None = None
        self._paused_messages = 0
        for route, rank, waiting in self._backlog.heads():
            upstreams = self.choice.available(route)
            if upstreams and not self.config.express:
                upstreams.sort(key=lambda upstream: now < upstream.window.resume_at)
                if now < upstreams[0].window.resume_at:
                    self._paused_messages += waiting
                    self._pump_in(min(upstream.window.resume_at for upstream in upstreams) - now)
                    continue
                if not upstreams[0].has_place(now):
                    continue
            if best is None or rank < best[0]:
                best = rank, route, upstreams
        return best and (best[1], best[2])

    async def _deliver(self, job: Job, upstreams: list[Upstream]) -> None:
        """One round for one message, and its settlement."""
        job.picked_at = time.monotonic()
        job.timings_ms["wait"] = (job.picked_at - job.offered_at) * 1000.0
        try:
            try:
                end_suppressed(job, self.config, self._services.suppressions, self._services.clock.now())
                if upstreams and job.pending and job.is_claimed and not self.config.express:
                    await _sign_first(job, upstreams[0])
            finally:
                if upstreams:
                    upstreams[0].under_way -= 1  # from here on the attempt counts itself
            named = self.choice.named(job.queued.upstreams)
            if not upstreams:
                _note_unavailable(job, named)
            round_ = Round(job, self.config, self._services.clock.epoch, self.settler.settle, self._on_attempt)
            await round_.run(upstreams, complete=len(upstreams) == len(named))
            await self.settler.finish(job)
        except asyncio.CancelledError:
            await asyncio.shield(self.settler.abort(job))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must not be left as being sent
            self._services.events.on_error("delivery", error)
            await self.settler.last_resort(job)
        finally:
            self._bytes -= len(job.queued.content)
            self._active -= 1
            self.superseding.leave(job)
            if job.queued.suspect:
                self.wake(self._services.clock.now())  # the next suspect may be claimed

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.events.on_error("delivery", error)
        newest(self)._pump()

    def _on_attempt(self, job: Job, report: Report) -> None:
        self._services.events.on_attempt(self.name, job, report)
        if report.error is not None:
            self._services.events.on_error("delivery", report.error)
        if not self.config.express:
            newest(self)._pump()

    async def _after_deferral(self, job: Job) -> None:
        """The message waits in the store again."""
        newest(self).feeder.on_deferred(job.picked_at)
        # A newer message that came during this write did not find the older one in the store. End the older one now.
        if job.superseded_by is not None and job.queued.supersede_key is not None:
            try:
                await self.superseding.supersede(job.queued.supersede_key, job.superseded_by)
            except StoreError as error:
                self._services.events.on_error("supersede", error)

    def sign_ahead(self, job: Job) -> Coroutine[Any, Any, None] | None:
        """`Job.sign_ahead` for the upstream that the job goes to first; None also where no upstream is available."""
        upstreams = self.choice.available(RouteKey.of(job))
        way = upstreams[0].way_now(load_of(job)) if upstreams else None
        return job.sign_ahead(way.finish) if way is not None else None


async def _sign_first(job: Job, upstream: Upstream) -> None:
    """Before it takes a session, for an upstream that gets it signed."""
    way = upstream.way_now(load_of(job))
    if way is not None and way.finish.is_signed:
        await job.signed("as it is", way.finish)


def newest(lane: Lane) -> Lane:
    """The lane, or the one that has replaced it in the end."""
    while lane.successor is not None:
        lane = lane.successor
    return lane


def _at_once(upstream: Upstream) -> int:
    """How many messages an upstream may have under way."""
    sessions = upstream.config.sessions
    return sessions.max * (sessions.depth if upstream.express else 1)


def _note_unavailable(job: Job, upstreams: Sequence[Upstream]) -> None:
    """The round asks no upstream: say which circuits are open and why, for the reply and for the time line."""
    reasons = "; ".join(
        f"{upstream.name}: {upstream.circuit.reason}" for upstream in upstreams if upstream.circuit.reason
    )
    text = f"{UNAVAILABLE} ({reasons})" if reasons else str(UNAVAILABLE)
    job.note = text.partition(OWN)[2]
    for pending in job.pending.values():
        pending.last = pending.last or text
