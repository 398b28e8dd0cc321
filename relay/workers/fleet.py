"""All workers as the main process sees them: starts them, sends them bulk mail, shares upstreams with them."""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from relay.clock import Clock
from relay.config.errors import Places
from relay.config.model import Config, Lane, Loaded
from relay.delivery.fastest import Sample
from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.ipc import LinkLost
from relay.mail.message import Unacceptable
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Family
from relay.policy.suppression import BadAddress, Change
from relay.store.codec import Codec
from relay.store.merge import shard, shards
from relay.store.model import Action, Ended, LateEnd, NewMessage, Selection, TransferredMessage
from relay.upstream.access import Asked, Given
from relay.upstream.limits import LocalLimits
from relay.workers import messages
from relay.workers.handle import PUT_WITHIN_S, WorkerHandle
from relay.workers.metrics import add_up
from relay.workers.spawn import Forked


class Host(Protocol):
    """The main process, as workers use it."""

    def worker_ready(self, store: Path) -> None:
        """A worker takes mail, and stores it in that file: forward what waits for it."""

    async def import_message(self, moved: TransferredMessage) -> None:
        """Store a worker's message for a lane of the main process."""

    def bad_address(self, bad: BadAddress) -> None:
        """An upstream of a worker refused an address for good."""

    async def give_access(self, asked: Asked) -> Given:
        """Credentials that this process fetches for all."""


