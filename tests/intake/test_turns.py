"""Turns: few in a round, codes first, and every session gets one."""

from __future__ import annotations

import asyncio

from relay.intake.turns import Priority, Turns

BULK: list[Priority] = ["bulk"] * 30
NEW: list[Priority] = ["new"] * 30
EXPRESS: list[Priority] = ["express"] * 30


async def rounds(turns: Turns, priorities: list[Priority]) -> list[list[int]]:
    """In which round of the loop each of the sessions went on."""
    went: list[int] = []
    seen: list[list[int]] = []

    async def one(at: int, priority: Priority) -> None:
        await turns.for_message(priority)
        went.append(at)

    tasks = [asyncio.create_task(one(at, priority)) for at, priority in enumerate(priorities)]
    async with asyncio.timeout(5):
        while len(went) < len(priorities):
            before = len(went)
            await asyncio.sleep(0)
            seen.append(went[before:])
        await asyncio.gather(*tasks)
    return [each for each in seen if each]


async def test_codes_never_wait() -> None:
    turns = Turns(per_round=1)
    priorities: list[Priority] = [*BULK[:20], *EXPRESS[:20]]
    went = await rounds(turns, priorities)
    assert set(range(20, 40)) <= set(went[0])


async def test_a_round_lets_only_a_few_go_on() -> None:
    went = await rounds(Turns(per_round=3), BULK)
    assert all(len(each) <= 3 for each in went)
    assert sorted(at for each in went for at in each) == list(range(30))


async def test_new_sessions_go_before_bulk_but_bulk_goes_on() -> None:
    went = await rounds(Turns(per_round=4), [*BULK[:12], *NEW[:12]])
    order = [at for each in went for at in each]
    assert all(any(at < 12 for at in each) for each in went[1:4])
    assert max(order.index(at) for at in range(12, 24)) < max(order.index(at) for at in range(12))


async def test_a_session_that_gave_up_uses_no_turn() -> None:
    turns = Turns(per_round=1)
    await turns.for_message("bulk")
    gone = asyncio.create_task(turns.for_message("bulk"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    async with asyncio.timeout(5):
        for _ in range(3):
            await turns.for_message("bulk")


# Commands.


async def commands(turns: Turns, priorities: list[Priority], each: int) -> list[int]:
    """The order in which sessions had their commands, that many each."""
    had: list[int] = []

    async def one(at: int, priority: Priority) -> None:
        for _ in range(each):
            if not turns.use_command():
                await turns.for_command(priority)
            had.append(at)

    async with asyncio.timeout(10):
        await asyncio.gather(*(one(at, priority) for at, priority in enumerate(priorities)))
    return had


async def test_all_sessions_together_have_so_many_commands_until_the_loop_has_rested() -> None:
    turns = Turns(commands=10, rest_s=3600.0)
    waiting = asyncio.create_task(commands(turns, [*NEW[:3], *EXPRESS[:3]], 100))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert turns.waiting == 6
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_behind_a_rest_codes_sessions_have_their_commands_first() -> None:
    turns = Turns(commands=4, rest_s=0.001)
    had = await commands(turns, [*BULK[:8], *NEW[:8], *EXPRESS[:8]], 20)
    ends = [len(had) - had[::-1].index(at) for at in range(24)]
    assert max(ends[16:]) < min(ends[8:16])
    assert max(ends[8:16]) < min(ends[:8])
    assert sorted(had) == sorted(list(range(24)) * 20)
