"""Webhooks of providers. The guard lets these requests pass; each webhook checks its own proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from relay.web.backend import Answer, Webhook
from relay.web.guard import WEBHOOKS
from relay.web.responses import error_response

MAX_BODY_BYTES = 5 * 1024 * 1024
ALL_BODIES_BYTES = 8 * MAX_BODY_BYTES
"""of all requests that are being read or answered"""
BODY_WITHIN_S = 15.0
RETRY_AFTER_S = 5


def routes(webhooks: Callable[[], Mapping[str, Webhook]]) -> list[web.RouteDef]:
    """`POST /webhooks/NAME` for each webhook there is now, and HEAD, with which some providers check the URL. Another
    name is 404, and its body isn't read."""
    posted = _Posted(webhooks)
    path = f"{WEBHOOKS}{{upstream}}"
    return [web.post(path, posted.post), web.head(path, posted.head)]


class _Posted:
    def __init__(self, webhooks: Callable[[], Mapping[str, Webhook]]) -> None:
        self._webhooks = webhooks
        self._in_hand_bytes = 0

    async def head(self, request: web.Request) -> web.Response:
        self._find(request)
        return web.Response()

    async def post(self, request: web.Request) -> web.Response:
        webhook = self._find(request)
        size_bytes = min(request.content_length or MAX_BODY_BYTES, MAX_BODY_BYTES)
        if self._in_hand_bytes + size_bytes > ALL_BODIES_BYTES:
            return _error(Answer(503, "too much is being posted at once"))
        self._in_hand_bytes += size_bytes
        try:
            body = await read_body(request, MAX_BODY_BYTES)
            answer = await webhook.take({name.lower(): value for name, value in request.headers.items()}, body)
        finally:
            self._in_hand_bytes -= size_bytes
        return web.Response() if answer.status == 200 else _error(answer)

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
    """The whole body. Raises HTTP 413 beyond `max_bytes`, and 408 when the body comes too slowly."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > max_bytes:
                    raise web.HTTPRequestEntityTooLarge(max_size=max_bytes, actual_size=len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body came too slowly") from None
    return bytes(body)
