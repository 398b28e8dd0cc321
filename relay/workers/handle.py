"""One worker as the main process sees it: the messages sent to it, and its state as last reported."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from relay.ipc import LinkLost
from relay.observe.maillog import MailLog
from relay.observe.metrics import Family
from relay.policy.suppression import BadAddress
from relay.store.model import Action, Selection, TransferredMessage
from relay.supervise import Supervisor
from relay.upstream.access import Asked, Given
from relay.upstream.limits import LocalLimits
from relay.upstream.rate import LENT_FOR_S, Lent
from relay.workers import messages
from relay.workers.life import Life
from relay.workers.metrics import add_up
from relay.workers.shares import Share, WorkerQuota
from relay.workers.spawn import Forked, spawn

RESTART_AFTER_S = (0.1, 0.5, 1.0, 2.0, 5.0)
STEADY_S = 60.0
"""after a life of this length, the next restart is the first again"""
ASK_WITHIN_S = 5.0
PUT_WITHIN_S = 30.0
RELOAD_WITHIN_S = 10.0
METRICS_WITHIN_S = 1.0
HEAVY_BYTES = 500_000
"""pickling more than this would block the loop"""
KILL_AFTER_S = 2.0
"""beyond the deadline of its drain, a worker is killed after this time"""
UNLIMITED = 1_000
"""tokens for a worker that still asks for a rate which a reload removed"""


class Fleet(Protocol):
    """What all workers have in common, as a handle uses it."""

    log: MailLog
    limits: Mapping[str, LocalLimits]
    """by the keys in `WorkerConfig.limits_keys`"""
    bad_address: Callable[[BadAddress], None]
    """is called when an upstream of a worker refused an address for good"""
    give_access: Callable[[Asked], Awaitable[Given]]
    """credentials that the main process fetches for all"""

    def ready(self, worker: WorkerHandle) -> None:
        """It takes mail."""

    def reported(self, status: messages.Status) -> None:
        """A worker's status, twice a second."""

    async def import_message(self, moved: TransferredMessage) -> None:
        """Store a message that belongs to the main process."""


