"""Background tasks that meet an unexpected error: it is reported, and they go on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from relay.config.load import load
from relay.config.model import Loaded
from relay.delivery import housekeeping
from relay.service.app import App
from relay.store.sqlite.store import SqliteStore
from tests.support.app import OTP, Talk, letter
from tests.support.relay import until, write_config
from tests.support.upstream import Upstream


def alone(directory: Path, upstream: Upstream) -> Loaded:
    return load(write_config(directory, {"up": upstream}, workers=0), os.environ)


def restarts(app: App, task: str) -> float:
    return app.metrics.registry.get_sample_value("relay_tasks_restarted_total", {"task": task}) or 0.0


async def test_housekeeping_that_fails_is_reported_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned, really, broken = asyncio.Event(), SqliteStore.prune, [TypeError("a row nobody thought of")]

    async def prune(store: SqliteStore, before: float, *, limit: int) -> int:
        if broken:
            raise broken.pop()
        pruned.set()
        return await really(store, before, limit=limit)

    monkeypatch.setattr(SqliteStore, "prune", prune)
    monkeypatch.setattr(housekeeping, "PRUNE_EVERY_S", 0.01)
    async with (
        Upstream() as upstream,
        App(load(write_config(tmp_path, {"up": upstream}, workers=0), os.environ)) as app,
    ):
        async with asyncio.timeout(10):
            await pruned.wait()
        assert restarts(app, "housekeeping") == 1


async def test_the_relay_goes_on_after_a_reload_with_an_unexpected_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Upstream() as upstream,
        App(load(write_config(tmp_path, {"up": upstream}, workers=0), os.environ)) as app,
    ):
        really, failures = app.reload, [KeyError("lane")]

        async def reload() -> bool:
            if failures:
                raise failures.pop()
            return await really()

        monkeypatch.setattr(app, "reload", reload)
        stop, reload_asked = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(app.run(reload_asked.set, stop, reload_asked))

        async def reported(success: float) -> bool:
            return app.metrics.registry.get_sample_value("relay_config_reload_success") == success

        await until(lambda: reported(0.0))
        host, _, port = app.smtp_addresses[0].rpartition(":")
        async with Talk((host, int(port))) as talk:
            await talk.submit(letter(), OTP, "a@example.net")
        reload_asked.set()
        await until(lambda: reported(1.0))
        stop.set()
        await running
