"""Find the recipient that an ESP's event is about: by the relay's id, the ESP's id, the Message-ID, or by address and
time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

from relay.providers.webhook import EspEvent
from relay.store.sqlite.locate import Located, recipients_of, to_address, was_asked, with_address
from relay.store.sqlite.reader import Reader

LOOKED_BACK_S = 4 * 86400.0
"""how long after its acceptance a message is recognised by its recipient; ESPs try for three days"""
LATEST_S = 8 * 86400.0
"""an event that says that it is older, or that it is yet to come, has a wrong time"""
MOST_CANDIDATES = 500
"""messages to one address that are looked at"""
SLACK_S = 60.0
"""clocks of the ESP and of this machine may differ by this"""
_SLICE_S = 3600.0
"""events of the same slice of time are looked up together"""

Miss = Literal["unknown", "another recipient", "another upstream"]
"""`unknown`: no message of the relay's; the others: it didn't go to that address, or not by the event's upstream"""


class Upstream(NamedTuple):
    """What tells the mail of an upstream from other mail."""

    name: str
    esp_id: Callable[[str], str | None] | None
    """the ESP's id in its reply to the final dot"""
    keeps_message_id: bool


class Search:
    """Finds the recipients of some events that are looked up together. Each method blocks; raises StoreError."""

    def __init__(self, readers: Sequence[Reader], upstream: Upstream, now: float) -> None:
        """`readers`: of all message files. `now`: by the relay's clock."""
        self._readers = readers
        self._upstream = upstream
        self._now = now
        self._candidates: dict[tuple[str, float], Sequence[_Candidate]] = {}
        """A batch has many events about few addresses, or it is made to be slow: each address is looked up once."""
        self._messages: dict[str, tuple[Reader, Sequence[Located]]] = {}
        """So is each message: one may have hundreds of recipients."""

    def locate(self, event: EspEvent) -> Located | Miss:
        """The recipient that the event is about."""
        if event.relay_id is not None:
            return self._by_relay_id(event, event.relay_id)
        if event.recipient is None:
            return "unknown"
        at = event.at if event.at is not None and self._now - LATEST_S <= event.at <= self._now else self._now
        ends = min(self._now, ((at + SLACK_S) // _SLICE_S + 1) * _SLICE_S)
        candidates = self._to(event.recipient, ends)
        found = self._by_ids(candidates, event)
        if found is None and ends < self._now:  # the ESP's clock may be slow
            found = self._by_ids(self._to(event.recipient, self._now), event)
        return found or self._by_time(candidates, event, at) or "unknown"

    def _by_relay_id(self, event: EspEvent, relay_id: str) -> Located | Miss:
        found = self._messages.get(relay_id) or self._message(relay_id)
        if found is None:
            return "unknown"
        self._messages[relay_id] = found
        one = _recipient(*found, event.recipient)
        return one if isinstance(one, str) or self._was_asked(one) else "another upstream"

    def _message(self, relay_id: str) -> tuple[Reader, Sequence[Located]] | None:
        # A message that moves to another file is in both for a moment: one that moves to a file that was asked before
        # is found there in the second turn.
        for reader in (*self._readers, *self._readers[:-1]):
            found = reader.ask(partial(recipients_of, message_id=relay_id))
            if found:
                return reader, found
        return None

    def _was_asked(self, one: Located) -> bool:
        """Can the upstream have had it? The webhook of one isn't believed about another's mail."""
        if one.upstream == self._upstream.name:
            return True
        ask = partial(was_asked, one=one, upstream=self._upstream.name)
        return any(reader.ask(ask) for reader in (*self._readers, *self._readers[:-1]))

    def _by_ids(self, candidates: Sequence[_Candidate], event: EspEvent) -> Located | None:
        """The newest message with the ESP's id, else the newest with the Message-ID."""
        if event.esp_id is not None:
            for one, esp_id in candidates:
                if esp_id == event.esp_id:
                    return one
        if event.message_id is not None:
            for one, _ in candidates:
                if one.header_id == event.message_id and self._was_asked(one):
                    return one
        return None

    def _to(self, address: str, ends: float) -> Sequence[_Candidate]:
        """What was accepted for the address in the days before then, newest first."""
        key = address, ends
        if key not in self._candidates:
            after = ends - _SLICE_S - LOOKED_BACK_S
            look = partial(to_address, address=address, after=after, before=ends, limit=MOST_CANDIDATES)
            found = [one for reader in self._readers for one in reader.ask(look)]
            found.sort(key=lambda one: one.accepted_at, reverse=True)
            self._candidates[key] = [_Candidate(one, self._esp_id(one)) for one in found]
        return self._candidates[key]

    def _esp_id(self, one: Located) -> str | None:
        upstream = self._upstream
        if upstream.esp_id is None or one.upstream != upstream.name or one.reply is None:
            return None
        return upstream.esp_id(one.reply)

    def _by_time(self, candidates: Sequence[_Candidate], event: EspEvent, at: float) -> Located | None:
        """The newest message that this upstream has sent before the event, without an id that the event contradicts."""
        if event.message_id is not None and self._upstream.keeps_message_id:
            return None
        for one, esp_id in candidates:
            may_be = one.upstream == self._upstream.name and one.sent_at is not None
            contradicts = event.esp_id is not None and esp_id is not None
            if may_be and not contradicts and one.accepted_at <= at + SLACK_S:
                return one
        return None


class _Candidate(NamedTuple):
    """A recipient with the event's address."""

    one: Located
    esp_id: str | None


def _recipient(reader: Reader, among: Sequence[Located], address: str | None) -> Located | Miss:
    if address is None:
        return among[0] if len(among) == 1 else "unknown"
    return reader.ask(partial(with_address, among=among, address=address)) or "another recipient"
