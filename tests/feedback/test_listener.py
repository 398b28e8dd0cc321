"""What the public listener makes of bad, slow and heavy requests: a clear status each, and room for others."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import socket
from collections.abc import AsyncIterator, Mapping

import pytest

from relay.feedback import listener
from relay.web import connections, listening, webhooks
from relay.web.backend import Answer
from relay.web.webhooks import MAX_BODY_BYTES


@pytest.fixture(autouse=True)
def _stop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "STOP_WITHIN_S", 0.1)


class Kept:
    """A webhook that keeps the sizes of what it is given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        self.sizes.append(len(body))
        return Answer(200) if headers.get("authorization") == "Bearer right" else Answer(401, "no proof")

    def too_large(self) -> None:
        """It is counted."""


@contextlib.asynccontextmanager
async def served(webhook: Kept) -> AsyncIterator[tuple[str, int]]:
    sock = socket.create_server(("127.0.0.1", 0))
    public = listener.webhook_listener(lambda: {"postmark": webhook})
    await public.start([sock], None)
    try:
        yield sock.getsockname()
    finally:
        await public.stop()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(stream: Stream) -> int:
    """The status of the next response."""
    async with asyncio.timeout(20):
        head = await stream[0].readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await stream[0].readexactly(int(length.partition(b":")[2]))
    return int(head.split(b" ", 2)[1])


def head(*fields: str, path: str = "/webhooks/postmark") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", "Authorization: Bearer right", *fields, "", ""]).encode()


async def status_of(address: tuple[str, int], request: bytes) -> int:
    async with connected(address) as stream:
        stream[1].write(request)
        return await answer(stream)


CHUNKED = "Transfer-Encoding: chunked"
GZIP = gzip.compress(b"\0" * 100_000_000, 9)
REQUESTS = {
    "a body of 5 MiB": (head(f"Content-Length: {MAX_BODY_BYTES}") + b" " * MAX_BODY_BYTES, 200),
    "a body of 5 MiB and one": (head(f"Content-Length: {MAX_BODY_BYTES + 1}") + b" " * (MAX_BODY_BYTES + 1), 413),
    "chunks": (head(CHUNKED) + b"2\r\n{}\r\n0\r\n\r\n", 200),
    "chunks beyond 5 MiB": (head(CHUNKED) + b"100000\r\n" + (b" " * 0x100000 + b"\r\n100000\r\n") * 6, 413),
    "a broken chunk": (head(CHUNKED) + b"zz\r\n{}\r\n0\r\n\r\n", 400),
    "a broken second chunk": (head(CHUNKED) + b"2\r\n{}\r\nzz\r\n\r\n", 400),
    "no length": (head(), 200),
    "a length that is no number": (head("Content-Length: 2x") + b"{}", 400),
    "a negative length": (head("Content-Length: -2") + b"{}", 400),
    "two lengths": (head("Content-Length: 2", "Content-Length: 3") + b"{} ", 400),
    "length and chunks": (head("Content-Length: 2", CHUNKED) + b"0\r\n\r\n", 400),
    "another path": (head("Content-Length: 2", path="/metrics") + b"{}", 404),
    "a compressed body": (head("Content-Encoding: gzip", f"Content-Length: {len(GZIP)}") + GZIP, 415),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=list(REQUESTS))
async def test_each_bad_request_gets_a_clear_status(request_: bytes, status: int) -> None:
    webhook = Kept()
    async with served(webhook) as address:
        assert await status_of(address, request_) == status
        assert await status_of(address, head("Content-Length: 2") + b"{}") == 200
    assert max(webhook.sizes) <= MAX_BODY_BYTES


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served(Kept()) as address, connected(address) as stream:
        right, wrong = head("Content-Length: 2") + b"{}", head("Content-Length: 2").replace(b"right", b"wrong") + b"{}"
        stream[1].write((right + wrong) * 20)
        assert [await answer(stream) for _ in range(40)] == [200, 401] * 20


async def test_a_slow_body_is_given_up_and_keeps_nothing_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BODY_WITHIN_S", 0.5)
    webhook = Kept()
    async with served(webhook) as address, contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(address)) for _ in range(100)]
        for number, (_, writer) in enumerate(slow):
            writer.write(head(CHUNKED if number % 2 else f"Content-Length: {MAX_BODY_BYTES}") + b"1\r\n{\r\n")
            await writer.drain()
        assert await status_of(address, head("Content-Length: 2") + b"{}") == 200
        assert {await answer(stream) for stream in slow} == {408}
    assert webhook.sizes == [2]


async def test_bodies_together_are_bounded() -> None:
    webhook = Kept()
    async with served(webhook) as address, contextlib.AsyncExitStack() as stack:
        heavy = [await stack.enter_async_context(connected(address)) for _ in range(12)]
        for _, writer in heavy:
            writer.write(head(f"Content-Length: {MAX_BODY_BYTES}") + b" " * (MAX_BODY_BYTES - 1))
        refused = [await done for done in itertools.islice(asyncio.as_completed(map(answer, heavy)), 4)]
        assert refused == [503] * 4
        for _, writer in heavy:
            with contextlib.suppress(ConnectionError):
                writer.write(b" ")
    assert len(webhook.sizes) <= 8


async def test_a_body_that_ends_too_early_is_no_error_of_the_relay(caplog: pytest.LogCaptureFixture) -> None:
    webhook = Kept()
    async with served(webhook) as address:
        for _ in range(3):
            async with connected(address) as (_, writer):
                writer.write(head("Content-Length: 100") + b"{}")
                await writer.drain()
        assert await status_of(address, head("Content-Length: 2") + b"{}") == 200
    assert webhook.sizes == [2]
    assert not caplog.records


async def test_clients_that_are_slow_with_their_bodies_lose_their_places_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(connections, "READ_WITHIN_S", 0.0)
    webhook = Kept()
    async with served(webhook) as address, contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            reader, writer = await stack.enter_async_context(connected(address))
            writer.write(head("Content-Length: 100", "Expect: 100-continue"))
            assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert await status_of(address, head("Content-Length: 2") + b"{}") == 200
