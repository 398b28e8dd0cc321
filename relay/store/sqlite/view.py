"""Messages as the log shows them: rows in, the JSON form of `store/view.py` out."""

# ruff: noqa: S608 - the condition put in is a constant of this module; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

from relay.store.events import MailEvent
from relay.store.sqlite import relay_events
from relay.store.sqlite.files import PARTS_SINCE_VERSION, TRACE_SINCE_VERSION, schema_version
from relay.store.sqlite.relay_events import TailRow
from relay.store.sqlite.rows import SHOWN_CHARS, is_unreadable, lines
from relay.store.view import SPLIT, Json, add_events, attempt_json, message_json, recipient_json, time_text

_COLUMNS = ("id", "lane", "rule", "sender", "client", "size", "accepted_at", "expires_at", "priority", "deliver_by")
_DETECTED_SINCE_VERSION = 6
_SHOWN = f"substr(message_id, 1, {SHOWN_CHARS}), substr(subject, 1, {SHOWN_CHARS})"  # an older row may hold more


def messages(connection: sqlite3.Connection, ids: Sequence[str], *, attempts: bool, queue: bool = False) -> list[Json]:
    """The messages with these ids, in their order. Those that can't be read are left out, and logged."""
    try:
        return _messages(connection, ids, attempts=attempts, queue=queue)
    except Exception as error:
        if not is_unreadable(error):
            raise
    found: list[Json] = []
    unreadable: list[str] = []
    for message_id in ids:
        try:
            found += _messages(connection, [message_id], attempts=attempts, queue=queue)
        except Exception as error:
            if not is_unreadable(error):
                raise
            unreadable.append(message_id)
    import logging  # here: it takes longer to load than the commands that show the log take

    log = logging.getLogger(__name__)
    log.warning("%d messages can't be shown, their rows can't be read: %s", len(unreadable), ", ".join(unreadable))
    return found


def _messages(connection: sqlite3.Connection, ids: Sequence[str], *, attempts: bool, queue: bool) -> list[Json]:
    among = "(SELECT value FROM json_each(?))"
    wanted = (json.dumps(ids),)
    tries: dict[tuple[str, int], list[Json]] = defaultdict(list)
    happened = relay_events.of_messages(connection, ids) if attempts else ()
    if attempts:
        for message_id, position, n, upstream, at, session, outcome, reply, timings, via in connection.execute(
            "SELECT message_id, position, n, upstream, started_at, session, outcome, reply, timings, via FROM attempt"
            f" WHERE message_id IN {among} ORDER BY message_id, position, n, started_at",
            wanted,
        ):
            shown = attempt_json(n, upstream, at, session, outcome, reply, _timings(timings), via or "smtp")
            tries[message_id, position].append(shown)
    recipients: dict[str, list[Json]] = defaultdict(list)
    for message_id, position, *columns, next_at, made in connection.execute(
        "SELECT message_id, position, address, provider, state, upstream, reply, sent_at, next_at, attempts"
        f" FROM recipient WHERE message_id IN {among} ORDER BY message_id, position",
        wanted,
    ):
        recipient = recipient_json(*columns)
        if attempts:
            recipient["attempts"] = tries[message_id, position]
            if next_at is not None:
                recipient["next_at"] = time_text(next_at)
        if queue:
            recipient |= {"next_at": time_text(next_at), "attempts": made}
        recipients[message_id].append(recipient)
    notes: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for message_id, at, text in connection.execute(
        f"SELECT message_id, at, text FROM note WHERE message_id IN {among} ORDER BY message_id, at", wanted
    ):
        notes[message_id].append((at, text))
    found: dict[str, Json] = {}
    # An older relay left a file without these columns.
    version = schema_version(connection)
    detected = "detected" if version >= _DETECTED_SINCE_VERSION else "NULL"
    part = "part_of, places" if version >= PARTS_SINCE_VERSION else "NULL, NULL"
    trace = "trace" if version >= TRACE_SINCE_VERSION else "NULL"
    for header_id, subject, signed, timings, content, entry, places, parent, *columns in connection.execute(
        f"SELECT {_SHOWN}, signed, timings, {detected}, {part}, {trace}, {', '.join(_COLUMNS)} FROM message"
        f" WHERE id IN {among}",
        wanted,
    ):
        row = dict(zip(_COLUMNS, columns, strict=True))
        row |= {"message_id": header_id, "subject": subject, "signed": lines(signed), "timings_ms": _timings(timings)}
        row |= {"detected": content, SPLIT: _split(entry, places), "trace": parent}
        found[row["id"]] = message_json(row, recipients[row["id"]], notes[row["id"]])
        if attempts:
            add_events(found[row["id"]], row["accepted_at"], _of_recipients(row["id"], happened, recipients))
    return [found[message_id] for message_id in ids if message_id in found]


def _split(entry: str | None, places: str | None) -> Json | None:
    return None if places is None else {"entry": entry, "places": [int(place) for place in places.split(",")]}


def _of_recipients(
    message_id: str, happened: Iterable[TailRow], recipients: Mapping[str, Sized]
) -> Iterator[MailEvent]:
    """The events of one message, those of all recipients once for each."""
    for row in happened:
        if row.message_id == message_id:
            positions = range(len(recipients[message_id])) if row.position is None else (row.position,)
            yield from map(row.event, positions)


def _timings(text: str) -> Json:
    """As they were written; none where that can't be read."""
    try:
        timings = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return timings if isinstance(timings, dict) else {}
