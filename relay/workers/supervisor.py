"""The main process's side of its workers: starts them, gives them bulk mail, lends them sessions, asks how they are."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from relay.clock import Clock
from relay.config.errors import Places
from relay.config.model import Config, Lane, Loaded
from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.mail.message import Unacceptable
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Family
from relay.store.codec import Codec
from relay.store.merge import shard, shards
from relay.store.model import Action, NewMessage, Selection, TransferredMessage
from relay.upstream.smtp.pool import Whole
from relay.workers import messages
from relay.workers.handle import WorkerHandle, merged
from relay.workers.link import LinkLost


class Workers:
    """All of them. `shared` is the main process's: what an upstream's lanes have in common; `codec` is that of all
    store files."""

    def __init__(self, clock: Clock, log: MailLog, forward: Forward, codec: Codec) -> None:
        self.log = log
        self.lent: Mapping[str, Whole] = {}
        self._leases: dict[str, str] = {}
        self._clock = clock
        self._codec = codec
        self._forward = forward
        self._workers: list[WorkerHandle] = []
        self._count = 0
        """the first so many are given new mail; the others only empty their files"""

    def start(self, loaded: Loaded, lanes: Sequence[str], shared: Mapping[str, Whole]) -> None:
        """Begin, or go on with another configuration. Returns at once; mail waits in the main store until
        a worker is ready."""
        self._lend(shared)
        self._count = count_of(loaded.config) if lanes else 0
        numbers = [*range(1, self._count + 1), *leftover(loaded.config, self._count)]
        for number in numbers:
            config = self._config_of(loaded, lanes, number)
            if number <= len(self._workers):
                self._workers[number - 1].config = config
            else:
                self._workers.append(WorkerHandle(number, config, self))

    async def reload(self, loaded: Loaded, lanes: Sequence[str], shared: Mapping[str, Whole]) -> None:
        """The same for those that run already."""
        running = [worker for worker in self._workers if worker.ready]
        self.start(loaded, lanes, shared)
        await asyncio.gather(*(worker.reload() for worker in running))

    def __bool__(self) -> bool:
        """Bulk mail goes to workers."""
        return self._count > 0

    async def put(self, new: NewMessage, final_dot: float) -> None:
        """Durable in a worker's store when this returns. Raises LinkLost when no worker is there (whether it was
        stored isn't known then: `import_message` is safe), StoreError."""
        await self._home(new.id).send(messages.PUT, (new, final_dot), len(new.content))

    async def put_large(self, draft: Draft, content: Large, final_dot: float) -> NewMessage:
        """As `put`, with a content that is in a file: the worker reads it there. Returns the message, its content
        left out. Raises Unacceptable, SpoolFull, too."""
        value = (draft, replace(content, head=b""), final_dot)
        said = await self._home(draft.new.id).send(messages.PUT_LARGE, value, content.size_bytes)
        if isinstance(said, Reply):
            raise Unacceptable(said)
        return cast(NewMessage, said)

    async def move(self, moved: TransferredMessage) -> None:
        """As `put`, with a message that has a history."""
        await self._home(moved.id).send(messages.MOVE, moved, len(moved.content))

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """An operator's word. Raises LinkLost when one of them can't hear it."""
        told = await asyncio.gather(*(worker.act(action, selection) for worker in self._workers))
        return [message_id for ids in told for message_id in ids]

    async def metrics(self) -> Sequence[Family]:
        """The sum of all of them, also of those that died."""
        await asyncio.gather(*(worker.count() for worker in self._workers))
        return merged([families for worker in self._workers for families in (worker.past, worker.families)])

    def statuses(self) -> Sequence[messages.Status]:
        return [worker.status for worker in self._workers]

    def size(self) -> tuple[int, int]:
        """Open messages and their bytes, as last told, and what was given since: the queue's limits hold between two
        statuses, too."""
        waiting = [each for worker in self._workers for each in (worker.status.waiting, worker.given)]
        return sum(messages for messages, _ in waiting), sum(size_bytes for _, size_bytes in waiting)

    async def drain(self, within_s: float) -> None:
        await asyncio.gather(*(worker.stop(within_s) for worker in self._workers))

    # for the workers

    def ready(self, worker: WorkerHandle) -> None:
        self.log.worker_ready(worker.number)
        self._forward.worker_ready(worker.config.store)

    def reported(self, status: messages.Status) -> None:
        for lane, at, total_s in status.recent:
            self.log.recent.note(lane, at, total_s)

    async def import_message(self, moved: TransferredMessage) -> None:
        await self._forward.import_message(moved)

    def _home(self, message_id: str) -> WorkerHandle:
        """A message has one worker, whoever is ready: what it was given may be given again, and is there once.
        Raises LinkLost."""
        if not self._count:
            raise LinkLost
        worker = self._workers[zlib.crc32(message_id.encode()) % self._count]
        if not worker.ready:
            raise LinkLost
        return worker

    def _config_of(self, loaded: Loaded, lanes: Sequence[str], number: int) -> messages.WorkerConfig:
        share = Config.model_copy(loaded.config, update={"lanes": _divided(loaded.config, lanes, self._count)})
        path = shard(loaded.config.store, number)
        return messages.WorkerConfig(
            replace(loaded, config=share, places=Places(loaded.path)),
            tuple(lanes),
            path,
            self._codec,
            self._clock.offset,
            dict(self._leases),
        )

    def _lend(self, shared: Mapping[str, Whole]) -> None:
        """One with another quota has another name: what workers give back is what they took."""
        for upstream, one in shared.items():
            before = self.lent.get(self._leases.get(upstream, ""))
            if before is None or before.quota is not one.quota:
                self._leases[upstream] = f"{upstream}#{len(self.lent)}"
            self.lent = {**self.lent, self._leases[upstream]: one}


class Forward(Protocol):
    """The main process's store, as workers use it."""

    def worker_ready(self, store: Path) -> None:
        """A worker takes mail, and has that file: what waits for it in the main store may be sent to it."""

    async def import_message(self, moved: TransferredMessage) -> None:
        """A worker's bounce for a lane of the main process."""


def count_of(config: Config) -> int:
    """How many workers: as configured, or one for each processor but the first, at least one and at most four."""
    if config.workers != "auto":
        return config.workers
    return max(1, min(4, (os.cpu_count() or 1) - 1))


def leftover(config: Config, count: int) -> Sequence[int]:
    """Files of workers that the configuration has no more: what waits in them must still go out."""
    return range(count + 1, len(shards(config.store)) + 1)


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
