"""Ends the deliveries of a lane that are under way, within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from relay.delivery.message import Job

CONCLUDE_WITHIN_S = 1.0
"""time for a delivery that is stopped behind its final dot to write that its outcome is unknown"""


async def end_deliveries(tasks: Mapping[asyncio.Task[None], Job], within_s: float) -> int:
    """Wait `within_s` seconds for the deliveries to end, then stop them. Returns the number of those.

    A delivery behind its final dot no longer waits for the reply, and writes that down. The others are cancelled.
    `tasks` may shrink meanwhile: each task leaves it when it ends.
    """
    if tasks:
        await asyncio.wait(tasks, timeout=within_s)
    stopped = list(tasks.items())
    concluding = []
    for task, job in stopped:
        if job.stop():
            concluding.append(task)
        else:
            task.cancel()
    if concluding:
        await asyncio.wait(concluding, timeout=CONCLUDE_WITHIN_S)
    for task in concluding:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return len(stopped)
