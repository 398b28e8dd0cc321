"""Events of all files as one: on a message's time line, in a listing, and as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self, get_args

from relay.providers.webhook import EspKind
from relay.store.base import StoreError
from relay.store.events import EventSelection, MailEvent
from relay.store.sqlite import event_search, relay_events
from relay.store.sqlite.event_search import Shown
from relay.store.sqlite.events_reader import EspRow, EventsReader
from relay.store.sqlite.events_schema import events_path
from relay.store.sqlite.locate import Located, recipients_of
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.relay_events import TailRow
from relay.store.view import Json, add_events, event_json, time_text

NEWS_AT_ONCE = 1_000
OF_ESPS_ONLY = frozenset(get_args(EspKind)) - {"deferred", "bounced"}
"""kinds that no event of the relay's own has: it would be looked for in vain in all of them"""


class TimeLines:
    """The events of ESPs beside what message files have. Each method blocks, and raises StoreError."""

    def __init__(self, store: Path) -> None:
        """`store`: the main store file. The events file may come later."""
        self._path = events_path(store)
        self._reader: EventsReader | None = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    @property
    def esp(self) -> EventsReader | None:
        """What ESPs reported; None: nothing so far, or nothing that can be read. The rest of a time line is shown all
        the same: the process that writes the file says what is wrong with it."""
        if self._reader is None:
            with suppress(StoreError):
                self._reader = EventsReader.find(self._path)
        return self._reader

    def complete(self, message: Json, readers: Sequence[Reader]) -> Json:
        """Add to a message what other files have of its time line."""
        ids = [message["id"]]
        events: list[MailEvent] = []
        for reader in readers:
            for row in reader.ask(partial(relay_events.of_messages, ids=ids)):
                count = len(message["recipients"])
                events += map(row.event, range(count) if row.position is None else (row.position,))
        if (esp := self.esp) is not None:
            events += (row.event for row in esp.of_messages(ids))
        add_events(message, _seconds(message["accepted_at"]), events)
        return message

    def add_deliveries(self, messages: Sequence[Json]) -> None:
        """Set `delivered_at` of the recipients of listed messages."""
        if (esp := self.esp) is None or not messages:
            return
        by_id = {message["id"]: message for message in messages}
        for row in reversed(esp.of_messages(list(by_id))):  # the first delivery is the last to be written
            recipients = by_id[row.event.message_id]["recipients"]
            if row.event.kind == "delivered" and row.event.position < len(recipients):
                recipients[row.event.position]["delivered_at"] = time_text(row.event.at)

    def search(self, selection: EventSelection, readers: Sequence[Reader]) -> Sequence[Json]:
        """The events selected, oldest first."""
        found: dict[str, Shown] = {}
        for reader in readers if selection.kind not in OF_ESPS_ONLY else ():
            for one in reader.ask(partial(event_search.search, selection=selection)):
                found[one.event.id] = one
            for one in _of_moved(reader, selection, readers):
                found[one.event.id] = one
        for one in self._of_esps(selection, readers):
            found[one.event.id] = one
        ordered = sorted(found.values(), key=lambda one: (one.event.at, one.event.source == "esp"))
        limit = selection.limit
        return [_json(one) for one in (ordered[:limit] if selection.since is not None else ordered[-limit:])]

    def _of_esps(self, selection: EventSelection, readers: Sequence[Reader]) -> Sequence[Shown]:
        if (esp := self.esp) is None:
            return []
        ids: list[str] | None = None
        if selection.to is not None:
            look = partial(event_search.messages_to, address=selection.to)
            ids = [message_id for reader in readers for message_id in reader.ask(look)]
        shown = with_recipients(esp.search(selection, ids), readers)
        if selection.to is None:
            return shown
        to = selection.to.casefold()
        return [one for one in shown if one.recipient.casefold() == to or one.recipient.startswith("h:")]


class News:
    """What has happened since the last call, in all files. It begins at the end of what there is."""

    def __init__(self, lines: TimeLines, readers: Callable[[], Mapping[str, Reader]]) -> None:
        """`readers`: of all message files by name; one that comes later is read from its begin."""
        self._lines = lines
        self._readers = readers
        self._seen = {name: reader.ask(relay_events.last) for name, reader in readers().items()}
        self._esp_seen = lines.esp.last() if lines.esp is not None else 0

    def take(self) -> Sequence[Json]:
        """Up to some thousand new events, oldest first. Blocks; raises StoreError."""
        found: list[Shown] = []
        readers = self._readers()
        for name, reader in readers.items():
            rows = reader.ask(partial(relay_events.since, seq=self._seen.get(name, 0), limit=NEWS_AT_ONCE))
            if not rows:
                continue
            self._seen[name] = rows[-1].seq
            recipients = Recipients.from_(reader, list(readers.values()))
            found += [
                Shown(event, one.address, one.lane, one.accepted_at, one.header_id, one.entry)
                for event, one in recipients.of_rows(rows)
            ]
        if (esp := self._lines.esp) is not None and (news := esp.since(self._esp_seen, NEWS_AT_ONCE)):
            self._esp_seen = news[-1].seq
            found += with_recipients(news, list(readers.values()))
        return [_json(one) for one in sorted(found, key=lambda one: one.event.at)]


class Recipients:
    """Looks up the recipients of messages, each message once."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self._known: dict[str, Sequence[Located]] = {}

    @classmethod
    def from_(cls, first: Reader, readers: Sequence[Reader]) -> Self:
        """Of messages that are in the file of `first`, or have moved to another one; or were on their way back."""
        return cls([first, *readers, first])

    def of_rows(self, rows: Iterable[TailRow]) -> Iterator[tuple[MailEvent, Located]]:
        """Each event of the relay's own, with each recipient that it is about; none of deleted messages."""
        for row in rows:
            found = self.of(row.message_id)
            for one in found if row.position is None else found[row.position : row.position + 1]:
                yield row.event(one.position), one

    def of(self, message_id: str) -> Sequence[Located]:
        """In order; none: no file has the message."""
        if message_id not in self._known:
            look = partial(recipients_of, message_id=message_id)
            self._known[message_id] = next((found for one in self._readers if (found := one.ask(look))), ())
        return self._known[message_id]


def _of_moved(reader: Reader, selection: EventSelection, readers: Sequence[Reader]) -> Iterator[Shown]:
    """The events selected in the file of `reader`, of messages that have moved to another one."""
    rows = reader.ask(partial(event_search.moved, selection=selection))
    to = None if selection.to is None else selection.to.casefold()
    for event, one in Recipients.from_(reader, readers).of_rows(rows):
        if selection.lane in (None, one.lane) and to in (None, one.address.casefold()):
            yield Shown(event, one.address, one.lane, one.accepted_at, one.header_id, one.entry)


def with_recipients(rows: Iterable[EspRow], readers: Sequence[Reader]) -> Sequence[Shown]:
    """ESPs' events with the recipients that they are about; without those whose message is deleted."""
    recipients, shown = Recipients(readers), []
    for row in rows:
        found = recipients.of(row.event.message_id)[row.event.position : row.event.position + 1]
        shown += [Shown(row.event, one.address, row.lane, one.accepted_at, one.header_id, one.entry) for one in found]
    return shown


def _json(one: Shown) -> Json:
    event, recipient, lane, accepted_at, header_id, entry = one
    return event_json(event, recipient=recipient, lane=lane, accepted_at=accepted_at, header_id=header_id, entry=entry)


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
