"""Trials: a message or a few against scripted upstreams, and what must be true of it afterwards, whatever they did.

Many run beside each other over one store, each with lanes, sessions and budgets of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from relay.clock import Clock
from relay.config.model import Config
from relay.delivery.dispatch import OwnLanes
from relay.mail.envelope import Envelope, Recipient
from relay.store.base import Store
from relay.store.ulid import IdMaker
from relay.upstream.quota import SessionQuota
from tests.delivery.harness import RecordedEvents, delivery_over, new_message
from tests.store.memory import MemoryStore
from tests.support.tls import Certificates
from tests.support.upstream import Received, Upstream

OUTCOMES = {"sent", "deferred", "refused", "ambiguous", "abandoned"}
ENDED = {"sent", "bounced", "expired", "superseded", "ambiguous"}
SLACK_S = 10.0
"""what a loaded machine may take beyond the deadlines"""


@dataclass
class Trial:
    """One lane's delivery, and what was found wrong with it."""

    name: str
    config: Config
    upstreams: Mapping[str, Upstream]
    store: Store
    clock: Clock
    faults: list[str] = field(default_factory=list)
    events: RecordedEvents = field(default_factory=RecordedEvents)

    def __post_init__(self) -> None:
        self.own = OwnLanes.whole(self.config)
        self.delivery = delivery_over(self.config, self.store, self.clock, self.events, own=self.own)
        self._ids = IdMaker()

    def wrong(self, what: str) -> None:
        self.faults.append(what)

    async def send(self, *to: str, life_s: float, supersede_key: str | None = None) -> str:
        """Hand a message over as intake does; returns its id."""
        now = self.clock.now()
        new = new_message(
            self._ids.new_id(now, os.urandom(10)),
            Envelope("", tuple(map(Recipient, to))),
            now,
            lane=self.name,
            life_s=life_s,
            supersede_key=supersede_key,
        )
        await self.delivery.submit(new, time.monotonic())
        return new.id

    async def ended(self, id_: str, within_s: float) -> Mapping[str, Any]:
        """The message once every recipient has its end; a fault when that takes longer."""
        try:
            async with asyncio.timeout(within_s + SLACK_S):
                while True:
                    view = await self.view(id_)
                    if all(one["state"] in ENDED for one in view["recipients"]):
                        return view
                    await asyncio.sleep(0.1)
        except TimeoutError:
            view = await self.view(id_)
            self.wrong(f"never ends: {[(one['state'], one['reply']) for one in view['recipients']]}")
            return view

    async def view(self, id_: str) -> Mapping[str, Any]:
        found: Any = await self.store.get(id_)
        assert found is not None
        return dict(found)

    # what must be true

    def truthful(self, view: Mapping[str, Any]) -> None:
        """The attempts say what happened, as far as the upstreams know it."""
        for one in view["recipients"]:
            attempts = one["attempts"]
            if [each["n"] for each in attempts] != list(range(1, len(attempts) + 1)):
                self.wrong(f"attempts are not numbered in a row: {[each['n'] for each in attempts]}")
            told = Counter(each["outcome"] for each in attempts)
            if not told.keys() <= OUTCOMES:
                self.wrong(f"outcomes {sorted(told)}")
            if told["sent"] > 1:
                self.wrong(f"{one['address']} was sent to {told['sent']} times")
            if one["state"] == "sent" and (not attempts or told["sent"] != 1):
                self.wrong(f"sent, but the attempts say {dict(told)}")
            for each in attempts:
                self._supported(one["address"], each)
        self._once([one["address"] for one in view["recipients"]], view)

    def _supported(self, address: str, attempt: Mapping[str, Any]) -> None:
        upstream = self.upstreams[attempt["upstream"]]
        outcome, reply = attempt["outcome"], attempt["reply"]
        if outcome == "sent":
            if not reply.startswith("2"):
                self.wrong(f"sent, with {reply!r}")
            if not any(address in received.recipients for received in upstream.messages):
                self.wrong(f"{address} is told to be sent, and {attempt['upstream']} never accepted it")
        elif reply.startswith("2"):
            self.wrong(f"{outcome}, with {reply!r}")
        if outcome == "ambiguous" and not self._may_have_left(address, upstream):
            self.wrong(f"{address} is ambiguous, and its content never left")

    def _may_have_left(self, address: str, upstream: Upstream) -> bool:
        if any(address in received.recipients for received in upstream.transfers):
            return True
        # A server that hangs or breaks off doesn't note what it read; with CHUNKING all flies with the envelope.
        if "CHUNKING" in upstream.extensions:
            return bool(upstream.sessions)
        return any("DATA" in session.verbs for session in upstream.sessions)

    def _once(self, addresses: Iterable[str], view: Mapping[str, Any]) -> None:
        """Who accepted a message, and could say so, isn't sent it again."""
        for address in addresses:
            for name, upstream in self.upstreams.items():
                ambiguous = [
                    each
                    for one in view["recipients"]
                    if one["address"] == address
                    for each in one["attempts"]
                    if each["upstream"] == name and each["outcome"] == "ambiguous"
                ]
                taken = [received for received in upstream.messages if address in received.recipients]
                if len(taken) > 1 + len(ambiguous):
                    self.wrong(f"{name} accepted {address} {len(taken)} times")

    def nothing_in_clear(self, *, but: Container[str] = ()) -> None:
        """Neither mail nor credentials without TLS; to the untrusted (`but`), not even with it."""
        for name, upstream in self.upstreams.items():
            if self.config.upstreams[name].tls == "none":
                continue
            for session in upstream.sessions:
                if (name in but or session.tls is None) and {"AUTH", "MAIL"} & set(session.verbs):
                    self.wrong(f"{name} was told {session.verbs} with TLS {session.tls}")

    async def settled(self) -> None:
        """Sessions and places in the budgets come back, and no more than the warm ones stay."""
        try:
            async with asyncio.timeout(SLACK_S):
                while not self._at_rest():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            counts = {upstream.name: (upstream.counts(), upstream.circuit.state) for upstream in self._upstreams()}
            self.wrong(f"sessions never come to rest: {counts}, open {self._open()}")

    def _at_rest(self) -> bool:
        held = Counter[str]()
        for upstream in self._upstreams():
            counts = upstream.counts()
            held[upstream.name] += sum(counts.values())
            if counts["busy"] or counts["idle"] > upstream.warm().sessions or min(counts.values()) < 0:
                return False
        return all(count == held[name] for name, count in self._open().items())

    def _upstreams(self) -> Sequence[Any]:
        return [upstream for lane in self.delivery.lanes() for upstream in lane.upstreams]

    def _open(self) -> dict[str, int]:
        return {
            name: shared.quota.open
            for name, shared in self.own.upstreams.items()
            if isinstance(shared.quota, SessionQuota)
        }

    async def close(self) -> None:
        await self.delivery.drain(1.0)
        try:
            async with asyncio.timeout(SLACK_S):
                while any(self._open().values()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.wrong(f"places never given back: {self._open()}")
        for name, upstream in self.upstreams.items():
            try:
                await upstream.wait_until(lambda upstream=upstream: upstream.open == 0, SLACK_S)  # type: ignore[misc]
            except AssertionError:
                self.wrong(f"{name} still has {upstream.open} sessions open")
        self.faults += self.events.errors


@asynccontextmanager
async def trial(
    name: str, upstreams: Mapping[str, Upstream], ground: Ground, lane: Mapping[str, Any], **upstream: Any
) -> AsyncIterator[Trial]:
    """`lane` and `upstream`: what differs from the defaults in their sections."""
    async with asyncio.TaskGroup() as starting:
        for one in upstreams.values():
            starting.create_task(one.__aenter__())
    running = Trial(name, _config(name, upstreams, lane, ground, upstream), upstreams, ground.store, ground.clock)
    running.delivery.start()
    try:
        yield running
    finally:
        await running.close()
        for one in upstreams.values():
            await one.__aexit__(None, None, None)
        ground.faults[name] = running.faults


def _config(
    name: str,
    upstreams: Mapping[str, Upstream],
    lane: Mapping[str, Any],
    ground: Ground,
    changes: Mapping[str, Any],
) -> Config:
    def section(upstream: Upstream) -> dict[str, Any]:
        values: dict[str, Any] = {
            "host": "localhost" if upstream.tls else upstream.host,
            "port": upstream.port,
            "tls": upstream.tls or "none",
            "sessions": {"warm": 1, "max": 3, "idle": 0.4, "messages": 100},
        }
        if upstream.tls and ground.certificates is not None:
            values["ca_file"] = ground.certificates.ca_file
        if upstream.auth:
            values["username"], values["password"] = next(iter(upstream.auth.items()))
        return {**values, **changes}

    defaults = {"retry": (0.1, 0.3), "expires": 30.0, "attempt": 1.5, "final": 1.5, "express": True}
    names = tuple(upstreams)
    return Config.model_validate(
        {
            "hostname": "relay.example.com",
            "upstreams": {each: section(upstream) for each, upstream in upstreams.items()},
            "lanes": {name: {**defaults, "upstreams": names, **lane}},
            "default_lane": name,
        }
    )


@dataclass
class Ground:
    """What trials share."""

    store: Store
    clock: Clock
    certificates: Certificates | None
    faults: dict[str, list[str]] = field(default_factory=dict)


def play(
    scenes: Mapping[str, Callable[[Ground], Awaitable[None]]],
    certificates: Certificates | None = None,
    *,
    at_once: int = 30,
) -> dict[str, list[str]]:
    """Run all `scenes` in a loop of their own, so many at once; what was found wrong, by name. Faults that no scene
    can be blamed for stand under ''."""
    return asyncio.run(_play(scenes, certificates, at_once))


async def _play(
    scenes: Mapping[str, Callable[[Ground], Awaitable[None]]], certificates: Certificates | None, at_once: int
) -> dict[str, list[str]]:
    unhandled: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(_told(context)))
    room = asyncio.Semaphore(at_once)
    clock = Clock()
    store = MemoryStore(clock.now)
    ground = Ground(store, clock, certificates)

    async def one(name: str) -> None:
        async with room:
            try:
                await scenes[name](ground)
            except Exception as error:
                ground.faults.setdefault(name, []).append(repr(error))

    await asyncio.gather(*map(one, scenes))
    await store.close()
    gc.collect()
    await asyncio.sleep(0)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return {**ground.faults, "": [*unhandled, *(f"a task is left: {name}" for name in left)]}


def _told(context: Mapping[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


def transfers(upstream: Upstream, address: str) -> list[Received]:
    return [received for received in upstream.transfers if address in received.recipients]
