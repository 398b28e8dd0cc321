"""Who gives too much, or nothing at all: the relay says 4xx, stays within its memory, and recovers by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import BULK, OTP, QUEUED, Talk, letter, stuffed
from tests.support.processes import workers
from tests.support.relay import RelayProcess, get, metrics, time_line, until, upstream_keys, write_config
from tests.support.upstream import Upstream, Wait

MB = 1_000_000


def memory_bytes(relay: RelayProcess) -> int:
    """What the relay and its workers have resident, shared pages counted for each."""
    return sum(_resident(pid) for pid in (relay.pid, *workers(relay.pid)))


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


async def code_goes_out(talk: Talk, relay: RelayProcess, to: str) -> None:
    message_id = await talk.submit(letter(sender=OTP), OTP, to)
    await time_line(relay, message_id, "sent")


@pytest.mark.fresh
async def test_an_upstream_slower_than_intake_ends_in_452_not_in_memory_and_it_recovers(tmp_path: Path) -> None:
    goes_on = asyncio.Event()
    script: Any = {"dot": lambda moment: None if moment.n == 0 else Wait(goes_on)}
    content = letter("z" * 70 + "\r\n" + ("y" * 76 + "\r\n") * 1_300)
    async with Upstream() as quick, Upstream(script=script) as slow:
        lanes = {
            "otp": {"upstreams": ["quick"], "retry": ["1s"], "expires": "10m"},
            "bulk": {"upstreams": ["slow"], "retry": ["1s"], "expires": "2d"},
        }
        keys = upstream_keys(slow, sessions={"max": 4})
        config = write_config(
            tmp_path, {"quick": quick, "slow": keys}, lanes=lanes, queue={"max_bytes": "60MB"}, workers=1
        )
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            accepted: list[str] = [await app.submit(content, BULK, "first@example.net")]
            await slow.wait_for(1)
            before_bytes = memory_bytes(relay)

            async def submit_until_refused(n: int) -> str:
                async with Talk(relay.smtp) as bulk:
                    for m in range(1_000):
                        said = await bulk.ask(f"MAIL FROM:<{BULK}>")
                        if not said.startswith("250"):
                            return said
                        await bulk.ask(f"RCPT TO:<bulk{n}-{m}-{len(accepted)}@example.net>")
                        said = await bulk.ask("DATA")
                        if not said.startswith("354"):
                            return said
                        bulk.send(stuffed(content) + b".\r\n")
                        queued = QUEUED.fullmatch(await bulk.reply())
                        assert queued is not None
                        accepted.append(queued[1])
                return "took everything"

            async def told() -> bool:
                """What was just given to a worker may be counted twice until it says how it is."""
                waiting = (await get(relay, "/readyz")).document["queue"]
                # Each of the four may have been past the question when the limit was reached.
                assert abs(waiting["bytes"] - waiting["max_bytes"]) < 8 * (len(content) + 1_000)
                return bool(waiting["messages"] == len(accepted) - 1)

            async def full() -> bool:
                said = await asyncio.gather(*map(submit_until_refused, range(4)))
                assert {one[:9] for one in said} == {"452 4.3.1"}
                await until(told)
                answer = await get(relay, "/readyz")
                return (answer.status, answer.document["reasons"]) == (503, ["queue full: max_bytes"])

            await until(full)
            seen = await metrics(relay)
            assert seen.value("relay_queue_limit", limit="max_bytes") == 60 * MB
            assert seen.value("relay_queue_messages") == len(accepted) - 1
            assert seen.value("relay_messages_rejected_total", reason="busy") >= 4
            assert 1 <= seen.value("relay_upstream_window", lane="bulk", upstream="slow") <= 4  # the worker's
            assert {"lane": "otp", "upstream": "quick"} not in seen.labels("relay_upstream_window")
            # A part of what waits: what is on its way, and SQLite's caches.
            assert memory_bytes(relay) - before_bytes < 50 * MB

            goes_on.set()

            async def is_ready() -> bool:
                return (await get(relay, "/readyz")).status == 200

            await until(is_ready)
            await code_goes_out(app, relay, "code@example.net")
            accepted.append(await app.submit(content, BULK, "last@example.net"))
            await slow.wait_for(len(accepted))
        assert len(slow.messages) == len(accepted)
        assert len({one.recipients for one in slow.messages}) == len(accepted)


@contextlib.asynccontextmanager
async def silent(place: tuple[str, int], source: str, count: int) -> AsyncIterator[Sequence[str]]:
    """So many connections from there that say nothing; what each was greeted with."""
    talks: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        said = []
        for _ in range(count):
            talks.append(await asyncio.open_connection(*place, local_addr=(source, 0)))
            said.append((await asyncio.wait_for(talks[-1][0].readline(), 20))[:3].decode())
        yield said
    finally:
        for _, writer in talks:
            writer.transport.abort()


@pytest.mark.fresh
async def test_500_connections_that_say_nothing_reach_their_limits_and_time_out(tmp_path: Path) -> None:
    limits = {"connections": 420, "connections_per_client": 300, "command_timeout": "3s"}
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, limits=limits, workers=0)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            await code_goes_out(app, relay, "first@example.net")
            before_bytes = memory_bytes(relay)
            async with silent(relay.smtp, "127.0.0.2", 320) as one, silent(relay.smtp, "127.0.0.3", 180) as other:
                assert (one.count("220"), one.count("421")) == (300, 20)
                assert (other.count("220"), other.count("421")) == (119, 61)
                await code_goes_out(app, relay, "second@example.net")
                assert memory_bytes(relay) - before_bytes < 30 * MB

                async def nobody_is_left() -> bool:
                    intake = (await get(relay, "/readyz")).document["intake"]
                    return int(intake["sessions"]) <= 1

                await until(nobody_is_left)
                # They still hold their ends of the connections; the places are free.
                async with Talk(relay.smtp) as again:
                    await code_goes_out(again, relay, "third@example.net")
            seen = await metrics(relay)
            assert seen.value("relay_messages_rejected_total", reason="connections") == 81
            assert seen.value("relay_messages_rejected_total", reason="timeout") >= 419


async def test_100_clients_that_send_data_byte_by_byte_are_each_understood_and_no_code_waits(tmp_path: Path) -> None:
    content = letter("..a.\r\n.\rb.\r\n".replace("\r\n.\r", "\r\n.."))

    async def drip(relay: RelayProcess, n: int) -> None:
        async with Talk(relay.smtp) as talk:
            talk.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await talk.envelope(BULK, f"drip{n}@example.net")
            for byte in stuffed(content) + b".\r\n":
                talk.send(bytes((byte,)))
                await asyncio.sleep(0)
            assert QUEUED.fullmatch(await talk.reply())

    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=0)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            dripping = [asyncio.create_task(drip(relay, n)) for n in range(100)]
            await code_goes_out(app, relay, "code@example.net")
            await asyncio.gather(*dripping)
            await upstream.wait_for(101)
        body = content.partition(b"\r\n\r\n")[2]
        dripped = [one for one in upstream.messages if one.sender == BULK]
        assert len({one.recipients for one in dripped}) == 100
        assert all(one.content.endswith(b"\r\n\r\n" + body) for one in dripped)
