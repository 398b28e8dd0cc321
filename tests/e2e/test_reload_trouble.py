"""Reloads that meet a failing store, a refused configuration or lower limits: no mail is left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.config.network import TcpAddress
from relay.service.app import App
from relay.store.base import StoreError
from relay.store.model import Selection
from tests.support.app import BULK, Talk, letter
from tests.support.relay import until, upstream_keys, write_config
from tests.support.upstream import Delay, Hang, Upstream

BULK_LANE = {"upstreams": ["up"], "retry": ["1s"], "expires": "2d", "concurrency": 1}


def failing(method: Callable[..., Any], times: int) -> Callable[..., Any]:
    """The store's method, failing so often first."""
    left = [times]

    async def fails(*args: Any, **keys: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise StoreError("disk full")
        return await method(*args, **keys)

    return fails


async def submitted(app: App, count: int) -> list[str]:
    host, _, port = app.smtp_addresses[0].rpartition(":")
    async with Talk((host, int(port))) as talk:
        return [await talk.submit(letter(), BULK, f"user{n}@example.net") for n in range(count)]


async def all_sent(app: App, count: int) -> None:
    async def sent() -> bool:
        found = await app.parts.engine.store.search(Selection(limit=100))
        return [one["state"] for message in found for one in message["recipients"]] == ["sent"] * count  # type: ignore[attr-defined]

    await until(sent)


async def test_mail_that_a_failing_store_did_not_take_back_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Upstream(script={"dot": lambda moment: Delay(0.2)}) as upstream:
        config = write_config(tmp_path, {"up": upstream}, lanes={"bulk": BULK_LANE}, rules=[], workers=0)
        async with App(load(config, {})) as app:
            await submitted(app, 5)
            await upstream.wait_until(lambda: bool(upstream.transfers))
            # Those that wait in memory, when they are to be given back and once more at the old lanes' end.
            monkeypatch.setattr(app.parts.engine.store, "unclaim", failing(app.parts.engine.store.unclaim, 9))
            assert await app.reload()
            await all_sent(app, 5)
            assert sorted(to for one in upstream.messages for to in one.recipients) == [
                f"user{n}@example.net" for n in range(5)
            ]


async def test_outcomes_that_a_stopped_lane_could_not_write_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.delivery.engine.RETIRE_WITHIN_S", 0.2)
    async with Upstream(script={"dot": [Hang()]}) as upstream:
        config = write_config(tmp_path, {"up": upstream}, lanes={"bulk": BULK_LANE}, rules=[], workers=0)
        async with App(load(config, {})) as app:
            await submitted(app, 2)
            await upstream.wait_until(lambda: bool(upstream.transfers))
            monkeypatch.setattr(app.parts.engine.store, "settle", failing(app.parts.engine.store.settle, 2))
            monkeypatch.setattr(app.parts.engine.store, "unclaim", failing(app.parts.engine.store.unclaim, 3))
            assert await app.reload()
            await all_sent(app, 2)


@pytest.mark.parametrize("method", ["adopt", "hash_addresses"])
async def test_a_reload_whose_store_changes_fail_is_in_force_and_changes_the_store_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with Upstream() as good, Upstream(script={"mail": "451 4.3.0 later"}) as bad:
        lanes = {
            "gone": {"upstreams": ["bad"], "retry": ["100ms"], "expires": "10m"},
            "bulk": {"upstreams": ["good"], "retry": ["1s"], "expires": "2d"},
        }
        rule = {"name": "all", "match": {"recipient": "*"}, "lane": "gone"}
        upstreams = {"good": good, "bad": bad}
        config = write_config(tmp_path, upstreams, lanes=lanes, rules=[rule], workers=0)
        async with App(load(config, {})) as app:
            await submitted(app, 1)
            await bad.wait_until(lambda: any("MAIL" in session.verbs for session in bad.sessions))
            write_config(tmp_path, upstreams, lanes={"bulk": lanes["bulk"]}, rules=[], workers=0)
            monkeypatch.setattr(app.parts.engine.store, method, failing(getattr(app.parts.engine.store, method), 1))
            assert await app.reload()
            await all_sent(app, 1)
            await submitted(app, 1)
            await good.wait_for(2)
            await asyncio.sleep(0)


async def test_refused_reloads_take_no_sessions_from_bulk(tmp_path: Path) -> None:
    """What they had built isn't there any more, least of all as places that are kept for codes."""
    async with Upstream(script={"dot": lambda moment: Delay(0.3)}) as upstream:
        up = upstream_keys(upstream, sessions={"warm": 1, "max": 4})
        config = write_config(tmp_path, {"up": up}, workers=0)
        good = config.read_text()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            async with App(load(config, {})) as app:
                listen = [{"address": f"127.0.0.1:{taken.getsockname()[1]}"}]
                write_config(tmp_path, {"up": up}, workers=0, listen=listen)
                for _ in range(3):
                    assert not await app.reload()
                config.write_text(good)
                assert app.config.listen[0].address == TcpAddress("127.0.0.1", 0)
                await submitted(app, 4)
                await all_sent(app, 4)
        assert upstream.peak > 2  # the warm one, and more than one of bulk


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_lowered_max_applies_to_running_lanes_and_workers(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    # Slow until the reload has taken hold: then what is left goes by under the new limit, however long that took.
    dot_s = 2.0
    async with Upstream(script={"dot": lambda moment: Delay(dot_s)}) as upstream:
        lanes = {"bulk": {**BULK_LANE, "concurrency": 8}}

        def written(most: int) -> Path:
            up = upstream_keys(upstream, sessions={"warm": 0, "max": most})
            return write_config(tmp_path, {"up": up}, lanes=lanes, rules=[], workers=workers)

        async with App(load(written(6), {})) as app:

            async def is_ready() -> bool:
                return caplog.text.count("event=worker_ready") == workers

            await until(is_ready)
            await submitted(app, 120)
            await upstream.wait_until(lambda: upstream.open >= 4)
            written(2)
            assert await app.reload()
            await upstream.wait_until(lambda: upstream.open <= 2)
            assert len(upstream.messages) < 100
            upstream.peak, dot_s = 0, 0.01
            await upstream.wait_for(120)
            assert upstream.peak <= 2
            assert app.parts.builder.limits["up"].quota.open <= 2


@pytest.mark.parametrize("workers", [0, 1])
async def test_sessions_that_hang_at_an_upstreams_old_address_delay_nothing_at_the_new_one(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lanes = {"bulk": BULK_LANE}
    async with Upstream(script={"dot": Hang()}) as old, Upstream() as new:

        def written(upstream: Upstream) -> Path:
            up = upstream_keys(upstream, sessions={"warm": 0, "max": 1})
            return write_config(tmp_path, {"up": up}, lanes=lanes, rules=[], workers=workers)

        async with App(load(written(old), {})) as app:

            async def is_ready() -> bool:
                return caplog.text.count("event=worker_ready") == workers

            await until(is_ready)
            await submitted(app, 1)
            await old.wait_until(lambda: bool(old.transfers))
            written(new)
            assert await app.reload()
            await submitted(app, 3)
            await new.wait_for(3)
            assert old.open == 1
