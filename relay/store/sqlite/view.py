"""Messages as the contract's section 4 has them: rows in, JSON-ready values out."""

# ruff: noqa: S608 - the condition put in is a constant of this module; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from relay.store.sqlite.rows import SHOWN_CHARS, is_unreadable, lines

Json = dict[str, Any]

_SHOWN = f"substr(message_id, 1, {SHOWN_CHARS}), substr(subject, 1, {SHOWN_CHARS})"  # an older row may hold more


def messages(connection: sqlite3.Connection, ids: Sequence[str], *, attempts: bool, queue: bool = False) -> list[Json]:
    """The messages with these ids, in their order, as the contract's section 4 has them. Those that can't be read are
    left out, and logged."""
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
    import logging  # here, for the commands that look: it takes longer than they do

    log = logging.getLogger(__name__)
    log.warning("%d messages can't be shown, their rows can't be read: %s", len(unreadable), ", ".join(unreadable))
    return found


def _messages(connection: sqlite3.Connection, ids: Sequence[str], *, attempts: bool, queue: bool) -> list[Json]:
    among = "(SELECT value FROM json_each(?))"
    wanted = (json.dumps(ids),)
    tries: dict[tuple[str, int], list[Json]] = defaultdict(list)
    if attempts:
        for row in connection.execute(
            "SELECT message_id, position, n, upstream, started_at, session, outcome, reply, timings FROM attempt"
            f" WHERE message_id IN {among} ORDER BY message_id, position, n, started_at",
            wanted,
        ):
            tries[row[0], row[1]].append(_attempt(*row[2:]))
    recipients: dict[str, list[Json]] = defaultdict(list)
    for row in connection.execute(
        "SELECT message_id, position, address, provider, state, upstream, reply, sent_at, next_at, attempts"
        f" FROM recipient WHERE message_id IN {among} ORDER BY message_id, position",
        wanted,
    ):
        recipient = _recipient(*row[2:8])
        if attempts:
            recipient["attempts"] = tries[row[0], row[1]]
            if row[8] is not None:
                recipient["next_at"] = _time(row[8])
        if queue:
            recipient |= {"next_at": _time(row[8]), "attempts": row[9]}
        recipients[row[0]].append(recipient)
    notes: dict[str, list[Json]] = defaultdict(list)
    for message_id, at, text in connection.execute(
        f"SELECT message_id, at, text FROM note WHERE message_id IN {among} ORDER BY message_id, at", wanted
    ):
        notes[message_id].append({"at": _time(at), "text": text})
    found = {
        row[0]: _message(row, recipients[row[0]], notes[row[0]])
        for row in connection.execute(
            f"SELECT id, lane, rule, sender, client, {_SHOWN}, size, accepted_at, expires_at, signed,"
            " timings, priority, deliver_by"
            f" FROM message WHERE id IN {among}",
            wanted,
        )
    }
    return [found[message_id] for message_id in ids if message_id in found]


def _message(row: Sequence[Any], recipients: Iterable[Json], notes: Iterable[Json]) -> Json:
    message_id, lane, rule, sender, client, header_id, subject, size, accepted_at, expires_at, signed, timings = row[
        :12
    ]
    priority, deliver_by = row[12:]
    return {
        "id": message_id,
        "lane": lane,
        "rule": rule,
        "sender": sender,
        "client": client,
        "message_id": header_id,
        "subject": subject,
        "size": size,
        "accepted_at": _time(accepted_at),
        "expires_at": _time(expires_at),
        "signed": list(lines(signed)),
        "priority": priority,
        "deliver_by": deliver_by,
        "timings_ms": _timings(timings),
        "recipients": list(recipients),
        "notes": list(notes),
    }


def _recipient(
    address: str, provider: str, state: str, upstream: str | None, reply: str | None, sent_at: float | None
) -> Json:
    return {
        "address": address,
        "provider": provider,
        "state": state,
        "upstream": upstream,
        "reply": reply,
        "sent_at": _time(sent_at),
        "delivered_at": None,
    }


def _attempt(n: int, upstream: str, started_at: float, session: str, outcome: str, reply: str, timings: str) -> Json:
    return {
        "n": n,
        "upstream": upstream,
        "started_at": _time(started_at),
        "session": session,
        "outcome": outcome,
        "reply": reply,
        "timings_ms": _timings(timings),
    }


def _timings(text: str) -> Json:
    """As they were written; none where that can't be read."""
    try:
        timings = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return timings if isinstance(timings, dict) else {}


def _time(at: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond; None also for what is no time."""
    if at is None:
        return None
    try:
        shown = datetime.fromtimestamp(round(at, 3), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")
