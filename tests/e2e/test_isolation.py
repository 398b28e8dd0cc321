"""Whatever happens to bulk mail, codes go out."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.processes import workers
from tests.support.relay import RelayProcess, get, metrics, time_line, until, upstream_keys, write_config
from tests.support.upstream import Hang, Upstream

WAITING = 300


async def fill(relay: RelayProcess, messages: int = WAITING) -> None:
    """Bulk mail that waits."""

    async def some(n: int) -> None:
        async with Talk(relay.smtp) as app:
            for m in range(messages // 6):
                await app.submit(letter(), BULK, f"bulk{n}-{m}@example.net")

    await asyncio.gather(*map(some, range(6)))


async def codes_go_out(relay: RelayProcess, upstream: Upstream) -> None:
    async with Talk(relay.smtp) as app:
        for n in range(10):
            message_id = await app.submit(letter(sender=OTP), OTP, f"code{n}@example.net")
            shown = await time_line(relay, message_id, "sent", within_s=10)
            assert [one["outcome"] for one in shown["recipients"][0]["attempts"]] == ["sent"]
    assert sum(one.sender == OTP for one in upstream.messages) == 10


@pytest.mark.parametrize(("step", "workers"), [("mail", 0), ("greeting", 1), ("mail", 1), ("dot", 1)])
async def test_codes_go_out_while_bulk_has_an_upstream_that_hangs(tmp_path: Path, step: str, workers: int) -> None:
    script: Any = {step: Hang()}
    async with Upstream() as good, Upstream(script=script) as hangs:
        lanes = {
            "otp": {"upstreams": ["good"], "retry": ["200ms"], "expires": "10m"},
            "bulk": {"upstreams": ["hangs"], "retry": ["1s"], "expires": "2d"},
        }
        config = write_config(tmp_path, {"good": good, "hangs": hangs}, lanes=lanes, workers=workers, shutdown="0s")
        async with RelayProcess(config) as relay:
            await fill(relay)
            await codes_go_out(relay, good)

            async def everything_waits() -> bool:
                """A message on its way to the other process is in two files, and counted twice, for a moment."""
                seen = await metrics(relay)
                states = ("queued", "sending", "deferred")
                found = [seen.value("relay_queue_recipients", lane="bulk", state=state) for state in states]
                return sum(found) == WAITING

            await until(everything_waits)
            assert (await get(relay, "/readyz")).status == 200


@pytest.mark.parametrize("sessions", [1, 3])
async def test_codes_go_out_over_the_very_upstream_that_hangs_on_bulk(tmp_path: Path, sessions: int) -> None:
    script: Any = {"dot": lambda moment: None, "mail": {BULK: Hang()}}
    async with Upstream(script=script) as upstream:
        keys = upstream_keys(upstream, sessions={"max": sessions})
        config = write_config(tmp_path, {"one": keys}, workers=1, shutdown="0s")
        async with RelayProcess(config) as relay:
            if sessions > 1:
                await fill(relay, 60)
                await upstream.wait_until(lambda: any("MAIL" in one.verbs for one in upstream.sessions))
            await codes_go_out(relay, upstream)
            assert upstream.peak <= sessions


async def test_codes_go_out_while_clients_hold_connections_and_say_nothing(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream}, workers=0)) as relay:
        silent = [Talk(relay.smtp, bare=True) for _ in range(100)]
        half = [Talk(relay.smtp) for _ in range(20)]
        for talk in (*silent, *half):
            await talk.__aenter__()
        try:
            for talk in half:
                await talk.envelope(BULK, "half@example.net")
                talk.send(b"Subject: no end\r\n\r\n" + b"x" * 70 + b"\r\n")
            await codes_go_out(relay, upstream)
        finally:
            for talk in (*silent, *half):
                await talk.__aexit__(None, None, None)


async def test_codes_go_out_while_large_mail_comes_in(tmp_path: Path) -> None:
    large = letter("x" * 76 + "\r\n" + ("y" * 76 + "\r\n") * 100_000)

    async def submit(relay: RelayProcess, n: int) -> None:
        async with Talk(relay.smtp) as app:
            await app.submit(large, BULK, f"large{n}@example.net")

    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream}, workers=1)) as relay:
        several = [asyncio.create_task(submit(relay, n)) for n in range(4)]
        await codes_go_out(relay, upstream)
        await asyncio.wait_for(asyncio.gather(*several), 30)

        async def is_empty() -> bool:
            return not (await get(relay, "/api/queue")).document["lanes"]

        await until(is_empty, within_s=30)
    assert [one.content.count(b"y" * 76 + b"\r\n") for one in upstream.messages if one.sender == BULK] == [100_000] * 4


async def test_codes_go_out_and_metrics_answer_while_the_process_for_bulk_stands_still(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream}, workers=1)) as relay:
        await fill(relay, 6)
        await upstream.wait_for(6)
        (worker,) = workers(relay.pid)
        os.kill(worker, signal.SIGSTOP)
        try:
            await codes_go_out(relay, upstream)
            seen = await metrics(relay)
            assert seen.value("relay_recipients_total", lane="otp", upstream="one", outcome="sent") == 10
            assert (await get(relay, "/healthz")).status == 200
        finally:
            os.kill(worker, signal.SIGCONT)
        await fill(relay, 6)
        await upstream.wait_for(22)
