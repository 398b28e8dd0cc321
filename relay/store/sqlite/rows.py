"""Conversion between the store's values and table rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from relay.mail.envelope import DeliverBy, Envelope, Notify, Recipient
from relay.store.model import Booking, NewMessage

PART_BYTES = 500_000
"""A larger content is written and deleted in parts, so that no transaction is long."""
SHOWN_CHARS = 1_000
"""of a subject and a Message-ID are kept, which are shown only: a message's row stays small"""

BODY = ("id", "content")
MESSAGE = (
    "id", "lane", "rule", "sender", "client", "message_id", "subject", "size", "accepted_at", "expires_at", "body",
    "parts", "body_key", "supersede_key", "upstreams", "signed", "body_type", "smtputf8", "ret", "envid", "priority",
    "deliver_by", "timings", "detected", "part_of", "places",
    "trace",
)  # fmt: skip
RECIPIENT = (
    "message_id", "position", "lane", "accepted_at", "address", "folded", "provider", "notify", "orcpt", "state",
    "open", "next_at", "attempts", "booked_at", "holder", "lease_until",
)  # fmt: skip
ACCEPTED = ("message_id", "at", "kind")
"""of `event`: a message was accepted, for all its recipients"""
LIMITED = ("message_id", "at", "kind", "reason")
"""of `event`, as above"""
ADMISSION = ("seq", "at", "keys")
IDEMPOTENCY = ("key", "request", "message_id", "at")
ATTEMPT = (
    "message_id", "position", "n", "upstream", "started_at", "session", "outcome", "reply", "timings",
    "via",
)  # fmt: skip


@cache
def values(rows: int, columns: int) -> str:
    """`VALUES (?, ?), (?, ?)`: so many of each."""
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"


@cache
def insert(table: str, columns: Sequence[str], rows: int) -> str:
    """A statement that inserts so many rows."""
    return f"INSERT OR {_CONFLICT[table]} INTO {table} ({', '.join(columns)}) {values(rows, len(columns))}"


_CONFLICT = {
    "body": "ABORT", "message": "ABORT", "recipient": "ABORT", "event": "ABORT", "attempt": "REPLACE",
    "admission": "REPLACE", "idempotency": "REPLACE",
}  # fmt: skip
"""An attempt that is written twice is one. An idempotency key whose time is over may be used again."""


_NEXT_OPEN_LANE = (
    "SELECT lane FROM recipient INDEXED BY recipient_open WHERE open = 1 AND lane > ? ORDER BY lane LIMIT 1"
)


def open_lanes(execute: Callable[..., sqlite3.Cursor]) -> list[str]:
    """The lanes that have open mail: one step through the index for each, however much waits."""
    lanes: list[str] = []
    while found := execute(_NEXT_OPEN_LANE, (lanes[-1] if lanes else "",)).fetchone():
        lanes.append(found[0])
    return lanes


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""raised by a value that its column should not hold"""


def is_unreadable(error: Exception) -> bool:
    """Is a value in a row the cause, and not the file?"""
    # Python's sqlite3 raises this by itself for a text that isn't UTF-8; what SQLite raises has a code.
    undecodable = isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode")
    return undecodable or isinstance(error, UNREADABLE)


class BodyRange(NamedTuple):
    """Rows `first` to `first + parts - 1` of `body`: one content of `size_bytes`, encrypted with the key of this id."""

    first: int
    parts: int
    key_id: str | None
    size_bytes: int


class StoredContent(NamedTuple):
    """A content that lies in the file."""

    message_id: str
    body: BodyRange


def message_row(message: NewMessage, body: BodyRange) -> tuple[Any, ...]:
    """The columns of MESSAGE."""
    envelope = message.envelope
    by = envelope.deliver_by
    return (
        message.id,
        message.lane,
        message.rule,
        envelope.sender,
        message.client,
        message.message_id[:SHOWN_CHARS],
        message.subject[:SHOWN_CHARS],
        body.size_bytes,
        message.accepted_at,
        message.expires_at,
        body.first,
        body.parts,
        body.key_id,
        message.supersede_key,
        "\n".join(message.upstreams) or None,
        "\n".join(message.signed) or None,
        envelope.body,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.priority,
        None if by is None else f"{by.seconds};{by.mode}{'T' if by.trace else ''}",
        timings_text(message.timings_ms),
        message.detected,
        None if message.split is None else message.split.entry,
        None if message.split is None else ",".join(map(str, message.split.places)),
        message.trace,
    )


def recipient_rows(message: NewMessage, booking: Booking | None) -> list[tuple[Any, ...]]:
    """The columns of RECIPIENT, a row for each recipient. `booking` None: it isn't claimed."""
    end: tuple[Any, ...]
    if booking is None:
        end = ("queued", 1, message.first_due_at, 0, None, None, None)
    else:
        booked_at, lease_until = message.accepted_at + booking.ladder_s[0], message.accepted_at + booking.lease_s
        end = ("sending", 1, None, 1, booked_at, booking.holder, lease_until)
    return [
        (
            message.id,
            position,
            message.lane,
            message.accepted_at,
            recipient.address,
            None if (folded := fold(recipient.address)) == recipient.address else folded,
            provider,
            None if recipient.notify is None else ",".join(sorted(recipient.notify)),
            recipient.orcpt,
            *end,
        )
        for position, (recipient, provider) in enumerate(
            zip(message.envelope.recipients, message.providers, strict=True)
        )
    ]


def fold(address: str) -> str:
    """An address's form for comparison without case."""
    return address.casefold()


def timings_text(timings_ms: Mapping[str, float]) -> str:
    """Milliseconds by name (names of ours, which need no escaping), to the microsecond, as JSON."""
    return "{" + ",".join([f'"{name}":{value:.3f}' for name, value in timings_ms.items()]) + "}"


def lines(text: str | None) -> tuple[str, ...]:
    """A column that holds names, a line each."""
    return tuple(text.split("\n")) if text else ()


def read_envelope(message: Mapping[str, Any], recipients: Iterable[Mapping[str, Any]]) -> Envelope:
    """The envelope as it was given, with all its recipients."""
    return Envelope(
        sender=message["sender"],
        recipients=tuple(_recipient(row) for row in recipients),
        body=message["body_type"],
        smtputf8=bool(message["smtputf8"]),
        ret=message["ret"],
        envid=message["envid"],
        priority=message["priority"],
        deliver_by=_deliver_by(message["deliver_by"]),
    )


def _recipient(row: Mapping[str, Any]) -> Recipient:
    return Recipient(row["address"], _notify(row["notify"]), row["orcpt"])


def _notify(text: str | None) -> frozenset[Notify] | None:
    return None if text is None else frozenset(text.split(","))  # type: ignore[arg-type]


def _deliver_by(text: str | None) -> DeliverBy | None:
    if text is None:
        return None
    seconds, _, mode = text.partition(";")
    return DeliverBy(int(seconds), "R" if mode.startswith("R") else "N", trace=mode.endswith("T"))
