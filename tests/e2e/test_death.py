"""kill -9 between any two steps of a message's way: what was acknowledged arrives, twice only where that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import strace
from tests.support.death import SERIES, die_at_every_point


@pytest.mark.timeout(180)  # dozens of deaths and starts: 45 s on two idle cores
@pytest.mark.parametrize("name", SERIES)
async def test_a_message_survives_death_at_every_step(tmp_path: Path, name: str) -> None:
    if not strace.works():
        pytest.skip("strace is missing, or may not look at processes here")
    arrived = await die_at_every_point(tmp_path, SERIES[name])
    assert len(arrived) == len(SERIES[name].points)
