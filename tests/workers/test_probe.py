"""A worker probes an upstream that was down, although no message waits for a session there."""

from __future__ import annotations

from pathlib import Path

from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, get, time_line, until, until_logged, write_config
from tests.support.upstream import Upstream


async def test_bulk_mail_goes_on_when_its_upstream_is_back(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=1)
        async with RelayProcess(config) as relay:

            async def down() -> bool:
                health = (await get(relay, "/readyz")).document
                return bool(health["lanes"]["bulk"]["upstreams"]["one"]["state"] == "down")

            await until_logged(relay, "event=worker_ready")
            await upstream.pause()
            upstream.reset_sessions()
            async with Talk(relay.smtp) as app:
                message_id = await app.submit(letter(), BULK, "user@example.net")
            await until(down)
            await upstream.resume()
            await time_line(relay, message_id, "sent")
