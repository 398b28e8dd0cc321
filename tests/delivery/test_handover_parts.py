"""The hand-over of a message in parts: the entry as any code, the others from the store, and none without all."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from relay.delivery import dispatch
from relay.delivery.services import Services
from relay.mail.envelope import Envelope, Recipient
from relay.store.base import StoreError
from relay.store.model import NewMessage, Selection, SplitPart
from tests.delivery.harness import CONTENT, Bench, config, delivering, new_message, until, warm
from tests.support.upstream import Upstream

USER, LIST = "u@example.net", "all@example.com"


def split(bench: Bench, *, key: str | None = None) -> tuple[NewMessage, NewMessage]:
    """The entry, of `otp`, and a part of `bulk`."""
    now = bench.clock.now()

    def part(to: str, lane: str, place: int, entry: str | None) -> NewMessage:
        envelope = Envelope("app@example.com", (Recipient(to),))
        made = new_message(bench.ids.new_id(now, os.urandom(10)), envelope, now, lane=lane, supersede_key=key)
        return made._replace(split=SplitPart(entry, (place,)))

    entry = part(USER, "otp", 1, None)
    return entry, part(LIST, "bulk", 0, entry.id)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
async def test_both_lanes_send_at_once(tmp_path: Path, on_disk: bool) -> None:
    async with (
        Upstream() as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": one, "two": two}), on_disk=on_disk) as bench,
    ):
        await until(lambda: warm(bench))
        entry, other = split(bench)
        await bench.delivery.submit(entry, time.monotonic(), [other])
        view = await bench.ended(entry.id)
        assert [(each["address"], each["upstream"]) for each in view["recipients"]] == [(LIST, "two"), (USER, "one")]
        assert [each.content for each in (*one.messages, *two.messages)] == [CONTENT] * 2


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
async def test_where_the_other_part_can_t_be_stored_the_entry_s_content_never_leaves(
    tmp_path: Path, on_disk: bool
) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}), on_disk=on_disk) as bench:
        await until(lambda: warm(bench))
        entry, other = split(bench)
        taken = other._replace(lane="otp", split=None)
        await bench.store.put(taken._replace(due_at=bench.clock.now() + 3600), claimed=False)
        with pytest.raises(StoreError):
            await bench.delivery.submit(entry, time.monotonic(), [other])
        await one.wait_until(lambda: any("RCPT" in session.verbs for session in one.sessions))
        await bench.delivery.drain(2)
        assert (one.messages, await bench.store.get(entry.id)) == ([], None)
        assert [each["id"] for each in await bench.store.search(Selection())] == [taken.id]


async def test_a_part_that_is_stored_supersedes_older_mail_of_its_lane(tmp_path: Path) -> None:
    async with Upstream(script={"rcpt": "451 4.3.0 later"}) as one:
        settings = config({"one": one}, retry=(30.0,))
        async with delivering(tmp_path, settings, on_disk=True) as bench:
            older = await bench.send(LIST, lane="bulk", supersede_key="k", life_s=300.0)
            await bench.ended(older, "deferred")
            entry, other = split(bench, key="k")
            await bench.delivery.submit(entry._replace(supersede_key=None), time.monotonic(), [other])
            view = await bench.ended(older)
            assert view["recipients"][0]["state"] == "superseded"
            assert view["recipients"][0]["reply"] == f"superseded by {other.id}"


async def test_an_entry_that_finds_no_place_in_memory_is_claimed_from_the_store(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one}), on_disk=True) as bench:
        entry, other = split(bench)
        late = entry._replace(due_at=bench.clock.now() + 0.2)
        await bench.delivery.submit(late, time.monotonic(), [other])
        await bench.ended(entry.id)
        assert len(one.messages) == 2


async def test_a_put_that_is_cancelled_and_written_all_the_same_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def written(
        _: object, services: Services, message: NewMessage, __: float, more: Sequence[NewMessage]
    ) -> None:
        await services.store.put(message, claimed=False, others=more)
        raise asyncio.CancelledError

    monkeypatch.setattr(dispatch, "hand_over", written)
    async with Upstream() as one, delivering(tmp_path, config({"one": one}), on_disk=True) as bench:
        await until(lambda: warm(bench))
        entry, other = split(bench)
        with pytest.raises(asyncio.CancelledError):
            await bench.delivery.submit(entry, time.monotonic(), [other])
        (received,) = await one.wait_for(1)
        assert received.recipients == (LIST,)
