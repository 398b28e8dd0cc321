"""A store file and the lanes over it: what the main process has for codes, and every worker for bulk mail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from relay.clock import Clock, steady
from relay.config.model import Config, Loaded
from relay.delivery.bounce import Bouncer
from relay.delivery.dispatch import Delivery, Share
from relay.delivery.events import DeliveryEvents
from relay.delivery.lane import Lane
from relay.delivery.message import Job
from relay.delivery.services import Services
from relay.observe.maillog import MailLog
from relay.signing.signatures import Signatures
from relay.store.base import StoreError
from relay.store.codec import Codec
from relay.store.model import NewMessage, OpenRecipient, Queued
from relay.store.sqlite.store import SqliteStore, open_store
from relay.supervise import Supervisor
from relay.upstream.gate import NOT_STORED
from relay.upstream.smtp.connect import Target

PRUNE_EVERY_S = 1.0
PRUNE_MESSAGES = 2_000
"""at a time: twice what a busy relay takes in a second"""
SUSPENDED_S = 0.5
"""a clock that runs in suspension got so far ahead of the one that doesn't"""
RETIRE_WITHIN_S = 120.0
"""after a reload, what the old lanes have under way may take this long"""
UNSETTLED_EVERY_S = 1.0
"""how often outcomes that the store refused are offered again"""


