"""What the store in memory holds, and its log."""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from relay.mail.envelope import Recipient
from relay.store import receive
from relay.store.base import StoreError
from relay.store.model import (
    OPEN_STATES,
    SUSPECT_DEATHS,
    Attempt,
    Booking,
    DeliveryRow,
    LaneCount,
    NewMessage,
    Repeat,
    ReportedRow,
    Selection,
    State,
)
from relay.store.parts import joined
from relay.store.search_text import Found, SearchText
from relay.store.view import Json, attempt_json, message_json, recipient_json, time_text


@dataclass
class RecipientRow:
    position: int
    recipient: Recipient
    provider: str
    state: State = "queued"
    next_at: float | None = None
    """due; None unless queued or deferred"""
    step: int = 0
    attempts: int = 0
    delay_notified: bool = False
    final_dot: bool = False
    upstream: str | None = None
    reply: str | None = None
    sent_at: float | None = None
    booked_at: float | None = None
    """`sending`: due again then after a crash"""
    holder: str | None = None
    lease_until: float | None = None
    deaths: int = 0
    repeat: Repeat | None = None
    urged: bool = False
    made: dict[tuple[int, float], Attempt] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    @property
    def is_suspect(self) -> bool:
        return self.is_open and self.deaths >= SUSPECT_DEATHS

    @property
    def shown_next_at(self) -> float | None:
        """A suspect's is not shown: it waits for others, too."""
        return None if self.is_suspect else self.next_at

    def is_due(self, now: float) -> bool:
        return self.next_at is not None and self.next_at <= now

    def become(self, state: State, next_at: float | None = None) -> None:
        """A state in which no lane has it."""
        self.state, self.next_at = state, next_at
        self.booked_at = self.holder = self.lease_until = None

    def book(self, now: float, booking: Booking) -> None:
        """Claim it: count the attempt, and book the next one."""
        wait_s = booking.ladder_s[min(self.step, len(booking.ladder_s) - 1)]
        self.state, self.next_at, self.final_dot = "sending", None, False
        self.booked_at, self.holder, self.lease_until = now + wait_s, booking.holder, now + booking.lease_s
        self.attempts += 1

    def uncount_claim(self) -> None:
        """The attempt that the claim counted doesn't count, if none was made."""
        made = max((n for n, _ in self.made), default=0)
        self.attempts = max(self.attempts - (self.state == "sending"), made)


@dataclass
class MessageRow:
    new: NewMessage
    lane: str
    accepted_at: float
    expires_at: float
    recipients: list[RecipientRow]
    timings_ms: dict[str, float]
    notes: dict[tuple[float, str], None] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return any(one.is_open for one in self.recipients)

    @property
    def entry(self) -> str:
        return (self.new.split.entry if self.new.split is not None else None) or self.new.id

    def matching(self, selection: Selection) -> list[RecipientRow]:
        """The recipients that a selection names, none if it doesn't name the message."""
        named = (
            (not selection.ids or self.new.id in selection.ids)
            and selection.lane in (None, self.lane)
            and (selection.since is None or self.accepted_at >= selection.since)
            and (selection.until is None or self.accepted_at < selection.until)
            and self._has(selection.text or SearchText())
        )
        part = None if selection.text is None else selection.text.to
        to = None if selection.to is None else selection.to.casefold()
        return [
            one
            for one in self.recipients
            if named
            and selection.state in (None, one.state)
            and (not selection.states or one.state in selection.states)
            and (to is None or one.recipient.address.casefold() == to)
            and (part is None or _holds(one.recipient.address.casefold(), part.casefold()))
        ]

    def _has(self, text: SearchText) -> bool:
        """Whether the message has the texts, but for `to`."""
        new = self.new
        named = ((text.sender, new.envelope.sender), (text.subject, new.subject), (text.message_id, new.message_id))
        if any(wanted is not None and not _holds(value, wanted) for wanted, value in named):
            return False
        addresses = [one.recipient.address for one in self.recipients]
        return text.anywhere is None or (
            new.id.startswith(text.anywhere.upper())
            or any(_holds(value, text.anywhere) for value in (*(value for _, value in named), *addresses))
        )

    def json(self, *, attempts: bool, queue: bool = False) -> Json:
        recipients = []
        for one in self.recipients:
            shown = recipient_json(one.recipient.address, one.provider, one.state, one.upstream, one.reply, one.sent_at)
            if attempts:
                made = (one.made[key] for key in sorted(one.made))
                shown["attempts"] = [
                    attempt_json(
                        *(a.n, a.upstream, a.started_at, a.session, a.outcome, a.reply, rounded(a.timings_ms), a.via)
                    )
                    for a in made
                ]
            if queue or (attempts and one.shown_next_at is not None):
                shown["next_at"] = time_text(one.shown_next_at)
            if queue:
                shown["attempts"] = one.attempts
            recipients.append(shown)
        by = self.new.envelope.deliver_by
        split = self.new.split
        row = {
            **self.new._asdict(),
            "split": None if split is None else {"entry": split.entry, "places": list(split.places)},
            "lane": self.lane,
            "sender": self.new.envelope.sender,
            "size": len(self.new.content),
            "accepted_at": self.accepted_at,
            "expires_at": self.expires_at,
            "priority": self.new.envelope.priority,
            "deliver_by": None if by is None else f"{by.seconds};{by.mode}{'T' if by.trace else ''}",
            "timings_ms": self.timings_ms,
        }
        return message_json(row, recipients, sorted(self.notes))


