"""The relay as one thing: builds its parts from the configuration, starts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from relay.clock import Clock
from relay.config.model import Config, Limits, Loaded, Section, Upstream
from relay.config.units import AnyAddress, TcpAddress
from relay.delivery.dispatch import Delivery, Share, targets_of
from relay.delivery.engine import Engine
from relay.intake.accept import Acceptance, Rules
from relay.intake.admission import Admission
from relay.intake.descriptors import fitted
from relay.intake.server import IntakeServer
from relay.intake.sockets import bind, cannot_listen, passed_sockets
from relay.intake.spool import open_spool
from relay.intake.types import CannotListen
from relay.mail.dkim import Signer
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Family, Metrics
from relay.observe.pressure import IntakeLoad, QueueFill
from relay.observe.recent import Recent
from relay.routing.router import Router
from relay.service.sdnotify import ServiceManager
from relay.signing.client import SigningProcess
from relay.signing.helper import Forked
from relay.store.base import StoreError
from relay.store.codec import codec_for
from relay.store.merge import shards
from relay.store.merged import Several
from relay.store.model import Action, Selection, TransferredMessage
from relay.store.sqlite.integrity import look
from relay.store.sqlite.maintenance import check_keys
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.store import open_reader
from relay.supervise import Supervisor
from relay.upstream.smtp.pool import Shared, Whole
from relay.web.parts import LaneHealth, Parts, UpstreamHealth, UpstreamState
from relay.web.server import WebServer
from relay.workers.destination import LanesAndWorkers
from relay.workers.link import LinkLost
from relay.workers.messages import UpstreamStatus
from relay.workers.supervisor import Workers, count_of
from relay.workers.transfer import Forwarder

_LOG = logging.getLogger("relay")
_STATES: Mapping[str, UpstreamState] = {
    "closed": "up",
    "untried": "untried",
    "open": "down",
    "half-open": "half-open",
}

RESTART_KEYS = ("store", "store_key_file", "http")
"""of the configuration: a reload leaves them as they are"""
CLOSE_WITHIN_S = 5.0
"""a worker's store that is just being opened may take so long at the end"""


@dataclass(frozen=True, slots=True)
class Running:
    """What a reload replaces as a whole."""

    rules: Rules
    signer: Signer
    shared: Mapping[str, Whole]
    """sessions and rate of each upstream"""
    delivery: Delivery
    """the lanes of this process"""


class CannotStart(Exception):
    """One line for the operator."""


