"""A worker whose event loop hangs is killed and replaced, and its mail goes on. The time limits are shorter than the
relay's, which allow for a busy machine."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from relay.config.load import load
from relay.service.app import App
from relay.store.model import Selection
from relay.store.sqlite.reader import Reader
from relay.workers import handle, life
from relay.workers.spawn import Started, spawn
from tests.support import processes
from tests.support.app import BULK, Talk, letter
from tests.support.processes import children
from tests.support.relay import until, write_config
from tests.support.upstream import Hang, Upstream


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "SILENT_FOR_S", 1.0)
    monkeypatch.setattr(life, "PING_EVERY_S", 0.1)


def workers() -> list[int]:
    return processes.workers(os.getpid())


async def states(app: App) -> Counter[str]:
    rows = [row for path in ("relay.db", "relay-bulk1.db") for row in await counted(app.config.store.parent / path)]
    return Counter(rows)


async def counted(path: Path) -> list[str]:
    reader = Reader.open(path)
    try:
        found = reader.search(Selection(limit=100))
    finally:
        reader.close()
    return [one["state"] for message in found for one in message["recipients"]]


def ready(caplog: pytest.LogCaptureFixture, times: int) -> bool:
    return caplog.text.count("event=worker_ready") >= times


@pytest.mark.parametrize("on_ambiguous", ["resend", "hold"])
async def test_a_worker_that_hangs_is_replaced_and_its_mail_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, on_ambiguous: str
) -> None:
    caplog.set_level("INFO")
    async with Upstream(script={"dot": ["250 2.0.0 ok", Hang()]}) as upstream:
        lanes = {
            "bulk": {
                "upstreams": ["up"], "retry": ["1s"], "expires": "2d", "concurrency": 1, "on_ambiguous": on_ambiguous
            }
        }  # fmt: skip
        config = write_config(tmp_path, {"up": upstream}, lanes=lanes, rules=[], workers=1)
        async with App(load(config, {})) as app:

            async def is_ready() -> bool:
                return ready(caplog, 1)

            await until(is_ready)
            (pid,) = workers()
            host, _, port = app.smtp_addresses[0].rpartition(":")
            async with Talk((host, int(port))) as one, Talk((host, int(port))) as other:
                for n in range(4):
                    await one.submit(letter(), BULK, f"user{n}@example.net")

                async def in_the_middle() -> bool:
                    return (await states(app))["sent"] == 1 and len(upstream.transfers) == 2

                await until(in_the_middle)
                os.kill(pid, signal.SIGSTOP)
                # It is accepted; the app waits until the relay knows that the worker doesn't reply.
                await other.submit(letter(), BULK, "user4@example.net")

            async def done() -> bool:
                found = await states(app)
                return found["sent"] + found["ambiguous"] == 5

            await until(done)
            assert workers() != [pid]
            assert "does not answer; it is killed" in caplog.text
            arrived = Counter(to for message in upstream.transfers for to in message.recipients)
            assert set(arrived) == {f"user{n}@example.net" for n in range(5)}
            twice = [to for to, count in arrived.items() if count > 1]
            # Only what was under way, its outcome unknown.
            assert twice == (["user1@example.net"] if on_ambiguous == "resend" else [])
            assert (await states(app))["ambiguous"] == (0 if on_ambiguous == "resend" else 1)


async def test_a_worker_that_hangs_before_it_is_ready_is_replaced_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(life, "FIRST_REPLY_WITHIN_S", 1.0)
    stopped: list[int] = []

    async def stopped_at_once(number: int, records: socket.socket | None, *, signs: bool) -> Started:
        started = await spawn(number, records, signs=signs)
        pid = children(os.getpid())[-1]
        if not stopped:
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        monkeypatch.setattr(life, "FIRST_REPLY_WITHIN_S", 1.0 if pid in stopped else 20.0)
        return started

    monkeypatch.setattr(handle, "spawn", stopped_at_once)
    keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    async with App(load(write_config(tmp_path, {"up": keys}, workers=1), {})):

        async def is_ready() -> bool:
            return ready(caplog, 1)

        await until(is_ready)
        assert stopped
        assert workers() != stopped
        os.kill(workers()[0], 0)


async def test_a_process_that_outlives_its_link_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold its store file, and no other could begin."""
    caplog.set_level("INFO")
    monkeypatch.setattr(life, "ENDS_WITHIN_S", 0.2)
    keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    async with App(load(write_config(tmp_path, {"up": keys}, workers=1), {})) as app:

        async def is_ready() -> bool:
            return ready(caplog, 1)

        async def is_ready_again() -> bool:
            return ready(caplog, 2)

        await until(is_ready)
        (pid,) = workers()
        os.kill(pid, signal.SIGSTOP)
        running = app.parts.workers.handles[0].life
        assert running is not None
        running.link.close()
        await until(is_ready_again)
        assert workers() != [pid]
