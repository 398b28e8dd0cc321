"""A receiver of events on a socket: an aiohttp server that answers by a script and verifies what it gets."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from standardwebhooks import Webhook

from relay.feedback.receiver import Receiver

SECRET = b"a key of thirty-two bytes, no more"[:32]

Answer = int | str
"""a status, or `hang`, `close`, `redirect`, `endless` or `garbage`"""
Script = Callable[[str, int], Answer]
"""the answer to an event's id, at its nth attempt (from 1)"""


class Got(NamedTuple):
    """A post whose signature is right."""

    id: str
    body: Any
    headers: dict[str, str]
    answer: Answer


class Receiving:
    """What came in, in order. `script` may be changed at any time."""

    def __init__(self) -> None:
        self.script: Script = lambda _id, _n: 200
        self.headers: dict[str, str] = {}
        """of each response"""
        self.got: list[Got] = []
        self.followed: list[str] = []
        """requests to where `redirect` leads"""
        self.at_once = 0
        self.most_at_once = 0
        self.release = asyncio.Event()
        """ends `hang`"""
        self._changed = asyncio.Event()
        self.receiver = Receiver("", SECRET)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.got]

    def arrived(self, message_id: str | None = None) -> list[str]:
        """The ids of events that were answered 2xx; of a message."""
        return [
            each.id
            for each in self.got
            if isinstance(each.answer, int) and each.answer < 300 and message_id in (None, each.body["data"]["message"])
        ]

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a post makes it true."""
        async with asyncio.timeout(20):
            while not reached():
                self._changed.clear()
                await self._changed.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        parsed = Webhook("whsec_" + base64.b64encode(SECRET).decode()).verify(body, headers)
        event_id = headers["webhook-id"]
        answer = self.script(event_id, 1 + self.ids.count(event_id))
        self.got.append(Got(event_id, parsed, headers, answer))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self._changed.set()
        try:
            return await self._answer(request, answer)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        match answer:
            case int():
                return web.Response(status=answer, headers=self.headers, text="thanks")
            case "redirect":
                return web.Response(status=307, headers={"location": "/followed"})
            case "endless":
                return await _endless(request)
            case "garbage":
                assert request.transport is not None
                request.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            case "close":
                assert request.transport is not None
                request.transport.abort()
        await self.release.wait()
        return web.Response()

    async def follow(self, request: web.Request) -> web.Response:
        self.followed.append(request.path)
        return web.Response()


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


@asynccontextmanager
async def receiving(context: ssl.SSLContext | None = None, ca_file: Path | None = None) -> AsyncIterator[Receiving]:
    """A receiver that listens; `context`: with TLS."""
    one = Receiving()
    app = web.Application()
    app.add_routes([web.post("/hooks/a-secret-path", one.handle), web.post("/followed", one.follow)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    scheme = "http" if context is None else "https"
    one.receiver = Receiver(f"{scheme}://{host}:{port}/hooks/a-secret-path?key=a-secret", SECRET, ca_file=ca_file)
    try:
        yield one
    finally:
        one.release.set()
        await runner.cleanup()


def body(event_id: str, message_id: str, kind: str = "delivered") -> bytes:
    """A post's body, short."""
    data = {"id": event_id, "message": message_id, "kind": kind}
    return json.dumps({"type": kind, "timestamp": "2026-11-29T01:00:00.000Z", "data": data}).encode()
