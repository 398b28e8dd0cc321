"""The feedback process: carries out the requests of the main process (`entry` starts it)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from relay.clock import Clock
from relay.config.whsec import whsec_bytes
from relay.feedback import messages
from relay.feedback.listener import webhook_listener
from relay.feedback.message_files import MessageFiles
from relay.feedback.mx import Found, MxLookups, resolve_with
from relay.feedback.publish import Publisher
from relay.feedback.receive import Webhooks
from relay.feedback.receiver import Receiver
from relay.feedback.settings import ReceiverSettings, Settings
from relay.feedback.sns import SnsClient
from relay.feedback.tail import Following, Tail
from relay.feedback.to_main import ToMain
from relay.feedback.watch import FeedbackLog
from relay.ipc import JSON, Attached, Link, LinkLost
from relay.mail.mailbox_provider import MOST_LEARNT
from relay.observe import log_output
from relay.observe.log_output import LogOptions
from relay.observe.metrics import Metrics
from relay.observe.trace_ids import Sampling
from relay.observe.tracing import Tracing
from relay.store.base import StoreError
from relay.store.sqlite.events_file import open_events
from relay.store.sqlite.events_schema import events_path
from relay.supervise import Supervisor, listen_to
from relay.web.backend import Answer, Webhook

OVERDUE_AT_ONCE = 500
OVERDUE_EVERY_S = 5.0
PRUNE_EVERY_S = 60.0
PRUNE_EVENTS = 2_000
BACKLOG_EVERY_S = 10.0
FINISH_WITHIN_S = 1.0
POST_FOR_S = 0.2
"""at the end, for the last events to leave; those that don't are posted by the next process"""


