"""An operator's actions on messages that wait in a lane's memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from relay.store.model import Selection
from tests.delivery.harness import config, delivering, failing, until, warm
from tests.support.upstream import Upstream, Wait


async def test_an_operator_takes_one_out_of_several_that_wait_in_memory_and_the_others_keep_their_order(
    tmp_path: Path,
) -> None:
    goes_on = asyncio.Event()
    script: Any = {"mail": [Wait(goes_on)]}
    async with (
        Upstream((), script=script) as one,
        delivering(tmp_path, config({"one": one}, concurrency=1, attempt=10.0)) as bench,
    ):
        await until(lambda: warm(bench))
        ids = [await bench.send(f"u{n}@example.net", life_s=30.0 + n) for n in range(4)]
        assert await bench.delivery.act("hold", Selection(ids=(ids[1],))) == [ids[1]]
        goes_on.set()
        for id_ in (ids[0], *ids[2:]):
            await bench.ended(id_, "sent")
        assert [message.recipients for message in one.messages] == [(f"u{n}@example.net",) for n in (0, 2, 3)]
        assert (await bench.view(ids[1]))["recipients"][0]["state"] == "held"


async def test_what_the_store_does_not_take_back_stays_in_memory_and_goes_out_from_there(tmp_path: Path) -> None:
    goes_on = asyncio.Event()
    script: Any = {"mail": [Wait(goes_on)]}
    async with (
        Upstream((), script=script) as one,
        delivering(tmp_path, config({"one": one}, concurrency=1, attempt=10.0)) as bench,
    ):
        await until(lambda: warm(bench))
        ids = [await bench.send(f"u{n}@example.net") for n in range(2)]
        failing(bench, "unclaim", 1)
        assert await bench.delivery.act("hold", Selection(ids=(ids[1],))) == []
        goes_on.set()
        for id_ in ids:
            await bench.ended(id_, "sent")
        assert len(bench.events.errors) == 1
        bench.events.errors.clear()
