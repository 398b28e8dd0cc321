"""Hedging while messages stand behind each other on a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.delivery.harness import config, delivering, outcomes, until, warm
from tests.delivery.test_hedge_alone import Downs
from tests.support.upstream import Delay, Upstream


async def test_a_code_behind_a_content_that_is_answered_slowly_opens_no_circuit(tmp_path: Path) -> None:
    """Its upstream has another message to answer first. The code itself goes to the next upstream."""
    events = Downs()
    slow: Any = {"dot": [Delay(0.6)]}
    async with Upstream(script=slow) as one, Upstream() as two:
        sessions = {"warm": 1, "max": 1, "depth": 4}
        first = {"host": one.host, "port": one.port, "tls": "none", "sessions": sessions}
        settings = config({"one": first, "two": two}, hedge=0.15, attempt=10.0, final=10.0)
        async with delivering(tmp_path, settings, events=events) as bench:
            await until(lambda: warm(bench))
            ids = [await bench.send(f"u{number}@example.net") for number in range(2)]
            assert outcomes(await bench.ended(ids[0])) == [("one", "sent")]
            assert outcomes(await bench.ended(ids[1])) == [("one", "abandoned"), ("two", "sent")]
    assert events.downs == []
