"""One request to a URL and its answer, for what isn't mail: tokens, credentials of a cloud's instance."""

from __future__ import annotations

import asyncio
import ssl
import time
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

from relay.config.access import Endpoint
from relay.providers.api import Answer
from relay.upstream.http.connect import open_connection
from relay.upstream.http.connection import request_head
from relay.upstream.results import OpenFailed
from relay.upstream.server import ApiServer, dialer, verifying_context


class FetchFailed(Exception):
    """No answer came. The text is one line that may be logged: it holds neither URL nor credential."""


class Fetch(NamedTuple):
    """What to ask. `url`: http or https; redirects are never followed."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __repr__(self) -> str:
        return "Fetch(...)"


async def fetch(
    what: Fetch, *, within_s: float, tls_context: ssl.SSLContext | None = None, proxy: str | None = None
) -> Answer:
    """The answer, whatever its status. `within_s` bounds all of it; `tls_context`: default: the system's CAs; `proxy`:
    as `Upstream.proxy`. Raises FetchFailed."""
    try:
        async with asyncio.timeout(within_s):
            where, target = _parsed(what.url)
            context = (tls_context or await asyncio.to_thread(_system_cas)) if where.is_secure else None
            server = ApiServer(where, context, dialer(proxy)(where.host, where.port))
            return await _asked(server, target, what, time.monotonic() + within_s)
    except TimeoutError:
        raise FetchFailed("no answer in time") from None
    except OpenFailed as failure:
        raise FetchFailed(failure.reason) from None
    except (ValueError, h11.LocalProtocolError):
        raise FetchFailed("a URL or a field that can't be sent") from None


async def _asked(server: ApiServer, target: str, what: Fetch, deadline: float) -> Answer:
    fields = (*what.headers, ("Connection", "close"))
    head = request_head(server.where, what.method, target, fields, len(what.body))
    connection = await open_connection(server, timeout_s=deadline - time.monotonic())
    try:
        left_s = deadline - time.monotonic()
        exchange = await connection.exchange(head, what.body, deadline=deadline, final_s=left_s)
    finally:
        connection.abort()
    if exchange.answer is None:
        raise FetchFailed(
            {"timed out": "no answer in time", "garbled": "an answer that isn't HTTP"}.get(
                exchange.end, "connection lost"
            )
        )
    return exchange.answer


def _parsed(url: str) -> tuple[Endpoint, str]:
    """Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError
    is_secure = parts.scheme == "https"
    where = Endpoint(parts.hostname, parts.port or (443 if is_secure else 80), is_secure, "")
    return where, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@cache
def _system_cas() -> ssl.SSLContext:
    return verifying_context()
