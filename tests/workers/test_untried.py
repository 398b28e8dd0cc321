"""An upstream that no session was opened to is untried: neither up nor down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, get, metrics, until, upstream_keys, write_config
from tests.support.upstream import Upstream

DEAD = {"host": "127.0.0.1", "port": 9, "tls": "none"}


async def state(relay: RelayProcess, lane: str) -> str:
    health = (await get(relay, "/readyz")).document["lanes"][lane]["upstreams"]["one"]
    return str(health["state"])


@pytest.mark.parametrize("workers", [0, 1])
async def test_an_upstream_is_untried_until_a_session_was_opened(tmp_path: Path, workers: int) -> None:
    async with (
        Upstream() as one,
        RelayProcess(write_config(tmp_path, {"one": upstream_keys(one)}, workers=workers)) as relay,
    ):

        async def otp_is_up() -> bool:  # it has a warm session
            return await state(relay, "otp") == "up"

        async def bulk_is_up() -> bool:
            return await state(relay, "bulk") == "up"

        await until(otp_is_up)
        assert await state(relay, "bulk") == "untried"
        assert (await metrics(relay)).value("relay_upstream_up", upstream="one") == 1
        async with Talk(relay.smtp) as app:
            await app.submit(letter(), BULK, "u@example.net")
        await until(bulk_is_up)
        lanes = (await get(relay, "/readyz")).document["lanes"]
        assert lanes["otp"]["upstreams"]["one"]["warm"]["sessions"] == 2
        assert "warm" not in lanes["bulk"]["upstreams"]["one"]
        assert (await metrics(relay)).labels("relay_upstream_warm_sessions") == [{"lane": "otp", "upstream": "one"}]


async def test_a_dead_upstream_is_down_only_in_lanes_that_tried_it(tmp_path: Path) -> None:
    async with RelayProcess(write_config(tmp_path, {"one": DEAD}, workers=0)) as relay:

        async def otp_is_down() -> bool:
            return await state(relay, "otp") in ("down", "half-open")

        async def bulk_is_down() -> bool:
            return await state(relay, "bulk") in ("down", "half-open")

        await until(otp_is_down)
        assert await state(relay, "bulk") == "untried"
        async with Talk(relay.smtp) as app:
            await app.submit(letter(), BULK, "u@example.net")
        await until(bulk_is_down)
