"""What a lane begins, and what it has in memory: its rate, its upstreams, a pause that an upstream asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.config.model import Match, Rule
from relay.delivery.dispatch import upstreams_of
from relay.delivery.feeder import CLAIM_MESSAGES
from relay.delivery.lane import BULK_IN_MEMORY
from relay.upstream import window
from tests.delivery.harness import config, delivering, until
from tests.delivery.test_adaptive import THROTTLED
from tests.delivery.test_adaptive import config as bulk_config
from tests.support.upstream import Upstream


async def test_a_lanes_rate_holds_for_what_goes_out_and_all_of_it_goes(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}, rate=20.0)) as bench:
        ids = [await bench.send(f"u{n}@example.net") for n in range(30)]
        for id_ in ids:
            await bench.ended(id_, "sent")
        # Within the first second a bucket's worth and what flowed in, whatever else this machine does.
        first = min(message.at for message in one.messages)
        assert sum(message.at < first + 0.4 for message in one.messages) <= 20 + 8 + 1
        assert len(one.messages) == 30


async def test_what_an_upstreams_pause_holds_up_takes_bounded_memory_and_goes_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "PAUSES_S", (0.5,))
    pausing = [True]
    messages, _ = BULK_IN_MEMORY
    async with (
        Upstream(script={"mail": lambda _: THROTTLED if pausing[0] else None}) as one,
        delivering(tmp_path, bulk_config({"one": one})) as bench,
    ):
        lane = bench.delivery.lane("bulk")
        ids = [
            await bench.send(f"u{n}@example.net", lane="bulk", claimed=False, life_s=600.0)
            for n in range(messages + 120)
        ]
        await until(lambda: not lane.has_room(1))
        await lane.feeder.claim_finished()
        counts = {row.state: row.recipients for row in await bench.store.counts() if row.lane == "bulk"}
        # One batch may have been on its way when it became too much, and some messages to the upstream.
        assert counts["sending"] <= messages + CLAIM_MESSAGES + window.INITIAL_WINDOW
        assert counts["queued"] > 0
        pausing[0] = False
        for id_ in ids:
            await bench.ended(id_, "sent")
        assert len(one.messages) == len(ids)


def test_a_lane_has_its_own_upstreams_first_then_those_that_its_rules_bring_each_once() -> None:
    upstreams = {name: {"host": "127.0.0.1", "tls": "none"} for name in ("one", "two", "three", "four")}
    named = (("otp", ("three", "one")), ("otp", ("three",)), ("otp", None), ("bulk", ("four",)))
    rules = tuple(
        Rule(name=f"rule{n}", match=Match(client=None), lane=lane, upstreams=upstreams)
        for n, (lane, upstreams) in enumerate(named)
    )
    settings = config(upstreams).model_copy(update={"rules": rules})
    settings.lanes["otp"] = settings.lanes["otp"].model_copy(update={"upstreams": ("one", "two")})
    assert upstreams_of(settings, "otp") == ["one", "two", "three"]
    assert upstreams_of(settings, "bulk") == ["four"]
