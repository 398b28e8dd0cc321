"""A lane: its mail in order of deadline, as many at once as it may have, its own rate, its own retry clock.

Mail comes in two ways. `offer` hands over what was just stored, still in memory: no poll, no scan, no second read.
What doesn't fit in memory, and every retry, waits in the store, and is claimed in small batches when it is due; a
backlog of any size costs the lane one small batch of memory and one timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from relay.clock import steady
from relay.config.model import Lane as LaneConfig
from relay.delivery.backlog import Backlog, Way
from relay.delivery.load import LARGE_BYTES
from relay.delivery.message import Job
from relay.delivery.round import Round
from relay.delivery.services import Services
from relay.delivery.settlement import (
    UNAVAILABLE,
    Bounces,
    Moment,
    conclude,
    is_toilsome,
    notifications,
    put_off,
    settlement,
)
from relay.delivery.verdict import retry_at
from relay.mail.reply import OWN
from relay.store.base import StoreError
from relay.store.model import Booking, Queued, Settlement
from relay.upstream.base import Report, Upstream
from relay.upstream.gate import NOT_STORED, Gate
from relay.upstream.rate import Bucket

EXPRESS_IN_MEMORY = (2_000, 64_000_000)
BULK_IN_MEMORY = (200, 32_000_000)
"""(messages, content bytes) a lane may hold; the rest waits in the store"""
BULK_SETTLING = 100
"""bulk messages that were sent and are being written down, while their sessions carry others already"""
CLAIM_MESSAGES = 50
CLAIM_BYTES = 4_000_000
CONCLUDE_WITHIN_S = 1.0
"""what a drain interrupts behind the final dot has so long to write down that its outcome is unknown"""
STORE_RETRY_S = 1.0
"""the store failed: ask it again after this long"""
LEAST_TIMER_S = 0.001
"""uvloop makes no timer, but a handle without `when`, of what is nearer than half a millisecond"""


class Lane:
    def __init__(self, name: str, config: LaneConfig, pools: Sequence[Upstream], services: Services) -> None:
        """`pools`: this lane's own, one for each upstream any of its rules may name, in the lane's order."""
        self.name = name
        self.config = config
        self._pools = {pool.name: pool for pool in pools}
        self._services = services
        self._backlog = Backlog()
        self._held_up = 0
        """how many of them wait for an upstream that asked for a pause"""
        self._active: dict[str, Job] = {}
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._newest: dict[str, Job] = {}
        """in lanes that supersede: the newest message in hand for each key"""
        self._bytes = 0
        self._room = EXPRESS_IN_MEMORY if config.express else BULK_IN_MEMORY
        self._slots = config.concurrency or sum(pool.config.sessions.max for pool in pools)
        """messages sent at once, at most; for bulk, the upstreams' windows say how many now"""
        self._bucket = Bucket(config.rate, time.monotonic()) if config.rate is not None else None
        self._rate_timer: asyncio.TimerHandle | None = None
        self._pause_timer: asyncio.TimerHandle | None = None
        self._store_has_some = True
        self._due_at: float | None = None
        """when something in the store is due (seconds since the epoch); None: nothing is"""
        self._due = asyncio.Event()
        self._due_timer: asyncio.TimerHandle | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._hastening: asyncio.Task[None] | None = None
        self._up_at = 0.0
        """when an upstream last came back (time.monotonic)"""
        self._owed: dict[str, list[Settlement]] = {}
        """messages that a drain should have given back, with what became of some recipients, and the store failed"""
        self._draining = False
        self._pauses = 0
        self.booking = Booking(tuple(config.retry_s), holder=str(os.getpid()))
        self._claiming = asyncio.Lock()

    # what comes in

    def start(self) -> None:
        """Open sessions, and take up what the store has."""
        for pool in self._pools.values():
            pool.start()
        self._feeder = self._services.supervisor.start(f"feed {self.name}", self._feed)
        self.wake(0.0)

    def has_room(self, size_bytes: int) -> bool:
        """May a new message stay in memory on its way? Else it is put unclaimed, and `wake` follows."""
        messages, most = self._room
        held = len(self._backlog) + len(self._active)
        return not self._draining and held < messages and (held == 0 or self._bytes + size_bytes <= most)

    def offer(self, job: Job) -> None:
        """A message whose recipients are claimed. It may be on its way before this returns."""
        self._bytes += len(job.queued.content)
        self._enter(job)
        self._backlog.push(job)
        self._pump()

    def wake(self, at: float) -> None:
        """Something in the store is due then (seconds since the epoch)."""
        self._store_has_some = True
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._arm()

    async def supersede(self, key: str, newer: str, older: Job | None = None) -> None:
        """The message `newer` is stored: older ones to the same recipient end here (`older`, by default the newest in
        hand) and in the store. What has reached its final dot goes on to its reply, and isn't tried again after it."""
        if older is None:
            older = self._newest.get(key)
        if older is not None and older.queued.id < newer:
            older.supersede(newer)
        if self._store_has_some:
            store, now = self._services.store, self._services.clock.now()
            for message_id in await store.supersede(key, newer, now):
                self._services.events.superseded(self.name, message_id, newer)

    def _enter(self, job: Job) -> None:
        key = job.queued.supersede_key
        if key is None:
            return
        newest = self._newest.get(key)
        if newest is not None and newest.queued.id > job.queued.id:
            if newest.stored.is_set():
                job.supersede(newest.queued.id)
            else:
                newest.older = newest.older or job  # should that never be stored, this one is still good
        else:
            job.older, self._newest[key] = newest, job

    def _leave(self, job: Job) -> None:
        key = job.queued.supersede_key
        if key is not None and self._newest.get(key) is job:
            if job.older is not None and job.older.queued.id in self._active:
                self._newest[key] = job.older
            else:
                del self._newest[key]

    async def pause(self, ids: frozenset[str] | None) -> None:
        """Begin nothing and claim nothing until `resume`; give back to the store what waits here (`ids`, or all)."""
        self._pauses += 1
        async with self._claiming:  # what is being claimed will be here, too
            pass
        for job in self._backlog.take(lambda job: job.gate.is_open and (ids is None or job.queued.id in ids)):
            self._bytes -= len(job.queued.content)
            if not await self._give_back(job):
                self._bytes += len(job.queued.content)
                self._backlog.push(job)

    async def _give_back(self, job: Job, due_at: float | None = None) -> bool:
        """`due_at`: seconds since the epoch; None: at once."""
        try:
            await self._services.store.unclaim(job.queued.id, due_at)
        except StoreError as error:
            self._services.events.trouble("unclaim", error)
            return False
        return True

    def resume(self) -> None:
        """The end of one `pause`."""
        self._pauses -= 1
        self.wake(self._services.clock.now())
        self._pump()

    def urge(self) -> None:
        """An operator asks for a try now: probe the upstreams whose circuit is open, whenever their probe is due."""
        for pool in self._pools.values():
            pool.urge()

    def upstream_up(self) -> None:
        """An upstream is back: codes that were put off, and what an operator asked to be tried, go now and not at their
        ladder's next step."""
        self._up_at = time.monotonic()
        self._start_hastening()

    def _start_hastening(self) -> None:
        if not self._draining and self._hastening is None:
            self._hastening = asyncio.create_task(self._hasten(), name=f"hasten {self.name}")

    async def _hasten(self) -> None:
        now = self._services.clock.now()
        try:
            if await self._services.store.retry_deferred(self.name, now, only_urged=not self.config.express):
                self.wake(now)
        except Exception as error:  # noqa: BLE001 - the messages wait for their step then
            self._services.events.trouble("hasten", error)
        finally:
            self._hastening = None

    @property
    def pools(self) -> Sequence[Upstream]:
        return tuple(self._pools.values())

    async def drain(self, within_s: float) -> None:
        """Start nothing new, finish what is under way; what isn't done in time is cut off, and what was never begun
        goes back to the store."""
        self._draining = True
        for timer in (self._due_timer, self._rate_timer, self._pause_timer):
            if timer is not None:
                timer.cancel()
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
        if self._hastening is not None:
            await asyncio.gather(self._hastening, return_exceptions=True)
        waiting = self._backlog.take(lambda _: True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        # What stands behind its final dot learns that the answer isn't waited for, and writes that down.
        concluding = []
        for task, job in list(self._tasks.items()):
            if job.stop():
                concluding.append(task)
            else:
                task.cancel()
        if concluding:
            await asyncio.wait(concluding, timeout=CONCLUDE_WITHIN_S)
        for task in concluding:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for job in waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await job.stored.wait()
            if job.gate.is_open and job.gate.shut_reason is not NOT_STORED:
                await self._owe(job, [])
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    # what goes out

    def _pump(self) -> None:
        """Begin as many as there is room for, the earliest deadline first."""
        while self._backlog and self._has_slot() and not (self._draining or self._pauses):
            found = self._next(time.monotonic())
            if found is None or not self._rate_allows():
                break
            way, pools = found
            job = self._backlog.pop(way)
            self._active[job.queued.id] = job
            if pools:
                pools[0].under_way += 1
            task = asyncio.create_task(self._deliver(job, pools), name=f"deliver {job.queued.id}")
            self._tasks[task] = job
            task.add_done_callback(self._delivered)
        self._arm()

    def _has_slot(self) -> bool:
        if self.config.express:
            return len(self._active) < self._slots
        # What was sent and is being settled needs no session.
        sending = sum(pool.under_way for pool in self._pools.values())
        return sending < self._slots and len(self._active) < self._slots + BULK_SETTLING

    def _next(self, now: float) -> tuple[Way, list[Upstream]] | None:
        """The way whose first message goes next, with the upstreams to ask; None while there is room for none."""
        best: tuple[tuple[float, str], Way, list[Upstream]] | None = None
        self._held_up = 0
        for way, rank, waiting in self._backlog.heads():
            pools = self._worth_asking(way)
            if pools and not self.config.express:
                pools.sort(key=lambda pool: now < pool.window.resume_at)
                if now < pools[0].window.resume_at:
                    self._held_up += waiting
                    self._resume_at(min(pool.window.resume_at for pool in pools), now)
                    continue
                if not pools[0].has_place(now):
                    continue
            if best is None or rank < best[0]:
                best = rank, way, pools
        return best and (best[1], best[2])

    def _resume_at(self, at: float, now: float) -> None:
        """An upstream asked for a pause until then (time.monotonic)."""
        loop = asyncio.get_running_loop()
        if self._pause_timer is None or self._pause_timer.when() <= loop.time():
            self._pause_timer = loop.call_later(max(LEAST_TIMER_S, at - now), self._pump)

    def _rate_allows(self) -> bool:
        if self._bucket is None:
            return True
        wait_s = self._bucket.take(time.monotonic())
        if wait_s > 0.0 and (self._rate_timer is None or self._rate_timer.when() <= asyncio.get_running_loop().time()):
            self._rate_timer = asyncio.get_running_loop().call_later(max(LEAST_TIMER_S, wait_s), self._pump)
        return wait_s == 0.0

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.events.trouble("delivery", error)
        self._pump()

    async def _deliver(self, job: Job, pools: list[Upstream]) -> None:
        """One round for one message, to its settlement."""
        job.picked_at = time.monotonic()
        job.timings_ms["wait"] = (job.picked_at - job.offered_at) * 1000.0
        try:
            try:
                if pools and job.gate.is_open and not self.config.express:
                    await self._signed(job, pools[0])
            finally:
                if pools:
                    pools[0].under_way -= 1  # from here on the attempt counts itself
            named = self._upstreams(job.queued.upstreams)
            if not pools:
                _note_unavailable(job, named)
            round_ = Round(job, self.config, self._services.clock.epoch, self._settle, self._told)
            await round_.run(pools, complete=len(pools) == len(named))
            await self._finish(job)
        except asyncio.CancelledError:
            await asyncio.shield(self._cut_off(job))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must not be left as being sent
            self._services.events.trouble("delivery", error)
            await self._last_resort(job)
        finally:
            self._bytes -= len(job.queued.content)
            self._active.pop(job.queued.id, None)
            self._leave(job)
            if job.queued.suspect:
                self.wake(self._services.clock.now())  # the next suspect may be claimed

    def _worth_asking(self, way: Way) -> list[Upstream]:
        """The upstreams whose circuit is closed, in order of preference, turned by the ladder's step."""
        named = self._upstreams(way.upstreams)
        pools = [pool for pool in named if pool.circuit.state == "closed"]
        if not pools:
            # An operator asked for a try now: it waits for how the probe ends.
            pools = [pool for pool in named if pool.urged]
        if pools:
            turn = way.step % len(pools)
            pools = pools[turn:] + pools[:turn]
        return pools

    def _upstreams(self, named: Sequence[str]) -> list[Upstream]:
        """What a message's rule named; that may be gone since it came: then the lane's own serve."""
        names = [name for name in named if name in self._pools] or self.config.upstreams
        return [self._pools[name] for name in names]

    async def _finish(self, job: Job) -> None:
        await job.stored.wait()
        if job.gate.shut_reason is NOT_STORED:
            return
        conclude(job, self.config, self._moment())
        job.timings_ms["sign"] = job.sign_ms
        await self._settle(job)
        if job.pending:  # the relay ends
            await self._owe(job, [])

    async def _last_resort(self, job: Job) -> None:
        """What was achieved is written down and the rest is put off, without a look at the content. Where even that
        can't be, the message goes back to the store, for its next step."""
        await job.stored.wait()
        if job.gate.shut_reason is NOT_STORED:
            return
        try:
            put_off(job, self.config, self._moment())
            await self._settle(job)
        except Exception as error:  # noqa: BLE001 - as above: it must be given back
            self._services.events.trouble("delivery", error)
            step = min((one.step for one in job.queued.due), default=0)
            due_at = retry_at(self._services.clock.now(), self.config.retry_s, step, 1.0)
            if await self._give_back(job, due_at):
                self.wake(due_at)

    def _moment(self) -> Moment:
        return Moment(self._services.clock.now(), steady(), random.random())  # noqa: S311

    async def _settle(self, job: Job) -> None:
        """Write it down. What was sent must be known, so this is tried until the store takes it."""
        bounces = self._services.bounces
        if is_toilsome(job):
            bounces = await self._made_ahead(job)
        settled = settlement(job, bounces, self._services.events.trouble)
        if not settled.updates and not settled.attempts:
            return
        while True:
            writing = asyncio.ensure_future(self._services.store.settle(settled))
            job.settling = settled, writing
            try:
                await asyncio.shield(writing)
                break
            except StoreError as error:
                self._services.events.trouble("settle", error)
                await asyncio.sleep(STORE_RETRY_S)
        job.settling = None
        self._services.events.settled(self.name, job, settled)
        for bounce in settled.bounces:
            self._services.wake(bounce.lane, bounce.accepted_at)
        for update in settled.updates:
            if update.next_at is not None:
                self.wake(update.next_at)
        if any(update.next_at is not None for update in settled.updates):
            await self._put_off(job)

    async def _made_ahead(self, job: Job) -> Bounces:
        """Its DSNs, made on a thread; the job keeps what it has gathered, in case this is cut off."""
        try:
            made = await asyncio.to_thread(notifications, job, self._services.bounces)
        except Exception as error:  # noqa: BLE001 - see `settlement`
            self._services.events.trouble("dsn", error)
            made = ()
        return lambda *_: made

    async def _put_off(self, job: Job) -> None:
        """It waits in the store again; what came while that was written did not find it there."""
        if self._up_at > job.picked_at:
            self._start_hastening()
        if job.superseded_by is not None and job.queued.supersede_key is not None:
            try:
                await self.supersede(job.queued.supersede_key, job.superseded_by)
            except StoreError as error:
                self._services.events.trouble("supersede", error)

    async def _cut_off(self, job: Job) -> None:
        """A drain ran out of time. What is known is written down; the rest is given back, and taken up by the next
        start."""
        if not job.gate.is_open:
            return
        owed: list[Settlement] = []
        if job.settling is not None:
            settled, writing = job.settling
            try:
                await writing
            except StoreError:
                owed.append(settled)
        settled = settlement(job, self._services.bounces, self._services.events.trouble)
        if settled.updates or settled.attempts:
            owed.append(settled)
        await self._owe(job, owed)

    async def _owe(self, job: Job, settlements: list[Settlement]) -> None:
        """Write them and give the message back; what the store doesn't take now is left to `settle_owed`."""
        self._owed[job.queued.id] = settlements
        await self._pay(job.queued.id)

    async def _pay(self, message_id: str) -> bool:
        settlements = self._owed[message_id]
        try:
            while settlements:
                await self._services.store.settle(settlements[0])
                del settlements[0]
            await self._services.store.unclaim(message_id)
        except StoreError as error:
            self._services.events.trouble("unclaim", error)
            return False
        del self._owed[message_id]
        return True

    async def settle_owed(self) -> bool:
        """After a drain: write what the store didn't take then; False: it still doesn't."""
        return all([await self._pay(message_id) for message_id in list(self._owed)])

    def _told(self, job: Job, tried: Report) -> None:
        self._services.events.told(self.name, job, tried)
        if tried.error is not None:
            self._services.events.trouble("delivery", tried.error)
        if not self.config.express:
            self._pump()

    # the store's side

    def _arm(self) -> None:
        """Set the one timer to when the store has something due, if there is room for it."""
        if self._due_at is None or self._draining or self._pauses or self._is_full():
            return
        if self._due_timer is not None:
            self._due_timer.cancel()
        wait_s = max(0.0, self._due_at - self._services.clock.now())
        if wait_s == 0.0:
            self._due.set()
        else:
            self._due_timer = asyncio.get_running_loop().call_later(wait_s, self._due.set)

    def _is_full(self) -> bool:
        """Enough is in hand. What an upstream's pause holds up doesn't count, as long as there is memory for it."""
        messages, size_bytes = self._room
        if self._bytes >= size_bytes or (self._held_up and len(self._backlog) >= messages):
            return True
        return len(self._backlog) - self._held_up >= CLAIM_MESSAGES // 2

    async def _feed(self) -> None:
        """Claims what is due, in small batches, whenever there is room."""
        self.wake(self._services.clock.now())  # begun again, it doesn't know what it had been woken for
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                async with self._claiming:
                    # Asked again: what was due when the last batch was fetched may have filled the memory since.
                    if not (self._pauses or self._is_full()):
                        await self._claim()
            except StoreError as error:
                self._services.events.trouble("claim", error)
                self._due_at = None
                self.wake(self._services.clock.now() + STORE_RETRY_S)

    async def _claim(self) -> None:
        store, now = self._services.store, self._services.clock.now()
        self._due_at = None
        claimed = await store.claim(
            self.name, now, messages=CLAIM_MESSAGES, size_bytes=CLAIM_BYTES, booking=self.booking
        )
        for queued in claimed:
            self.offer(self._job(queued))
        if len(claimed) == CLAIM_MESSAGES:
            self.wake(now)
            return
        next_due = await store.next_due(self.name)
        if next_due is not None:
            self.wake(next_due)
        elif self._due_at is None:
            self._store_has_some = False

    def sign_ahead(self, job: Job) -> None:
        """Make the signature for the upstream that the job goes to first, while its commit and its envelope are under
        way."""
        first = self._first(job)
        if first is not None and (len(job.queued.content) > LARGE_BYTES or not job.is_toilsome()):
            job.parts(_unsigned(first))

    def signed_elsewhere(self, job: Job) -> Coroutine[Any, Any, None] | None:
        """The same by another process, under way when this returns. None: there is none; or the message is large, or
        to be re-encoded, and that takes longer than to sign it."""
        first = self._first(job)
        return None if first is None else self._elsewhere(job, first)

    def _elsewhere(self, job: Job, pool: Upstream) -> Coroutine[Any, Any, None] | None:
        sign = self._services.sign_elsewhere
        if sign is None or len(job.queued.content) > LARGE_BYTES or job.is_toilsome():
            return None
        try:
            return job.sign_elsewhere(_unsigned(pool), sign, express=self.config.express)
        except Exception as error:  # noqa: BLE001 - it is tried again when the content is due
            self._services.events.trouble("sign", error)
            return None

    async def _signed(self, job: Job, pool: Upstream) -> None:
        """Out of the store: nobody has begun its signature."""
        signing = self._elsewhere(job, pool)
        if signing is not None:
            try:
                await signing
            except Exception as error:  # noqa: BLE001 - as above
                self._services.events.trouble("sign", error)

    def _first(self, job: Job) -> Upstream | None:
        return self._pools.get((job.queued.upstreams or self.config.upstreams)[0])

    def _job(self, queued: Queued) -> Job:
        job = self.job(queued)
        job.is_claimed = True
        job.gate.open()
        job.stored.set()
        return job

    def job(self, queued: Queued) -> Job:
        """A message as a job of this lane, its gate still closed."""
        clock = self._services.clock
        gate = Gate(clock.steady(queued.expires_at))
        job = Job(queued, gate, self._services.sign, clock.monotonic(queued.accepted_at))
        if self.config.on_ambiguous == "hold":
            gate.mark = lambda: self._services.mark(job)
        return job


def _unsigned(pool: Upstream) -> frozenset[str]:
    """The fields that its upstream rewrites."""
    return frozenset(pool.config.unsigned_headers)


def _note_unavailable(job: Job, pools: Sequence[Upstream]) -> None:
    """The round asks no upstream: say which circuits are open and why, for the reply and for the time line."""
    reasons = "; ".join(f"{pool.name}: {pool.circuit.reason}" for pool in pools if pool.circuit.reason)
    text = f"{UNAVAILABLE} ({reasons})" if reasons else str(UNAVAILABLE)
    job.note = text.partition(OWN)[2]
    for pending in job.pending.values():
        pending.last = pending.last or text
