"""One connection to an HTTP API: kept, closed, and what has left of a request when it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
import pytest

from relay.config.access import endpoint
from relay.upstream.http.connect import open_connection
from relay.upstream.http.connection import Exchange, HttpConnection
from relay.upstream.http.fetch import Fetch, FetchFailed, fetch
from relay.upstream.results import OpenFailed
from relay.upstream.server import ApiServer as Server
from relay.upstream.server import dialer
from tests.support.api import (
    ApiServer,
    CloseAfter,
    CloseBefore,
    CloseWhileReading,
    Early,
    Hang,
    IdleClose,
    Raw,
    Redirect,
    Reply,
    Reset,
    StopReading,
)  # fmt: skip
from tests.support.tls import Certificates

SMALL, LARGE = b"x" * 2_000, b"y" * 6_000_000


def server_of(server: ApiServer, certificates: Certificates | None = None) -> Server:
    where = endpoint(server.url)
    context = certificates.client_context() if certificates is not None else None
    return Server(where, context, dialer(None)(where.host, where.port))


async def opened(server: ApiServer, certificates: Certificates | None = None) -> HttpConnection:
    return await open_connection(server_of(server, certificates), timeout_s=5, express=True)


async def post(connection: HttpConnection, body: bytes = SMALL, *, within_s: float = 0.5) -> Exchange:
    headers = [("Host", "localhost"), ("Content-Length", str(len(body)))]
    head = h11.Request(method="POST", target="/", headers=headers)
    return await connection.exchange(head, body, deadline=time.monotonic() + within_s, final_s=within_s)


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_a_connection_serves_one_request_after_the_other(
    certificates: Certificates, tls: bool, body: bytes
) -> None:
    async with ApiServer(Reply(200, b"ok"), tls=certificates.good if tls else None) as server:
        connection = await opened(server, certificates if tls else None)
        for _ in range(3):
            exchange = await post(connection, body, within_s=10)
            assert (exchange.end, exchange.is_complete) == ("answered", True)
            assert connection.usable
        connection.quit()
        assert [request.body for request in server.requests] == [body] * 3
        assert {request.connection for request in server.requests} == {0}
        assert server.faults == []


ENDS: list[tuple[str, Any, bytes, str, int | None, bool]] = [
    ("nothing answered, small", Hang(), SMALL, "timed out", None, True),
    ("closed behind the request", CloseBefore(), SMALL, "lost", None, True),
    ("reset behind the request", Reset(), SMALL, "lost", None, True),
    ("no HTTP", Raw(b"220 hello\r\n\r\n"), SMALL, "garbled", None, True),
    ("stops reading", StopReading(1_000), LARGE, "timed out", None, False),
    ("closes while it reads", CloseWhileReading(1_000), LARGE, "lost", None, False),
    ("answers before it reads", Early(413), LARGE, "answered", 413, False),
    ("a redirect is an answer", Redirect("http://localhost:1/"), SMALL, "answered", 307, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "body", "end", "status", "is_complete"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS]
)
async def test_how_a_request_ends_and_whether_all_of_it_had_left(
    action: Any, body: bytes, end: str, status: int | None, is_complete: bool
) -> None:
    async with ApiServer([action], receive_buffer_bytes=4_096) as server:
        connection = await opened(server)
        exchange = await post(connection, body)
        assert exchange.end == end
        assert (None if exchange.answer is None else exchange.answer.status) == status
        assert exchange.is_complete is is_complete
        assert not connection.usable or status == 307


async def test_a_connection_that_the_server_wants_closed_is_closed() -> None:
    async with ApiServer([CloseAfter(Reply(200, b"ok")), Reply(200, b"ok")]) as server:
        connection = await opened(server)
        assert (await post(connection)).end == "answered"
        assert not connection.usable


async def test_a_connection_that_ends_while_it_is_idle_says_after_how_long() -> None:
    async with ApiServer(IdleClose(0.1)) as server:
        connection = await opened(server)
        gone = asyncio.Event()
        connection.on_closed = lambda _: gone.set()
        await post(connection)
        await asyncio.wait_for(gone.wait(), 5)
        assert connection.closed_idle_after_s is not None
        assert connection.closed_idle_after_s >= 0.1


async def test_a_stop_ends_the_wait_for_the_answer() -> None:
    async with ApiServer(Hang()) as server:
        connection = await opened(server)
        stop = asyncio.Event()
        headers = [("Host", "localhost"), ("Content-Length", "1")]
        head = h11.Request(method="POST", target="/", headers=headers)
        asking = asyncio.create_task(
            connection.exchange(head, b"x", deadline=time.monotonic() + 5, final_s=60, stop=stop)
        )
        await server.wait_for(1)
        stop.set()
        exchange = await asyncio.wait_for(asking, 5)
        assert (exchange.end, exchange.is_complete) == ("stopped", True)


@pytest.mark.parametrize(
    ("which", "reason"),
    [("expired", "certificate has expired"), ("wrong_host", "Hostname mismatch"), ("self_signed", "self-signed")],
)
async def test_a_certificate_that_isnt_good_opens_nothing(certificates: Certificates, which: str, reason: str) -> None:
    async with ApiServer(Reply(200), tls=getattr(certificates, which)) as server:
        with pytest.raises(OpenFailed, match=reason) as failed:
            await opened(server, certificates)
        assert failed.value.phase == "tls"
        assert server.requests == []


async def test_a_fetch_has_an_answer_or_one_line_without_its_secrets() -> None:
    async with ApiServer([Reply(404, b"no"), CloseBefore(), Redirect("http://localhost:1/"), Hang()]) as server:
        what = Fetch(f"{server.url}/token?secret=1", "POST", (("Authorization", "Basic s3cret"),), b"s3cret")
        assert (await fetch(what, within_s=5)).status == 404
        with pytest.raises(FetchFailed, match="connection lost"):
            await fetch(what, within_s=5)
        assert (await fetch(what, within_s=5)).status == 307
        with pytest.raises(FetchFailed, match="no answer in time"):
            await fetch(what, within_s=0.2)
        assert "s3cret" not in repr(what)
        assert server.requests[0].path == "/token?secret=1"
        assert server.faults == []
