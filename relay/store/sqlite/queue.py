"""`base.Queue` in one SQLite file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Sequence
from functools import partial

from relay.logfmt import LongText, logfmt
from relay.store.base import StoreDamaged, StoreError, Unreadable
from relay.store.model import (
    BOOKED,
    Action,
    Booking,
    Expired,
    NewMessage,
    Queued,
    Recovered,
    Selection,
    Settlement,
)
from relay.store.sqlite import claim, content, operate, put, search, settle
from relay.store.sqlite.group import Operation
from relay.store.sqlite.rows import PART_BYTES, BodyRange
from relay.store.sqlite.state import HEAVY_BYTES, RECIPIENT_BYTES, StoreState

_STEP_MESSAGES = 50
_PRUNE_MESSAGES = 25
_STEP_RECIPIENTS = 200
"""in one transaction: what changes them by the thousand must not delay an express message"""

_LOG = logging.getLogger(__name__)


class SqliteQueue:
    """When a caller is cancelled, its `put` is either not written or left `queued`, its `claim` is given back, and all
    else is written."""

    def __init__(self, state: StoreState) -> None:
        self.state = state
        self._put_batch = partial(put.put_batch, codec=state.codec)

    async def put(
        self, message: NewMessage, *, claimed: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> None:
        booked = booking if claimed else None
        if len(message.content) > PART_BYTES:
            more = [(one, put.slices(one.content)) for one in others]
            await self._put_parts([(message, put.slices(message.content)), *more], len(message.content), booked)
        else:
            await self._submit_put(message, booked, express=claimed, others=others).result()

    async def put_large(
        self,
        message: NewMessage,
        pieces: Iterator[bytes],
        *,
        most_bytes: int,
        others: Sequence[tuple[NewMessage, Iterator[bytes]]] = (),
    ) -> None:
        contents = [(one, put.in_parts(some)) for one, some in ((message, pieces), *others)]
        await self._put_parts(contents, most_bytes, None)

    def start_put(
        self, message: NewMessage, *, express: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> asyncio.Future[None]:
        if len(message.content) > PART_BYTES:
            return asyncio.ensure_future(self.put(message, claimed=True, booking=booking, others=others))
        return self._submit_put(message, booking, express=express, others=others).future

    async def _put_parts(
        self, contents: Sequence[tuple[NewMessage, Iterator[bytes]]], most_bytes: int, booking: Booking | None
    ) -> None:
        """Write each content part by part, each of these in a transaction of its own, and then all messages in one.
        `booking`: of the first message."""
        state, arriving = self.state, list[int]()
        try:
            bodies = [
                await _write_content(state, message.id, parts, most_bytes, arriving) for message, parts in contents
            ]
            arrivals = [
                (message, body, None if number else booking)
                for number, ((message, _), body) in enumerate(zip(contents, bodies, strict=True))
            ]
            await state.write(
                partial(put.put_after_parts, arrivals=arrivals),
                size_bytes=RECIPIENT_BYTES * sum(len(message.providers) for message, _ in contents),
                express=booking is not None,
                abandoned=partial(self._give_back_put, contents[0][0].id, booking),
            )
        except BaseException:
            state.writer.follow_up(state.delete_orphans)
            raise
        finally:
            state.arriving.difference_update(arriving)

    def _submit_put(
        self, message: NewMessage, booking: Booking | None, *, express: bool, others: Sequence[NewMessage]
    ) -> Operation[None]:
        state = self.state
        arrival = message, state.body_range(message.content), booking
        arrivals = [arrival, *((one, state.body_range(one.content), None) for one in others)]
        is_small = not others and put.is_small(*arrival[:2])
        operation = Operation(
            partial(put.put, arrivals=arrivals, codec=state.codec),
            size_bytes=sum([len(one.content) + RECIPIENT_BYTES * len(one.providers) for one, _, _ in arrivals]),
            abandoned=partial(self._give_back_put, message.id, booking),
            batch=(self._put_batch, arrival) if is_small else None,
            in_place=is_small,
        )
        return state.writer.submit(operation, express=express)

    def _give_back_put(self, message_id: str, booking: Booking | None, _: None) -> None:
        if booking is not None:
            self.state.give_back(message_id)

    async def claim(
        self, lane: str, now: float, *, messages: int, size_bytes: int, booking: Booking = BOOKED
    ) -> Sequence[Queued]:
        write = partial(claim.claim, lane=lane, now=now, messages=messages, size_bytes=size_bytes, booking=booking)
        claimed = await self.state.write(
            write,
            size_bytes=HEAVY_BYTES,
            abandoned=lambda given: self.state.give_back(*(one.message.id for one in given)),
        )
        loaded: list[Queued] = []
        failed: list[tuple[str, StoreError]] = []
        try:
            read = partial(content.read_all, self.state.contents, [one.stored for one in claimed], self.state.codec)
            contents = await self.state.content_thread.run(read) if claimed else ()
            for (one, _), found in zip(claimed, contents, strict=True):
                if isinstance(found, bytes):
                    loaded.append(one._replace(content=found))
                elif isinstance(found, Unreadable | StoreDamaged):
                    hold = partial(claim.hold_unreadable, message_id=one.id, now=self.state.now(), why=str(found))
                    await self.state.write(partial(hold, in_hand=True))
                else:
                    failed.append((one.id, found))
            if failed and not loaded:
                raise failed[0][1]
        except BaseException:
            self.state.give_back(*(one.message.id for one in claimed))
            raise
        for message_id, trouble in failed:
            # A disk that fails in one place: this message waits for its next step, its neighbours go on.
            _LOG.error(logfmt("read_failed", id=message_id, reason=LongText(trouble)))
            self.state.writer.follow_up(partial(settle.put_off, message_id=message_id))
        return loaded

    async def end_expired(self, lane: str, now: float, reply: str) -> Sequence[Expired]:
        write = partial(settle.end_expired, lane=lane, now=now, reply=reply, hashed=self.state.hashed)
        ended: list[Expired] = []
        while some := await self.state.write(partial(write, limit=_STEP_RECIPIENTS), size_bytes=HEAVY_BYTES):
            ended += some
        return ended

    async def next_due(self, lane: str) -> float | None:
        # On the contents' thread: no listing delays a claim.
        read = partial(search.next_due, lane=lane)
        return await self.state.content_thread.run(partial(self.state.contents.ask, read))

    async def mark_final(self, message_id: str, positions: Sequence[int]) -> None:
        # Express: a session waits before its final dot meanwhile.
        write = partial(settle.mark_final, message_id=message_id, positions=positions)
        await self.state.write(write, express=True)

    async def settle(self, settlement: Settlement) -> None:
        state = self.state
        bodies = [state.body_range(bounce.content) for bounce in settlement.bounces]
        write = partial(
            settle.settle,
            settlement=settlement,
            bodies=bodies,
            codec=state.codec,
            hashed=state.hashed,
            now=state.now(),
        )
        size_bytes = RECIPIENT_BYTES * len(settlement.updates) + sum(len(b.content) for b in settlement.bounces)
        is_simple = settle.is_simple_finish(settlement, state.hashed)
        batch = (settle.finish_batch, settlement) if is_simple else None
        await state.writer.submit(Operation(write, size_bytes=size_bytes, batch=batch, in_place=is_simple)).result()

    async def unclaim(self, message_id: str, due_at: float | None = None) -> None:
        await self.state.write(partial(settle.unclaim, message_id=message_id, due_at=due_at))

    async def recover(self, now: float, marking: Collection[str] = ()) -> Sequence[Recovered]:
        return await self.state.write(partial(operate.recover, now=now, marking=marking))

    async def supersede(self, key: str, before_id: str, now: float) -> Sequence[str]:
        write = partial(operate.supersede, key=key, before_id=before_id, now=now, hashed=self.state.hashed)
        return await self.state.write(write)

    async def retry_deferred(self, lane: str, now: float, *, only_urged: bool = False) -> int:
        write = partial(operate.retry_deferred, lane=lane, now=now, only_urged=only_urged)
        return await self.state.write_in_steps(write, _STEP_RECIPIENTS)

    async def adopt(self, lanes: Sequence[str], default: str) -> int:
        write = partial(operate.adopt, lanes=lanes, default=default)
        return await self.state.write_in_steps(write, _STEP_RECIPIENTS)

    async def act(self, action: Action, selection: Selection, now: float) -> Sequence[str]:
        state = self.state
        find = partial(search.waiting_ids, selection=selection, limit=-1)
        ids = await state.ask(find)
        changed: list[str] = []
        for start in range(0, len(ids), _STEP_MESSAGES):
            some = ids[start : start + _STEP_MESSAGES]
            write = partial(operate.act, action=action, ids=some, selection=selection, now=now, hashed=state.hashed)
            changed += await state.write(write, size_bytes=HEAVY_BYTES)
        return changed

    def size(self) -> tuple[int, int]:
        return self.state.messages, self.state.size_bytes

    async def prune(self, before: float, *, limit: int) -> int:
        pruned = await self.state.write_in_steps(partial(operate.prune, before=before), _PRUNE_MESSAGES, limit)
        await self.state.write_in_steps(partial(operate.prune_events, before=before), _PRUNE_MESSAGES, limit)
        return pruned


async def _write_content(
    state: StoreState, message_id: str, parts: Iterator[bytes], most_bytes: int, arriving: list[int]
) -> BodyRange:
    """Write the content of a message that is yet to be written, part by part. Its place is added to `arriving`."""
    written, size_bytes = 0, 0
    first = state.reserve(most_bytes // PART_BYTES + 1)
    state.arriving.add(first)
    arriving.append(first)
    while part := await asyncio.to_thread(next, parts, b""):
        write = partial(put.put_part, message_id=message_id, first=first, part=written, content=part)
        await state.write(partial(write, codec=state.codec), size_bytes=len(part))
        written += 1
        size_bytes += len(part)
    return BodyRange(first, written, state.codec.key_id, size_bytes)
