"""The main process's side of its workers: starts them, gives them bulk mail, lends them sessions, asks how they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from relay.config.model import Config, Lane, Loaded
from relay.delivery.clock import Clock
from relay.draft import Draft
from relay.mail.message import Unacceptable
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Family
from relay.store.base import Action, NewMessage, Selection, StoreError
from relay.store.codec import Codec
from relay.store.several import shard, shards
from relay.store.sqlite_move import Moved
from relay.upstream.pool import Shared
from relay.workers import words
from relay.workers.lease import Tenant
from relay.workers.link import Link, LinkLost
from relay.workers.spawn import spawn

RESTART_AFTER_S = (0.1, 0.5, 1.0, 2.0, 5.0)
STEADY_S = 60.0
"""a worker that ran so long begins its restarts anew"""
ASK_WITHIN_S = 5.0
PUT_WITHIN_S = 30.0
HEAVY_BYTES = 500_000
KILL_AFTER_S = 2.0
"""what a worker may take beyond its drain's deadline"""


class Worker:
    """One process and the link to it; started again when it dies."""

    def __init__(self, number: int, orders: words.Orders, group: Workers) -> None:
        self.number = number
        self.orders = orders
        self.status = words.Status({}, (0, 0), ())
        self.given = (0, 0)
        """messages and their bytes that it took since it told that"""
        self.families: Sequence[Family] = ()
        """its metrics, as last told"""
        self.past: Sequence[Family] = ()
        """the metrics of those that died before it"""
        self.ready = False
        self._group = group
        self._link: Link | None = None
        self._tenants: dict[str, Tenant] = {}
        self._stopping = False
        self._up = asyncio.Event()
        """set while `ready`"""
        self._task = asyncio.create_task(self._run(), name=f"worker {number}")

    async def stop(self, within_s: float) -> None:
        """Drain it, then see it gone."""
        self._stopping = True
        if self.ready:
            with contextlib.suppress(LinkLost, StoreError):
                await self.ask(words.DRAIN, within_s, within_s=within_s + KILL_AFTER_S)
        elif self._link is not None:
            self._link.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._task), KILL_AFTER_S)
        except TimeoutError:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def ask(self, kind: str, value: Any = None, *, within_s: float = ASK_WITHIN_S, heavy: bool = False) -> Any:
        """Its answer. Raises LinkLost, also when none comes in time, or what was raised over there."""
        if self._link is None:
            raise LinkLost
        try:
            async with asyncio.timeout(within_s):
                return await self._link.ask(kind, value, heavy=heavy)
        except TimeoutError as error:
            raise LinkLost from error

    async def give(self, kind: str, value: Any, size_bytes: int) -> Any:
        """Ask it to take a message of that size. Raises LinkLost, or what was raised over there."""
        said = await self.ask(
            kind, value, within_s=PUT_WITHIN_S, heavy=kind != words.PUT_LARGE and size_bytes > HEAVY_BYTES
        )
        messages, waiting_bytes = self.given
        self.given = messages + 1, waiting_bytes + size_bytes
        return said

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """An operator's word; a process that is only starting is waited for. Raises LinkLost."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), ASK_WITHIN_S)
        changed: Sequence[str] = await self.ask(words.ACT, (action, selection), within_s=PUT_WITHIN_S)
        return changed

    async def _run(self) -> None:
        deaths = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._once()
            except OSError as error:  # no process, no socket: there may be one later
                self._group.log.trouble("worker", error)
            if self._stopping:
                return
            deaths = 0 if loop.time() - began > STEADY_S else deaths + 1
            self._group.log.trouble("worker", RuntimeError(f"worker {self.number} ended; it is started again"))
            await asyncio.sleep(RESTART_AFTER_S[min(deaths, len(RESTART_AFTER_S) - 1)])

    async def _once(self) -> None:
        """One life of the process."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await spawn(theirs)
            except OSError:
                ours.close()
                raise
        self._link = link = await Link.over(ours, self._answer, self._notice, self._lost)
        try:
            orders = self.orders
            await link.ask(words.START, orders)
            while orders is not self.orders:  # a reload came while it started
                orders = self.orders
                await link.ask(words.RELOAD, orders)
            self.ready = True
            self._up.set()
            self._group.ready(self)
            await process.wait()
        except LinkLost:
            await process.wait()
        except Exception as error:  # noqa: BLE001 - raised over there, and told here as what it was
            self._group.log.trouble("worker", error)
        finally:
            self._lost()
            link.close()
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _lost(self) -> None:
        self._link, self.ready = None, False
        self._up.clear()
        for tenant in self._tenants.values():
            tenant.gone()
        self._tenants.clear()
        self.past, self.families = merged([self.past, self.families]), ()

    def _notice(self, kind: str, value: Any) -> None:
        match kind:
            case words.STATUS:
                self.status, self.given = value, (0, 0)
                self._group.told(value)
            case words.LEASE:
                self._tenant(value).lease()
            case words.RETURN:
                self._tenant(value).returned()
            case _:
                raise ValueError(kind)

    def _tenant(self, upstream: str) -> Tenant:
        tenant = self._tenants.get(upstream)
        if tenant is None:
            budget = self._group.shared[upstream].budget
            tenant = self._tenants[upstream] = Tenant(budget, lambda kind: self._tell(kind, upstream))
        return tenant

    def _tell(self, kind: str, value: str) -> None:
        if self._link is not None:
            self._link.tell(kind, value)

    async def _answer(self, kind: str, value: Any) -> Any:
        match kind:
            case words.PACE:
                rate = self._group.shared[value].rate
                return await rate.pace(express=False) if rate is not None else None
            case words.MOVE:
                return await self._group.take_in(value)
            case _:
                raise ValueError(kind)


