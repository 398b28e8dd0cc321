"""A client that pipelines commands without end, beside one that has a message to store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, write_config
from tests.support.upstream import Upstream

BLOCK = b"MAIL FROM:<a@x.test>\r\n" + b"RCPT TO:<b@x.test>\r\n" * 1_000 + b"RSET\r\n"
"""no limit of a session is reached by some hundreds of these"""
MESSAGES = 20


class Endless(asyncio.Protocol):
    """Sends commands as fast as they are taken, and counts the replies."""

    def __init__(self) -> None:
        self.replies = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"EHLO x.test\r\n" + BLOCK * 8)

    def data_received(self, data: bytes) -> None:
        before, self.replies = self.replies, self.replies + data.count(b"\r\n")
        for _ in range(self.replies // 1_000 - before // 1_000):
            self.transport.write(BLOCK)


async def test_the_thread_that_commits_goes_on_however_many_commands_a_client_pipelines(tmp_path: Path) -> None:
    """Without workers bulk mail is committed by a thread of this process. Between a final dot and its reply others have
    a few rounds of commands: as many as are read meanwhile, if the loop never rests."""
    async with Upstream() as upstream:
        async with RelayProcess(write_config(tmp_path, {"up": upstream}, workers=0)) as relay:
            loop = asyncio.get_running_loop()
            transport, endless = await loop.create_connection(Endless, *relay.smtp)
            meanwhile = []
            async with Talk(relay.smtp) as app:
                for _ in range(MESSAGES):
                    await app.envelope(BULK, "user@example.net")
                    before = endless.replies
                    app.send(letter(sender=BULK) + b".\r\n")
                    assert (await app.reply()).startswith("250")
                    meanwhile.append(endless.replies - before)
            assert endless.replies > 1_000
            transport.abort()
        assert sum(meanwhile) < 500 * MESSAGES