class FeedbackProcess:
    """Serves the link until the main process stops it or is gone."""

    def __init__(self, listening: Sequence[socket.socket], records: socket.socket | None = None) -> None:
        """`listening`: the bound sockets of `webhooks.address`. `records`: where those of tracing are written to."""
        self._listening = listening
        self._to_main = ToMain()
        self._log = FeedbackLog(Metrics(), self._to_main.counts, self._on_recorded)
        if records is not None:
            self._log.tracing = Tracing(records, Sampling.of(os.environ))
        self._supervisor = Supervisor(self._log.task_ended)
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self, sock: socket.socket) -> None:
        """`sock`: its end of the link."""
        listen_to(asyncio.get_running_loop(), self._log.loop_failed)
        link = await Link.over(sock, self._on_request, self._on_notification, self._ended.set, JSON)
        self._to_main.link = link
        async with contextlib.AsyncExitStack() as self._stack:
            await self._ended.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._tasks:
                await self._finish()
                self._to_main.counts.backlog = 0, 0.0  # no later report would correct another value
            self._to_main.report()
        if self._log.tracing is not None:
            self._log.tracing.close()
        link.close()

    async def _finish(self) -> None:
        """Take over what the relay did last, so that it is posted now or by the next process."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(FINISH_WITHIN_S):
                await self._tail.catch_up()
                await self._tail.save()
        self._publisher.wake()
        await asyncio.sleep(POST_FOR_S)

    async def _on_request(self, kind: str, value: Any) -> Any:
        try:
            return await self._answer(kind, value)
        except (StoreError, OSError) as error:
            self._log.trouble("feedback", error)  # the main process gets only its name
            raise

    async def _answer(self, kind: str, value: Any) -> Any:
        match kind:
            case messages.PING:
                return None
            case messages.START:
                return await self._start(Settings.from_json(value))
            case messages.RELOAD:
                return await self._apply(Settings.from_json(value))
            case messages.WEBHOOK:
                content = value.content if isinstance(value, Attached) else b""
                upstream, headers = value.value if isinstance(value, Attached) else value
                answer = await self._webhooks.take(upstream, headers, content)
                return (404, "no such webhook") if answer is None else (answer.status, answer.text)
            case messages.ERASE:
                return await self._events.erase(str(value))
            case messages.TAKE_COUNTS:
                return self._to_main.counts.take()
            case messages.STOP:
                self._ended.set()
                return None
            case _:
                raise ValueError(kind)

    def _on_notification(self, kind: str, value: Any) -> None:  # noqa: ARG002
        if kind == messages.NUDGE and self._tasks:
            self._tail.nudge()

    async def _start(self, settings: Settings) -> None:
        clock = Clock(settings.clock_offset)
        self._clock, self._settings = clock, settings
        self._events = await open_events(events_path(Path(settings.store)), clock.now)
        self._stack.push_async_callback(self._events.close)
        client = SnsClient(self._log.trouble, self._log.confirmed)
        self._stack.push_async_callback(client.close)
        files = MessageFiles(lambda: self._settings.files(), self._log.trouble)
        self._stack.push_async_callback(files.close)
        await files.open()
        self._webhooks = Webhooks(files, self._events, client, self._log, clock.now)
        self._publisher = Publisher(self._events, clock, self._to_main.count_post, self._supervisor)
        self._stack.push_async_callback(self._publisher.stop)
        self._tail = Tail(files, self._events, self._publisher.wake, self._log.trouble)
        lookups = await self._lookups(clock.now)
        self._webhooks.provider = self._tail.seen = lookups.provider
        await self._tail.load()
        self._webhooks.catch_up = self._tail.catch_up
        await self._apply(settings)
        self._listener = webhook_listener(self._routes)
        self._stack.push_async_callback(self._listener.stop)
        await self._listener.start(self._listening, _tls(settings))
        run = self._supervisor.run_forever
        self._tasks += [
            run("feedback_files", files.watch),
            run("follow_events", self._tail.run),
            run("feedback_effects", partial(self._to_main.hand_over_effects, self._events, clock.now)),
            run("feedback_report", self._to_main.report_often),
            run("objectives", self._decide_overdue),
            run("prune_events", self._prune),
            run("posts_waiting", self._count_waiting),
            run("mx_lookups", lookups.run),
        ]

    async def _lookups(self, now: Callable[[], float]) -> MxLookups:
        events = self._events
        known = {domain: Found(*row) for domain, row in (await events.mx_providers(MOST_LEARNT)).items()}

        async def save(domain: str, found: Found) -> None:
            await events.save_mx(domain, *found)

        return MxLookups(known, resolve_with(), save, self._to_main.found_provider, now)

    async def _apply(self, settings: Settings) -> None:
        """Put settings in force. The store and the listener stay as they are."""
        self._settings = settings
        receivers = tuple(map(_receiver, settings.receivers))
        self._webhooks.upstreams, self._webhooks.receivers = settings.webhooks, receivers
        self._webhooks.objectives = settings.objectives
        self._webhooks.hashes_addresses = settings.hashes_addresses
        self._log.objectives = settings.objectives
        self._tail.begin = settings.begin
        since = await self._events.receivers([each.key for each in receivers], settings.since)
        objectives, reporting = frozenset(settings.objectives), frozenset(settings.webhooks)
        self._tail.following = Following(receivers, since, objectives, reporting)
        await self._publisher.apply(receivers)
        self._tail.nudge()

    def _routes(self) -> Mapping[str, Webhook]:
        return {name: _Route(self._webhooks, name) for name in self._webhooks.upstreams}

    def _on_recorded(self) -> None:
        """An event was written, perhaps with posts and effects."""
        self._to_main.on_recorded()
        self._publisher.wake()

    # in the background

    async def _decide_overdue(self) -> None:
        while True:
            while some := await self._events.overdue(OVERDUE_AT_ONCE):
                for one in some:
                    self._log.on_overdue(one)
            await asyncio.sleep(OVERDUE_EVERY_S)

    async def _prune(self) -> None:
        while True:
            await self._events.prune(self._clock.now() - self._settings.keep_s, PRUNE_EVENTS)
            await asyncio.sleep(PRUNE_EVERY_S)

    async def _count_waiting(self) -> None:
        while True:
            self._to_main.counts.backlog = await self._publisher.backlog()
            await asyncio.sleep(BACKLOG_EVERY_S)


class _Route:
    """One upstream's webhook at the process's own listener."""

    def __init__(self, webhooks: Webhooks, upstream: str) -> None:
        self._webhooks = webhooks
        self._upstream = upstream

    async def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = await self._webhooks.take(self._upstream, headers, body)
        return Answer(404, "no such webhook") if answer is None else Answer(answer.status, answer.text)

    def too_large(self) -> None:
        self._webhooks.too_large(self._upstream)


def _receiver(settings: ReceiverSettings) -> Receiver:
    return Receiver(
        settings.url,
        whsec_bytes(settings.secret) or b"",
        None if settings.kinds is None else frozenset(settings.kinds),
        None if settings.lanes is None else frozenset(settings.lanes),
        None if settings.ca_file is None else Path(settings.ca_file),
    )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Raises OSError, ssl.SSLError."""
    if settings.cert_file is None or settings.key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    return context


def run(
    link: socket.socket, log: LogOptions, listening: Sequence[socket.socket], records: socket.socket | None = None
) -> int:
    """Exit 0 after a stop, or when the main process is gone."""
    gc.freeze()  # what was imported stays: no collection looks at it again
    log_output.configure(sys.stderr, log)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.suppress(LinkLost):
            runner.run(FeedbackProcess(listening, records).serve(link))
    finally:
        log_output.close()
    return 0
