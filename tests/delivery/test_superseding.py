"""A newer message to the same recipient ends the older one, wherever that is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.mail.envelope import Envelope, Recipient
from relay.store.model import OpenRecipient, Queued
from tests.delivery.harness import config, delivering, until, warm
from tests.support.upstream import Upstream, Wait


async def test_an_older_code_that_is_being_claimed_while_the_newer_is_stored_is_dropped(tmp_path: Path) -> None:
    goes_on, claimed, release = asyncio.Event(), asyncio.Event(), asyncio.Event()
    script: Any = {"dot": Wait(goes_on)}
    async with Upstream((), script=script) as one, delivering(tmp_path, config({"one": one}, final=10.0)) as bench:
        await until(lambda: warm(bench))
        really = bench.store.claim

        async def slowly(*args: Any, **options: Any) -> Sequence[Queued]:
            found = await really(*args, **options)
            if found:
                claimed.set()
                await release.wait()
            return found

        bench.store.claim = slowly  # type: ignore[method-assign]
        older = await bench.send("u@example.net", claimed=False, supersede_key="u")
        await claimed.wait()
        newer = await bench.send("u@example.net", supersede_key="u")
        release.set()
        view = await bench.ended(older, "superseded", "sent")
        assert view["recipients"][0]["state"] == "superseded"
        goes_on.set()
        await bench.ended(newer, "sent")
        assert len(one.messages) == 1


async def test_a_message_claimed_again_before_its_last_job_has_left_is_not_superseded_by_itself(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        lane, now = bench.delivery.lane("otp"), bench.clock.now()
        recipient = Recipient("u@example.net")
        due = (OpenRecipient(0, recipient),)
        queued = Queued("01A", "otp", None, Envelope("", (recipient,)), b"", now, now + 30.0, due, (), "u")
        first, again, newer = lane.job(queued), lane.job(queued), lane.job(queued._replace(id="01B"))
        first.on_put(stored=True)
        for job in (first, again):
            lane.superseding.enter(job)
        assert again.superseded_by is None
        lane.superseding.leave(first)
        lane.superseding.enter(newer)
        assert newer.older is again
