"""`POST /api/send` over real sockets, with a sender that keeps what it is given: slow clients, large documents."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest

from relay.mail.message import LARGE_HEAD_BYTES, Message, parse
from relay.web import connections, listening, send
from relay.web.guard import Guard, Tokens
from relay.web.letter import Letter, letter_of
from relay.web.listening import Bounds, HttpListener
from relay.web.sender import NotSent, Outgoing, Reason, Upload

WITHIN_S = 20
SOON_S = 0.2
MEMORY_BYTES = 1_000_000
TOKEN = "secret"
DOCUMENT = {"from": "a@example.com", "to": "b@example.net", "text": "hi"}


class KeptUpload:
    """In memory."""

    def __init__(self) -> None:
        self.content = b""
        self.closed = False

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def write(self, piece: bytes) -> None:
        self.content += piece

    def reader(self) -> Callable[[], bytes]:
        return lambda: self.content

    def close(self) -> None:
        self.closed = True


class KeptSender:
    """A `Sender` that stores nothing."""

    def __init__(self) -> None:
        self.uploads: list[KeptUpload] = []
        self.sent: asyncio.Queue[tuple[Outgoing, bytes]] = asyncio.Queue()
        self.counted: list[Reason] = []

    def unavailable(self, *, has_key: bool) -> NotSent | None:
        return None

    def lanes(self) -> Collection[str]:
        return ("otp",)

    def most_bytes(self) -> int:
        return MEMORY_BYTES

    def most_recipients(self) -> int:
        return 10

    def begin(self) -> Upload:
        self.uploads.append(KeptUpload())
        return self.uploads[-1]

    async def send(self, outgoing: Outgoing, upload: Upload) -> str | NotSent:
        assert isinstance(upload, KeptUpload)
        self.sent.put_nowait((outgoing, upload.content))
        upload.close()
        return "01"

    def refused(self, reason: Reason) -> None:
        self.counted.append(reason)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def sender() -> KeptSender:
    return KeptSender()


@pytest.fixture
async def address(sender: KeptSender, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, int]]:
    monkeypatch.setattr(listening, "STOP_WITHIN_S", 0.1)
    sock = socket.create_server(("127.0.0.1", 0))
    listener = HttpListener(send.Send(sender).routes(), Bounds(WITHIN_S, 1_000), Guard(Tokens(TOKEN)))
    await listener.start([sock])
    yield sock.getsockname()
    await listener.stop()


@contextlib.asynccontextmanager
async def connected(address: tuple[str, int], sent: bytes) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(*fields: str, kind: str = "application/json", query: str = "") -> bytes:
    usual = (f"POST /api/send{query} HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", f"Content-Type: {kind}")
    return "\r\n".join([*usual, *fields, "", ""]).encode()


def request(document: object, *fields: str) -> bytes:
    body = json.dumps(document).encode()
    return head(f"Content-Length: {len(body)}", *fields) + body


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Relay-Client"])
async def test_a_field_that_is_given_twice_is_refused(address: tuple[str, int], name: str) -> None:
    document = {"from": "a@example.com", "to": "b@example.net", "text": "x"}
    async with connected(address, request(document, f"{name}: a", f"{name}: b", "Connection: close")) as (reader, _):
        answer, body = await everything(reader)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert body["error"]["message"].startswith(name)


async def everything(reader: asyncio.StreamReader) -> tuple[bytes, Any]:
    """Head and document of the only response, once the service has closed the connection."""
    async with asyncio.timeout(WITHIN_S):
        found, _, body = (await reader.read()).partition(b"\r\n\r\n")
    return found, json.loads(body)


WHOLE = {"kind": "message/rfc822", "query": "?from=a@example.com&to=b@example.net"}
SLOW = {
    "no byte of a document": head("Content-Length: 99"),
    "half a document": head("Content-Length: 99") + b'{"from":',
    "no chunk": head("Transfer-Encoding: chunked"),
    "half of a message": head("Content-Length: 99", **WHOLE) + b"Subject: x\r\n\r\n",
    "half of a message with a client": head("Content-Length: 99", "X-Relay-Client: ann", **WHOLE) + b"Subject: x\r\n",
}


@pytest.mark.parametrize("begun", SLOW.values(), ids=list(SLOW))
async def test_a_body_that_never_comes_is_408_and_the_connection_is_closed(
    address: tuple[str, int], sender: KeptSender, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(send, "BODY_WITHIN_S", SOON_S)
    monkeypatch.setattr(connections, "LINGER_S", SOON_S)
    began = time.monotonic()
    async with connected(address, begun) as (reader, _):
        answer, document = await everything(reader)
    assert time.monotonic() - began >= SOON_S
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert document["error"]["code"] == "too_slow"
    assert sender.counted == ["timeout"]
    assert all(upload.closed for upload in sender.uploads)
    assert sender.sent.empty()


async def test_a_trickling_body_is_408_too(
    address: tuple[str, int], sender: KeptSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "BODY_WITHIN_S", SOON_S)
    monkeypatch.setattr(connections, "LINGER_S", SOON_S)
    async with connected(address, head("Content-Length: 99999")) as (reader, writer):

        async def trickle() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(SOON_S / 10)

        trickling = asyncio.create_task(trickle())
        async with asyncio.timeout(WITHIN_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        trickling.cancel()
    assert sender.sent.empty()


async def test_a_client_that_hangs_up_keeps_its_address(
    address: tuple[str, int], sender: KeptSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its mail would count as that of a local program, which limits and rules treat in another way."""
    reads, hung_up = threading.Event(), threading.Event()

    def slowly(body: bytes, client: str | None, most: int, pause: Callable[[], None]) -> Letter:
        reads.set()
        assert hung_up.wait(WITHIN_S)
        return letter_of(body, client, most, pause)

    lost = asyncio.Event()
    connection_lost = connections.Connection.connection_lost

    def noticed(self: connections.Connection, exc: BaseException | None) -> None:
        connection_lost(self, exc)
        lost.set()

    monkeypatch.setattr(send, "letter_of", slowly)
    monkeypatch.setattr(connections.Connection, "connection_lost", noticed)
    async with connected(address, request({**DOCUMENT, "text": "x" * 4096})) as (_, writer):
        assert await asyncio.to_thread(reads.wait, WITHIN_S)
        writer.transport.abort()
        await asyncio.wait_for(lost.wait(), WITHIN_S)
    hung_up.set()
    outgoing, _ = await asyncio.wait_for(sender.sent.get(), WITHIN_S)
    assert outgoing.client == "127.0.0.1"


