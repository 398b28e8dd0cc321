"""Pieces of a content are acknowledged at once; replies leave at once; and how long the app took is measured.

While TCP_QUICKACK reads as 0, the kernel delays ACKs. Each test sets it to 0 before the relay sees a piece.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Listener
from relay.config.network import SystemdAddress, UnixAddress
from relay.intake.connection import Connection
from relay.intake.listener import LoadedListener
from relay.intake.quickack import SMALL_READ_BYTES
from relay.intake.spool import IN_MEMORY_BYTES, Large
from tests.intake.harness import Client, Recorder, listener, make_server, service, until
from tests.support.tls import Certificates

ENVELOPE = ("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA")
QUICKACK = getattr(socket, "TCP_QUICKACK", 0)
pytestmark = pytest.mark.skipif(not QUICKACK, reason="this platform always decides by itself when to acknowledge")


class Watched(Connection):
    """A connection that knows of each read whether the relay asked for an ACK at once."""

    all: Sequence[Watched] = ()

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.reads: list[tuple[int, bool]] = []
        Watched.all = [*Watched.all, self]

    def option(self, option: int) -> bool:
        assert self.transport is not None
        return bool(self.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, option))

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        under = self.transport.get_extra_info("socket")
        is_tcp = under.family == socket.AF_INET
        if is_tcp:
            under.setsockopt(socket.IPPROTO_TCP, QUICKACK, 0)
        super().data_received(data)
        self.reads.append((len(data), is_tcp and self.option(QUICKACK)))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.intake.server.Connection", Watched)
    Watched.all = ()


async def bring(client: Client, *pieces: bytes) -> list[tuple[int, bool]]:
    """Bring a content, each piece once the one before has been read. Returns the reads of it but the last."""
    (watched,) = Watched.all
    assert (await client.run(*ENVELOPE))[-1].startswith("354")
    before = len(watched.reads)
    for number, piece in enumerate(pieces, 1):
        await client.send(piece)
        await until(lambda: len(watched.reads) >= before + number)  # noqa: B023 (awaited in the loop)
    assert (await client.reply()).startswith("250")
    return watched.reads[before:-1]


PIECES = (b"Subject: x\r\n", b"\r\n", b"482931\r\n.", b"\r\n")
QUICK = [(12, True), (2, True), (9, True)]


@pytest.mark.usefixtures("watch")
async def test_each_piece_of_a_content_but_the_last_is_acknowledged_at_once() -> None:
    async with service() as relay, relay.session() as client:
        assert await bring(client, *PIECES) == QUICK
        assert await bring(client, *PIECES) == QUICK


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_the_same_inside_tls(certificates: Certificates, tls: str) -> None:
    keys = {"tls": tls, "cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
    context = certificates.client_context()
    async with service(listener(**keys)) as relay, relay.connect(context if tls == "implicit" else None) as client:
        await client.hello()
        if tls == "starttls":
            await client.ask("STARTTLS")
            await client.start_tls(context)
            await client.ask("EHLO client.test")
        assert await bring(client, *PIECES) == QUICK
        assert Watched.all[0].option(socket.TCP_NODELAY)


@pytest.mark.usefixtures("watch")
async def test_a_unix_socket_has_no_such_option_and_takes_pieces(tmp_path: Path) -> None:
    async with service(Listener(address=UnixAddress(str(tmp_path / "smtp")))):
        client = await Client(*await asyncio.open_unix_connection(tmp_path / "smtp")).hello()
        assert [size for size, _ in await bring(client, *PIECES)] == [12, 2, 9]
        client.writer.close()


class Options:
    """A socket that remembers the options it was given."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.given: list[int] = []

    def setsockopt(self, _: int, option: int, __: int) -> None:
        self.given.append(option)


class Transport(asyncio.Transport):
    def write(self, data: Any) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False


async def test_a_read_is_acknowledged_by_the_relay_where_the_rest_may_wait_for_that() -> None:
    options = Options()
    async with service() as relay:
        loaded = LoadedListener.load(listener())
        connection = relay.server.connection(lambda: loaded)
        connection.connection_made(Transport({"socket": options, "peername": ("127.0.0.1", 1)}))
        for data, acks in (
            (b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n", 0),
            (b"x" * SMALL_READ_BYTES, 0),  # a whole segment: the kernel acknowledges it by itself
            (b"x" * (SMALL_READ_BYTES - 1), 1),
            (b"\r\n.\r\n", 1),
            (b"NOO", 2),
            (b"P\r\nNOOP\r\n", 2),
        ):
            connection.data_received(data)
            for _ in range(20):
                await asyncio.sleep(0)
            assert options.given == [QUICKACK] * acks
        await relay.recorder.wait_for(1)
        connection.connection_lost(None)


# Replies.


@pytest.mark.usefixtures("watch")
@pytest.mark.parametrize("passed", [False, True], ids=["bound by the relay", "passed by systemd"])
async def test_a_reply_does_not_wait_for_an_ack(passed: bool) -> None:
    door = socket.create_server(("127.0.0.1", 0))
    sockets = [socket.socket(fileno=door.detach())]  # as systemd's are made
    server = make_server(Recorder())
    address = Listener(address=SystemdAddress("smtp")) if passed else listener()
    await server.start([address], {"smtp": sockets})
    port = int(server.addresses[0].rpartition(":")[2])
    client = await Client(*await asyncio.open_connection("127.0.0.1", port)).hello()
    assert Watched.all[0].option(socket.TCP_NODELAY)
    client.writer.close()
    await server.drain(0)
    sockets[0].close()


# The phase `receive`.


@pytest.mark.parametrize("lines", [3, 8_000], ids=["in memory", "in a file"])
async def test_receive_runs_from_the_354_to_the_final_dot(tmp_path: Path, lines: int) -> None:
    async with service(spool=tmp_path) as relay, relay.session() as client:
        await client.run(*ENVELOPE[:-1])
        before = time.monotonic()
        await client.ask("DATA")
        begun = time.monotonic()
        await client.send((b"x" * 78 + b"\r\n") * lines)
        await asyncio.sleep(0.02)
        sent = time.monotonic()
        await client.ask(".")
        after = time.monotonic()
        (taken,) = relay.recorder.taken
    assert isinstance(taken.content, Large) is (lines * 80 > IN_MEMORY_BYTES)
    assert sent - begun <= taken.receive_s <= after - before


async def test_a_content_that_came_with_its_data_command_took_no_longer_than_its_submission() -> None:
    async with service() as relay, relay.session() as client:
        began = time.monotonic()
        await client.send("\r\n".join((*ENVELOPE, "x", ".", "")).encode())
        for _ in range(4):
            await client.reply()
        took_s = time.monotonic() - began
        (taken,) = relay.recorder.taken
    assert 0 <= taken.receive_s < took_s
