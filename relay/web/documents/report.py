"""The report, as the API answers it."""

from __future__ import annotations

from typing import TypedDict

from relay.config.event_kinds import EventKind
from relay.observe.bands import Band
from relay.store.model import State
from relay.web.documents.values import Count, Milliseconds, Share, Time


class Inbox(TypedDict):
    """Recipients with a delivered event, and the time from the final dot to it."""

    delivered: Count
    p50_ms: Milliseconds | None
    p95_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    bands: dict[Band, Count]


class Rates(TypedDict):
    """Shares of the finished recipients; `complained` and `unsubscribed`: of those that were sent."""

    bounced: Share
    expired: Share
    superseded: Share
    suppressed: Share
    resent: Share
    """the same rule had sent to the recipient before, within the message's life"""
    complained: Share
    unsubscribed: Share


class Objective(TypedDict):
    """A lane's objective, and the recipients that it is about: those that were sent or have expired."""

    within_ms: Milliseconds
    wanted_share: Share
    good: Count
    total: Count
    share: Share | None
    """null: it is about no recipient so far"""
    met: bool | None


class ReportLine(TypedDict):
    """Outcomes of a group of recipients. Percentiles count sent recipients; bands count those that bounced or expired,
    too."""

    lane: str
    upstream: str | None
    """null: of a lane as a whole, or none was tried"""
    provider: str | None
    """the mailbox provider; null: of a lane as a whole"""
    recipients: Count
    states: dict[State, Count]
    p50_ms: Milliseconds | None
    p95_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    bands: dict[Band, Count]
    slow_receive: Count
    """recipients whose message the app took long to hand over"""
    inbox: Inbox
    reported: dict[EventKind, Count]
    """recipients with an ESP's event of that kind"""
    rates: Rates


class LaneLine(ReportLine):
    """A lane as a whole."""

    objective: Objective | None
    """null: the lane has none"""


class Report(TypedDict):
    """What became of finished mail since a time."""

    since: Time
    lanes: list[LaneLine]
    lines: list[ReportLine]
    """by lane, upstream and mailbox provider"""
