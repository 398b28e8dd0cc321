"""A reload keeps the sessions of upstreams that stay as they are, and opens those of others before it switches."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.service.app import App
from relay.store.base import StoreError
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import until, upstream_keys, write_config
from tests.support.upstream import Hang, Upstream, Wait

OLD, NEW = {"app": "old-secret"}, {"app": "new-secret"}


def configured(folder: Path, up: Mapping[str, object], **keys: Any) -> Path:
    """One lane for codes, with one warm session that carries one message at a time."""
    lane = {"upstreams": ["up"], "retry": ["100ms"], "expires": "10m", "attempt": "60s"}
    return write_config(
        folder,
        {"up": {"sessions": {"warm": 1, "depth": 1}, **up}},
        **{"lanes": {"otp": lane}, "rules": [], "default_lane": "otp", **keys},
    )


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[App]:
    async with App(load(config, {})) as app:
        yield app


async def submit(app: App, sender: str = OTP) -> str:
    host, _, port = app.smtp_addresses[0].rpartition(":")
    async with Talk((host, int(port))) as talk:
        return await talk.submit(letter(sender=sender), sender, "user@example.net")


async def sent(app: App, id_: str) -> list[tuple[str, str]]:
    """(outcome, session) of each attempt, once the message is sent."""
    attempts: list[tuple[str, str]] = []

    async def is_sent() -> bool:
        view: Any = await app.parts.engine.store.get(id_)
        (recipient,) = view["recipients"]
        attempts[:] = [(one["outcome"], one["session"]) for one in recipient["attempts"]]
        return bool(recipient["state"] == "sent")

    await until(is_sent)
    return attempts


async def test_a_reload_that_changes_nothing_of_an_upstream_keeps_its_sessions(tmp_path: Path) -> None:
    async with Upstream() as upstream, running(configured(tmp_path, upstream_keys(upstream))) as app:
        assert await sent(app, await submit(app)) == [("sent", "warm")]
        for shutdown in ("4s", "3s"):
            configured(tmp_path, upstream_keys(upstream), shutdown=shutdown)
            assert await app.reload()
            assert await sent(app, await submit(app)) == [("sent", "warm")]
        assert {message.session for message in upstream.messages} == {0}
        assert len(upstream.sessions) == 1


async def test_a_changed_password_holds_for_the_next_code_and_its_session_is_open(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with (
        Upstream(auth=OLD, script={"auth": [None, Wait(release)]}) as upstream,
        running(configured(tmp_path, upstream_keys(upstream))) as app,
    ):
        await sent(app, await submit(app))
        upstream.auth = NEW
        configured(tmp_path, upstream_keys(upstream))
        reloading = asyncio.create_task(app.reload())
        await upstream.wait_until(lambda: len(upstream.sessions) == 2)
        await sent(app, await submit(app))
        assert not reloading.done()
        release.set()
        assert await reloading
        assert await sent(app, await submit(app)) == [("sent", "warm")]
        assert [message.session for message in upstream.messages] == [0, 0, 1]
        await upstream.wait_until(lambda: upstream.sessions[0].closed_at is not None)
        assert len(upstream.sessions) == 2


async def test_at_the_limit_an_idle_session_gives_way_to_the_new_upstream_s_first(tmp_path: Path) -> None:
    sessions = {"warm": 2, "max": 2}
    async with (
        Upstream(auth=OLD) as upstream,
        running(configured(tmp_path, upstream_keys(upstream, sessions=sessions))) as app,
    ):
        await upstream.wait_until(lambda: len(upstream.sessions) == 2)
        await sent(app, await submit(app))
        upstream.auth = NEW
        configured(tmp_path, upstream_keys(upstream, sessions=sessions))
        assert await app.reload()
        assert await sent(app, await submit(app)) == [("sent", "warm")]
        assert upstream.messages[1].session == 2
        assert upstream.peak == 2


async def test_a_changed_upstream_that_does_not_answer_is_switched_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.reload.PREPARE_WITHIN_S", 0.2)
    async with (
        Upstream() as upstream,
        Upstream(script={"greeting": [Hang()]}) as silent,
        running(configured(tmp_path, upstream_keys(upstream))) as app,
    ):
        configured(tmp_path, upstream_keys(silent))
        assert await app.reload()
        await upstream.wait_until(lambda: upstream.closed == 1)
        assert upstream.messages == []


async def test_a_refused_reload_closes_what_it_opened_and_the_old_sessions_go_on(tmp_path: Path) -> None:
    async with Upstream() as old, Upstream() as new:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            async with running(configured(tmp_path, upstream_keys(old))) as app:
                listen = [{"address": f"127.0.0.1:{taken.getsockname()[1]}"}]
                configured(tmp_path, upstream_keys(new), listen=listen)
                assert not await app.reload()
                assert (len(new.sessions), new.open) == (1, 0)
                assert await sent(app, await submit(app)) == [("sent", "warm")]
                assert len(old.sessions) == 1


async def test_a_delivery_outlives_two_reloads_over_the_session_it_began_on(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with (
        Upstream(script={"dot": [Wait(release)]}) as upstream,
        Upstream() as another,
        running(configured(tmp_path, upstream_keys(upstream))) as app,
    ):
        first = await submit(app)
        await upstream.wait_until(lambda: len(upstream.transfers) == 1)
        assert await app.reload()
        second = await submit(app)
        await sent(app, second)
        configured(tmp_path, upstream_keys(another))
        assert await app.reload()
        await sent(app, await submit(app))
        assert len(another.messages) == 1
        release.set()
        assert await sent(app, first) == [("sent", "warm")]
        assert len(upstream.transfers) == 2
        await upstream.wait_until(lambda: upstream.open == 0)


async def test_what_the_old_lane_defers_is_sent_by_the_new_one_while_the_old_is_still_busy(tmp_path: Path) -> None:
    later, busy = asyncio.Event(), asyncio.Event()
    script: Any = {"dot": [Wait(later, then="451 4.3.0 later"), Wait(busy)]}
    async with Upstream(script=script) as upstream, running(configured(tmp_path, upstream_keys(upstream))) as app:
        deferred = await submit(app)
        await upstream.wait_until(lambda: len(upstream.transfers) == 1)
        under_way = await submit(app)
        await upstream.wait_until(lambda: len(upstream.transfers) == 2)
        assert await app.reload()
        later.set()
        assert [outcome for outcome, _ in await sent(app, deferred)] == ["deferred", "sent"]
        busy.set()
        await sent(app, under_way)


async def test_what_the_store_did_not_take_back_at_once_does_not_wait_for_the_old_lane_s_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = asyncio.Event()
    lane = {"upstreams": ["up"], "retry": ["100ms"], "expires": "10m", "concurrency": 1}
    async with (
        Upstream(script={"dot": [Wait(busy)]}) as upstream,
        running(configured(tmp_path, upstream_keys(upstream), lanes={"otp": lane})) as app,
    ):
        under_way = await submit(app)
        await upstream.wait_until(lambda: len(upstream.transfers) == 1)
        waiting = await submit(app)
        store, failures = app.parts.engine.store, ["disk full"]
        unclaim = store.unclaim

        async def fails_once(*arguments: Any) -> None:
            if failures:
                raise StoreError(failures.pop())
            await unclaim(*arguments)

        monkeypatch.setattr(store, "unclaim", fails_once)
        assert await app.reload()
        await sent(app, waiting)
        busy.set()
        await sent(app, under_way)


async def test_a_full_upstream_takes_the_new_lane_s_mail_when_the_old_lane_s_is_over(tmp_path: Path) -> None:
    release = asyncio.Event()
    lane = {"upstreams": ["up"], "retry": ["1s"], "expires": "2d", "concurrency": 1}
    keys: dict[str, Any] = {"lanes": {"bulk": lane}, "default_lane": "bulk", "workers": 0}
    async with (
        Upstream(script={"dot": [Wait(release)]}) as upstream,
        running(configured(tmp_path, upstream_keys(upstream), **keys)) as app,
    ):
        first = await submit(app, BULK)
        await upstream.wait_until(lambda: len(upstream.transfers) == 1)
        assert await app.reload()
        second = await submit(app, BULK)
        release.set()
        await sent(app, first)
        await sent(app, second)
        assert {message.session for message in upstream.messages} == {0}


async def test_ready_means_that_a_code_finds_an_open_session(tmp_path: Path) -> None:
    async with (
        Upstream(auth=OLD, latency_s=0.05) as upstream,
        running(configured(tmp_path, upstream_keys(upstream))) as app,
    ):
        assert await sent(app, await submit(app)) == [("sent", "warm")]
        assert len(upstream.sessions) == 1


async def test_an_upstream_that_refuses_connections_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.app.WARM_WITHIN_S", 600.0)
    async with Upstream() as upstream, asyncio.timeout(60):
        up = upstream_keys(upstream)
        await upstream.pause()
        async with running(configured(tmp_path, up)) as app:
            await upstream.resume()
            await sent(app, await submit(app))


async def test_an_upstream_that_does_not_answer_holds_up_the_start_for_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.app.WARM_WITHIN_S", 0.2)
    release = asyncio.Event()
    async with (
        Upstream(script={"greeting": [Wait(release)]}) as upstream,
        running(configured(tmp_path, upstream_keys(upstream))) as app,
    ):
        release.set()
        await sent(app, await submit(app))


def circuits(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines on circuits that opened and closed."""
    events = [found[1] for record in caplog.records if (found := re.search(r"event=(\w+)", record.getMessage()))]
    return [event for event in events if event in ("upstream_down", "upstream_up")]


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a circuit that a refused password has opened."""
    monkeypatch.setattr("relay.upstream.circuit.PROBE_REFUSED_AFTER_S", (600.0,))


@pytest.mark.usefixtures("no_probes")
async def test_a_circuit_that_is_open_stays_open_over_a_reload_and_is_probed_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with Upstream(auth=NEW) as upstream:
        config = configured(tmp_path, upstream_keys(upstream, password=OLD["app"]))
        async with running(config) as app:
            id_ = await submit(app)
            assert await app.reload()
            await upstream.wait_until(lambda: len(upstream.sessions) == 2)
            assert circuits(caplog) == ["upstream_down"]
            upstream.auth = OLD
            assert await app.reload()
            await sent(app, id_)
            assert circuits(caplog) == ["upstream_down", "upstream_up"]


@pytest.mark.usefixtures("no_probes")
async def test_an_upstream_that_a_reload_repairs_is_up_and_one_that_stays_down_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with (
        Upstream(auth=NEW) as upstream,
        running(configured(tmp_path, upstream_keys(upstream, password="wrong"))) as app,
    ):
        id_ = await submit(app)
        for password in ("wrong as well", NEW["app"]):
            configured(tmp_path, upstream_keys(upstream, password=password))
            assert circuits(caplog) == ["upstream_down"]
            assert await app.reload()
        await sent(app, id_)
        assert circuits(caplog) == ["upstream_down", "upstream_up"]


async def test_what_becomes_of_an_upstream_that_was_replaced_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lane = {"upstreams": ["up"], "retry": ["100ms"], "expires": "10m", "final": "500ms"}
    async with (
        Upstream(script={"dot": [Hang()]}) as old,
        Upstream() as new,
        running(configured(tmp_path, upstream_keys(old), lanes={"otp": lane})) as app,
    ):
        id_ = await submit(app)
        await old.wait_until(lambda: len(old.transfers) == 1)
        configured(tmp_path, upstream_keys(new), lanes={"otp": lane})
        assert await app.reload()
        assert [outcome for outcome, _ in await sent(app, id_)] == ["ambiguous", "sent"]
        assert circuits(caplog) == []


@pytest.mark.usefixtures("no_probes")
async def test_a_repaired_upstream_that_answers_late_is_up_when_it_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.service.reload.PREPARE_WITHIN_S", 0.2)
    caplog.set_level("INFO")
    release = asyncio.Event()
    async with (
        Upstream(auth=NEW, script={"auth": [Wait(release)]}) as upstream,
        running(configured(tmp_path, upstream_keys(upstream, password="wrong"))) as app,
    ):
        id_ = await submit(app)
        configured(tmp_path, upstream_keys(upstream))
        assert await app.reload()
        assert circuits(caplog) == ["upstream_down"]
        release.set()
        await sent(app, id_)
        assert circuits(caplog) == ["upstream_down", "upstream_up"]


async def test_a_worker_s_sessions_are_kept_over_a_reload(tmp_path: Path) -> None:
    lane = {"upstreams": ["up"], "retry": ["1s"], "expires": "2d"}
    keys: dict[str, Any] = {"lanes": {"bulk": lane}, "default_lane": "bulk", "workers": 1}
    async with (
        Upstream() as upstream,
        running(configured(tmp_path, upstream_keys(upstream), **keys)) as app,
    ):

        async def there() -> bool:
            return all(worker.ready for worker in app.parts.workers.handles)

        await until(there)
        for number in (1, 2, 3):
            await submit(app, BULK)
            await upstream.wait_for(number)
            assert await app.reload()
        assert len(upstream.sessions) == 1