class Workers:
    """All of them. `shared` is the main process's: what an upstream's lanes have in common; `codec` is that of all
    store files."""

    def __init__(self, clock: Clock, log: MailLog, forward: Forward, codec: Codec) -> None:
        self.log = log
        self.shared: Mapping[str, Shared] = {}
        self._clock = clock
        self._codec = codec
        self._forward = forward
        self._workers: list[Worker] = []
        self._count = 0
        """the first so many are given new mail; the others only empty their files"""

    def start(self, loaded: Loaded, lanes: Sequence[str], shared: Mapping[str, Shared]) -> None:
        """Begin, or go on with another configuration's orders. Returns at once; mail waits in the main store until
        a worker is ready."""
        self.shared = shared
        self._count = count_of(loaded.config) if lanes else 0
        numbers = [*range(1, self._count + 1), *leftover(loaded.config, self._count)]
        for number in numbers:
            orders = self._orders(loaded, lanes, number)
            if number <= len(self._workers):
                self._workers[number - 1].orders = orders
            else:
                self._workers.append(Worker(number, orders, self))

    async def reload(self, loaded: Loaded, lanes: Sequence[str], shared: Mapping[str, Shared]) -> None:
        """The same for those that run already."""
        running = [worker for worker in self._workers if worker.ready]
        self.start(loaded, lanes, shared)
        for worker in running:
            with contextlib.suppress(LinkLost):  # it starts anew, with these orders
                await worker.ask(words.RELOAD, worker.orders, within_s=PUT_WITHIN_S)

    def __bool__(self) -> bool:
        """Bulk mail goes to workers."""
        return self._count > 0

    async def put(self, new: NewMessage, final_dot: float) -> None:
        """Durable in a worker's store when this returns. Raises LinkLost when no worker is there (whether it was
        stored isn't known then: `take_in` is safe), StoreError."""
        await self._home(new.id).give(words.PUT, (new, final_dot), len(new.content))

    async def put_large(self, draft: Draft, path: Path, final_dot: float) -> NewMessage:
        """As `put`, with a content that is in a file: the worker reads it there. Returns the message, its content
        left out. Raises Unacceptable, too."""
        value = (draft, path, final_dot)
        said = await self._home(draft.new.id).give(words.PUT_LARGE, value, os.stat(path).st_size)
        if isinstance(said, Reply):
            raise Unacceptable(said)
        return cast(NewMessage, said)

    def mail_waits(self) -> None:
        """Mail for them was put into the main store."""
        self._forward.mail_waits()

    async def move(self, moved: Moved) -> None:
        """As `put`, with a message that has a history."""
        await self._home(moved.id).give(words.MOVE, moved, len(moved.content))

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """An operator's word. Raises LinkLost when one of them can't hear it."""
        told = await asyncio.gather(*(worker.act(action, selection) for worker in self._workers))
        return [message_id for ids in told for message_id in ids]

    async def metrics(self) -> Sequence[Family]:
        """The sum of all of them, also of those that died."""
        for worker in self._workers:
            with contextlib.suppress(LinkLost, StoreError):
                worker.families = await worker.ask(words.METRICS, within_s=1.0)
        return merged([families for worker in self._workers for families in (worker.past, worker.families)])

    def statuses(self) -> Sequence[words.Status]:
        return [worker.status for worker in self._workers]

    def size(self) -> tuple[int, int]:
        """Open messages and their bytes, as last told, and what was given since: the queue's limits hold between two
        statuses, too."""
        waiting = [each for worker in self._workers for each in (worker.status.waiting, worker.given)]
        return sum(messages for messages, _ in waiting), sum(size_bytes for _, size_bytes in waiting)

    async def drain(self, within_s: float) -> None:
        await asyncio.gather(*(worker.stop(within_s) for worker in self._workers))

    # for the workers

    def ready(self, worker: Worker) -> None:
        self.log.worker_ready(worker.number)
        self._forward.worker_ready(worker.orders.store)

    def told(self, status: words.Status) -> None:
        for lane, at, total_s in status.recent:
            self.log.recent.note(lane, at, total_s)

    async def take_in(self, moved: Moved) -> None:
        await self._forward.take_in(moved)

    def _home(self, message_id: str) -> Worker:
        """A message has one worker, whoever is ready: what it was given may be given again, and is there once.
        Raises LinkLost."""
        if not self._count:
            raise LinkLost
        worker = self._workers[zlib.crc32(message_id.encode()) % self._count]
        if not worker.ready:
            raise LinkLost
        return worker

    def _orders(self, loaded: Loaded, lanes: Sequence[str], number: int) -> words.Orders:
        share = Config.model_copy(loaded.config, update={"lanes": _divided(loaded.config, lanes, self._count)})
        path = shard(loaded.config.store, number)
        return words.Orders(replace(loaded, config=share), tuple(lanes), path, self._codec, self._clock.offset)


