"""The connection: pipelining, replies that are not read, memory, contents that come in by files, lost clients."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Listener
from relay.config.network import UnixAddress
from relay.intake.connection import Connection
from relay.intake.listener import LoadedListener
from relay.intake.spool import Large
from relay.intake.types import Submission
from tests.intake.harness import Client, Service, listener, service, until, whole
from tests.support.tls import Certificates

ENVELOPE = ("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA")


class Written(asyncio.Transport):
    """A transport that keeps what is written to it, write by write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    async def wait_for(self, count: int) -> None:
        await until(lambda: len(self.writes) >= count)

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def greeted(relay: Service) -> tuple[Connection, Written]:
    """A connection without a socket that has had its greeting."""
    loaded, transport = LoadedListener.load(listener()), Written()
    connection = relay.server.connection(lambda: loaded)
    connection.connection_made(transport)
    await transport.wait_for(1)
    return connection, transport


# Pipelining.


async def test_a_pipelined_batch_is_answered_in_order_in_one_write() -> None:
    async with service() as relay:
        connection, transport = await greeted(relay)
        connection.data_received(b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nRCPT TO:<>\r\nDATA\r\n")
        await transport.wait_for(2)
        connection.data_received(b"Subject: x\r\n\r\n.\r\nNOOP\r\nQUIT\r\n")
        await transport.wait_for(3)
        connection.connection_lost(None)
    assert len(transport.writes) == 3
    assert [line[:3] for line in transport.writes[1].split(b"\r\n")][-5:] == [b"250", b"250", b"553", b"354", b""]
    assert [line[:3] for line in transport.writes[2].split(b"\r\n")] == [b"250", b"250", b"221", b""]


async def test_a_client_that_never_reads_its_replies_is_made_to_wait_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    async with service(Listener(address=UnixAddress(str(path))), limits={"command_timeout_s": 0.3}) as relay:
        reader, writer = await asyncio.open_unix_connection(path)
        await Client(reader, writer).hello()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write((b"MAIL FROM:<a@x.test>\r\n" + b"RCPT TO:<b@x.test>\r\n" * 1_000 + b"RSET\r\n") * 60)
        await relay.quiet()
        writer.close()
    # A client that is silent is answered 421 and counted as timed out. This one is cut off without a reply.
    assert relay.heard.reasons == []


async def test_replies_held_back_are_sent_once_the_client_reads() -> None:
    async with service() as relay:
        connection, transport = await greeted(relay)
        connection.pause_writing()
        connection.data_received(b"NOOP\r\n")
        await transport.wait_for(2)
        connection.data_received(b"NOOP\r\n")
        other, other_transport = await greeted(relay)
        other.data_received(b"NOOP\r\n")
        await other_transport.wait_for(2)
        assert len(transport.writes) == 2
        connection.resume_writing()
        await transport.wait_for(3)
        assert transport.writes[1:] == [b"250 2.0.0 Ok\r\n"] * 2
        for each in (connection, other):
            each.connection_lost(None)


async def test_what_a_client_pipelines_while_its_message_is_stored_is_answered_afterwards_all_of_it() -> None:
    stored = asyncio.Event()

    async def slowly(_: Submission) -> None:
        await stored.wait()

    async with service(listener(), before=slowly) as relay, relay.session() as client:
        await client.run(*ENVELOPE)
        # More than the relay holds ready while it is busy: the rest stays with the client until it reads on.
        noop = b"NOOP " + b"x" * 480 + b"\r\n"
        sending = asyncio.create_task(client.send(b"hi\r\n.\r\n" + noop * 800))
        await until(lambda: relay.recorder.begun == 1)
        stored.set()
        await sending
        assert (await client.reply()).startswith("250 2.0.0 queued as")
        assert {(await client.reply())[:3] for _ in range(800)} == {"250"}


# Memory.


async def test_a_line_without_end_is_refused_once_and_takes_no_memory() -> None:
    async with service() as relay, relay.session() as client:
        tracemalloc.start()
        await client.send(b"MAIL FROM:<")
        for _ in range(200):
            await client.send(b"x" * 100_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert await client.ask("") == "500 5.5.6 Line too long"
        assert await client.ask("NOOP") == "250 2.0.0 Ok"
    assert peak < 3_000_000


async def test_data_without_end_takes_no_more_memory_than_the_limit() -> None:
    async with service(limits={"message_size_bytes": 100_000}) as relay, relay.session() as client:
        await client.run(*ENVELOPE)
        tracemalloc.start()
        for _ in range(200):
            await client.send(b"x" * 100_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (await client.ask("\r\n.")).startswith("552 5.3.4")
        assert await client.ask("NOOP") == "250 2.0.0 Ok"
    assert peak < 3_000_000
    assert relay.heard.reasons == ["size"]


async def test_a_client_that_pipelines_without_pause_fills_no_buffer_while_its_mail_is_stored() -> None:
    stored = asyncio.Event()

    async def slowly(_: Submission) -> None:
        await stored.wait()

    chunk = b"NOOP " + b"x" * 480 + b"\r\n"
    async with service(before=slowly) as relay:
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.setblocking(False)
            client.send(b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n.\r\n")
            await until(lambda: relay.recorder.begun == 1)
            tracemalloc.start()
            refused = 0
            while refused < 50:
                try:
                    client.send(chunk * 100)
                except BlockingIOError:
                    refused += 1
                    await asyncio.sleep(0.002)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            stored.set()
            await relay.recorder.wait_for(1)
    assert peak < 1_000_000


# Contents by files.


async def test_a_large_content_comes_in_whole_by_its_file_at_the_pace_that_is_kept(tmp_path: Path) -> None:
    sizes: list[int] = []

    async def look(submission: Submission) -> None:
        assert isinstance(submission.content, Large)
        sizes.append(len(whole(submission.content)))

    line = b"y" * 998 + b"\r\n"
    async with service(listener(), before=look, spool=tmp_path) as relay:
        async with relay.session() as client:
            for count in (4_000, 300):
                await client.run(*ENVELOPE)
                await client.send(line * count + b".\r\n")
                assert (await client.reply()).startswith("250")
        assert sizes == [4_000_000, 300_000]
        assert relay.server.load().held_back_s["pace"] > 0
    assert not list(tmp_path.iterdir())


async def test_a_client_that_goes_while_its_large_content_is_held_back_leaves_no_file(tmp_path: Path) -> None:
    async with service(listener(), spool=tmp_path) as relay:
        async with relay.session() as client:
            await client.run(*ENVELOPE)
            await client.send(b"y" * 3_000_000)
            client.writer.transport.abort()
        await relay.quiet()
    assert not list(tmp_path.iterdir())


async def test_a_spool_that_can_not_be_written_costs_large_mail_a_452_and_the_session_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(listener(), spool=tmp_path / "gone") as relay, relay.session() as client:
        await client.run(*ENVELOPE)
        for _ in range(4):
            await client.send((b"y" * 998 + b"\r\n") * 200)
        await client.send(b".\r\n")
        assert (await client.reply()).startswith("452 4.3.1")
        assert (await client.run(*ENVELOPE))[-1].startswith("354")
        assert (await client.ask(b"small\r\n.\r\n")).startswith("250")
    assert 'event=trouble where=spool error=SpoolFailed reason="No such file or directory"' in caplog.messages


# Lost clients.


@pytest.mark.parametrize("abort", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_asks_for_tls_and_goes_ends_its_session_only(
    certificates: Certificates, abort: bool
) -> None:
    keys = {"tls": "starttls", "cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
    async with service(listener(**keys)) as relay:
        async with relay.session() as client:
            await client.send(b"STARTTLS\r\n")
            if abort:
                client.writer.transport.abort()
            else:
                client.writer.write_eof()
            await relay.quiet()
        async with relay.session() as again:
            assert (await again.ask("NOOP")).startswith("250")


@pytest.mark.parametrize("last", ["QUIT", "FIN"])
async def test_a_connection_that_ended_is_freed_without_the_garbage_collector(last: str) -> None:
    async with service() as relay:
        gc.collect()
        gc.disable()
        try:
            async with relay.session() as client:
                (ended,) = [weakref.ref(one) for one in gc.get_objects() if isinstance(one, Connection)]
                if last == "QUIT":
                    assert (await client.ask("QUIT")).startswith("221 ")
            await until(lambda: ended() is None)
        finally:
            gc.enable()
