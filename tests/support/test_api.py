"""The scripted HTTP server is what many tests lean on, so it is held to the protocol itself."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import struct
import zlib
from socket import SO_LINGER, SO_SNDBUF, SOL_SOCKET

import pytest

from tests.support.api import (
    Answer,
    ApiServer,
    Bomb,
    CloseAfter,
    CloseBefore,
    CloseWhileReading,
    Early,
    Endless,
    Hang,
    IdleClose,
    Raw,
    Redirect,
    Reply,
    Request,
    Reset,
    Responder,
    Slow,
    StopReading,
    Taken,
)
from tests.support.tls import Certificates


class Client:
    """A client that writes bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of an answer with a Content-Length."""
        head = await self.head()
        (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return int(head[9:12]), await asyncio.wait_for(self.reader.readexactly(length), 5)

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 5)


async def connect(server: ApiServer, context: ssl.SSLContext | None = None) -> Client:
    host = server.address if context is None else "localhost"
    return Client(*await asyncio.open_connection(host, server.port, ssl=context))


def post(body: bytes = b"{}", path: str = "/send", *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_a_request_is_noted_as_sent_and_the_connection_is_kept() -> None:
    async with ApiServer(lambda request: Reply(201, {"got": request.json()})) as server:
        client = await connect(server)
        client.send(post(b'{"a": 1}', "/x?y=1", "X-Two: 1", "x-two:  2 "))
        assert await client.answer() == (201, b'{"got": {"a": 1}}')
        client.send(post(b"2"))
        assert await client.answer() == (201, b'{"got": 2}')
        first, second = server.requests
    assert (first.method, first.path, first.body, first.whole) == ("POST", "/x?y=1", b'{"a": 1}', True)
    assert first.headers == [("host", "localhost"), ("content-length", "8"), ("x-two", "1"), ("x-two", "2")]
    assert first.first_byte_at <= first.last_byte_at <= second.first_byte_at
    assert (first.connection, second.connection, server.connections, server.faults) == (0, 0, 1, [])


async def test_the_times_of_a_request_are_those_of_its_first_and_its_last_byte() -> None:
    at_head = asyncio.Event()

    def look(_: Request) -> None:
        at_head.set()

    async with ApiServer(Reply(), at_head=look) as server:
        client = await connect(server)
        whole = post(b"abc")
        client.send(whole[:-1])
        await asyncio.wait_for(at_head.wait(), 5)
        assert server.requests == []
        await asyncio.sleep(0.01)
        client.send(whole[-1:])
        await client.answer()
    assert server.requests[0].first_byte_at < server.requests[0].last_byte_at


async def test_answers_come_in_turn_over_all_connections_and_the_last_repeats() -> None:
    async def later(_: Request) -> Reply:
        await asyncio.sleep(0)
        return Reply(204)

    async with ApiServer([Reply(429, headers=[("Retry-After", "1")]), Reply(503), later]) as server:
        heads = []
        for client in [await connect(server) for _ in range(2)] * 2:
            client.send(post())
            heads.append(await client.head())
    assert [head[9:12] for head in heads] == [b"429", b"503", b"204", b"204"]
    assert b"\r\nRetry-After: 1\r\n" in heads[0]
    assert b"Content-Length" not in heads[3]
    assert (server.connections, server.open, server.peak) == (2, 0, 2)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", "no Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunked"),
        (b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "not HTTP/1.1"),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "Host"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", "Expect"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n", "[Cc]ontent-[Ll]ength"),
        (b"POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n", "bare"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "folded"),
        (b"EHLO me\r\n\r\n", "illegal"),
        (post() + post(), "pipelined"),
    ],
)
async def test_what_is_no_good_request_is_a_fault_and_answered_400(data: bytes, fault: str) -> None:
    async with ApiServer(Reply()) as server:
        client = await connect(server)
        client.send(data)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close" in head
    (text,) = server.faults
    assert re.search(f"^connection 0: .*{fault}", text)


async def test_a_get_needs_no_length_and_connection_close_is_honoured() -> None:
    async with ApiServer(Reply(204)) as server:
        client = await connect(server)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert await client.rest() == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    assert server.faults == []


def broken(_: Request) -> Reply:
    raise RuntimeError("oh")


@pytest.mark.parametrize(
    ("respond", "fault"), [(broken, "RuntimeError: oh"), (lambda _: StopReading(), "the body has been read")]
)
async def test_a_callable_that_does_wrong_is_a_fault_and_resets(respond: Responder, fault: str) -> None:
    async with ApiServer(respond) as server:
        client = await connect(server)
        client.send(post())
        with pytest.raises(ConnectionResetError):
            await client.rest()
    assert fault in server.faults[0]


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        (CloseBefore(), b""),
        (Raw(b"SSH-2.0-x\r\n"), b"SSH-2.0-x\r\n"),
        (CloseAfter(Reply(204)), b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        (IdleClose(0.01, Reply(204)), b"HTTP/1.1 204 No Content\r\n\r\n"),
        (Early(413), b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ],
)
async def test_an_answer_that_ends_the_connection(answer: Answer, rest: bytes) -> None:
    async with ApiServer(answer) as server:
        client = await connect(server)
        client.send(post())
        assert await client.rest() == rest
        await server.wait_until(lambda: server.open == 0)
        assert len(server.requests) == 1


async def test_a_connection_that_is_closed_when_idle_still_takes_a_request_in_time() -> None:
    async with ApiServer(IdleClose(5)) as server:
        client = await connect(server)
        for _ in range(2):
            client.send(post())
            assert (await client.answer())[0] == 200
    assert server.connections == 1


async def test_a_mail_is_taken_though_its_answer_is_lost() -> None:
    seen: list[bytes] = []

    def take(request: Request) -> Reply:
        seen.append(request.body)
        return Reply()

    async with ApiServer([Taken(take, Reset()), take]) as server:
        client = await connect(server)
        client.send(post(b"1"))
        with pytest.raises(ConnectionResetError):
            await client.rest()
        client = await connect(server)
        client.send(post(b"1"))
        assert (await client.answer())[0] == 200
    assert seen == [b"1", b"1"]


async def test_a_hanging_server_notices_that_the_client_left() -> None:
    async with ApiServer(Hang()) as server:
        client = await connect(server)
        client.send(post())
        await server.wait_for(1)
        assert server.open == 1
        client.writer.close()
        await server.wait_until(lambda: server.open == 0)


async def test_a_body_that_is_not_read_on_stays_with_the_client() -> None:
    async with ApiServer(StopReading(10), receive_buffer_bytes=65_536) as server:
        client = await connect(server)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 65_536)
        client.send(post(bytes(4 << 20)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.2)
        (request,) = await server.wait_for(1)
        assert not request.whole
        assert 10 <= len(request.body) < 1 << 20
        # An RST: a FIN would wait behind what isn't read.
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await server.wait_until(lambda: server.open == 0)


async def test_a_connection_that_is_closed_while_the_body_comes_fails_the_client() -> None:
    async with ApiServer(CloseWhileReading(10), receive_buffer_bytes=65_536) as server:
        client = await connect(server)
        client.send(post(bytes(8 << 20)))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(client.writer.drain(), 5)
        assert not server.requests[0].whole


async def test_early_answers_before_the_body_was_sent() -> None:
    async with ApiServer(Reply(), at_head=lambda request: Early(401) if request.path == "/no" else None) as server:
        client = await connect(server)
        client.send(post(b"x", "/no")[:-1])
        assert (await client.answer())[0] == 401
        client = await connect(server)
        client.send(post(b"x", "/yes"))
        assert (await client.answer())[0] == 200
    assert [request.whole for request in server.requests] == [False, True]


async def test_odd_ways_to_answer() -> None:
    answers: list[Answer] = [
        Slow(b"abc", 0.001),
        Slow(b"abc", 0.0001, head=True),
        Redirect("http://elsewhere.example/"),
        Raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", close=False),
        Bomb(3 << 20),
    ]
    async with ApiServer(answers) as server:
        client = await connect(server)
        for _ in range(2):
            client.send(post())
            assert await client.answer() == (200, b"abc")
        client.send(post())
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 307 ")
        assert b"\r\nLocation: http://elsewhere.example/\r\n" in head
        client.send(post())
        assert (await client.head()).startswith(b"HTTP/1.1 103 ")
        assert await client.answer() == (200, b"")
        client.send(post())
        _, body = await client.answer()
    assert len(body) < 10_000
    assert zlib.decompress(body, wbits=31) == bytes(3 << 20)
    assert (server.connections, server.faults) == (1, [])


@pytest.mark.parametrize(
    ("endless", "start"),
    [
        (Endless(), b"Transfer-Encoding: chunked\r\n\r\n4000\r\n   "),
        (Endless([("Content-Length", "1000000000000")]), b"Content-Length: 1000000000000\r\n\r\n   "),
        (Endless([], part="head"), b"X-More: and more\r\nX-More: "),
    ],
)
async def test_an_endless_answer_ends_with_the_client(endless: Endless, start: bytes) -> None:
    async with ApiServer(endless) as server:
        client = await connect(server)
        client.send(post())
        got = await asyncio.wait_for(client.reader.readexactly(1_000_000), 5)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n" + start)
        client.writer.close()
        await server.wait_until(lambda: server.open == 0)


async def test_tls_is_spoken_with_a_good_certificate(certificates: Certificates) -> None:
    async with ApiServer(Reply(200, {"a": 1}), tls=certificates.good) as server:
        assert server.url == f"https://localhost:{server.port}"
        client = await connect(server, certificates.client_context())
        for _ in range(2):
            client.send(post(bytes(300_000)))
            assert json.loads((await client.answer())[1]) == {"a": 1}
        assert len(server.requests[1].body) == 300_000


@pytest.mark.parametrize("kind", ["expired", "wrong_host", "self_signed"])
async def test_a_bad_certificate_is_refused_by_a_verifying_client(certificates: Certificates, kind: str) -> None:
    async with ApiServer(Reply(), tls=getattr(certificates, kind)) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(server, certificates.client_context())
        await server.wait_until(lambda: server.open == 0)
        assert (server.connections, server.requests, server.faults) == (1, [], [])


async def test_connections_can_be_ended_from_outside_and_the_port_goes_dead_and_comes_back() -> None:
    async with ApiServer(Reply()) as server:
        client = await connect(server)
        await server.wait_until(lambda: server.open == 1)
        server.close_connections()
        assert await client.rest() == b""
        await server.pause()
        with pytest.raises(ConnectionRefusedError):
            await connect(server)
        await server.resume()
        client = await connect(server)
        await server.wait_until(lambda: server.open == 1)
        server.reset_connections()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_waiting_in_vain_says_what_was_seen() -> None:
    async with ApiServer(Reply()) as server:
        client = await connect(server)
        client.send(post())
        await client.answer()
        with pytest.raises(AssertionError, match=r"\['POST /send'\], 1 connections"):
            await server.wait_for(2, within_s=0.1)
