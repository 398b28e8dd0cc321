"""Webhooks of providers. The guard lets these requests pass; each webhook checks its own proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.web.backend import Answer, Webhook
from relay.web.connections import Connection
from relay.web.guard import WEBHOOKS
from relay.web.operation import Body, operation
from relay.web.responses import error_response

MAX_BODY_BYTES = 5 * 1024 * 1024
SMALL_BYTES = 65_536
"""there is always room for so much of a body"""
ALL_BODIES_BYTES = 8 * MAX_BODY_BYTES
"""what all requests that are being read or answered may have beyond that"""
BODY_WITHIN_S = 15.0
RETRY_AFTER_S = 5


def routes(webhooks: Callable[[], Mapping[str, Webhook]]) -> list[web.RouteDef]:
    """`POST /webhooks/NAME` for each webhook there is now, and HEAD, with which some providers check the URL. Another
    name is 404, and its body isn't read."""
    posted = _Posted(webhooks)
    path = f"{WEBHOOKS}{{upstream}}"
    return [web.post(path, posted.post), web.head(path, posted.head)]


class _NoRoom(Exception):
    """Other bodies take all of it."""


class _Posted:
    def __init__(self, webhooks: Callable[[], Mapping[str, Webhook]]) -> None:
        self._webhooks = webhooks
        self._large_bytes = 0
        """of all bodies in hand, each beyond its first SMALL_BYTES"""

    @operation("checkWebhook", "webhooks", errors=(404,))
    async def head(self, request: web.Request) -> web.Response:
        """Whether an upstream has a webhook."""
        self._find(request)
        return web.Response()

    @operation("postEvents", "webhooks", errors=(400, 401, 404, 408, 413, 415))
    async def post(self, request: Annotated[web.Request, Body(None, ("*/*",))]) -> web.Response:
        """Take delivery events of a provider, in its own form and with its own proof. 200 once they are stored."""
        webhook = self._find(request)
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            return _error(Answer(415, "a compressed body can't be proved: post it as it is"))
        body = bytearray()
        try:
            await _read_into(body, request, MAX_BODY_BYTES, self._hold)
            answer = await webhook.take({name.lower(): value for name, value in request.headers.items()}, bytes(body))
        except web.HTTPRequestEntityTooLarge:
            webhook.too_large()
            raise
        except _NoRoom:
            return _error(Answer(503, "too much is being posted at once"))
        finally:
            self._large_bytes -= max(0, len(body) - SMALL_BYTES)
        return web.Response() if answer.status == 200 else _error(answer)

    def _hold(self, held_bytes: int, more_bytes: int) -> None:
        """Make room for more bytes of a body. What is declared but doesn't come needs none: a slow client must not
        keep others out. Raises _NoRoom."""
        large = max(0, held_bytes + more_bytes - SMALL_BYTES) - max(0, held_bytes - SMALL_BYTES)
        if large and self._large_bytes + large > ALL_BODIES_BYTES:
            raise _NoRoom
        self._large_bytes += large

    def _find(self, request: web.Request) -> Webhook:
        webhook = self._webhooks().get(request.match_info["upstream"])
        if webhook is None:
            raise web.HTTPNotFound(text="no such webhook")
        return webhook


def _error(answer: Answer) -> web.Response:
    response = error_response(answer.status, answer.text)
    if answer.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """The whole body. Raises HTTP 413 beyond `max_bytes`, 408 when it comes too slowly, and 400 when it is broken."""
    body = bytearray()
    await _read_into(body, request, max_bytes, lambda _held, _more: None)
    return bytes(body)


async def _read_into(body: bytearray, request: web.Request, max_bytes: int, hold: Callable[[int, int], None]) -> None:
    """`hold` is called with the body's length and that of the next piece, before it is added."""
    connection = request.protocol
    assert isinstance(connection, Connection), "every listener of the relay makes it"
    try:
        with connection.receiving_body():
            await _take_pieces(body, request, max_bytes, hold)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body came too slowly") from None
    except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
        raise web.HTTPBadRequest(text="the body ended too early or is broken") from None


async def _take_pieces(body: bytearray, request: web.Request, max_bytes: int, hold: Callable[[int, int], None]) -> None:
    async with asyncio.timeout(BODY_WITHIN_S):
        async for piece in request.content.iter_any():
            if len(body) + len(piece) > max_bytes:
                raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=len(body) + len(piece))
            hold(len(body), len(piece))
            body += piece
