"""The relay as one thing: builds its parts from the configuration, starts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import ssl
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from relay.accept import Acceptance, Helpers, Running, Signatures
from relay.admission import Admission
from relay.bounces import Bouncer
from relay.config.model import Config, Loaded
from relay.config.units import AnyAddress
from relay.delivery.clock import Clock
from relay.delivery.dispatch import Delivery, Wiring, targets_of
from relay.delivery.lane import Lane
from relay.events import DeliveryEvents
from relay.intake.server import IntakeServer
from relay.mail.dkim import Signer
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.routing.router import Router
from relay.store.base import Action, Selection, StoreError
from relay.store.sqlite import open_store
from relay.web.parts import LaneHealth, Parts, UpstreamHealth, UpstreamState
from relay.web.server import WebServer

PRUNE_EVERY_S = 1.0
PRUNE_MESSAGES = 2_000
"""at a time: twice what a busy relay takes in a second"""
RETIRE_WITHIN_S = 120.0
"""after a reload, what the old lanes have under way may take this long"""
_LOG = logging.getLogger("relay")
_STATES: Mapping[str, UpstreamState] = {"closed": "up", "open": "down", "half-open": "half-open"}


class CannotStart(Exception):
    """One line for the operator."""


class App:
    """`async with App(loaded)` runs the relay; it drains on the way out."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.clock = Clock()
        self.metrics = Metrics()
        self.recent = Recent()
        self.log = MailLog(self.metrics, self.recent, clock=self.clock.now)
        self._events = DeliveryEvents(self.log, self.clock)
        self._signatures = Signatures(Signer((), {}), self.clock, self.log)
        self._draining = False
        self._housekeeper: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()

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
            self._store = await open_store(self.config.store, now=self.clock.now)
            started.push_async_callback(self._store.close)
            await self._store.recover(self.clock.now())
            await self._store.adopt(tuple(self.config.lanes), self.config.default_lane)
            running = self._build(self.loaded)
            self._signatures.signer = running.signer
            self._admission = Admission(self.config.store)
            helpers = Helpers(self._store, self.clock, self.log, self._signatures, self._admission)
            self._acceptance = Acceptance(running, helpers)
            self._web = await self._start_web()
            started.push_async_callback(self._web.stop)
            self._intake = IntakeServer(
                self._acceptance, self.config.limits, self.config.hostname, admit=self._admit, observer=self.log
            )
            running.delivery.start()
            started.push_async_callback(self._drain)
            try:
                await self._intake.start(self.config.listen)
            except OSError as error:
                raise CannotStart(str(error)) from error
            self._housekeeper = asyncio.create_task(self._keep_house(), name="housekeeping")
            self._started = started.pop_all()
        self.metrics.reload_success.set(1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draining = True
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.gather(self._housekeeper, return_exceptions=True)
        await self._started.aclose()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        stop, reload = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        stopping = asyncio.create_task(stop.wait(), name="wait for SIGTERM")
        while not stop.is_set():
            reloading = asyncio.create_task(reload.wait(), name="wait for SIGHUP")
            await asyncio.wait((stopping, reloading), return_when=asyncio.FIRST_COMPLETED)
            reloading.cancel()
            if reload.is_set() and not stop.is_set():
                reload.clear()
                await self.reload()

    async def reload(self) -> bool:
        """Read the configuration again and put it in the place of the old one, all or nothing. What can't change
        while the relay runs (`store`, `http`) is left as it was, and said. True: the new one runs."""
        from relay.config.errors import ConfigErrors
        from relay.config.load import load

        try:
            loaded = await asyncio.to_thread(load, self.loaded.path, os.environ)
            running = self._build(loaded)
            await self._intake.reload(loaded.config.listen)
        except (ConfigErrors, CannotStart, OSError, ValueError) as error:
            for line in str(error).splitlines():
                _LOG.error("event=reload_refused reason=%s", json.dumps(line))
            self.log.reloaded(success=False)
            return False
        old, self._acceptance.running = self._acceptance.running, running
        self._signatures.signer = running.signer
        self._intake.limits, self._intake.hostname = loaded.config.limits, loaded.config.hostname
        for key in ("store", "store_key_file", "http"):
            if getattr(loaded.config, key) != getattr(self.config, key):
                _LOG.warning("event=reload_ignored key=%s reason=%s", key, json.dumps("takes a restart"))
        self.loaded = loaded
        # What the old lanes have under way goes on over their sessions; what they held goes to the new ones.
        retired = asyncio.create_task(self._retire(old.delivery, running.delivery), name="retire lanes")
        self._retired.add(retired)
        retired.add_done_callback(self._retired.discard)
        self.log.reloaded(success=True)
        return True

    async def _retire(self, old: Delivery, new: Delivery) -> None:
        await old.give_back()
        await self._store.adopt(tuple(self.config.lanes), self.config.default_lane)
        new.start()
        await old.drain(RETIRE_WITHIN_S)
        new.wake_all()

    # building

    def _build(self, loaded: Loaded) -> Running:
        """Everything a reload replaces; nothing is started. Raises CannotStart."""
        config = loaded.config
        try:
            targets = targets_of(config)
            signer = Signer(config.dkim, loaded.dkim_pems)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CannotStart(str(error)) from error
        wiring = Wiring(self._store, self.clock, self._signatures, Bouncer(config, self.clock), self._events, self.log)
        expiry: dict[str | None, float] = {
            rule.name: rule.expires_s for rule in config.rules if rule.expires_s is not None
        }
        return Running(config, Router(config), signer, Delivery(config, wiring, targets), expiry)

    async def _start_web(self) -> WebServer:
        token = self.config.http.token
        parts = Parts(self._store, self.metrics, self.recent, self, self, self.clock.now)
        web = WebServer(parts, token.get_secret_value() if token is not None else None)
        try:
            await web.start(self.config.http.address)
        except OSError as error:
            raise CannotStart(f"http {self.config.http.address}: {error.strerror or error}") from error
        return web

    async def _drain(self) -> None:
        """No new mail; sessions and transactions under way finish within `shutdown`; the rest stays queued."""
        ends = time.monotonic() + self.config.shutdown_s
        await asyncio.gather(*self._retired, return_exceptions=True)
        await self._intake.drain(self.config.shutdown_s)
        await self._acceptance.running.delivery.drain(max(0.0, ends - time.monotonic()))

    async def _keep_house(self) -> None:
        """The log's retention, a small batch at a time."""
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            try:
                before = self.clock.now() - self.config.log.keep_s
                await self._store.prune(before, limit=PRUNE_MESSAGES)
            except StoreError as error:
                self.log.trouble("prune", error)

    # admission

    def _admit(self) -> Reply | None:
        return self._admission.refusal(self.config.queue, self._store.size())

    # web: Health and Controller

    def reasons(self) -> Sequence[str]:
        """Why no mail can be taken now."""
        said = ["draining"] if self._draining else []
        return [*said, *self._admission.reasons(self.config.queue, self._store.size())]

    def lanes(self) -> Mapping[str, LaneHealth]:
        return {lane.name: _health(lane) for lane in self._acceptance.running.delivery.lanes()}

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        return await self._acceptance.running.delivery.act(action, selection)


def _health(lane: Lane) -> LaneHealth:
    return {
        pool.name: UpstreamHealth(_STATES[pool.circuit.state], pool.counts(), pool.circuit.reason or None)
        for pool in lane.pools
    }