@pytest.mark.parametrize(
    ("more", "on_loop"),
    [
        ({}, True),
        ({"html": '<p style="color: red" class="a">' * 50}, True),
        ({"html": "<p>" * 2_000}, False),
        ({"attachments": [{"filename": "x", "content": ""}] * 90}, False),
        ({"headers": {f"X-{number}": "ä" for number in range(100)}}, False),
    ],
)
async def test_a_document_that_takes_long_is_read_on_a_thread(
    address: tuple[str, int], sender: KeptSender, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], on_loop: bool
) -> None:
    threads: list[threading.Thread] = []

    def noted(body: bytes, client: str | None, most: int, pause: Callable[[], None]) -> Letter:
        threads.append(threading.current_thread())
        return letter_of(body, client, most, pause)

    monkeypatch.setattr(send, "letter_of", noted)
    async with connected(address, request({**DOCUMENT, **more}, "Connection: close")) as (reader, _):
        answer, document = await everything(reader)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert document == {"id": "01"}
    assert [one is threading.main_thread() for one in threads] == [on_loop]


async def test_of_a_long_head_only_the_beginning_is_parsed(
    address: tuple[str, int], sender: KeptSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest would hold the event loop up: 260 kB of short fields for a tenth of a second."""
    parsed_bytes: list[int] = []

    def noted(content: bytes) -> Message:
        parsed_bytes.append(len(content))
        return parse(content)

    monkeypatch.setattr(send, "parse", noted)
    content = b"a:\r\n" * 60_000
    fields = f"Content-Length: {len(content)}", "X-Relay-Client: ann", "Connection: close"
    async with connected(address, head(*fields, **WHOLE) + content) as (reader, _):
        answer, _ = await everything(reader)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert (await sender.sent.get())[1] == b"X-Relay-Client: ann\r\n" + content
    assert parsed_bytes == [LARGE_HEAD_BYTES]
