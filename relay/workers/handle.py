"""One worker as the main process sees it: a process, the link to it, and the next process when that one ends."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from relay.observe.maillog import MailLog
from relay.observe.metrics import Family
from relay.store.model import Action, Selection, TransferredMessage
from relay.supervise import Supervisor
from relay.upstream.rate import LENT_FOR_S, Lent
from relay.upstream.smtp.pool import Whole
from relay.workers import messages
from relay.workers.lease import WorkerQuota
from relay.workers.link import Link, LinkLost
from relay.workers.spawn import spawn

RESTART_AFTER_S = (0.1, 0.5, 1.0, 2.0, 5.0)
STEADY_S = 60.0
"""a worker that ran so long begins its restarts anew"""
ASK_WITHIN_S = 5.0
PUT_WITHIN_S = 30.0
RELOAD_WITHIN_S = 10.0
METRICS_WITHIN_S = 1.0
HEAVY_BYTES = 500_000
KILL_AFTER_S = 2.0
"""what a worker may take beyond its drain's deadline"""
PING_EVERY_S = 2.0
SILENT_FOR_S = 10.0
"""an event loop that hasn't turned for so long hangs; where processors are short, a worker waits for one, but not that
long"""
FIRST_WORD_WITHIN_S = 60.0
"""the interpreter's start included"""
UNLIMITED = 1_000
"""tokens for a worker that still asks for a rate which a reload took away"""
ENDS_WITHIN_S = 5.0
"""a worker that has lost its link finishes what it can, and ends"""


class Group(Protocol):
    """What all workers have in common, as one of them uses it."""

    log: MailLog
    lent: Mapping[str, Whole]
    """by the names in `WorkerConfig.leases`"""

    def ready(self, worker: WorkerHandle) -> None:
        """It takes mail."""

    def reported(self, status: messages.Status) -> None:
        """How it is, twice a second."""

    async def import_message(self, moved: TransferredMessage) -> None:
        """A message that is the main process's."""


