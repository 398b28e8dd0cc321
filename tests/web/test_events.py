"""`GET /api/events` and the stream: what happened, and what happens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from relay.store.base import Store
from relay.store.model import RecipientUpdate, Settlement
from relay.web.backend import Backend
from tests.web.conftest import Served, message, sent, serve

FIRST, SECOND = "01MCC5RM00AAAAAAAAAAAAAAAA", "01MCC5RM00BBBBBBBBBBBBBBBB"


@pytest.fixture
async def base(backend: Backend, store: Store) -> Any:
    await store.put(message(FIRST, to="ann@example.org"), claimed=True)
    await store.settle(sent(FIRST))
    await store.put(message(SECOND, lane="bulk", to="bob@example.net"), claimed=True)
    await store.settle(Settlement(SECOND, (RecipientUpdate(0, "bounced", "ses", "550 5.1.1 no such user"),)))
    server, address = await serve(backend)
    yield server, address
    await server.stop()


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("", ["accepted", "accepted", "bounced", "sent"]),
        ("?to=ANN@example.org", ["accepted", "sent"]),
        ("?to=nobody@example.org", []),
        ("?kind=bounced", ["bounced"]),
        ("?lane=bulk", ["accepted", "bounced"]),
        ("?since=2027-01-15T08:00:00.030Z", ["sent"]),
        ("?since=1h&limit=1", ["accepted"]),
        ("?limit=1", ["bounced"]),
    ],
)
async def test_events_are_listed_by_recipient_kind_lane_and_time(
    base: tuple[Served, str], client: aiohttp.ClientSession, query: str, kinds: list[str]
) -> None:
    async with client.get(f"{base[1]}/api/events{query}") as answer:
        assert answer.status == 200
        assert [event["kind"] for event in await answer.json()] == kinds


@pytest.mark.parametrize("query", ["?kind=nonsense", "?limit=0", "?since=soon", "?colour=red"])
async def test_a_filter_that_makes_no_sense_is_refused(
    base: tuple[Served, str], client: aiohttp.ClientSession, query: str
) -> None:
    async with client.get(f"{base[1]}/api/events{query}") as answer:
        assert answer.status == 400


async def read_event(answer: aiohttp.ClientResponse, kind: str) -> Any:
    """The next one of that kind."""
    async with asyncio.timeout(10):
        while True:
            lines = []
            while (line := (await answer.content.readline()).decode().rstrip("\n")) != "":
                lines.append(line)
            fields = dict(one.split(": ", 1) for one in lines if ": " in one)
            if fields.get("event") == kind:
                return json.loads(fields["data"])


async def test_the_stream_brings_what_happens_and_how_the_lanes_are(
    base: tuple[Served, str], client: aiohttp.ClientSession, store: Store
) -> None:
    server, address = base
    async with client.get(f"{address}/api/stream", timeout=aiohttp.ClientTimeout(total=None)) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert "otp" in (await read_event(answer, "live"))["lanes"]
        third = "01MCC5RM00CCCCCCCCCCCCCCCC"
        await store.put(message(third, to="eve@example.org"), claimed=True)
        server.stream.wake()
        event = await read_event(answer, "mail")
        assert (event["kind"], event["message"], event["recipient"]) == ("accepted", third, "eve@example.org")


async def test_a_stop_of_the_service_ends_the_streams(backend: Backend, client: aiohttp.ClientSession) -> None:
    server, address = await serve(backend)
    async with client.get(f"{address}/api/stream") as answer:
        await read_event(answer, "live")
        await server.stop()
        async with asyncio.timeout(10):
            while await answer.content.readline():
                pass
