"""HTTP is imported after `ready`: what clients see of that, in new interpreters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.relay import RelayProcess, get, write_config

KEYS = {"host": "127.0.0.1", "port": 9, "tls": "none"}


@pytest.mark.fresh
async def test_a_client_that_comes_at_ready_is_answered(tmp_path: Path) -> None:
    async with RelayProcess(write_config(tmp_path, {"up": KEYS}, workers=0)) as relay:
        answers = [await get(relay, path) for path in ("/healthz", "/readyz", "/metrics")]
        assert [answer.status for answer in answers] == [200, 200, 200]


@pytest.mark.fresh
async def test_a_relay_that_is_stopped_at_ready_ends_cleanly(tmp_path: Path) -> None:
    async with RelayProcess(write_config(tmp_path, {"up": KEYS}, workers=1)) as relay:
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.stderr
        assert "event=stopped sessions_cut=0 deliveries_cut=0" in relay.stderr
