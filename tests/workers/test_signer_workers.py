"""Signing by helpers, end to end: with the helper, without it, and after a kill."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import smtplib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.signing.signatures import LARGE_BYTES
from tests.mail.material import keys, pem
from tests.mail.test_dkim import verdicts
from tests.support.processes import children
from tests.support.relay import RelayProcess, until, until_logged, write_config
from tests.support.upstream import Received, Upstream
from tests.workers.test_workers import alive, ready, states, workers

BOTH = ("s1", "e1")


def configured(directory: Path, upstream: Upstream, *selectors: str) -> Path:
    """Mail from example.com is signed with these."""
    entries: list[dict[str, Any]] = []
    for selector, key in keys(*selectors).items():
        path = directory / f"{selector}.pem"
        path.write_bytes(pem(key))
        path.chmod(0o600)
        entries.append({"selector": selector, "key_file": str(path)})
    return write_config(directory, {"up": upstream}, dkim=[{"domain": "example.com", "keys": entries}], workers=1)


def submit(
    relay: RelayProcess,
    numbers: Sequence[int],
    sender: str = "news@example.com",
    size_bytes: int = 10,
    line: str = "hello world",
) -> None:
    host, port = relay.smtp
    with smtplib.SMTP(host, port, timeout=20) as client:
        for at in numbers:
            text = f"From: {sender}\r\nSubject: {at}\r\n\r\n" + f"{line}\r\n" * (size_bytes // 13 + 1)
            client.sendmail(sender, [f"u{at}@example.net"], text)


def selectors_of(content: bytes) -> list[str]:
    return [each.decode() for each in re.findall(rb"^\ts=([a-z0-9]+);", content, re.M)]


def assert_signed(messages: Sequence[Received], *selectors: str) -> None:
    """By these keys; each recipient got it once."""
    for each in messages:
        assert selectors_of(each.content) == list(selectors)
        assert verdicts(each.content, *selectors) == [True] * len(selectors)
    assert set(Counter(each.recipients for each in messages).values()) == {1}


def turns(pid: int) -> int:
    """How often it waited for something, and found it."""
    found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


async def helper_of(relay: RelayProcess) -> tuple[int, int]:
    """The process ids of the worker and of its helper."""
    await ready(relay)
    (worker,) = workers(relay)
    (helper,) = children(worker)
    return worker, helper


async def test_bulk_mail_is_signed_by_the_helper_and_after_a_reload_with_the_new_keys(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(configured(tmp_path, upstream, *BOTH)) as relay:
        _, helper = await helper_of(relay)
        before = turns(helper)
        await asyncio.to_thread(submit, relay, range(10))
        await upstream.wait_for(10)
        assert turns(helper) > before
        await asyncio.to_thread(submit, relay, [10], size_bytes=2 * LARGE_BYTES)
        await asyncio.to_thread(submit, relay, [11], sender="no-reply@auth.example.com")
        assert_signed(await upstream.wait_for(12), *BOTH)
        await asyncio.to_thread(submit, relay, [12], line="x" * 2_000)
        long = (await upstream.wait_for(13))[12]
        assert_signed([long], *BOTH)
        assert max(map(len, long.content.split(b"\r\n"))) <= 998

        configured(tmp_path, upstream, "e2", "s2")
        relay.send(signal.SIGHUP)
        await until_logged(relay, "event=reloaded success=true")
        before = turns(helper)
        await asyncio.to_thread(submit, relay, range(13, 23))
        assert_signed((await upstream.wait_for(23))[13:], "e2", "s2")
        assert turns(helper) > before
        assert "event=trouble" not in relay.stderr


async def test_a_helper_that_dies_in_the_midst_of_mail_costs_no_message_its_signature(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(configured(tmp_path, upstream, *BOTH)) as relay:
        worker, helper = await helper_of(relay)
        await asyncio.to_thread(submit, relay, range(5))
        await upstream.wait_for(5)
        os.kill(helper, signal.SIGSTOP)  # what comes now waits for it
        going_on = asyncio.create_task(asyncio.to_thread(submit, relay, range(5, 40)))
        await asyncio.sleep(0.1)
        os.kill(helper, signal.SIGKILL)
        await going_on
        assert_signed(await upstream.wait_for(40), *BOTH)

        async def settled() -> bool:
            return await states(relay) == ["sent"] * 40

        await until(settled)
        await until_logged(relay, "event=trouble where=sign")
        assert relay.stderr.count("event=trouble") == 1
        # Seen off, not left as a zombie; and the worker is the one it was.
        assert (workers(relay), children(worker)) == ([worker], [])

        configured(tmp_path, upstream, "s2")
        relay.send(signal.SIGHUP)
        await until_logged(relay, "event=reloaded success=true")
        await asyncio.to_thread(submit, relay, range(40, 45))
        assert_signed((await upstream.wait_for(45))[40:], "s2")


async def test_a_worker_that_is_killed_leaves_no_helper_behind_and_the_next_one_has_its_own(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(configured(tmp_path, upstream, *BOTH)) as relay:
        worker, helper = await helper_of(relay)
        os.kill(worker, signal.SIGKILL)

        async def gone() -> bool:
            return not alive(helper)

        async def again() -> bool:
            return relay.stderr.count("event=worker_ready") == 2

        await until(gone)
        await until(again)
        _, second = await helper_of(relay)
        assert second != helper
        await asyncio.to_thread(submit, relay, range(3))
        assert_signed(await upstream.wait_for(3), *BOTH)
        await relay.terminate()
        assert not alive(second)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_codes_go_out_signed_when_the_main_process_has_lost_its_helper(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with Upstream() as upstream, RelayProcess(configured(tmp_path, upstream, *BOTH)) as relay:
        worker, _ = await helper_of(relay)
        (helper,) = set(children(relay.pid)) - {worker}
        sender = "no-reply@auth.example.com"
        before = turns(helper)
        await asyncio.to_thread(submit, relay, range(3), sender)
        assert turns(helper) > before
        os.kill(helper, how)
        await asyncio.to_thread(submit, relay, range(3, 20), sender)
        assert_signed(await upstream.wait_for(20), *BOTH)

        async def logged() -> bool:
            await asyncio.to_thread(submit, relay, [len(upstream.messages)], sender)
            return "event=trouble where=sign" in relay.stderr

        await until(logged)
        assert children(relay.pid) == [worker]
        assert_signed(upstream.messages, *BOTH)
