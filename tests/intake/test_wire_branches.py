"""The connection where a client gives more than is asked for, or goes in the middle of something."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay.intake.spool import Large
from relay.intake.types import Submission
from tests.intake.harness import PATIENCE_S, listener, service, whole
from tests.support.tls import Certificates

ENVELOPE = ("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA")


async def test_what_a_client_pipelines_while_its_message_is_stored_is_answered_afterwards_all_of_it() -> None:
    stored = asyncio.Event()

    async def slowly(_: Submission) -> None:
        await stored.wait()

    async with service(listener(), before=slowly) as relay, relay.session() as client:
        await client.run(*ENVELOPE)
        # More than the relay holds ready while it is busy: the rest stays with the client until it reads on.
        noop = b"NOOP " + b"x" * 480 + b"\r\n"
        sending = asyncio.create_task(client.send(b"hi\r\n.\r\n" + noop * 800))
        async with asyncio.timeout(PATIENCE_S):
            while not relay.recorder.begun:
                await asyncio.sleep(0.005)
        stored.set()
        await sending
        assert (await client.reply()).startswith("250 2.0.0 queued as")
        assert {(await client.reply())[:3] for _ in range(800)} == {"250"}


async def test_a_large_content_comes_in_whole_by_its_file_at_the_pace_that_is_kept(tmp_path: Path) -> None:
    sizes: list[int] = []

    async def look(submission: Submission) -> None:
        assert isinstance(submission.content, Large)
        sizes.append(len(whole(submission.content)))

    line = b"y" * 998 + b"\r\n"
    async with service(listener(), before=look) as relay:
        relay.server.spool = tmp_path
        async with relay.session() as client:
            for count in (4_000, 300):
                await client.run(*ENVELOPE)
                await client.send(line * count + b".\r\n")
                assert (await client.reply()).startswith("250")
        assert sizes == [4_000_000, 300_000]
        assert relay.server.load().held_back_s["pace"] > 0
    assert not list(tmp_path.iterdir())


async def test_a_client_that_goes_while_its_large_content_is_held_back_leaves_no_file(tmp_path: Path) -> None:
    async with service(listener()) as relay:
        relay.server.spool = tmp_path
        async with relay.session() as client:
            await client.run(*ENVELOPE)
            await client.send(b"y" * 3_000_000)
            client.writer.transport.abort()
        await relay.quiet()
    assert not list(tmp_path.iterdir())


async def test_a_spool_that_can_not_be_written_costs_large_mail_a_452_and_the_session_goes_on(tmp_path: Path) -> None:
    async with service(listener()) as relay:
        relay.server.spool = tmp_path / "gone"
        async with relay.session() as client:
            await client.run(*ENVELOPE)
            for _ in range(4):
                await client.send((b"y" * 998 + b"\r\n") * 200)
            await client.send(b".\r\n")
            assert (await client.reply()).startswith("452 4.3.1")
            assert (await client.run(*ENVELOPE))[-1].startswith("354")
            assert (await client.ask(b"small\r\n.\r\n")).startswith("250")


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
