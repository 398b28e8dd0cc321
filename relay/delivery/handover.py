"""The hand-over: what a new message goes through on its way from intake to its lane.

Its commit, its signature and its envelope are under way together. The gate keeps the content back until the message is
durable and signed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from relay.delivery.lane import Lane
from relay.delivery.message import Job
from relay.delivery.services import Services
from relay.store.model import NewMessage, OpenRecipient, Queued


async def hand_over(
    lane: Lane, services: Services, message: NewMessage, final_dot: float, others: Sequence[NewMessage] = ()
) -> None:
    """Store a message and give it to its lane; it is durable when this returns. `final_dot`: when the app sent it
    (time.monotonic). `others`: stored with it, for other lanes. Raises StoreError: no message was stored, and none is
    sent."""
    older: Job | None = None
    if message.due_at is None and lane.has_room(len(message.content)):
        older = await _store_and_send(lane, services, message, final_dot, others)
    else:
        await services.store.put(message, claimed=False, others=others)
        lane.wake(message.first_due_at)
    await supersede_older(lane, services, message, older)


async def supersede_older(lane: Lane, services: Services, message: NewMessage, older: Job | None) -> None:
    """End what a stored message supersedes. `older`: such a message in the lane's memory."""
    if message.supersede_key is None:
        return
    try:
        await lane.superseding.supersede(message.supersede_key, message.id, older)
    except Exception as error:  # noqa: BLE001 - the message is stored, and its app must learn that
        # It is sent. That an older one may be sent too is the lesser evil.
        services.events.on_error("supersede", error)


async def _store_and_send(
    lane: Lane, services: Services, message: NewMessage, final_dot: float, others: Sequence[NewMessage]
) -> Job | None:
    """Returns the older message that this one supersedes."""
    job = lane.job(_queued(message))
    job.final_dot = final_dot
    signing = _sign_ahead(lane, services, job)
    lane.offer(job)
    putting: asyncio.Future[None] | None = None
    try:
        if lane.config.express:
            await asyncio.sleep(0)  # the envelope leaves first
        express = lane.config.express
        putting = services.store.start_put(message, express=express, booking=lane.booking, others=others)
    finally:
        try:
            if signing is not None:
                await signing
        except Exception as error:  # noqa: BLE001 - the message must be stored all the same
            services.events.on_error("sign", error)
        finally:
            # The gate opens by the commit itself: a waiting session goes on before the app is answered.
            if putting is None or putting.done():
                _on_put(lane, services, job, putting)
            else:
                putting.add_done_callback(partial(_on_put, lane, services, job))
    await putting
    return job.older


def _sign_ahead(lane: Lane, services: Services, job: Job) -> Coroutine[Any, Any, None] | None:
    try:
        return lane.sign_ahead(job)
    except Exception as error:  # noqa: BLE001 - the attempt signs it
        services.events.on_error("sign", error)
        return None


def _on_put(lane: Lane, services: Services, job: Job, putting: asyncio.Future[None] | None) -> None:
    """The commit is over; None: it never began."""
    job.timings_ms["store"] = (time.monotonic() - job.offered_at) * 1000.0
    stored = putting is not None and not putting.cancelled() and putting.exception() is None
    if not stored:
        # A cancelled put may be written all the same: then the message is `queued`, and the lane claims it.
        lane.wake(services.clock.now())
    job.on_put(stored=stored)


def _queued(message: NewMessage) -> Queued:
    due = tuple(OpenRecipient(position, one) for position, one in enumerate(message.envelope.recipients))
    return Queued.of(message, due)