class WorkerHandle:
    """Runs one worker, and starts it again when it dies."""

    def __init__(
        self,
        number: int,
        config: messages.WorkerConfig,
        fleet: Fleet,
        forked: Forked | None = None,
        records: socket.socket | None = None,
    ) -> None:
        """`forked`: its first process, already running. `records`: where those of tracing are written to."""
        self.number = number
        self.config = config
        self.status = messages.Status({}, (0, 0), ())
        self.sent_since_status = (0, 0)
        """messages and their bytes sent to it since its last status"""
        self.families: Sequence[Family] = ()
        """its metrics, as last reported"""
        self.past: Sequence[Family] = ()
        """the metrics of its earlier lives"""
        self.life: Life | None = None
        """its process and link, while there are any"""
        self._fleet = fleet
        self._forked = forked
        self._records = records
        self._quotas: dict[str, WorkerQuota] = {}
        self._stopping = False
        self._ready = asyncio.Event()
        self._task = Supervisor(fleet.log.task_ended).run_until_done(f"worker {number}", self._run)

    @property
    def ready(self) -> bool:
        """It takes mail."""
        return self._ready.is_set()

    async def stop(self, within_s: float) -> int:
        """Drain it within that time, and wait until its process has ended. Returns the number of deliveries that were
        stopped."""
        self._stopping, stopped = True, 0
        if self.ready:
            try:
                stopped = await self.ask(messages.DRAIN, within_s, within_s=within_s + KILL_AFTER_S)
            except LinkLost:
                pass
            except Exception as error:  # noqa: BLE001 - raised by the worker: this process drains all the same
                self._fleet.log.trouble("worker", error)
        elif self.life is not None:
            self.life.link.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._task), KILL_AFTER_S)
        except TimeoutError:
            if self.life is not None:
                self.life.kill()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return stopped

    async def reload(self) -> None:
        """Send it `config`. A process that can't apply it is replaced by a new one."""
        life = self.life
        if not self.ready or life is None:
            return  # it is starting, and gets this configuration
        try:
            await self.ask(messages.RELOAD, self.config, within_s=RELOAD_WITHIN_S)
        except Exception as error:  # noqa: BLE001 - no reply, or an exception of the worker's
            self._fleet.log.trouble("worker", error)
            life.link.close()

    async def ask(self, kind: str, value: Any = None, *, within_s: float = ASK_WITHIN_S, heavy: bool = False) -> Any:
        """Its reply. Raises LinkLost, also when none comes in time, or what the worker raised."""
        if self.life is None:
            raise LinkLost
        return await self.life.link.ask(kind, value, within_s=within_s, heavy=heavy)

    async def send(self, kind: str, value: Any, size_bytes: int) -> Any:
        """Send it a message of that size. Returns its reply. Raises LinkLost, or what the worker raised."""
        heavy = kind != messages.PUT_LARGE and size_bytes > HEAVY_BYTES
        result = await self.ask(kind, value, within_s=PUT_WITHIN_S, heavy=heavy)
        count, total_bytes = self.sent_since_status
        self.sent_since_status = count + 1, total_bytes + size_bytes
        return result

    def notify(self, kind: str, value: Any) -> None:
        """Send it a notification, if it runs; it may still be starting."""
        if self.life is not None:
            self.life.link.notify(kind, value)

    async def erase(self, address: str) -> int:
        """As `SqliteStore.erase_address`; waits for a process that is starting. Raises LinkLost, StoreError."""
        erased: int = await self._ask_ready(messages.ERASE, address)
        return erased

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """Carry out an operator's action; waits for a process that is starting. Returns the ids of the messages that
        changed. Raises LinkLost."""
        changed: Sequence[str] = await self._ask_ready(messages.ACT, (action, selection))
        return changed

    async def _ask_ready(self, kind: str, value: Any) -> Any:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), ASK_WITHIN_S)
        return await self.ask(kind, value, within_s=PUT_WITHIN_S)

    async def refresh_metrics(self) -> None:
        """Ask for its metrics. Without a reply the last ones stay."""
        with contextlib.suppress(LinkLost):
            self.families = await self.ask(messages.METRICS, within_s=METRICS_WITHIN_S)

    async def _run(self) -> None:
        deaths = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._live()
            except OSError as error:  # no process or no socket could be made
                self._fleet.log.trouble("worker", error)
            if self._stopping:
                return
            deaths = 0 if loop.time() - began > STEADY_S else deaths + 1
            self._fleet.log.trouble("worker", RuntimeError(f"worker {self.number} ended; it is started again"))
            await asyncio.sleep(RESTART_AFTER_S[min(deaths, len(RESTART_AFTER_S) - 1)])

    async def _live(self) -> None:
        """One life of the process: start, configure, watch until it ends. Raises OSError."""
        forked, self._forked = self._forked, None
        signs = bool(self.config.loaded.config.dkim)
        started = forked.started() if forked is not None else await spawn(self.number, self._records, signs=signs)
        self.life = life = await Life.begin(started, self._on_request, self._on_notification, self._lost)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(life.wait_until_ended(), name=f"process of worker {self.number}")
                tasks.create_task(self._watch(life), name=f"watch worker {self.number}")
                tasks.create_task(self._configure(life), name=f"configure worker {self.number}")
        except* LinkLost:
            pass
        except* Exception as errors:  # noqa: BLE001 - raised by the worker, and logged as what it is
            for error in errors.exceptions:
                self._fleet.log.trouble("worker", error)
        finally:
            self._lost()
            await life.end()

    async def _configure(self, life: Life) -> None:
        """Send its configuration; then it is ready. Raises LinkLost, or what the worker raised."""
        config = self.config
        await life.link.ask(messages.START, config)
        while config is not self.config:  # reloaded while it started
            config = self.config
            await life.link.ask(messages.RELOAD, config)
        self._ready.set()
        self._fleet.ready(self)

    async def _watch(self, life: Life) -> None:
        """Kill it once its event loop hangs; the next process takes over its mail. Raises LinkLost."""
        await life.wait_until_hung()
        self._fleet.log.trouble("worker", RuntimeError(f"worker {self.number} does not answer; it is killed"))
        life.kill()
        raise LinkLost

    def _lost(self) -> None:
        """The link is gone. Its mail is still in its store file, and counts; its sessions are closed."""
        self.life = None
        self._ready.clear()
        self.status = messages.Status({}, self.status.waiting, ())
        for quota in self._quotas.values():
            quota.gone()
        self._quotas.clear()
        self.past, self.families = add_up([self.past, self.families]), ()

    def _on_notification(self, kind: str, value: Any) -> None:
        match kind:
            case messages.STATUS:
                self.status, self.sent_since_status = value, (0, 0)
                self._fleet.reported(value)
                for quota in self._quotas.values():
                    quota.on_capacity()  # another client's turn may be over
            case messages.NEED:
                key, need = value
                self._quota(key).receive(need)
            case messages.RATE_UNUSED:
                key, tokens = value
                rate = self._fleet.limits[key].rate
                if rate is not None:
                    rate.give_back(self.number, tokens)
            case messages.BAD_ADDRESS:
                self._fleet.bad_address(value)
            case _:
                raise ValueError(kind)

    def _quota(self, key: str) -> WorkerQuota:
        if key not in self._quotas:
            self._quotas[key] = WorkerQuota(self._fleet.limits[key].quota, lambda share: self._send_share(key, share))
        return self._quotas[key]

    def _send_share(self, key: str, share: Share) -> None:
        self.notify(messages.SHARE, (key, share))

    async def _on_request(self, kind: str, value: Any) -> Any:
        match kind:
            case messages.LEND_RATE:
                rate = self._fleet.limits[value].rate
                if rate is None:
                    return Lent(UNLIMITED, time.monotonic() + LENT_FOR_S)
                return await rate.lend(self.number)
            case messages.ACCESS:
                return await self._fleet.give_access(value)
            case messages.MOVE:
                return await self._fleet.import_message(value)
            case _:
                raise ValueError(kind)
