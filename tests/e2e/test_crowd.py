"""More clients than the process has descriptors for: each hears that, none is cut off without a word."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.app import OTP, Talk, letter
from tests.support.relay import RelayProcess, until_logged, write_config
from tests.support.upstream import Upstream

DESCRIPTORS = 400
LIMITED = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", sys.executable, "-m", "relay")


async def test_where_descriptors_are_few_clients_too_many_are_told_so(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0)
        async with RelayProcess(config, program=LIMITED) as relay, AsyncExitStack() as stack:
            await until_logged(relay, "event=connections_lowered")
            code = await stack.enter_async_context(Talk(relay.smtp))

            async def come() -> str:
                client = await stack.enter_async_context(Talk(relay.smtp, bare=True))
                return (await client.reply())[:3]

            greetings = await asyncio.gather(*(come() for _ in range(DESCRIPTORS // 2)))
            assert set(greetings) == {"220", "421"}
            for _ in range(20):
                assert await come() == "421"
            await code.submit(letter(sender=OTP), OTP, "user@example.net")
            await upstream.wait_for(1)