class App:
    """`async with App(loaded)` runs the relay; it drains on the way out."""

    def __init__(self, loaded: Loaded, helper: Forked | None = None) -> None:
        """`helper`: see `workers.helper.fork`."""
        self.loaded = loaded
        self._forked = helper
        self.clock = Clock()
        self.metrics = Metrics()
        self.recent = Recent()
        self.log = MailLog(self.metrics, self.recent, clock=self.clock.now)
        self._engine = Engine(self.clock, self.log)
        self._codec = codec_for(loaded.store_keys, str(loaded.config.store_key_file))
        self._supervisor = Supervisor(self.log.task_ended)
        self._workers = Workers(self.clock, self.log, self, self._codec)
        self._shared: Mapping[str, Whole] = {}
        self._upstreams: Mapping[str, Upstream] = {}
        self._readers: dict[Path, Reader] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._starting, self._draining = True, False
        self._service_manager = ServiceManager.of(os.environ, os.getpid())
        self._passed = passed_sockets(os.environ, os.getpid())

    @property
    def config(self) -> Config:
        return self.loaded.config

    @property
    def smtp_addresses(self) -> Sequence[str]:
        """Where mail is taken, as bound."""
        return self._intake.addresses

    @property
    def http_address(self) -> AnyAddress:
        return self._web.address

    async def __aenter__(self) -> Self:
        """Raises CannotStart, StoreError."""
        async with contextlib.AsyncExitStack() as started:
            if self._forked is not None:
                helper = SigningProcess(self._forked, self._engine.signatures.unhelped)
                started.callback(helper.close)
                self._engine.signatures.helper = helper
            await self._engine.open(self.config.store, self._codec, self.config)
            started.push_async_callback(self._engine.close)
            started.push_async_callback(self._close_readers)
            for path in shards(self.config.store):
                look(path)
                check_keys(path, self._codec)
                await self._read_also(path)
            self._admission = Admission(self.config.store)
            running = self._build(self.loaded)
            self._put_in_force(running)
            self._acceptance = Acceptance(
                running.rules,
                LanesAndWorkers(self._engine, self._workers),
                self.clock,
                self.log,
                self._admission,
                self._engine.signatures.selectors,
            )
            self._intake = IntakeServer(
                self._acceptance, _limits(self.config), self.config.hostname, admit=self._admit, observer=self.log
            )
            self._web = self._make_web()
            started.push_async_callback(self._web.stop)
            await self._engine.start(self.config, running.delivery)
            # With a key, no content is on the disk in clear.
            self._intake.spool, self._intake.sealed = _spool(self.loaded), self._codec.key_id is not None
            self._forwarder = Forwarder(self._engine.store, self._own(self.config), self._workers.move, self.log)
            self._workers.start(self.loaded, self._bulk(self.config), self._shared)
            started.push_async_callback(self._drain)
            await self._start_web()
            try:
                await self._intake.start(self.config.listen, self._passed)
            except CannotListen as error:
                raise CannotStart(_placed(error, self.loaded)) from error
            self._started = started.pop_all()
        self._starting = False
        self.metrics.reload_success.set(1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draining = True
        self._service_manager.stopping()
        try:
            await self._started.aclose()
        finally:
            self._service_manager.close()

    async def run(self, ready: Callable[[], None], stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Until `stop` is set; whenever `reload` is, reload. `ready` is called first."""
        ready()
        self._service_manager.ready(self._status())
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
                except Exception as error:  # noqa: BLE001 - mail goes on, with what is in force now
                    self.log.trouble("reload", error)
                    self.log.reloaded(success=False)
                    done = False
                self._service_manager.ready(self._status() if done else f"{self._status()}; a reload was refused")

    async def reload(self) -> bool:
        """Read the configuration again and put it in the place of the old one, all or nothing. What can't change
        while the relay runs (`store`, `http`) is left as it was, and said. True: the new one runs."""
        from relay.config.errors import ConfigErrors
        from relay.config.load import load

        try:
            read = await asyncio.to_thread(load, self.loaded.path, os.environ)
            loaded, ignored = _as_started(read, self.loaded)
            running = self._build(loaded)
        except (ConfigErrors, CannotStart, OSError, ValueError) as error:
            return self._refused(str(error))
        try:
            await self._intake.reload(loaded.config.listen)
        except CannotListen as error:
            return self._refused(_placed(error, loaded))
        self._put_in_force(running)
        self._acceptance.rules = running.rules
        self._intake.limits, self._intake.hostname = _limits(loaded.config), loaded.config.hostname
        for key, place in ignored.items():
            _LOG.warning("event=reload_ignored key=%s reason=%s", key, json.dumps(f"{place}: takes a restart"))
        self.loaded = loaded
        await self._engine.replace(loaded.config, running.delivery)
        self._forwarder.lanes = self._own(loaded.config)
        await self._workers.reload(loaded, self._bulk(loaded.config), self._shared)
        self._forwarder.wake()
        self.log.reloaded(success=True, ignored=tuple(ignored))
        return True

    def _refused(self, why: str) -> bool:
        for line in why.splitlines():
            _LOG.error("event=reload_refused reason=%s", json.dumps(line))
        self.log.reloaded(success=False)
        return False

    def _status(self) -> str:
        return f"takes mail on {', '.join(self.smtp_addresses)}"

    # building

    def _build(self, loaded: Loaded) -> Running:
        """Everything a reload replaces; nothing is started. Raises CannotStart."""
        config = loaded.config
        about = "upstreams"
        try:
            targets = targets_of(config)
            about = "dkim"
            signer = Signer(config.dkim, loaded.dkim_pems)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CannotStart(f"{loaded.places.of(about)}: {error}") from error
        shared = {name: self._whole(name, upstream) for name, upstream in config.upstreams.items()}
        share = Share(self._own(config), shared, lambda _lane, _at: self._forwarder.wake())
        expiry: dict[str | None, float] = {
            rule.name: rule.expires_s for rule in config.rules if rule.expires_s is not None
        }
        rules = Rules(config, Router(config), expiry)
        return Running(rules, signer, shared, self._engine.build(loaded, targets, share))

    def _whole(self, name: str, upstream: Upstream) -> Whole:
        """An upstream that is where it was keeps its quota: old and new lanes, and workers, share it while a reload
        goes on, within the new limits. One that is elsewhere isn't held up by sessions that hang where it was."""
        before = self._upstreams.get(name)
        if before is None or _account(before) != _account(upstream):
            return Shared.of(upstream)
        return self._shared[name].follow(upstream)

    def _put_in_force(self, running: Running) -> None:
        """What was built becomes what is used."""
        self._shared, self._upstreams = running.shared, running.rules.config.upstreams
        for name, whole in self._shared.items():
            whole.put_in_force(self._upstreams[name])
        self._engine.signatures.use(running.signer)

    def _own(self, config: Config) -> tuple[str, ...]:
        """The lanes of this process: with workers those of codes, without all."""
        bulk = self._bulk(config) if count_of(config) else ()
        return tuple(name for name in config.lanes if name not in bulk)

    def _bulk(self, config: Config) -> Sequence[str]:
        """The lanes that workers serve, if there are any."""
        return tuple(name for name, lane in config.lanes.items() if not lane.express)

    def _make_web(self) -> WebServer:
        token = self.config.http.token
        log = Several(lambda: (self._engine.store, *self._readers.values()))
        parts = Parts(log, self.metrics, self.recent, self, self, self.clock.now)
        return WebServer(parts, token.get_secret_value() if token is not None else None)

    async def _start_web(self) -> None:
        """Only once all that it shows is there. Raises CannotStart."""
        try:
            address = self.config.http.address
            await self._web.start(address, () if isinstance(address, TcpAddress) else bind(address, self._passed))
        except OSError as error:
            why = error if isinstance(error, CannotListen) else cannot_listen(self.config.http.address, error)
            raise CannotStart(f"{self.loaded.places.of('http', 'address')}: {why}") from error

    async def _drain(self) -> None:
        """No new mail; sessions and transactions under way finish within `shutdown`; the rest stays queued."""
        ends = time.monotonic() + self.config.shutdown_s
        # A client that hangs in the middle of its message doesn't take from what is on its way out.
        await self._intake.drain(self.config.shutdown_s / 2)
        await self._forwarder.stop()
        left_s = max(0.0, ends - time.monotonic())
        await asyncio.gather(self._engine.drain(left_s), self._workers.drain(left_s))

    # what workers ask for

    def worker_ready(self, store: Path) -> None:
        """Workers' Forward."""
        task = self._supervisor.finish("open_store", partial(self._worker_ready, store))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def import_message(self, moved: TransferredMessage) -> None:
        """Workers' Forward."""
        await self._forwarder.import_message(moved)
        self._engine.delivery.wake_all()

    async def _worker_ready(self, store: Path) -> None:
        # First, so that what goes there is seen there.
        await self._read_also(store)
        self._forwarder.wake()

    async def _read_also(self, store: Path) -> None:
        if store in self._readers:
            return
        try:
            self._readers[store] = await open_reader(store)
        except StoreError as error:
            self.log.trouble("read", error)

    async def _close_readers(self) -> None:
        if self._opening:
            _, unopened = await asyncio.wait(self._opening, timeout=CLOSE_WITHIN_S)
            for task in unopened:
                task.cancel()
            await asyncio.gather(*unopened, return_exceptions=True)
        for reader in self._readers.values():
            await reader.close()

    # admission

    def _admit(self) -> Reply | None:
        return self._admission.refusal(self.config.queue, self._waiting())

    def _waiting(self) -> tuple[int, int]:
        """Open messages and their bytes, in all files."""
        ours, theirs = self._engine.store.size(), self._workers.size()
        return ours[0] + theirs[0], ours[1] + theirs[1]

    # web: Health and Controller

    def reasons(self) -> Sequence[str]:
        """Why no mail can be taken now."""
        said = ["draining"] if self._draining else ["starting"] if self._starting else []
        return [*said, *self._admission.reasons(self.config.queue, self._waiting())]

    def lanes(self) -> Mapping[str, LaneHealth]:
        health: dict[str, dict[str, UpstreamHealth]] = {name: {} for name in self.config.lanes}
        for lane in self._engine.delivery.lanes():
            for pool in lane.pools:
                _add(health[lane.name], pool.name, UpstreamStatus.of(pool))
        for status in self._workers.statuses():
            for name, upstreams in status.lanes.items():
                for upstream, seen in upstreams.items():
                    if name in health:
                        _add(health[name], upstream, seen)
        for name, upstreams_seen in health.items():
            for upstream in self.config.lanes[name].upstreams:
                # No worker has told of it yet.
                upstreams_seen.setdefault(upstream, UpstreamHealth("untried"))
        return health

    def queue(self) -> QueueFill:
        return self._admission.fill(self.config.queue, self._waiting())

    def intake(self) -> IntakeLoad:
        return self._intake.load()

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        try:
            async with self._forwarder.still():
                ours, theirs = await asyncio.gather(
                    self._engine.delivery.act(action, selection), self._workers.act(action, selection)
                )
        except LinkLost as error:
            raise StoreError("a process for bulk mail does not answer; try again") from error
        return list(dict.fromkeys([*ours, *theirs]))  # one that moves may be in two files

    async def others(self) -> Sequence[Family]:
        """What the workers counted."""
        return await self._workers.metrics()


def _spool(loaded: Loaded) -> Path:
    store = loaded.config.store
    try:
        return open_spool(store)
    except OSError as error:
        spool = store.with_name(f"{store.stem}-spool")
        raise CannotStart(f"{loaded.places.of('store')}: {spool}: {error.strerror}") from error


def _limits(config: Config) -> Limits:
    return fitted(config.limits, sum(upstream.sessions.max for upstream in config.upstreams.values()))


def _placed(error: CannotListen, loaded: Loaded) -> str:
    return f"{loaded.places.of('listen', error.listener, error.key)}: {error}"


def _as_started(read: Loaded, runs: Loaded) -> tuple[Loaded, Mapping[str, str]]:
    """What was read, but for what takes a restart: that stays as it runs. And the keys in which they differ, each with
    its place in the file."""
    differs = {
        key: read.places.of(*_difference(key, getattr(read.config, key), getattr(runs.config, key)))
        for key in RESTART_KEYS
        if getattr(read.config, key) != getattr(runs.config, key)
    }
    if read.store_keys != runs.store_keys and "store_key_file" not in differs:
        differs["store_key_file"] = read.places.of("store_key_file")
    if not differs:
        return read, differs
    config = read.config.model_copy(update={key: getattr(runs.config, key) for key in RESTART_KEYS})
    return replace(read, config=config, store_keys=runs.store_keys), differs


def _difference(key: str, read: object, runs: object) -> Sequence[str]:
    """The way to the first value of a key that isn't what runs."""
    if not isinstance(read, Section):
        return (key,)
    fields = type(read).model_fields
    return (key, next(name for name in fields if getattr(read, name) != getattr(runs, name)))


def _account(upstream: Upstream) -> tuple[str, int, str | None]:
    """What an upstream's limits are about."""
    return upstream.host, upstream.port, upstream.username


_WORST: Sequence[UpstreamState] = ("down", "half-open", "up", "untried")


def _add(upstreams: dict[str, UpstreamHealth], name: str, seen: UpstreamStatus) -> None:
    """One upstream as several processes see it: the worst of its states, the sum of its sessions and windows."""
    state, sessions = _STATES[seen.circuit], dict(seen.sessions)
    reason, window, words = seen.reason or None, seen.window, seen.words or None
    before = upstreams.get(name)
    if before is not None:
        state = min(state, before.state, key=_WORST.index)
        sessions = {
            kind: sessions.get(kind, 0) + before.sessions.get(kind, 0) for kind in {*sessions, *before.sessions}
        }
        reason, words = before.reason or reason, before.words or words
        if before.window is not None:
            window = before.window + (window or 0)
    upstreams[name] = UpstreamHealth(state, sessions, reason, window, words)
