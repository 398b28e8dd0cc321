"""What the doctor reads of a message file: the newest part of it, so that a large log takes no longer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SLICE_MESSAGES = 20_000
"""read at a time: some 20 ms, where the file is in memory"""
NEWEST = "~"
"""behind every id"""

RULES = (
    "SELECT rule, count(*), min(accepted_at), min(id) FROM"
    " (SELECT id, rule, accepted_at FROM message WHERE id < :before ORDER BY id DESC LIMIT :messages) GROUP BY rule"
)
NEWEST_SINCE = (
    "SELECT accepted_at FROM message WHERE accepted_at > :since ORDER BY accepted_at DESC LIMIT 1 OFFSET :messages"
)
HAS_MAIL = "SELECT 1 FROM message WHERE lane = :lane AND accepted_at > :since LIMIT 1"


class RulesSeen(NamedTuple):
    """The rules by which a slice of the log was routed."""

    messages: Mapping[str | None, int]
    """by rule; None: those that no rule matched"""
    since: float | None
    """when the oldest of them was accepted, in seconds since the epoch; None: there are none"""
    before: str | None
    """the id before which the next slice ends; None: the log begins here"""


def rules_seen(connection: sqlite3.Connection, before: str) -> RulesSeen:
    """A slice of the messages whose ids are less than `before`, newest first. Ids grow with time."""
    rows = connection.execute(RULES, {"before": before, "messages": SLICE_MESSAGES}).fetchall()
    messages = {rule: count for rule, count, _, _ in rows}
    is_last = sum(messages.values()) < SLICE_MESSAGES
    since = min((at for _, _, at, _ in rows), default=None)
    return RulesSeen(messages, since, None if is_last else min(first for _, _, _, first in rows))


def newest_since(connection: sqlite3.Connection, since: float, messages: int) -> float:
    """`since`, or a later time where more than so many messages were accepted since then: of the newest ones about as
    many were accepted after it."""
    found = connection.execute(NEWEST_SINCE, {"since": since, "messages": messages}).fetchone()
    return since if found is None else float(found[0])


def has_mail(connection: sqlite3.Connection, lanes: Iterable[str], since: float) -> bool:
    """Whether a message of one of the lanes was accepted since then."""
    return any(connection.execute(HAS_MAIL, {"lane": lane, "since": since}).fetchone() for lane in lanes)
