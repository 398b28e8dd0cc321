"""The HTTP service's connections are few, and none keeps it waiting for long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from relay.store.base import Store
from relay.store.model import Selection
from relay.store.search_text import Found
from relay.web import connections as http
from relay.web import webhooks
from relay.web.api import MAX_ROWS
from relay.web.backend import Backend
from relay.web.responses import encode_json
from tests.web.conftest import NOW, message

WITHIN_S = 20
SOON_S = 0.2
HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def connections(url: str) -> AsyncIterator[list[Streams]]:
    opened: list[Streams] = []
    yield opened
    for _, writer in opened:
        writer.transport.abort()


async def connect(url: str, opened: list[Streams], sent: bytes = b"") -> Streams:
    host, _, port = url.removeprefix("http://").partition(":")
    streams = await asyncio.open_connection(host, int(port))
    opened.append(streams)
    streams[1].write(sent)
    return streams


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the service closes the connection."""
    try:
        async with asyncio.timeout(WITHIN_S):
            return await reader.read()
    except ConnectionResetError:
        return b""


async def test_silent_connections_shut_no_client_out(
    url: str, client: aiohttp.ClientSession, connections: list[Streams]
) -> None:
    silent = [await connect(url, connections, HALF) for _ in range(300)]
    async with client.get(f"{url}/healthz") as answer:
        assert answer.status == 200
    for reader, _ in silent[: 300 - http.MAX_CONNECTIONS]:
        assert await everything(reader) == b""
    # The last ones have kept it waiting for the shortest time: one made room for the client.
    for reader, writer in silent[-http.MAX_CONNECTIONS + 1 :]:
        writer.write(b"Connection: close\r\n\r\n")
        assert (await everything(reader)).startswith(b"HTTP/1.1 200")


async def test_a_connection_is_turned_away_while_all_others_have_a_request_in_progress(
    url: str, backend: Backend, connections: list[Streams], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()
    go_on = asyncio.Event()

    async def find(_: Selection, __: float) -> Found:
        asked.put_nowait(None)
        await go_on.wait()
        return Found([])

    monkeypatch.setattr(backend.store, "find", find)
    request = b"GET /api/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    busy = [await connect(url, connections, request) for _ in range(http.MAX_CONNECTIONS)]
    for _ in busy:
        await asyncio.wait_for(asked.get(), WITHIN_S)
    late = await connect(url, connections)
    head, _, body = (await everything(late[0])).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"error": "too many connections"}
    go_on.set()
    for reader, _ in busy:
        assert (await everything(reader)).startswith(b"HTTP/1.1 200")
    again = await connect(url, connections, HALF + b"Connection: close\r\n\r\n")
    assert (await everything(again[0])).startswith(b"HTTP/1.1 200")


async def test_clients_that_do_not_read_their_responses_shut_no_client_out(
    url: str, backend: Backend, connections: list[Streams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_WITHIN_S", 0.0)
    made: asyncio.Queue[None] = asyncio.Queue()
    more_than_buffers_hold = bytes(12_000_000)

    def render(*_: object) -> tuple[bytes, str]:
        made.put_nowait(None)
        return more_than_buffers_hold, "text/plain"

    monkeypatch.setattr(backend.metrics, "render", render)
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(http.MAX_CONNECTIONS):
        reader, _ = await connect(url, connections, request)
        await asyncio.wait_for(made.get(), WITHIN_S)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)  # and nothing more
    late = await connect(url, connections, HALF + b"Connection: close\r\n\r\n")
    assert (await everything(late[0])).startswith(b"HTTP/1.1 200")


async def trickle(streams: Streams) -> None:
    """A header's bytes, one by one, until the service has enough."""
    while not streams[0].at_eof() and not streams[1].transport.is_closing():
        streams[1].write(b"x")
        await asyncio.sleep(SOON_S / 10)


@pytest.mark.parametrize("begun", [b"GET /", HALF, HALF + b"X: "])
async def test_an_endless_head_closes_the_connection(
    url: str, connections: list[Streams], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http, "HEAD_WITHIN_S", SOON_S)
    streams = await connect(url, connections, begun)
    trickling = asyncio.create_task(trickle(streams))
    assert await everything(streams[0]) == b""
    await asyncio.wait_for(trickling, WITHIN_S)


async def test_a_silent_connection_is_closed(
    url: str, connections: list[Streams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "HEAD_WITHIN_S", SOON_S)
    reader, _ = await connect(url, connections)
    assert await everything(reader) == b""


@pytest.mark.parametrize("further", [b"", HALF])
async def test_an_idle_or_endless_further_request_closes_the_connection(
    url: str, connections: list[Streams], monkeypatch: pytest.MonkeyPatch, further: bytes
) -> None:
    monkeypatch.setattr(http, "IDLE_FOR_S", WITHIN_S * 10 if further else SOON_S)
    monkeypatch.setattr(http, "HEAD_WITHIN_S", SOON_S)
    reader, writer = await connect(url, connections, HALF + b"\r\n")
    async with asyncio.timeout(WITHIN_S):
        await reader.readuntil(b'{"healthy": true}')
    writer.write(further)
    assert await everything(reader) == b""


async def test_a_body_that_does_not_end_is_408(
    url: str, connections: list[Streams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "BODY_WITHIN_S", SOON_S)
    monkeypatch.setattr(http, "LINGER_S", SOON_S)
    head = b"POST /api/queue/hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    reader, _ = await connect(url, connections, head + b"Content-Length: 99\r\n\r\n{")
    assert (await everything(reader)).startswith(b"HTTP/1.1 408")


async def test_a_response_that_is_not_read_is_cut_off(
    url: str, backend: Backend, connections: list[Streams], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_WITHIN_S", SOON_S * 5)

    async def find(_: Selection, __: float) -> Found:
        return Found([{"x": "x" * 1_000_000}] * 50)

    monkeypatch.setattr(backend.store, "find", find)
    reader, writer = await connect(url, connections, b"GET /api/messages HTTP/1.1\r\nHost: localhost\r\n\r\n")
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    await asyncio.sleep(SOON_S * 10)  # later reads get only what the buffers of both ends contain
    transport.resume_reading()
    assert len(await everything(reader)) < 50_000_000


async def test_a_listing_has_a_thousand_rows_at_most(url: str, client: aiohttp.ClientSession, store: Store) -> None:
    for number in range(MAX_ROWS + 5):
        await store.put(message(f"{number:026}", accepted_at=NOW), claimed=False)
    for path in ("/api/messages?limit=10000", "/api/queue?limit=10000"):
        async with client.get(url + path) as answer:
            assert answer.status == 200
            found = await answer.json()
        assert len(found if isinstance(found, list) else found["messages"]) == MAX_ROWS


async def test_a_long_response_is_encoded_while_the_loop_goes_on() -> None:
    rows = [{"id": number, "recipients": [{"address": "user@example.net"}] * 20} for number in range(1_000)]
    making = asyncio.create_task(asyncio.to_thread(encode_json, {"messages": rows, "n": 1}))
    turns = 0
    while not making.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 30
    assert json.loads(await making) == {"messages": rows, "n": 1}


@pytest.mark.parametrize(
    "document", [[], {}, {"a": []}, {"a": {"b": [1]}, "c": [{}, None]}, [1, [2]], None, "x", (1, 2)]
)
def test_the_encoded_pieces_are_the_document(document: object) -> None:
    assert json.loads(encode_json(document)) == json.loads(json.dumps(document))
