"""A program that reads the relay's stderr, and stops to: journald that stalls, `docker logs`, `| tee` at ^S."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from relay.demo.process import RelayProcess
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import get, metrics, until, until_logged, write_config
from tests.support.upstream import Upstream

PIPE_BYTES = 4096
MOST_CHARACTERS = 3000
WITH_A_SHORT_QUEUE = (
    "import sys; from relay.observe import log_output;"
    f" log_output.MAX_WAITING_CHARS = {MOST_CHARACTERS}; from relay.__main__ import main; sys.exit(main())"
)


class Stopping(RelayProcess):
    """Its stderr is read up to the ready line, and not again until `go_on`."""

    def stop(self) -> None:
        pipe = self._pipe
        fcntl.fcntl(pipe.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        pipe.pause_reading()

    def go_on(self) -> None:
        self._pipe.resume_reading()

    @property
    def _pipe(self) -> asyncio.ReadTransport:
        transport = cast(Any, self._running)._transport
        return cast(asyncio.ReadTransport, transport.get_pipe_transport(2))


@pytest.mark.parametrize("workers", [0, 1])
async def test_mail_flows_while_nothing_reads_the_log_and_what_was_lost_is_said(tmp_path: Path, workers: int) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=workers)
        async with Stopping(config, program=(sys.executable, "-c", WITH_A_SHORT_QUEUE)) as relay:
            if workers:
                await until_logged(relay, "event=worker_ready")
            relay.stop()
            async with Talk(relay.smtp) as talk:
                for number in range(100):
                    await talk.submit(letter(), OTP if number % 2 else BULK, f"n{number}@example.net")
            assert (await get(relay, "/healthz")).status == 200

            async def all_sent() -> bool:
                return len(upstream.messages) == 100

            await until(all_sent)
            assert (await metrics(relay)).value("relay_log_lines_lost_total") > 0
            relay.go_on()

            async def all_lost_are_logged() -> bool:
                # Read anew: the lines of the last messages may come after those messages were sent.
                lost = (await metrics(relay)).value("relay_log_lines_lost_total")
                return sum(map(int, re.findall(r"event=lines_lost n=(\d+)", relay.stderr))) == lost

            await until(all_lost_are_logged)
            before = relay.stderr.count("event=sent")
            async with Talk(relay.smtp) as talk:
                await talk.submit(letter(), OTP, "last@example.net")

            async def flows() -> bool:
                return relay.stderr.count("event=sent") > before

            await until(flows)
            assert await relay.terminate() == 0


async def test_a_relay_whose_log_nothing_reads_ends_in_order(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0)
        async with Stopping(config) as relay:
            relay.stop()
            async with Talk(relay.smtp) as talk:
                for number in range(60):
                    await talk.submit(letter(), OTP, f"n{number}@example.net")
            relay.send(signal.SIGTERM)

            async def ended() -> bool:
                return relay._running.returncode is not None

            await until(ended)
            relay.go_on()
            assert await relay.wait() == 0


async def test_lines_that_were_logged_before_a_start_fails_come_first(tmp_path: Path) -> None:
    broken = (
        "import sys; import relay.service.app; from relay.__main__ import main;"
        "import logging; relay.service.app.App.__init__ = lambda *_: logging.error('first') or 1 / 0; sys.exit(main())"
    )
    config = write_config(tmp_path, {"up": {"host": "127.0.0.1", "port": 9}})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", broken, "run", "-c", config, stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    _, err = await process.communicate()
    text = err.decode()
    assert process.returncode == 1
    assert (
        0
        < text.find("level=error event=log source=root text=first")
        < text.find("Traceback")
        < text.find("ZeroDivisionError")
    )
