"""The JSON form of a message, its recipients and attempts (docs/reference.md), the same for every store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from relay.mail.traceparent import trace_id
from relay.store import receive
from relay.store.events import MailEvent

Json = dict[str, Any]

SPLIT = "split"
"""the key under which a part of a split message says so, until `store.parts` joins them"""


def entry_of(message: Mapping[str, Any]) -> str:
    """The id by which the app knows the message: its own, or that of the entry whose part it is."""
    split = message.get(SPLIT)
    return str(message["id"] if split is None or split["entry"] is None else split["entry"])


def message_json(row: Mapping[str, Any], recipients: Iterable[Json], notes: Iterable[tuple[float, str]]) -> Json:
    """`row`: the message's columns, with `signed` as names and `timings_ms` as a mapping. `split` (of a part): None, or
    `entry` and `places` as a `SplitPart` has them."""
    split = {} if row[SPLIT] is None else {SPLIT: row[SPLIT]}
    return {
        "id": row["id"],
        "lane": row["lane"],
        "rule": row["rule"],
        "sender": row["sender"],
        "client": row["client"],
        "message_id": row["message_id"],
        "subject": row["subject"],
        "size": row["size"],
        "accepted_at": time_text(row["accepted_at"]),
        "expires_at": time_text(row["expires_at"]),
        "signed": list(row["signed"]),
        "content": row["detected"],
        "trace": None if row["trace"] is None else trace_id(row["trace"]),
        "priority": row["priority"],
        "deliver_by": row["deliver_by"],
        "timings_ms": dict(row["timings_ms"]),
        "hint": receive.hint(row["timings_ms"].get("receive"), row["size"]),
        "recipients": list(recipients),
        "notes": [{"at": time_text(at), "text": text} for at, text in notes],
        **split,
    }


def recipient_json(
    address: str, provider: str, state: str, upstream: str | None, reply: str | None, sent_at: float | None
) -> Json:
    return {
        "address": address,
        "provider": provider,
        "state": state,
        "upstream": upstream,
        "reply": reply,
        "sent_at": time_text(sent_at),
        "delivered_at": None,
    }


def attempt_json(
    n: int,
    upstream: str,
    started_at: float,
    session: str,
    outcome: str,
    reply: str,
    timings_ms: Mapping[str, float],
    via: str,
) -> Json:
    return {
        "n": n,
        "upstream": upstream,
        "started_at": time_text(started_at),
        "via": via,
        "session": session,
        "outcome": outcome,
        "reply": reply,
        "timings_ms": dict(timings_ms),
    }


def add_events(message: Json, accepted_at: float, events: Iterable[MailEvent]) -> None:
    """Put events into the time lines of a message's recipients, each once, oldest first. `accepted_at`: of the
    message. The first `delivered` event is the recipient's `delivered_at`."""
    recipients = message["recipients"]
    for recipient in recipients:
        recipient.setdefault("events", [])
    for event in sorted(events, key=lambda one: one.at):
        if 0 <= event.position < len(recipients):
            recipient = recipients[event.position]
            shown = event_json(
                event,
                recipient=recipient["address"],
                lane=message["lane"],
                accepted_at=accepted_at,
                header_id=message["message_id"],
                entry=entry_of(message),
            )
            if all(one["id"] != shown["id"] for one in recipient["events"]):
                recipient["events"].append(shown)
    for recipient in recipients:
        _put_in_order(recipient["events"])
        delivered = (one["at"] for one in recipient["events"] if one["kind"] == "delivered")
        recipient["delivered_at"] = next(delivered, None)


def _put_in_order(events: list[Json]) -> None:
    """By time. What an ESP reports stands behind the `sent` that it follows from, though its clock may be behind, and
    have whole seconds only."""
    sent_at: dict[str, str] = {}
    for one in events:
        if one["kind"] == "sent":
            sent_at.setdefault(one["upstream"], one["at"])

    def place(one: Json) -> tuple[str, bool]:
        is_esp = one["source"] == "esp"
        return max(one["at"], sent_at.get(one["upstream"], "")) if is_esp else one["at"], is_esp

    events.sort(key=place)


def event_json(event: MailEvent, *, recipient: str, lane: str, accepted_at: float, header_id: str, entry: str) -> Json:
    """An event of a time line. `accepted_at`: of its message. `header_id`: the Message-ID. `entry`: the id by which the
    app knows the message; the event may be about a part of it."""
    ended_at = event.at if event.latest_at is None else event.latest_at
    return {
        "id": event.id,
        "at": time_text(event.at),
        "kind": event.kind,
        "source": event.source,
        "message": entry,
        "message_id": header_id,
        "recipient": recipient,
        "lane": lane,
        "upstream": event.upstream,
        "permanent": event.permanent,
        "reason": event.reason,
        "after_ms": max(0.0, round((round(ended_at, 3) - round(accepted_at, 3)) * 1000.0)) * 1.0,
    }


def time_text(at: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond; None for None, and for what is no time."""
    if at is None:
        return None
    try:
        shown = datetime.fromtimestamp(round(at, 3), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")
