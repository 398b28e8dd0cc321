"""A store in memory, for tests: nothing of it outlives the process.

It passes the contract suite that every store passes (`tests/store/contract.py`), so delivery can be tested on it. Each
call is applied in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from relay.store.base import StoreError
from relay.store.model import (
    BOOKED,
    MOST_DEATHS,
    Action,
    Booking,
    Expired,
    NewMessage,
    OpenRecipient,
    Queued,
    RecipientUpdate,
    Recovered,
    Selection,
    Settlement,
)
from relay.store.texts import DROPPED, UNKNOWN, recovered_note
from tests.store.memory_log import MemoryLog, MessageRow, RecipientRow, rounded


class MemoryStore(MemoryLog):
    """`base.Store` in memory."""

    async def put(
        self, message: NewMessage, *, claimed: bool, booking: Booking = BOOKED, others: Sequence[NewMessage] = ()
    ) -> None:
        self._messages()
        for one in (message, *others):
            self._check_new(one)
        self._insert(message, booking if claimed else None)
        for one in others:
            self._insert(one, None)

    async def put_large(
        self,
        message: NewMessage,
        pieces: Iterator[bytes],
        *,
        most_bytes: int,
        others: Sequence[tuple[NewMessage, Iterator[bytes]]] = (),
    ) -> None:
        first, *more = [one._replace(content=b"".join(some)) for one, some in ((message, pieces), *others)]
        await self.put(first, claimed=False, others=more)

    def start_put(
        self,
        message: NewMessage,
        *,
        express: bool,
        booking: Booking = BOOKED,
        others: Sequence[NewMessage] = (),
    ) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.put(message, claimed=True, booking=booking, others=others))

    def _check_new(self, new: NewMessage) -> None:
        if new.id in self._all:
            raise StoreError(f"message {new.id} is in the store already")

    def _insert(self, new: NewMessage, booking: Booking | None) -> None:
        self._check_new(new)
        recipients = [
            RecipientRow(position, recipient, provider, next_at=new.first_due_at)
            for position, (recipient, provider) in enumerate(zip(new.envelope.recipients, new.providers, strict=True))
        ]
        if booking is not None:
            for one in recipients:
                one.book(new.accepted_at, booking)
        timings_ms = rounded(new.timings_ms)
        self._all[new.id] = MessageRow(new, new.lane, new.accepted_at, new.expires_at, recipients, timings_ms)

    async def claim(
        self, lane: str, now: float, *, messages: int, size_bytes: int, booking: Booking = BOOKED
    ) -> Sequence[Queued]:
        waiting: dict[str, float] = {}
        for message, one in self._recipients(lane):
            if one.next_at is not None and one.next_at <= now and not one.is_suspect:
                waiting[message.new.id] = min(one.next_at, waiting.get(message.new.id, math.inf))
        claimed: list[Queued] = []
        for message_id in sorted(waiting, key=lambda each: (waiting[each], each))[:messages]:
            size_bytes -= len(self._all[message_id].new.content)
            if claimed and size_bytes < 0:
                break
            claimed.append(self._claim(self._all[message_id], now, booking))
        if not claimed and (suspect := self._next_suspect(lane)) is not None and suspect[0] <= now:
            claimed.append(self._claim(self._all[suspect[1]], now, booking))
        return claimed

    def _next_suspect(self, lane: str) -> tuple[float, str] | None:
        """When and which; None: there is none, or another is in hand."""
        suspects = [(message, one) for message, one in self._recipients(lane) if one.is_suspect]
        if any(one.state == "sending" for _, one in suspects):
            return None
        times = [(one.next_at, message.new.id) for message, one in suspects if one.next_at is not None]
        return min(times, default=None)

    def _claim(self, message: MessageRow, now: float, booking: Booking) -> Queued:
        due = [one for one in message.recipients if one.is_due(now)]
        recipients = tuple(
            OpenRecipient(
                *(one.position, one.recipient, one.step, one.attempts),
                delay_notified=one.delay_notified,
                repeat=one.repeat,
                crashed=one.deaths > 0,
            )
            for one in due
        )
        queued = Queued.of(message.new, recipients)._replace(
            lane=message.lane,
            accepted_at=message.accepted_at,
            expires_at=message.expires_at,
            suspect=any(one.is_suspect for one in due),
        )
        for one in due:
            one.book(now, booking)
        return queued

    async def end_expired(self, lane: str, now: float, reply: str) -> Sequence[Expired]:
        ended: Counter[str] = Counter()
        for message, one in self._recipients(lane):
            is_quiet = message.new.envelope.sender == "" or "FAILURE" not in (one.recipient.notify or {"FAILURE"})
            if is_quiet and message.expires_at <= now and one.is_due(now) and not one.is_suspect:
                one.become("expired")
                one.reply = reply
                ended[message.new.id] += 1
        return [Expired(*each) for each in ended.items()]

    async def next_due(self, lane: str) -> float | None:
        suspect = self._next_suspect(lane)
        times = [] if suspect is None else [suspect[0]]
        times += [one.next_at for _, one in self._recipients(lane) if one.next_at is not None and not one.is_suspect]
        return min(times, default=None)

    async def mark_final(self, message_id: str, positions: Sequence[int]) -> None:
        self._messages()
        for position in positions:
            self._all[message_id].recipients[position].final_dot = True

    async def settle(self, settlement: Settlement) -> None:
        self._messages()
        message = self._all.get(settlement.message_id)
        if message is None:
            raise StoreError(f"no message {settlement.message_id} in the store")
        for bounce in settlement.bounces:  # at most one: what raises has changed nothing
            self._insert(bounce, None)
        made = settlement.last_attempts()
        for attempt in settlement.attempts:
            message.recipients[attempt.position].made[attempt.n, attempt.started_at] = attempt
        for update in settlement.updates:
            one = message.recipients[update.position]
            n = made.pop(update.position, 0)
            if one.is_open:
                _update(message, one, update, n)
        for position, n in made.items():
            message.recipients[position].attempts = max(message.recipients[position].attempts, n)
        if settlement.note is not None:
            message.notes[self._now(), settlement.note] = None
        if settlement.went_unsigned:
            message.new = message.new._replace(signed=())
        message.timings_ms |= rounded(settlement.timings_ms)

    async def unclaim(self, message_id: str, due_at: float | None = None) -> None:
        self._messages()
        message = self._all.get(message_id)
        for one in message.recipients if message is not None else ():
            if message is not None and one.state == "sending":
                one.uncount_claim()
                one.become("queued", message.accepted_at if due_at is None else due_at)

    async def recover(self, now: float, marking: Collection[str] = ()) -> Sequence[Recovered]:
        self._bring_back_from_the_future(now)
        counted: Counter[Recovered] = Counter()
        for message, one in self._recipients():
            if one.state == "sending":
                state = _died(one)
                counted[Recovered(message.new.id, message.lane, state, 0)] += 1
        recovered = [each._replace(recipients=recipients) for each, recipients in counted.items()]
        for each in recovered:
            self._all[each.message_id].notes[now, recovered_note(each, is_marked=each.lane in marking)] = None
        return recovered

    def _bring_back_from_the_future(self, now: float) -> None:
        if all(message.accepted_at <= now for message in self._messages()):
            return
        for message, one in self._recipients():
            ahead_s = max(0.0, message.accepted_at - now)
            message.accepted_at, message.expires_at = message.accepted_at - ahead_s, message.expires_at - ahead_s
            one.next_at = None if one.next_at is None else min(one.next_at, now)
            one.booked_at = None if one.booked_at is None else min(one.booked_at, now)

    async def supersede(self, key: str, before_id: str, now: float) -> Sequence[str]:
        text = f"superseded by {before_id}"
        ended: list[str] = []
        for message, one in sorted(self._recipients(), key=lambda each: each[0].new.id):
            older = message.new.supersede_key == key and message.new.id < before_id
            if older and one.state in ("queued", "deferred"):
                one.become("superseded")
                one.reply = text
                message.notes[now, text] = None
                ended.append(message.new.id)
        return list(dict.fromkeys(ended))

    async def retry_deferred(self, lane: str, now: float, *, only_urged: bool = False) -> int:
        late = [
            one
            for _, one in self._recipients(lane)
            if one.state == "deferred"
            and one.next_at is not None
            and one.next_at > now
            and (one.urged or not only_urged)
        ]
        for one in late:
            one.next_at = now
        return len(late)

    async def adopt(self, lanes: Sequence[str], default: str) -> int:
        lost = [message for message, _ in self._recipients() if message.lane not in (*lanes, default)]
        for message in lost:
            message.lane = default
        return len(lost)

    async def act(self, action: Action, selection: Selection, now: float) -> Sequence[str]:
        changed: list[str] = []
        states = selection.states_for(action)
        for message in self._waiting(selection):
            is_over = action == "retry" and message.expires_at <= now
            chosen = [
                one
                for one in message.matching(selection)
                if one.state in states and not (is_over and one.state == "ambiguous")
            ]
            for one in chosen:
                _act(one, action, now)
            if chosen:
                changed.append(message.entry)
                message.notes[now, f"{action} by the operator"] = None
        return list(dict.fromkeys(changed))

    def size(self) -> tuple[int, int]:
        sizes = [len(message.new.content) for message in self._all.values() if message.is_open]
        return len(sizes), sum(sizes)

    async def prune(self, before: float, *, limit: int) -> int:
        old = [m for m in self._messages() if not m.is_open and m.accepted_at < before]
        old.sort(key=lambda message: message.accepted_at)
        for message in old[:limit]:
            del self._all[message.new.id]
        return len(old[:limit])


def _update(message: MessageRow, one: RecipientRow, update: RecipientUpdate, n: int) -> None:
    """What became of a recipient, after its attempt `n` (0: none was made)."""
    if n:
        one.attempts = max(one.attempts, n)
    else:
        one.uncount_claim()
    next_at = None
    if update.state in ("queued", "deferred"):
        next_at = message.accepted_at if update.next_at is None else update.next_at
    one.become(update.state, next_at)
    one.upstream = one.upstream if update.upstream is None else update.upstream
    one.reply = one.reply if update.reply is None else update.reply
    one.sent_at, one.step, one.delay_notified = update.sent_at, update.step, update.delay_notified
    one.deaths = 0
    one.repeat = update.repeat


def _died(one: RecipientRow) -> Literal["queued", "held", "ambiguous"]:
    """What becomes of a `sending` recipient whose relay ended."""
    if one.final_dot:
        one.become("ambiguous")
        one.reply = UNKNOWN
        return "ambiguous"
    one.deaths += 1
    if one.deaths >= MOST_DEATHS:
        one.become("held")
        return "held"
    one.step += 1
    one.become("queued", one.booked_at)
    return "queued"


def _act(one: RecipientRow, action: Action, now: float) -> None:
    match action:
        case "retry":
            one.become("queued", now)
            one.step, one.deaths, one.urged = 0, 0, True
        case "hold":
            one.become("held")
        case "release":
            one.become("queued", now)
            one.deaths = 0
        case "drop":
            one.become("bounced")
            one.reply = DROPPED