class Engine:
    """`open`, `build` and `start` lanes, `take` mail, `drain`, `close`."""

    def __init__(self, clock: Clock, log: MailLog) -> None:
        self.clock = clock
        self.log = log
        self.signatures = Signatures(clock, log)
        self._events = DeliveryEvents(log, clock)
        self._retired: dict[asyncio.Task[None], Delivery] = {}
        self._housekeeper: asyncio.Task[None] | None = None
        self._untidy = False
        """a reload could not write all that it changes"""
        self.supervisor = Supervisor(lambda name, error: self.log.task_ended(name, error))

    async def open(self, path: Path, codec: Codec, config: Config) -> None:
        """Take the store file and find out what waits in it. Raises StoreError."""
        self.store: SqliteStore = await open_store(path, now=self.clock.now, codec=codec)
        self.store.supervisor = self.supervisor
        marking = [name for name, lane in config.lanes.items() if lane.on_ambiguous == "hold"]
        for one in await self.store.recover(self.clock.now(), marking):
            self.log.recovered(one.message_id, one.lane, one.state, recipients=one.recipients)

    def build(self, loaded: Loaded, targets: Mapping[str, Target], share: Share) -> Delivery:
        """The lanes of a configuration, not started."""
        config = loaded.config
        services = Services(
            self.store,
            self.clock,
            self.signatures.sign,
            Bouncer(config, self.clock),
            self._events,
            self.supervisor,
        )
        return Delivery(config, services, targets, share)

    async def start(self, config: Config, delivery: Delivery) -> None:
        """Send. Mail of lanes that are no more goes by the default lane. Raises StoreError."""
        self.config, self.delivery = config, delivery
        await self._tidy()
        delivery.start()
        if self._housekeeper is None:
            self._housekeeper = self.supervisor.start("housekeeping", self._keep_house)

    async def replace(self, config: Config, delivery: Delivery) -> None:
        """New lanes in the place of the old: what these have under way goes on over their sessions, what they held
        goes to the new ones."""
        old = self.delivery
        # First the new ones: a message that is just coming in may be for a lane that the old ones don't have.
        self.config, self.delivery = config, delivery
        delivery.start()
        try:
            await self._tidy()
        except StoreError as error:
            self.log.trouble("adopt", error)
            self._untidy = True
        await old.give_back()
        delivery.wake_all()
        retired = self.supervisor.finish("retire lanes", partial(self._retire, old))
        self._retired[retired] = old
        retired.add_done_callback(lambda task: self._retired.pop(task, None))

    async def _retire(self, old: Delivery) -> None:
        await old.drain(RETIRE_WITHIN_S)
        while not await old.retry_settlements():  # noqa: ASYNC110 - a store that fails tells nobody when it is well again
            await asyncio.sleep(UNSETTLED_EVERY_S)
        self.delivery.wake_all()

    async def _tidy(self) -> None:
        await self.store.hash_addresses(wanted=self.config.log.addresses == "hashed")
        await self.store.adopt(tuple(self.config.lanes), self.config.default_lane)

    async def take(self, new: NewMessage, final_dot: float) -> None:
        """Store a message and hand it to its lane; it is durable when this returns. Raises StoreError."""
        if not self.delivery.has(new.lane):
            await self.leave(new)
            return
        lane = self.delivery.lane(new.lane)
        if lane.has_room(len(new.content)):
            older = await self._hand_over(lane, new, final_dot)
        else:
            await self.store.put(new, claimed=False)
            lane.wake(new.accepted_at)
            older = None
        if new.supersede_key is not None:
            try:
                await lane.superseding.supersede(new.supersede_key, new.id, older)
            except Exception as error:  # noqa: BLE001 - the new one is stored, and its app hears so
                # It goes out; that an older one may, too, is the lesser evil.
                self.log.trouble("supersede", error)

    async def leave(self, new: NewMessage) -> None:
        """Store a message for another process, from where it is forwarded. One whose lane a reload has taken away since
        it was classified is the default lane's. Raises StoreError."""
        if new.lane not in self.config.lanes:
            new = new._replace(lane=self.config.default_lane, upstreams=(), supersede_key=None)
        await self.store.put(new, claimed=False)
        self.delivery.wake(new.lane, new.accepted_at)

    async def _hand_over(self, lane: Lane, new: NewMessage, final_dot: float) -> Job | None:
        """Commit, and send at the same time as far as that goes: the gate keeps the content back meanwhile. Returns
        the job that this one supersedes."""
        job = lane.job(_queued(new))
        job.final_dot = final_dot
        signing = self._sign_ahead(lane, job)
        lane.offer(job)
        putting: asyncio.Future[None] | None = None
        try:
            if lane.config.express:
                await asyncio.sleep(0)  # the envelope leaves first
            putting = self.store.start_put(new, express=lane.config.express, booking=lane.booking)
        finally:
            try:
                if signing is not None:
                    await signing
            except Exception as error:  # noqa: BLE001 - the message must be stored all the same
                self.log.trouble("sign", error)
            finally:
                # From the commit itself: a session at the gate goes on before the app is answered.
                if putting is None or putting.done():
                    self._stored(lane, job, putting)
                else:
                    putting.add_done_callback(partial(self._stored, lane, job))
        await putting
        return job.older

    def _sign_ahead(self, lane: Lane, job: Job) -> Coroutine[Any, Any, None] | None:
        try:
            return lane.sign_ahead(job)
        except Exception as error:  # noqa: BLE001 - the attempt tries again
            self.log.trouble("sign", error)
            return None

    def _stored(self, lane: Lane, job: Job, putting: asyncio.Future[None] | None) -> None:
        """The commit is over; None: it never began."""
        job.timings_ms["store"] = (time.monotonic() - job.offered_at) * 1000.0
        if putting is None or putting.cancelled() or putting.exception() is not None:
            # Not stored. Or nobody waited to learn it: then the store gives it back, and the lane finds it there.
            job.gate.shut(NOT_STORED)
            lane.wake(self.clock.now())
        job.gate.open()
        job.stored.set()

    async def drain(self, within_s: float) -> None:
        """Begin nothing more, finish what is under way."""
        old = list(self._retired.values())
        retiring = list(self._retired)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.gather(self._housekeeper, return_exceptions=True)
        await asyncio.gather(*(each.drain(within_s) for each in (self.delivery, *old)))

    async def close(self) -> None:
        await self.store.close()

    async def _keep_house(self) -> None:
        """The log's retention, a small batch at a time; and what came due while the machine was suspended: the event
        loop's timers stood still meanwhile."""
        ahead_s = steady() - time.monotonic()
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            before_s, ahead_s = ahead_s, steady() - time.monotonic()
            if ahead_s - before_s > SUSPENDED_S:
                self.delivery.wake_all()
            try:
                if self._untidy:
                    await self._tidy()
                    self._untidy = False
                    self.delivery.wake_all()
                await self.store.prune(self.clock.now() - self.config.log.keep_s, limit=PRUNE_MESSAGES)
            except StoreError as error:
                self.log.trouble("prune", error)


def _queued(new: NewMessage) -> Queued:
    due = tuple(OpenRecipient(position, one) for position, one in enumerate(new.envelope.recipients))
    return Queued(
        id=new.id,
        lane=new.lane,
        rule=new.rule,
        envelope=new.envelope,
        content=new.content,
        accepted_at=new.accepted_at,
        expires_at=new.expires_at,
        due=due,
        upstreams=new.upstreams,
        supersede_key=new.supersede_key,
    )