class MemoryLog:
    """`base.Log` over messages in memory."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: the clock for the notes, seconds since the epoch."""
        self._now = now
        self._all: dict[str, MessageRow] = {}
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    def _messages(self) -> Iterable[MessageRow]:
        if self._closed:
            raise StoreError("the store is closed")
        return self._all.values()

    def _recipients(self, lane: str | None = None) -> Iterator[tuple[MessageRow, RecipientRow]]:
        """Open recipients, of one lane or of all."""
        for message in self._messages():
            if lane in (None, message.lane):
                yield from ((message, one) for one in message.recipients if one.is_open)

    async def get(self, message_id: str) -> Json | None:
        self._messages()
        found = self._all.get(message_id)
        entry = message_id if found is None else found.entry
        return next(iter(self._whole([entry], attempts=True)), None)

    async def search(self, selection: Selection) -> Sequence[Json]:
        found = [message for message in self._messages() if message.matching(selection)]
        found.sort(key=lambda message: (message.accepted_at, message.new.id), reverse=True)
        return self._whole([message.entry for message in found], attempts=False)[: selection.limit]

    async def find(self, selection: Selection, within_s: float) -> Found:
        return Found(await self.search(selection))

    async def ids_that_begin(self, begin: str, limit: int) -> Sequence[str]:
        return sorted((one.new.id for one in self._messages() if one.new.id.startswith(begin)), reverse=True)[:limit]

    async def waiting(self, selection: Selection) -> Sequence[Json]:
        found = [message.entry for message in self._waiting(selection)]
        return self._whole(found, attempts=False, queue=True)[: selection.limit]

    def _whole(self, entries: Iterable[str], *, attempts: bool, queue: bool = False) -> list[Json]:
        """The messages with these entries, each once with all its parts."""
        shown = []
        for entry in dict.fromkeys(entries):
            parts = [one.json(attempts=attempts, queue=queue) for one in self._all.values() if one.entry == entry]
            if parts:
                shown.append(joined(parts) if "split" in parts[0] else parts[0])
        return shown

    async def with_parts(self, ids: Sequence[str]) -> Sequence[str]:
        entries = {self._all[one].entry for one in ids if one in self._all}
        return list(dict.fromkeys([*ids, *(one.new.id for one in self._all.values() if one.entry in entries)]))

    def _waiting(self, selection: Selection) -> list[MessageRow]:
        due: list[tuple[float, str, MessageRow]] = []
        for message in self._messages():
            times = [
                math.inf if one.next_at is None else one.next_at for one in message.matching(selection) if one.is_open
            ]
            if times:
                due.append((min(times), message.new.id, message))
        return [message for _, _, message in sorted(due, key=lambda each: each[:2])]

    async def counts(self) -> Sequence[LaneCount]:
        counted: dict[tuple[str, State], list[float]] = {}
        for message, one in self._recipients():
            counted.setdefault((message.lane, one.state), []).append(message.accepted_at)
        return [LaneCount(lane, state, len(times), min(times)) for (lane, state), times in counted.items()]

    async def deliveries(self, since: float, objectives: Mapping[str, float] | None = None) -> Sequence[DeliveryRow]:
        rows = Counter(
            DeliveryRow(
                message.lane, one.upstream, one.provider, one.state, _total_ms(message, one), 1, slow,
                self._is_resent(message, one), _in_time(message, one, (objectives or {}).get(message.lane)),
            )
            for message in self._messages()
            for slow in [receive.hint(message.timings_ms.get("receive"), len(message.new.content)) is not None]
            for one in message.recipients
            if message.accepted_at >= since and not one.is_open
        )  # fmt: skip
        return [row._replace(recipients=recipients) for row, recipients in rows.items()]

    async def reported(self, since: float) -> Sequence[ReportedRow]:
        return []

    def _is_resent(self, message: MessageRow, one: RecipientRow) -> bool:
        life_s = message.new.expires_at - message.accepted_at
        return message.new.envelope.sender != "" and any(
            message.accepted_at - life_s < before.accepted_at <= message.accepted_at
            and before.new.id < message.new.id
            and (before.lane, before.new.rule) == (message.lane, message.new.rule)
            and any(each.recipient.address.casefold() == one.recipient.address.casefold() for each in before.recipients)
            for before in self._messages()
        )


def _in_time(message: MessageRow, one: RecipientRow, within_s: float | None) -> bool | None:
    if within_s is None or one.state not in ("sent", "expired"):
        return None
    return one.state == "sent" and one.sent_at is not None and one.sent_at - message.accepted_at <= within_s


def _total_ms(message: MessageRow, one: RecipientRow) -> float | None:
    """Final dot to reply, cut off to three digits (tenths below 100 ms)."""
    if one.sent_at is None:
        return None
    spent_ms = (one.sent_at - message.accepted_at) * 1000 + 0.001
    unit = 0.1 if spent_ms < 100 else 1.0 if spent_ms < 1000 else 10.0 if spent_ms < 10_000 else 100.0
    return math.floor(spent_ms / unit) * unit


def rounded(timings_ms: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in timings_ms.items()}


def _holds(value: str, text: str) -> bool:
    """A glob fits the value, or a part of it is the text."""
    glob = text if "*" in text or "?" in text else f"*{text}*"
    return re.fullmatch(fnmatch.translate(glob.replace("[", "[[]")), value, re.IGNORECASE) is not None
