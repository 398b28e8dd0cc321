"""Delivery with a store in memory and real upstreams, without the SMTP service in front."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from relay.clock import Clock
from relay.config.model import Config
from relay.delivery.bounce import Bouncer
from relay.delivery.dispatch import Delivery, OwnLanes, targets_of
from relay.delivery.fastest import Paces
from relay.delivery.message import Job
from relay.delivery.services import Events, Services, Sign
from relay.mail.envelope import Envelope, Recipient
from relay.policy.suppression import BadAddress, Suppressions
from relay.store.base import Queue, Store, StoreError
from relay.store.model import NewMessage, OpenRecipient, Queued, Settlement
from relay.store.sqlite.store import open_store
from relay.store.ulid import IdMaker
from relay.supervise import Supervisor
from relay.upstream.attempt import Report
from relay.upstream.phases import PHASES, RARE_PHASES
from tests.store.memory import MemoryStore
from tests.support.upstream import Upstream

MESSAGE_PHASES = ("accept", "earlier", "wait", *RARE_PHASES, *PHASES)
"""phases of a message's timings that don't overlap: from the app's final dot to the upstream's reply to the relay's"""
CONTENT = b"From: a@example.com\r\nSubject: x\r\n\r\n.dot\r\n"


class RecordedEvents:
    """Delivery's Events."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, str, str]] = []
        self.errors: list[str] = []
        self.expired: list[tuple[str, str, int]] = []

    def on_attempt(self, lane: str, job: Job, report: Report) -> None:
        self.attempts.extend((report.upstream, result.outcome, str(result.reply)) for result in report.results)

    def on_settled(self, lane: str, job: Job, settlement: Settlement) -> None: ...

    def on_superseded(self, lane: str, message_id: str, by: str) -> None: ...

    def on_expired(self, lane: str, message_id: str, recipients: int) -> None:
        self.expired.append((lane, message_id, recipients))

    def on_error(self, where: str, error: BaseException) -> None:
        self.errors.append(f"{where}: {error!r}")

    def down(self, lane: str, upstream: str, reason: str) -> None: ...

    def up(self, lane: str, upstream: str) -> None: ...

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None: ...

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None: ...

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None: ...

    def way_up(self, lane: str, upstream: str, way: str) -> None: ...


def config(upstreams: Mapping[str, Upstream | Mapping[str, Any]], **lane: Any) -> Config:
    """A lane `otp` over all upstreams, and a lane `bulk` for bounces over the last."""
    defaults = {"retry": (0.05, 0.1), "expires": 30.0, "attempt": 1.0, "final": 1.0, "express": True}
    names = tuple(upstreams)
    return Config.model_validate(
        {
            "hostname": "relay.example.com",
            "upstreams": {name: _upstream(one) for name, one in upstreams.items()},
            "lanes": {
                "otp": {**defaults, "upstreams": names, **lane},
                "bulk": {**defaults, "express": False, "upstreams": names[-1:]},
            },
            "default_lane": "bulk",
        }
    )


def _upstream(one: Upstream | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(one, Upstream):
        return {"host": one.host, "port": one.port, "tls": "none"}
    return dict(one)


def new_message(
    id_: str,
    envelope: Envelope,
    now: float,
    *,
    lane: str = "otp",
    life_s: float = 30.0,
    supersede_key: str | None = None,
    upstreams: tuple[str, ...] = (),
    content: bytes | None = None,
) -> NewMessage:
    """As intake makes it; default: of `CONTENT`."""
    return NewMessage(
        id=id_,
        lane=lane,
        rule=None,
        envelope=envelope,
        content=CONTENT if content is None else content,
        client="127.0.0.1",
        message_id="<1@example.com>",
        subject="x",
        providers=tuple("example.net" for _ in envelope.recipients),
        accepted_at=now,
        expires_at=now + life_s,
        supersede_key=supersede_key,
        upstreams=upstreams,
    )


@dataclass
class Bench:
    delivery: Delivery
    store: Store
    clock: Clock
    events: RecordedEvents
    ids: IdMaker

    async def send(
        self,
        *to: str | Recipient,
        lane: str = "otp",
        sender: str = "app@example.com",
        claimed: bool = True,
        life_s: float = 30.0,
        supersede_key: str | None = None,
        upstreams: tuple[str, ...] = (),
        content: bytes | None = None,
        **envelope: Any,
    ) -> str:
        """Hand a message over as intake does, or (not `claimed`) leave it to the feeder. Returns its id."""
        recipients = tuple(one if isinstance(one, Recipient) else Recipient(one) for one in to)
        now = self.clock.now()
        new = new_message(
            self.ids.new_id(now, os.urandom(10)),
            Envelope(sender, recipients, **envelope),
            now,
            lane=lane,
            life_s=life_s,
            supersede_key=supersede_key,
            upstreams=upstreams,
            content=content,
        )
        if not claimed:
            await self.store.put(new, claimed=False)
            self.delivery.lane(lane).wake(now)
            return new.id
        await self.delivery.submit(new, time.monotonic())
        return new.id

    async def view(self, id_: str) -> dict[str, Any]:
        found = await self.store.get(id_)
        assert found is not None
        return cast(dict[str, Any], dict(found))

    async def ended(self, id_: str, *states: str) -> dict[str, Any]:
        """The message once each recipient is in one of `states` (default: finished)."""
        wanted = states or ("sent", "bounced", "expired", "superseded")
        async with asyncio.timeout(15):
            while True:
                view = await self.view(id_)
                if all(one["state"] in wanted for one in view["recipients"]):
                    return view
                await asyncio.sleep(0.01)


def failing(bench: Bench, name: str, times: int) -> None:
    """The store's `name` raises StoreError that often, then works."""
    really, left = getattr(bench.store, name), [times]

    async def attempted(*args: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise StoreError("disk I/O error")
        return await really(*args, **options)

    setattr(bench.store, name, attempted)


def job_of(bench: Bench, message_id: str, *to: str, key: str | None = None) -> tuple[NewMessage, Job]:
    """A message to `to` (default: one recipient) as it comes, neither stored nor offered."""
    recipients = tuple(map(Recipient, to or ("u@example.net",)))
    new = new_message(message_id, Envelope("app@example.com", recipients), bench.clock.now(), supersede_key=key)
    due = tuple(OpenRecipient(position, one) for position, one in enumerate(recipients))
    return new, bench.delivery.lane("otp").job(Queued.of(new, due))


async def unsigned(message: Queued, unsigned: frozenset[str], *, express: bool) -> Sequence[bytes]:
    return (message.content,)


def delivery_over(
    settings: Config,
    store: Queue,
    clock: Clock,
    events: Events,
    sign: Sign = unsigned,
    own: OwnLanes | None = None,
    suppressions: Suppressions | None = None,
    bad_addresses: list[BadAddress] | None = None,
    paces: Paces | None = None,
) -> Delivery:
    """The lanes of `own` (default: all), not started."""
    supervisor = Supervisor(lambda name, error: events.on_error(name, error or RuntimeError("returned")))
    report = bad_addresses.append if bad_addresses is not None else lambda _: None
    services = Services(
        store,
        clock,
        sign,
        Bouncer(settings, clock),
        events,
        supervisor,
        suppressions or Suppressions(),
        report,
        paces or Paces(),
        redirect=settings.redirect,
    )
    return Delivery(settings, services, targets_of(settings), own or OwnLanes.whole(settings))


@asynccontextmanager
async def delivering(
    path: Path,
    settings: Config,
    *,
    on_disk: bool = False,
    recover: bool = False,
    sign: Sign = unsigned,
    events: Events | None = None,
    own: OwnLanes | None = None,
    suppressions: Suppressions | None = None,
    bad_addresses: list[BadAddress] | None = None,
    paces: Paces | None = None,
) -> AsyncIterator[Bench]:
    """Lanes of the configuration, started. `on_disk`: over SQLite's file in `path`, which a second call with `recover`
    opens as a relay does at its start."""
    clock, recorded = Clock(), RecordedEvents()
    store: Store = MemoryStore(clock.now)
    if on_disk or recover:
        store = await open_store(path / "relay.db", now=clock.now)
    if recover:
        await store.recover(clock.now())
    delivery = delivery_over(settings, store, clock, events or recorded, sign, own, suppressions, bad_addresses, paces)
    delivery.start()
    try:
        yield Bench(delivery, store, clock, recorded, IdMaker())
    finally:
        await delivery.drain(1.0)
        await store.close()
    assert recorded.errors == []


def outcomes(view: Mapping[str, Any], position: int = 0) -> Sequence[tuple[str, str]]:
    return [(one["upstream"], one["outcome"]) for one in view["recipients"][position]["attempts"]]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():
            await asyncio.sleep(0.01)


def warm(bench: Bench, lane: str = "otp") -> bool:
    """Every upstream of the lane has a session that stands ready."""
    return all(pool.counts()["idle"] >= 1 for pool in bench.delivery.lane(lane).upstreams)
