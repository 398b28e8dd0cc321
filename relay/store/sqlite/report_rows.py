"""What a report reads of a message file, and of the events file: rows that are alike are counted, a slice at a time."""

# ruff: noqa: S608 - what is put together here are texts of this module; every value is a parameter

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence

from relay.store import receive
from relay.store.events import LATEST_IN_SECOND_S
from relay.store.model import DeliveryRow, ReportedRow

SLICE_MESSAGES = 10_000
"""of the log that a report reads at a time: some 100 ms"""
SLICE_EVENTS = 20_000
EVENTS = "esps"
"""the name under which a reader of a message file has the events file beside it"""


def _cut_off(ms: str) -> str:
    """To three digits, in tenths below 100 ms. Cut off, not rounded: no time is taken into the next band. What is
    added is more than a float's error and less than anything that was measured."""
    ms = f"(({ms}) + 0.001)"
    return (
        f"CASE WHEN {ms} < 100 THEN CAST({ms} * 10 AS INTEGER) / 10.0"
        f" WHEN {ms} < 1000 THEN CAST({ms} AS INTEGER) * 1.0"
        f" WHEN {ms} < 10000 THEN CAST({ms} / 10 AS INTEGER) * 10.0"
        f" ELSE CAST({ms} / 100 AS INTEGER) * 100.0 END"
    )


_SLOW_RECEIVE = (
    f"CASE WHEN m.size > {receive.MOST_BYTES} OR NOT json_valid(m.timings) THEN 0"
    f" ELSE coalesce(json_extract(m.timings, '$.receive') > {receive.SLOW_MS}, 0) END"
)
# An earlier message of the same rule to the same recipient, within the time in which the code is of use.
_RESENT = (
    "m.sender <> '' AND EXISTS (SELECT 1 FROM recipient AS b INDEXED BY recipient_address"
    " CROSS JOIN message AS n ON n.id = b.message_id"
    " WHERE coalesce(b.folded, b.address) = coalesce(r.folded, r.address)"
    " AND b.accepted_at > r.accepted_at - (m.expires_at - m.accepted_at) AND b.accepted_at <= r.accepted_at"
    " AND b.message_id < r.message_id AND b.lane = r.lane AND n.rule IS m.rule)"
)
# As `events.latest`.
_LATEST_AT = (
    f"CASE WHEN e.at = round(e.at) THEN min(e.at + {LATEST_IN_SECOND_S}, max(e.at, e.recorded_at)) ELSE e.at END"
)
ESP_AFTER_S = f"max(0.0, {_LATEST_AT} - e.accepted_at)"
"""the seconds from the final dot to an event `e` of an ESP"""
_DELIVERED_AT = (
    f"(SELECT {_LATEST_AT} FROM {EVENTS}.event AS e WHERE e.message_id = r.message_id AND e.position = r.position"
    " AND e.kind = 'delivered' ORDER BY e.seq LIMIT 1)"
)


def _in_time(arrived_at: str) -> str:
    within = "json_extract(:objectives, '$.\"' || r.lane || '\"')"
    return (
        f"CASE WHEN :objectives = '{{}}' OR {within} IS NULL THEN NULL WHEN r.state = 'expired' THEN 0"
        f" WHEN r.state = 'sent' THEN {arrived_at} - r.accepted_at <= {within} END"
    )


def deliveries_query(*, with_events: bool) -> str:
    """`with_events`: the events file is attached as EVENTS."""
    arrived_at = f"coalesce({_DELIVERED_AT}, r.sent_at)" if with_events else "r.sent_at"
    return (
        f"SELECT r.lane, r.upstream, r.provider, r.state, {_cut_off('(r.sent_at - r.accepted_at) * 1000')} AS ms,"
        f" count(*), {_SLOW_RECEIVE} AS slow, {_RESENT} AS resent, {_in_time(arrived_at)} AS in_time"
        " FROM message AS m JOIN recipient AS r ON r.message_id = m.id"
        " WHERE m.accepted_at >= :since AND m.accepted_at < :before AND r.open = 0"
        " GROUP BY r.lane, r.upstream, r.provider, r.state, ms, slow, resent, in_time"
    )


SLICE_ENDS = "SELECT accepted_at FROM message WHERE accepted_at > :since ORDER BY accepted_at LIMIT 1 OFFSET :messages"


def deliveries(
    connection: sqlite3.Connection, since: float, objectives: Mapping[str, float], *, with_events: bool
) -> tuple[Sequence[DeliveryRow], float | None]:
    """The first slice of `Reader.delivery_slices`, and where the next begins; None: it was the last."""
    found = connection.execute(SLICE_ENDS, {"since": since, "messages": SLICE_MESSAGES}).fetchone()
    before = None if found is None else float(found[0])
    given = {
        "since": since,
        "before": math.inf if before is None else before,
        "objectives": json.dumps(objectives),
    }
    rows = connection.execute(deliveries_query(with_events=with_events), given)
    return [
        DeliveryRow(
            lane,
            upstream,
            provider,
            state,
            ms,
            count,
            bool(slow),
            bool(resent),
            None if in_time is None else in_time > 0,
        )
        for lane, upstream, provider, state, ms, count, slow, resent, in_time in rows
    ], before


# Of a recipient's events of one kind the first counts.
REPORTED = (
    "SELECT e.lane, e.upstream, e.provider, e.kind, e.permanent,"
    f" CASE WHEN e.kind = 'delivered' THEN {_cut_off(f'{ESP_AFTER_S} * 1000')} END AS ms, count(*)"
    " FROM event AS e WHERE e.at >= :begin AND e.at < :before AND e.accepted_at >= :since AND e.kind <> 'other'"
    " AND NOT EXISTS (SELECT 1 FROM event AS f INDEXED BY event_message WHERE f.message_id = e.message_id"
    " AND f.position = e.position AND f.kind = e.kind AND f.permanent IS e.permanent AND f.seq < e.seq)"
    " GROUP BY e.lane, e.upstream, e.provider, e.kind, e.permanent, ms"
)
EVENT_SLICE_ENDS = "SELECT at FROM event WHERE at > :begin ORDER BY at LIMIT 1 OFFSET :events"


def reported(connection: sqlite3.Connection, begin: float, since: float) -> tuple[Sequence[ReportedRow], float | None]:
    """The events from `begin` on, a slice of them, and where the next begins; None: it was the last. `since`: only of
    messages accepted since then."""
    found = connection.execute(EVENT_SLICE_ENDS, {"begin": begin, "events": SLICE_EVENTS}).fetchone()
    before = None if found is None else float(found[0])
    given = {"begin": begin, "since": since, "before": math.inf if before is None else before}
    return [
        ReportedRow(lane, upstream, provider, kind, None if permanent is None else bool(permanent), ms, recipients)
        for lane, upstream, provider, kind, permanent, ms, recipients in connection.execute(REPORTED, given)
    ], before