class Forward(Protocol):
    """The main process's store, as workers use it."""

    def worker_ready(self, store: Path) -> None:
        """A worker takes mail, and has that file: what waits for it in the main store may be sent to it."""

    def mail_waits(self) -> None:
        """Mail for a worker is in the main store."""

    async def take_in(self, moved: Moved) -> None:
        """A worker's bounce for a lane of the main process."""


def count_of(config: Config) -> int:
    """How many workers: as configured, or one for each processor but the first, at least one and at most four."""
    if config.workers != "auto":
        return config.workers
    return max(1, min(4, (os.cpu_count() or 1) - 1))


def leftover(config: Config, count: int) -> Sequence[int]:
    """Files of workers that the configuration has no more: what waits in them must still go out."""
    return range(count + 1, len(shards(config.store)) + 1)


def merged(all_families: Sequence[Sequence[Family]]) -> Sequence[Family]:
    """Counters and histograms added up."""
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in all_families:
        for family in families:
            samples = sums.setdefault(family.name, {})
            for name, labels, value in family.samples:
                samples[name, labels] = samples.get((name, labels), 0.0) + value
    return [
        Family(name, [(sample, labels, value) for (sample, labels), value in samples.items()])
        for name, samples in sums.items()
    ]


def _divided(config: Config, lanes: Sequence[str], count: int) -> Mapping[str, Lane]:
    """Each worker has its part of a bulk lane's rate and concurrency."""
    parts = max(1, count)
    return {
        name: lane
        if name not in lanes or parts == 1
        else lane.model_copy(
            update={
                "rate": lane.rate / parts if lane.rate is not None else None,
                "concurrency": max(1, lane.concurrency // parts) if lane.concurrency is not None else None,
            }
        )
        for name, lane in config.lanes.items()
    }
