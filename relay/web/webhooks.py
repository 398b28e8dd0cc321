"""Webhooks of providers. The guard lets these requests pass; each webhook checks its own proof."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from relay.web.guard import WEBHOOKS

MAX_BODY_BYTES = 5 * 1024 * 1024
BODY_WITHIN_S = 15.0


class Webhook(Protocol):
    """One upstream's webhook."""

    async def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """Process a posted event. `headers` compares names case-insensitively; the body is of any type. Returns the
        HTTP status: 200 once it is stored, 401 without the right proof, 400 if it can't be read."""


def routes(webhooks: Mapping[str, Webhook]) -> list[web.RouteDef]:
    """`POST /webhooks/NAME` for each webhook. Another name is 404, and its body isn't read."""

    async def post(request: web.Request) -> web.Response:
        webhook = webhooks.get(request.match_info["upstream"])
        if webhook is None:
            raise web.HTTPNotFound(text="no such webhook")
        return web.Response(status=await webhook.take(request.headers, await read_body(request, MAX_BODY_BYTES)))

    return [web.post(f"{WEBHOOKS}{{upstream}}", post)]


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
