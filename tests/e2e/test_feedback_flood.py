"""Floods of webhooks, good and bad: each gets a clear status, codes go on, and memory stays."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.test_feedback import submit
from tests.e2e.test_feedback_life import basic, configured, delivered, feedback_of, hook, post, relay_of, upstream
from tests.support.relay import RelayProcess, metrics, time_line, until

CODE = "Remote said: your code 493871, password hunter22"
MOST_GROWN_KB = 40_000
"""bodies in hand, and what is read of them"""


def most_resident_kb(process: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1])


async def test_ten_thousand_events_and_large_bodies_leave_codes_and_memory_alone(tmp_path: Path) -> None:
    async with upstream() as esp, relay_of(configured(tmp_path, esp)) as relay:
        first = await submit(relay, "ann@example.org")
        (received,) = await esp.wait_for(1)
        await time_line(relay, first, "sent")
        one = json.loads(delivered(received))
        batch = json.dumps([{**one, "MessageID": f"id-{number % 5}"} for number in range(10_000)]).encode()
        deep = b"[" * 1_000_000 + b"]" * 1_000_000
        large, too_large = b" " * (5 * 1024 * 1024), b" " * (5 * 1024 * 1024 + 1)
        assert await post(hook(relay), large) == 400
        process = feedback_of(relay)
        assert process is not None
        before_kb = most_resident_kb(process)
        bad = {deep: 400, large: 400, too_large: 413, b"{" + CODE.encode(): 400}
        asked: list[Coroutine[Any, Any, int]] = [post(hook(relay), body) for body in bad for _ in range(3)]
        flood = asyncio.gather(post(hook(relay), batch), *asked)
        codes = [await submit(relay, f"user{number}@example.org") for number in range(10)]
        for code in codes:
            await time_line(relay, code, "sent")
        assert await flood == [200, *(status for status in bad.values() for _ in range(3))]
        assert feedback_of(relay) == process
        assert most_resident_kb(process) - before_kb < MOST_GROWN_KB
        line = await time_line(relay, first, "sent")
        assert [each["kind"] for each in line["recipients"][0]["events"]] == ["accepted", "sent", *["delivered"] * 5]


async def test_no_line_or_metric_of_the_process_quotes_what_is_posted(tmp_path: Path) -> None:
    async with upstream() as esp, relay_of(configured(tmp_path, esp)) as relay:
        sent = await submit(relay, "gwen@example.org")
        (received,) = await esp.wait_for(1)
        await time_line(relay, sent, "sent")
        bounce = {**json.loads(delivered(received)), "RecordType": "Bounce", "Type": "HardBounce", "Details": CODE}
        bounce |= {"Email": "gwen@example.org", "Description": CODE, "Subject": CODE}
        assert await post(hook(relay), json.dumps(bounce).encode()) == 200
        assert await post(hook(relay), json.dumps({**bounce, "Email": "eve@example.org"}).encode()) == 200
        for _ in range(30):
            assert await post(hook(relay), json.dumps(bounce).encode(), f"hook:{CODE}") == 401
        line = await time_line(relay, sent, "bounced")

        async def is_counted() -> bool:
            seen = await metrics(relay)
            return seen.value("relay_webhook_requests_total", upstream="postmark", result="refused") == 30

        await until(is_counted)
        shown = relay.stderr + json.dumps(line["recipients"][0]["events"]) + await scrape(relay)
        assert shown.count("event=webhook_refused") == 1
        assert shown.count("level=info event=event_ignored") == shown.count("event=event_ignored") == 1
        assert not [one for one in ("493871", "hunter22", "s3cret") if one in shown]
        assert not [one for one in ("gwen@", "eve@", "Remote said") if one in relay.stderr]


async def scrape(relay: RelayProcess) -> str:
    async with (
        aiohttp.ClientSession(headers=basic("x:y")) as session,
        session.get(f"http://{relay.http_address}/metrics") as answer,
    ):
        return await answer.text()


async def test_a_damaged_events_file_is_named_and_stops_no_code(tmp_path: Path) -> None:
    (tmp_path / "relay-events.db").write_bytes(b"not SQLite" * 2_000)
    async with upstream() as esp, relay_of(configured(tmp_path, esp)) as relay:
        message_id = await submit(relay, "ann@example.org")
        line = await time_line(relay, message_id, "sent")
        assert [one["kind"] for one in line["recipients"][0]["events"]] == ["accepted", "sent"]

        async def is_named() -> bool:
            return "relay-events.db" in relay.stderr

        await until(is_named)
    assert (tmp_path / "relay-events.db").read_bytes() == b"not SQLite" * 2_000
