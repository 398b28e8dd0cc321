"""The feedback process as the main process has it: started, watched, started again; asked, and answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relay.clock import Clock
from relay.config.model import Config
from relay.feedback import counts, messages
from relay.feedback.entry import RECORDS
from relay.feedback.settings import Settings
from relay.ipc import JSON, Attached, Link, LinkLost, RemoteError
from relay.observe import log_output
from relay.observe.maillog import MailLog
from relay.service import child
from relay.service.current import Current
from relay.service.tracing import sampler_variables
from relay.store.base import StoreError
from relay.store.events import Effect
from relay.store.merge import newest_events
from relay.store.sqlite.events_file import erase_in_events
from relay.supervise import Supervisor
from relay.web.backend import Answer, Webhook

ENTRY = "relay.feedback.entry"
START_WITHIN_S = 60.0
PING_EVERY_S = 2.0
SILENT_FOR_S = 15.0
"""an event loop that doesn't turn for this long hangs: the process is killed, and another one started"""
ASK_WITHIN_S = 20.0
READY_WITHIN_S = 5.0
"""a webhook waits so long for a process that is starting"""
STOPS_WITHIN_S = 3.0
COUNTS_WITHIN_S = 1.0
MOST_EFFECTS = 64
UNAVAILABLE = Answer(503, "the relay can't take events now")
Apply = Callable[[Effect], Awaitable[bool]]
"""Applies an effect. False: it can't be applied yet. Raises StoreError, LinkLost."""


def feedback_settings(config: Config, clock: Clock) -> Settings:
    """What the feedback process needs now. Looks into the message files where there is something to follow. Raises
    StoreError."""
    settings = Settings.of(config, clock.offset, clock.now(), {})
    return replace(settings, begin=newest_events(config.store)) if settings.is_needed else settings


class FeedbackEnded(Exception):
    """The feedback process has ended, or was killed because it didn't answer."""


