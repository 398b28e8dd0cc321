"""A code meets a kept session whose packets are lost without an RST."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from relay.upstream import flow
from tests.delivery.harness import config, delivering, until, warm
from tests.support.upstream import Upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOST_AFTER_S", 0.3)


async def test_it_goes_over_a_fresh_session_at_the_same_upstream_before_its_attempt_ends(tmp_path: Path) -> None:
    async with (
        Upstream(("PIPELINING",)) as one,
        delivering(tmp_path, config({"one": one}, attempt=50.0, retry=(50.0,), expires=100.0)) as bench,
    ):
        await until(lambda: warm(bench))
        one.swallow_sessions()
        view = await bench.ended(await bench.send("u@example.net", life_s=100.0))
        assert [each["state"] for each in view["recipients"]] == ["sent"]
        assert len(one.messages) == 1


async def test_where_its_content_has_left_it_goes_to_the_next_upstream(tmp_path: Path) -> None:
    settings = {"attempt": 50.0, "final": 50.0, "retry": (50.0,), "expires": 100.0}
    async with (
        Upstream(("PIPELINING", "CHUNKING")) as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": one, "two": two}, **settings)) as bench,
    ):
        await until(lambda: warm(bench))
        one.swallow_sessions()
        view = await bench.ended(await bench.send("u@example.net", life_s=100.0))
        outcomes = [(one["upstream"], one["outcome"]) for one in view["recipients"][0]["attempts"]]
        assert outcomes == [("one", "ambiguous"), ("two", "sent")]
        assert (len(one.messages), len(two.messages)) == (0, 1)
