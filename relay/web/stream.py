"""`GET /api/stream`: what happens, as server-sent events, while it happens.

https://html.spec.whatwg.org/multipage/server-sent-events.html. `event: mail` has an event of a time line, `event: live`
what `/api/live` answers, once a second. One task reads the store for all clients, and only while there are some.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

from aiohttp import web

from relay.store.base import StoreError
from relay.web.connections import Connection
from relay.web.operation import ServerSent, operation

if TYPE_CHECKING:
    from relay.web import documents

PATH = "/api/stream"
MOST_CLIENTS = 16
MOST_BEHIND = 2_000
"""events that a client may be behind; one that reads more slowly is cut off"""
LOOK_EVERY_S = 1.0
"""for what other processes wrote; this one says when it wrote"""
LIVE_EVERY_S = 1.0
COMMENT_EVERY_S = 15.0
"""to a client for which nothing happens, so that proxies keep the connection"""
GATHER_S = 0.05

Take = Callable[[], Awaitable[Sequence[Mapping[str, object]]]]


class Events(Protocol):
    """The events of all store files."""

    async def follow(self) -> Take:
        """A function that gives what has happened since its last call, or since now. Raises StoreError; so does it."""


class Client:
    """One client's share of the stream."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._came = asyncio.Event()
        self.is_over = False

    def put(self, chunk: bytes) -> None:
        if len(self._waiting) >= MOST_BEHIND:
            self.end()
        else:
            self._waiting.append(chunk)
            self._came.set()

    def end(self) -> None:
        self.is_over = True
        self._came.set()

    async def next(self) -> bytes:
        """What is to be written next: all that waits, or a comment after a while without anything."""
        if not self._waiting:
            self._came.clear()
            try:
                async with asyncio.timeout(COMMENT_EVERY_S):
                    await self._came.wait()
            except TimeoutError:
                return b":\n\n"
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        return chunk


class Stream:
    """`wake` when something was written, `close` at the end."""

    def __init__(self, events: Events, live: Callable[[], Awaitable[Mapping[str, object]]]) -> None:
        """`live`: what `/api/live` answers."""
        self._events = events
        self._live = live
        self._clients: set[Client] = set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def wake(self) -> None:
        """The store has new events. It is cheap."""
        if self._clients:
            self._woken.set()

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        for client in self._clients:
            client.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @operation("streamEvents", "mail", media=("text/event-stream",))
    async def get(
        self, request: web.Request
    ) -> Annotated[web.StreamResponse, ServerSent({"mail": documents.MailEvent, "live": documents.Live})]:
        """What happens, while it happens, as server-sent events. `event: mail` is one event of a time line; once a
        second `event: live` is what `/api/live` answers. At most 16 clients read it, one more gets 503. After a break
        ask `/api/events?since=`."""
        if len(self._clients) >= MOST_CLIENTS or self._closed:
            raise web.HTTPServiceUnavailable(text="too many streams")
        connection = request.protocol
        assert isinstance(connection, Connection), "made by the server"
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        client = Client()
        self._clients.add(client)
        try:
            if self._task is None or self._task.done():
                take = await self._events.follow()
                if self._task is None or self._task.done():
                    self._task = asyncio.create_task(self._run(take), name="event stream")
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while not client.is_over:
                chunk = await client.next()
                connection.goes_on()
                await response.write(chunk)
        except ConnectionResetError:
            pass  # the client has gone
        finally:
            self._clients.discard(client)
        return response

    async def _run(self, take: Take) -> None:
        """Hand what happens to all clients, until the last one has gone."""
        loop = asyncio.get_running_loop()
        live_at = loop.time()
        while self._clients:
            try:
                for event in await take():
                    self._send("mail", event, str(event["id"]))
                if loop.time() >= live_at:
                    live_at = loop.time() + LIVE_EVERY_S
                    self._send("live", await self._live())
            except StoreError:
                await asyncio.sleep(LOOK_EVERY_S)  # its log line is the store's own
            self._woken.clear()
            try:
                async with asyncio.timeout(min(LOOK_EVERY_S, max(0.0, live_at - loop.time()))):
                    await self._woken.wait()
                    await asyncio.sleep(GATHER_S)  # what comes together is read together
            except TimeoutError:
                pass

    def _send(self, kind: str, document: Mapping[str, object], event_id: str | None = None) -> None:
        head = f"id: {event_id}\n" if event_id is not None else ""
        chunk = f"{head}event: {kind}\ndata: {json.dumps(document)}\n\n".encode()
        for client in self._clients:
            client.put(chunk)
