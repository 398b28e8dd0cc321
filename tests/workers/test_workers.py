"""Bulk mail through a worker process, end to end."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
from pathlib import Path
from typing import Any

import pytest

from relay.store.sqlite.store import open_store
from tests.store.build import exported, message
from tests.store.contract_log import without_events
from tests.support import processes
from tests.support.relay import RelayProcess, command, get, metrics, post, until, until_logged, write_config
from tests.support.upstream import Hang, Upstream


def submit(relay: RelayProcess, count: int, sender: str = "news@example.com") -> None:
    host, port = relay.smtp
    with smtplib.SMTP(host, port, timeout=20) as client:
        for at in range(count):
            client.sendmail(sender, [f"u{at}@example.net"], f"From: {sender}\r\nSubject: {at}\r\n\r\nhello\r\n")


def workers(relay: RelayProcess) -> list[int]:
    """Process ids of the relay's workers."""
    return processes.workers(relay.pid)


async def ready(relay: RelayProcess) -> None:
    await until_logged(relay, "event=worker_ready")


async def states(relay: RelayProcess) -> list[str]:
    answer = await get(relay, "/api/messages?limit=1000")
    return [one["state"] for message in answer.document for one in message["recipients"]]


async def test_bulk_mail_of_a_worker_shows_in_the_common_log_and_metrics(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream})
        async with RelayProcess(config) as relay:
            await ready(relay)
            await asyncio.to_thread(submit, relay, 5)
            await asyncio.to_thread(submit, relay, 2, "no-reply@auth.example.com")
            await upstream.wait_for(7)

            async def all_sent() -> bool:
                return await states(relay) == ["sent"] * 7

            await until(all_sent)
            shown = await metrics(relay)
            assert shown.value("relay_recipients_total", lane="bulk", upstream="up", outcome="sent") == 5
            assert shown.value("relay_recipients_total", lane="otp", upstream="up", outcome="sent") == 2
            assert shown.value("relay_delivery_seconds_count", lane="bulk", upstream="up") == 5
            assert (tmp_path / "relay-bulk1.db").exists()
        listed = await command("log", "-c", config, "--lane", "bulk", "--json")
        assert len(listed.objects) == 5


async def test_a_worker_that_dies_loses_nothing_and_is_started_again(tmp_path: Path) -> None:
    async with Upstream(script={"dot": [Hang()]}) as upstream:
        config = write_config(tmp_path, {"up": upstream})
        async with RelayProcess(config) as relay:
            await ready(relay)
            await asyncio.to_thread(submit, relay, 3)
            await upstream.wait_until(lambda: bool(upstream.transfers))  # else the one that hangs is the next life's
            for pid in workers(relay):
                os.kill(pid, signal.SIGKILL)
            # The relay goes on taking bulk mail meanwhile: it waits in the main store, and is forwarded.
            await asyncio.to_thread(submit, relay, 3)

            async def all_sent() -> bool:
                return await states(relay) == ["sent"] * 6

            await until(all_sent)
            assert len(workers(relay)) == 1


async def test_a_bounce_of_a_code_goes_out_by_the_bulk_lanes_worker(tmp_path: Path) -> None:
    script = {"rcpt": {"u0@example.net": "550 5.1.1 no such user"}}
    async with (
        Upstream(script=script) as upstream,  # type: ignore[arg-type]
        RelayProcess(write_config(tmp_path, {"up": upstream})) as relay,
    ):
        await ready(relay)
        await asyncio.to_thread(submit, relay, 1, "no-reply@auth.example.com")
        await upstream.wait_for(1)
        assert upstream.messages[0].recipients == ("no-reply@auth.example.com",)


async def test_mail_in_a_workers_store_is_sent_after_workers_are_turned_off(tmp_path: Path) -> None:
    dead: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    config = write_config(tmp_path, {"up": dead})
    async with RelayProcess(config) as relay:
        await ready(relay)
        await asyncio.to_thread(submit, relay, 2)
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0)
        acted = await command("queue", "retry", "-c", config, "--all")
        assert acted.code == 0
        async with RelayProcess(config) as relay:
            await upstream.wait_for(2)
            await asyncio.to_thread(submit, relay, 1)
            await upstream.wait_for(3)


async def test_an_operators_action_reaches_the_workers(tmp_path: Path) -> None:
    dead: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    config = write_config(tmp_path, {"up": dead})
    async with RelayProcess(config) as relay:
        await ready(relay)
        await asyncio.to_thread(submit, relay, 3)

        async def deferred() -> bool:
            return await states(relay) == ["deferred"] * 3

        await until(deferred)
        held = await post(relay, "/api/queue/hold", {"lane": "bulk"})
        assert len(held.document["changed"]) == 3
        assert await states(relay) == ["held"] * 3
        dropped = await post(relay, "/api/queue/drop", {"all": True})
        assert len(dropped.document["changed"]) == 3
        assert await states(relay) == ["bounced"] * 3


async def test_a_message_moves_between_stores_whole_and_once(tmp_path: Path) -> None:
    here = await open_store(tmp_path / "here.db", now=lambda: 1000.0)
    there = await open_store(tmp_path / "there.db", now=lambda: 1000.0)
    try:
        new = message("a@example.net", lane="bulk")
        await here.put(new, claimed=False)
        before = await without_events(here, new.id)
        assert await here.messages_for_other_lanes(("otp",), limit=10) == [new.id]
        assert await here.messages_for_other_lanes(("otp", "bulk"), limit=10) == []
        moved = await exported(here, new.id)
        await there.import_message(moved)
        await there.import_message(moved)
        await here.delete_transferred(new.id)
        assert await here.get(new.id) is None
        assert here.size() == (0, 0)
        assert await without_events(there, new.id) == before
        (queued,) = await there.claim("bulk", new.accepted_at, messages=5, size_bytes=10**6)
        assert queued.content == moved.content
    finally:
        await here.close()
        await there.close()


async def test_a_bounce_of_bulk_mail_goes_out_by_the_main_process_when_its_lane_is_express(tmp_path: Path) -> None:
    script = {"rcpt": {"u0@example.net": "550 5.1.1 no such user"}}
    async with Upstream(script=script) as upstream:  # type: ignore[arg-type]
        rules = [{"name": "news", "match": {"sender": "news@*"}, "lane": "bulk"}]
        config = write_config(tmp_path, {"up": upstream}, default_lane="otp", rules=rules)
        async with RelayProcess(config) as relay:
            await ready(relay)
            await asyncio.to_thread(submit, relay, 1)
            await upstream.wait_for(1)
            assert upstream.messages[0].recipients == ("news@example.com",)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("when", ["while it starts", "in the middle of its work"])
async def test_the_workers_end_with_the_main_process(tmp_path: Path, when: str) -> None:
    async with (
        Upstream(script={"dot": [Hang()]}) as upstream,
        RelayProcess(write_config(tmp_path, {"up": upstream}, workers=2)) as relay,
    ):
        if when != "while it starts":
            await ready(relay)
            await asyncio.to_thread(submit, relay, 2)
            await upstream.wait_until(lambda: bool(upstream.transfers))

        async def started() -> bool:
            return len(workers(relay)) == 2

        await until(started)
        pids = workers(relay)
        assert await relay.kill() == -signal.SIGKILL

        async def gone() -> bool:
            return not any(map(alive, pids))

        await until(gone)
