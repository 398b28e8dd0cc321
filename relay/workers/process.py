"""The worker process: carries out the requests of the main process (`entry` starts it)."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any

import uvloop

from relay.clock import Clock
from relay.delivery.dispatch import Delivery, OwnLanes, targets_of, upstreams_of
from relay.delivery.engine import Engine
from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.ipc import Link, LinkLost
from relay.mail.dkim import Signer
from relay.mail.message import Unacceptable
from relay.mail.reply import Reply
from relay.observe import log_output
from relay.observe.log_output import LogOptions
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Failure, Recent, RecentDelivery
from relay.observe.trace_ids import Sampling
from relay.observe.tracing import Tracing
from relay.policy.suppression import BadAddress, Suppressions
from relay.signing.client import HelperClient
from relay.signing.helper import HelperProcess
from relay.store.model import NewMessage, TransferredMessage
from relay.supervise import Supervisor, listen_to
from relay.upstream.limits import UpstreamLimits
from relay.workers import messages
from relay.workers.remote_access import RemoteAccess
from relay.workers.shares import Need, RemoteRateLimiter, SharedQuota
from relay.workers.transfer import Forwarder

STATUS_EVERY_S = 0.5
ORPHANED_DRAIN_S = 2.0


class UnreportedDeliveries(Recent):
    """The deliveries since the last status."""

    def __init__(self) -> None:
        super().__init__()
        self._deliveries: list[RecentDelivery] = []

    def note(self, lane: str, at: float, total_s: float, failure: Failure | None = None) -> None:
        self._deliveries.append((lane, at, total_s, failure))

    def take(self) -> list[RecentDelivery]:
        """All of them; they are reported then."""
        deliveries, self._deliveries = self._deliveries, []
        return deliveries


class WorkerProcess:
    """Serves the link until the main process drains it or is gone."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.deliveries = UnreportedDeliveries()
        self.ended = asyncio.Event()
        self._log = MailLog(self.metrics, self.deliveries)
        self._tracing: Tracing | None = None
        self._link: Link | None = None
        self._helper: HelperClient | None = None
        self._engine: Engine | None = None
        self._suppressions = Suppressions()
        self._forwarder: Forwarder | None = None
        self._large = asyncio.Semaphore(1)
        self._quotas: dict[str, SharedQuota] = {}
        """by the keys in `WorkerConfig.limits_keys`"""

    async def serve(self, sock: socket.socket, forked: HelperProcess | None, records: socket.socket | None) -> None:
        """`sock`: the worker's end of the link. `forked`: its signing helper. `records`: where those of tracing go."""
        if records is not None:
            self._tracing = Tracing(records, Sampling.of(os.environ))
        listen_to(asyncio.get_running_loop(), self._log.loop_failed)
        if forked is not None:
            self._helper = HelperClient(forked, self._on_helper_exit)
        self._link = await Link.over(sock, self._on_request, self._on_notification, self.ended.set)
        status = Supervisor(self._log.task_ended).run_forever("status", self._report_status)
        await self.ended.wait()
        status.cancel()
        await self._end(ORPHANED_DRAIN_S)
        if self._tracing is not None:
            self._tracing.close()
        if self._helper is not None:
            self._helper.close()

    def _on_helper_exit(self) -> None:
        self._helper = None
        if self._engine is not None:
            self._engine.signatures.on_helper_exit()

    async def _end(self, within_s: float) -> int:
        """Drain and close the engine. Returns the number of deliveries that were stopped."""
        engine, self._engine = self._engine, None
        if engine is None:
            return 0
        if self._forwarder is not None:
            await self._forwarder.stop()
        stopped = await engine.drain(within_s)
        await engine.close()
        return stopped

    async def _on_request(self, kind: str, value: Any) -> Any:
        match kind:
            case messages.PING:
                return None
            case messages.START:
                return await self._start(value)
            case messages.METRICS:
                return self.metrics.numbers()
        if self._engine is None:
            raise LinkLost  # not started, or already drained: treated as unavailable
        return await self._on_engine_request(self._engine, kind, value)

    async def _on_engine_request(self, engine: Engine, kind: str, value: Any) -> Any:
        match kind:
            case messages.PUT:
                new, final_dot = value
                return await engine.delivery.submit(new, final_dot)
            case messages.PUT_LARGE:
                return await self._put_large(engine, *value)
            case messages.MOVE:
                await (self._forwarder or engine.store).import_message(value)
                engine.delivery.wake_all()
                return await engine.delivery.supersede_by(value)
            case messages.ACT:
                async with self._forwarder.still() if self._forwarder is not None else nullcontext():
                    return await engine.delivery.act(*value)
            case messages.END_SENT:
                return await engine.store.end_sent(value)
            case messages.ERASE:
                return await engine.store.erase_address(value)
            case messages.RELOAD:
                await engine.replace(value.loaded.config, self._build(engine, value))
                return self._forward(engine, value)
            case messages.DRAIN:
                stopped = await self._end(value)
                self.ended.set()
                return stopped
            case _:
                raise ValueError(kind)

    async def _start(self, config: messages.WorkerConfig) -> None:
        clock = Clock(config.clock_offset)
        log = MailLog(self.metrics, self.deliveries, clock=clock.now)
        log.tracing = self._tracing
        engine = Engine(clock, log)
        engine.signatures.helper = self._helper
        engine.suppressions, engine.report_bad_address = self._suppressions, self._report_bad_address
        await engine.open(config.store, config.codec, config.loaded.config)
        await engine.load_suppressions(config.loaded.config.store)
        await engine.start(config.loaded.config, self._build(engine, config))
        self._engine = engine
        self._forward(engine, config)

    def _forward(self, engine: Engine, config: messages.WorkerConfig) -> None:
        """Send what isn't for this worker's lanes to the main process: bounces, and mail of lanes that a reload made
        express."""
        if self._forwarder is None:
            self._forwarder = Forwarder(engine.store, config.lanes, self._send_back, engine.log)
            self._forwarder.start()
        self._forwarder.lanes = config.lanes
        self._forwarder.wake()

    async def _send_back(self, moved: TransferredMessage) -> None:
        if self._link is None:
            raise LinkLost
        await self._link.ask(messages.MOVE, moved)

    async def _put_large(self, engine: Engine, draft: Draft, content: Large) -> NewMessage | Reply:
        """One at a time, so that little is in memory. Returns the message without content, or its refusal."""
        async with self._large:
            try:
                new, pieces = await asyncio.to_thread(draft.from_file, content)
                await engine.submit_large(new, pieces, draft.most_bytes(content))
            except Unacceptable as error:
                return error.reply
        return new

    def _build(self, engine: Engine, worker: messages.WorkerConfig) -> Delivery:
        config, link = worker.loaded.config, self._link
        assert link is not None
        limits: dict[str, UpstreamLimits] = {}
        for upstream in {upstream for lane in worker.lanes for upstream in upstreams_of(config, lane)}:
            key = worker.limits_keys[upstream]
            if key not in self._quotas:
                self._quotas[key] = SharedQuota(partial(self._report_need, key))
            rate = RemoteRateLimiter(key, link) if config.upstreams[upstream].rate is not None else None
            limits[upstream] = UpstreamLimits(self._quotas[key], rate)
        engine.signatures.use(Signer(config.dkim, worker.loaded.dkim_pems))
        own = OwnLanes(worker.lanes, limits, lambda _lane, _at: self._wake_forwarder())
        return engine.build(worker.loaded, targets_of(config, RemoteAccess(link)), own)

    def _wake_forwarder(self) -> None:
        if self._forwarder is not None:
            self._forwarder.wake()

    def _report_need(self, key: str, need: Need) -> None:
        if self._link is not None:
            self._link.notify(messages.NEED, (key, need))

    def _report_bad_address(self, bad: BadAddress) -> None:
        if self._link is not None:
            self._link.notify(messages.BAD_ADDRESS, bad)

    def _on_notification(self, kind: str, value: Any) -> None:
        match kind:
            case messages.SHARE:
                key, share = value
                self._quotas[key].receive(share)
            case messages.SUPPRESS:
                self._suppressions.apply(value)
            case messages.LEARN:
                if self._engine is not None:
                    self._engine.paces.learn(value)
            case messages.PROVIDER:
                if self._engine is not None:
                    self._engine.providers.learn(*value)
            case _:
                raise ValueError(kind)

    async def _report_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_EVERY_S)
            engine, link = self._engine, self._link
            if engine is None or link is None:
                continue
            for quota in self._quotas.values():
                quota.review()
            lanes = {
                lane.name: {one.name: messages.UpstreamStatus.of(one) for one in lane.upstreams}
                for lane in engine.delivery.lanes()
            }
            status = messages.Status(lanes, engine.store.size(), self.deliveries.take())
            link.notify(messages.STATUS, status)


def run(
    link: socket.socket, log: LogOptions, forked: HelperProcess | None, records: socket.socket | None = None
) -> int:
    """Exit 0 after a drain, or when the main process is gone. `forked`: see
    `signing.helper.fork`. `records`: where those of tracing are written to."""
    gc.freeze()  # what was imported stays: no collection looks at it again
    gc.enable()
    log_output.configure(sys.stderr, log)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(WorkerProcess().serve(link, forked, records))
    finally:
        log_output.close()
    return 0
