"""The load that intake reports: messages being stored, sessions that wait for a turn, contents behind the pace."""

from __future__ import annotations

import asyncio

from relay.intake.pace import Pace
from relay.intake.turns import Turns
from relay.intake.types import Submission
from tests.intake.harness import listener, service, until


async def test_a_message_counts_as_being_stored_from_its_final_dot_to_its_reply() -> None:
    stored = asyncio.Event()

    async def slowly(_: Submission) -> None:
        await stored.wait()

    async with service(listener(), before=slowly) as relay, relay.session() as one, relay.session() as other:
        for client in (one, other):
            await client.run("MAIL FROM:<a@x.test>", "RCPT TO:<b@x.test>", "DATA")
            assert relay.server.load().storing == 0
        for client in (one, other):
            await client.send(b"hi\r\n.\r\n")
        await until(lambda: relay.recorder.begun == 2)
        load = relay.server.load()
        assert (load.sessions, load.storing, load.waiting, load.slowed) == (2, 2, 0, False)
        stored.set()
        for client in (one, other):
            await client.reply()
        assert relay.server.load().storing == 0


async def test_sessions_whose_turn_has_not_come_are_counted_with_the_time_they_wait() -> None:
    turns = Turns(per_round=1)
    waiting = [asyncio.create_task(turns.for_message("bulk")) for _ in range(5)]
    await asyncio.sleep(0)
    assert 1 <= turns.waiting < 5
    await turns.for_message("express")
    await asyncio.gather(*waiting)
    assert turns.waiting == 0
    assert turns.held_back_s > 0


def test_contents_that_come_faster_than_the_pace_make_their_readers_wait() -> None:
    pace = Pace(bytes_a_s=1_000.0)
    assert pace.behind_s == 0.0
    wait_s = pace.count(2_000)
    assert 1.5 < wait_s <= 2.0
    assert 0.0 < pace.behind_s <= wait_s
    assert pace.held_back_s == wait_s
