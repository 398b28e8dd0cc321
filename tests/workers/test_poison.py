"""A poison message: the worker dies or hangs each time it sends that message."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.service.app import App
from relay.store.model import Selection
from relay.store.sqlite.reader import Reader
from relay.workers import handle, life
from tests.support import processes
from tests.support.app import BULK, Talk, letter
from tests.support.relay import until, write_config
from tests.support.upstream import Hang, Moment, Upstream

DEATHS = 5
NEIGHBOURS = 20


@pytest.mark.timeout(150)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["it dies", "it hangs"])
async def test_a_poison_message_is_held_after_five_deaths_and_its_neighbours_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(handle, "RESTART_AFTER_S", (0.05,))
    monkeypatch.setattr(life, "SILENT_FOR_S", 2.0)  # a new one is silent while it imports
    monkeypatch.setattr(life, "PING_EVERY_S", 0.1)
    met: set[int] = set()

    def rcpt(moment: Moment) -> Hang | None:
        """The worker is still sending the poison message, because no reply comes."""
        if "poison" not in (moment.address or ""):
            return None
        for pid in processes.workers(os.getpid()):
            if pid not in met:
                met.add(pid)
                os.kill(pid, number)
        return Hang()

    async with Upstream(script={"rcpt": rcpt}) as upstream:
        lanes = {"bulk": {"upstreams": ["up"], "retry": ["50ms"], "expires": "2d"}}
        config = write_config(tmp_path, {"up": upstream}, lanes=lanes, rules=[], workers=1)
        async with App(load(config, {})) as app:
            host, _, port = app.smtp_addresses[0].rpartition(":")
            async with Talk((host, int(port))) as talk:
                poison = await talk.submit(letter(), BULK, "poison@example.net")
                for each in range(NEIGHBOURS):
                    await talk.submit(letter(), BULK, f"user{each}@example.net")

            async def ended() -> bool:
                found = await messages(tmp_path)
                states = {id_: one["recipients"][0]["state"] for id_, one in found.items()}
                held = [id_ for id_, state in states.items() if state == "held"]
                return held == [poison] and list(states.values()).count("sent") == NEIGHBOURS

            await until(ended, 60.0)
            assert len(met) == DEATHS
            arrived = {to for one in upstream.messages for to in one.recipients}
            assert arrived == {f"user{each}@example.net" for each in range(NEIGHBOURS)}


async def messages(directory: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for path in directory.glob("relay*.db"):
        reader = Reader.open(path)
        try:
            rows: Any = reader.search(Selection(limit=100))
        finally:
            reader.close()
        found |= {one["id"]: one for one in rows}
    return found
