"""All lanes together: built from the configuration, replaced at a reload, drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.config.model import Config
from relay.delivery.handover import hand_over, supersede_older
from relay.delivery.lane import Lane
from relay.delivery.services import Services
from relay.delivery.succession import Succession, Watch
from relay.store.model import Action, NewMessage, Selection, TransferredMessage
from relay.upstream.limits import LocalLimits, UpstreamLimits
from relay.upstream.server import Contexts
from relay.upstream.target import Access, Target


@dataclass(frozen=True, slots=True)
class OwnLanes:
    """Which lanes are this process's own, and what of their upstreams it may use."""

    lanes: Collection[str]
    upstreams: Mapping[str, UpstreamLimits]
    wake: Callable[[str, float], None]
    """called when mail for a lane of another process is in this one's store (a bounce), with when it is due"""

    @classmethod
    def whole(cls, config: Config) -> OwnLanes:
        """Everything."""
        shared = {name: LocalLimits.of(upstream) for name, upstream in config.upstreams.items()}
        return cls(tuple(config.lanes), shared, lambda _lane, _at: None)


class Delivery:
    """`start`, hand mail to `lane(name)`, `drain`. One at a time owns the store's queues."""

    def __init__(
        self,
        config: Config,
        services: Services,
        targets: Mapping[str, Target],
        own: OwnLanes,
        before: Delivery | None = None,
    ) -> None:
        """`before`: the one that runs and that this one is to replace. Nothing of it changes before `start`."""
        self._config = config
        self._services = services
        self._wake_elsewhere = own.wake
        self._after: Delivery | None = None
        self._watch = Watch(services.events, self.lane)
        running = before.lanes() if before is not None else ()
        self._succession = Succession(running, targets, own.upstreams, self._watch)
        self._before = before
        self._lanes: dict[str, Lane] = {}
        for name in own.lanes:
            lane = config.lanes[name]
            upstreams = [self._succession.upstream(name, lane, each) for each in upstreams_of(config, name)]
            self._lanes[name] = Lane(name, lane, upstreams, services, self.wake)

    async def prepare(self, within_s: float) -> None:
        """Before `start`: open warm sessions of what can't be taken over, while the lanes of `before` send. Returns
        when each express lane has one at each upstream that isn't down, at the latest after `within_s` seconds."""
        new = self._succession.new()
        for upstream in new:
            self._lanes[upstream.lane].choice.join(upstream)
        await _within(within_s, *(self._succession.opened(upstream, within_s) for upstream in new))

    async def discard(self) -> None:
        """Instead of `start`: close what `prepare` has opened."""
        await asyncio.gather(*(lane.choice.leave() for lane in self._lanes.values()))

    def start(self) -> None:
        """Take up what waits in the store, over sessions that are open and over new ones."""
        self._watch.is_in_force = True
        for lane in self._lanes.values():
            lane.start()
        self._succession.begin()
        before, self._before = self._before, None
        if before is not None:
            before._after = self
            before._watch.is_in_force = False
            for lane in before.lanes():
                lane.successor = self._lanes.get(lane.name)

    async def warmed(self, within_s: float) -> None:
        """Return when a code of each express lane would find an open session, or couldn't be sent at all; at the latest
        after `within_s` seconds."""
        await _within(within_s, *(lane.choice.warmed() for lane in self._lanes.values() if lane.config.express))

    def has(self, name: str) -> bool:
        """Is that lane this process's?"""
        return name in self._lanes

    def lane(self, name: str) -> Lane:
        return self._lanes[name]

    def lanes(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    async def submit(self, message: NewMessage, final_dot: float, others: Sequence[NewMessage] = ()) -> None:
        """Store a message and hand it to its lane; it is durable when this returns. `final_dot`: when the app sent it
        (time.monotonic). `others`: stored with it in one transaction; their lanes, or other processes, claim them from
        the store. Raises StoreError: none was stored."""
        lane = self._lanes.get(message.lane)
        others = [self._with_lane(one) for one in others]
        try:
            if lane is None:
                await self.store_for_forwarding(message, others)
            else:
                await hand_over(lane, self._services, message, final_dot, others)
        finally:  # a put that is cancelled may be written all the same
            for one in others:
                self.wake(one.lane, one.first_due_at)
        for one in others:
            await self._supersede_older(one)

    async def store_for_forwarding(self, message: NewMessage, others: Sequence[NewMessage] = ()) -> None:
        """Store a message that another process is to send, and `others` with it. Where a reload has removed its lane
        since it was classified, it goes to the default lane. Raises StoreError."""
        message = self._with_lane(message)
        await self._services.store.put(message, claimed=False, others=others)
        self.wake(message.lane, message.first_due_at)

    async def submit_large(
        self,
        message: NewMessage,
        pieces: Iterator[bytes],
        most_bytes: int,
        others: Sequence[tuple[NewMessage, Iterator[bytes]]] = (),
    ) -> None:
        """Store a message whose content comes in pieces (`Queue.put_large`), and `others` with it. All are durable when
        this returns; their lanes, or other processes, claim them from the store. Raises StoreError, and what the pieces
        raise."""
        message = self._with_lane(message)
        others = [(self._with_lane(one), some) for one, some in others]
        await self._services.store.put_large(message, pieces, most_bytes=most_bytes, others=others)
        for one in (message, *(one for one, _ in others)):
            self.wake(one.lane, one.first_due_at)
            await self._supersede_older(one)

    async def _supersede_older(self, message: NewMessage) -> None:
        """A message waits in the store: end what it supersedes."""
        if (lane := self._lanes.get(message.lane)) is not None:
            await supersede_older(lane, self._services, message, None)

    async def supersede_by(self, moved: TransferredMessage) -> None:
        """A message came from another process's store: end what it supersedes in this one's."""
        key, lane = moved.message["supersede_key"], self._lanes.get(moved.message["lane"])
        if key is None or lane is None:
            return
        try:
            await lane.superseding.supersede(key, moved.id)
        except Exception as error:  # noqa: BLE001 - it is stored, and is deleted where it came from
            self._services.events.on_error("supersede", error)

    def _with_lane(self, message: NewMessage) -> NewMessage:
        if message.lane in self._config.lanes:
            return message
        return message._replace(lane=self._config.default_lane, upstreams=(), supersede_key=None)

    async def drain(self, within_s: float) -> int:
        """Finish what is under way, in all lanes at once; the rest stays in the store. Returns the number of deliveries
        that were stopped."""
        return sum(await asyncio.gather(*(lane.drain(within_s) for lane in self._lanes.values())))

    async def retry_settlements(self) -> bool:
        """After a drain: write what the store refused then. False: it still refuses."""
        return all([await lane.settler.retry_settlements() for lane in self._lanes.values()])

    async def give_back(self) -> None:
        """Begin nothing more; what waits in memory goes to the store, for the lanes that come after these."""
        for lane in self._lanes.values():
            await lane.pause(None)

    def wake_all(self) -> None:
        """The store may have something due that no lane of these knows of."""
        for lane in self._lanes.values():
            lane.wake(0.0)

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """Apply an operator's action (`Queue.act`), also to what waits in the lanes' memory."""
        lanes = [lane for lane in self._lanes.values() if selection.lane in (None, lane.name)]
        paused: list[Lane] = []
        try:
            for lane in lanes:
                paused.append(lane)
                await lane.pause(frozenset(selection.ids) or None)
            changed = await self._services.store.act(action, selection, self._services.clock.now())
            if action == "retry" and changed:
                for lane in lanes:
                    for upstream in lane.upstreams:
                        upstream.urge()
            return changed
        finally:
            for lane in paused:
                lane.resume()

    def wake(self, name: str, at: float) -> None:
        """Mail for a lane, of this process or of another, was put into the store, and is due then."""
        lane = self._lanes.get(name)
        if self._after is not None:
            self._after.wake(name, at)
        elif lane is not None:
            lane.wake(at)
        else:
            self._wake_elsewhere(name, at)


async def _within(within_s: float, *awaited: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await asyncio.gather(*awaited)


def targets_of(config: Config, access: Access | None = None) -> dict[str, Target]:
    """Every upstream with its TLS context. `access`: of those whose credentials aren't in the configuration. Raises
    OSError, ssl.SSLError or ValueError for a file that can't be read."""
    contexts = Contexts()
    return {
        name: Target.of(name, upstream, config.hostname, contexts, access)
        for name, upstream in config.upstreams.items()
    }


def upstreams_of(config: Config, lane: str) -> list[str]:
    """The lane's own, then those that rules bring to it."""
    names = list(config.lanes[lane].upstreams)
    for rule in config.rules:
        if rule.lane == lane:
            names.extend(name for name in rule.upstreams or () if name not in names)
    return names
