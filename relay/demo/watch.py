"""Follows the relay's `/api/stream` for the demo."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any

import aiohttp

from relay.demo.history import History
from relay.demo.process import RelayFailed

ANSWER_WITHIN_S = 5.0
MOST_LINE_BYTES = 1_000_000


class Watch:
    """`follow` fills the history. `elapsed_s` counts from the making of this object on."""

    def __init__(self, url: str, history: History) -> None:
        """`url`: the relay's, with a slash at its end."""
        self._url = url
        self._history = history
        self._begun_at = time.time()
        self._begun_steady = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begun_steady

    async def follow(self, on_live: Callable[[], None]) -> None:
        """Follow the stream until cancelled; over a new connection when it breaks off. `on_live`: called once a second,
        when the lanes' state has come. Raises RelayFailed when the relay doesn't answer."""
        timeout = aiohttp.ClientTimeout(sock_connect=ANSWER_WITHIN_S, sock_read=ANSWER_WITHIN_S)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=MOST_LINE_BYTES) as client:
            while True:
                try:
                    response = await client.get(f"{self._url}api/stream", raise_for_status=True)
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise RelayFailed(f"{self._url}: {error or 'no answer'}") from error
                async with response:
                    async for kind, document in _events(response):
                        self._take(kind, document)
                        if kind == "live":
                            on_live()

    async def look(self) -> None:
        """Ask once for the lanes' state. Raises RelayFailed."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as client,
                client.get(f"{self._url}api/live", raise_for_status=True) as response,
            ):
                self._take("live", await response.json())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RelayFailed(f"{self._url}: {error or 'no answer'}") from error

    def _take(self, kind: str, document: Mapping[str, Any]) -> None:
        if kind == "live":
            self._history.live(document["lanes"], self.elapsed_s)
        elif kind == "mail":
            self._history.mail(document, datetime.fromisoformat(document["at"]).timestamp() - self._begun_at)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    """Kind and document of each event, until the stream ends or breaks off.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    kind = ""
    try:
        async for raw in response.content:
            field, _, value = raw.decode().rstrip("\r\n").partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                yield kind, json.loads(value)
    except (aiohttp.ClientError, TimeoutError):
        return
