"""The relay as a whole: starts its parts in order, waits for signals, stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from relay import __version__
from relay.clock import Clock
from relay.config.model import Config, Http, Loaded
from relay.config.network import AnyAddress
from relay.delivery.engine import Engine
from relay.feedback.settings import Settings
from relay.intake.sockets import bind, passed_sockets, release
from relay.intake.spool import open_spool
from relay.intake.types import CannotListen
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.service.build import CannotStart, RelayParts, bulk_lanes, connect, place_of
from relay.service.current import Current
from relay.service.feedback import feedback_settings
from relay.service.forks import Forks
from relay.service.reload import Reloader
from relay.service.sdnotify import ServiceManager
from relay.service.tracing import Sockets, TracingService
from relay.signing.client import HelperClient
from relay.store.base import StoreError
from relay.store.keys import open_codec
from relay.store.merge import shards
from relay.store.sqlite.integrity import verify_if_unlocked
from relay.store.sqlite.limits import admissions
from relay.store.sqlite.maintenance import check_keys
from relay.web import BACKLOG

WARM_WITHIN_S = 2.0
"""for a session to be opened for each express lane, before the relay says that it is ready"""


class App:
    """`async with App(loaded)` runs the relay; leaving the block drains it."""

    parts: RelayParts

    def __init__(self, loaded: Loaded, forks: Forks | None = None) -> None:
        self.metrics = Metrics()
        self.metrics.show_process()
        self.clock = Clock()
        self.current = Current(loaded, self.clock.now)
        self.log = MailLog(self.metrics, Recent(), clock=self.clock.now)
        self._forks = forks or Forks(tracing=Sockets.if_on(os.environ))
        self._sessions_cut = self._deliveries_cut = 0
        self._service_manager = ServiceManager.of(os.environ, os.getpid())
        self._passed = passed_sockets(os.environ, os.getpid())
        self._ends_at = 0.0
        """by then a drain should be over (time.monotonic)"""

    @property
    def config(self) -> Config:
        return self.current.config

    @property
    def smtp_addresses(self) -> Sequence[str]:
        """Where mail is taken, as bound."""
        return self.parts.intake.addresses

    @property
    def http_address(self) -> str:
        return self.parts.http.address

    async def __aenter__(self) -> Self:
        """Raises CannotStart, StoreError."""
        loaded, config = self.current.loaded, self.config
        codec = open_codec(config.store, loaded.store_keys, config.store_key_file)
        engine = Engine(self.clock, self.log)
        async with contextlib.AsyncExitStack() as started:
            if self._forks.helper is not None:
                engine.signatures.helper = HelperClient(self._forks.helper, engine.signatures.on_helper_exit)
                started.callback(engine.signatures.helper.close)
            await engine.open(config.store, codec, config)
            started.push_async_callback(engine.close)
            self.parts, generation = connect(self.current, engine, codec, self._forks.workers)
            parts = self.parts
            self._start_tracing(engine, started)
            started.push_async_callback(parts.host.close)
            for path in shards(config.store):
                verify_if_unlocked(path)
                check_keys(path, codec)
                await parts.host.read(path)
            http_sockets, send_sockets = list[socket.socket](), list[socket.socket]()
            started.callback(lambda: _release_http(http_sockets, send_sockets, config.http))
            started.push_async_callback(parts.http.stop)
            await parts.suppressions.start()
            started.push_async_callback(parts.suppressions.stop)
            started.push_async_callback(parts.requests.close)
            await self._count_earlier(parts)
            await engine.start(config, generation.delivery)
            parts.intake.use_spool(_spool(loaded))
            parts.forwarder.start()
            parts.workers.start(loaded, bulk_lanes(config), parts.builder.limits)
            started.push_async_callback(parts.feedback.stop)  # after the drain, whose events it posts
            started.push_async_callback(self._drain)
            http_sockets += self._bind(config.http.address, "http", "address")
            send_sockets += self._bind(config.http.send_address, "http", "send_address")
            parts.http.listen(http_sockets, send_sockets)
            webhook_sockets: list[socket.socket] = []
            started.callback(lambda: _release(webhook_sockets, config.webhooks.address))
            webhook_sockets += self._bind_webhooks()
            settings = feedback_settings(config, self.clock)
            try:
                await parts.intake.start(config.listen, self._passed)
            except CannotListen as error:
                raise CannotStart(place_of(error, loaded)) from error
            self._start_beside(settings, webhook_sockets)
            await engine.delivery.warmed(WARM_WITHIN_S)
            self._started = started.pop_all()
        parts.http.start()
        self._reloader = Reloader(self.current, parts, self.log)
        self.metrics.reload_success.set(1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.parts.health.draining = True
        self._service_manager.stopping()
        self.log.stopping()
        try:
            await self._started.aclose()
            self.log.stopped(sessions_cut=self._sessions_cut, deliveries_cut=self._deliveries_cut)
        finally:
            self._service_manager.close()

    async def run(self, ready: Callable[[], None], stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Run until `stop` is set, and reload whenever `reload` is. `ready` is called first."""
        ready()
        self._service_manager.ready(self._status())
        await self._log_start()
        stopping = asyncio.create_task(stop.wait(), name="wait for stop")
        while not stop.is_set():
            reloading = asyncio.create_task(reload.wait(), name="wait for reload")
            await asyncio.wait((stopping, reloading), return_when=asyncio.FIRST_COMPLETED)
            reloading.cancel()
            if reload.is_set() and not stop.is_set():
                reload.clear()
                self._service_manager.reloading()
                try:
                    done = await self.reload()
                except Exception as error:  # noqa: BLE001 - mail goes on with the configuration in force
                    self.log.trouble("reload", error)
                    self.log.reloaded(success=False)
                    self.current.reloaded(success=False, reason=type(error).__name__)
                    done = False
                self._service_manager.ready(self._status() if done else f"{self._status()}; a reload was refused")

    async def reload(self) -> bool:
        """See `Reloader.reload`."""
        return await self._reloader.reload()

    async def _count_earlier(self, parts: RelayParts) -> None:
        """Count for the limits what was accepted before this start. Raises StoreError."""
        store = self.config.store
        books = parts.acceptance.limiter.admissions
        # Nothing else uses the books yet.
        await asyncio.to_thread(lambda: books.restore_all(admissions([store, *shards(store)])))

    async def _log_start(self) -> None:
        try:
            waiting = sum(row.recipients for row in await self.parts.host.log.counts())
        except StoreError as error:
            self.log.trouble("counts", error)
            waiting = 0
        self.log.started(__version__, str(self.config.store), tuple(self.config.lanes), waiting)

    def _status(self) -> str:
        return f"takes mail on {', '.join(self.smtp_addresses)}"

    def _bind(self, address: AnyAddress | None, *key: str) -> list[socket.socket]:
        """The sockets of an address that has that key in the configuration; none without one. Raises CannotStart."""
        try:
            return [] if address is None else bind(address, self._passed)
        except CannotListen as error:
            raise CannotStart(f"{self.current.loaded.places.of(*key)}: {error}") from error

    def _start_tracing(self, engine: Engine, started: contextlib.AsyncExitStack) -> None:
        """It ends after all that it is about."""
        sockets = self._forks.tracing
        self.parts.workers.records = self.parts.feedback.records = None if sockets is None else sockets.write
        tracing = TracingService(sockets, self.log, engine.supervisor)
        tracing.start()
        started.push_async_callback(lambda: tracing.stop(self._ends_at - time.monotonic()))

    def _start_beside(self, settings: Settings, webhook_sockets: Sequence[socket.socket]) -> None:
        """Start the processes that no mail waits for."""
        self.parts.feedback.start(settings, webhook_sockets)
        self.parts.linting.start(self.config)

    def _bind_webhooks(self) -> list[socket.socket]:
        """Raises CannotStart."""
        sockets = self._bind(self.config.webhooks.address, "webhooks", "address")
        for each in sockets:
            each.listen(BACKLOG)  # clients wait until the feedback process takes them
        return sockets

    async def _drain(self) -> None:
        """Take no new mail; let sessions and transactions finish within `shutdown`; the rest stays queued."""
        ends = self._ends_at = time.monotonic() + self.config.shutdown_s
        # A client that hangs in the middle of its message gets half of the time; delivery needs the rest.
        half_s = self.config.shutdown_s / 2
        self._sessions_cut = sum(
            await asyncio.gather(self.parts.intake.drain(half_s), self.parts.sending.drain(half_s))
        )
        await self.parts.linting.stop()
        await self.parts.forwarder.stop()
        left_s = max(0.0, ends - time.monotonic())
        self._deliveries_cut = sum(
            await asyncio.gather(self.parts.engine.drain(left_s), self.parts.workers.drain(left_s))
        )


def _release_http(sockets: list[socket.socket], send_sockets: list[socket.socket], http: Http) -> None:
    _release(sockets, http.address)
    _release(send_sockets, http.send_address)


def _release(sockets: list[socket.socket], address: AnyAddress | None) -> None:
    if sockets and address is not None:
        release(sockets, address)


def _spool(loaded: Loaded) -> Path:
    store = loaded.config.store
    try:
        return open_spool(store)
    except OSError as error:
        spool = store.with_name(f"{store.stem}-spool")
        raise CannotStart(f"{loaded.places.of('store')}: {spool}: {error.strerror}") from error