class Workers:
    """Starts, configures and drains the workers; a message goes to the worker that its id names."""

    def __init__(self, clock: Clock, log: MailLog, host: Host, codec: Codec, forked: Mapping[int, Forked]) -> None:
        """`codec`: of all store files. `forked`: by worker, a process that runs already."""
        self.log = log
        self.limits: Mapping[str, LocalLimits] = {}
        """sessions and rate of upstreams, by the keys in `WorkerConfig.limits_keys`"""
        self.handles: list[WorkerHandle] = []
        self._limits_keys: dict[str, str] = {}
        self._clock = clock
        self._codec = codec
        self._host = host
        self.bad_address: Callable[[BadAddress], None] = host.bad_address
        self.give_access: Callable[[Asked], Awaitable[Given]] = host.give_access
        self.records: socket.socket | None = None
        """where those of tracing are written to; set before the start"""
        self._forked = dict(forked)
        self._count = 0
        """so many of the handles get new mail; the others only empty their store files"""

    def start(self, loaded: Loaded, lanes: Sequence[str], limits: Mapping[str, LocalLimits]) -> None:
        """Start workers with this configuration, or give it to those that run. Returns at once; mail waits in the main
        store until a worker is ready."""
        self._share(limits)
        self._count = count_of(loaded.config) if lanes else 0
        for number in [*range(1, self._count + 1), *leftover(loaded.config, self._count)]:
            config = self._config_of(loaded, lanes, number)
            if number <= len(self.handles):
                self.handles[number - 1].config = config
            else:
                self.handles.append(WorkerHandle(number, config, self, self._forked.pop(number, None), self.records))

    async def reload(self, loaded: Loaded, lanes: Sequence[str], limits: Mapping[str, LocalLimits]) -> None:
        """As `start`; returns when the workers that run have applied it."""
        running = [worker for worker in self.handles if worker.ready]
        self.start(loaded, lanes, limits)
        await asyncio.gather(*(worker.reload() for worker in running))

    async def put(self, new: NewMessage, final_dot: float) -> None:
        """Durable in a worker's store when this returns. Raises StoreError; LinkLost when no worker is there, and then
        it is unknown whether it was stored. Storing it again by `import_message` is safe."""
        await self._home(new.id).send(messages.PUT, (new, final_dot), len(new.content))

    async def put_large(self, draft: Draft, content: Large) -> NewMessage:
        """As `put`, with a content that the worker reads from a file. Returns the message without content. Raises
        Unacceptable and SpoolFailed, too."""
        value = (draft, replace(content, head=b""))
        result = await self._home(draft.new.id).send(messages.PUT_LARGE, value, content.size_bytes)
        if isinstance(result, Reply):
            raise Unacceptable(result)
        return cast(NewMessage, result)

    async def move(self, moved: TransferredMessage) -> None:
        """As `put`, with a message that has a history."""
        await self._home(moved.id).send(messages.MOVE, moved, len(moved.content))

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """Carry out an operator's action in all workers. Returns the ids of the messages that changed. Raises LinkLost
        when a worker doesn't reply."""
        changed = await asyncio.gather(*(worker.act(action, selection) for worker in self.handles))
        return [message_id for ids in changed for message_id in ids]

    async def end_sent(self, end: LateEnd) -> Ended:
        """As `Outcomes.end_sent`, in the worker that has the message. Raises LinkLost when one doesn't reply."""
        for worker in self.handles:
            ended: Ended = await worker.ask(messages.END_SENT, end, within_s=PUT_WITHIN_S)
            if ended != "absent":
                return ended
        return "absent"

    async def erase(self, address: str) -> int:
        """Forget an address in all workers' finished mail. Returns the number of messages. Raises LinkLost when a
        worker doesn't reply."""
        return sum(await asyncio.gather(*(worker.erase(address) for worker in self.handles)))

    def notify(self, kind: str, value: Change | Sequence[Sample] | tuple[str, str]) -> None:
        """Tell the workers that run what is in a store now. Others read it when they start."""
        for worker in self.handles:
            worker.notify(kind, value)

    async def metrics(self) -> Sequence[Family]:
        """The sums over all workers, including those that died."""
        await asyncio.gather(*(worker.refresh_metrics() for worker in self.handles))
        return add_up([families for worker in self.handles for families in (worker.past, worker.families)])

    def statuses(self) -> Sequence[messages.Status]:
        return [worker.status for worker in self.handles]

    def size(self) -> tuple[int, int]:
        """Open messages and their bytes: as last reported, and what was sent since. So the queue's limits hold between
        two statuses, too."""
        waiting = [each for worker in self.handles for each in (worker.status.waiting, worker.sent_since_status)]
        return sum(count for count, _ in waiting), sum(size_bytes for _, size_bytes in waiting)

    async def drain(self, within_s: float) -> int:
        """End all workers. Returns the number of deliveries that were stopped."""
        return sum(await asyncio.gather(*(worker.stop(within_s) for worker in self.handles)))

    # handle.Fleet

    def ready(self, worker: WorkerHandle) -> None:
        self.log.worker_ready(worker.number)
        self._host.worker_ready(worker.config.store)

    def reported(self, status: messages.Status) -> None:
        for note in status.recent:
            self.log.recent.note(*note)

    async def import_message(self, moved: TransferredMessage) -> None:
        await self._host.import_message(moved)

    def _home(self, message_id: str) -> WorkerHandle:
        """The one worker of a message, whichever are ready: a message that is sent twice is stored once. Raises
        LinkLost when it isn't ready."""
        if not self._count:
            raise LinkLost
        worker = self.handles[zlib.crc32(message_id.encode()) % self._count]
        if not worker.ready:
            raise LinkLost
        return worker

    def _config_of(self, loaded: Loaded, lanes: Sequence[str], number: int) -> messages.WorkerConfig:
        share = Config.model_copy(loaded.config, update={"lanes": _divided(loaded.config, lanes, self._count)})
        return messages.WorkerConfig(
            replace(loaded, config=share, places=Places(loaded.path)),
            tuple(lanes),
            shard(loaded.config.store, number),
            self._codec,
            self._clock.offset,
            dict(self._limits_keys),
        )

    def _share(self, limits: Mapping[str, LocalLimits]) -> None:
        """An upstream whose quota is another one gets another key: sessions are released to the quota that they were
        acquired from."""
        for upstream, new in limits.items():
            before = self.limits.get(self._limits_keys.get(upstream, ""))
            if before is None or before.quota is not new.quota:
                self._limits_keys[upstream] = f"{upstream}#{len(self.limits)}"
            self.limits = {**self.limits, self._limits_keys[upstream]: new}


def count_of(config: Config) -> int:
    """The number of workers: as configured, or one for each processor but the first, at least one and at most four."""
    if config.workers != "auto":
        return config.workers
    return max(1, min(4, (os.cpu_count() or 1) - 1))


def leftover(config: Config, count: int) -> Sequence[int]:
    """Numbers of store files beyond the configured workers: what waits in them must still be sent."""
    return range(count + 1, len(shards(config.store)) + 1)


def _divided(config: Config, lanes: Sequence[str], count: int) -> Mapping[str, Lane]:
    """All lanes; rate and concurrency of `lanes` are divided by the number of workers."""
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