class Feedback:
    """`start`, `reload`, `stop`."""

    def __init__(self, current: Current, log: MailLog, supervisor: Supervisor, apply: Apply) -> None:
        self._current = current
        self._log = log
        self._supervisor = supervisor
        self._apply = apply
        self.on_recorded: Callable[[], None] = lambda: None
        """called when there are new events in the events file"""
        self.on_arrivals: Callable[[Sequence[counts.Arrival]], None] = lambda _: None
        """called with what was delivered"""
        self.on_provider: Callable[[str, str], None] = lambda _domain, _provider: None
        """called with a domain and its mailbox provider"""
        self.records: socket.socket | None = None
        """where those of tracing are written to; set before the start"""
        self._settings: Settings | None = None
        self._sockets: Sequence[socket.socket] = ()
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._ready = asyncio.Event()
        self._nudged = False
        self._silent_until = 0.0

    def start(self, settings: Settings, sockets: Sequence[socket.socket]) -> None:
        """Start the process, if the settings need it. `sockets`: bound, for webhooks only. Returns at once."""
        self._settings, self._sockets = settings, sockets
        if settings.is_needed and self._task is None:
            self._task = self._supervisor.run_forever("feedback", self._live)

    async def reload(self, settings: Settings) -> None:
        """Give it other settings, or start or stop it, as they need it."""
        self._settings = settings
        if not settings.is_needed:
            await self.stop()
        elif self._task is None:
            self.start(settings, self._sockets)
        elif self._link is not None and self._ready.is_set():
            try:
                await self._link.ask(messages.RELOAD, settings.as_json(), within_s=ASK_WITHIN_S)
            except (LinkLost, RemoteError) as error:
                self._log.trouble("feedback", error)
                self._link.close()  # the next process begins with these settings

    async def stop(self) -> None:
        """End the process, within a short time."""
        if self._task is None:
            return
        if self._link is not None:
            with contextlib.suppress(LinkLost, RemoteError):
                await self._link.ask(messages.STOP, within_s=STOPS_WITHIN_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    def nudge(self) -> None:
        """There are new events in a message file. It is cheap: many calls are one notification."""
        if self._link is not None and not self._nudged:
            self._nudged = True
            asyncio.get_running_loop().call_later(0.02, self._nudge)

    def _nudge(self) -> None:
        self._nudged = False
        if self._link is not None:
            self._link.notify(messages.NUDGE)

    async def refresh_metrics(self) -> None:
        """Take over what it has counted so far, for a scrape that comes right now."""
        if self._link is not None and self._ready.is_set() and time.monotonic() >= self._silent_until:
            try:
                self._add(await self._link.ask(messages.TAKE_COUNTS, within_s=COUNTS_WITHIN_S))
            except (LinkLost, RemoteError):
                # What isn't reported now is reported later. One that hangs holds up no further scrape.
                self._silent_until = time.monotonic() + SILENT_FOR_S
            except (ValueError, TypeError, LookupError) as error:
                self._log.trouble("feedback", error)

    def _add(self, given: Any) -> None:
        """Raises what `counts.add` raises."""
        if given is not None:
            config = self._current.config
            self.on_arrivals(counts.add(self._log.metrics, given, config.upstreams, config.lanes))

    async def erase(self, address: str) -> int:
        """Forget an address in the events file. Returns how many rows had it. Raises StoreError."""
        link = self._link
        if self._task is None:
            return await erase_in_events(self._current.config.store, address)
        try:
            found = await link.ask(messages.ERASE, address, within_s=ASK_WITHIN_S) if link is not None else None
        except (LinkLost, RemoteError):
            found = None
        if not isinstance(found, int):
            raise StoreError("the process for events does not answer; try again")
        return found

    def webhooks(self) -> Mapping[str, Webhook]:
        """Those that the shared HTTP service forwards."""
        settings = self._settings
        return {} if settings is None else {name: _Forwarded(self, name) for name in settings.webhooks}

    async def forward(self, upstream: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The process's answer to a posted webhook."""
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._ready.wait()
            link = self._link
            if link is None:
                return UNAVAILABLE
            value = Attached([upstream, dict(headers)], body)
            match await link.ask(messages.WEBHOOK, value, within_s=ASK_WITHIN_S):
                case [int() as status, str() as text] if 200 <= status <= 599:
                    return Answer(status, text)
        except (LinkLost, RemoteError, TimeoutError):
            pass
        return UNAVAILABLE

    def too_large(self, upstream: str) -> None:
        """A request's body was refused for its size."""
        self._log.metrics.webhook_requests[upstream, "too_large"].inc()

    # one life of the process

    async def _live(self) -> None:
        """Raises FeedbackEnded."""
        process, link = await self._spawn()
        watching: list[asyncio.Task[object]] = []
        try:
            self._link = link
            await self._begin(link)
            watching = [
                asyncio.create_task(process.wait(), name="process of feedback"),
                asyncio.create_task(self._watch(link), name="watch feedback"),
            ]
            await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            raise FeedbackEnded
        except (LinkLost, RemoteError):
            raise FeedbackEnded from None
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            self._ready.clear()
            self._link = None
            link.close()
            await child.end(process, STOPS_WITHIN_S)

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, Link]:
        ours, theirs = socket.socketpair()
        log = log_output.options().word
        if self.records is None:
            process = await child.start(ENTRY, theirs, log, sockets=self._sockets)
        else:
            words, sockets = (log, RECORDS), (self.records, *self._sockets)
            process = await child.start(ENTRY, theirs, *words, sockets=sockets, variables=sampler_variables())
        link = await Link.over(ours, self._on_request, self._on_notification, self._ready.clear, JSON)
        return process, link

    async def _begin(self, link: Link) -> None:
        settings = self._settings
        assert settings is not None
        await link.ask(messages.START, settings.as_json(), within_s=START_WITHIN_S)
        while settings is not self._settings:  # reloaded while it started
            settings = self._settings
            assert settings is not None
            await link.ask(messages.RELOAD, settings.as_json(), within_s=ASK_WITHIN_S)
        self._ready.set()
        self._log.feedback_ready()

    async def _watch(self, link: Link) -> None:
        """Returns once it doesn't answer any more."""
        with contextlib.suppress(LinkLost, RemoteError):
            while True:
                await link.ask(messages.PING, within_s=SILENT_FOR_S)
                await asyncio.sleep(PING_EVERY_S)

    # what the process asks and tells

    async def _on_request(self, kind: str, value: Any) -> Any:
        """Positions of the effects that are applied, or can't ever be."""
        if kind != messages.EFFECTS or not isinstance(value, list) or len(value) > MOST_EFFECTS:
            raise ValueError(kind)
        # Together, so that they share commits; a code waits for one of those at most.
        done = await asyncio.gather(*map(self._try, map(messages.read_effect, value)))
        return [number for number, is_done in enumerate(done) if is_done]

    async def _try(self, effect: Effect | None) -> bool:
        """False: it can't be applied yet. What isn't well formed is done."""
        try:
            return effect is None or await self._apply(effect)
        except (StoreError, LinkLost) as error:
            self._log.trouble("effect", error)
            return False

    def _on_notification(self, kind: str, value: Any) -> None:
        match kind:
            case messages.COUNTS:
                self._add(value)
            case messages.RECORDED:
                self.on_recorded()
            case messages.PROVIDER:
                self.on_provider(*messages.read_provider(value))
            case _:
                raise ValueError("unknown notification")


class _Forwarded:
    """One upstream's webhook, as the shared HTTP service calls it."""

    def __init__(self, feedback: Feedback, upstream: str) -> None:
        self._feedback = feedback
        self._upstream = upstream

    async def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        return await self._feedback.forward(self._upstream, headers, body)

    def too_large(self) -> None:
        self._feedback.too_large(self._upstream)
