"""A store and the lanes over it: the main process has one for codes, and each worker has one for bulk mail."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from relay.clock import Clock
from relay.config.model import Config, Loaded
from relay.delivery.bounce import Bouncer
from relay.delivery.dispatch import Delivery, OwnLanes
from relay.delivery.events import DeliveryEvents
from relay.delivery.fastest import RECENT_S, Paces, Sample, preferring
from relay.delivery.housekeeping import Housekeeping
from relay.delivery.services import Services
from relay.mail.mailbox_provider import MOST_LEARNT, Providers
from relay.observe.maillog import MailLog
from relay.observe.objectives import Objectives
from relay.policy.suppression import Report, Suppressions
from relay.signing.signatures import Signatures
from relay.store.base import StoreError
from relay.store.codec import Codec
from relay.store.model import NewMessage
from relay.store.sqlite.events_reader import arrivals, mx_providers
from relay.store.sqlite.events_schema import events_path
from relay.store.sqlite.store import SqliteStore, open_store
from relay.store.sqlite.suppressions import load
from relay.supervise import Supervisor
from relay.upstream.access import LocalAccess
from relay.upstream.target import Target

RETIRE_WITHIN_S = 120.0
"""time after a reload for the deliveries of the old lanes to end"""
UNSETTLED_EVERY_S = 1.0
"""how often outcomes that the store refused are offered again"""


class Engine:
    """`open` the store, `build` and `start` lanes, `replace` them at a reload, `drain`, `close`."""

    def __init__(self, clock: Clock, log: MailLog) -> None:
        self.clock = clock
        self.log = log
        self.signatures = Signatures(clock, log)
        self.supervisor = Supervisor(lambda name, error: self.log.task_ended(name, error))
        self.access = LocalAccess(self.supervisor, log.no_credentials)
        """fetches tokens and temporary credentials; a worker asks the main process instead"""
        self.suppressions = Suppressions()
        """this process's copy"""
        self.report_bad_address: Report = lambda _: None
        """set before the first `build`"""
        self.paces = Paces(clock.now)
        self.providers = Providers()
        """mailbox providers, with those that were found by MX"""
        self._events = DeliveryEvents(log, clock, self.paces)
        self._retired: dict[asyncio.Task[None], Delivery] = {}
        """the tasks that end the lanes of earlier configurations"""
        self._housekeeper: asyncio.Task[None] | None = None
        self._running: Delivery | None = None
        self._upstreams: Collection[str] = ()
        """all that are configured, those of other processes' lanes, too"""
        self._learnt: frozenset[str] = frozenset()
        """lanes whose upstreams' times were read"""

    @property
    def delivery(self) -> Delivery:
        """The lanes in force, once they are started."""
        assert self._running is not None
        return self._running

    async def open(self, path: Path, codec: Codec, config: Config) -> None:
        """Open the store file and recover what was being sent when the relay last ended. Raises StoreError."""
        self.store: SqliteStore = await open_store(path, now=self.clock.now, codec=codec, supervisor=self.supervisor)
        self.access.store = path
        marking = [name for name, lane in config.lanes.items() if lane.on_ambiguous == "hold"]
        for one in await self.store.recover(self.clock.now(), marking):
            self.log.recovered(one.message_id, one.lane, one.state, recipients=one.recipients)

    async def load_suppressions(self, path: Path) -> None:
        """Read all suppressed addresses from the main store file. Raises StoreError."""
        self.suppressions.begin(*await asyncio.to_thread(load, path))

    def hash_key(self) -> bytes:
        """What the store hashes addresses and keys with, once the suppressions are loaded."""
        return self.suppressions.key

    def build(self, loaded: Loaded, targets: Mapping[str, Target], own: OwnLanes) -> Delivery:
        """The lanes of a configuration, not started. They are to replace those in force, if there are any."""
        bouncer = Bouncer(loaded.config, self.clock)
        services = Services(
            self.store,
            self.clock,
            self.signatures.sign,
            bouncer,
            self._events,
            self.supervisor,
            self.suppressions,
            self.report_bad_address,
            self.paces,
            self.providers,
            loaded.config.redirect,
        )
        return Delivery(loaded.config, services, targets, own, self._running)

    async def start(self, config: Config, delivery: Delivery) -> None:
        """Send. Mail of lanes that no longer exist goes to the default lane. Raises StoreError."""
        self._running = delivery
        await self._read_providers(config.store)
        self.log.objectives = Objectives.of(config)
        self._housekeeping = Housekeeping(self.store, self.clock, self.log)
        await self._housekeeping.apply(config, delivery.wake_all)
        await self._learn(config)
        delivery.start()
        self._housekeeper = self.supervisor.run_forever("housekeeping", self._housekeeping.run)

    async def replace(self, config: Config, delivery: Delivery) -> None:
        """Start new lanes. The old ones finish what is under way; what they hold goes to the new ones."""
        # The new lanes come first: a message that is just coming in may be for a lane that the old ones don't have.
        old, self._running = self.delivery, delivery
        self._upstreams = config.upstreams.keys()
        self.log.objectives = Objectives.of(config)
        delivery.start()
        try:
            await self._housekeeping.apply(config, delivery.wake_all)
        except StoreError as error:
            self.log.trouble("adopt", error)
        await self._learn(config)
        await old.give_back()
        delivery.wake_all()
        retired = self.supervisor.run_until_done("retire lanes", partial(self._retire, old))
        self._retired[retired] = old
        retired.add_done_callback(lambda task: self._retired.pop(task, None))

    async def _read_providers(self, store: Path) -> None:
        """Begin with what MX records told before."""
        try:
            found = await asyncio.to_thread(mx_providers, events_path(store), MOST_LEARNT)
        except StoreError as error:
            self.log.trouble("learn", error)
            return
        for domain, provider in found.items():
            self.providers.learn(domain, provider)

    async def _learn(self, config: Config) -> None:
        """Begin with what the events file has of the last hours about lanes that prefer the fastest upstream."""
        lanes = preferring(config)
        new, self._learnt = lanes - self._learnt, lanes
        self.paces.forget(lanes)
        if not new:
            return
        since = self.clock.now() - RECENT_S
        try:
            rows = await asyncio.to_thread(arrivals, events_path(config.store), since, tuple(new))
        except StoreError as error:
            self.log.trouble("learn", error)
            return
        self.paces.learn(
            Sample(one.lane, one.upstream, one.provider, "delivered", one.after_s, one.at)
            for one in rows
            if one.upstream in config.upstreams
        )

    async def _retire(self, old: Delivery) -> None:
        await old.drain(RETIRE_WITHIN_S)
        await self.access.keep(self._upstreams)
        while not await old.retry_settlements():  # noqa: ASYNC110 - a failing store sends no event when it works again
            await asyncio.sleep(UNSETTLED_EVERY_S)
        self.delivery.wake_all()

    async def submit_large(
        self,
        message: NewMessage,
        pieces: Iterator[bytes],
        most_bytes: int,
        others: Sequence[tuple[NewMessage, Iterator[bytes]]] = (),
    ) -> None:
        """`Delivery.submit_large`, which takes so long that a reload may come meanwhile."""
        delivery = self.delivery
        await delivery.submit_large(message, pieces, most_bytes, others)
        if self.delivery is not delivery:
            self._housekeeping.apply_soon()  # the lane may be gone, or another process's

    async def drain(self, within_s: float) -> int:
        """Begin nothing more; what is under way may take `within_s` seconds. Returns the number of deliveries that took
        longer and were stopped."""
        old = list(self._retired.values())
        ending = [*self._retired, *([self._housekeeper] if self._housekeeper is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        return sum(await asyncio.gather(*(each.drain(within_s) for each in (self.delivery, *old))))

    async def close(self) -> None:
        await self.access.keep(())
        await self.store.close()