class WorkerHandle:
    """One process and the link to it; started again when it dies."""

    def __init__(self, number: int, config: messages.WorkerConfig, group: Group) -> None:
        self.number = number
        self.config = config
        self.status = messages.Status({}, (0, 0), ())
        self.given = (0, 0)
        """messages and their bytes that it took since it told that"""
        self.families: Sequence[Family] = ()
        """its metrics, as last told"""
        self.past: Sequence[Family] = ()
        """the metrics of those that died before it"""
        self.ready = False
        self._group = group
        self._link: Link | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tenants: dict[str, WorkerQuota] = {}
        self._stopping = False
        self._up = asyncio.Event()
        """set while `ready`"""
        self._task = Supervisor(group.log.task_ended).finish(f"worker {number}", self._run)

    async def stop(self, within_s: float) -> None:
        """Drain it, then see it gone."""
        self._stopping = True
        if self.ready:
            try:
                await self.ask(messages.DRAIN, within_s, within_s=within_s + KILL_AFTER_S)
            except LinkLost:
                pass
            except Exception as error:  # noqa: BLE001 - raised over there: this process drains all the same
                self._group.log.trouble("worker", error)
        elif self._link is not None:
            self._link.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._task), KILL_AFTER_S)
        except TimeoutError:
            if self._process is not None:
                _kill(self._process)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reload(self) -> None:
        """Send it `config`; a process that can't apply it is replaced by a new one."""
        if not self.ready or self._link is None:
            return  # it is starting, with these
        link = self._link
        try:
            await self.ask(messages.RELOAD, self.config, within_s=RELOAD_WITHIN_S)
        except Exception as error:  # noqa: BLE001 - no answer, or whatever was raised over there
            self._group.log.trouble("worker", error)
            link.close()

    async def ask(self, kind: str, value: Any = None, *, within_s: float = ASK_WITHIN_S, heavy: bool = False) -> Any:
        """Its answer. Raises LinkLost, also when none comes in time, or what was raised over there."""
        if self._link is None:
            raise LinkLost
        return await self._link.ask(kind, value, within_s=within_s, heavy=heavy)

    async def send(self, kind: str, value: Any, size_bytes: int) -> Any:
        """Ask it to take a message of that size. Raises LinkLost, or what was raised over there."""
        result = await self.ask(
            kind, value, within_s=PUT_WITHIN_S, heavy=kind != messages.PUT_LARGE and size_bytes > HEAVY_BYTES
        )
        waiting, waiting_bytes = self.given
        self.given = waiting + 1, waiting_bytes + size_bytes
        return result

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """An operator's word; a process that is only starting is waited for. Raises LinkLost."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), ASK_WITHIN_S)
        changed: Sequence[str] = await self.ask(messages.ACT, (action, selection), within_s=PUT_WITHIN_S)
        return changed

    async def count(self) -> None:
        """Ask for its metrics; where it doesn't answer, the last ones stand."""
        with contextlib.suppress(LinkLost):
            self.families = await self.ask(messages.METRICS, within_s=METRICS_WITHIN_S)

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
                process = self._process = await spawn(theirs, signs=bool(self.config.loaded.config.dkim))
            except OSError:
                ours.close()
                raise
        self._link = link = await Link.over(ours, self._answer, self._notice, self._lost)
        try:
            async with asyncio.TaskGroup() as life:
                life.create_task(_ended(process), name=f"worker {self.number}'s process")
                life.create_task(self._watch(link, process), name=f"watch worker {self.number}")
                life.create_task(self._employ(link), name=f"config for worker {self.number}")
        except* LinkLost:
            pass
        except* Exception as errors:  # noqa: BLE001 - raised over there, and told here as what it was
            for error in errors.exceptions:
                self._group.log.trouble("worker", error)
        finally:
            self._lost()
            link.close()
            await _see_gone(process)

    async def _employ(self, link: Link) -> None:
        """WorkerConfig, and then it is ready. Raises LinkLost, or what it failed at."""
        config = self.config
        await link.ask(messages.START, config)
        while config is not self.config:  # a reload came while it started
            config = self.config
            await link.ask(messages.RELOAD, config)
        self.ready = True
        self._up.set()
        self._group.ready(self)

    async def _watch(self, link: Link, process: asyncio.subprocess.Process) -> None:
        """Kill it once its loop doesn't turn any more: what it has in hand is taken up by the next. Raises LinkLost."""
        patience_s = FIRST_WORD_WITHIN_S
        while await _answers(link, patience_s):
            patience_s = SILENT_FOR_S
            await asyncio.sleep(PING_EVERY_S)
        self._group.log.trouble("worker", RuntimeError(f"worker {self.number} does not answer; it is killed"))
        _kill(process)
        raise LinkLost

    def _lost(self) -> None:
        self._link, self.ready = None, False
        self._up.clear()
        # Its mail is still in its file, and counts; its sessions are gone.
        self.status = messages.Status({}, self.status.waiting, ())
        for tenant in self._tenants.values():
            tenant.gone()
        self._tenants.clear()
        self.past, self.families = merged([self.past, self.families]), ()

    def _notice(self, kind: str, value: Any) -> None:
        match kind:
            case messages.STATUS:
                self.status, self.given = value, (0, 0)
                self._group.reported(value)
            case messages.LEASE:
                self._tenant(value).lease()
            case messages.RETURN:
                self._tenant(value).returned()
            case messages.UNUSED:
                lease, tokens = value
                rate = self._group.lent[lease].rate
                if rate is not None:
                    rate.returned(self.number, tokens)
            case _:
                raise ValueError(kind)

    def _tenant(self, lease: str) -> WorkerQuota:
        tenant = self._tenants.get(lease)
        if tenant is None:
            quota = self._group.lent[lease].quota
            tenant = self._tenants[lease] = WorkerQuota(quota, lambda kind: self._notify(kind, lease))
        return tenant

    def _notify(self, kind: str, value: str) -> None:
        if self._link is not None:
            self._link.notify(kind, value)

    async def _answer(self, kind: str, value: Any) -> Any:
        match kind:
            case messages.PACE:
                rate = self._group.lent[value].rate
                return (
                    await rate.lend(self.number) if rate is not None else Lent(UNLIMITED, time.monotonic() + LENT_FOR_S)
                )
            case messages.MOVE:
                return await self._group.import_message(value)
            case _:
                raise ValueError(kind)


async def _ended(process: asyncio.subprocess.Process) -> None:
    await process.wait()
    raise LinkLost


async def _answers(link: Link, within_s: float) -> bool:
    """Does its event loop turn? In steps of a second each: while this process itself was stopped or got no processor,
    one of them passes, and not all of them. Raises LinkLost."""
    asking = asyncio.ensure_future(link.ask(messages.PING))
    try:
        for _ in range(math.ceil(within_s)):
            await asyncio.wait((asking,), timeout=1.0)
            if asking.done():
                await asking
                return True
        return False
    finally:
        asking.cancel()


async def _see_gone(process: asyncio.subprocess.Process) -> None:
    """Without its link it ends by itself; if it doesn't, it is killed."""
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), ENDS_WITHIN_S)
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


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
